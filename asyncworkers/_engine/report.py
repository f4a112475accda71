"""What a supervisor tells about itself: its figures while it works, and the report of a drain."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from asyncworkers import _html
from asyncworkers._engine.children import ChildStats, in_bytes
from asyncworkers._engine.hub import Hub
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._record import Record
from asyncworkers.health import Health

if TYPE_CHECKING:
    from asyncworkers.store.protocol import QueueCounts

__all__ = [
    "Backlog",
    "ChildStats",
    "DrainReport",
    "QueueStats",
    "Stats",
    "Totals",
    "WorkerStats",
    "backlog_everywhere",
    "backlog_here",
    "health_asked",
    "health_of",
    "queue_stats",
    "worker_stats",
]


class QueueStats(Record):
    """The figures of one queue at one moment. Counts are totals since the supervisor started.

    `workers` is its capacity, `running` the attempts under way (those that lend their slot
    included), `queued` and `scheduled` the jobs that wait, `lent` the slots of jobs that await
    jobs. `retried` counts attempts that will be repeated, `timed_out` and `abandoned` attempts;
    `succeeded`, `failed` and `cancelled` count jobs that have ended. `held_threads` is the
    number of threads that abandoned attempts still hold, `zombies` that of their tasks.
    `children` are the processes of a queue of processes, `logs_dropped` counts the log records
    that were lost because they came faster than they could be logged. `oldest` is how many seconds
    the job has waited that waits longest for a worker, None if none does.
    """

    name: str
    workers: int
    running: int
    queued: int
    scheduled: int
    lent: int
    paused: bool
    submitted: int
    succeeded: int
    failed: int
    cancelled: int
    retried: int
    timed_out: int
    abandoned: int
    held_threads: int
    zombies: int
    children: tuple[ChildStats, ...] = ()
    logs_dropped: int = 0
    oldest: float | None = None

    def _repr_html_(self) -> str:
        return _html.block(f"queue {self.name}", _table([self]), _children([self]))


class Totals(Record):
    """What was done on several queues: each figure is the sum of theirs."""

    def _each(self) -> Iterable[Any]:
        """The figures of each queue."""
        raise NotImplementedError

    def _sum(self, figure: str) -> int:
        return sum(getattr(queue, figure) for queue in self._each())

    @property
    def submitted(self) -> int:
        """Jobs accepted since the supervisor started."""
        return self._sum("submitted")

    @property
    def succeeded(self) -> int:
        """Jobs that returned a value."""
        return self._sum("succeeded")

    @property
    def failed(self) -> int:
        """Jobs that failed for good."""
        return self._sum("failed")

    @property
    def cancelled(self) -> int:
        """Jobs that were cancelled or expired."""
        return self._sum("cancelled")

    @property
    def retried(self) -> int:
        """Attempts that were, or will be, repeated."""
        return self._sum("retried")


class Stats(Totals):
    """The figures of all queues of a supervisor at one moment; sums are properties."""

    queues: dict[str, QueueStats]

    def _repr_html_(self) -> str:
        return _html.block("Queues", self._tables())

    def _tables(self) -> str:
        """The figures of all queues, for a notebook."""
        queues = list(self.queues.values())
        return _table(queues) + _children(queues)

    def _each(self) -> Iterable[QueueStats]:
        return self.queues.values()

    @property
    def running(self) -> int:
        """Attempts under way now."""
        return self._sum("running")

    @property
    def queued(self) -> int:
        """Jobs waiting for a worker now."""
        return self._sum("queued")

    @property
    def scheduled(self) -> int:
        """Jobs waiting for their time now."""
        return self._sum("scheduled")


def queue_stats(queue: MemoryQueue) -> QueueStats:
    """Read one queue's figures."""
    return QueueStats(
        name=queue.name,
        workers=queue.crew.workers,
        running=queue.census.running,
        queued=queue.census.queued,
        scheduled=queue.census.scheduled,
        lent=queue.crew.lent,
        paused=queue.paused,
        submitted=queue.census.submitted,
        succeeded=queue.census.succeeded,
        failed=queue.failed,
        cancelled=queue.cancelled,
        retried=queue.retried,
        timed_out=queue.timed_out,
        abandoned=queue.unwinding.abandoned,
        held_threads=len(queue.unwinding.held_threads),
        zombies=len(queue.crew.zombies),
        children=tuple(queue.census.children),
        logs_dropped=queue.logs_dropped,
        oldest=queue.census.oldest,
    )


