"""The libraries people use instead, each at the best setting its documentation offers.

A library is imported when its row is measured, and only then. Two of them hand no result back
(aqueue, repid): there the job writes into a list, which is less work than a result would be.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.contestants import Pool, Work, batch, pool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence


@pool("aiojobs", "peer", "aiojobs")
@asynccontextmanager
async def aiojobs(workers: int) -> AsyncGenerator[Pool, None]:
    library: Any = import_module("aiojobs")
    async with library.Scheduler(limit=workers, pending_limit=0) as scheduler:

        async def burst(work: Work, count: int) -> list[int]:
            jobs = [await scheduler.spawn(work(number)) for number in range(count)]
            return [await job.wait() for job in jobs]

        async def call(work: Work, number: int) -> int:
            job = await scheduler.spawn(work(number))
            result: int = await job.wait()
            return result

        yield Pool(burst, call)


@batch("aiometer", "peer", "aiometer")
async def aiometer(work: Work, count: int, workers: int) -> Sequence[int]:
    library: Any = import_module("aiometer")
    calls = [partial(work, number) for number in range(count)]
    results: list[int] = await library.run_all(calls, max_at_once=workers)
    return results


@pool("anyio stream + N workers", "peer", "anyio")
@asynccontextmanager
async def anyio_stream(workers: int) -> AsyncGenerator[Pool, None]:
    anyio: Any = import_module("anyio")
    send, receive = anyio.create_memory_object_stream(math.inf)

    async def worker() -> None:
        async for work, number, results, done in receive:
            results[number] = await work(number)
            done(number)

    async def burst(work: Work, count: int) -> list[int]:
        results = [-1] * count
        left = count
        finished = anyio.Event()

        def done(_: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                finished.set()

        for number in range(count):
            send.send_nowait((work, number, results, done))
        await finished.wait()
        return results

    async def call(work: Work, number: int) -> int:
        result: dict[int, int] = {}
        finished = anyio.Event()

        def done(_: int) -> None:
            finished.set()

        send.send_nowait((work, number, result, done))
        await finished.wait()
        return result[number]

    async with anyio.create_task_group() as group:
        for _ in range(workers):
            group.start_soon(worker)
        yield Pool(burst, call)
        group.cancel_scope.cancel()
    send.close()
    receive.close()


@pool("anyio task group + CapacityLimiter", "peer", "anyio")
@asynccontextmanager
async def anyio_limiter(workers: int) -> AsyncGenerator[Pool, None]:
    anyio: Any = import_module("anyio")
    limiter = anyio.CapacityLimiter(workers)

    async def burst(work: Work, count: int) -> list[int]:
        results = [-1] * count

        async def limited(number: int) -> None:
            async with limiter:
                results[number] = await work(number)

        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(limited, number)
        return results

    async def call(work: Work, number: int) -> int:
        async with limiter:
            return await work(number)

    yield Pool(burst, call)


@pool("taskiq InMemoryBroker", "peer", "taskiq")
@asynccontextmanager
async def taskiq(workers: int) -> AsyncGenerator[Pool, None]:
    """Results are fetched after `wait_all()`: `wait_result()` polls, by default every 0.2 s.

    A single call awaits in place, a setting of the broker, for the same reason.
    """
    library: Any = import_module("taskiq")
    settings: dict[str, Any] = {
        "max_async_tasks": workers,
        "max_stored_results": -1,
        "cast_types": False,
    }
    broker = library.InMemoryBroker(**settings)
    in_place = library.InMemoryBroker(await_inplace=True, **settings)
    await broker.startup()
    await in_place.startup()

    @cache
    def registered(work: Work, at: Any) -> Any:
        return at.register_task(work, task_name=work.__name__)

    async def burst(work: Work, count: int) -> list[int]:
        task = registered(work, broker)
        sent = [await task.kiq(number) for number in range(count)]
        await broker.wait_all()
        return [(await one.get_result()).return_value for one in sent]

    async def call(work: Work, number: int) -> int:
        sent = await registered(work, in_place).kiq(number)
        result: int = (await sent.get_result()).return_value
        return result

    yield Pool(burst, call)
    await broker.shutdown()
    await in_place.shutdown()


@batch("streamable", "peer", "streamable")
async def streamable(work: Work, count: int, workers: int) -> list[int]:
    library: Any = import_module("streamable")
    return [result async for result in library.stream(range(count)).map(work, concurrency=workers)]


@pool("asyncio-pool", "peer", "asyncio-pool")
@asynccontextmanager
async def asyncio_pool(workers: int) -> AsyncGenerator[Pool, None]:
    library: Any = import_module("asyncio_pool")
    async with library.AioPool(size=workers) as workers_pool:

        async def burst(work: Work, count: int) -> list[int]:
            results: list[int] = await workers_pool.map(work, range(count))
            return results

        async def call(work: Work, number: int) -> int:
            result: int = await workers_pool.exec(work(number))
            return result

        yield Pool(burst, call)


@batch("aioitertools.gather", "peer", "aioitertools")
async def aioitertools(work: Work, count: int, workers: int) -> list[int]:
    library: Any = import_module("aioitertools.asyncio")
    calls = (work(number) for number in range(count))
    results: list[int] = await library.gather(*calls, limit=workers)
    return results


@batch("aiotools TaskScope + Semaphore", "peer", "aiotools")
async def aiotools(work: Work, count: int, workers: int) -> list[int]:
    library: Any = import_module("aiotools")
    semaphore = asyncio.Semaphore(workers)

    async def limited(number: int) -> int:
        async with semaphore:
            return await work(number)

    async with library.TaskScope() as scope:
        tasks = [scope.create_task(limited(number)) for number in range(count)]
    return [task.result() for task in tasks]


@batch("aiostream", "peer", "aiostream")
async def aiostream(work: Work, count: int, workers: int) -> list[int]:
    library: Any = import_module("aiostream")
    source = library.stream.iterate(range(count))
    mapped = library.stream.amap(source, work, task_limit=workers)
    results: list[int] = await library.stream.list(mapped)
    return results


@batch("pypeln", "peer", "pypeln")
async def pypeln(work: Work, count: int, workers: int) -> list[int]:
    library: Any = import_module("pypeln")
    stage = library.task.map(work, range(count), workers=workers)
    return list(await library.task.ordered(stage))


@batch("aqueue", "peer", "aqueue")
async def aqueue(work: Work, count: int, workers: int) -> list[int]:
    library: Any = import_module("aqueue")
    results = [-1] * count

    async def process(item: Any) -> None:
        results[item.number] = await work(item.number)

    item_type: Any = type("Item", (library.Item,), {"process": process})
    items: list[Any] = []
    for number in range(count):
        item = item_type()
        item.number = number
        items.append(item)
    await library.async_run_queue(
        initial_items=items, num_workers=workers, order="fifo", visualize=False
    )
    return results


@batch("repid InMemoryServer", "peer", "repid")
async def repid(work: Work, count: int, workers: int) -> list[int]:
    library: Any = import_module("repid")
    results = [-1] * count
    router = library.Router()

    async def record(number: int) -> None:
        results[number] = await work(number)

    router.actor(record, converter=library.BasicConverter)

    app = library.Repid()
    app.servers.register_server("default", library.InMemoryServer(), is_default=True)
    app.include_router(router)
    async with app.servers.default.connection():
        for number in range(count):
            await app.send_message_json(
                channel="default", payload={"number": number}, headers={"topic": "record"}
            )
        await app.run_worker(messages_limit=count, tasks_limit=workers, register_signals=[])
    return results
