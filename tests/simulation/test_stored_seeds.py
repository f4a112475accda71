"""Stored jobs in simulated processes: no seed violates what is promised, and planted bugs are found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plant import copy_with

EXPLORE = Path(__file__).with_name("explore_stored.py")
PATCHES = sorted((EXPLORE.parent / "planted_stored").glob("*.patch"))

SEEDS = int(os.environ.get("ASYNCWORKERS_STORED_SEEDS", "400"))
WITHIN = 1_000
"""Seeds within which each planted bug has to be found; most are found within ten."""


def explore(*arguments, path=None):
    """Run seeds in a process of its own; the summary of what was found."""
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, EXPLORE, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_seeds_of_stored_jobs():
    """Whatever fails and whoever is cut off: every accepted job ends, as what its code did, once."""
    summary = explore(0, SEEDS)
    assert summary["failures"] == {}
    assert summary["ran"] == SEEDS
    for what in ("failed before", "failed after", "cut off", "lost and run again", "once failed"):
        assert summary["tally"].get(what, 0) > 0, f"{what}: never happened"


def test_a_run_of_stored_jobs_can_be_repeated():
    """The same seeds take the same course in another process."""
    assert explore(0, 5)["digests"] == explore(0, 5)["digests"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_planted_bug_of_stored_jobs_is_found(patch, tmp_path):
    """With the bug some seed fails; without it all of them pass, as the test above shows."""
    copy_with(patch, tmp_path)
    summary = explore(0, WITHIN, "--until-failure", path=tmp_path)
    assert Path(summary["package"]).is_relative_to(tmp_path), "another copy of the package ran"
    assert summary["failures"], f"not found within {WITHIN} seeds: {patch.read_text()}"
