"""A worker is the coroutine that takes a job from its queue, runs one attempt, decides and settles."""

from __future__ import annotations

import asyncio
import sys
from contextvars import copy_context
from typing import Any, cast

from asyncworkers._engine.attempt import UNFINISHED, Attempt, failure, unfinished
from asyncworkers._engine.drive import begin, own_context
from asyncworkers._engine.employment import employ
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers.bridge.abandoning import forget
from asyncworkers.function import PLAIN_COROUTINE
from asyncworkers.job import QUEUED, RUNNING, SUCCEEDED, Job, Order, running
from asyncworkers.outcome import Outcome, Succeeded

__all__ = ["conclude", "hire", "learn_that_it_sets_context"]


def hire(queue: MemoryQueue, number: int) -> Attempt:
    """Start a worker for the queue."""
    attempt = Attempt(queue, number)
    employ(queue, attempt, work(queue, attempt))
    return attempt


async def work(queue: MemoryQueue, attempt: Attempt) -> None:
    """Take, attempt, decide, settle, until the queue has no more use for this worker.

    This is the path of each job, so it is one function: what every job needs is done here in
    line, and what few jobs need is a call away behind one check. Jobs run one after the other in
    this worker's task and context, which is empty but for `running`. What could tell the next job
    from the first is checked after each: a cancelled task or a changed context ends the worker,
    and the queue hires another.
    """
    if attempt.task is None:  # an eager task factory began us inside `submit`: not there
        await asyncio.sleep(0)
        if attempt.task is None:
            return  # to hire us failed half-way, for want of stack or memory
    task = cast("asyncio.Task[None]", attempt.task)
    now, cancelling, mark = queue.clock.now, task.cancelling, running.set
    crew, room = queue.crew, queue.room
    in_line = queue.isolation == "shared"
    crew.arrive(attempt)
    mark(None)
    order: Any = None
    marked = False  # whether `running` names a job in this worker's own context
    moment = now()
    while True:
        try:
            job = queue.next_entry()
        except IndexError:
            mark(None)
            marked, job, order = False, None, None  # nor does a function live for our sake
            if queue.excuse(attempt) or not await crew.wait_ready(attempt):
                break
            moment = now()
            continue
        if job._state != QUEUED or room.waiters:
            job = queue.admit(job)
            if job is not None and job.__class__ is not Job:
                job = await job.work(queue, attempt) if in_line else job.next_job()
                if job is None and (cancelling() or len(copy_context()) != 1):
                    break
                moment = now()
            if job is None:
                continue
        # Begin the attempt.
        attempt.job = job
        attempt.serial += 1
        job._value = attempt
        job._state = RUNNING
        job._started = moment
        if job._rare is not None:
            job._rare.tries += 1
        order = job._order
        if order.timeout is not None:
            queue.timeouts.add(moment + order.timeout, attempt, attempt.serial)
        if queue.told:
            queue.teller.started(job, attempt)
        # Run it; whatever it raises stays here.
        outcome: Outcome | None = None
        value: Any = None
        try:
            if in_line and job._context is None:
                mark(job)
                marked = True
                if job._kwargs is None:
                    value = await order.function(*job._args)
                else:
                    value = await order.function(*job._args, **job._kwargs)
            else:
                if marked:
                    mark(None)  # or the job before would live as long as this one runs
                    marked = False
                if in_line:
                    rest = begin(job, attempt)
                    if rest is not None:
                        await rest
                    value, attempt.value = attempt.value, None
                else:
                    value = await _in_own_task(queue, attempt, job)
        except BaseException as error:
            outcome = failure(error)
            if issubclass(type(error), GeneratorExit):  # perhaps our own end: await nothing more
                conclude(queue, attempt, job, outcome, None, now())
                return
        moment = now()
        # Settle it.
        if outcome is None and attempt.verdict is None and type(value) not in UNFINISHED:
            attempt.job = None
            try:
                if attempt.lends or attempt._token is not None:
                    attempt.clear()
                job._value = value
                job._state = SUCCEEDED
                job._finished = moment
                job._context = None
                queue.completed += 1
                if queue.told or job._rare is not None:
                    queue.tell_completed(job, attempt)
                if job._waiters is not None:
                    job._wake()
            except BaseException:
                attempt.job = job  # a fault of ours: `employment` sees to the job
                raise
        else:
            conclude(queue, attempt, job, outcome, value, moment)
            if attempt.retired:
                break
        value = outcome = None
        if cancelling():
            break
        if marked and len(copy_context()) != 1:
            learn_that_it_sets_context(order)
            break
        if moment > crew.turn_ends and crew.is_turn_over(moment):
            await asyncio.sleep(0)
            moment = now()
    if cancelling():  # for a job that has ended, perhaps only now: our task will end as cancelled
        queue.dismiss(attempt)


def conclude(
    queue: MemoryQueue,
    attempt: Attempt,
    job: Job[Any],
    outcome: Outcome | None,
    value: Any,
    moment: float,
) -> None:
    """Settle what is not the ordinary case: an error, a cancelled attempt, a suspicious value."""
    forget(value)  # however this ends, nobody will await it
    if attempt.retired:
        return  # it was settled when it was abandoned; nobody wants to know how it ended after all
    if attempt.verdict is not None:
        outcome = attempt.verdict
    elif outcome is None and type(value) in UNFINISHED:
        outcome = unfinished(value, job.name)
    elif outcome is None:
        outcome = Succeeded(value)
    queue.conclude(job, attempt, outcome, moment)


def learn_that_it_sets_context(order: Order) -> None:
    """Jobs of this function get a context of their own from now on, which spares their worker."""
    order.plain, order.gate = False, None
    if order.policies is not PLAIN_COROUTINE:  # that one is shared by functions of all kinds
        order.policies.sets_context = True


async def _in_own_task(queue: MemoryQueue, attempt: Attempt, job: Job[Any]) -> Any:
    """Run a job's function in a task that no other job shares."""
    loop, workers_task = queue.hub.loop, attempt.task
    if sys.version_info >= (3, 12) and loop.get_task_factory() is None:
        # Begun at once: a job that never suspends costs no turn of the loop.
        task = asyncio.Task(_guarded(job), loop=loop, context=own_context(job), eager_start=True)
        if task.done():
            return _value_of(task.result())
    else:
        task = loop.create_task(_guarded(job), context=own_context(job))
    attempt.task = task
    try:
        return _value_of(await task)
    finally:
        attempt.task = workers_task


def _value_of(end: tuple[Any, BaseException | None]) -> Any:
    value, error = end
    if error is None:
        return value
    if isinstance(error, StopIteration):
        raise failure(error).error  # by itself it cannot leave a coroutine
    raise error


async def _guarded(job: Job[Any]) -> tuple[Any, BaseException | None]:
    """What a function raises must not leave the task, or a SystemExit would stop the loop."""
    running.set(job)
    try:
        if job._kwargs is None:
            return await job._order.function(*job._args), None
        return await job._order.function(*job._args, **job._kwargs), None
    except BaseException as error:
        return None, error
