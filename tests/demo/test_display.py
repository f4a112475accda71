"""What is shown of a run while it lasts."""

import io
from pathlib import Path

import pytest

from asyncworkers.demo import display
from asyncworkers.demo.display import progress_line, watching
from asyncworkers.demo.records import Attempt, Ending, Run, Settings, Stage


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def run():
    """Return a run in the middle of its work."""
    run = Run(Settings(Path("out")))
    run.stages = {
        "render": Stage(90, 90),
        "fetch": Stage(40, 100, running=25),
        "parse": Stage(7, 9),
    }
    run.attempts = [Attempt("fetch", "a", 1, "default", 1, 0.0, 1.0, Ending.BUSY)] * 3
    return run


def test_one_line_says_how_far_all_of_it_is(run):
    """Stages that have begun, in the order of the day, what runs at once, and what went wrong."""
    assert progress_line(run) == (
        "render 90/90 modules · crawl 40/100 addresses (25 at once) · parse 7/9 pages · 3 × 503"
    )


def test_a_pipe_gets_plain_lines(run):
    """Not a single control character, and a last line however short the run was."""
    stream = io.StringIO()
    with watching(run, stream):
        run.stages["parse"].done = 9
    text = stream.getvalue()
    assert text.endswith(f"{progress_line(run)}\n")
    assert "parse 9/9 pages" in text
    assert "\x1b" not in text


def test_a_terminal_gets_bars(run):
    """The bars show the same figures as the line."""
    stream = Terminal()
    with watching(run, stream):
        pass
    for word in ("render", "90/90 modules", "40/100 addresses", "25 at once", "3 × 503"):
        assert word in stream.getvalue()


def test_a_terminal_without_rich_gets_lines(run, monkeypatch):
    """Bars are a comfort: without the library that draws them the demo works."""
    monkeypatch.setattr(display, "_has_rich", lambda: False)
    stream = Terminal()
    with watching(run, stream):
        pass
    assert "\x1b" not in stream.getvalue()
    assert "render 90/90 modules" in stream.getvalue()