class WorkerStats(Record):
    """What one worker does at one moment: the `attempt` of a job that it has had in hand for `seconds`.

    `worker` is its number, `job_id` is None for an item of a stream. `waits_for` are the ids of the
    jobs which that job awaits, so that its slot is lent; `pid` is that of its child process, if it has
    one.
    """

    queue: str
    worker: int
    job_id: str | None
    job_name: str
    attempt: int
    seconds: float
    waits_for: tuple[str, ...]
    pid: int | None


def worker_stats(queue: MemoryQueue) -> Iterator[WorkerStats]:
    """The workers of a queue that are at work."""
    now = queue.clock.now()
    for attempt in tuple(queue.crew.members):
        attempt.refresh()
        job, supply, child = attempt.job, attempt.supply, attempt.child
        if job is not None:
            yield WorkerStats(
                *(queue.name, attempt.number, job.id, job.name, job.attempt),
                seconds=max(0.0, now - job._started),
                waits_for=tuple(one.id for one in attempt.waits_for),
                pid=None if child is None else child.pid,
            )
        elif supply is not None:
            seconds = max(0.0, now - attempt.since) if attempt.since else 0.0
            pid = None if child is None else child.pid
            yield WorkerStats(
                queue.name, attempt.number, None, supply.name, 1, seconds, waits_for=(), pid=pid
            )


class Backlog(Record):
    """What a queue has to do, as an autoscaler wants it: of a stored queue in all processes together.

    `waiting` jobs could start now if there were workers, `scheduled` ones wait for their time,
    `running` ones run. `oldest` is how many seconds the job has waited that waits longest, 0 if
    none does. `workers` is the capacity of this process alone. `stored` says whether its jobs are
    in a store.
    """

    queue: str
    waiting: int
    scheduled: int
    running: int
    oldest: float
    workers: int
    stored: bool = False


def backlog_here(queue: MemoryQueue) -> Backlog:
    """What a queue in memory has to do."""
    return Backlog(
        queue.name,
        queue.census.queued,
        queue.census.scheduled,
        queue.census.running,
        queue.census.oldest or 0.0,
        queue.crew.workers,
    )


def backlog_everywhere(queue: MemoryQueue, counts: QueueCounts | None) -> Backlog:
    """What a stored queue has to do, by what its store counts; None if that has nothing to say."""
    if counts is None:
        return Backlog(queue.name, 0, 0, 0, 0.0, queue.crew.workers, True)
    return Backlog(
        queue.name,
        counts.queued,
        counts.scheduled,
        counts.running,
        counts.oldest or 0.0,
        queue.crew.workers,
        True,
    )


def health_of(state: str, hub: Hub | None) -> Health:
    """How a supervisor in this state is."""
    reasons: list[str] = []
    if state != "open":
        reasons.append(f"it is {state}, and accepts no jobs")
    if hub is not None and state in ("open", "draining"):
        if hub.depot is not None and hub.depot.trouble is not None:
            reasons.append(hub.depot.trouble)
        for queue in hub.queues:
            held = len(queue.unwinding.held_threads)
            if held and held >= queue.crew.workers:
                reasons.append(
                    f"every thread of queue {queue.name!r} is held by an abandoned attempt"
                )
            stuck = [attempt.stuck for attempt in queue.crew.members]
            if queue.crew.cannot_hire:
                reasons.append(f"no worker can be hired for queue {queue.name!r}")
            elif stuck and stuck[0] is not None and None not in stuck:
                reasons.append(f"no worker of queue {queue.name!r} can take a job: {stuck[0]}")
    return Health(state != "failed", not reasons, tuple(reasons))


