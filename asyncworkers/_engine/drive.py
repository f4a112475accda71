"""Drives a coroutine inside the worker's task, but in a context of its own."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any, cast

__all__ = ["drive"]


@types.coroutine
def drive(context: Context, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Await a coroutine so that each of its steps runs in `context`.

    A task has one context for life, and a task a job costs several times the job. So the worker's
    task stays, and what the coroutine yields (a future) or is sent passes through here unchanged.
    """
    run = context.run
    try:
        waited_for = run(coroutine.send, None)
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
