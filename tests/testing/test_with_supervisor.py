"""The testing tools with the real Supervisor: virtual time, threads, cancellation at every step."""

import asyncio
import threading

import pytest

from asyncworkers import JobCancelled, JobTimedOut, Retry, Supervisor, SupervisorClosed, job
from asyncworkers.events import AttemptEnded, AttemptStarted
from asyncworkers.testing import CancelRun, VirtualLoop, cancel_at_every_step, simulate


class Flaky(Exception):
    """A failure that goes away."""


@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_an_hour_of_retries_takes_no_time(event_recorder):
    """Retries wait their whole delays in virtual time, to the second."""

    @job(retry=Retry(7, on=Flaky, delay=60, maximum=3600, jitter=False))
    async def fails_six_times() -> str:
        if len(event_recorder.of(AttemptStarted)) < 7:
            raise Flaky
        return "at last"

    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    async with Supervisor(listeners=[event_recorder]) as supervisor:
        assert await supervisor.call(fails_six_times) == "at last"
    starts = [event.at for event in event_recorder.of(AttemptStarted)]
    assert starts == [0, 60, 180, 420, 900, 1860, 3780]


@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_time_does_not_jump_over_a_job_in_a_thread(event_recorder):
    """While a thread works its job does not time out, though the timeout is the only timer left."""
    gate = threading.Event()

    @job(timeout=1000)
    def blocks() -> str:
        assert gate.wait(30)
        return "in time"

    async with Supervisor(listeners=[event_recorder]) as supervisor:
        blocked = await supervisor.submit(blocks)
        await event_recorder.wait_for(AttemptStarted, job_id=blocked.id)
        for _ in range(5):
            await asyncio.sleep(0.001)  # idle moments, in which time would jump
        gate.set()
        assert await blocked == "in time"


@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_a_job_that_hangs_times_out_at_once():
    """On the loop a timeout of a day is over in no time."""

    @job(timeout=86_400)
    async def hangs() -> None:
        await asyncio.Event().wait()

    async with Supervisor() as supervisor:
        with pytest.raises(JobTimedOut):
            await supervisor.call(hangs)
    assert asyncio.get_running_loop().time() == 86_400


def test_the_same_seed_gives_the_same_events():
    """A simulated supervisor starts and ends its jobs alike in every run of a seed."""

    async def main() -> list[tuple[float, str, int]]:
        told: list[tuple[float, str, int]] = []

        @job(retry=Retry(5, on=Flaky, delay=1))
        async def flaky(number: int) -> int:
            await asyncio.sleep(loop.random.random())
            if loop.random.random() < 0.5:
                raise Flaky
            return number

        def listener(event) -> None:
            if isinstance(event, AttemptEnded):
                told.append((event.at, event.outcome, event.worker))

        loop = asyncio.get_running_loop()
        async with Supervisor(3, listeners=[listener]) as supervisor:
            jobs = await supervisor.submit_many(flaky, range(20))
            for each in jobs:
                await each.wait()
        return told

    runs = [[simulate(main, seed=seed) for seed in range(10)] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len({run.digest for run in runs[0]}) == 10


async def brief(number: int) -> int:
    """Suspend a few times."""
    await asyncio.sleep(0.1)
    await asyncio.sleep(0)
    return number


def settled(run: CancelRun[list]) -> None:
    """All jobs have ended, and the figures agree."""
    assert run.value is not None
    supervisor, jobs = run.value
    assert supervisor.state == "closed"
    assert all(each.done() for each in jobs), jobs
    stats = supervisor.stats()
    assert stats.submitted == stats.succeeded + stats.failed + stats.cancelled


def scenario(victim):
    """Make a scenario in which somebody uses a supervisor beside others, on a short queue."""

    async def main():
        jobs = []
        async with Supervisor(2, maxsize=2) as supervisor:

            async def other() -> None:
                for number in range(4):
                    jobs.append(await supervisor.submit(brief, number))

            async def chosen() -> None:
                await victim(supervisor, jobs)

            tasks = [
                asyncio.create_task(chosen(), name="victim"),
                asyncio.create_task(other(), name="other"),
            ]
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled() and task.exception() is not None:
                    raise task.exception()
            assert await supervisor.call(brief, 7) == 7  # it works as well as before
        return supervisor, jobs

    return main


async def submits(supervisor, jobs) -> None:
    """Submit, with waiting for room, and await."""
    for number in range(4):
        jobs.append(await supervisor.submit(brief, number))
    assert [await each for each in jobs[:1]]


async def submits_many(supervisor, jobs) -> None:
    """Submit two at once."""
    for _ in range(2):
        jobs.extend(await supervisor.submit_many(brief, range(2)))


async def calls(supervisor, jobs) -> None:
    """Call twice."""
    assert [await supervisor.call(brief, number) for number in range(2)] == [0, 1]


async def maps(supervisor, jobs) -> None:
    """Map, as a list."""
    assert await supervisor.map(brief, range(5), window=2) == list(range(5))


async def streams(supervisor, jobs) -> None:
    """Map, one by one, unordered."""
    async with supervisor.map(brief, range(5), window=2, ordered=False) as stream:
        assert sorted([value async for value in stream]) == list(range(5))


@pytest.mark.parametrize("victim", [submits, submits_many, calls, maps, streams])
def test_cancelled_anywhere_nothing_is_lost(victim):
    """W03: whoever uses the supervisor may be cancelled at every step, and all jobs settle."""
    report = cancel_at_every_step(scenario(victim), settled, task="victim")
    assert not report.violations, report
    assert len(report.cancellations) >= 3


async def drains(supervisor) -> None:
    """Drain with a grace."""
    await supervisor.drain(1)


async def leaves(supervisor) -> None:
    """Just leave the block."""


@pytest.mark.parametrize("ends", [drains, leaves])
@pytest.mark.parametrize("told", [True, False])
def test_stopping_may_be_cancelled_anywhere(ends, told):
    """W03: a supervisor whose body is cancelled at any step, also while it stops, ends all jobs."""

    async def main():
        jobs = []
        supervisor = Supervisor(2, listeners=[lambda _: None] if told else [])

        async def body() -> None:
            async with supervisor:
                for number in range(4):
                    jobs.append(await supervisor.submit(brief, number))
                await ends(supervisor)

        task = asyncio.create_task(body(), name="victim")
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            assert isinstance(task.exception(), (JobCancelled, SupervisorClosed))
        await asyncio.sleep(1)
        return supervisor, jobs

    def check(run) -> None:
        supervisor, jobs = run.value
        assert supervisor.state in ("closed", "new")
        assert all(each.done() for each in jobs), jobs

    report = cancel_at_every_step(main, check, task="victim")
    assert not report.violations, report
    assert len(report.cancellations) >= 3
