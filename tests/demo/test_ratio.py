"""When two runs may be compared, and what is then said."""

from pathlib import Path

import pytest

from asyncworkers.demo.findings import find
from asyncworkers.demo.ratio import comparison, document, keep
from asyncworkers.demo.records import Attempt, Ending, Run, Settings


def finished(output: Path, *, sequential: bool, slow: float, **more) -> tuple[Settings, dict]:
    """The document of a whole run that took `slow` seconds a job."""
    run = Run(Settings(output, sequential=sequential, **more))
    run.attempts = [
        Attempt(job, "a", 1, "q", 1, start * slow, (start + 1) * slow, Ending.SUCCEEDED)
        for start, job in enumerate(("render", "fetch", "parse", "compress"))
    ]
    run.seconds = 4 * slow
    run.complete = True
    return run.settings, document(run, find(run))


def test_the_second_run_is_compared_with_the_first(tmp_path):
    """Whichever kind came first, the ratio reads from one after another to the supervisor."""
    keep(*finished(tmp_path, sequential=True, slow=8.0))
    quick = finished(tmp_path, sequential=False, slow=1.0)
    table = comparison(*quick)
    assert table is not None
    assert [(what, ratio) for what, ratio, _ in table.rows] == [
        ("render", "8.0 ×"),
        ("crawl and analyze", "8.0 ×"),
        ("analyze alone", "8.0 ×"),
        ("all of it", "8.0 ×"),
    ]
    assert table.rows[-1][2] == "32.0 s → 4.00 s"
    keep(*quick)
    assert comparison(*finished(tmp_path, sequential=True, slow=8.0)) == table


def test_the_ratio_says_where_the_work_was_done(tmp_path):
    """CPU-bound jobs run in child processes, which is said beside their ratio."""
    keep(*finished(tmp_path, sequential=True, slow=1.0))
    table = comparison(*finished(tmp_path, sequential=False, slow=1.0))
    assert table is not None
    said = {what: text for what, _, text in table.rows}
    assert "in child processes" in said["analyze alone"]


@pytest.mark.parametrize("change", [{"pages": 3}, {"faults": 0.5}, {"seed": 2}])
def test_runs_with_other_work_are_not_compared(tmp_path, change):
    """A ratio of two different amounts of work would say nothing."""
    keep(*finished(tmp_path, sequential=True, slow=8.0))
    assert comparison(*finished(tmp_path, sequential=False, slow=1.0, **change)) is None


def test_a_broken_off_run_is_not_compared(tmp_path):
    """Half of the work is always faster."""
    keep(*finished(tmp_path, sequential=True, slow=8.0))
    settings, half = finished(tmp_path, sequential=False, slow=1.0)
    assert comparison(settings, {**half, "complete": False}) is None


@pytest.mark.parametrize("kept", [None, "", "not JSON", "{}"])
def test_no_first_run_means_no_ratio(tmp_path, kept):
    """A file that is missing, empty, damaged or of another version is no run."""
    if kept is not None:
        (tmp_path / "sequential.json").write_text(kept)
    assert comparison(*finished(tmp_path, sequential=False, slow=1.0)) is None
