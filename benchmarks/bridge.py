"""Two tables: CPU jobs and big arrays over two processes, asyncworkers beside its peers.

    python -m benchmarks.bridge [--quick] [--asyncio] [--only pebble,loky] [--json results.json]

How it measures. Every cell of every round is measured in an interpreter of its own, the contestants
in an order shuffled anew for each workload of each round, so that none inherits another's heap or
processes and all see the same noise. A ratio is of two figures of the same round, and the table
shows medians over the rounds. Pools are opened and warmed up before the clock is started, except
where starting is what is measured.

Of a machine that others use too it asks for a quiet moment: before each measurement it waits until
they use less than `--quiet` cores, for some seconds at most, and of three tries it keeps the one
that they disturbed least. How much that was is told below the table.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import sys
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from math import nan
from pathlib import Path
from statistics import StatisticsError, median, quantiles
from time import perf_counter
from typing import Any, Literal, TypeAlias

from benchmarks import cpu_jobs
from benchmarks.family import (
    family_seconds,
    machine_seconds,
    memory,
    relatives,
    started,
    wait_for_quiet,
)
from benchmarks.fresh import run_on
from benchmarks.process_pools import BASE, OURS, POOLS, ProcessPool, chosen
from benchmarks.tables import figure, machine, markdown

PROCESSES = 2
SIZES = (1, 10, 100)
PATIENCE = 60.0
"""Seconds for one cell of one round, after which it has failed."""

Figures: TypeAlias = dict[str, float]
Measure: TypeAlias = Callable[[ProcessPool, float], Awaitable[Figures]]
"""Given a pool and how many seconds to measure: the figures, by the names columns know them by."""


async def outstanding(
    pool: ProcessPool, seconds: float, function: Any, argument: Any, count: int
) -> tuple[float, list[float]]:
    """Keep so many jobs outstanding for so long. Returns jobs a second, and when each was done.

    One coroutine submits, and awaits the oldest: no task a job, but where the library needs one.
    """
    submit, prepared = pool.submit, pool.prepare(function)
    submitted: deque[Awaitable[Any]] = deque()
    for _ in range(count):
        submitted.append(await submit(prepared, argument))

    async def turn_over(seconds: float) -> list[float]:
        stamps = [perf_counter()]
        ends = stamps[0] + seconds
        while stamps[-1] < ends:
            assert await submitted.popleft() == argument
            submitted.append(await submit(prepared, argument))
            stamps.append(perf_counter())
        return stamps

    await turn_over(seconds / 3)
    gc.collect()
    stamps = await turn_over(seconds)
    return (len(stamps) - 1) / (stamps[-1] - stamps[0]), stamps


def tiny_jobs(count: int) -> Measure:
    async def measure(pool: ProcessPool, seconds: float) -> Figures:
        rate, _ = await outstanding(pool, seconds, cpu_jobs.tiny, 7, count)
        return {f"tiny {count}": rate}

    return measure


async def one_at_a_time(pool: ProcessPool, seconds: float) -> Figures:
    rate, stamps = await outstanding(pool, seconds, cpu_jobs.tiny, 7, 1)
    latencies = [after - before for before, after in pairwise(stamps)]
    percentiles = quantiles(latencies, n=100)
    return {"tiny 1": rate, "p50": percentiles[49] * 1e6, "p99": percentiles[98] * 1e6}


def burning(milliseconds: int, count: int) -> Measure:
    """The share of both cores that went into the jobs themselves."""

    async def measure(pool: ProcessPool, seconds: float) -> Figures:
        each = milliseconds / 1000
        rate, _ = await outstanding(pool, seconds, cpu_jobs.burn, each, count)
        return {f"{milliseconds} ms {count}": rate * each / PROCESSES}

    return measure


async def lag(pool: ProcessPool, seconds: float) -> Figures:
    """How late the loop wakes whoever sleeps 1 ms, while 1 ms jobs keep both cores busy."""
    lags: list[float] = []

    async def look() -> None:
        while True:
            began = perf_counter()
            await asyncio.sleep(0.001)
            lags.append(perf_counter() - began - 0.001)

    looking = asyncio.create_task(look())
    await outstanding(pool, seconds, cpu_jobs.burn, 0.001, 64)
    looking.cancel()
    warmed_up = lags[len(lags) // 4 :]
    return {"lag": quantiles(warmed_up, n=100)[98] * 1e3}


async def idle_memory(pool: ProcessPool, seconds: float) -> Figures:
    """Memory of all processes the library started, helpers included, for each it was asked for."""
    await outstanding(pool, seconds / 3, cpu_jobs.burn, 0.002, 4)
    await asyncio.sleep(seconds / 3)
    pids = relatives()
    return {"memory": sum(map(memory, pids)) / PROCESSES / 1e6 if pids else nan}


async def transfers(
    seconds: float,
    size: int,
    transfer: Callable[[float], Awaitable[tuple[float, float]]],
) -> tuple[float, float]:
    """GB/s of the first transfer, and the median of those that follow, one at a time.

    Each array bears another number, so that no old one passes for it, and whoever gets it looks at
    one number of each of its pages.
    """
    numbers = size * cpu_jobs.MEGABYTE // 8
    pages = -(-numbers // cpu_jobs.PAGE)
    taken: list[float] = []
    ends = perf_counter() + seconds
    while len(taken) < 4 or perf_counter() < ends:
        stamp = float(len(taken))
        began = perf_counter()
        arrived = await transfer(stamp)
        taken.append(perf_counter() - began)
        assert arrived == (stamp, stamp + pages - 1), "what arrived is not what was sent"
    gigabytes = numbers * 8 / 1e9
    return gigabytes / taken[0], gigabytes / median(taken[1:])


def arguments_of(size: int) -> Measure:
    async def measure(pool: ProcessPool, seconds: float) -> Figures:
        await on_every_child(pool, cpu_jobs.made, 0)  # imports numpy
        array = cpu_jobs.array_of(size)
        prepared = pool.prepare(cpu_jobs.seen)

        async def transfer(stamp: float) -> tuple[float, float]:
            array[0] = stamp
            first, some = await (await pool.submit(prepared, array))
            return first, some

        cold, warm = await transfers(seconds, size, transfer)
        return {f"in cold {size}": cold, f"in warm {size}": warm}

    return measure


def results_of(size: int) -> Measure:
    async def measure(pool: ProcessPool, seconds: float) -> Figures:
        await on_every_child(pool, cpu_jobs.made, size)
        cpu_jobs.array_of(0)  # imports numpy here too
        prepared = pool.prepare(cpu_jobs.held)

        async def transfer(stamp: float) -> tuple[float, float]:
            return cpu_jobs.seen(await (await pool.submit(prepared, size, stamp)))

        cold, warm = await transfers(seconds, size, transfer)
        return {f"out cold {size}": cold, f"out warm {size}": warm}

    return measure


async def on_every_child(pool: ProcessPool, function: Any, *args: Any) -> None:
    """Run a job so often that each child had it, one way or another."""
    prepared = pool.prepare(function)
    for _ in range(3):
        submitted = [await pool.submit(prepared, *args) for _ in range(2 * PROCESSES)]
        for one in submitted:
            await one


JOBS: dict[str, Measure] = {
    "1,000 outstanding": tiny_jobs(1000),
    "4 outstanding": tiny_jobs(4),
    "one at a time": one_at_a_time,
    "1 ms, 4 outstanding": burning(1, 4),
    "1 ms, 64 outstanding": burning(1, 64),
    "10 ms": burning(10, 4),
    "lag": lag,
    "memory": idle_memory,
}
ARRAYS: dict[str, Measure] = {
    **{f"argument of {size} MB": arguments_of(size) for size in SIZES},
    **{f"result of {size} MB": results_of(size) for size in SIZES},
}
WORKLOADS = JOBS | ARRAYS


@dataclass(frozen=True, slots=True)
class Column:
    """What a table shows: figures side by side in a cell, as they are or as ratios to the base."""

    title: str
    keys: tuple[str, ...]
    unit: Literal["ratio", "as it is"] = "as it is"


COLUMNS = (
    Column("tiny, 1,000 outstanding", ("tiny 1000",), "ratio"),
    Column("4 outstanding", ("tiny 4",), "ratio"),
    Column("one at a time", ("tiny 1",), "ratio"),
    Column("its p50 / p99, µs", ("p50", "p99")),
    Column("1 ms jobs, 4 / 64 outstanding", ("1 ms 4", "1 ms 64")),
    Column("10 ms jobs", ("10 ms 4",)),
    Column("loop lag p99, ms", ("lag",)),
    Column("idle child, MB", ("memory",)),
    Column("first result, ms", ("first",)),
)
ARRAY_COLUMNS = tuple(
    Column(f"{title}, {warmth}", tuple(f"{way} {warmth} {size}" for size in SIZES))
    for title, way in (("argument", "in"), ("result", "out"))
    for warmth in ("cold", "warm")
)


def measure(pool: str, workload: str, seconds: float, loop: str) -> Figures:
    """Measure one cell. Runs in a process of its own."""
    figures: Figures = run_on(loop, once(POOLS[pool], WORKLOADS[workload], seconds))
    return figures


async def once(contestant: type[ProcessPool], workload: Measure, seconds: float) -> Figures:
    """Open the pool, time its first result, measure, and close it, if it can be closed."""
    contestant.load()
    began = perf_counter()
    pool = contestant(PROCESSES)
    await pool.open()
    assert await (await pool.submit(pool.prepare(cpu_jobs.tiny), 7)) == 7
    first = perf_counter() - began
    machine_used, family_used, began = machine_seconds(), family_seconds(), perf_counter()
    figures = await workload(pool, seconds)
    others = machine_seconds() - machine_used - (family_seconds() - family_used)
    figures["others"] = max(0.0, others) / (perf_counter() - began)
    with suppress(TimeoutError):
        await asyncio.wait_for(pool.close(), timeout=5)
    return {"first": first * 1e3, **figures}


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure a cell."""

    seconds: float
    loop: str
    quiet: float
    tries: int


