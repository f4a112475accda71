"""Shows how far a run is, from a thread of its own: bars on a terminal, lines in a pipe.

The display only looks at the run's records, so that neither the jobs nor the plain loop need to
know that anybody is watching.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from asyncworkers.demo.records import Ending, Run

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["progress_line", "watching"]

# What the jobs do, and what they count, in the order of the day.
STAGES = {
    "render": ("render", "modules"),
    "fetch": ("crawl", "addresses"),
    "parse": ("parse", "pages"),
    "compress": ("compress", "pages"),
}
_TROUBLES = (Ending.BUSY, Ending.RESET, Ending.TIMED_OUT)


@contextmanager
def watching(run: Run, stream: TextIO = sys.stdout) -> Generator[None]:
    """Show the run on the stream while the body works on it."""
    with _bars(run, stream) if stream.isatty() and _has_rich() else _lines(run, stream):
        yield


def progress_line(run: Run) -> str:
    """How far the run is, in one line: what has begun, how much is running, what went wrong."""
    parts = [
        f"{verb} {stage.done}/{max(stage.total, stage.done)} {unit}{_running(stage.running)}"
        for job, (verb, unit) in STAGES.items()
        if (stage := run.stages.get(job)) is not None
    ]
    return " · ".join([*parts, *_troubles(run)])


def _running(count: int) -> str:
    return f" ({count} at once)" if count > 1 else ""


def _troubles(run: Run) -> list[str]:
    seen = Counter(attempt.ending for attempt in list(run.attempts))
    return [f"{seen[ending]} × {ending}" for ending in _TROUBLES if seen[ending]]


def _has_rich() -> bool:
    return importlib.util.find_spec("rich") is not None


# ---- in a pipe


@contextmanager
def _lines(run: Run, stream: TextIO, every: float = 2.0) -> Generator[None]:
    """One line now and then, and a last one at the end."""
    began = time.monotonic()
    ended = threading.Event()

    def say() -> None:
        line = f"{time.monotonic() - began:6.1f} s  {progress_line(run)}"
        print(line, file=stream, flush=True)

    def keep_saying() -> None:
        # If nobody reads any more, the last line, said below, is the one to tell.
        with suppress(BrokenPipeError):
            while not ended.wait(every):
                say()

    thread = threading.Thread(target=keep_saying, name="asyncworkers demo display", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        say()


# ---- on a terminal


@contextmanager
def _bars(run: Run, stream: TextIO) -> Generator[None]:
    """A bar for each stage, redrawn a few times a second by rich's own thread."""
    from rich.console import Console
    from rich.live import Live

    with Live(
        console=Console(file=stream),
        get_renderable=_drawing(run),
        refresh_per_second=8,
    ):
        yield


def _drawing(run: Run) -> Callable[[], RenderableType]:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    began = time.monotonic()

    def draw() -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        grid.add_column(width=32)
        grid.add_column(justify="right")
        grid.add_column(style="cyan")
        for job, (verb, unit) in STAGES.items():
            stage = run.stages.get(job)
            if stage is None:
                grid.add_row(verb, ProgressBar(total=1, completed=0), "", "")
            else:
                bar = ProgressBar(total=max(stage.total, 1), completed=stage.done)
                amount = f"{stage.done}/{max(stage.total, stage.done)} {unit}"
                grid.add_row(verb, bar, amount, _running(stage.running).strip(" ()"))
        elapsed = f"{time.monotonic() - began:.1f} s"
        grid.add_row("", elapsed, "", "  ".join(_troubles(run)), style="dim")
        return grid

    return draw
