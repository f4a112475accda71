"""Runs a million jobs, a tenth failing and a hundredth timing out, and watches what grows.

    python -m benchmarks.soak [--jobs 1000000] [--loop uvloop]

Leaves with 1 if memory grew by more than 1 byte a job over the second half, or if tasks, threads
or open files were not the same all along.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from statistics import linear_regression
from time import perf_counter

from asyncworkers import Job, Supervisor, job
from benchmarks.fresh import LOOPS, run_on
from benchmarks.resident import open_files, resident
from benchmarks.tables import machine, markdown

CHUNK = 1_000


@job(timeout=0.02)
async def mixed(number: int) -> int:
    """One in a hundred never ends by itself, ten fail, some of the others wait a little."""
    kind = number % 100
    if kind == 0:
        await asyncio.sleep(3600)
    if kind <= 10:
        raise ValueError(number)
    if kind <= 50:
        await asyncio.sleep(0.001 if kind <= 20 else 0)
    return number


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process held after that many jobs."""

    jobs: int
    memory: int
    tasks: int
    threads: int
    files: int

    @classmethod
    def take(cls, jobs: int) -> Sample:
        gc.collect()
        tasks = len(asyncio.all_tasks())
        return cls(jobs, resident(), tasks, threading.active_count(), open_files())


async def soak(jobs: int) -> tuple[list[Sample], Counter[str], float]:
    """Run the jobs in chunks, so that the same number is alive at each sample."""
    samples: list[Sample] = []
    outcomes: Counter[str] = Counter()
    every = max(CHUNK, jobs // 20)
    began = perf_counter()
    async with Supervisor(workers=200) as supervisor:
        for start in range(0, jobs, CHUNK):
            chunk: list[Job[int]] = [
                await supervisor.submit(mixed, number) for number in range(start, start + CHUNK)
            ]
            outcomes.update([type(await one.wait()).__name__ for one in chunk])
            del chunk
            if (start + CHUNK) % every == 0:
                samples.append(Sample.take(start + CHUNK))
    return samples, outcomes, perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--jobs", type=int, default=1_000_000, help="a multiple of 100,000")
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    options = parser.parse_args()
    samples, outcomes, seconds = run_on(options.loop, soak(options.jobs))
    print(
        f"{machine()}; {options.loop}; {options.jobs:,} jobs in {seconds:.0f} s: {dict(outcomes)}\n"
    )
    rows = [
        [f"{one.jobs:,}", f"{one.memory / 1e6:.1f}", *map(str, (one.tasks, one.threads, one.files))]
        for one in samples
    ]
    print(markdown(["jobs done", "memory, MB", "tasks", "threads", "open files"], rows))
    half = samples[len(samples) // 2 :]
    slope = linear_regression([one.jobs for one in half], [one.memory for one in half]).slope
    steady = len({(one.tasks, one.threads, one.files) for one in samples[1:]}) == 1
    print(f"\nMemory grew by {slope:.2f} bytes a job over the second half.")
    return 0 if slope <= 1 and steady else 1


if __name__ == "__main__":
    sys.exit(main())
