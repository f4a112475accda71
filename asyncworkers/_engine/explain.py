"""Every wait has an answer: sentences on what a job or a queue is waiting for, for people."""

from __future__ import annotations

from typing import Any, Protocol

from asyncworkers import _checks
from asyncworkers._engine.census import Census
from asyncworkers._engine.crew import Crew
from asyncworkers._engine.unwinding import Unwinding
from asyncworkers.errors import JobCancelled
from asyncworkers.job import FAILED, QUEUED, RUNNING, SCHEDULED, SUCCEEDED, Failure, Job
from asyncworkers.units import agreed, counted, lasting

__all__ = ["Explained", "explain_job", "explain_queue"]


class Explained(Protocol):
    """What the sentences need of a queue."""

    name: str
    stored: bool
    paused: bool
    clock: Any
    crew: Crew
    census: Census
    unwinding: Unwinding


def explain_job(job: Job[Any], queue: Explained) -> str:
    """What the job is waiting for, what it is doing, or how it ended."""
    if job._state == SCHEDULED:
        return _why_scheduled(job, queue)
    if job._state == QUEUED:
        return f"queued: {_why_ahead(job, queue) or _why_queued(queue)}"
    if job._state == RUNNING:
        return _why_running(job, queue)
    seconds = job._finished - job._created
    if job._state == SUCCEEDED:
        return f"succeeded {lasting(seconds)} after it was submitted"
    failure: Failure = job._value
    if isinstance(failure.error, JobCancelled):
        return f"cancelled: {_checks.printable(failure.error.reason)}"
    said = _checks.summary(failure.error)
    return f"{'failed' if job._state == FAILED else 'ended'} in attempt {job.attempt}: {said}"


def _why_scheduled(job: Job[Any], queue: Explained) -> str:
    assert job._rare is not None  # whatever is scheduled has a due time there
    wait = max(0.0, job._rare.due - queue.clock.now())
    if job._rare.last_error is None:
        return f"scheduled: its delay ends in {lasting(wait)}"
    retry = job._order.policies.retry
    attempts = retry.attempts if retry is not None else 1
    return (
        f"scheduled: attempt {job.attempt + 1} of {attempts} starts in {lasting(wait)}, "
        f"because the last one raised {job._rare.last_error}"
    )


def _why_ahead(job: Job[Any], queue: Explained) -> str | None:
    """Of a job that was sent to a process ahead of its turn."""
    for attempt in queue.crew.members:
        if job in attempt.ahead:
            return f"it waits in the line of process {attempt.number} of queue {queue.name!r}"
    return None


def _why_queued(queue: Explained) -> str:
    if queue.paused:
        return f"queue {queue.name!r} is paused"
    held = queue.unwinding.held_threads
    delays = [attempt.delay for attempt in queue.crew.members if attempt.delay is not None]
    if held and len(held) >= queue.crew.workers:
        return f"every thread of queue {queue.name!r} is held by an abandoned attempt of {_listed(held)}"
    ending = [*held, *queue.unwinding.ending_threads]
    if ending and len(ending) >= queue.crew.workers:
        return f"every thread of queue {queue.name!r} still runs what was told to stop: {_listed(ending)}"
    busy = len(queue.crew.members) - len(queue.crew.idle) - queue.crew.lent
    if queue.crew.workers == 0:
        return f"queue {queue.name!r} has no workers"
    if queue.crew.cannot_hire:
        return f"no worker can be hired for queue {queue.name!r}, and is tried again soon"
    if delays and (busy >= queue.crew.workers or not queue.crew.idle):
        return f"queue {queue.name!r}: {delays[0]}"
    queued = queue.census.queued
    wait = f"{counted(queued, 'job')} {agreed(queued, 'waits', 'wait')}"
    if queue.stored:
        wait += " here"
    if busy >= queue.crew.workers:
        workers = queue.crew.workers
        all_of_them = agreed(workers, "the only worker", f"all {workers:,} workers")
        return f"{all_of_them} of queue {queue.name!r} {agreed(workers, 'is', 'are')} busy, {wait}"
    return f"a worker of queue {queue.name!r} is about to take it, {wait}"


def _why_running(job: Job[Any], queue: Explained) -> str:
    seconds = queue.clock.now() - job._started
    text = f"running: attempt {job.attempt}, for {lasting(seconds)}"
    attempt: Any = job._runner()
    if attempt is None:
        return text
    if attempt.child is not None:
        text += f", in process {attempt.child.pid}"
    if attempt.verdict is not None:
        return f"{text}; was told to stop and has not ended yet"
    if attempt.waits_for:
        return f"{text}; its slot is lent while it awaits {_listed([str(j) for j in attempt.waits_for])}"
    return text


def explain_queue(queue: Explained) -> str:
    """One line: what the queue does, and what keeps its jobs waiting."""
    busy = max(0, len(queue.crew.members) - len(queue.crew.idle) - queue.crew.lent)
    facts = [
        f"{busy:,} of {counted(queue.crew.workers, 'worker')} busy",
        f"{counted(queue.census.queued, 'job')} "
        + ("at hand, others may wait in the store" if queue.stored else "queued"),
    ]
    if queue.crew.lent:
        facts.append(f"{counted(queue.crew.lent, 'slot')} lent by jobs that await jobs")
    if queue.paused:
        facts.append("paused")
    held = queue.unwinding.held_threads
    if held:
        facts.append(
            f"{counted(len(held), 'thread')} held by abandoned attempts of {_listed(held)}"
        )
    ending = queue.unwinding.ending_threads
    if ending:
        run = agreed(len(ending), "runs", "run")
        threads = counted(len(ending), "thread")
        facts.append(f"{threads} still {run} what was told to stop: {_listed(ending)}")
    children = [f"\n    {child}" for child in queue.census.children]
    return f"{queue.name}: {', '.join(facts)}{''.join(children)}"


def _listed(names: list[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
