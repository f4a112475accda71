"""Promises of docs/explanation/semantics.md that no other file of the suite is about."""

import asyncio
import gc
import time
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from asyncworkers import (
    JobExpired,
    JobTimedOut,
    Queue,
    QueueFull,
    Retry,
    Supervisor,
    current_job,
    job,
)
from asyncworkers.events import AttemptEnded, AttemptStarted, JobSettled

pytestmark = pytest.mark.asyncio

city: ContextVar[str] = ContextVar("city", default="nowhere")
color: ContextVar[str] = ContextVar("color", default="none")

PLACES = ("in line", "in its own task", "in a thread")


class Flaky(Exception):
    """A failure that goes away."""


def supervisor_for(place: str) -> Supervisor:
    """Return a supervisor with a single worker in a place."""
    isolation: Any = "task" if place == "in its own task" else "shared"
    return Supervisor(1, threads=1, queues=[Queue("default", 1, isolation=isolation)])


def seen() -> tuple[str, str]:
    """What the context variables are, where this is called."""
    return city.get(), color.get()


async def seen_on_the_loop() -> tuple[str, str]:
    """The same, in a coroutine."""
    return seen()


# ---- how often a job runs


@pytest.mark.virtual_time
async def test_a_waiting_retry_holds_no_slot(event_recorder):
    """With one worker and room for one job, a retry that waits keeps nobody from either; when its
    time comes it goes in line behind what waits already, though that is full.
    """
    order: list[str] = []
    gate = asyncio.Event()

    @job(retry=Retry(2, on=Flaky, delay=60, jitter=False))
    async def flaky() -> None:
        order.append(f"flaky {current_job().attempt}")
        if current_job().attempt == 1:
            raise Flaky

    async def note(name: str, waits: bool = False) -> None:
        order.append(name)
        if waits:
            await gate.wait()

    queues = [Queue("default", 1, maxsize=1)]
    async with Supervisor(queues=queues, listeners=[event_recorder]) as supervisor:
        again = await supervisor.submit(flaky)
        await event_recorder.wait_for(AttemptEnded, job_id=again.id)
        blocking = await supervisor.submit(note, "blocking", waits=True)
        await event_recorder.wait_for(AttemptStarted, job_id=blocking.id)
        supervisor.submit_nowait(note, "in line")
        with pytest.raises(QueueFull):
            supervisor.submit_nowait(note, "too many")
        await asyncio.sleep(61)
        assert again.state == "queued"
        gate.set()
        await again
    assert order == ["flaky 1", "blocking", "in line", "flaky 2"]


# ---- what is kept, and how long


async def test_the_supervisor_keeps_jobs_until_they_end(event_recorder):
    """A job to which nobody refers runs to its end all the same, and is gone after it."""
    gate = asyncio.Event()
    async with Supervisor(listeners=[event_recorder]) as supervisor:
        fates = [weakref.ref(await supervisor.submit(gate.wait)) for _ in range(3)]
        await event_recorder.wait_for(AttemptStarted, count=3)
        gc.collect()
        assert all(fate() is not None for fate in fates)
        gate.set()
        await event_recorder.wait_for(JobSettled, count=3)
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        assert [fate() for fate in fates] == [None] * 3


# ---- timeouts and expiry


@pytest.mark.virtual_time
async def test_a_timeout_runs_on_while_the_slot_is_lent():
    """A job that awaits another one times out like any other; the job it awaited goes on."""

    async def child() -> str:
        await asyncio.sleep(10)
        return "grown"

    @job(timeout=1)
    async def parent() -> None:
        children.append(await supervisor.submit(child))
        await children[0]

    children: list[Any] = []
    async with Supervisor(1) as supervisor:
        with pytest.raises(JobTimedOut):
            await supervisor.call(parent)
        assert asyncio.get_running_loop().time() == 1
        assert await children[0] == "grown"


@pytest.mark.virtual_time
@pytest.mark.parametrize(("lasts", "end"), [(1, 10), (20, 20)])
async def test_a_retry_that_waits_may_expire(lasts, end):
    """`expires` counts from submission and ends a job that waits for its retry, at that moment; or
    at once, if that came while an attempt was running.
    """

    @job(retry=Retry(2, on=Flaky, delay=60, jitter=False), expires=10)
    async def flaky() -> None:
        await asyncio.sleep(lasts)
        raise Flaky

    async with Supervisor() as supervisor:
        waiting = await supervisor.submit(flaky)
        with pytest.raises(JobExpired):
            await waiting
        assert asyncio.get_running_loop().time() == end
    assert waiting.state == "cancelled"


