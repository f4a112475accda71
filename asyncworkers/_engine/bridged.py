"""A bridged worker owns something that may die under it, a child or a bridge; what is done then."""

from __future__ import annotations

import asyncio
from typing import Any

from asyncworkers._engine.attempt import Attempt
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._log import log
from asyncworkers.errors import WorkerCrashed
from asyncworkers.job import RUNNING, Job
from asyncworkers.outcome import Failed

__all__ = ["BridgedWorker", "Losses"]

ENOUGH = 3
"""Deaths one after the other, no job having ended between, before there is a pause."""

PAUSES = (0.1, 5.0)
"""Seconds until the next one is started then: the first pause, doubled up to the last."""

FAILED_AT_ONCE = 1_000
"""Jobs that are told at a time that none can be started."""


class Losses:
    """What the bridged workers of a queue know of each other: who is ready, and how many died lately.

    `what` and `many` name what they own, for people.
    """

    def __init__(self, what: str, many: str) -> None:
        self.what = what
        self.many = many
        self.deaths = 0  # since a job ended last
        self.ready: dict[BridgedWorker, None] = {}

    def pause(self) -> float:
        """Seconds to wait before another one is started."""
        if self.deaths < ENOUGH:
            return 0.0
        return min(PAUSES[0] * 2.0 ** min(self.deaths - ENOUGH, 20), PAUSES[1])


class BridgedWorker(Attempt):
    """What all these workers do: begin a job, mourn, rest, and hold a virtual clock."""

    __slots__ = ("_began", "_held", "_losses", "_rest", "home")

    def __init__(self, queue: MemoryQueue, number: int, losses: Losses) -> None:
        super().__init__(queue, number)
        self.home = queue
        self._losses = losses
        self._began = False  # a job has, here
        self._held = False
        self._rest: asyncio.Future[None] | None = None

    def _begin(self, job: Job[Any], started: float) -> None:
        """This job has begun."""
        self._began = True
        self.home.begin(job, self, started)

    async def _mourn(self, cause: str) -> None:
        """It has died: tell of it, and keep its place empty for a while if that is the rule."""
        queue, losses = self.home, self._losses
        if queue.hub.stopping is not None:
            return
        losses.deaths += 1
        queue.teller.gone(self, losses.what, cause)
        if not self._began and losses.deaths >= ENOUGH and not losses.ready:
            self._fail_what_waits()
        pause = losses.pause()
        if pause:
            log.warning(
                "%d %s of queue %r died one after the other: no other is started for %g s",
                losses.deaths,
                losses.many,
                queue.name,
                pause,
            )
            loop = queue.hub.loop
            self._rest = loop.create_future()
            timer = loop.call_later(pause, self._end_rest)
            try:
                await self._rest
            finally:
                timer.cancel()

    def _end_rest(self) -> None:
        if self._rest is not None and not self._rest.done():
            self._rest.set_result(None)

    def _fail_what_waits(self) -> None:
        """None can be started, so nothing can run: what waits is told so, rather than wait for ever."""
        for _ in range(FAILED_AT_ONCE):
            job = self._take()
            if job is None:
                return
            packed = getattr(job, "_value", None)
            job._value = self
            self._begin(job, self.home.now())
            self.home.conclude(job, self, Failed(self._unready(job)), self.home.now())
            if job._state < RUNNING and packed.__class__ is tuple:
                job._value = packed  # it is retried as it was submitted

    def _take(self) -> Job[Any] | None:
        """The next job of the queue."""
        return self.home.take_job()

    def _unready(self, job: Job[Any]) -> WorkerCrashed:
        """The error of a job for which none could be started."""
        raise NotImplementedError

    def _hold(self, held: bool) -> None:
        """Tell a virtual clock that real work is under way, or is not any more."""
        if held is not self._held:
            self._held = held
            clock = self.home.clock
            if held:
                clock.hold()
            else:
                clock.release()
