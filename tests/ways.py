"""The ways in which a stream's items may go, and small functions for tests of streams."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextvars import ContextVar
from typing import Any

from asyncworkers import Queue, Supervisor
from asyncworkers.testing import EventRecorder


async def double(number: int) -> int:
    """Return twice the number, at once."""
    return 2 * number


async def double_later(number: int) -> int:
    """Return twice the number after a turn of the loop."""
    await asyncio.sleep(0)
    return 2 * number


def double_in_thread(number: int) -> int:
    """Return twice the number, in a thread."""
    return 2 * number


WAYS = ("alone", "watched", "with variables", "in tasks")
"""Nobody listens: the shortest path; somebody does: a Job for each item; the reader has context
variables: a context for each item; a task for each item.
"""

anything: ContextVar[str] = ContextVar("anything")


def supervisor_of(
    way: str, workers: int = 4, queues: Iterable[Queue] = (), **options: Any
) -> Supervisor:
    """A supervisor whose streams go the way."""
    default = Queue("default", workers, isolation="task" if way == "in tasks" else "shared")
    if way == "with variables":
        anything.set("there is one")
    listeners = [EventRecorder()] if way == "watched" else []
    return Supervisor(queues=[default, *queues], listeners=listeners, **options)


def counted(supervisor: Supervisor) -> tuple[int, int, int]:
    """How many jobs have succeeded, failed and been cancelled; none may be left."""
    stats = supervisor.stats()
    assert stats.running == stats.queued == stats.scheduled == 0
    return stats.succeeded, stats.failed, stats.cancelled


async def numbers(count: int) -> AsyncIterator[int]:
    """Count, asynchronously."""
    for number in range(count):
        await asyncio.sleep(0)
        yield number


async def turns(count: int) -> None:
    """Let the loop turn so often: for what takes few turns or never happens."""
    for _ in range(count):
        await asyncio.sleep(0)


async def awaited(stream: Any) -> Any:
    """The stream awaited, for a task."""
    return await stream


async def iterated(stream: Any) -> list[Any]:
    """The values read one by one, for a task."""
    return [value async for value in stream]
