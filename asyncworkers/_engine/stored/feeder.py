"""The feeder leases what free workers can take, and a little ahead, and waits where there is nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from functools import partial

from asyncworkers._engine.stored.forms import Listed
from asyncworkers._engine.stored.link import EMPTY, Link
from asyncworkers._engine.stored.queue import Held, StoredQueue
from asyncworkers.store.protocol import Lease, Settlement, Want

__all__ = ["Feeder"]

LONGEST_WAIT = 60.0
"""Seconds that one call waits for jobs."""

MOST_UNSETTLED = 5_000
"""Settlements that may wait to be written before nothing new is leased."""

FRUITLESS = 0.02
"""Seconds to wait before another look, when the last ones promised more than there was."""

NOTHING: Mapping[str, int] = {}
"""No jobs are coming to any queue."""


class Feeder:
    """Brings leases to their queues.

    `pull` asks, at once, unless a call is under way: each call is followed by the next one, for as
    long as anything is wanted. A queue whose last lease brought less than was wanted is dry: it is
    not asked for again before the store says that there is something, or something was submitted
    here.
    """

    def __init__(
        self,
        link: Link,
        queues: Iterable[StoredQueue],
        functions: dict[str, Listed],
        may: Callable[[], bool],
        backlog: Callable[[], int],
    ) -> None:
        self._link = link
        self._queues = {queue.name: queue for queue in queues}
        self._functions = functions
        self._may = may
        self._backlog = backlog
        self._wet = set(self._queues)
        self._asked: dict[str, Want] = {}
        self._leasing: asyncio.Future[list[Lease]] | None = None
        self._fruitless = 0  # leases in a row that brought nothing
        self._resting = False
        self._uncertain = False  # whether we hold leases that nobody told us of
        self.closed = False
        self._task: asyncio.Task[None] | None = None
        self._waiting: asyncio.Future[bool] | None = None
        self._waits_for: frozenset[str] = frozenset()
        self._stirred: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Ask for what is there, and wait for more."""
        self.pull()
        self._task = self._link.hub.loop.create_task(self._watch(), context=Context())

    def submitted(self, queue: str) -> None:
        """Something is being submitted here: ask for it, in the same turn of the loop."""
        if queue in self._queues:
            self._wet.add(queue)
            self._link.stir()

    def pull(self, coming: Mapping[str, int] = NOTHING) -> None:
        """Ask for what is wanted beyond what is coming, if anything is and it may be there."""
        if self._leasing is not None:
            return  # which asks again when it is answered
        if self.closed or self._resting or not self._may():
            return
        if self._backlog() > MOST_UNSETTLED:
            return
        wants: dict[str, Want] = {}
        hungry = False
        for name, queue in self._queues.items():
            free, ahead = queue.capacity(coming.get(name, 0))
            if free <= 0 and ahead <= 0:
                continue
            if name in self._wet:
                wants[name] = Want(name, free, ahead)
            elif name not in self._waits_for:
                hungry = True
        if wants:
            self._asked = wants
            batch = list(wants.values())
            self._leasing = self._link.start(lambda: self._link.store.lease(batch))
            self._leasing.add_done_callback(self._leased, context=EMPTY)
        if hungry:
            self._wait_anew()

    def _leased(self, future: asyncio.Future[list[Lease]]) -> None:
        self._leasing = None
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            self._uncertain = True
            self._rest(self._link.missed("maintain", error))
            return
        found: dict[str, list[Lease]] = {name: [] for name in self._asked}
        unwanted: list[Lease] = []
        where = {
            name: unwanted if self.closed or self._queues[name].crew.held else fed
            for name, fed in found.items()
        }
        told: set[int] = set()
        runs = self._link.runs
        for lease in future.result():
            if lease.seq in told or (lease.id in runs and self._is_here(lease)):
                continue  # a store may say a thing twice
            told.add(lease.seq)
            known = lease.name in self._functions
            (where.get(lease.queue, unwanted) if known else unwanted).append(lease)
        for name, want in self._asked.items():
            if len(found[name]) < want.free + want.ahead:
                self._wet.discard(name)
        self._fruitless = 0 if future.result() else self._fruitless + 1
        # The store looks for the next ones while these run: they may take all of this turn.
        self.pull({name: len(leases) for name, leases in found.items()})
        for name, leases in found.items():
            if leases:
                self._queues[name].feed(leases)
        self.release(unwanted)
        self._wait_anew_if_hungry()

    def _is_here(self, lease: Lease) -> bool:
        """Whether this very lease is in hand."""
        held = getattr(self._link.runs.get(lease.id), "_rare", None)
        return isinstance(held, Held) and held.lease.token == lease.token

    def release(self, leases: Iterable[Lease]) -> None:
        """Give back what nobody here is going to run."""
        settlements = [Settlement.release(lease) for lease in leases]
        if settlements:
            self._link.see_to(lambda: self._link.store.settle(settlements))

    def _rest(self, seconds: float) -> None:
        """The store is away: ask again after a while."""
        self._resting = True
        self._link.hub.loop.call_later(seconds, self._rested, context=EMPTY)

    def _rested(self) -> None:
        if self.closed:
            return
        if not self._uncertain:
            self._resting = False
            self.pull()
            return
        held = self._link.start(self._link.store.holding)
        held.add_done_callback(self._held, context=EMPTY)

    def _held(self, future: asyncio.Future[list[Lease]]) -> None:
        """What we hold, after a call whose outcome was unknown: what we do not know of goes back."""
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            self._rest(self._link.missed("maintain", error))
            return
        self._uncertain = False
        held = [job._rare for job in self._link.runs.values()]
        ours = {(one.lease.seq, one.lease.token) for one in held if isinstance(one, Held)}
        self.release(one for one in future.result() if (one.seq, one.token) not in ours)
        self._resting = False
        self._wet.update(self._queues)
        self.pull()

    # ---- waiting

    def _dry(self) -> frozenset[str]:
        """The queues that could do more and have nothing."""
        return frozenset(
            name
            for name, queue in self._queues.items()
            if name not in self._wet and max(queue.capacity()) > 0
        )

    def _wait_anew_if_hungry(self) -> None:
        if not self._dry() <= self._waits_for:
            self._wait_anew()

    def _wait_anew(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        elif self._stirred is not None and not self._stirred.done():
            self._stirred.set_result(None)

    async def _watch(self) -> None:
        link = self._link
        while not self.closed:
            dry = self._dry()
            if not dry or self._resting or not self._may():
                self._waits_for = frozenset()
                self._stirred = link.hub.loop.create_future()
                await self._stirred
                self._stirred = None
                continue
            self._waits_for = dry
            self._waiting = waiting = link.start(partial(link.store.wait_ready, dry, LONGEST_WAIT))
            try:
                ready = await waiting
            except asyncio.CancelledError:
                if not waiting.cancelled() or self._has_closed():
                    raise
                continue
            except Exception as error:
                self._waits_for = frozenset()
                await link.pause(link.missed("maintain", error))
                self._wet.update(self._queues)
                self.pull()
                continue
            finally:
                self._waiting = None
                self._waits_for = frozenset()
            if ready:
                self._wet.update(dry)
                self.pull()
                if self._fruitless > 3:  # what is there cannot be had: others are faster
                    await link.pause(FRUITLESS)

    def stir(self) -> None:
        """Something has changed: a worker is free, a queue goes on, the store is back."""
        self.pull()
        if self._stirred is not None and not self._stirred.done() and self._dry():
            self._stirred.set_result(None)

    def _has_closed(self) -> bool:
        return self.closed

    def stop(self) -> None:
        """Lease nothing more; what a call under way brings goes back."""
        self.closed = True
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Wait until the last call has been answered."""
        self.stop()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        while self._leasing is not None:
            with contextlib.suppress(Exception):
                await self._leasing
            await asyncio.sleep(0)  # it may be done already, and `_leased` not yet have heard of it
