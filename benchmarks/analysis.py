"""One table: the demo's CPU-bound stage alone, on one process and on more.

    python -m benchmarks.analysis [--rounds 5] [--site asyncworkers-demo/site]

How it measures. The pages are those that `make demo` wrote; each is parsed and compressed, by the
demo's own job functions, with nothing to crawl beside it. The rows take turns in every round, shuffled
anew; children are started, and have imported what they need, before the clock is. The table shows
medians, and beside each the ratio to one process: what the second core brings.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from asyncworkers import Supervisor
from asyncworkers.demo.analyze import compress, parse
from asyncworkers.demo.records import Page
from benchmarks.fresh import run_on
from benchmarks.tables import figure, machine, markdown


def parsing(page: Page) -> object:
    """What a pool can find by its name: `parse` there is the job function around it."""
    return parse.function(page)


def compressing(page: Page) -> object:
    return compress.function(page)


Turn = Callable[[list[Page]], Coroutine[Any, Any, float]]


async def bare(pages: list[Page]) -> float:
    """One call after the other, in this process."""
    began = perf_counter()
    for page in pages:
        parsing(page)
        compressing(page)
    return perf_counter() - began


async def processes(count: int, pages: list[Page]) -> float:
    """Both kinds of job at once, as in the demo, on so many processes."""
    async with Supervisor(processes=count) as supervisor:
        await supervisor.map(parse, pages[:20])
        await supervisor.map(compress, pages[:20])
        began = perf_counter()
        await asyncio.gather(supervisor.map(parse, pages), supervisor.map(compress, pages))
        return perf_counter() - began


async def threads(count: int, pages: list[Page]) -> float:
    """The same functions in threads, which take turns at the interpreter's lock."""
    in_threads = [function.options(cpu=False, queue="threads") for function in (parse, compress)]
    async with Supervisor(threads=count) as supervisor:
        began = perf_counter()
        await asyncio.gather(*(supervisor.map(function, pages) for function in in_threads))
        return perf_counter() - began


async def pool(count: int, pages: list[Page]) -> float:
    """`concurrent.futures.ProcessPoolExecutor`, each call of its own as ours are."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(count) as executor:
        call = partial(loop.run_in_executor, executor)
        await asyncio.gather(*(call(parsing, page) for page in pages[:20]))
        began = perf_counter()
        await asyncio.gather(
            *(call(parsing, page) for page in pages),
            *(call(compressing, page) for page in pages),
        )
        return perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--site", type=Path, default=Path("asyncworkers-demo/site"))
    options = parser.parse_args()
    files = sorted(options.site.glob("*.html"))
    if not files:
        parser.error(f"--site: there is no page in {options.site}: run `make demo` first")
    pages = [Page(file.name, 200, file.read_bytes()) for file in files]
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    rows: dict[str, Turn] = {
        "one call after the other": bare,
        "**asyncworkers**, 1 process": partial(processes, 1),
        f"**asyncworkers**, {cores} processes": partial(processes, cores),
        f"asyncworkers, {cores} threads": partial(threads, cores),
        f"ProcessPoolExecutor, {cores} processes": partial(pool, cores),
    }
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        for name in random.sample(list(rows), len(rows)):
            taken[name].append(run_on("uvloop", rows[name](pages)))
    alone = median(taken["**asyncworkers**, 1 process"])
    size = sum(len(page.body) for page in pages)
    print(
        f"{machine()}; {len(pages):,} pages, {size / 1e6:.1f} MB; `python -m benchmarks.analysis`\n"
    )
    print(
        markdown(
            ["parsing and compressing every page", "seconds", "× one process"],
            [
                [name, figure(median(times)), figure(alone / median(times))]
                for name, times in taken.items()
            ],
        )
    )


if __name__ == "__main__":
    main()
