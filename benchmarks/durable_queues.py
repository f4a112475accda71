"""The contestants of the tables of durable jobs: asyncworkers, and queues that keep jobs in SQLite.

Each is used as its documentation says, in one process that both submits and works. Peers keep their
own defaults, durability included; only where they look for work at intervals, they are asked to look
every millisecond. A peer without workers gets a loop in a thread, as its documentation shows.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module, metadata
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from asyncworkers import Supervisor, job
from asyncworkers.store.sqlite import SqliteStore

__all__ = ["CONTESTANTS", "Body", "Contestant"]

LOOK = 0.001
"""Seconds between two looks of those that look at intervals."""

PRODUCERS = 50


class Body:
    """What every job calls with its number."""

    call: ClassVar[Any] = None


@job
async def note(number: int) -> int:
    """The job of ours."""
    answer = Body.call(number)
    if answer is not None:
        await answer
    return number


class Contestant:
    """A queue in a file. `serve` works until the context is left; it may block or be a coroutine."""

    name: ClassVar[str]
    distribution: ClassVar[str | None] = None
    blocking = True
    batches = False

    def __init__(self, directory: str) -> None:
        self.path = Path(directory) / "jobs.db"

    @classmethod
    def version(cls) -> str | None:
        """The installed version; None if it is missing."""
        if cls.distribution is None:
            return ""
        try:
            return metadata.version(cls.distribution)
        except metadata.PackageNotFoundError:
            return None

    # ---- what each defines

    def put(self, number: int) -> Any:
        """Submit a job; an awaitable, if it is not `blocking`."""
        raise NotImplementedError

    async def put_many(self, numbers: range) -> None:
        """Submit many at once."""
        raise NotImplementedError

    async def submitting(self, use: Callable[[], Awaitable[Any]]) -> Any:
        """Call with the queue open and nobody working."""
        return await use()

    async def serving(self, workers: int, use: Callable[[], Awaitable[Any]]) -> Any:
        """Call with so many workers; returns when what they did is written."""
        raise NotImplementedError

    # ---- what is measured

    async def one_by_one(self, jobs: int) -> float:
        """Jobs a second, each awaited before the next."""
        count = max(50, jobs // 50)

        async def use() -> float:
            start = time.perf_counter()
            for number in range(count):
                done = self.put(number)
                if not self.blocking:
                    await done
            return count / (time.perf_counter() - start)

        return float(await self.submitting(use))

    async def concurrent(self, jobs: int) -> float:
        """Jobs a second from 50 tasks, or threads, at once."""
        each = max(5, jobs // 4 // PRODUCERS)

        async def produce() -> None:
            for number in range(each):
                await self.put(number)

        def produce_in_thread(_: int) -> None:
            for number in range(each):
                self.put(number)

        async def use() -> float:
            start = time.perf_counter()
            if self.blocking:
                with ThreadPoolExecutor(PRODUCERS) as pool:
                    await asyncio.to_thread(lambda: list(pool.map(produce_in_thread, range(50))))
            else:
                await asyncio.gather(*(produce() for _ in range(PRODUCERS)))
            return PRODUCERS * each / (time.perf_counter() - start)

        return float(await self.submitting(use))

    async def many(self, jobs: int) -> float:
        """Jobs a second, a thousand at a time."""

        async def use() -> float:
            start = time.perf_counter()
            await self.fill(jobs)
            return jobs / (time.perf_counter() - start)

        return float(await self.submitting(use))

    async def fill(self, jobs: int) -> None:
        if not self.batches:
            for number in range(jobs):
                done = self.put(number)
                if not self.blocking:
                    await done
            return
        for first in range(0, jobs, 1_000):
            await self.put_many(range(first, min(first + 1_000, jobs)))

    async def backlog(self, jobs: int) -> float:
        """Jobs a second, from the first to the last of what waits, all of it written."""
        await self.submitting(lambda: self.fill(jobs))
        done, left = threading.Event(), jobs
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def called(_: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set()
                loop.call_soon_threadsafe(over.set)

        Body.call = called
        start = time.perf_counter()
        await self.serving(self.workers, over.wait)
        return jobs / (time.perf_counter() - start)

    workers = 1

    async def latency(self, jobs: int) -> float:
        """Milliseconds from `submit` to the job's first statement, all idle: the median."""
        taken: list[float] = []
        began = threading.Event()
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        start = 0.0

        def called(_: int) -> None:
            taken.append(time.perf_counter() - start)
            began.set()
            loop.call_soon_threadsafe(woken.set)

        Body.call = called

        async def use() -> None:
            nonlocal start
            for number in range(max(20, min(300, jobs // 100))):
                await asyncio.sleep(0.004)
                woken.clear()
                start = time.perf_counter()
                done = self.put(number)
                if not self.blocking:
                    await done
                await woken.wait()

        await self.serving(self.workers, use)
        return 1_000 * median(taken)


class Ours(Contestant):
    """asyncworkers, every commit on the disk."""

    name = "asyncworkers, FULL"
    durability: Any = "power"
    blocking = False
    batches = True
    workers = 100
    supervisor: Supervisor

    def put(self, number: int) -> Any:
        return self.supervisor.submit(note, number)

    async def put_many(self, numbers: range) -> None:
        await self.supervisor.submit_many(note, numbers)

    async def submitting(self, use: Callable[[], Awaitable[Any]]) -> Any:
        return await self.serving(0, use)

    async def serving(self, workers: int, use: Callable[[], Awaitable[Any]]) -> Any:
        store = SqliteStore(self.path, durability=self.durability)
        async with Supervisor(workers, store=store, functions=[note]) as self.supervisor:
            return await use()


class OursFaster(Ours):
    """asyncworkers, synced as the system likes."""

    name = "asyncworkers, NORMAL"
    durability = "process"


class Huey(Contestant):
    """huey on its SQLite storage, one worker thread: more are slower."""

    name = "huey"
    distribution = "huey"

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        huey: Any = import_module("huey")
        self.queue = huey.SqliteHuey(filename=str(self.path))
        self.put = self.queue.task()(_called)  # type: ignore[method-assign]

    async def serving(self, workers: int, use: Callable[[], Awaitable[Any]]) -> Any:
        consumer = self.queue.create_consumer(
            workers=workers, initial_delay=LOOK, max_delay=LOOK, periodic=False
        )
        consumer.start()
        try:
            return await use()
        finally:
            await asyncio.to_thread(consumer.stop, True)


def _called(number: int) -> int:
    Body.call(number)
    return number


class Litequeue(Contestant):
    """litequeue, which has no workers, with a loop in each of some threads."""

    name = "litequeue"
    distribution = "litequeue"

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.queue = import_module("litequeue").LiteQueue(str(self.path))

    def put(self, number: int) -> Any:
        return self.queue.put(json.dumps(number))

    async def serving(self, workers: int, use: Callable[[], Awaitable[Any]]) -> Any:
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                found = self.queue.pop()
                if found is None:
                    self.queue.retry_expired(30.0)
                    time.sleep(LOOK)
                    continue
                _called(json.loads(found.data))
                self.queue.done(found.message_id, claim_id=found.claim_id)

        threads = [threading.Thread(target=work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        try:
            return await use()
        finally:
            over.set()
            for thread in threads:
                await asyncio.to_thread(thread.join)


class PulseQueue(Contestant):
    """pulse-queue, its coroutine workers."""

    name = "pulse-queue"
    distribution = "pulse-queue"
    blocking = False
    workers = 4

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.pulse: Any = import_module("pulse_queue")
        self.store = self.pulse.AsyncStore(self.pulse.Store(str(self.path)))

    def put(self, number: int) -> Any:
        return self.store.enqueue({"type": "note", "number": number})

    async def serving(self, workers: int, use: Callable[[], Awaitable[Any]]) -> Any:
        async def handle(context: Any) -> None:
            answer = Body.call(context.payload["number"])
            if answer is not None:
                await answer

        registry = self.pulse.HandlerRegistry({"note": handle})
        pool = self.pulse.WorkerPool(
            self.store, registry, concurrency=workers, poll_interval=LOOK, handle_signals=False
        )
        running = asyncio.ensure_future(pool.run())
        try:
            return await use()
        finally:
            pool.stop()
            await running


CONTESTANTS: dict[str, type[Contestant]] = {
    one.name: one for one in (Ours, OursFaster, Huey, Litequeue, PulseQueue)
}
