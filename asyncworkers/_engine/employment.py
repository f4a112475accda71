"""A worker is employed by its queue: its task begins here, and what is left in its hands ends here."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from functools import partial
from typing import Any

from asyncworkers._engine.attempt import Attempt, failure, fault_of_ours
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers.job import ENDED, RUNNING, Job
from asyncworkers.outcome import Failed

__all__ = ["employ"]

_EMPTY = Context()


def employ(queue: MemoryQueue, attempt: Attempt, work: Coroutine[Any, Any, None]) -> None:
    """Have a worker begin at the loop's next turn, in an empty context."""
    task = queue.hub.loop.create_task(work, context=Context())
    attempt.task = attempt.worker = task
    task.add_done_callback(partial(_ended, queue, attempt), context=_EMPTY)


def _ended(queue: MemoryQueue, attempt: Attempt, task: asyncio.Task[None]) -> None:
    """A worker's task is over: for a reason of its own, by a crash, or cancelled by a stranger."""
    queue.crew.zombies.pop(attempt, None)
    job = attempt.job
    crash = None if task.cancelled() else task.exception()
    was_on_duty = attempt in queue.crew.members
    try:
        if job is not None and not attempt.retired:
            _settle_for(queue, attempt, job, crash)
    finally:
        queue.dismiss(attempt)
    if queue.unwinding.ended(attempt):
        queue.hub.check_quiet()
    if was_on_duty and (crash is not None or task.cancelled()) and queue.hub.stopping is None:
        queue.teller.replaced(attempt, job, crash)
        if crash is not None:
            queue.hub.crashed(queue.name, crash)
    if crash is not None or task.cancelled():
        queue.hub.recount()  # it may have ended before it told that a job had


def _settle_for(
    queue: MemoryQueue, attempt: Attempt, job: Job[Any], crash: BaseException | None
) -> None:
    """Give a job its end whose worker has ended with it in hand."""
    if job._state >= ENDED:
        if job._waiters is not None:
            job._wake()
    elif job._state == RUNNING:
        error = failure(asyncio.CancelledError()).error if crash is None else fault_of_ours(crash)
        queue.conclude(job, attempt, Failed(error), queue.clock.now())
