"""The rows of asyncworkers, through its public API only.

Every one of them runs on a supervisor with one unbounded queue, as the hand-written loop has.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Literal, TypeAlias

from asyncworkers import JobFunction, Queue, Retry, Supervisor, job
from asyncworkers.events import Event
from benchmarks.contestants import Kind, Pool, Work, pool, request

Run: TypeAlias = JobFunction[[int], Coroutine[Any, Any, int]]
Burst: TypeAlias = Callable[[Supervisor, Run, int], Awaitable[list[int]]]
Call: TypeAlias = Callable[[Supervisor, Run, int], Awaitable[int]]


async def burst_nowait(supervisor: Supervisor, run: Run, count: int) -> list[int]:
    jobs = [supervisor.submit_nowait(run, number) for number in range(count)]
    return [await one for one in jobs]


async def call_nowait(supervisor: Supervisor, run: Run, number: int) -> int:
    return await supervisor.submit_nowait(run, number)


async def burst_awaited(supervisor: Supervisor, run: Run, count: int) -> list[int]:
    jobs = [await supervisor.submit(run, number) for number in range(count)]
    return [await one for one in jobs]


async def call_awaited(supervisor: Supervisor, run: Run, number: int) -> int:
    return await (await supervisor.submit(run, number))


async def burst_of_requests(supervisor: Supervisor, run: Run, count: int) -> list[int]:
    def submit(number: int) -> Awaitable[int]:
        request.set(number)
        return supervisor.submit_nowait(run, number)

    jobs = [submit(number) for number in range(count)]
    return [await one for one in jobs]


async def call_of_request(supervisor: Supervisor, run: Run, number: int) -> int:
    request.set(number)
    return await supervisor.submit_nowait(run, number)


async def burst_many(supervisor: Supervisor, run: Run, count: int) -> list[int]:
    return [await one for one in await supervisor.submit_many(run, range(count))]


async def map_list(supervisor: Supervisor, run: Run, count: int) -> list[int]:
    return await supervisor.map(run, range(count))


async def map_stream(supervisor: Supervisor, run: Run, count: int) -> list[int]:
    return [result async for result in supervisor.map(run, range(count))]


async def map_unordered(supervisor: Supervisor, run: Run, count: int) -> list[int]:
    return [result async for result in supervisor.map(run, range(count), ordered=False)]


def ignore(_: Event) -> None:
    """A listener that does nothing: what is measured is making events and handing them over."""


def enter(
    name: str,
    burst: Burst,
    call: Call | None = None,
    *,
    isolation: Literal["shared", "task"] = "shared",
    in_context: bool = False,
    listening: Literal["never", "always", "until started"] = "never",
    kind: Kind = "ours",
    made: Callable[[Work], Run] = job,
) -> None:
    """Enter a row: how it submits, with which policies, on what kind of queue."""
    function = cache(made)

    @asynccontextmanager
    async def open_pool(workers: int) -> AsyncGenerator[Pool, None]:
        if in_context:
            request.set(0)
        queue = Queue("default", workers, isolation=isolation, maxsize=None)
        async with Supervisor(queues=[queue]) as supervisor:
            if listening != "never":
                remove = supervisor.listen(ignore)
                if listening == "until started":
                    remove()

            def many(work: Work, count: int) -> Awaitable[list[int]]:
                return burst(supervisor, function(work), count)

            def one(work: Work, number: int) -> Awaitable[int]:
                assert call is not None
                return call(supervisor, function(work), number)

            yield Pool(many, one if call is not None else None)

    pool(name, kind)(open_pool)


SUBMIT = "submit_nowait"
RETRY = Retry(5, on=OSError)

enter(SUBMIT, burst_nowait, call_nowait)
enter("await submit", burst_awaited, call_awaited)
enter(f"{SUBMIT}, one context of all", burst_nowait, call_nowait, in_context=True)
enter(f"{SUBMIT}, a context per request", burst_of_requests, call_of_request)
enter(f'{SUBMIT}, isolation="task"', burst_nowait, call_nowait, isolation="task")
enter(f"{SUBMIT}, retry", burst_nowait, call_nowait, made=lambda work: job(work, retry=RETRY))
enter(f"{SUBMIT}, timeout=30", burst_nowait, call_nowait, made=lambda work: job(work, timeout=30))
enter(f"{SUBMIT}, a listener", burst_nowait, call_nowait, listening="always")
enter(f"{SUBMIT}, a listener removed", burst_nowait, listening="until started", kind="extra")
enter("await submit_many", burst_many)
enter("await map", map_list)
enter("async for map", map_stream)
enter("async for map, ordered=False", map_unordered)
