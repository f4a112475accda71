"""What a dashboard costs: a picture of 10,000 and 1,000,000 waiting jobs, a page of jobs, and the events it hears.

Usage: `python -m benchmarks.dashboard`. Times are the loop's own, medians of repeats; jobs are no-ops.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from asyncworkers import JobState, Supervisor, job
from asyncworkers.dashboard import Dashboard, LiveSource
from asyncworkers.dashboard.data import Wanted


@job
async def nothing() -> None: ...


async def timed(work: Callable[[], Awaitable[object]], repeats: int = 50) -> float:
    """The median time of this, in milliseconds."""
    took: list[float] = []
    for _ in range(repeats):
        begin = time.perf_counter()
        await work()
        took.append(time.perf_counter() - begin)
    return statistics.median(took) * 1000


def picture(board: Dashboard) -> Callable[[], Awaitable[object]]:
    """Makes a new picture each time."""

    def make() -> Awaitable[object]:
        board.ticker._made_at = None
        return board.ticker.picture()

    return make


async def pictures() -> None:
    for waiting in (0, 10_000, 1_000_000):
        async with Supervisor(100, maxsize=None, stall=None) as supervisor:
            board = cast("Dashboard", supervisor.dashboard(auth=None))
            supervisor.pause("default")
            for _ in range(waiting):
                supervisor.submit_nowait(nothing)

            page = partial(cast("Any", board)._source.jobs, Wanted())
            nowhere = Wanted(state=JobState.QUEUED, name="nobody")
            search = partial(cast("Any", board)._source.jobs, nowhere)
            print(f"{waiting:>9,} waiting: a picture {await timed(picture(board)):.2f} ms", end="")
            print(f", a page {await timed(page):.2f} ms", end="")
            print(f", a page of what is nowhere {await timed(search, 5):.1f} ms")
            supervisor.cancel_all("enough")


async def rate(
    listen: Callable[[Supervisor], Callable[[], None]] | None, number: int = 10_000
) -> float:
    """Jobs a second while somebody listens, or nobody."""
    async with Supervisor(100, maxsize=None, stall=None) as supervisor:
        stop = None if listen is None else listen(supervisor)
        begin = time.perf_counter()
        jobs = [supervisor.submit_nowait(nothing) for _ in range(number)]
        for one in jobs:
            await one
        took = time.perf_counter() - begin
        if stop is not None:
            stop()
    return number / took


async def rates() -> None:
    without: list[float] = []
    mute: list[float] = []
    mounted: list[float] = []
    for _ in range(5):
        without.append(await rate(None))
        mute.append(await rate(lambda supervisor: supervisor.listen(_deaf)))
        mounted.append(await rate(lambda supervisor: LiveSource(supervisor).close))
    plain, told, heard = (1e6 / statistics.median(some) for some in (without, mute, mounted))
    print(
        f"a no-op job: {plain:.1f} µs; {told:.1f} µs if any listener is told of its events; ",
        end="",
    )
    print(f"{heard:.1f} µs if that is a dashboard")


def _deaf(_event: object) -> None: ...


async def main() -> None:
    await pictures()
    await rates()


if __name__ == "__main__":
    asyncio.run(main())