def health_asked(
    ask: Callable[[], Health], loop: asyncio.AbstractEventLoop, seconds: float
) -> Health:
    """The same, asked in another thread than the loop's, which has so many seconds to answer."""
    answer: concurrent.futures.Future[Health] = concurrent.futures.Future()
    try:
        loop.call_soon_threadsafe(lambda: answer.set_result(ask()))
        return answer.result(seconds)
    except TimeoutError:
        return Health(False, False, (f"its event loop has not answered for {seconds:g} s",))
    except RuntimeError:
        return Health(False, False, ("its event loop was closed",))


class DrainReport(Record):
    """What became of the jobs a supervisor still had when it was told to drain.

    Each field holds the jobs' ids: `done` ended by themselves while it waited (well or not),
    `cancelled` were running when the grace ended and were cancelled, `not_started` were waiting
    then and were cancelled without an attempt, and `abandoned` did not end when cancelled: their
    tasks or threads may still run. `seconds` is how long all of it took. Of those that are done
    `failed` tells which failed, and `withdrawn` which others than the drain cancelled, or expired.
    Of those that were cancelled or not started `returned` tells which are back in their store, to be
    run by the next process that has it open.
    """

    done: tuple[str, ...]
    cancelled: tuple[str, ...]
    not_started: tuple[str, ...]
    abandoned: tuple[str, ...]
    seconds: float
    failed: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()

    def _well(self) -> int:
        """How many of those that are done have succeeded."""
        return len(self.done) - len(self.failed) - len(self.withdrawn)

    def __str__(self) -> str:
        rare = {"failed": self.failed, "withdrawn": self.withdrawn}
        told = "".join([f", {len(ids)} {word}" for word, ids in rare.items() if ids])
        counts = (
            f"{self._well()} done{told}, {len(self.cancelled)} cancelled, "
            f"{len(self.not_started)} not started, {len(self.abandoned)} abandoned"
        )
        which = _named("abandoned", self.abandoned) + _named("back in the store", self.returned)
        return f"drained in {self.seconds:.2f} s: {counts}{which}"

    def _repr_html_(self) -> str:
        rare = {"failed": self.failed, "withdrawn": self.withdrawn}
        ends = {
            **{end: ids for end, ids in rare.items() if ids},
            "cancelled": self.cancelled,
            "not started": self.not_started,
            "abandoned": self.abandoned,
        }
        if self.returned:
            ends["of them back in the store"] = self.returned
        lines = [
            ("done", self._well(), ""),
            *((end, len(ids), _some(ids)) for end, ids in ends.items()),
        ]
        table = _html.rows(("became of", "jobs", "which"), lines)
        return _html.block(f"Drained in {self.seconds:.2f} s", table)


def _named(word: str, ids: Sequence[str]) -> str:
    return f" ({word}: {_some(ids)})" if ids else ""


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:10]) + (", ..." if len(ids) > 10 else "")


# ---- as notebooks show it

FIGURES = ("running", "queued", "scheduled", "succeeded", "failed", "cancelled", "retried")
RARE_FIGURES = ("lent", "timed_out", "abandoned", "held_threads", "zombies", "logs_dropped")
"""Those that get a column only if they say something."""


def _table(queues: Sequence[QueueStats]) -> str:
    rare = [one for one in RARE_FIGURES if any(getattr(queue, one) for queue in queues)]
    shown = ("workers", *FIGURES, *rare)
    lines = [
        (
            f"{queue.name} (paused)" if queue.paused else queue.name,
            *(getattr(queue, figure) for figure in shown),
        )
        for queue in queues
    ]
    return _html.rows(("queue", *(figure.replace("_", " ") for figure in shown)), lines)


def _children(queues: Sequence[QueueStats]) -> str:
    lines = [
        (
            f"{queue.name} {child.worker}",
            str(child.pid),
            "" if child.memory is None else in_bytes(child.memory),
            child.jobs,
            child.sent,
            child.job_name or ("idle" if child.ready else "starting"),
        )
        for queue in queues
        for child in queue.children
    ]
    return _html.rows(("process", "pid", "memory", "jobs done", "sent ahead", "now"), lines)
