"""Runs a job inside the worker's task, but step by step in a context of its own."""

from __future__ import annotations

import types
from collections.abc import Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from asyncworkers.job import Job, running

if TYPE_CHECKING:
    from asyncworkers._engine.attempt import Attempt

__all__ = ["ENDED", "first_to_last", "go_on", "own_context"]

ENDED: Final = object()
"""What `next` answers when a job has no more steps."""

Steps = Generator[Any, None, None]
"""Each `next` takes a step of a job, and answers with the future that the job waits for."""


def own_context(job: Job[Any]) -> Context:
    """The context of one attempt: what the submitter had, as it was then, whatever an earlier
    attempt made of it.
    """
    context = job._context
    if context is None:
        return Context()
    return context if job._order.policies.retry is None else context.copy()


@types.coroutine
def first_to_last(job: Job[Any], attempt: Attempt) -> Steps:
    """The steps of a job. What its function returns is in `attempt.value` after the last one.

    For a generator that returns something would end by an exception that carries it, and to make
    and to catch that costs as much as all the rest. Whatever can be awaited is awaited; coroutines
    are spared the question how.
    """
    running.set(job)
    function, args, kwargs = job._order.function, job._args, job._kwargs
    called: Any = function(*args) if kwargs is None else function(*args, **kwargs)
    if called.__class__ is not types.CoroutineType:
        called = called.__await__()
    attempt.value = yield from called


@types.coroutine
def go_on(context: Context, steps: Steps, waited_for: Any) -> Steps:
    """Wait, and take the steps after the first, until there are no more.

    A task has one context for life, and a task a job costs several times the job. So the worker's
    task stays, and each step is taken in the job's context.
    """
    run = context.run
    while waited_for is not ENDED:
        try:
            yield waited_for  # a task is never sent anything but None
        except GeneratorExit:
            run(steps.close)
            raise
        except BaseException as error:
            try:
                waited_for = run(steps.throw, error)
            except StopIteration:
                return
        else:
            waited_for = run(next, steps, ENDED)
