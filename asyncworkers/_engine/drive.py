"""Drives a job's coroutine inside the worker's task, but in a context of its own."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, cast

from asyncworkers.job import Job, running

__all__ = ["drive", "own_context"]


def own_context(job: Job[Any]) -> Context:
    """The context of one attempt: what the submitter had, as it was then, whatever an earlier
    attempt made of it.
    """
    context = job._context
    if context is None:
        return Context()
    return context if job._order.policies.retry is None else context.copy()


async def drive(job: Job[Any]) -> Any:
    """Await a job's function so that each of its steps runs in the job's own context.

    A task has one context for life, and a task a job costs several times the job. So the worker's
    task stays, and each step is sent through the context. Many jobs end in their first.
    """
    run = own_context(job).run
    try:
        coroutine, waited_for = run(_begin, job)
    except StopIteration as end:
        return end.value
    return await _go_on(run, coroutine, waited_for)


def _begin(job: Job[Any]) -> tuple[Coroutine[Any, Any, Any], Any]:
    """Make a job's coroutine and take its first step; StopIteration has the value if it was all."""
    running.set(job)
    if job._kwargs is None:
        coroutine = job._order.function(*job._args)
    else:
        coroutine = job._order.function(*job._args, **job._kwargs)
    return coroutine, coroutine.send(None)


@types.coroutine
def _go_on(
    run: Callable[..., Any], coroutine: Coroutine[Any, Any, Any], waited_for: Any
) -> Generator[Any, Any, Any]:
    """Pass what the coroutine yields (a future) or is sent through unchanged, until it ends."""
    try:
        while True:
            try:
                answer = yield waited_for
            except GeneratorExit:
                run(coroutine.close)
                raise
            except BaseException as error:
                waited_for = run(coroutine.throw, error)
            else:
                waited_for = run(coroutine.send, answer)
    except StopIteration as end:
        return cast("Any", end).value
