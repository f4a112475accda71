"""Work for a thread that leaves the interpreter to the event loop between two steps of it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

__all__ = ["Heavy", "Step", "Unwanted"]

SLICE = 0.0005
"""Seconds that a thread keeps the interpreter at the least, if it can help it."""

PAUSE = 0.00005
"""Seconds that it leaves it to others then; with none at all it would have it back before them."""


class Unwanted(BaseException):
    """Nobody wants any more what a thread was busy with. No Exception either."""


class Heavy(Exception):
    """Arguments that are too many to be packed at once: `pack` does it, in a thread.

    `version` is what they were about to be sent with. Until they are packed they are what whoever
    gave them makes of them.
    """

    def __init__(self, version: Any, pack: Callable[[Step], Any]) -> None:
        super().__init__("these arguments are to be packed in a thread")
        self.version = version
        self.pack = pack


class Step:
    """Called in a thread between two parts of its work, it leaves the interpreter to others.

    Raises Unwanted there once `unwanted` is set.
    """

    def __init__(self) -> None:
        self.unwanted = False
        self._ends = monotonic() + SLICE

    def __call__(self) -> None:
        """Be between two parts now."""
        if self.unwanted:
            raise Unwanted
        if monotonic() >= self._ends:
            sleep(PAUSE)
            self._ends = monotonic() + SLICE