# ---- context


@pytest.mark.parametrize("place", PLACES)
async def test_a_job_sees_its_submitters_context(place):
    """Context variables are seen as they were at submission, or the part that was asked for."""
    look: Any = seen if place == "in a thread" else seen_on_the_loop
    async with supervisor_for(place) as supervisor:
        city.set("Rome")
        color.set("red")
        jobs = [
            supervisor.submit_nowait(look),
            supervisor.submit_nowait(job(look, context=(city,))),
            supervisor.submit_nowait(job(look, context="none")),
        ]
        city.set("Oslo")
        jobs.append(supervisor.submit_nowait(look))
        found = [await one for one in jobs]
    assert found == [("Rome", "red"), ("Rome", "none"), ("nowhere", "none"), ("Oslo", "red")]


@pytest.mark.parametrize("place", PLACES)
async def test_each_attempt_gets_a_fresh_context(place):
    """What an attempt sets, neither the next attempt sees nor the next job nor the submitter."""
    found: list[tuple[str, str]] = []

    def meddle() -> None:
        found.append(seen())
        city.set("Atlantis")
        if current_job().attempt == 1:
            raise Flaky

    async def meddle_on_the_loop() -> None:
        meddle()

    function: Any = meddle if place == "in a thread" else meddle_on_the_loop
    again = job(function, retry=Retry(2, on=Flaky, delay=0))
    async with supervisor_for(place) as supervisor:
        await supervisor.call(again.options(context="none"))  # in the worker's own, if it can
        await supervisor.call(again.options(context="none"))
        color.set("red")
        await supervisor.call(again)
        await supervisor.call(again)
    assert found == [("nowhere", "none")] * 4 + [("nowhere", "red")] * 4
    assert seen() == ("nowhere", "red")


@pytest.mark.parametrize(("isolation", "tasks"), [("shared", 1), ("task", 3)])
async def test_current_task_is_shared_unless_the_queue_says_otherwise(isolation, tasks):
    """A worker's jobs run in its task one after the other; `isolation="task"` gives each its own."""
    found: list[object] = []

    async def look() -> None:
        await asyncio.sleep(0)
        found.append(asyncio.current_task())

    async with Supervisor(queues=[Queue("default", 1, isolation=isolation)]) as supervisor:
        for _ in range(3):
            await supervisor.call(look)
    assert len(set(found)) == tasks


# ---- how many run and wait


async def test_jobs_that_never_wait_do_not_starve_the_loop():
    """While a worker runs jobs that never suspend, a task that is ready gets its turns."""
    turns = 0

    async def spins() -> None:
        end = time.monotonic() + 0.001
        while time.monotonic() < end:
            pass

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with Supervisor(1) as supervisor:
        jobs = await supervisor.submit_many(_ignoring(spins), range(200))
        counting = asyncio.create_task(count())
        await jobs[-1]
        counting.cancel()
    assert turns > 5  # of a fifth of a second, workers may keep a few milliseconds at a time


def _ignoring(function: Any) -> Any:
    async def call(_: object) -> None:
        await function()

    return call


# ---- supervision


async def test_jobs_are_cancelled_in_reverse(event_recorder):
    """At an end by an exception, what was submitted last is cancelled first."""
    ended: list[int] = []

    async def waits(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    with pytest.raises(Flaky):
        async with Supervisor(listeners=[event_recorder]) as supervisor:
            await supervisor.submit_many(waits, range(4))
            await event_recorder.wait_for(AttemptStarted, count=4)
            raise Flaky
    assert ended == [3, 2, 1, 0]


# ---- where it may be used


async def test_nothing_is_half_accepted():
    """If the items of `submit_many` break off, or are too many, none of them is accepted."""

    def breaks_off() -> Iterator[int]:
        yield 1
        raise Flaky

    async def note(number: int) -> None:
        noted.append(number)

    noted: list[int] = []
    async with Supervisor(queues=[Queue("default", 1, maxsize=3)]) as supervisor:
        with pytest.raises(Flaky):
            await supervisor.submit_many(note, breaks_off())
        with pytest.raises(QueueFull):
            await supervisor.submit_many(note, range(4))
        assert supervisor.stats().submitted == 0
    assert noted == []
