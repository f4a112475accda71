"""The commands that compare process pools run, and their tables hold what was seen."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks look into /proc"),
]


def table_of(*command: str) -> dict[str, list[str]]:
    """Run a benchmark and return its tables' cells by the first one of each row."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    cells = [[cell.strip().strip("*") for cell in row.strip("|").split("|")] for row in rows]
    return {first: rest for first, *rest in cells}


def test_every_pace_is_measured():
    """A quick run measures each workload without arrays, for us and for the reference."""
    command = ("benchmarks.bridge", "--quick", "--only", "asyncworkers")
    rows = table_of(*command, "--workloads", "outstanding,one,10 ms,lag,memory")
    ours, reference = rows["asyncworkers"], rows["ProcessPoolExecutor"]
    assert len(ours) == len(reference) == 9
    assert all(any(digit.isdigit() for digit in cell) for cell in ours + reference)
    assert reference[:3] == ["1.00"] * 3


def test_arrays_are_measured():
    """A quick run measures an array as argument and as result; sizes left out are dashes."""
    rows = table_of(
        "benchmarks.bridge", "--quick", "--only", "asyncworkers", "--workloads", "of 1 MB"
    )
    for cell in rows["asyncworkers"]:
        figure, ten, hundred = cell.split(" / ")
        assert float(figure) > 0
        assert (ten, hundred) == ("-", "-")


def test_behaviours_are_observed():
    """Crash, closure and interrupt are tried, and the words are those of what was seen."""
    pools = ("asyncworkers", "ProcessPoolExecutor")
    command = ("benchmarks.behaviours", "--quick", "--only", ",".join(pools))
    rows = table_of(*command, "--trials", "a child dies,a closure,kill -9")
    assert rows["a child dies: the job that crashed"] == ["WorkerCrashed", "BrokenProcessPool"]
    assert rows["a child dies: the job running beside it"] == ["works", "BrokenProcessPool"]
    assert rows["a closure"][0] == "works"
    assert rows["left 1 s after kill -9 of the parent: idle"][0] == "0"
