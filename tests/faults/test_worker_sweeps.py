"""Faults everywhere: cancelled at every step (W03), failed at every call (W04), in simulations."""

import asyncio
import contextlib
from collections import Counter
from typing import Any

import pytest
from invariants import echo

from asyncworkers import Job, JobCancelled, JobFailed, Queue, Retry, Supervisor, job
from asyncworkers._engine.crew import Crew
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.teller import Teller
from asyncworkers.events import JobSettled, JobSubmitted
from asyncworkers.testing import (
    CancelRun,
    EventRecorder,
    FaultInjector,
    cancel_at_every_step,
    simulate,
    sweep,
)


async def fail() -> None:
    """Fail."""
    raise ValueError("no")


def is_worker(task: asyncio.Task[Any]) -> bool:
    """Whether a task is a worker's."""
    return getattr(task.get_coro(), "__qualname__", "") == "work"


async def scenario() -> tuple[Counter[str], list[str], int, int]:
    """A short life with everything in it; what it returns is checked after each cancellation."""
    recorder = EventRecorder()
    supervisor = Supervisor(
        2,
        listeners=[recorder],
        queues=[Queue("own", 2, isolation="task"), Queue("threads", 1, kind="threads")],
    )
    jobs: list[Job[Any]] = []
    try:
        async with supervisor:

            async def nap() -> None:
                await asyncio.sleep(0.1)

            async def parent() -> int:
                child = await supervisor.submit(echo, 1)
                return int(await child)

            flaky = job(fail, retry=Retry(2, on=ValueError, delay=0.1, jitter=False))
            jobs.append(await supervisor.submit(nap))
            jobs.append(await supervisor.submit(flaky))
            jobs.append(await supervisor.submit(parent))
            jobs.append(await supervisor.submit(job(nap, queue="own")))
            jobs.append(await supervisor.submit(job(nap, timeout=0.05)))
            jobs.append(await supervisor.submit(job(echo, delay=0.2), 2))
            jobs.append(await supervisor.submit(blocking))
            with contextlib.suppress(JobFailed, JobCancelled):
                await supervisor.map(echo, range(5))
            for one in jobs:
                await one.wait()
            await supervisor.drain()
    finally:
        stats = supervisor.stats()
        left = stats.running + stats.queued + stats.scheduled
        settled = Counter(event.job_id for event in recorder.of(JobSettled))
        submitted = Counter(event.job_id for event in recorder.of(JobSubmitted))
        unfinished = [repr(one) for one in jobs if not one.done()]
        problems = unfinished + [f"{left} left"] * bool(left)
        if settled != submitted or set(settled.values()) > {1}:
            problems.append("events do not add up")
        if stats.submitted != len(submitted):
            problems.append("figures do not add up")
        assert not problems, problems
    return settled, problems, left, len(jobs)


def blocking() -> int:
    """A job for the thread, which a simulation runs inline."""
    return 1


@pytest.mark.parametrize("who", ["supervisor", "worker"])
@pytest.mark.parametrize("shuffle", [0.0, 1.0])
def test_fault_W03_cancelled_at_every_step(who: str, shuffle: float) -> None:
    """Wherever the task that holds the supervisor, or a worker, is cancelled, every job has one
    end, nothing is left, and the figures agree.
    """

    def check(run: CancelRun[Any]) -> None:
        if who == "worker":
            assert run.error is None, "a cancelled worker ended the supervisor"

    report = cancel_at_every_step(
        scenario, check, task="main" if who == "supervisor" else is_worker, shuffle=shuffle, seed=7
    )
    assert not report.violations, report
    assert len(report.cancellations) > 8


@pytest.mark.parametrize(
    "error",
    [RuntimeError("ours"), MemoryError(), asyncio.CancelledError(), StopAsyncIteration()],
    ids=lambda error: type(error).__name__,
)
def test_fault_W04_every_error_at_every_point(error: BaseException) -> None:
    """Whichever call inside the engine fails, with whatever: every job has an end, the supervisor
    ends, and nothing is left.
    """

    async def life() -> list[str]:
        supervisor = Supervisor(2, restarts=1_000, queues=[Queue("threads", 1, kind="threads")])
        jobs: list[Job[Any]] = []
        async with supervisor:
            flaky = job(fail, retry=Retry(2, on=ValueError, delay=0.1, jitter=False))
            jobs.append(await supervisor.submit(job(echo, tags=["a"]), 1))
            jobs.append(await supervisor.submit(flaky))
            jobs.append(await supervisor.submit(job(asyncio.sleep, timeout=0.1), 1))
            jobs.append(await supervisor.submit(blocking))
            supervisor.listen(lambda _: None)
            jobs.append(await supervisor.submit(job(echo, priority=3), 2))
            for one in jobs:
                await one.wait()
        return [one.state for one in jobs]

    def run(faults: FaultInjector) -> None:
        points = ("tell_completed", "conclude", "settle", "admit", "excuse")
        with contextlib.ExitStack() as stack:
            stack.enter_context(faults.planted(MemoryQueue, *points))
            stack.enter_context(faults.planted(Teller, "started"))
            stack.enter_context(faults.planted(Crew, "wait_ready"))
            result = simulate(life)
        assert set(result.value) <= {"succeeded", "failed", "cancelled"}
        assert result.leftover == ()
        assert result.unhandled == ()

    assert sweep(run, error=error) > 10
