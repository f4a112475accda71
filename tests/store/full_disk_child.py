"""Fills a small disk of its own with jobs: a process of test_sqlite_faults."""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

from asyncworkers.errors import StoreFull
from asyncworkers.store import Settlement, Submission, Want
from asyncworkers.store.sqlite import SqliteStore

PADDING = "x" * 2_000


async def fill(store, kept):
    """Submit jobs until there is no room; the ids of those that were accepted are kept."""
    while True:
        one = Submission(f"job-{len(kept)}", "q", "f", f'[["{PADDING}"],{{}}]')
        await store.submit([one])
        kept.append(one.id)


async def main(folder, fill_up):
    """Accept, refuse, and find again, when there is room, all that was accepted."""
    path = folder / "jobs.db"
    kept = []
    store = SqliteStore(path)
    await store.open({"f"})
    if fill_up:  # what is mapped is written to for the first time on a disk that is full
        with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)
    with contextlib.suppress(StoreFull):
        await fill(store, kept)
    with contextlib.suppress(StoreFull):
        for lease in await store.lease([Want("q", len(kept))]):
            store.started(lease)
            await store.settle([Settlement.release(lease)])
    with contextlib.suppress(StoreFull):
        second = SqliteStore(path)
        await second.open({"f"})
        await second.close()
    await store.close()
    subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)
    store = SqliteStore(path)
    await store.open({"f"})
    found = await store.get(kept)
    await store.close()
    assert None not in found
    sys.stdout.write(f"{len(kept)} kept\n")


if __name__ == "__main__":
    size, folder = sys.argv[1], Path(sys.argv[2])
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    asyncio.run(main(folder, fill_up=sys.argv[3] == "filled"))
