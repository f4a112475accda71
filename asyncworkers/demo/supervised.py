"""The work with a supervisor: three stages, their jobs side by side."""

from __future__ import annotations

from collections.abc import AsyncIterator

from asyncworkers import Job, JobState, Supervisor
from asyncworkers.demo.analyze import compress, parse
from asyncworkers.demo.catalog import Batch
from asyncworkers.demo.crawl import Frontier, client, fetch, session
from asyncworkers.demo.diary import Diary
from asyncworkers.demo.records import Compression, Page, Run
from asyncworkers.demo.render import INDEX, render, write_index
from asyncworkers.demo.site import serving

__all__ = ["work_supervised"]


async def work_supervised(run: Run, batches: list[Batch]) -> None:
    """Render in as many processes as there are threads, then crawl and analyze at once."""
    settings = run.settings
    diary = Diary(run)
    with diary.timing():
        async with Supervisor(settings.workers, threads=settings.threads, grace=1.0) as supervisor:
            diary.follow(supervisor)
            with diary.timing_children():
                async for pages in supervisor.map(render, batches, ordered=False):
                    run.rendered.extend(pages)
            write_index(settings.site, run.rendered)
            async with (
                serving(settings.site, settings.seed, settings.faults) as site,
                session(site.address) as http,
            ):
                client.set(http)
                await _crawl(supervisor, run)
        run.served = site.tally
    run.complete = True


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
