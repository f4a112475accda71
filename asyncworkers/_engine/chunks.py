"""Chunks: items of a stream that cross to a process together, as many as a few milliseconds hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from asyncworkers._engine.attempt import failure
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers.bridge.child.chunk import UNREAD
from asyncworkers.bridge.failure import rebuild
from asyncworkers.bridge.parcel import ChunkCargo, Unsent, cargo_of
from asyncworkers.job import FAILED, SUCCEEDED, Job, Order
from asyncworkers.outcome import Failed

__all__ = ["Chunks", "chunks_of"]

SECONDS = 0.002
"""How long a chunk should take: long beside its journey, short beside what anybody waits for."""

MOST = 4096
"""Items in a chunk at most."""

AHEAD = 4
"""Chunks on their way for each worker: the one it runs, one behind it, and two that are read."""


class Owner(Protocol):
    """What chunks need of the supply whose items they are."""

    queue: MemoryQueue
    items: deque[Any]
    taken: int
    exhausted: bool

    def top_up(self, wanted: int, window: int) -> None: ...
    def make_chunk(self, order: Order, items: list[Any]) -> Job[Any]: ...
    def chunk_ended(self, index: int, values: list[Any], done: int, left: int) -> None: ...
    def give(self, index: int, job: Job[Any], count: int) -> None: ...


def chunks_of(
    owner: Owner, order: Order, reducer: Callable[[Any, Any], Any] | None
) -> Chunks | None:
    """The chunks of a stream, if its items may share a job: if nothing is promised of each of them
    that a chunk cannot keep.
    """
    policies = order.policies
    keeps = policies.retry or policies.timeout or policies.expires or policies.delay
    if keeps or not owner.queue.may_chunk or not cargo_of(order.function).travels_alone:
        return None
    return Chunks(owner, order, reducer)


class Chunks:
    """Makes the chunks of one stream, sized by how long the items of the last ones took.

    The first chunks hold one item each. What takes longer than a chunk should stays alone, so that
    long items are spread over all processes as they become free. Near the end of the items chunks
    become smaller, so that no process is left with the last of them.
    """

    def __init__(
        self, owner: Owner, order: Order, reducer: Callable[[Any, Any], Any] | None
    ) -> None:
        self._owner = owner
        self._order = Order(order.home, order.policies, order.function)
        self._order.pack = ChunkCargo(order.function, reducer).pack
        self._item_takes: float | None = None  # seconds
        self.under_way: dict[Job[Any], tuple[int, list[Any]]] = {}

    def next_job(self) -> Job[Any]:
        """The job of the next items; there is one at least."""
        owner = self._owner
        size, workers = self._size(), owner.queue.crew.workers
        if len(owner.items) < size:
            owner.top_up(size, AHEAD * size * workers)
        if owner.exhausted:
            size = max(1, min(size, len(owner.items) // (2 * workers)))
        pop = owner.items.popleft
        items = [pop() for _ in range(min(size, len(owner.items)))]
        index = owner.taken
        owner.taken += len(items)
        return self._make(index, items)

    def _make(self, index: int, items: list[Any]) -> Job[Any]:
        job = self._owner.make_chunk(self._order, items)
        self.under_way[job] = index, items
        job._watch(self._ended)
        return job

    def _size(self) -> int:
        if self._item_takes is None:
            return 1
        return max(1, min(MOST, int(SECONDS / max(self._item_takes, 1e-7))))

    def _ended(self, job: Job[Any]) -> None:
        index, items = self.under_way.pop(job)
        values: list[Any] = []
        done, culprit = 0, job
        if job._state == SUCCEEDED:
            values, done, nanoseconds, trouble = job._value
            self._owner.queue.completed -= 1  # its items count, not the chunk
            if done == UNREAD and len(items) > 1:
                self._split(index, items)
                return
            done = max(0, done)
            self._learn(nanoseconds * 1e-9 / max(1, done))
            if trouble is not None:
                culprit = self._failed(items[done], failure(rebuild(trouble)).error)
        elif job._state == FAILED and isinstance(job._value.error, Unsent):
            job._value.unread = False  # it is nobody's: each item has an end of its own
            self._owner.queue.failed -= 1
            self._split(index, items)
            return
        self._owner.chunk_ended(index, values, done, len(items) - done)
        if done < len(items):
            self._owner.give(index + done, culprit, len(items) - done if culprit is job else 1)

    def _split(self, index: int, items: list[Any]) -> None:
        """Not all of these items can travel, and none was called: each goes alone now, in the same
        place, so that those that can do.
        """
        queue = self._owner.queue
        jobs = [self._make(at, [item]) for at, item in enumerate(items, index)]
        for job in reversed(jobs):
            queue.line.appendleft(job)
        if queue.told:
            for job in jobs:
                queue.teller.submitted(job)
        ending = queue.hub.stopping or queue.ending
        if ending is not None:
            for job in jobs:
                queue.cancel(job, ending)
        else:
            queue.crew.staff(len(jobs))

    def _failed(self, item: Any, error: Exception) -> Job[Any]:
        """The job of an item that raised inside its chunk."""
        owner = self._owner
        queue = owner.queue
        job: Job[Any] = Job(self._order, (item,), None, None, queue.now())
        job._uncommon().tries = 1
        job._started = job._finished = queue.now()
        job._value = queue.failure_of(job, error, Failed(error))
        job._state = FAILED
        queue.failed += 1
        return job

    def _learn(self, seconds: float) -> None:
        known = self._item_takes
        self._item_takes = seconds if known is None else known + (seconds - known) * 0.5
