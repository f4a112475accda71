"""The settler writes judgements to the store: all that gathered while its last call ran, in one call."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, TypeAlias, cast

from asyncworkers._engine.stored.link import EMPTY, Link
from asyncworkers.job import Job
from asyncworkers.store.protocol import LIMIT, Settlement, Transaction

__all__ = ["Settler"]


class Told(Protocol):
    """The queue that wants to hear what became of a settlement."""

    def settled(self, job: Job[Any], settlement: Settlement, accepted: bool) -> None: ...
    def uncommitted(self, job: Job[Any], error: Exception) -> None: ...


_Entry: TypeAlias = tuple[Settlement, Job[Any], Told]


class Settler:
    """Batches by nature: there is no timer, and nothing waits longer than for the call before it.

    A call that failed is made again with the same settlements, and those that came since, until it
    is answered: a store settles nothing twice.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._gathered: list[_Entry] = []
        self._under_way: list[_Entry] = []
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._closed = False
        self._apart: set[asyncio.Future[bool]] = set()  # each committed with rows of its job's own

    @property
    def backlog(self) -> int:
        """Settlements that are not known to be written."""
        return len(self._gathered) + len(self._under_way) + len(self._apart)

    def add(self, settlement: Settlement, job: Job[Any], queue: Told) -> None:
        """Have this written; the queue is told."""
        self._gathered.append((settlement, job, queue))
        self._link.stir()

    def commit(
        self, transaction: Transaction, settlement: Settlement, job: Job[Any], queue: Told
    ) -> None:
        """Have this written, and committed with the job's own rows."""
        future = self._link.start(lambda: transaction.settle(settlement))
        self._apart.add(future)

        def answered(future: asyncio.Future[bool]) -> None:
            self._apart.discard(future)
            error = future.exception()
            if error is None:
                queue.settled(job, settlement, future.result())
            else:
                queue.uncommitted(job, cast("Exception", error))
            self._link.stir()
            if not self.backlog:
                self._wake()

        future.add_done_callback(answered, context=EMPTY)

    def flush(self) -> None:
        """Hand over what has gathered, unless a call is under way, or has just failed."""
        if self._closed or self._under_way or not self._gathered or self._timer is not None:
            return
        batch, self._gathered = self._gathered[:LIMIT], self._gathered[LIMIT:]
        self._under_way = batch
        settlements = [settlement for settlement, _, _ in batch]
        future = self._link.start(lambda: self._link.store.settle(settlements))
        future.add_done_callback(self._answered, context=EMPTY)

    def _answered(self, future: asyncio.Future[list[bool]]) -> None:
        batch, self._under_way = self._under_way, []
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            self._gathered[:0] = batch
            if self._closed:
                return
            seconds = self._link.missed("settle", error)
            self._timer = self._link.hub.loop.call_later(seconds, self._again, context=EMPTY)
            return
        self._link.found("settle")
        self.flush()  # what gathered meanwhile, before anything else: the store waits for nothing
        for (settlement, job, queue), accepted in zip(batch, future.result(), strict=True):
            queue.settled(job, settlement, accepted)
        self._link.stir()
        if not self.backlog:
            self._wake()

    def _again(self) -> None:
        self._timer = None
        self.flush()

    async def written(self, seconds: float) -> bool:
        """Wait until everything is written, at most so long; whether it is."""
        loop = self._link.hub.loop
        self.flush()
        if self.backlog:
            future: asyncio.Future[None] = loop.create_future()
            self._waiters.append(future)
            timer = loop.call_later(seconds, self._wake)
            try:
                await future
            finally:
                timer.cancel()
        return not self.backlog

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Nothing is written any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
