"""Room in a queue's line: who submits to a full queue waits here, first come first served."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable

from asyncworkers._engine.attempt import Attempt
from asyncworkers._engine.hub import Hub
from asyncworkers.errors import WouldDeadlock
from asyncworkers.job import Lending

__all__ = ["Room"]

WAITING_JOBS = 1_000
"""Jobs that may wait inside `submit` for room in one queue, all at once."""


class Room:
    """Keeps a queue's line within its limit.

    Room that becomes free is promised to the first who waits, and counts as taken until they have
    used it; so nobody who comes later can take it, and one who is cancelled passes it on.
    """

    __slots__ = ("_hub", "_in_line", "_name", "_waiting_jobs", "limit", "promised", "waiters")

    def __init__(
        self,
        hub: Hub,
        name: str,
        maxsize: int | None,
        in_line: Callable[[], int],
    ) -> None:
        self.limit = sys.maxsize if maxsize is None else maxsize
        self.promised = 0
        self.waiters: deque[tuple[asyncio.Future[None], int, Attempt | None]] = deque()
        self._hub = hub
        self._name = name
        self._in_line = in_line
        self._waiting_jobs = 0

    def has(self, count: int) -> bool:
        """Whether so many jobs may be put now; those who wait already come first."""
        return not self.waiters and self._in_line() + self.promised + count <= self.limit

    async def take(self, count: int, check: Callable[[], object]) -> None:
        """Wait until there is room for so many jobs, and take it for the caller, who puts them
        without awaiting before.

        A job that waits here lends its slot, or a full queue whose workers all submit to it would
        stand still. Raises WouldDeadlock if too many jobs do so already, and what `check` raises,
        which says whether jobs are still accepted now that there is room.
        """
        await self._wait_lending(count)
        self.promised -= count
        try:
            check()
        except BaseException:
            self.offer()
            raise

    async def _wait_lending(self, count: int) -> None:
        attempt = self._hub.lender_here()
        if attempt is None:
            await self._wait(count, None)
            return
        if self._waiting_jobs >= WAITING_JOBS:
            raise WouldDeadlock(
                f"{WAITING_JOBS} jobs already wait inside submit for room in queue "
                f"{self._name!r}: raise its maxsize, or submit fewer jobs from inside jobs"
            )
        self._waiting_jobs += 1
        try:
            with Lending(attempt):
                await self._wait(count, self._hub.attempt_here())
        finally:
            self._waiting_jobs -= 1

    async def _wait(self, count: int, attempt: Attempt | None) -> None:
        future = self._hub.loop.create_future()
        waiter = (future, count, attempt)
        self.waiters.append(waiter)
        try:
            await future
        except BaseException:
            if waiter in self.waiters:
                self.waiters.remove(waiter)
            elif not future.cancelled() and future.exception() is None:
                self.promised -= count  # it was ours already: somebody else may have it
            self.offer()
            raise

    def offer(self) -> None:
        """The line may have become shorter: promise the room to those who wait."""
        while self.waiters:
            future, count, _ = self.waiters[0]
            if self._in_line() + self.promised + count > self.limit:
                return
            self.waiters.popleft()
            if not future.done():
                self.promised += count
                future.set_result(None)

    def refuse(self, error: Callable[[], Exception], *, jobs_too: bool) -> None:
        """Whoever waits gets an error; the supervisor's own jobs only if `jobs_too`."""
        waiters, self.waiters = self.waiters, deque()
        for waiter in waiters:
            future, _, attempt = waiter
            if attempt is not None and not jobs_too:
                self.waiters.append(waiter)
            elif not future.done():
                future.set_exception(error())
        self.offer()
