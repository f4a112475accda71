"""`asyncworkers top`: a live view of a store's queues and running jobs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from asyncworkers import JobState
from asyncworkers.cli import queues
from asyncworkers.cli.documents import brief, moment, progress
from asyncworkers.cli.options import json_option, seconds, store_option, use
from asyncworkers.cli.output import (
    Column,
    counted,
    drawn,
    escaped,
    has_rich,
    plain_table,
    print_json,
    span,
)
from asyncworkers.store.protocol import QueueCounts, Store, StoredJob, Where
from asyncworkers.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Frame", "picture", "text", "top", "watch"]

RUNNING = Where(states=(JobState.RUNNING,))

QUEUES = (*queues.COLUMNS, Column("ended/s", number=True))

JOBS = (
    Column("running job"),
    Column("name"),
    Column("queue"),
    Column("attempt", number=True),
    Column("for", number=True),
    Column("progress", long=True),
)


class Frame(NamedTuple):
    """What there is to see at one moment; `ended` says how many jobs of a queue end in a second,
    since the frame before. `jobs` are running, those that began first first.
    """

    at: float
    queues: list[QueueCounts]
    ended: Mapping[str, float]
    jobs: list[StoredJob]


@click.command(short_help="Watch queues, rates and running jobs, live.")
@store_option
@click.option(
    "--interval",
    type=seconds(0.05, 3_600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option(
    "--jobs",
    "most",
    type=click.IntRange(0, 1_000),
    default=15,
    show_default=True,
    metavar="N",
    help="Show no more running jobs.",
)
@click.option(
    "--once", is_flag=True, help="Print one frame and end: two looks, so as to have rates."
)
@json_option
def top(*, store: Store, interval: float, most: int, once: bool, as_json: bool) -> int:
    """Watch a store: its queues, how many jobs end in a second, and what runs.

    On a terminal the view is redrawn until Ctrl-C; elsewhere a frame is printed each time.
    """
    live = sys.stdout.isatty() and has_rich() and not (once or as_json)

    async def work(store: Store) -> None:
        frames = watch(store, interval, most)
        async with aclosing(frames):
            if live:
                await _draw(frames, store)
                return
            async for frame in frames:
                if as_json:
                    print_json(_document(frame))
                else:
                    click.echo(text(frame, _title(store)))
                if once:
                    return

    with suppress(KeyboardInterrupt):  # which is how one leaves
        use(store, work)
    return 0


async def watch(
    store: Store, interval: float, most: int, clock: Callable[[], float] = time.monotonic
) -> AsyncGenerator[Frame]:
    """Look at the store again and again.

    How many jobs have ended is not stored, but follows: what was unfinished before, and what was
    submitted since, is either unfinished still or has ended. Jobs that are put back in line are
    new unfinished ones that nobody submitted, and are missing in that figure for once.
    """
    mark = (await store.tally(Where(), since=_NOW)).mark
    before = await store.counts()
    looked = renewed = clock()
    while True:
        await asyncio.sleep(interval)
        new = await store.tally(Where(), since=mark)
        counts = await store.counts()
        page = await store.find(RUNNING, limit=max(most, 1))
        now = clock()
        ended = _ended(before, counts, new.queues, now - looked)
        jobs = sorted(page.records, key=lambda job: job.started or job.submitted)[:most]
        yield Frame(time.time(), counts, ended, jobs)
        mark, before, looked = new.mark, counts, now
        if now - renewed > store.ttl / 3:
            await asyncio.to_thread(store.renew)
            renewed = now


_NOW = 2**62
"""A mark after all others: nothing needs to be counted for the first."""


def _ended(
    before: list[QueueCounts], after: list[QueueCounts], new: Mapping[str, int], seconds: float
) -> dict[str, float]:
    """How many jobs of each queue have ended in a second."""
    was, still = _unfinished(before), _unfinished(after)
    return {
        queue: max(0.0, (was.get(queue, 0) + new.get(queue, 0) - still.get(queue, 0)) / seconds)
        for queue in sorted({*was, *still, *new})
    }


def _unfinished(counts: list[QueueCounts]) -> dict[str, int]:
    return {one.queue: one.queued + one.scheduled + one.running for one in counts}


# ---- how it looks


async def _draw(frames: AsyncIterator[Frame], store: Store) -> None:
    """Redraw the whole terminal with each frame."""
    from rich.console import Console
    from rich.live import Live

    title = _title(store)
    with Live(
        f"Looking at {title} ...", console=Console(), screen=True, auto_refresh=False
    ) as view:
        async for frame in frames:
            view.update(picture(frame, title), refresh=True)


def picture(frame: Frame, title: str) -> RenderableType:
    """A frame for rich."""
    from rich.console import Group
    from rich.text import Text

    return Group(
        Text(_headline(frame, title), style="bold"),
        "",
        drawn(QUEUES, _queue_rows(frame)),
        "",
        drawn(JOBS, _job_rows(frame)),
    )


def text(frame: Frame, title: str) -> str:
    """A frame in plain columns."""
    queues = plain_table(QUEUES, _queue_rows(frame))
    jobs = plain_table(JOBS, _job_rows(frame))
    return f"{_headline(frame, title)}\n\n{queues}\n\n{jobs}\n"


def _title(store: Store) -> str:
    return escaped(str(store.path) if isinstance(store, SqliteStore) else repr(store))


def _headline(frame: Frame, title: str) -> str:
    running = counted(sum(one.running for one in frame.queues), "job")
    clock = time.strftime("%H:%M:%S", time.localtime(frame.at))
    return f"{clock}  {title}  {running} running, {sum(frame.ended.values()):,.0f} end in a second"


def _queue_rows(frame: Frame) -> list[list[str]]:
    listed = {one.queue: one for one in frame.queues}
    for queue in frame.ended:  # what has just been worked off is worth seeing too
        listed.setdefault(queue, QueueCounts(queue, False, 0, 0, 0, 0, None, {}))
    return [
        [escaped(cell) for cell in (*queues.row(one), f"{frame.ended.get(name, 0.0):,.0f}")]
        for name, one in sorted(listed.items())
    ]


def _job_rows(frame: Frame) -> list[list[str]]:
    return [
        [
            escaped(cell)
            for cell in (
                job.id,
                job.name,
                job.queue,
                str(job.attempt),
                span(None if job.started is None else frame.at - job.started),
                "is to be cancelled" if job.cancelling is not None else progress(job),
            )
        ]
        for job in frame.jobs
    ]


def _document(frame: Frame) -> dict[str, Any]:
    return {
        "at": moment(frame.at),
        "queues": [
            {**queues.document(one), "ended_per_second": frame.ended.get(one.queue, 0.0)}
            for one in frame.queues
        ],
        "ended_per_second": sum(frame.ended.values()),
        "running": [brief(job) for job in frame.jobs],
    }
