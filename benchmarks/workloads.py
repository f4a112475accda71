"""What contestants are asked to do, and how each answer becomes one number."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import Literal, TypeAlias

from benchmarks.contestants import Pool, Work
from benchmarks.references import BASE, IDEAL

Measure: TypeAlias = Callable[[Pool, int, int], Awaitable[float]]
"""Given a pool, its number of workers and a number of jobs: seconds in all, or the figure."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One column. A ratio compares seconds a job with those of `base`; other units stand alone.

    `single` workloads need a contestant that can submit one job and wait for it.
    """

    title: str
    measure: Measure
    jobs: int
    workers: int = 100
    unit: Literal["ratio", "µs", "ms"] = "ratio"
    single: bool = False
    base: str = BASE


async def noop(number: int) -> int:
    return number


async def suspend(number: int) -> int:
    await asyncio.sleep(0)
    return number


async def nap(number: int) -> int:
    await asyncio.sleep(0.001)
    return number


def burst_of(work: Work) -> Measure:
    """Seconds from the first submit to the last result, all submitted at once."""

    async def measure(pool: Pool, workers: int, jobs: int) -> float:
        await pool.burst(work, min(jobs, 2 * workers))
        gc.collect()
        began = perf_counter()
        results = await pool.burst(work, jobs)
        seconds = perf_counter() - began
        assert results is None or sorted(results) == list(range(jobs))
        return seconds

    return measure


async def steady(pool: Pool, workers: int, jobs: int) -> float:
    """Seconds for as many producers as workers, each submitting one job and awaiting it in turn."""
    call = pool.call
    assert call is not None

    async def producer(jobs: int) -> None:
        for number in range(jobs):
            assert await call(noop, number) == number

    await producer(10)
    gc.collect()
    began = perf_counter()
    await asyncio.gather(*(producer(jobs // workers) for _ in range(workers)))
    return perf_counter() - began


async def idle_latency(pool: Pool, _workers: int, jobs: int) -> float:
    """Median microseconds from submit to result when nothing else is going on."""
    assert pool.call is not None
    await pool.call(noop, 0)
    gc.collect()
    latencies: list[float] = []
    for number in range(jobs):
        began = perf_counter()
        await pool.call(noop, number)
        latencies.append(perf_counter() - began)
    return median(latencies) * 1e6


async def tiny_beside_long(pool: Pool, _workers: int, jobs: int) -> float:
    """p99 in milliseconds of tiny jobs beside one long job of many steps of 0.2 ms each."""
    call = pool.call
    assert call is not None
    stop = False

    async def long(number: int) -> int:
        while not stop:
            step_ends = perf_counter() + 0.0002
            while perf_counter() < step_ends:
                pass
            await asyncio.sleep(0)
        return number

    running = asyncio.create_task(call_of(pool, long))
    await asyncio.sleep(0.01)
    latencies: list[float] = []
    for number in range(jobs):
        began = perf_counter()
        await call(noop, number)
        latencies.append(perf_counter() - began)
        await asyncio.sleep(0.001)
    stop = True
    await running
    return quantiles(latencies, n=100)[98] * 1e3


async def call_of(pool: Pool, work: Work) -> int:
    assert pool.call is not None
    return await pool.call(work, 0)


async def stall(pool: Pool, _workers: int, jobs: int) -> float:
    """Longest time in milliseconds for which a burst of no-op jobs keeps the loop from others.

    Counted from the first job's start to the last one's end: submitting is the caller's own time.
    """
    first = last = 0.0
    left = jobs

    async def stamped(number: int) -> int:
        nonlocal first, last, left
        left -= 1
        if not first:
            first = perf_counter()
        if not left:
            last = perf_counter()
        return number

    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        before = perf_counter()
        while True:
            await asyncio.sleep(0)
            now = perf_counter()
            if first:
                longest = max(longest, (last or now) - max(before, first))
            before = now

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    gc.collect()
    await pool.burst(stamped, jobs)
    await asyncio.sleep(0)
    ticker.cancel()
    return longest * 1e3


WORKLOADS: dict[str, Workload] = {
    "noop": Workload("no-op", burst_of(noop), jobs=10_000),
    "steady": Workload("no-op, steady", steady, jobs=10_000, single=True),
    "suspend": Workload("one `sleep(0)`", burst_of(suspend), jobs=10_000),
    "nap": Workload("1 ms sleep", burst_of(nap), jobs=10_000, workers=1_000, base=IDEAL),
    "idle": Workload("idle latency", idle_latency, jobs=1_000, unit="µs", single=True),
    "tiny": Workload("tiny beside long, p99", tiny_beside_long, jobs=100, unit="ms", single=True),
    "stall": Workload("longest stall", stall, jobs=20_000, unit="ms"),
}
