"""Three tables: what a job holds while it is queued, while it sleeps, and after it failed.

    python -m benchmarks.memory [--quick] [--loop uvloop]

Every figure is the growth of a fresh process's resident memory, divided by the number of jobs. The
arguments exist before the first measurement, so that they are not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from time import perf_counter
from typing import Any, TypeAlias

from asyncworkers import Supervisor
from benchmarks.contestants import Work, contestants
from benchmarks.fresh import LOOPS, in_new_process, run_on
from benchmarks.ours import SUBMIT
from benchmarks.references import BASE, UNLIMITED
from benchmarks.resident import resident
from benchmarks.tables import figure, machine, markdown
from benchmarks.workloads import noop

Fill: TypeAlias = Callable[[list[int]], AbstractAsyncContextManager[Any]]
"""Queues a no-op job a number, lets none of them run, and yields what keeps them alive."""

SLEEP = 10.0
LOCALS = 100_000


@asynccontextmanager
async def futures(numbers: list[int]) -> AsyncGenerator[Any, None]:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[Work, int, asyncio.Future[int]]] = asyncio.Queue()
    for number in numbers:
        queue.put_nowait((noop, number, loop.create_future()))
    yield queue


@asynccontextmanager
async def tasks(numbers: list[int]) -> AsyncGenerator[Any, None]:
    yield [asyncio.create_task(noop(number)) for number in numbers]


@asynccontextmanager
async def aiojobs(numbers: list[int]) -> AsyncGenerator[Any, None]:
    library: Any = import_module("aiojobs")
    async with library.Scheduler(limit=1, pending_limit=0) as scheduler:
        for number in numbers:
            await scheduler.spawn(noop(number))
        yield scheduler


@asynccontextmanager
async def submitted(numbers: list[int]) -> AsyncGenerator[Any, None]:
    async with Supervisor(maxsize=None) as supervisor:
        for number in numbers:
            _ = supervisor.submit_nowait(noop, number)
        yield supervisor


@asynccontextmanager
async def submitted_and_kept(numbers: list[int]) -> AsyncGenerator[Any, None]:
    async with Supervisor(maxsize=None) as supervisor:
        yield [supervisor.submit_nowait(noop, number) for number in numbers]


@asynccontextmanager
async def submitted_together(numbers: list[int]) -> AsyncGenerator[Any, None]:
    async with Supervisor(maxsize=None) as supervisor:
        yield await supervisor.submit_many(noop, numbers)


QUEUED: dict[str, tuple[Fill, int]] = {
    BASE: (futures, 1_000_000),
    UNLIMITED: (tasks, 100_000),
    "aiojobs": (aiojobs, 100_000),
    SUBMIT: (submitted, 1_000_000),
    f"{SUBMIT}, jobs kept": (submitted_and_kept, 1_000_000),
    "await submit_many, jobs kept": (submitted_together, 1_000_000),
}


def queued(row: str, loop: str, share: float) -> tuple[int, float]:
    """How many jobs were queued, and the bytes each of them holds."""
    fill, count = QUEUED[row]
    count = int(count * share)

    async def measure() -> float:
        numbers = list(range(count))
        gc.collect()
        before = resident()
        async with fill(numbers):
            return (resident() - before) / count

    return count, run_on(loop, measure())


ASLEEP = (
    UNLIMITED,
    BASE,
    "aiojobs",
    "taskiq InMemoryBroker",
    SUBMIT,
    f'{SUBMIT}, isolation="task"',
    "await map",
)


def asleep(row: str, loop: str, count: int, seconds: float) -> tuple[float, float]:
    """Bytes a job with all of them asleep at once, and the share of the time that was sleep."""

    async def measure() -> tuple[float, float]:
        awake = count
        held = 0

        async def sleeper(number: int) -> int:
            nonlocal awake, held
            awake -= 1
            if not awake:
                held = resident()
            await asyncio.sleep(seconds)
            return number

        gc.collect()
        before = resident()
        began = perf_counter()
        async with contestants()[row].open(count) as pool:
            await pool.burst(sleeper, count)
            took = perf_counter() - began
        assert held
        return (held - before) / count, seconds / took

    held, efficiency = run_on(loop, measure())
    return held, efficiency


FAILED = (BASE, SUBMIT)


def failed(row: str, loop: str, count: int) -> float:
    """Bytes held by each of many errors somebody keeps, raised beside 100 kB of local data."""

    async def fail(number: int) -> int:
        local = b"x" * LOCALS
        raise ValueError(number, len(local))

    async def measure() -> float:
        async with contestants()[row].open(100) as pool:
            assert pool.call is not None
            errors: list[Exception] = []
            gc.collect()
            before = resident()
            for number in range(count):
                try:
                    await pool.call(fail, number)
                except ValueError as error:
                    errors.append(error)
            gc.collect()
            assert len(errors) == count
            return (resident() - before) / count

    held: float = run_on(loop, measure())
    return held


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs")
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    options = parser.parse_args()
    share = 0.1 if options.quick else 1.0
    loop: str = options.loop

    print(f"{machine()}; {loop}\n")
    lines: list[list[str]] = []
    for row in QUEUED:
        count, held = in_new_process("benchmarks.memory:queued", row=row, loop=loop, share=share)
        lines.append([row, f"{count:,}", figure(held)])
    print(markdown(["queued, not started", "jobs", "bytes a job"], lines))

    lines = []
    count, seconds = int(100_000 * share), SLEEP * (0.2 if options.quick else 1)
    asked: dict[str, Any] = {"loop": loop, "count": count, "seconds": seconds}
    for row in ASLEEP:
        held, efficiency = in_new_process("benchmarks.memory:asleep", row=row, **asked)
        lines.append([row, figure(held), f"{efficiency:.2f}"])
    head = [f"{count:,} asleep at once for {seconds:g} s", "bytes a job", "of ideal time"]
    print("\n" + markdown(head, lines))

    count = int(10_000 * share)
    lines = [
        [row, figure(in_new_process("benchmarks.memory:failed", row=row, loop=loop, count=count))]
        for row in FAILED
    ]
    print("\n" + markdown([f"{count:,} errors kept, 100 kB of locals each", "bytes a job"], lines))


if __name__ == "__main__":
    main()
