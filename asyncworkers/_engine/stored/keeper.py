"""The keeper keeps this process alive in the eyes of the others, and brings cancellations home."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from contextvars import Context

from asyncworkers._engine.stored.link import Link
from asyncworkers._log import log
from asyncworkers.store.protocol import Lease, Maintained, Mark, Renewal
from asyncworkers.units import agreed, counted

__all__ = ["Keeper"]

ROUND = 1.0
"""Seconds between two rounds of maintenance, and between renewals while jobs run."""


class Keeper:
    """Renews from a thread of its own, so that a job that blocks the loop does not lose its lease,
    as long as the loop has turned within `max_block` seconds.

    Where time is virtual there is no thread, and the loop does it.

    `lost` is told on the loop why leases must not be relied on any more, `marked` of the jobs that
    somebody wants cancelled, `each_round` once a second.
    """

    def __init__(
        self,
        link: Link,
        max_block: float,
        *,
        lost: Callable[[str], None],
        marked: Callable[[Iterable[Mark]], None],
        each_round: Callable[[], None],
    ) -> None:
        self._link = link
        self._max_block = max_block
        self._lost, self._marked, self._each_round = lost, marked, each_round
        self._now = link.hub.clock.now
        self._ticked = self._trusted = self._now()
        self._every = min(link.store.ttl / 10, ROUND)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._said: dict[tuple[int, int], tuple[Lease, str]] = {}
        self._told_late = False
        self._distrusted = False
        self._thread: threading.Thread | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ended: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Begin; the store was opened a moment ago, so its time counts from here."""
        loop, hub = self._link.hub.loop, self._link.hub
        self._trusted = self._now() + self._link.store.ttl
        if hub.clock.real:
            self._ended = loop.create_future()
            name = f"asyncworkers-{hub.name}-keeper"
            self._thread = threading.Thread(target=self._keep, name=name, daemon=True)
            self._thread.start()
        else:
            self._tasks.append(loop.create_task(self._keep_on_loop(), context=Context()))
        self._tasks.append(loop.create_task(self._maintain(), context=Context()))

    def trusts(self) -> bool:
        """Whether what was leased is ours for certain."""
        return self._now() < self._trusted

    def say(self, lease: Lease, text: str) -> None:
        """Have this told of a running job with the next renewal; from any thread."""
        with self._lock:
            self._said[lease.seq, lease.token] = lease, text

    # ---- in the thread

    def _keep(self) -> None:
        loop = self._link.hub.loop
        try:
            while not self._over.wait(self._every):
                loop.call_soon_threadsafe(self._tick)
                blocked = self._now() - self._ticked - self._every
                if blocked <= self._max_block:
                    self._renew()
                elif not self._told_late:
                    self._told_late = True
                    log.error(
                        "the event loop has not turned for %.1f s: the leases of this process are "
                        "not renewed until it does",
                        blocked,
                    )
        except RuntimeError:
            return  # the loop was closed under us
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._has_ended)

    def _renew(self) -> None:
        before = self._now()
        with self._lock:
            said, self._said = self._said, {}
        try:
            renewal = self._link.store.renew(list(said.values()))
        except Exception as error:
            with self._lock:
                self._said = said | self._said
            self._call(self._missed, error)
            return
        self._trusted = before + self._link.store.ttl
        if renewal.lost or renewal.cancel or self._link.trouble is not None:
            self._call(self._home, renewal)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        if self._thread is None:
            function(*args)
        else:
            self._link.hub.loop.call_soon_threadsafe(function, *args)

    # ---- on the loop

    def _tick(self) -> None:
        self._ticked = self._now()
        self._told_late = False
        self._check_trust()

    def _check_trust(self) -> None:
        if self._over.is_set():
            return
        if not self.trusts():
            self._distrusted = True
            self._lost("the store has not heard of this process for too long")
        elif self._distrusted:
            self._distrusted = False
            self._link.stir()  # more may be leased again

    def _missed(self, error: BaseException) -> None:
        self._link.missed("renew", error)

    def _home(self, renewal: Renewal) -> None:
        """What the renewal brought."""
        self._link.found("renew")
        if renewal.lost:
            self._lost("this process was taken for dead, and its jobs were given to others")
            self._link.stir()
        self._marked(renewal.cancel)

    def _has_ended(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    async def _keep_on_loop(self) -> None:
        while not self._over.is_set():
            await asyncio.sleep(self._every)
            self._tick()
            self._renew()

    async def _maintain(self) -> None:
        link = self._link
        while not self._over.is_set():
            try:
                done = await link.store.maintain()
            except Exception as error:
                await link.pause(link.missed("maintain", error))
            else:
                link.found("maintain")
                if done.recovered:
                    _say_recovered(done)
            self._each_round()
            await asyncio.sleep(ROUND)

    def stop(self) -> None:
        """Renew no more; from any thread."""
        self._over.set()

    async def close(self) -> None:
        """Stop, and wait until the thread has ended."""
        self.stop()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        if self._ended is not None:
            await self._ended
            if self._thread is not None:
                self._thread.join()


def _say_recovered(done: Maintained) -> None:
    lost = f"; of them {done.lost} failed as JobLost" if done.lost else ""
    log.warning(
        "a process that had %s has died, or was not heard of for too long: the store took %s back%s",
        counted(done.recovered, "job"),
        agreed(done.recovered, "it", "them"),
        lost,
    )
