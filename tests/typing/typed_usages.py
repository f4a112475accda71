"""How the public API is typed, as its users see it: checked by mypy and pyright, never run."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any, assert_type

from asyncworkers import (
    Bridge,
    DrainReport,
    Failed,
    Job,
    JobFunction,
    Outcome,
    Queue,
    Retry,
    Stats,
    Stream,
    Succeeded,
    Supervisor,
    Unique,
    Work,
    current_job,
    job,
    run,
)
from asyncworkers.portal import Portal, PortalStream


@job(retry=Retry(attempts=5, on=(OSError,)), timeout=30)
async def fetch(url: str) -> bytes:
    """A job on the loop."""
    current_job().report(1, 2, url)
    return url.encode()


@job
def read(path: str, limit: int = 10) -> str:
    """A job in a thread."""
    return path[:limit]


async def plain(number: int) -> float:
    """A function that was never decorated."""
    return number / 2


async def urls() -> AsyncIterator[str]:
    """An asynchronous iterable."""
    yield "a"


async def submitting(supervisor: Supervisor) -> None:
    """`submit` and its kin know the function's arguments and value."""
    assert_type(await supervisor.submit(fetch, "u"), Job[bytes])
    assert_type(await (await supervisor.submit(fetch, "u")), bytes)
    assert_type(await supervisor.submit(read, "p", limit=3), Job[str])
    assert_type(await supervisor.submit(plain, 1), Job[float])
    assert_type(supervisor.submit_nowait(fetch, "u"), Job[bytes])
    assert_type(supervisor.submit_nowait(read, "p"), Job[str])
    assert_type(await supervisor.call(fetch, "u"), bytes)
    assert_type(await supervisor.call(read, "p"), str)
    assert_type(await supervisor.submit_many(fetch, ["u"]), list[Job[bytes]])
    assert_type(supervisor.submit_threadsafe(fetch, "u"), concurrent.futures.Future[bytes])
    assert_type(await supervisor.submit(fetch.bind("u")), Job[bytes])
    assert_type(await supervisor.call(read.bind("p")), str)


def without_await(portal: Portal) -> None:
    """A portal knows the same as the supervisor."""
    assert_type(portal.submit(fetch, "u"), Job[bytes])
    assert_type(portal.result(portal.submit(read, "p", limit=3)), str)
    assert_type(portal.wait(portal.submit(plain, 1), 0.5), Outcome)
    assert_type(portal.call(fetch, "u"), bytes)
    assert_type(portal.call(read.bind("p")), str)
    assert_type(portal.submit_many(fetch, ["u"]), list[Job[bytes]])
    assert_type(portal.map(fetch, ["u"]), PortalStream[bytes])
    assert_type(portal.map(read, iter("u")).all(), list[str])
    assert_type(portal.map(plain, [1]).outcomes(), PortalStream[Job[float]])
    assert_type(portal.map(plain, [1]).progress("p").reduce(max), float)
    for value in portal.map(fetch, urls()):
        assert_type(value, bytes)
    assert_type(portal.run(portal.supervisor.drain, 5), DrainReport)
    assert_type(portal.run(portal.supervisor.stats), Stats)
    with Portal(Supervisor()) as opened:
        assert_type(opened.close(5), DrainReport)


async def opened_by_hand() -> None:
    """What `open` and `close` return."""
    supervisor = await Supervisor().open()
    assert_type(supervisor, Supervisor)
    assert_type(await supervisor.close(timedelta(seconds=1)), DrainReport)


async def options(supervisor: Supervisor) -> None:
    """`.options()` keeps the function's type."""
    later = fetch.options(priority=5, delay=timedelta(seconds=60))
    assert_type(await supervisor.submit(later, "u"), Job[bytes])
    quick = job(plain, timeout=1.0)
    assert_type(await supervisor.call(quick, 1), float)
    known: JobFunction[[str, int], str] | None = None
    assert known is None


async def mapping(supervisor: Supervisor) -> None:
    """`map` knows the value's type, in every way of reading it."""
    assert_type(supervisor.map(fetch, ["u"]), Stream[bytes])
    assert_type(await supervisor.map(fetch, ["u"]), list[bytes])
    async for size in supervisor.map(read, ["p"], ordered=False):
        assert_type(size, str)
    async for ended in supervisor.map(fetch, urls()).outcomes():
        assert_type(ended, Job[bytes])
    async with supervisor.map(plain, range(3)).progress() as numbers:
        async for number in numbers:
            assert_type(number, float)
    assert_type(await supervisor.map(lambda number: 2 * number, [1, 2], cpu=True), list[int])
    assert_type(await supervisor.map(asyncio.sleep, [1, 2.5]), list[None])
    assert_type(await supervisor.map(partial(read, limit=3), ["p"]), list[str])


async def mapping_what_is_not_known(supervisor: Supervisor, items: list[Any]) -> None:
    """Items of any type fit every function, and items of a narrower type one that takes more."""
    assert_type(await supervisor.map(fetch, items), list[bytes])
    assert_type(await supervisor.submit_many(read, items), list[Job[str]])
    assert_type(await supervisor.map(plain, [True]), list[float])


async def waiting(ended: Job[bytes]) -> None:
    """A Job's own questions."""
    assert_type(await ended.wait(1.0), Outcome)
    assert_type(ended.result(), bytes)
    assert_type(ended.exception(), Exception | None)


class Inline(Bridge):
    """A bridge of one's own: two methods are all it needs."""

    async def run(self, work: Work) -> Succeeded | Failed:
        """Run it here."""
        assert_type(work.pickled(), bytes)
        return work.run()

    def kill(self) -> None:
        """Nothing to be done."""


class Named(Inline):
    """One that is made with arguments, by a function."""

    def __init__(self, host: str) -> None:
        self.host = host


def bridges() -> list[Queue]:
    """A queue takes the class, or whatever makes one; never a bridge, nor what needs arguments."""
    Queue("a", bridge=Inline())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Queue("a", bridge=Named)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return [Queue("a", bridge=Inline), Queue("b", 3, bridge=lambda: Named("big-machine"))]


async def mistakes(supervisor: Supervisor) -> None:
    """What a checker must refuse: each ignore would be reported if it did not."""
    await supervisor.submit(fetch, 1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await supervisor.submit(fetch)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await supervisor.submit(fetch, "u", priority=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await supervisor.call(read, "p", limit="x")  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await supervisor.map(fetch, [1])  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await supervisor.map(plain, urls())  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await supervisor.submit_many(read, [1])  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    fetch.options(retries=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Retry(3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def main(count: int) -> str:
    """Something to run."""
    return str(count)


assert_type(run(main, 3), str)


@job(once=True, unique=Unique(str, until=60.0), keep=3_600)
async def charge(number: int) -> str:
    """A job that only a store can keep."""
    return str(number)


async def storing() -> None:
    """Jobs in a store are typed as those in memory; those found there are of any type."""
    async with Supervisor(store="sqlite:///jobs.db", functions=[charge, fetch]) as supervisor:
        assert_type(await supervisor.submit(charge, 1), Job[str])
        assert_type(await supervisor.call(charge.bind(1).with_id("charge-1")), str)
        found = await supervisor.stored.get("charge-1")
        assert_type(found.done(), bool)
        assert_type(await supervisor.stored.retry(name="charge"), int)
        async for one in supervisor.stored.jobs(state="failed"):
            assert_type(one.why, str)
