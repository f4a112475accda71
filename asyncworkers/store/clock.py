"""The one seam of the stores to time and chance: dates, lease time, and the making of ids."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

__all__ = ["Ids", "ManualClock", "StoreClock", "SystemClock"]


class StoreClock(Protocol):
    """What a store asks the time: the owner of the data owns the clock.

    Dates (due, expires, ended) are wall time, for they must still mean something after a restart.
    Leases count on a clock that nobody sets and that does not stop while the machine sleeps.
    """

    def wall(self) -> float:
        """Unix seconds."""
        ...

    def uptime(self) -> float:
        """Seconds since the machine started, time asleep included; never goes back."""
        ...

    def boot(self) -> str:
        """Which start of the machine `uptime` counts from; another value means it restarted."""
        ...


class SystemClock:
    """The machine's clocks."""

    def __init__(self) -> None:
        self._boot = _boot_id()
        self._which: int | None = getattr(time, "CLOCK_BOOTTIME", None)

    def wall(self) -> float:
        """Unix seconds."""
        return time.time()

    def uptime(self) -> float:
        """Seconds since the machine started, time asleep included where the system tells."""
        return time.monotonic() if self._which is None else time.clock_gettime(self._which)

    def boot(self) -> str:
        """The kernel's name of this start of the machine, or "" where there is none."""
        return self._boot


class ManualClock:
    """A clock that stands still until it is moved: `clock.advance(3600)`. For tests."""

    def __init__(self, wall: float = 1_800_000_000.0) -> None:
        self._wall = wall
        self._uptime = 1_000.0
        self._boot = "boot 1"

    def wall(self) -> float:
        """Unix seconds, as set."""
        return self._wall

    def uptime(self) -> float:
        """Seconds since the imagined start of the machine."""
        return self._uptime

    def boot(self) -> str:
        """The imagined start of the machine."""
        return self._boot

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks."""
        self._wall += seconds
        self._uptime += seconds

    def set_wall(self, wall: float) -> None:
        """Set the wall clock, as an administrator would; leases must not care."""
        self._wall = wall

    def restart(self) -> None:
        """Start the imagined machine again: uptime counts anew."""
        self._uptime = 1.0
        self._boot = f"boot {int(self._boot.split()[1]) + 1}"


def _boot_id() -> str:
    if sys.platform != "linux":
        return ""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:  # a container without /proc: leases then end by their time alone
        return ""


class Ids:
    """Makes job ids: 128 bits in 32 hex digits, in order of time to the millisecond.

    80 of the bits are chance, so that ids made anywhere do not meet.
    """

    def __init__(self, wall: Callable[[], float], dice: random.Random) -> None:
        self._wall, self._bits = wall, dice.getrandbits
        self._moment, self._head = -1, ""

    def new(self) -> str:
        """The next id."""
        moment = int(self._wall() * 1000)
        if moment != self._moment:
            self._moment, self._head = moment, f"{moment:012x}"
        return self._head + self._bits(80).to_bytes(10, "big").hex()
