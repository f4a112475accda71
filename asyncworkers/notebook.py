"""For notebooks: a supervisor's figures as they change, below a cell, in place."""

from __future__ import annotations

import asyncio
import weakref
from contextvars import Context
from datetime import timedelta
from typing import Any, cast

from asyncworkers import Supervisor

__all__ = ["Watch", "watch"]

FASTEST = 0.05
"""Seconds between two looks, at the least: each is a message to every page that shows the notebook."""


def watch(supervisor: Supervisor, *, every: float | timedelta = 0.5) -> Watch:
    """Show the supervisor's queues below the cell, and show them anew as they change.

    The display is updated in place until `stop()` is called on what is returned, or the supervisor
    has ended, and its last state is saved with the notebook. It looks every `every` seconds, by a
    timer of the running loop: while a cell computes without awaiting, it shows nothing new. For a
    supervisor behind a portal: `portal.run(watch, portal.supervisor)`.

    Raises TypeError or ValueError for what is no supervisor or no such duration, RuntimeError
    where no event loop runs, ImportError without IPython.
    """
    if not isinstance(supervisor, Supervisor):
        raise TypeError(f"supervisor must be a Supervisor, not {supervisor!r}")
    seconds: Any = every.total_seconds() if isinstance(every, timedelta) else every
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"every must be seconds or a timedelta, not {every!r}")
    if not FASTEST <= seconds <= 3600:
        raise ValueError(f"every must be {FASTEST} to 3600 seconds, not {every!r}")
    return Watch(supervisor, seconds, asyncio.get_running_loop())


class Watch:
    """A display that `watch` has begun. It does not keep the supervisor: that may be forgotten."""

    def __init__(
        self, supervisor: Supervisor, every: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        from IPython.core import display_functions

        self._supervisor = weakref.ref(supervisor)
        self._every = every
        self._loop = loop
        self._text = repr(supervisor)
        display: Any = cast("Any", display_functions).display
        self._handle = display(_Picture(supervisor._repr_html_(), self._text), display_id=True)
        self._timer: asyncio.TimerHandle | None = loop.call_later(every, self._look)

    def stop(self) -> None:
        """Show the present state and nothing more. Harmless if it was stopped already.

        Call it in the loop, as the supervisor's own methods.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._show()

    def _look(self) -> None:
        supervisor = self._supervisor()
        if supervisor is None or supervisor.state not in ("new", "open", "draining"):
            self.stop()
            return
        self._show()
        self._timer = self._loop.call_later(self._every, self._look)

    def _show(self) -> None:
        supervisor = self._supervisor()
        if supervisor is None:
            return
        shown, self._text = supervisor._repr_html_(), repr(supervisor)
        if self._handle is not None:
            # As part of whichever cell ran last: to one that is done not every client listens. So
            # what has not changed is shown again, too: perhaps nobody has seen it.
            Context().run(self._handle.update, _Picture(shown, self._text))

    def __repr__(self) -> str:
        return f"<Watch {'stopped' if self._timer is None else 'going on'}, last: {self._text}>"


class _Picture:
    """What is shown, for pages and for terminals."""

    def __init__(self, html: str, text: str) -> None:
        self._html = html
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._html
