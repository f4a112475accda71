"""The nursery is what the line workers of a queue have in common: who has room, and who died lately."""

from __future__ import annotations

from contextvars import Context
from typing import Any, Protocol

from asyncworkers._engine.bridged import Losses
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.sent import SentLine
from asyncworkers.bridge.child import ring
from asyncworkers.bridge.terms import Terms

__all__ = ["Nursery"]

_EMPTY = Context()


class Fed(Protocol):
    """What is needed of a line worker, for its child to be given jobs."""

    ready: bool
    line: SentLine

    def fill(self, most: int) -> None: ...


class Nursery(Losses):
    """Hands out what waits: jobs that are submitted in one turn of the loop cross together."""

    def __init__(self, queue: MemoryQueue, terms: Terms) -> None:
        super().__init__("child process", "children")
        self.terms = terms
        self.workers: dict[Any, None] = {}
        self._woken: list[Fed] = []
        self._queue = queue
        self._scheduled = False
        queue.crew.overflow = self.schedule

    def wake(self, worker: Fed) -> None:
        """This idle worker is wanted."""
        self._woken.append(worker)
        self.schedule()

    def schedule(self) -> None:
        """Hand out jobs in the loop's next turn."""
        if not self._scheduled:
            self._scheduled = True
            self._queue.hub.loop.call_soon(self._hand_out, context=_EMPTY)

    def _hand_out(self) -> None:
        """Give each idle worker its share of what waits, and the others what their lines have room for."""
        self._scheduled = False
        queue = self._queue
        called, self._woken = self._woken, []
        woken = [worker for worker in called if worker.ready]
        if len(woken) < len(called) and queue.line:
            queue.crew.staff(len(called) - len(woken))  # whose child has died meanwhile
        for left, worker in zip(range(len(woken), 0, -1), woken, strict=True):
            worker.fill(-(-len(queue.line) // left) or 1)
        if queue.line:
            for worker in self.workers:
                if worker.line.jobs:
                    worker.fill(ring.PLACES)
