"""Runs a job inside the worker's task, but step by step in a context of its own."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from asyncworkers.job import Job, running

if TYPE_CHECKING:
    from asyncworkers._engine.attempt import Attempt

__all__ = ["begin", "own_context"]

_ENDED: Final = object()
"""What `next` answers when a job has no more steps."""

_Steps: TypeAlias = Generator[Any, None, None]
"""Each `next` takes a step of a job, and answers with the future that the job waits for."""


def own_context(job: Job[Any]) -> Context:
    """The context of one attempt: what the submitter had, as it was then, whatever an earlier
    attempt made of it.
    """
    context = job._context
    if context is None:
        return Context()
    return context if job._order.policies.retry is None else context.copy()


def begin(job: Job[Any], attempt: Attempt) -> Awaitable[None] | None:
    """Take a job's first step. What is left is to be awaited; None if that was all, as with many.

    A task has one context for life, and a task a job costs several times the job. So the worker's
    task stays, and each step is taken in the job's context. What the job's function returns is in
    `attempt.value` after the last.
    """
    context = own_context(job)
    steps: Any = _first_to_last(job, attempt)
    waited_for = context.run(next, steps, _ENDED)
    return None if waited_for is _ENDED else _go_on(context, steps, waited_for)


@types.coroutine
def _first_to_last(job: Job[Any], attempt: Attempt) -> _Steps:
    """The steps of a job, which return nothing.

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
def _go_on(context: Context, steps: _Steps, waited_for: Any) -> _Steps:
    """Wait, and take the steps after the first, until there are no more."""
    run = context.run
    while waited_for is not _ENDED:
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
            waited_for = run(next, steps, _ENDED)
