"""The work with a store: killed at any moment and started again, it goes on where it was.

A page is one stored job. Its transaction holds what was found there, the jobs for the pages it links
to, and its own end: all of it is in the file, or nothing is and the page is visited again. What a
visit consists of (`fetch`, `parse` and `compress`) lives in memory, like in a run without a store.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import aiohttp

from asyncworkers import JobCancelled, Queue, Supervisor, SupervisorClosed, current_job, job
from asyncworkers.demo.analyze import compress, parse
from asyncworkers.demo.catalog import Batch
from asyncworkers.demo.crawl import client, fetch, session
from asyncworkers.demo.diary import Diary
from asyncworkers.demo.records import (
    Compression,
    DemoFailed,
    Page,
    Reading,
    Rendered,
    Run,
    Settings,
)
from asyncworkers.demo.render import INDEX, render_batch, write_index
from asyncworkers.demo.site import serving
from asyncworkers.store.sqlite import SqliteStore
from asyncworkers.units import counted

__all__ = ["Progress", "progress", "work_durably"]

ANY_NUMBER = 1_000_000
"""Deaths that a job survives: here it is killed for fun, not because it kills."""

TABLES = """
CREATE TABLE IF NOT EXISTS demo_run (conditions TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS demo_rendered (page TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS demo_visited (
    address TEXT NOT NULL, status INTEGER NOT NULL, reading TEXT, compression TEXT, error TEXT
);
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """What an earlier run has left in the file."""

    rendered: int
    visited: int
    waiting: int

    def __str__(self) -> str:
        if not self.waiting and self.visited:
            return f"all {self.visited:,} addresses were visited before"
        return (
            f"{counted(self.rendered, 'module')} rendered and "
            f"{counted(self.visited, 'address', 'addresses')} visited before, "
            f"{counted(self.waiting, 'job')} left"
        )


# ---- the jobs


class Here:
    """What the jobs of this process work with: stored jobs bring nothing but their arguments."""

    supervisor: Supervisor
    http: aiohttp.ClientSession
    known: set[str]
    run: Run


@job(name="render", queue="rendering", timeout=300)
def render_share(number: int, folder: str, modules: list[str]) -> None:
    """Render some modules in a child process, and write down what came of each."""
    this = current_job()
    rendered: list[str] = []
    batch = Batch(number, Path(folder), tuple(modules))
    for page in render_batch(batch, this.cancelled):
        rendered.append(json.dumps(asdict(page)))
        this.report(len(rendered), len(modules), page.module)
    with this.transaction() as connection:
        connection.executemany("INSERT INTO demo_rendered VALUES (?)", [(one,) for one in rendered])


@job(queue="pages")
async def visit(address: str) -> None:
    """Fetch a page and analyze it; what it links to follows, each address once."""
    status, error, reading, compression = 0, None, None, None
    client.set(Here.http)
    try:
        page: Page = await Here.supervisor.call(fetch, address)
    except (JobCancelled, SupervisorClosed):
        raise  # the run is broken off: this page is for the next one
    except Exception as failure:
        error = repr(failure)
    else:
        status = page.status
        if status != 404:
            for stage in ("parse", "compress"):
                Here.run.stage(stage).total += 1
            reading, compression = await asyncio.gather(
                Here.supervisor.call(parse, page), Here.supervisor.call(compress, page)
            )
    links = sorted(set(reading.links) - Here.known) if reading is not None else []
    async with current_job().transaction() as connection:
        row = (address, status, _written(reading), _written(compression), error)
        await connection.execute("INSERT INTO demo_visited VALUES (?, ?, ?, ?, ?)", row)
        for link in links:
            # The id is the address: whoever finds it a second time, in whatever run, submits nothing.
            await Here.supervisor.using(connection).submit(
                visit.bind(link).with_id(f"visit {link}")
            )
    Here.known.update(links)
    Here.run.stage("fetch").total = len(Here.known)


# ---- the run


async def work_durably(run: Run, batches: list[Batch], store: Path) -> None:
    """Do what is left to be done."""
    settings, diary = run.settings, Diary(run)
    queues = [
        Queue("rendering", settings.threads, kind="threads"),
        Queue("pages", 0),  # until there is a site to visit
        *(Queue("default", settings.workers, stored=False), Queue("threads", stored=False)),
        Queue("processes", settings.processes, kind="processes", stored=False),
    ]
    supervisor = Supervisor(
        store=SqliteStore(store, losses=ANY_NUMBER),
        functions=[render_share, visit],
        queues=queues,
        grace=1.0,
    )
    Here.supervisor, Here.run = supervisor, run
    with _opened(store) as connection:
        Here.known = {INDEX, *(row[0] for row in connection.execute(
            "SELECT address FROM demo_visited UNION SELECT substr(id, 7) FROM asyncworkers_jobs"
            " WHERE id LIKE 'visit %'" if _has_jobs(connection) else "SELECT address FROM demo_visited"
        ))}  # fmt: skip
    _show(run, store)
    try:
        with diary.timing():
            async with AsyncExitStack() as afterwards:
                with diary.timing_children():
                    async with supervisor:
                        diary.follow(supervisor)
                        await _render(supervisor, batches)
                        site = await _serve(afterwards, run, store)
                        async with session(site.address) as Here.http:
                            supervisor.resize("pages", settings.workers)
                            start = visit.bind(INDEX).with_id(f"visit {INDEX}")
                            await supervisor.submit(start)
                            await _until_done(supervisor, "pages")
            run.served = site.tally
        run.complete = True
    finally:
        _gather(run, store)


async def _render(supervisor: Supervisor, batches: list[Batch]) -> None:
    """Submit what is not there yet (the ids see to that), and wait for all of it."""
    for batch in batches:
        call = render_share.bind(batch.number, str(batch.folder), list(batch.modules))
        await supervisor.submit(call.with_id(f"render {batch.number}"))
    await _until_done(supervisor, "rendering")


async def _serve(stack: AsyncExitStack, run: Run, store: Path) -> Any:
    settings = run.settings
    with _opened(store) as connection:
        write_index(settings.site, list(_rendered(connection)))
    return await stack.enter_async_context(serving(settings.site, settings.seed, settings.faults))


async def _until_done(supervisor: Supervisor, queue: str) -> None:
    """Wait until nothing of a queue is left in the store."""
    while True:
        for counts in await supervisor.stored.counts():
            if counts.queue == queue and counts.queued + counts.scheduled + counts.running:
                break
        else:
            break
        await asyncio.sleep(0.1)
        if supervisor.state != "open":
            raise SupervisorClosed("the run was broken off")
    async for failed in supervisor.stored.jobs(state="failed", queue=queue):
        raise DemoFailed(f"{failed.id} failed: {failed.exception()!r}")


# ---- the file


def progress(settings: Settings, store: Path) -> Progress | None:
    """Make the tables, if they are not there; what an earlier run did, None if there was none.

    Raises DemoFailed if that was another kind of run.
    """
    wanted = json.dumps([settings.conditions, str(settings.output)], sort_keys=True)
    try:
        with _opened(store) as connection:
            connection.executescript(TABLES)
            found = connection.execute("SELECT conditions FROM demo_run").fetchone()
            if found is None:
                connection.execute("INSERT INTO demo_run VALUES (?)", (wanted,))
                connection.commit()
                return None
            if found[0] != wanted:
                raise DemoFailed(
                    f"{store} is of a run with other options ({found[0]}): give it these, or "
                    "another file"
                )
            rendered, visited = (
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
                for table in ("demo_rendered", "demo_visited")
            )
            waiting = 0
            if _has_jobs(connection):
                waiting = connection.execute(
                    "SELECT count(*) FROM asyncworkers_jobs WHERE state < 3"
                ).fetchone()[0]
    except sqlite3.Error as error:
        raise DemoFailed(f"{store} cannot be used: {error}") from error
    return Progress(rendered, visited, waiting)


@contextlib.contextmanager
def _opened(store: Path) -> Generator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(store)) as connection:
        yield connection


def _has_jobs(connection: sqlite3.Connection) -> bool:
    table = "SELECT 1 FROM sqlite_schema WHERE name = 'asyncworkers_jobs'"
    return connection.execute(table).fetchone() is not None


def _rendered(connection: sqlite3.Connection) -> Iterator[Rendered]:
    for (page,) in connection.execute("SELECT page FROM demo_rendered"):
        yield Rendered(**json.loads(page))


def _show(run: Run, store: Path) -> None:
    """Let the display begin where the earlier run ended."""
    with _opened(store) as connection:
        run.stage("render").done = sum(1 for _ in _rendered(connection))
        visited = "SELECT count(*), count(reading) FROM demo_visited"
        fetched, read = connection.execute(visited).fetchone()
    run.stage("fetch").done, run.stage("fetch").total = fetched, len(Here.known)
    for stage in ("parse", "compress"):
        run.stage(stage).done = run.stage(stage).total = read


def _gather(run: Run, store: Path) -> None:
    """Read what all runs on this file have found."""
    with _opened(store) as connection:
        run.rendered = list(_rendered(connection))
        rows = connection.execute(
            "SELECT address, status, reading, compression, error FROM demo_visited"
        ).fetchall()
    run.dead = {address for address, status, *_ in rows if status == 404}
    run.unreachable = {row[0]: row[4] for row in rows if row[4] is not None}
    run.readings = [_reading(json.loads(row[2])) for row in rows if row[2] is not None]
    run.compressions = [Compression(**json.loads(row[3])) for row in rows if row[3] is not None]


def _written(record: Reading | Compression | None) -> str | None:
    if record is None:
        return None
    # Not `asdict`, which makes a Counter anew of what it took apart.
    return json.dumps({one.name: getattr(record, one.name) for one in fields(record)}, default=list)


def _reading(found: dict[str, Any]) -> Reading:
    found["links"] = Counter(found["links"])
    found["targets"] = frozenset((page, place) for page, place in found["targets"])
    found["anchors"] = frozenset(found["anchors"])
    return Reading(**found)
