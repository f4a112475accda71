"""Termination signals: chained to whoever handled them before, and put back afterwards."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextvars import ContextVar
from types import FrameType
from typing import Any, Protocol, Self

__all__ = ["SignalChain", "runs_in"]

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
      is only put back if it is still the one installed; otherwise it falls silent.
    """

    def __init__(self, heard: Callable[[int], None], *, call_previous: bool) -> None:
        self._heard = heard
        self._call_previous = call_previous
        self._previous: dict[int, Any] = {}
        self._silent = True

    def __enter__(self) -> Self:
        self._silent = False
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
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous.get(number)
        if not self._silent:
            self._heard(number)
        if self._call_previous and callable(previous):
            previous(number, frame)


class Drainable(Protocol):
    """What a signal may tell to end."""

    @property
    def state(self) -> str: ...
    async def drain(self) -> Any: ...
    def cancel_all(self, reason: str = ...) -> None: ...


home: ContextVar[list[Any]] = ContextVar("asyncworkers_run")
"""The supervisors that were entered under `run()`, which handles the signals for them."""


def runs_in(supervisor: Drainable) -> None:
    """A supervisor was entered: if `run()` is at the bottom of this context, it takes note."""
    supervisors = home.get(None)
    if supervisors is not None:
        supervisors.append(supervisor)
