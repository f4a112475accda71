"""What a child says beside how its jobs ended: what they log, how far they are, what they ask."""

from __future__ import annotations

import pickle
from typing import Any, Protocol

from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.sent import SentLine
from asyncworkers._log import log
from asyncworkers.bridge.child import ring, wire
from asyncworkers.bridge.echo import say
from asyncworkers.bridge.process import ProcessBridge
from asyncworkers.job import Job, Progress

__all__ = ["ChildWords"]


class Listening(Protocol):
    """What is needed of the line worker whose child it is."""

    home: MemoryQueue
    number: int
    process: ProcessBridge
    line: SentLine

    def refresh(self) -> None: ...


class ChildWords:
    """Passes on what one child says, with the job that runs there."""

    __slots__ = ("_dropped", "_worker")

    def __init__(self, worker: Listening) -> None:
        self._worker = worker
        self._dropped = 0  # log records that were lost, as was told already

    def heard(self, kind: int, number: int, payload: bytes) -> None:
        """The child, or the job of this number, says or asks something."""
        worker = self._worker
        if kind == ring.SAID:
            self._say(number, payload)
            return
        one = worker.line.head(number)
        if one is None:
            return
        job = one[0]
        worker.refresh()
        details = pickle.loads(payload)  # noqa: S301  # of our child
        if kind == ring.NOTE:
            if details[0] == "progress":
                worker.home.report(job, Progress(*details[1:]))
        elif kind == ring.ASK:
            answer = pickle.dumps((number, _facts(job)), 5)
            worker.process.write(wire.frame(wire.ANSWER, answer))

    def count_dropped(self) -> None:
        """Note how many log records were lost; say so for the first, and whenever they doubled."""
        worker = self._worker
        dropped = worker.process.dropped
        if dropped > self._dropped:
            worker.home.logs_dropped += dropped - self._dropped
            if dropped >= 2 * self._dropped:
                what = "child process %d of queue %r logs too much: %d log records were dropped"
                log.warning(what, worker.number, worker.home.name, dropped)
            self._dropped = dropped

    def _say(self, number: int, record: bytes) -> None:
        """Log what was said in the child."""
        worker = self._worker
        one = worker.line.head(number)
        origin: dict[str, Any] = {"processName": f"{worker.home.name}-{worker.number}"}
        if one is not None:
            worker.refresh()
            job = one[0]
            origin |= {"job_id": job.id, "job_name": job.name}
            origin |= {"queue": job.queue, "attempt": job.attempt}
        say(record, origin)
        self.count_dropped()


def _facts(job: Job[Any]) -> dict[str, Any]:
    retry = job._order.policies.retry
    return {
        "id": job.id,
        "name": job.name,
        "queue": job.queue,
        "attempt": job.attempt,
        "attempts": 1 if retry is None else retry.attempts,
        "tags": job.tags,
    }
