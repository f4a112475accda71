"""Termination signals: chained to whoever handled them before, and put back afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import weakref
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any, Protocol, Self

__all__ = ["SignalChain", "home", "residents", "runs_in"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], Any]


class SignalChain:
    """Hears of SIGINT and SIGTERM without taking them away from anybody.

    Facts this follows:
    - `loop.add_signal_handler` and a plain `signal.signal` replace what was there, and a server
      whose handler was replaced never stops. So the previous handler is called after ours.
    - Python runs handlers in the main thread only, between two bytecodes, also while a job
      blocks the loop in Python code. Elsewhere than in the main thread nothing is installed.
    - Somebody may install a handler after us, perhaps one that calls ours. So on leaving, ours
      is only taken back if it is still the one installed; otherwise it falls silent, and only
      passes signals on.
    """

    def __init__(self, heard: Callable[[int], None], *, call_previous: bool) -> None:
        self._heard = heard
        self._call_previous = call_previous
        self._previous: dict[int, Any] = {}
        self._silent = True

    def __enter__(self) -> Self:
        self._silent = False
        self._previous.clear()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                previous = signal.getsignal(number)
                if previous is None or previous is signal.SIG_IGN:
                    continue  # installed from C, or ignored on purpose (nohup, a shell's `&`)
                self._previous[number] = previous
                signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._silent = True
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, previous)

    def do_default(self, number: int) -> None:
        """If nobody else handles this signal, have it do now what it does then: end the process."""
        if self._previous.get(number) is signal.SIG_DFL and not self._silent:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous.get(number)
        if not self._silent:
            self._heard(number)
        # Also when ours is over: a handler that was installed after it may still call it.
        if (self._call_previous or self._silent) and callable(previous):
            previous(number, frame)


class Drainable(Protocol):
    """What a signal may tell to end."""

    @property
    def state(self) -> str: ...
    async def drain(self, grace: float | None = None) -> Any: ...
    def cancel_all(self, reason: str = ...) -> None: ...


_residents: dict[asyncio.AbstractEventLoop, list[weakref.ref[Any]]] = {}
"""The supervisors that were entered in the loops that `run()` made, which handles the signals for
them. Held weakly: one that was never left must still be noticed when it goes away."""


@contextlib.contextmanager
def home(loop: asyncio.AbstractEventLoop) -> Generator[None]:
    """Take note of every supervisor that is entered in this loop."""
    _residents[loop] = []
    try:
        yield
    finally:
        del _residents[loop]


def residents(loop: asyncio.AbstractEventLoop) -> list[Drainable]:
    """The supervisors in this loop that have not ended, in the order in which they were entered."""
    found = [reference() for reference in _residents[loop]]
    return [one for one in found if one is not None and one.state in ("open", "draining")]


def runs_in(loop: asyncio.AbstractEventLoop, supervisor: Drainable) -> None:
    """A supervisor was entered: if the loop is one of `run()`, that takes note."""
    if loop in _residents:
        alive = residents(loop)  # a program may enter and leave any number of them
        _residents[loop] = [weakref.ref(one) for one in (*alive, supervisor)]
