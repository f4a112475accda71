"""One table: durable jobs through the public API, ours beside queues that keep jobs in SQLite.

    make bench TABLE=durable
    python -m benchmarks.durable [--jobs 20000] [--rounds 3] [--only huey] [--rows backlog] [--deep]

Jobs do nothing. Each figure is taken in an interpreter of its own on a new file, in several rounds
with everything shuffled, and the table shows medians. `disk sync` is one `fdatasync` of a small
write in the same place: no commit that is on the disk can be faster. `--deep` adds what a claim costs
with 1,000,000 jobs waiting, and with as many, or `--history 10000000`, ended ones in the file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from statistics import median

from asyncworkers.store import Settlement, Submission, Want
from asyncworkers.store.sqlite import SqliteStore
from benchmarks.durable_queues import CONTESTANTS
from benchmarks.fresh import in_new_process, run_on
from benchmarks.stores import sync
from benchmarks.tables import figure, machine, markdown

ROWS = {
    "submit one by one, /s": "one_by_one",
    "submit, 50 at once, /s": "concurrent",
    "submit many, /s": "many",
    "a backlog processed, /s": "backlog",
    "submit to start, idle, p50 ms": "latency",
}


def measure(row: str, contestant: str, directory: str, jobs: int, loop: str) -> float:
    """One figure; called in a new process."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="asyncworkers-bench-") as place:
        if row == "sync":
            return sync(place)
        one = CONTESTANTS[contestant](place)
        return float(run_on(loop, getattr(one, row)(jobs)))


def deep(waiting: int, history: int, directory: str) -> dict[str, float]:
    """Milliseconds to claim 100 jobs of a full file, and to claim them of an empty one."""

    async def run(place: str) -> dict[str, float]:
        store = SqliteStore(Path(place) / "jobs.db", durability="process", history=2 * history + 1)
        await store.open({"note"})
        found: dict[str, float] = {}

        async def fill(start: int, count: int) -> None:
            for first in range(start, start + count, 10_000):
                many = range(first, min(first + 10_000, start + count))
                await store.submit([Submission(f"{n}", "q", "note", f"[[{n}],{{}}]") for n in many])

        async def claim() -> float:
            taken: list[float] = []
            for _ in range(50):
                start = time.perf_counter()
                leases = await store.lease([Want("q", 100)])
                taken.append(time.perf_counter() - start)
                await store.settle([Settlement.release(lease) for lease in leases])
            return 1_000 * median(taken)

        await fill(0, 1_000)
        found["a new file"] = await claim()
        await fill(1_000, waiting)
        found[f"{waiting:,} waiting"] = await claim()
        await store.close()
        past = SqliteStore(Path(place) / "past.db", durability="process", history=2 * history + 1)
        await past.open({"note"})
        store, ended = past, 0
        while ended < history:
            await fill(ended, 10_000)
            leases = await store.lease([Want("q", 10_000)])
            await store.settle([Settlement.complete(lease, "1") for lease in leases])
            ended += len(leases)
        await fill(ended, 1_000)
        found[f"{history:,} ended"] = await claim()
        await past.close()
        return found

    with tempfile.TemporaryDirectory(dir=directory, prefix="asyncworkers-bench-") as place:
        return asyncio.run(run(place))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", default=tempfile.gettempdir())
    parser.add_argument("--only", default="", help="contestants with one of these in the name")
    parser.add_argument("--rows", default="", help="likewise the rows")
    parser.add_argument("--loop", default="uvloop", choices=("asyncio", "uvloop"))
    parser.add_argument("--deep", action="store_true", help="claims of a full file as well")
    parser.add_argument("--history", type=int, default=1_000_000)
    parser.add_argument("--json", default=None)
    options = parser.parse_args()

    def wanted(text: str, words: str) -> bool:
        return not words or any(word in text for word in words.split(","))

    names = [
        name
        for name, one in CONTESTANTS.items()
        if one.version() is not None and (wanted(name, options.only) or "FULL" in name)
    ]
    rows = {title: row for title, row in ROWS.items() if wanted(title, options.rows)}
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        tasks = [(row, name) for row in rows.values() for name in names]
        tasks.append(("sync", names[0]))
        random.shuffle(tasks)
        for row, name in tasks:
            many = options.jobs * (5 if "asyncworkers" in name else 1)
            value = in_new_process(
                "benchmarks.durable:measure",
                row=row,
                contestant=name,
                directory=options.directory,
                jobs=many,
                loop=options.loop,
            )
            found.setdefault((row, name), []).append(value)
    head = ["durable jobs", *(f"{name} {CONTESTANTS[name].version()}".strip() for name in names)]
    table = [
        [title, *(figure(median(found[row, name])) for name in names)]
        for title, row in rows.items()
    ]
    disk = median(found["sync", names[0]])
    print(
        f"{machine()}; {options.loop}; medians of {options.rounds} rounds; disk sync {disk:.2f} ms\n"
    )
    print(markdown(head, table))
    if options.deep:
        claims = in_new_process(
            "benchmarks.durable:deep",
            timeout=3_000,
            waiting=1_000_000,
            history=options.history,
            directory=options.directory,
        )
        print()
        rows_ = [[title, figure(value)] for title, value in claims.items()]
        print(markdown(["asyncworkers: a claim of 100 jobs from", "ms"], rows_))
    if options.json:
        Path(options.json).write_text(json.dumps([[*key, value] for key, value in found.items()]))


if __name__ == "__main__":
    main()
