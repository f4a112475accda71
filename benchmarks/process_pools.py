"""The process pools that are compared: asyncworkers, the standard library, and the peers.

Each is driven from an event loop through its public API, as its documentation says, at its best
setting for small jobs where it offers one.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from functools import cache
from importlib import import_module, metadata
from typing import Any, ClassVar

from asyncworkers import Supervisor, job

OURS = "asyncworkers"
BASE = "ProcessPoolExecutor"


class ProcessPool:
    """A contestant: its methods are what a user of the library would write."""

    name: ClassVar[str]
    distribution: ClassVar[str | None] = None
    library: Any = None

    def __init__(self, processes: int) -> None:
        self.processes = processes

    @classmethod
    def load(cls) -> None:
        """Import the library, so that nobody's import is measured."""
        if cls.distribution is not None:
            cls.library = import_module(cls.distribution)

    @classmethod
    def version(cls) -> str | None:
        """The installed version of what it needs: "" if it needs nothing, None if it is missing."""
        try:
            return metadata.version(cls.distribution) if cls.distribution else ""
        except metadata.PackageNotFoundError:
            return None

    async def open(self) -> None:
        """Make the pool."""

    async def close(self) -> None:
        """Stop it, without waiting for jobs that still run where the library allows it."""

    def prepare(self, function: Callable[..., Any]) -> Any:
        """Return what `submit` takes for this function."""
        return function

    async def submit(self, function: Any, *args: Any) -> Awaitable[Any]:
        """Put one job in line; what is returned is awaited for its result."""
        raise NotImplementedError

    async def submit_limited(self, seconds: float, function: Any, *args: Any) -> Awaitable[Any]:
        """Put one job in line that may take so long, by the library's own timeout if it has one."""
        return asyncio.ensure_future(
            asyncio.wait_for(await self.submit(function, *args), timeout=seconds)
        )

    async def cancel(self, submitted: Any) -> None:
        submitted.cancel()


@cache
def cpu_job(function: Callable[..., Any]) -> Any:
    return job(function, cpu=True)


class Ours(ProcessPool):
    """`await supervisor.submit(function, ...)`."""

    name = OURS

    def __init__(self, processes: int) -> None:
        super().__init__(processes)
        self.supervisor = Supervisor(processes=processes)
        setattr(self, "submit", self.supervisor.submit)  # noqa: B010  # without a call more

    async def open(self) -> None:
        await self.supervisor.__aenter__()

    async def close(self) -> None:
        await self.supervisor.__aexit__(*sys.exc_info())

    def prepare(self, function: Callable[..., Any]) -> Any:
        return cpu_job(function)

    async def submit_limited(self, seconds: float, function: Any, *args: Any) -> Awaitable[Any]:
        return await self.supervisor.submit(function.options(timeout=seconds), *args)


class InExecutor(ProcessPool):
    """`loop.run_in_executor(executor, function, ...)`."""

    executor: Executor

    def make(self) -> Executor:
        return ProcessPoolExecutor(self.processes)

    async def open(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.executor = self.make()

    async def close(self) -> None:
        await asyncio.to_thread(self.executor.shutdown, wait=True, cancel_futures=True)

    async def submit(self, function: Any, *args: Any) -> Awaitable[Any]:
        return self.loop.run_in_executor(self.executor, function, *args)


class Forked(InExecutor):
    """The reference: as the system's default has it, which forks on Linux before Python 3.14."""

    name = BASE


class Spawned(InExecutor):
    name = f"{BASE}, spawn"

    def make(self) -> Executor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.processes, mp_context=context)


class Loky(InExecutor):
    """The reusable executor: whoever finds it broken asks for it again."""

    name = distribution = "loky"

    def make(self) -> Executor:
        executor: Executor = self.library.get_reusable_executor(max_workers=self.processes)
        return executor

    async def close(self) -> None:
        shutdown: Any = self.executor.shutdown
        await asyncio.to_thread(shutdown, wait=True, kill_workers=True)

    async def submit(self, function: Any, *args: Any) -> Awaitable[Any]:
        try:
            return self.loop.run_in_executor(self.executor, function, *args)
        except BrokenExecutor:
            self.executor = self.make()
            return self.loop.run_in_executor(self.executor, function, *args)


