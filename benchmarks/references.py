"""The references: what people write by hand, and the floors nobody can go below."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.contestants import Pool, Work, batch, pool, request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

BASE = "hand-written loop"
IDEAL = "bare coroutines"
UNLIMITED = "a bare `asyncio.Task` a job"


async def stop(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel workers and wait until they are gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pool(BASE, "reference")
@asynccontextmanager
async def hand_written(workers: int) -> AsyncGenerator[Pool, None]:
    """An unbounded `asyncio.Queue`, N workers, a future a job; results are gathered.

    Nothing else: no states, no times, no limits, one context and one task for all jobs of a worker.
    """
    loop = asyncio.get_running_loop()
    async with working(workers) as (queue, call):

        async def burst(work: Work, count: int) -> list[int]:
            futures: list[asyncio.Future[int]] = []
            for number in range(count):
                future: asyncio.Future[int] = loop.create_future()
                queue.put_nowait((work, number, future))
                futures.append(future)
            return await asyncio.gather(*futures)

        yield Pool(burst, call)


@pool(f"{BASE}, awaited in order", "reference")
@asynccontextmanager
async def hand_written_in_order(workers: int) -> AsyncGenerator[Pool, None]:
    """The same, but its futures are awaited one by one, which costs half of gathering them."""
    loop = asyncio.get_running_loop()
    async with working(workers) as (queue, call):

        async def burst(work: Work, count: int) -> list[int]:
            futures: list[asyncio.Future[int]] = []
            for number in range(count):
                future: asyncio.Future[int] = loop.create_future()
                queue.put_nowait((work, number, future))
                futures.append(future)
            return [await future for future in futures]

        yield Pool(burst, call)


Entry: TypeAlias = tuple[Work, int, "asyncio.Future[int]"]
Call: TypeAlias = Callable[[Work, int], Coroutine[Any, Any, int]]


@asynccontextmanager
async def working(workers: int) -> AsyncGenerator[tuple[asyncio.Queue[Entry], Call], None]:
    """The hand-written loop itself: its queue, and how to submit one job and await it."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Entry] = asyncio.Queue()

    async def worker() -> None:
        while True:
            work, number, future = await queue.get()
            try:
                result = await work(number)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

    async def call(work: Work, number: int) -> int:
        future: asyncio.Future[int] = loop.create_future()
        queue.put_nowait((work, number, future))
        return await future

    tasks = [asyncio.create_task(worker()) for _ in range(workers)]
    yield queue, call
    await stop(tasks)


@pool(f"{BASE}, timeout", "reference")
@asynccontextmanager
async def hand_written_timeout(workers: int) -> AsyncGenerator[Pool, None]:
    """The hand-written loop with the timeout the standard library offers around each job."""
    async with hand_written(workers) as inner:

        def timed(work: Work) -> Work:
            async def with_timeout(number: int) -> int:
                async with asyncio.timeout(30):
                    return await work(number)

            return with_timeout

        async def call(work: Work, number: int) -> int:
            assert inner.call is not None
            return await inner.call(timed(work), number)

        yield Pool(lambda work, count: inner.burst(timed(work), count), call)


def for_requests(name: str, *, seen: bool) -> None:
    """Enter the hand-written loop whose caller sets a context variable for each job, as a web framework
    does for each request. If jobs are to have `seen` it, each is a task in its caller's context.
    """

    @asynccontextmanager
    async def hand_written_for_requests(workers: int) -> AsyncGenerator[Pool, None]:
        loop = asyncio.get_running_loop()
        async with working(workers) as (queue, _):

            def submit(work: Work, number: int) -> asyncio.Future[int]:
                request.set(number)
                if seen:
                    work = in_context(work, copy_context())
                future: asyncio.Future[int] = loop.create_future()
                queue.put_nowait((work, number, future))
                return future

            def in_context(work: Work, context: Context) -> Work:
                async def in_its_context(number: int) -> int:
                    return await loop.create_task(work(number), context=context)

                return in_its_context

            async def burst(work: Work, count: int) -> list[int]:
                return await asyncio.gather(*[submit(work, number) for number in range(count)])

            async def call(work: Work, number: int) -> int:
                return await submit(work, number)

            yield Pool(burst, call)

    pool(name, "reference")(hand_written_for_requests)


