"""Whose a task is: the job, or the item of a map, in whose context it was started."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextvars import Context
from typing import Any, cast

from asyncworkers._engine.hub import Hub
from asyncworkers.job import Job, running

__all__ = ["Origin", "Strays", "origin_of"]


class Origin:
    """The job that started a task. Items of maps mostly have no Job, and so no id."""

    __slots__ = ("_key", "hub", "job_id", "name")

    def __init__(self, found: Any) -> None:
        self._key = id(found)  # the task's context keeps it alive
        if isinstance(found, Job):
            self.hub: object = getattr(found._order.home, "hub", None)
            self.job_id: str | None = found.id
            self.name = found.name
        else:
            attempt, _, _, supply = found
            self.hub, self.job_id, self.name = attempt.hub, None, supply.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin) and self._key == other._key

    def __hash__(self) -> int:
        return self._key

    def __str__(self) -> str:
        return f"job {self.name} ({self.job_id or 'of a map'})"


def origin_of(task: asyncio.Task[Any]) -> Origin | None:
    """Who started a task; None if it was no job."""
    if sys.version_info >= (3, 12):
        contexts = [task.get_context()]
    else:  # Python 3.11 has no other way to the context of a task
        contexts = [one for one in gc.get_referents(task) if isinstance(one, Context)]
    found: Any = contexts[0].get(running) if contexts else None
    return None if found is None else Origin(found)


class Strays:
    """Adds the job to what the loop's exception handler is told of tasks that a job started.

    Nobody else knows it: a task nobody awaits, or a generator finalized when its job has ended,
    fails where only the loop sees it. The handler there was is told everything, as before. If
    somebody has set another one meanwhile, it is left alone, and ours adds nothing more.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._over = False
        self._previous: Any = hub.loop.get_exception_handler()
        hub.loop.set_exception_handler(self._handle)

    def close(self) -> None:
        """Put the previous handler back, if ours is still the one that is set."""
        self._over = True
        if self._hub.loop.get_exception_handler() == self._handle:
            self._hub.loop.set_exception_handler(self._previous)

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        task: object = context.get("task") or context.get("future")
        origin = None
        if isinstance(task, asyncio.Task) and not self._over:
            origin = origin_of(cast("asyncio.Task[Any]", task))
        if origin is not None and origin.hub is self._hub:
            context = {**context, "message": f"{context.get('message')}, started by {origin}"}
        if self._previous is None:
            loop.default_exception_handler(context)
        else:
            self._previous(loop, context)
