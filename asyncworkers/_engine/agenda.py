"""An agenda holds what is due when, under one loop timer: a timer a job cost more than the job."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["Agenda"]

T = TypeVar("T")

SLACK = 64
"""Entries that may be dead before anybody looks; small against a burst, large against nothing."""


class Agenda(Generic[T]):
    """A heap of (moment, item, stamp), for which one timer of the loop is set at a time.

    Nobody takes an entry out: one whose item has moved on (`is_live` says so, by the stamp it
    was entered with) is skipped when its moment comes. So that the dead cannot pile up, they
    are swept out whenever the heap has doubled since the last sweep, which costs each entry a
    constant share.
    """

    __slots__ = (
        "_call_at",
        "_entries",
        "_is_live",
        "_now",
        "_number",
        "_sweep_at",
        "_tell",
        "_timer",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float],
        tell: Callable[[T, float], None],
        is_live: Callable[[T, float], bool],
    ) -> None:
        self._call_at = loop.call_at
        self._now = now
        self._tell = tell
        self._is_live = is_live
        self._entries: list[tuple[float, int, T, float]] = []
        self._number = 0
        self._sweep_at = SLACK
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, moment: float, item: T, stamp: float = 0) -> None:
        """Have `tell(item, stamp)` called at the moment, if the item is still live then."""
        entries = self._entries
        if len(entries) >= self._sweep_at:
            self._sweep()
        self._number += 1
        heapq.heappush(entries, (moment, self._number, item, stamp))
        if entries[0][1] == self._number:
            self._set_timer()

    def live_items(self) -> Iterator[T]:
        """What is still to come, in no order."""
        return (item for _, _, item, stamp in self._entries if self._is_live(item, stamp))

    def close(self) -> None:
        """Forget everything; no timer stays behind."""
        self._entries.clear()
        self._set_timer()

    def _sweep(self) -> None:
        live = [entry for entry in self._entries if self._is_live(entry[2], entry[3])]
        heapq.heapify(live)
        self._entries[:] = live
        self._sweep_at = 2 * len(live) + SLACK

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._entries:
            self._timer = self._call_at(self._entries[0][0], self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._now()
        entries = self._entries
        try:
            while entries and entries[0][0] <= now:
                _, _, item, stamp = heapq.heappop(entries)
                if self._is_live(item, stamp):
                    self._tell(item, stamp)
        finally:  # also if Ctrl-C came here: a notebook's loop goes on, and so does what is to come
            self._set_timer()
