"""The one seam to time and chance: what a loop's clock says, the wall clock, and the dice."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["Clock"]

SAME = 0.005
"""Seconds by which two readings of both clocks may differ for no reason but that they are two."""


class Clock:
    """Time and chance as the event loop has them; the engine reads neither anywhere else.

    A test loop may define `wall()` (Unix seconds), `random` (a `random.Random`), `hold()` and
    `release()` (real work outside the loop begins and ends: virtual time must not jump over it)
    and `simulated` (no real threads may be started). Ordinary loops have none of these.
    """

    __slots__ = ("_loop", "_read", "hold", "now", "random", "real", "release", "simulated", "wall")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        given: Callable[[str, Any], Any] = lambda name, default: getattr(loop, name, default)  # noqa: E731
        self._loop = loop
        self.now: Callable[[], float] = _monotonic(loop)
        self.real = self.now is time.monotonic
        self.wall: Callable[[], float] = given("wall", time.time)
        self.random: random.Random = given("random", None) or random.Random()
        self.hold: Callable[[], None] = given("hold", _nothing)
        self.release: Callable[[], None] = given("release", _nothing)
        self.simulated: bool = given("simulated", False)
        self._read = self.now(), self.wall()

    def utc(self, moment: float) -> datetime:
        """The date of a moment of `now`, by a reading of both clocks: the same one for as long as they go
        together, so that dates are in the order of their moments.
        """
        now, wall = self._read
        here, there = self.now(), self.wall()
        if abs((there - wall) - (here - now)) > SAME:
            self._read = now, wall = here, there
        return datetime.fromtimestamp(wall, UTC) + timedelta(seconds=moment - now)

    def until(self, date: datetime) -> float:
        """Seconds from now to a date; 0 if it is past."""
        return max(0.0, date.timestamp() - self.wall())


def _monotonic(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The loop's clock, read as directly as possible.

    Stock loops and uvloop both count on `time.monotonic`; uvloop's own `time()` only moves once
    a turn and in milliseconds, and stock's is a Python call around it. Any other loop (a virtual
    one) is asked itself.
    """
    stock = getattr(type(loop), "time", None) is asyncio.BaseEventLoop.time
    if stock or type(loop).__module__.partition(".")[0] == "uvloop":
        return time.monotonic
    return loop.time


def _nothing() -> None:
    """An ordinary loop's time cannot be held."""
