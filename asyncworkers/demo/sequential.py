"""The same work without a supervisor: a plain loop, one thing after another."""

from __future__ import annotations

import asyncio
import random

from asyncworkers import RetryLater
from asyncworkers.demo.analyze import compress, parse
from asyncworkers.demo.catalog import Batch
from asyncworkers.demo.crawl import (
    ATTEMPTS,
    FIRST_DELAY,
    REQUEST_TIMEOUT,
    TRANSIENT,
    Frontier,
    client,
    fetch,
    session,
)
from asyncworkers.demo.diary import Diary
from asyncworkers.demo.records import Page, Reading, Run
from asyncworkers.demo.render import INDEX, render_batch, write_index
from asyncworkers.demo.site import serving

__all__ = ["work_sequentially"]


def work_sequentially(run: Run, batches: list[Batch]) -> None:
    """Render, then crawl and analyze page by page, in this one thread."""
    diary = Diary(run)
    with diary.timing():
        with diary.timing_children():
            _render(run, batches, diary)
        asyncio.run(_crawl(run, diary))
    run.complete = True


def _render(run: Run, batches: list[Batch], diary: Diary) -> None:
    stage = run.stage("render")
    for batch in batches:
        with diary.attempt("render", str(batch)):
            for page in render_batch(batch):
                run.rendered.append(page)
                stage.done += 1
    write_index(run.settings.site, run.rendered)


async def _crawl(run: Run, diary: Diary) -> None:
    settings = run.settings
    frontier = Frontier(INDEX)
    async with (
        serving(settings.site, settings.seed, settings.faults) as site,
        session(site.address) as http,
    ):
        client.set(http)
        async for address in frontier:
            run.stage("fetch").total = len(frontier.known)
            page = await _fetch(address, run, diary)
            if page is None:
                frontier.visited()
            elif page.status == 404:
                run.dead.add(address)
                frontier.visited()
            else:
                frontier.visited(_analyze(page, run, diary).links)
            run.stage("fetch").done += 1
    run.served = site.tally


async def _fetch(address: str, run: Run, diary: Diary) -> Page | None:
    """Fetch one page with the patience of the job: the same attempts, timeout and delays."""
    error: Exception | None = None
    for number in range(1, ATTEMPTS + 1):
        try:
            with diary.attempt("fetch", address, number):
                async with asyncio.timeout(REQUEST_TIMEOUT):
                    return await fetch(address)
        except RetryLater as busy:
            error, delay = busy, busy.seconds
        except TRANSIENT as failure:
            error, delay = failure, random.uniform(0, FIRST_DELAY * 2 ** (number - 1))
        if number < ATTEMPTS:
            await asyncio.sleep(delay)
    run.unreachable[address] = repr(error)
    return None


def _analyze(page: Page, run: Run, diary: Diary) -> Reading:
    with diary.attempt("parse", page.address):
        reading = parse(page)
    with diary.attempt("compress", page.address):
        compression = compress(page)
    run.readings.append(reading)
    run.compressions.append(compression)
    for job in ("parse", "compress"):
        run.stage(job).done += 1
        run.stage(job).total += 1
    return reading
