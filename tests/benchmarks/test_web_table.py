"""The command that measures web applications runs, and has a figure for each row."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.web import BASELINE, ROWS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]


@pytest.mark.parametrize("wrk", [True, False])
def test_every_row_is_measured(wrk: bool) -> None:
    """A quick run serves each application and measures each row; without `wrk` those that are asked for.
    The baseline is measured against itself.
    """
    only = "" if wrk else "await submit**"
    wanted = {title.strip("*") for title in ROWS if only in title} | {BASELINE}
    environment = {} if wrk else {"env": {"PATH": ""}}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.web",
            "--rounds",
            "1",
            "--seconds",
            "0.2",
            "--only",
            only,
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        **environment,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    cells = {
        row[0].strip("*"): row[1:]
        for row in ([c.strip() for c in r.strip("|").split("|")] for r in rows)
    }
    assert cells.keys() == wanted
    assert cells["BackgroundTasks"][1] == "1.00"
    assert all(float(cell.replace(",", "")) > 0 for row in cells.values() for cell in row)
