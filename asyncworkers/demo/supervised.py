"""The work with a supervisor: three stages, their jobs side by side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from asyncworkers import Job, JobState, Supervisor
from asyncworkers.demo.analyze import compress, parse
from asyncworkers.demo.catalog import Batch
from asyncworkers.demo.crawl import Frontier, client, fetch, session
from asyncworkers.demo.diary import Diary
from asyncworkers.demo.records import Compression, Page, Run, Settings
from asyncworkers.demo.render import INDEX, render, write_index
from asyncworkers.demo.site import serving

__all__ = ["work_supervised"]


async def work_supervised(run: Run, batches: list[Batch]) -> None:
    """Render in as many processes as there are threads, then crawl and analyze at once."""
    settings = run.settings
    diary = Diary(run)
    # What a child process used is known when it has ended: those that analyze end with the
    # supervisor, and the server, whose work is not ours, is kept until that was counted.
    with diary.timing():
        async with AsyncExitStack() as afterwards:
            with diary.timing_children():
                async with _supervisor(settings) as supervisor:
                    diary.follow(supervisor)
                    async for pages in supervisor.map(render, batches, ordered=False):
                        run.rendered.extend(pages)
                    write_index(settings.site, run.rendered)
                    site = await afterwards.enter_async_context(
                        serving(settings.site, settings.seed, settings.faults)
                    )
                    async with session(site.address) as http:
                        client.set(http)
                        await _crawl(supervisor, run)
        run.served = site.tally
    run.complete = True


def _supervisor(settings: Settings) -> Supervisor:
    """Coroutines on the loop, threads that wait for rendering, processes that analyze."""
    return Supervisor(
        settings.workers, threads=settings.threads, processes=settings.processes, grace=1.0
    )


async def _crawl(supervisor: Supervisor, run: Run) -> None:
    """Two streams, one feeding the other: what the parser finds is what to fetch next."""
    frontier = Frontier(INDEX)
    compressing: list[Job[Compression]] = []
    pages = _fetched(supervisor, frontier, compressing, run)
    try:
        async for reading in supervisor.map(parse, pages, ordered=False):
            run.readings.append(reading)
            frontier.visited(reading.links)
        for job in compressing:
            await job
    finally:  # also if this is broken off: what is done is done
        done = (job for job in compressing if job.state is JobState.SUCCEEDED)
        run.compressions.extend(job.result() for job in done)


async def _fetched(
    supervisor: Supervisor, frontier: Frontier, compressing: list[Job[Compression]], run: Run
) -> AsyncIterator[Page]:
    """The pages as they arrive; an address without one is noted, and done with."""
    async for fetched in supervisor.map(fetch, frontier, ordered=False).outcomes():
        run.stage("fetch").total = len(frontier.known)
        address = fetched.args[0]
        if error := fetched.exception():
            run.unreachable[address] = repr(error)
            frontier.visited()
        elif (page := fetched.result()).status == 404:
            run.dead.add(address)
            frontier.visited()
        else:
            run.stage("parse").total += 1
            run.stage("compress").total += 1
            compressing.append(await supervisor.submit(compress, page))
            yield page
