"""What is done to a process pool, and what is seen: each function runs in a process of its own.

An experiment returns short words for the rows of the behaviours table. They are made of what was
observed: how an await ended, what jobs wrote into files, whether a process exists and uses CPU.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks import cpu_jobs
from benchmarks.family import cpu_seconds, deliver
from benchmarks.fresh import run_on
from benchmarks.process_pools import POOLS, ProcessPool

PATIENCE = 15.0
"""Seconds after which an await that has not ended is said to hang."""

STOPPED_WITHIN = 5.0
"""Seconds after which a job that still uses CPU is said to burn on."""

PROCESSES = 2

Words: TypeAlias = dict[str, str]


class Laboratory:
    """An open pool, and the folder where its jobs leave word."""

    def __init__(self, pool: ProcessPool, folder: Path) -> None:
        self.pool = pool
        self.folder = folder
        self.told = ""
        """What the last job that failed told its caller."""

    async def submit(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return await self.pool.submit(self.pool.prepare(function), *args)

    async def begun(self, name: str) -> int:
        """Wait until a job has left word; returns the id of the process that runs it."""
        ends = time.monotonic() + PATIENCE
        while not (words := self.words(name)):
            if time.monotonic() > ends:
                raise RuntimeError(f"job {name!r} did not begin within {PATIENCE:g} s")
            await asyncio.sleep(0.005)
        return words[0]

    def words(self, name: str) -> list[int]:
        """The process of each time that a job left word under this name."""
        path = self.folder / name
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def go(self, name: str) -> None:
        """Let the job of this name, which waits for the word, go on."""
        (self.folder / f"{name}-go").touch()

    async def later(self, name: str) -> str:
        """How a job fares that is submitted now."""
        return await self.ending(self.submit(cpu_jobs.noted, str(self.folder), name), name)

    async def ending(self, submitting: Awaitable[Awaitable[Any]], name: str = "") -> str:
        """How a submitted job ends: `works`, `hangs`, or the name of an error; and how often it ran."""
        patience = asyncio.timeout(PATIENCE)
        try:
            async with patience:
                await (await submitting)
            word = "works"
        except asyncio.CancelledError:
            word = "CancelledError"
        except Exception as error:
            word = "hangs" if patience.expired() else type(error).__name__
            self.told = str(error)
        runs = len(self.words(name)) if name else 1
        return word if runs <= 1 else f"{word}, ran {runs} times".removeprefix("works, ")

    async def fate(self, name: str) -> str:
        """What becomes of the spinning job of this name that is to be stopped: see `behaviours`."""
        pid = self.words(name)[0]
        began = time.monotonic()
        used = cpu_seconds(pid) or 0.0
        while (elapsed := time.monotonic() - began) < STOPPED_WITHIN:
            if cpu_seconds(pid) is None:
                return f"killed, {elapsed:.1f} s"
            if self.words(f"{name}-finally"):
                return f"interrupted, {elapsed:.1f} s"
            await asyncio.sleep(0.02)
        return "burns on" if (cpu_seconds(pid) or 0.0) > used + 0.1 else "stands still"


async def already(submitted: Awaitable[Any]) -> Awaitable[Any]:
    """For `ending`, where the job was submitted before."""
    return submitted


async def crash(lab: Laboratory, how: str) -> Words:
    """One process of two dies of its job, while the other has one too and six more wait."""
    folder = str(lab.folder)
    beside = await lab.submit(cpu_jobs.wait_for, folder, "beside")
    await lab.begun("beside")
    crashing = await lab.submit(cpu_jobs.crash, folder, "crashing", how)
    await lab.begun("crashing")
    names = [f"queued-{number}" for number in range(6)]
    queued = [await lab.submit(cpu_jobs.noted, folder, name) for name in names]
    await asyncio.sleep(0.2)
    lab.go("crashing")
    endings = asyncio.gather(
        lab.ending(already(crashing), "crashing"),
        lab.ending(already(beside), "beside"),
        *(lab.ending(already(one), name) for one, name in zip(queued, names, strict=True)),
    )
    await asyncio.sleep(0.7)
    lab.go("beside")
    crashed, innocent, *others = await endings
    counted = Counter(others)
    waiting = ", ".join(
        word if count == len(others) else f"{word} ({count} of {len(others)})"
        for word, count in counted.items()
    )
    return {
        "the job that crashed": crashed,
        "the job running beside it": innocent,
        "jobs waiting": waiting,
        "jobs submitted later": await lab.later("later"),
    }


async def cancel(lab: Laboratory, job: str) -> Words:
    """A running job is cancelled with what the library offers."""
    spinning = await lab.submit(getattr(cpu_jobs, job), str(lab.folder), "spinning")
    await lab.begun("spinning")
    await asyncio.sleep(0.1)
    await lab.pool.cancel(spinning)
    ending = asyncio.ensure_future(lab.ending(already(spinning)))
    words = {"the job": await lab.fate("spinning")}
    await ending
    if job == "spin":
        words["its `finally`"] = "runs" if lab.words("spinning-finally") else "does not run"
    words["jobs submitted later"] = await lab.later("later")
    return words


async def timeout(lab: Laboratory) -> Words:
    """A job takes longer than it may."""
    spin = lab.pool.prepare(cpu_jobs.spin)
    spinning = await lab.pool.submit_limited(1.0, spin, str(lab.folder), "spinning")
    await lab.begun("spinning")
    ended = await lab.ending(already(spinning))
    return {"its caller gets": ended, "the job": await lab.fate("spinning")}


async def closure(lab: Laboratory) -> Words:
    offset = 41

    def add(number: int) -> int:
        return number + offset

    return {"": await lab.ending(lab.submit(add, 1))}


async def odd_exception(lab: Laboratory) -> Words:
    ended = await lab.ending(lab.submit(cpu_jobs.fail_oddly))
    message = "is there" if "odd at here" in lab.told else "is lost"
    return {
        "its caller gets": ended,
        "its message": message,
        "jobs submitted later": await lab.later("later"),
    }


async def unpicklable_result(lab: Laboratory) -> Words:
    ended = await lab.ending(lab.submit(cpu_jobs.unpicklable))
    return {"its caller gets": ended, "jobs submitted later": await lab.later("later")}


async def big_result(lab: Laboratory, size: int) -> Words:
    """How long a result of that size takes, and for how long it keeps the loop from all else."""
    await lab.later("first")
    longest = 0.0

    async def look() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before - 0.001)

    looking = asyncio.create_task(look())
    began = time.perf_counter()
    patience = asyncio.timeout(2 * PATIENCE)
    try:
        async with patience:
            data = await (await lab.submit(cpu_jobs.blob, size))
        taken = f"{time.perf_counter() - began:.1f} s"
        arrived = taken if len(data) == size and data[-1] == 1 else "damaged"
    except Exception as error:
        arrived = "hangs" if patience.expired() else type(error).__name__
    looking.cancel()
    return {"arrives in": arrived, "longest stall of the loop": f"{longest:.1f} s"}


async def keep_busy(lab: Laboratory, job: str) -> Words:
    """Start this job in each process, or none for "", leave word that they run, and wait for what may come."""
    await asyncio.gather(*[lab.ending(lab.submit(cpu_jobs.tiny, one)) for one in range(4)])
    submitted: list[Awaitable[Any]] = []
    while job and len(set(lab.words("busy"))) < PROCESSES:
        # One by one: some libraries give a process more than one although another is idle.
        if len(submitted) > 3 * PROCESSES:
            raise RuntimeError("no job began in one of the processes")
        submitted.append(await lab.submit(getattr(cpu_jobs, job), str(lab.folder), "busy"))
        await asyncio.sleep(0.5)
    waiting = [await lab.submit(cpu_jobs.tiny, number) for number in range(10 if job else 0)]
    await asyncio.sleep(0.2)
    cpu_jobs.note(str(lab.folder), "ready")
    for one in submitted + waiting:
        await one
    await asyncio.sleep(cpu_jobs.LONG)
    return {}


EXPERIMENTS: dict[str, Callable[..., Awaitable[Words]]] = {
    one.__name__: one
    for one in (
        crash,
        cancel,
        timeout,
        closure,
        odd_exception,
        unpicklable_result,
        big_result,
        keep_busy,
    )
}


def perform(pool: str, experiment: str, folder: str, loop: str, **arguments: Any) -> None:
    """Open the pool, do it, and say what was seen; the pool is left as it is, whatever its state.

    An interrupt, or an error of the experiment itself, closes the pool and ends the interpreter in
    the ordinary way, as in a program of a careful user.
    """

    async def main() -> None:
        POOLS[pool].load()
        opened = POOLS[pool](PROCESSES)
        await opened.open()
        try:
            deliver(await EXPERIMENTS[experiment](Laboratory(opened, Path(folder)), **arguments))
        except BaseException:
            await opened.close()
            raise

    try:
        run_on(loop, main())
    except KeyboardInterrupt:
        sys.exit(130)
