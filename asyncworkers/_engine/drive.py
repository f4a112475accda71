"""Drives a job's coroutine inside the worker's task, but in a context of its own."""

from __future__ import annotations

import types
from collections.abc import Callable, Generator
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


@types.coroutine
def drive(job: Job[Any]) -> Generator[Any, Any, Any]:
    """Await a job's function so that each of its steps runs in the job's own context.

    A task has one context for life, and a task a job costs several times the job. So the worker's
    task stays, and what the coroutine yields (a future) or is sent passes through here unchanged.
    """
    run = own_context(job).run
    coroutine = job._order.function(*job._args, **(job._kwargs or {}))
    try:
        waited_for = run(_begin, coroutine.send, job)
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


def _begin(send: Callable[[None], Any], job: Job[Any]) -> Any:
    running.set(job)
    return send(None)