class WithCallbacks(ProcessPool):
    """`pool.apply_async(function, args, callback=...)`, whose callbacks come in a thread."""

    pool: Any

    async def open(self) -> None:
        self.loop = asyncio.get_running_loop()

    async def submit(self, function: Any, *args: Any) -> Awaitable[Any]:
        return self.apply(function, args)

    def apply(self, function: Any, args: tuple[Any, ...], **options: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self.loop.create_future()

        def settle(finish: Callable[[Any], None], value: Any) -> None:
            if not future.done():
                finish(value)

        def settled_by(finish: Callable[[Any], None]) -> Callable[[Any], object]:
            return lambda value: self.loop.call_soon_threadsafe(settle, finish, value)

        self.pool.apply_async(
            function,
            args,
            callback=settled_by(future.set_result),
            error_callback=settled_by(future.set_exception),
            **options,
        )
        return future

    async def close(self) -> None:
        await asyncio.to_thread(self.pool.terminate)


class MultiprocessingPool(WithCallbacks):
    name = "multiprocessing.Pool"

    async def open(self) -> None:
        await super().open()
        self.pool = multiprocessing.Pool(self.processes)


class Mpire(WithCallbacks):
    name = distribution = "mpire"

    async def open(self) -> None:
        await super().open()
        self.pool = self.library.WorkerPool(n_jobs=self.processes)

    async def submit_limited(self, seconds: float, function: Any, *args: Any) -> Awaitable[Any]:
        return self.apply(function, args, task_timeout=seconds)


class Pebble(ProcessPool):
    name = distribution = "pebble"
    pool: Any

    async def open(self) -> None:
        self.pool = self.library.ProcessPool(max_workers=self.processes)

    async def close(self) -> None:
        self.pool.stop()
        await asyncio.to_thread(self.pool.join)

    async def submit(self, function: Any, *args: Any) -> Awaitable[Any]:
        return asyncio.wrap_future(self.pool.schedule(function, args=args))

    async def submit_limited(self, seconds: float, function: Any, *args: Any) -> Awaitable[Any]:
        return asyncio.wrap_future(self.pool.schedule(function, args=args, timeout=seconds))


class InTasks(ProcessPool):
    """A library whose one call is a coroutine: a task a job, so that several can be outstanding."""

    async def submit(self, function: Any, *args: Any) -> Awaitable[Any]:
        return asyncio.ensure_future(self.call(function, *args))

    async def call(self, function: Any, *args: Any) -> Any:
        raise NotImplementedError


class Anyio(InTasks):
    """With `cancellable=True`, which asks for the process to be killed on cancellation."""

    name = "anyio.to_process"
    distribution = "anyio"

    @classmethod
    def load(cls) -> None:
        cls.library = import_module("anyio.to_process")

    async def open(self) -> None:
        self.limiter = import_module("anyio").CapacityLimiter(self.processes)

    async def call(self, function: Any, *args: Any) -> Any:
        return await self.library.run_sync(function, *args, cancellable=True, limiter=self.limiter)


class Aiomultiprocess(InTasks):
    """Runs coroutine functions only: the job is called by one."""

    name = distribution = "aiomultiprocess"
    pool: Any

    async def open(self) -> None:
        self.pool = self.library.Pool(self.processes)

    async def close(self) -> None:
        self.pool.terminate()
        await self.pool.join()

    async def call(self, function: Any, *args: Any) -> Any:
        from benchmarks.cpu_jobs import in_coroutine

        return await self.pool.apply(in_coroutine, (function, *args))


class Aiomisc(InTasks):
    name = "aiomisc WorkerPool"
    distribution = "aiomisc"
    pool: Any

    async def open(self) -> None:
        self.pool = self.library.WorkerPool(self.processes)
        await self.pool.start()

    async def close(self) -> None:
        await self.pool.close()

    async def call(self, function: Any, *args: Any) -> Any:
        return await self.pool.create_task(function, *args)


class Dask(ProcessPool):
    """A local cluster of one thread a process, without its dashboard."""

    name = "dask.distributed"
    distribution = "distributed"

    async def open(self) -> None:
        self.cluster = await self.library.LocalCluster(
            n_workers=self.processes,
            threads_per_worker=1,
            asynchronous=True,
            dashboard_address=None,
        )
        self.client = await self.library.Client(self.cluster, asynchronous=True)

    async def close(self) -> None:
        await self.client.close()
        await self.cluster.close()

    async def submit(self, function: Any, *args: Any) -> Awaitable[Any]:
        submitted: Awaitable[Any] = self.client.submit(function, *args, pure=False)
        return submitted

    async def cancel(self, submitted: Any) -> None:
        await submitted.cancel()


POOLS: dict[str, type[ProcessPool]] = {
    pool.name: pool
    for pool in (
        Ours,
        Forked,
        Spawned,
        MultiprocessingPool,
        Loky,
        Pebble,
        Mpire,
        Anyio,
        Aiomultiprocess,
        Aiomisc,
        Dask,
    )
}


def chosen(names: str) -> list[type[ProcessPool]]:
    """The contestants with these names, separated by commas, or with such parts; all for ""."""
    parts = names.casefold().split(",")
    return [
        pool
        for name, pool in POOLS.items()
        if name.casefold() in parts
        or any(part in name.casefold() for part in parts if part not in map(str.casefold, POOLS))
    ]
