"""Raw rates of the stores themselves, beneath the kernel: what durable jobs can reach at most.

    python -m benchmarks.stores [--jobs 100000] [--rounds 3] [--directory .] [--json results.json]

Each row is measured in a process of its own, on a new file, in several rounds with the rows
shuffled; the table shows medians. `disk sync` is one `fsync` of a small write in the same place and
round: no single durable submit can be faster. What is measured goes through the store's public
verbs, arguments encoded and checked, on uvloop where it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from asyncworkers.store import Settlement, Submission, Want, Where
from asyncworkers.store.clock import Ids
from asyncworkers.store.codec import FunctionCodec
from asyncworkers.store.memory import MemoryStore
from asyncworkers.store.sqlite import SqliteStore
from benchmarks.fresh import in_new_process, run_on
from benchmarks.tables import figure, machine, markdown

KINDS = ("FULL", "NORMAL", "memory")
ROWS = {
    "disk sync, ms": "sync",
    "submit one by one, /s": "one_by_one",
    "submit, 50 concurrent, /s": "concurrent",
    "submit_many, 1,000 at a time, /s": "bulk",
    "lease and settle a backlog, /s": "backlog",
    "the same, the loop busy, /s": "backlog_busy",
    "submit to ready, idle, p50 ms": "ready",
    "submit to ready, idle, p99 ms": "ready_p99",
    "submit to ready in another process, p50 ms": "across",
    "lease of 100 at 1,000,000 waiting, ms": "deep",
}


def fetch(url: str, number: int) -> str:
    """What the jobs would call."""
    return f"{url}{number}"


class Bench:
    """One store on new data."""

    def __init__(self, kind: str, directory: str, jobs: int) -> None:
        self.kind, self.directory, self.jobs = kind, Path(directory), jobs
        self.ids = Ids(time.time, random.Random(1))
        self.codec = FunctionCodec(fetch, "fetch")

    def store(self) -> Any:

        if self.kind == "memory":
            return MemoryStore()
        durability: Any = "power" if self.kind == "FULL" else "process"
        return SqliteStore(self.directory / "jobs.db", durability=durability)

    def new(self, number: int) -> Any:

        args = self.codec.encode_arguments(("https://example.org/", number), {})
        return Submission(self.ids.new(), "default", "fetch", args)

    async def measure(self, row: str) -> float:
        store = self.store()
        await store.open({"fetch"})
        try:
            return float(await getattr(self, row)(store))
        finally:
            await store.close()

    async def one_by_one(self, store: Any) -> float:
        count = max(100, self.jobs // 100)
        start = time.perf_counter()
        for number in range(count):
            await store.submit([self.new(number)])
        return count / (time.perf_counter() - start)

    async def concurrent(self, store: Any) -> float:
        each = max(10, self.jobs // 250)

        async def produce() -> None:
            for number in range(each):
                await store.submit([self.new(number)])

        start = time.perf_counter()
        await asyncio.gather(*(produce() for _ in range(50)))
        return 50 * each / (time.perf_counter() - start)

    async def bulk(self, store: Any) -> float:
        start = time.perf_counter()
        for first in range(0, self.jobs, 1_000):
            await store.submit([self.new(number) for number in range(first, first + 1_000)])
        return self.jobs / (time.perf_counter() - start)

    async def backlog(self, store: Any, work: Any = None) -> float:

        await self.bulk(store)
        done = 0
        settling = None
        start = time.perf_counter()
        leasing = store.lease([Want("default", 100, 400)])
        while leases := await leasing:
            for lease in leases:
                store.started(lease)
                if work is not None:
                    work(lease)
            if settling is not None:
                await settling
            settling = store.settle([Settlement.complete(lease, "null") for lease in leases])
            leasing = store.lease([Want("default", 100, 400)])
            done += len(leases)
        if settling is not None:
            await settling
        taken = time.perf_counter() - start
        assert done == self.jobs, done
        return done / taken

    async def backlog_busy(self, store: Any) -> float:
        """With about what a kernel does for a job between lease and settle: 5 µs of Python."""
        codec = self.codec

        def work(lease: Any) -> None:
            args, named = codec.decode_arguments(lease.args)
            codec.encode_result(fetch(*args, **named))
            ends = time.perf_counter() + 2e-6
            while time.perf_counter() < ends:
                pass

        return await self.backlog(store, work)

    async def _ready(self, store: Any) -> list[float]:
        """Submit and lease in one turn, as a kernel with an idle worker does."""
        taken: list[float] = []
        for number in range(300):
            new = self.new(number)
            start = time.perf_counter()
            submitting = store.submit([new])
            leases = await store.lease([Want("default", 1)])
            taken.append(time.perf_counter() - start)
            await submitting
            store.started(leases[0])
            await store.settle([Settlement.complete(leases[0], "null")])
        return taken

    async def ready(self, store: Any) -> float:
        return 1_000 * median(await self._ready(store))

    async def ready_p99(self, store: Any) -> float:
        return 1_000 * quantiles(await self._ready(store), n=100)[98]

    async def across(self, store: Any) -> float:
        """From `submit` here to a lease in another process, which waits for it."""
        if self.kind == "memory":
            return float("nan")
        code = "import sys; from benchmarks.stores import taker; taker(*sys.argv[1:])"
        path = str(self.directory / "jobs.db")
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, path, self.kind, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        await child.stdout.readline()
        taken: list[float] = []
        for number in range(100):
            await asyncio.sleep(0.005)
            new = self.new(number)
            start = time.clock_gettime(time.CLOCK_MONOTONIC)
            await store.submit([new])
            taken.append(float(await child.stdout.readline()) - start)
        child.terminate()
        await child.wait()
        assert len((await store.find(Where())).records) == 100
        return 1_000 * median(taken)

    async def deep(self, store: Any) -> float:

        if self.kind == "memory":
            return float("nan")
        for first in range(0, 1_000_000, 10_000):
            await store.submit([self.new(number) for number in range(first, first + 10_000)])
        taken: list[float] = []
        for _ in range(20):
            start = time.perf_counter()
            leases = await store.lease([Want("default", 100)])
            taken.append(time.perf_counter() - start)
            await store.settle([Settlement.release(lease) for lease in leases])
        return 1_000 * median(taken)


def taker(path: str, kind: str) -> None:
    """Lease whatever comes, and print when it came."""

    async def main() -> None:
        store = SqliteStore(path, durability="power" if kind == "FULL" else "process")
        await store.open({"fetch"})
        print("ready", flush=True)
        while True:
            leases = await store.lease([Want("default", 1)])
            if leases:
                print(time.clock_gettime(time.CLOCK_MONOTONIC), flush=True)
                await store.settle([Settlement.complete(leases[0], "null")])
            else:
                await store.wait_ready(["default"], 10.0)

    asyncio.run(main())


def sync(directory: str) -> float:
    """Milliseconds of one sync of a small write."""
    taken: list[float] = []
    with (Path(directory) / "probe").open("wb", buffering=0) as probe:
        for _ in range(100):
            probe.write(b"x" * 4_096)
            start = time.perf_counter()
            os.fdatasync(probe.fileno())
            taken.append(time.perf_counter() - start)
    return 1_000 * median(taken)


def measure(row: str, kind: str, directory: str, jobs: int) -> float:
    """One figure; called in a new process."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="asyncworkers-bench-") as place:
        if row == "sync":
            return sync(place)
        loop = "uvloop" if sys.platform != "win32" else "asyncio"
        figure_: float = run_on(loop, Bench(kind, place, jobs).measure(row))
        return figure_


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", default=tempfile.gettempdir())
    parser.add_argument("--only", default="", help="rows that contain one of these, by comma")
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    wanted = [word for word in options.only.split(",") if word]
    rows = {
        title: row
        for title, row in ROWS.items()
        if not wanted or any(word in title for word in wanted)
    }
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        tasks = [(row, kind) for row in rows.values() for kind in KINDS]
        random.shuffle(tasks)
        for row, kind in tasks:
            jobs = min(options.jobs, 2_000) if kind == "memory" else options.jobs
            value = in_new_process(
                "benchmarks.stores:measure",
                row=row,
                kind=kind,
                directory=options.directory,
                jobs=jobs,
            )
            found.setdefault((row, kind), []).append(value)
    table = [
        [title, *(figure(median(found[row, kind])) for kind in KINDS)]
        for title, row in rows.items()
    ]
    print(f"{machine()}; medians of {options.rounds} rounds\n")
    print(markdown(["store", "SQLite, FULL", "SQLite, NORMAL", "memory"], table))
    if options.json:
        Path(options.json).write_text(json.dumps([[*key, value] for key, value in found.items()]))


if __name__ == "__main__":
    main()