for_requests(f"{BASE}, a variable set for each", seen=False)
for_requests(f"{BASE}, a task in a context for each", seen=True)


@pool(f"{BASE}, no results", "reference")
@asynccontextmanager
async def hand_written_no_results(workers: int) -> AsyncGenerator[Pool, None]:
    """An unbounded `asyncio.Queue` and N workers; `queue.join()` says when all is done."""
    queue: asyncio.Queue[tuple[Work, int]] = asyncio.Queue()

    async def worker() -> None:
        while True:
            work, number = await queue.get()
            await work(number)
            queue.task_done()

    async def burst(work: Work, count: int) -> None:
        for number in range(count):
            queue.put_nowait((work, number))
        await queue.join()

    tasks = [asyncio.create_task(worker()) for _ in range(workers)]
    yield Pool(burst)
    await stop(tasks)


@pool("deque floor", "reference")
@asynccontextmanager
async def deque_floor(workers: int) -> AsyncGenerator[Pool, None]:
    """The hand-written loop with a bare deque for a queue; idle workers sleep on a future."""
    loop = asyncio.get_running_loop()
    waiting: deque[tuple[Work, int, asyncio.Future[int]]] = deque()
    idle: list[asyncio.Future[None]] = []

    async def worker() -> None:
        while True:
            while waiting:
                work, number, future = waiting.popleft()
                future.set_result(await work(number))
            wake: asyncio.Future[None] = loop.create_future()
            idle.append(wake)
            await wake

    def put(work: Work, number: int) -> asyncio.Future[int]:
        future: asyncio.Future[int] = loop.create_future()
        waiting.append((work, number, future))
        if idle:
            idle.pop().set_result(None)
        return future

    async def burst(work: Work, count: int) -> list[int]:
        futures = [put(work, number) for number in range(count)]
        return [await future for future in futures]

    async def call(work: Work, number: int) -> int:
        return await put(work, number)

    tasks = [asyncio.create_task(worker()) for _ in range(workers)]
    yield Pool(burst, call)
    await stop(tasks)


@batch(IDEAL, "reference")
async def bare_coroutines(work: Work, count: int, workers: int) -> list[int]:
    """N coroutines share an iterator and a list: no queue, no futures. The floor of every map."""
    numbers = iter(range(count))
    results = [-1] * count

    async def worker(numbers: Iterator[int]) -> None:
        for number in numbers:
            results[number] = await work(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(workers, count)):
            group.create_task(worker(numbers))
    return results


@batch("TaskGroup + Semaphore", "reference")
async def taskgroup_semaphore(work: Work, count: int, workers: int) -> list[int]:
    """A task a job; the semaphore is taken before the task is made, so that few exist at once."""
    semaphore = asyncio.Semaphore(workers)

    def release(_: asyncio.Task[Any]) -> None:
        semaphore.release()

    tasks: list[asyncio.Task[int]] = []
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await semaphore.acquire()
            task = group.create_task(work(number))
            task.add_done_callback(release)
            tasks.append(task)
    return [task.result() for task in tasks]


@batch("gather + Semaphore", "reference")
async def gather_semaphore(work: Work, count: int, workers: int) -> list[int]:
    """The recipe of every tutorial: all tasks at once, each waiting for the semaphore."""
    semaphore = asyncio.Semaphore(workers)

    async def limited(number: int) -> int:
        async with semaphore:
            return await work(number)

    return await asyncio.gather(*(limited(number) for number in range(count)))


@batch(UNLIMITED, "extra")
async def unlimited_tasks(work: Work, count: int, _workers: int) -> list[int]:
    """A bare task a job, all at once."""
    tasks = [asyncio.create_task(work(number)) for number in range(count)]
    return [await task for task in tasks]
