"""Shows how far a map is: a bar on a terminal (with rich, if installed) and in a notebook, now and then
a line if piped.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Protocol

from asyncworkers import _checks
from asyncworkers._notebook import LiveBar, in_notebook

__all__ = ["ProgressBar"]

REDRAW = 0.1
"""Seconds between two looks at the count, on a terminal or in a notebook."""

LINES = 5.0
"""Seconds between two lines, when piped."""


class Display(Protocol):
    """Where a count is shown."""

    def show(self, done: int) -> None: ...
    def close(self, done: int) -> None: ...


class ProgressBar:
    """Looks at a count from time to time and shows it, so that counting itself costs nothing."""

    def __init__(self, title: str | None, total: int | None) -> None:
        self._title = _checks.printable(title or "jobs")
        self._total = total
        self.failed = 0  # of what ended, as far as it is known: counted by whoever knows
        self._display: Display | None = None
        self._count: Callable[[], int] = lambda: 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop, count: Callable[[], int]) -> None:
        """Begin to show the count."""
        self._count = count
        if in_notebook():
            self._display = LiveBar(self._title, self._total, loop.time, lambda: self.failed)
        elif sys.stderr.isatty():
            self._display = _terminal_display(self._title, self._total)
        else:
            self._display = _Lines(self._title, self._total)
        self._look(loop, LINES if isinstance(self._display, _Lines) else REDRAW)

    def _look(self, loop: asyncio.AbstractEventLoop, every: float) -> None:
        if self._display is not None:
            self._display.show(self._count())
            self._timer = loop.call_later(every, self._look, loop, every)

    def stop(self) -> None:
        """Show the final count and let go of the terminal."""
        if self._timer is not None:
            self._timer.cancel()
        if self._display is not None:
            self._display.close(self._count())
            self._display = None


def _terminal_display(title: str, total: int | None) -> Display:
    try:
        return _Rich(title, total)
    except ImportError:
        return _Bar(title, total)


class _Rich:
    """A live bar by the rich library."""

    def __init__(self, title: str, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import (
            MofNCompleteColumn,
            Progress,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns: list[Any] = [
            *Progress.get_default_columns()[:2],
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        ]
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(title, total=total)
        self._progress.start()

    def show(self, done: int) -> None:
        self._progress.update(self._task, completed=done)

    def close(self, done: int) -> None:
        self._progress.update(self._task, completed=done)
        self._progress.stop()


class _Bar:
    """A plain bar that is drawn over itself."""

    def __init__(self, title: str, total: int | None) -> None:
        self._title = title
        self._total = total

    def show(self, done: int) -> None:
        sys.stderr.write(f"\r{_line(self._title, done, self._total)}")
        sys.stderr.flush()

    def close(self, done: int) -> None:
        self.show(done)
        sys.stderr.write("\n")


class _Lines:
    """A line now and then, for a log."""

    def __init__(self, title: str, total: int | None) -> None:
        self._title = title
        self._total = total

    def show(self, done: int) -> None:
        print(_line(self._title, done, self._total), file=sys.stderr)

    def close(self, done: int) -> None:
        self.show(done)


def _line(title: str, done: int, total: int | None) -> str:
    if not total:
        return f"{title}: {done}"
    filled = round(20 * done / total)
    return f"{title}: [{'#' * filled}{'.' * (20 - filled)}] {done}/{total}"
