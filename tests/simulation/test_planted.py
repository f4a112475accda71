"""The simulation finds every bug that is planted in a copy of the package, and soon."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plant import PATCHES, DoesNotApply, copy_with

WITHIN = 6_000
"""Seeds within which each planted bug has to be found; most are found within a hundred."""

ALL = sorted(PATCHES.glob("*.patch"))


def test_there_are_enough_planted_bugs():
    """A simulation is only as good as the bugs it is known to find: at least ten are planted."""
    assert len(ALL) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("patch", ALL, ids=lambda patch: patch.stem)
def test_a_planted_bug_is_found(patch, tmp_path):
    """With the bug some seed fails; without it all of them pass, as test_seeds shows."""
    copy_with(patch, tmp_path)
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name("explore.py"),
            "0",
            str(WITHIN),
            "--until-failure",
        ],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.stdout, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert Path(summary["package"]).is_relative_to(tmp_path), "another copy of the package ran"
    assert summary["failures"], f"not found within {WITHIN} seeds: {patch.read_text()}"


def test_a_patch_that_does_not_apply_says_so(tmp_path):
    """When the code it is about has changed, a planted bug fails its test by name."""
    patch = tmp_path / "outdated.patch"
    patch.write_text(
        "--- a/asyncworkers/errors.py\n+++ b/asyncworkers/errors.py\n@@\n-was = there\n+is = not\n"
    )
    with pytest.raises(DoesNotApply, match=r"outdated\.patch does not apply.*0 times"):
        copy_with(patch, tmp_path / "copy")
