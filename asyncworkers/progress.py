"""Shows how far a map is: a bar on a terminal (with rich, if installed) and in a notebook, now and then
a line if piped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TextIO, cast

from asyncworkers import _checks
from asyncworkers._notebook import LiveBar, in_notebook
from asyncworkers.units import how_far

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
        self._display: Display | None = None
        self._count: Callable[[], int] = lambda: 0
        self._timer: asyncio.TimerHandle | None = None

    def start(
        self,
        loop: asyncio.AbstractEventLoop,
        count: Callable[[], int],
        missed: Callable[[], Mapping[str, int]],
    ) -> None:
        """Begin to show the count of what has ended, and of that what `failed` or was `cancelled`."""
        self._count = count
        if in_notebook():
            self._display = LiveBar(self._title, self._total, loop.time, missed)
        else:
            gauge = Gauge(self._title, self._total, loop.time, missed)
            self._display = _terminal_display(gauge) if _is_terminal() else _Lines(gauge)
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


class Gauge:
    """Says how far something is: the count, what failed, the rate, and how long it will still take."""

    def __init__(
        self,
        title: str,
        total: int | None,
        now: Callable[[], float],
        missed: Callable[[], Mapping[str, int]],
    ) -> None:
        self.title = title
        self.total = total
        self._now = now
        self._missed = missed
        self._began = now()

    def said(self, done: int, *, over: bool = False) -> str:
        """All but the title."""
        lasted = self._now() - self._began
        return how_far(done, self.total, lasted, **self._missed(), over=over)

    def line(self, done: int, *, over: bool = False) -> str:
        """All of it, with a bar of plain characters if the total is known."""
        bar = ""
        if self.total:
            filled = round(20 * min(1.0, done / self.total))
            bar = f"[{'#' * filled}{'.' * (20 - filled)}] "
        return f"{self.title}: {bar}{self.said(done, over=over)}"


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _write(text: str, stream: TextIO | None = None) -> None:
    """Write; that nobody reads any more, or the like, is no reason for a map to fail."""
    where: TextIO = stream or sys.stderr
    with contextlib.suppress(OSError, ValueError):
        where.write(text)
        where.flush()


def _terminal_display(gauge: Gauge) -> Display:
    try:
        return _Rich(gauge)
    except ImportError:
        return _Bar(gauge)


class _LinesOfTheirOwn(logging.Filter):
    """While a bar is shown, clears its line before a log record is written to the same terminal: the
    record has the line for itself, and the bar is drawn anew below it.

    It is a filter of the handlers there are. A handler that looks `sys.stderr` up each time writes
    through rich where rich draws the bar, and needs none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._handlers: list[logging.Handler] = []

    def start(self) -> None:
        """The first bar is about to be shown."""
        loggers = [logging.root, *logging.root.manager.loggerDict.values()]
        found = {one for logger in loggers for one in getattr(logger, "handlers", ())}
        terminals: tuple[Any, ...] = (sys.__stderr__, sys.__stdout__)
        for handler in (*found, logging.lastResort):
            stream: Any = getattr(handler, "stream", None)
            ours = bool(stream) and any(stream is one for one in terminals)
            if handler is not None and ours and cast("TextIO", stream).isatty():
                handler.addFilter(self)
                self._handlers.append(handler)

    def stop(self) -> None:
        """The last bar is over."""
        while self._handlers:
            self._handlers.pop().removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002
        """Let everything pass."""
        _write("\r\x1b[K", sys.__stderr__)
        return True


_lines_of_their_own = _LinesOfTheirOwn()


class _Rich:
    """A live bar by the rich library, one below the other if there are several."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._screen = screen = _Screen.open()
        said = gauge.said(0)
        self._task = screen.progress.add_task(gauge.title, total=gauge.total, said=said)

    def show(self, done: int) -> None:
        self._update(done, over=False)
        with contextlib.suppress(OSError, ValueError):
            self._screen.progress.refresh()

    def close(self, done: int) -> None:
        self._update(done, over=True)
        with contextlib.suppress(OSError, ValueError):
            self._screen.leave(self._task, self._gauge.line(done, over=True))

    def _update(self, done: int, *, over: bool) -> None:
        said = self._gauge.said(done, over=over)
        self._screen.progress.update(self._task, completed=done, said=said)


class _Screen:
    """What all bars of a terminal share: rich draws one block of live lines at a time.

    It is drawn when a bar says so, not by a thread; and the cursor stays visible, so that a
    process that is killed leaves a terminal that can be used.
    """

    lock = threading.Lock()
    shown: _Screen | None = None

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._bars = 0
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            console=Console(stderr=True),
            auto_refresh=False,
        )

    @classmethod
    def open(cls) -> _Screen:
        """The one that is shown, or a new one."""
        with cls.lock:
            screen = cls.shown
            if screen is None:
                screen = cls()
                screen.progress.start()
                screen.progress.console.show_cursor(True)
                _lines_of_their_own.start()
                cls.shown = screen
            screen._bars += 1
            return screen

    def leave(self, task: Any, line: str) -> None:
        """A bar is over: its last line stays; above the others, if there are any."""
        with self.lock:
            self._bars -= 1
            last = self._bars == 0
            if last:
                _Screen.shown = None
                _lines_of_their_own.stop()
        if last:
            self.progress.stop()
        else:
            self.progress.remove_task(task)
            self.progress.console.print(line, markup=False, highlight=False)


class _Bar:
    """A plain bar that is drawn over itself; several of them share a line."""

    shown: ClassVar[dict[_Bar, int]] = {}

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge

    def show(self, done: int) -> None:
        if not self.shown:
            _lines_of_their_own.start()
        self.shown[self] = done
        _write(self._line())

    def close(self, done: int) -> None:
        self.shown.pop(self, None)
        if not self.shown:
            _lines_of_their_own.stop()
        _write(f"\r{self._gauge.line(done, over=True)}\x1b[K\n{self._line()}")

    def _line(self) -> str:
        lines = [bar._gauge.line(done) for bar, done in self.shown.items()]
        room = shutil.get_terminal_size().columns - 1
        return f"\r{' | '.join(lines)[:room]}\x1b[K" if lines else ""


class _Lines:
    """A line now and then, for a log."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge

    def show(self, done: int) -> None:
        _write(self._gauge.line(done) + "\n")

    def close(self, done: int) -> None:
        _write(self._gauge.line(done, over=True) + "\n")