def in_new_family(pool: str, workload: str, settings: Settings) -> Figures:
    """Measure a cell in a new interpreter. Raises `RuntimeError` if nothing came of it."""
    given = {"seconds": settings.seconds, "loop": settings.loop}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        given |= {"pool": pool, "workload": workload}
        with started(Path(folder), "benchmarks.bridge:measure", given) as family:
            family.wait(PATIENCE)
            figures: Figures = family.result()
            return figures


class Results:
    """All figures, by contestant and name and round, and the cells they become."""

    def __init__(self) -> None:
        self.figures: dict[tuple[str, str], dict[int, list[float]]] = {}
        self.failures: dict[tuple[str, str], str] = {}

    def run(self, round_: int, pool: str, workload: str, settings: Settings) -> None:
        """Measure in a new process and keep what came of it, also if that was an error."""
        tries: list[Figures] = []
        for _ in range(settings.tries):
            wait_for_quiet(settings.quiet, patience=2 * (settings.tries - 1))
            try:
                tries.append(in_new_family(pool, workload, settings))
            except RuntimeError as error:
                self.failures[pool, workload] = str(error)
                return
            if tries[-1]["others"] <= settings.quiet:
                break
        for key, value in min(tries, key=lambda figures: figures["others"]).items():
            self.figures.setdefault((pool, key), {}).setdefault(round_, []).append(value)

    def others(self) -> list[float]:
        """How many cores the rest of the machine used, in each measurement that was kept."""
        return [
            value
            for (_, key), by_round in self.figures.items()
            if key == "others"
            for values in by_round.values()
            for value in values
        ]

    def of(self, pool: str, key: str) -> float:
        """The median over the rounds."""
        return median(map(median, self.figures[pool, key].values()))

    def ratio(self, pool: str, key: str) -> float:
        """The median over the rounds of its figure to the base's of the same round."""
        base = self.figures[BASE, key]
        return median(
            median(values) / median(base[round_])
            for round_, values in self.figures[pool, key].items()
            if round_ in base
        )

    def cell(self, pool: str, column: Column) -> str:
        """What the table shows."""
        show = self.ratio if column.unit == "ratio" else self.of
        found: list[str] = []
        for key in column.keys:
            try:
                found.append(figure(show(pool, key)))
            except (KeyError, StatisticsError):
                found.append("-")
        return "-" if set(found) == {"-"} else " / ".join(found)


