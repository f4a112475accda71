"""What a notebook's kernel needs: a display that is updated in place, and a loop that can be interrupted.

No widget: the last state of a display is saved with the rest of the notebook.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, cast

from asyncworkers import _html
from asyncworkers.units import how_far

__all__ = ["LiveBar", "in_notebook", "keep_awake"]

PULSE = 0.1
"""Seconds after which an interrupt is heard at the latest."""


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel. Asking costs nothing where IPython is not in use."""
    if "ipykernel" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None  # a terminal's IPython has none


def keep_awake(loop: asyncio.AbstractEventLoop, wanted: Callable[[], bool]) -> None:
    """Have the loop turn now and then, as long as that is wanted.

    When a cell is interrupted its kernel cancels the cell's task in a signal handler, and nothing
    tells the loop: one that sleeps, since all work is done in processes, would sleep on.
    """
    if wanted():
        loop.call_later(PULSE, keep_awake, loop, wanted, context=Context())


class LiveBar:
    """A count as a bar with its rate, and how long it will still take."""

    def __init__(
        self,
        title: str,
        total: int | None,
        now: Callable[[], float],
        missed: Callable[[], Mapping[str, int]],
    ) -> None:
        self._title = title
        self._total = total
        self._now = now
        self._missed = missed
        self._began = now()
        self._done = 0
        self._over = False
        self._shown = ""
        self._handle: Any = None

    def show(self, done: int) -> None:
        """Show the count, unless nothing that can be seen of it has changed."""
        self._done = done
        drawn = self._repr_html_()
        if drawn == self._shown:
            return
        self._shown = drawn
        if self._handle is None:
            from IPython.core import display_functions

            self._handle = cast("Any", display_functions).display(self, display_id=True)
        else:
            # As part of whichever cell runs now: from one that is done, not every client listens.
            Context().run(self._handle.update, self)

    def close(self, done: int) -> None:
        """Show the count for the last time."""
        self._over = True
        self.show(done)

    def __repr__(self) -> str:
        return f"{self._title}: {self._said()}"

    def _repr_html_(self) -> str:
        total = self._total
        if self._over and total is None:
            total = self._done  # as many as there were
        return _html.block(
            self._title, f"<div>{_html.bar(self._done, total)} {_html.text(self._said())}</div>"
        )

    def _said(self) -> str:
        lasted = self._now() - self._began
        return how_far(self._done, self._total, lasted, **self._missed(), over=self._over)
