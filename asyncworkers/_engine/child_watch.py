"""A watch looks after a child that starts or has jobs: whether it lives, gets on, and keeps to its limits."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from asyncworkers._engine.child_life import ChildLife
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.nursery import Nursery
from asyncworkers._engine.sent import SentLine
from asyncworkers.bridge.child import wire
from asyncworkers.bridge.process import ProcessBridge
from asyncworkers.job import Job
from asyncworkers.outcome import Cancelled, TimedOut

__all__ = ["ChildWatch"]

LOOK = 0.002
"""Seconds between two looks at a child that is busy; they become rarer while nothing changes."""

SOON, RARELY = 0.01, 0.25
"""Seconds between two looks at most: until the child has begun its job, and afterwards."""

START = 60.0
"""Seconds in which a child must begin what it was sent."""


class Watched(Protocol):
    """What is needed of the line worker whose child it is."""

    home: MemoryQueue
    nursery: Nursery
    process: ProcessBridge
    life: ChildLife
    line: SentLine
    ready: bool

    @property
    def job(self) -> Job[Any] | None: ...
    @property
    def verdict(self) -> Cancelled | TimedOut | None: ...
    @property
    def is_carrying(self) -> bool: ...
    @property
    def has_unpacking(self) -> bool: ...
    def look(self) -> None: ...
    def refresh(self) -> None: ...
    def shorten(self) -> None: ...
    def time_out(self, timeout: float) -> None: ...


class ChildWatch:
    """Looks now and then, by a timer that is set only while there is anything to see.

    `seen` is when the job that the child runs was seen first, or the line began, or the child.
    """

    __slots__ = ("_pulse", "_timer", "_worker", "seen")

    def __init__(self, worker: Watched) -> None:
        self._worker = worker
        self._timer: asyncio.TimerHandle | None = None
        self._pulse = LOOK
        self.seen = 0.0

    def begin(self) -> None:
        """Look from now on, if nobody does."""
        if self._timer is None:
            self._timer = self._worker.home.hub.loop.call_later(self._pulse, self._tick)

    def saw(self, moment: float) -> None:
        """The child got on at this moment: look again soon."""
        self.seen = moment
        self._pulse = LOOK

    def stop(self) -> None:
        """No timer stays behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        worker = self._worker
        if worker.life.is_over or (worker.ready and not worker.line.jobs):
            return
        now = worker.home.now()
        if worker.process.has_ended():
            worker.life.die()
            return
        if worker.ready:
            worker.look()
            worker.refresh()
        job = worker.job
        if job is not None:
            self._check_job(job, now)
        elif self._stands_still(now):
            return
        if worker.process.freighter.trim(now) and worker.ready:
            worker.process.write(wire.frame(wire.TRIM))
        if worker.line.jobs or not worker.ready:
            self.begin()
            self._pulse = min(max(self._pulse, LOOK) * 2, RARELY if job is not None else SOON)

    def _stands_still(self, now: float) -> bool:
        """Whether it takes too long to be ready, or to begin what it was sent; if so, it has died."""
        worker = self._worker
        patience = START if worker.ready else worker.nursery.terms.startup
        if now - self.seen <= patience or worker.process.clogged or worker.is_carrying:
            return False
        late = f"it was not ready after {patience:g} s"
        worker.life.die("it stood still" if worker.ready else late)
        return True

    def _check_job(self, job: Job[Any], now: float) -> None:
        """Nothing waits behind a job that takes long, and it takes no longer than its timeout."""
        worker = self._worker
        waited = now - self.seen
        if worker.line.is_long(waited):
            worker.shorten()
            worker.line.learn(waited)  # so that nothing is sent behind it again
        timeout = job._order.timeout
        ended = worker.process.freighter.unloads or worker.has_unpacking
        if timeout is not None and worker.verdict is None and not ended:
            left = job._started + timeout - now
            if left <= 0:
                worker.time_out(timeout)
            else:
                self._pulse = min(self._pulse, max(left, 0.0005))