def table(results: Results, pools: list[type[ProcessPool]], columns: Sequence[Column]) -> str:
    """A row a contestant, a column a workload."""

    def row(pool: type[ProcessPool]) -> list[str]:
        version = pool.version()
        if version is None:
            return [pool.name, *("not installed" for _ in columns)]
        name = f"**{pool.name}**" if pool.name == OURS else f"{pool.name} {version}".strip()
        return [name, *(results.cell(pool.name, column) for column in columns)]

    return markdown(["", *(column.title for column in columns)], [row(pool) for pool in pools])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bridge", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="one round of tenths of a second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.6, help="for each cell of a round")
    parser.add_argument("--quiet", type=float, default=0.1, help="cores that others may use")
    parser.add_argument("--asyncio", action="store_true", help="stock asyncio, not uvloop")
    parser.add_argument("--only", default="", help="(parts of) names, separated by commas")
    parser.add_argument("--workloads", default="", help="parts of their names, likewise")
    parser.add_argument("--json", type=Path, help="also write every sample to this file")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    loop = "asyncio" if options.asyncio else "uvloop"
    rounds = 1 if options.quick else options.rounds
    settings = Settings(
        seconds=0.1 if options.quick else options.seconds,
        loop=loop,
        quiet=options.quiet,
        tries=1 if options.quick else 3,
    )
    pools = [pool for pool in POOLS.values() if pool.name == BASE or pool in chosen(options.only)]
    workloads = [
        name
        for name in (WORKLOADS if find_spec("numpy") else JOBS)
        if any(part in name for part in options.workloads.split(","))
    ]
    results = Results()
    shuffler = random.Random(0)
    for round_ in range(rounds):
        for workload in shuffler.sample(workloads, len(workloads)):
            for pool in shuffler.sample(pools, len(pools)):
                if pool.version() is None:
                    continue
                if sys.stderr.isatty():
                    doing = f"round {round_ + 1} of {rounds}: {workload}, {pool.name}"
                    print(f"\r{doing:<70}", end="", file=sys.stderr, flush=True)
                results.run(round_, pool.name, workload, settings)
    command = " ".join(["benchmarks.bridge", *sys.argv[1:]])
    print(f"{machine()}; {loop}; `python -m {command}`\n")
    print(table(results, pools, COLUMNS))
    rates = [
        results.of(BASE, key)
        for key in ("tiny 1000", "tiny 4", "tiny 1")
        if (BASE, key) in results.figures
    ]
    if rates:
        print(f"\n1.00 is {' / '.join(f'{rate:,.0f}' for rate in rates)} jobs a second.")
    if ARRAYS.keys() & set(workloads):
        print(f"\nArrays of {' / '.join(map(str, SIZES))} MB, GB/s:\n")
        print(table(results, pools, ARRAY_COLUMNS))
    if others := results.others():
        print(
            f"\nOthers used {figure(median(others))} of {os.cpu_count()} cores meanwhile, in the"
            f" worst tenth of the measurements {figure(quantiles([*others, *others], n=10)[8])}."
        )
    for (name, workload), error in results.failures.items():
        print(f"\n{name} failed at {workload}: {error}", file=sys.stderr)
    if options.json:
        samples = [
            {"pool": pool, "figure": key, "rounds": list(by_round.values())}
            for (pool, key), by_round in results.figures.items()
        ]
        options.json.write_text(json.dumps({"machine": machine(), "samples": samples}))
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
