"""A Supervisor's life, from its making to its end and again; and what it can be asked and told."""

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncworkers import (
    DrainReport,
    Job,
    JobCancelled,
    JobNotFound,
    JobState,
    Queue,
    QueueFull,
    Retry,
    Supervisor,
    SupervisorClosed,
    SupervisorFailed,
    job,
)
from asyncworkers import events as happened
from asyncworkers._engine.teller import Teller
from asyncworkers.testing import EventRecorder, no_leaks

pytestmark = pytest.mark.asyncio

Log = pytest.LogCaptureFixture


async def echo(value: Any) -> Any:
    """Return the value."""
    return value


def blocking_echo(value: Any) -> Any:
    """Return the value, from a thread."""
    return value


async def for_ever() -> None:
    """End only if cancelled."""
    await asyncio.Event().wait()


async def fail() -> None:
    """Fail."""
    raise ValueError("no")


async def turns(count: int = 5) -> None:
    """Let the loop turn a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Turn the loop until something is so; the suite's time limit is the only other end."""
    while not condition():
        await asyncio.sleep(0)


def kinds(recorder: EventRecorder) -> list[str]:
    """What has happened to the supervisor itself, in order."""
    supervisors = [event for event in recorder.all if type(event).__name__.startswith("Supervisor")]
    return [type(event).__name__ for event in supervisors]


# ---- its life


async def test_a_life_in_its_states() -> None:
    """new, open, draining, closed; each is told to listeners, and nothing follows the last."""
    recorder = EventRecorder()
    supervisor = Supervisor(listeners=[recorder])
    states = [supervisor.state]
    async with supervisor as entered:
        assert entered is supervisor
        states.append(supervisor.state)
        one = await supervisor.submit(echo, 1)
        await supervisor.drain()
        states.append(supervisor.state)
        assert one.done()
    states.append(supervisor.state)
    assert states == ["new", "open", "draining", "closed"]
    assert kinds(recorder) == ["SupervisorStarted", "SupervisorDraining", "SupervisorClosed"]
    assert isinstance(recorder.all[-1], happened.SupervisorClosed)


async def test_making_one_starts_nothing() -> None:
    """It may be made anywhere: no thread, no task, no loop is touched before it is entered."""
    tasks, threads = asyncio.all_tasks(), threading.active_count()
    supervisor = Supervisor(3, threads=2, processes=1, queues=[Queue("mail", 1)], name="mine")
    assert (asyncio.all_tasks(), threading.active_count()) == (tasks, threads)
    assert supervisor.name == "mine"
    assert [(queue.name, queue.workers) for queue in supervisor.queues] == [
        ("default", 3),
        ("threads", 2),
        ("processes", 1),
        ("mail", 1),
    ]
    assert supervisor.stats().queues == {}


async def test_declared_queues_override_the_two_it_has() -> None:
    """A declaration named "default" or "threads" takes the place of the built-in one, and one
    without a number of workers gets that of its kind.
    """
    supervisor = Supervisor(
        threads=3,
        processes=2,
        queues=[Queue("default", 5, maxsize=None), Queue("disk", kind="threads"), Queue("net")],
    )
    workers = {queue.name: queue.workers for queue in supervisor.queues}
    assert workers == {"default": 5, "threads": 3, "processes": 2, "disk": 3, "net": 100}


@pytest.mark.virtual_time
async def test_leaving_normally_finishes_everything() -> None:
    """Retries and delays are waited for, however long that takes; the grace is for drains only."""
    tries: list[int] = []

    async def third_time() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError
        return "done"

    retried = job(third_time, retry=Retry(3, on=OSError, delay=600, jitter=False))
    async with Supervisor(1, grace=0.001) as supervisor:
        jobs = [
            await supervisor.submit(retried),
            await supervisor.submit(job(echo, delay=3600), "late"),
            await supervisor.submit(blocking_echo, "thread"),
        ]
    assert [one.result() for one in jobs] == ["done", "late", "thread"]
    assert asyncio.get_running_loop().time() >= 3600


async def test_leaving_with_an_exception_cancels_everything() -> None:
    """What runs is cancelled, what waits never starts, and the exception goes on its way."""
    started: list[int] = []

    async def note(number: int) -> None:
        started.append(number)
        await for_ever()

    with pytest.raises(ZeroDivisionError):
        async with Supervisor(1) as supervisor:
            jobs = await supervisor.submit_many(note, range(3))
            await until(lambda: started)
            raise ZeroDivisionError
    assert started == [0]
    assert [one.state for one in jobs] == ["cancelled"] * 3
    for one in jobs:
        with pytest.raises(JobCancelled, match="left with an exception"):
            await one


async def test_a_cancelled_body_cancels_everything() -> None:
    """A task that is cancelled inside the block ends as a cancelled task, with all jobs ended."""
    supervisor = Supervisor()
    jobs: list[Job[Any]] = []

    async def body() -> None:
        async with supervisor:
            jobs.append(await supervisor.submit(for_ever))
            await for_ever()

    task = asyncio.create_task(body())
    await until(lambda: jobs and jobs[0].state is JobState.RUNNING)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (supervisor.state, jobs[0].state) == ("closed", "cancelled")


async def test_a_timeout_around_the_block_works() -> None:
    """`asyncio.timeout` sees its own cancellation again, as with any other block."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            async with Supervisor() as supervisor:
                await supervisor.call(for_ever)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_entered_twice_at_once_is_refused() -> None:
    """One supervisor runs in one place at a time; the first is not disturbed."""
    async with Supervisor() as supervisor:
        with pytest.raises(RuntimeError, match="was entered already"):
            await supervisor.__aenter__()
        assert await supervisor.call(echo, 1) == 1


async def test_entered_twice_while_its_store_opens(tmp_path: Path) -> None:
    """Also while the first is still on its way, which takes a while if there is a store to open."""
    supervisor = Supervisor(store=f"sqlite:///{tmp_path}/jobs.db")
    first, second = await asyncio.gather(
        supervisor.open(), supervisor.open(), return_exceptions=True
    )
    assert first is supervisor
    assert isinstance(second, RuntimeError)
    assert "is being entered already" in str(second)
    await supervisor.close()
    assert supervisor.state == "closed"


async def test_entered_again_after_its_end() -> None:
    """A second life begins with nothing: figures from 0, its old jobs forgotten but not changed."""
    supervisor = Supervisor(listeners=[recorder := EventRecorder()])
    lives: list[Job[Any]] = []
    async with no_leaks():
        for number in range(3):
            async with supervisor:
                assert supervisor.stats().submitted == 0
                lives.append(await supervisor.submit(echo, number))
                assert await supervisor.call(blocking_echo, number) == number
                for old in lives[:-1]:
                    with pytest.raises(JobNotFound):
                        supervisor.get(old.id)
            assert supervisor.stats().submitted == 2
    assert [one.result() for one in lives] == [0, 1, 2]
    assert len({one.id for one in lives}) == 3
    assert kinds(recorder).count("SupervisorStarted") == 3


async def test_nothing_is_accepted_before_and_after() -> None:
    """Every way in says SupervisorClosed, before it is entered and after it has ended."""
    supervisor = Supervisor()
    for reason in ("was not entered", "is closed"):
        for way in ("submit_nowait", "map"):
            with pytest.raises(SupervisorClosed, match=reason):
                await getattr(supervisor, way)(echo, [1])
        for way in ("submit", "call"):
            with pytest.raises(SupervisorClosed, match=reason):
                await getattr(supervisor, way)(echo, 1)
        with pytest.raises(SupervisorClosed, match=reason):
            await supervisor.submit_many(echo, [1])
        with pytest.raises(SupervisorClosed, match=reason):
            await asyncio.wrap_future(supervisor.submit_threadsafe(echo, 1))
        async with supervisor if supervisor.state == "new" else contextlib.nullcontext():
            pass


async def test_two_supervisors_in_one_loop_do_not_know_each_other() -> None:
    """Each has its own jobs, queues and end; one may give jobs to the other."""
    async with Supervisor(1, name="outer") as outer:

        async def through() -> int:
            async with Supervisor(1, name="inner") as inner:
                assert inner.jobs() == []
                return int(await inner.call(echo, 7))

        assert await outer.call(through) == 7
        held = await outer.submit(for_ever)
        async with Supervisor() as other:
            with pytest.raises(JobNotFound):
                other.get(held.id)
            other.cancel_all()
        assert held.state in ("queued", "running")
        held.cancel()


# ---- drain


async def test_drain_from_outside_reports_what_became_of_each_job() -> None:
    """Done, cancelled, not started: every job there was is in the report once, by its id."""
    gate = asyncio.Event()

    async with Supervisor(2) as supervisor:
        done = await supervisor.submit(gate.wait)
        running = await supervisor.submit(for_ever)
        waiting = await supervisor.submit(for_ever)
        scheduled = await supervisor.submit(job(echo, delay=3600), 1)
        await turns()
        draining = asyncio.create_task(supervisor.drain(0.01))
        await turns()
        gate.set()
        report = await draining
    assert isinstance(report, DrainReport)
    assert report.done == (done.id,)
    assert set(report.cancelled) | set(report.not_started) == {
        running.id,
        waiting.id,
        scheduled.id,
    }
    assert running.id in report.cancelled
    assert scheduled.id in report.not_started
    assert report.abandoned == ()
    assert "1 done" in str(report)


async def test_drain_that_has_enough_time_cancels_nothing() -> None:
    """With all jobs done in time the report says so, and so does each job."""
    async with Supervisor(1) as supervisor:
        jobs = await supervisor.submit_many(echo, range(5))
        jobs.append(await supervisor.submit(fail))
        report = await supervisor.drain()
        assert set(report.done) == {one.id for one in jobs}
        assert (report.cancelled, report.not_started, report.abandoned) == ((), (), ())
        assert isinstance(jobs[-1].exception(), ValueError)
        assert "5 done, 1 failed, 0 cancelled" in str(report)
        assert report.failed == (jobs[-1].id,)


async def test_a_drain_tells_what_others_cancelled_meanwhile() -> None:
    """It is done with, and yet not counted as done; nor as cancelled, for the grace was not over."""
    gate = asyncio.Event()
    async with Supervisor(2) as supervisor:
        given_up = await supervisor.submit(for_ever)
        other = await supervisor.submit(gate.wait)
        draining = asyncio.create_task(supervisor.drain())
        await turns()
        given_up.cancel("the user left")
        gate.set()
        report = await draining
        assert set(report.done) == {given_up.id, other.id}
        assert (report.withdrawn, report.cancelled) == ((given_up.id,), ())
        assert "1 done, 1 withdrawn, 0 cancelled" in str(report)
        given_up.exception()


async def test_drain_from_inside_a_job() -> None:
    """A job may drain its own supervisor: it belongs to what is waited for, until the grace ends."""
    reports: list[DrainReport] = []

    async def ends() -> None:
        reports.append(await supervisor.drain(0.01))

    async with Supervisor(1) as supervisor:
        ending = await supervisor.submit(ends)
        queued = await supervisor.submit(for_ever)
        await ending.wait()
        assert supervisor.state == "draining"
        assert ending.state == queued.state == "cancelled"


async def test_many_drains_at_once() -> None:
    """Whoever drains, and how often: each gets a report of its own; the shortest grace counts."""
    async with Supervisor() as supervisor:
        held = await supervisor.submit(for_ever)
        await turns()
        reports = await asyncio.gather(*(supervisor.drain(grace) for grace in (60, 0.001, 60)))
        assert all(report.cancelled == (held.id,) for report in reports)
        assert (await supervisor.drain()).cancelled == ()


async def test_a_drain_may_be_cancelled() -> None:
    """Who waits for a drain may go away: it stays draining, nothing is cancelled by that."""
    gate = asyncio.Event()
    async with Supervisor() as supervisor:
        held = await supervisor.submit(gate.wait)
        await turns()
        draining = asyncio.create_task(supervisor.drain())
        await turns()
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        assert (supervisor.state, held.state) == ("draining", "running")
        gate.set()
    assert held.state == "succeeded"


@pytest.mark.parametrize("ending", ["drain", "cancel_all", "exit", "error"])
async def test_whoever_waits_for_the_drain_is_woken_once_it_begins(ending: str) -> None:
    """However the end comes, those who wait for it go on, jobs included, and whoever asks later does
    so at once; in its next life the supervisor has another end to be waited for.
    """
    supervisor = Supervisor()
    with pytest.raises(SupervisorClosed, match="not entered"):
        await supervisor.wait_draining()
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError):
            async with supervisor:
                waiting = asyncio.create_task(supervisor.wait_draining())
                inside = await supervisor.submit(supervisor.wait_draining)
                await turns()
                assert not waiting.done()
                assert inside.state == "running"
                if ending == "drain":
                    assert (await supervisor.drain()).done == (inside.id,)
                elif ending == "cancel_all":
                    supervisor.cancel_all()
                    await waiting
                elif ending == "error":
                    raise ZeroDivisionError
        await waiting
        await supervisor.wait_draining()


async def test_a_paused_queue_is_not_waited_for() -> None:
    """What waits in a paused queue, or one without workers, would wait for ever: the end cancels it
    and says why.
    """
    async with Supervisor(queues=[Queue("none", 0)]) as supervisor:
        supervisor.pause("default")
        paused = await supervisor.submit(echo, 1)
        nobody = await supervisor.submit(job(echo, queue="none"), 1)
    for one, why in ((paused, "was paused"), (nobody, "had no workers")):
        with pytest.raises(JobCancelled, match=why):
            await one


async def test_cancel_all() -> None:
    """Every job is cancelled with the reason given, and nothing more is accepted."""
    async with Supervisor(1) as supervisor:
        jobs = [await supervisor.submit(for_ever) for _ in range(2)]
        jobs.append(await supervisor.submit(job(echo, delay=60), 1))
        await turns()
        supervisor.cancel_all("enough of this")
        with pytest.raises(SupervisorClosed):
            supervisor.submit_nowait(echo, 1)
        for one in jobs:
            with pytest.raises(JobCancelled, match="enough of this"):
                await one


# ---- restart intensity


async def _crash_often(supervisor: Supervisor, times: int) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError("ours")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Teller, "started", crash)
        for _ in range(times):
            with contextlib.suppress(SupervisorClosed, SupervisorFailed):
                await (await supervisor.submit(echo, 1)).wait()
            await turns()


async def test_a_few_crashes_are_made_good(caplog: Log) -> None:
    """As many crashes as `restarts` allows change nothing for the next job."""
    async with Supervisor(restarts=3, listeners=[recorder := EventRecorder()]) as supervisor:
        await _crash_often(supervisor, 3)
        assert supervisor.state == "open"
        assert await supervisor.call(echo, 1) == 1
    assert len(recorder.of(happened.WorkerReplaced)) == 3


async def test_more_crashes_than_that_fail_it(caplog: Log) -> None:
    """One more and the body is cancelled, everything is, SupervisorFailed carries the cause; it can
    be entered again.
    """
    supervisor = Supervisor(restarts=1, listeners=[EventRecorder()])
    with pytest.raises(SupervisorFailed, match="more than 1 time in 5 s") as caught:
        async with supervisor:
            held = await supervisor.submit(for_ever)
            await turns()
            await _crash_often(supervisor, 2)
            try:
                await for_ever()
            finally:
                await supervisor.wait_draining()  # it has failed, so nobody is kept waiting
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert (supervisor.state, held.state) == ("failed", "cancelled")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    async with supervisor:
        assert await supervisor.call(echo, 1) == 1
    assert supervisor.state == "closed"


@pytest.mark.virtual_time
async def test_crashes_long_ago_do_not_count(caplog: Log) -> None:
    """Only those of the last `period` seconds do."""
    async with Supervisor(restarts=1, period=5, listeners=[EventRecorder()]) as supervisor:
        for _ in range(4):
            await _crash_often(supervisor, 1)
            await asyncio.sleep(6)
        assert supervisor.state == "open"


# ---- ways in


async def test_submit_many_takes_all_or_none() -> None:
    """One job an item, in order; with one too many for the queue ever, none."""
    async with Supervisor(1, maxsize=5) as supervisor:
        jobs = await supervisor.submit_many(echo, iter(range(5)))
        assert [await one for one in jobs] == list(range(5))
        assert await supervisor.submit_many(echo, []) == []
        with pytest.raises(QueueFull, match="more than 5 jobs can never fit"):
            await supervisor.submit_many(echo, range(6))
        assert supervisor.stats().submitted == 5


async def test_submit_many_waits_for_room_for_all() -> None:
    """As long as there is room for some only, nothing is accepted."""
    gate = asyncio.Event()
    async with Supervisor(1, maxsize=3) as supervisor:
        first = [await supervisor.submit(gate.wait) for _ in range(2)]
        await turns()
        waiting = asyncio.create_task(supervisor.submit_many(echo, range(3)))
        await turns()
        assert not waiting.done()
        assert supervisor.stats().submitted == 2
        gate.set()
        assert [await one for one in await waiting] == [0, 1, 2]
        assert all(one.done() for one in first)


async def test_submit_many_with_policies() -> None:
    """The policies of the function hold for each of its jobs."""
    tagged = job(echo, tags=["bulk"], priority=5, delay=0.001)
    async with Supervisor() as supervisor:
        jobs = await supervisor.submit_many(tagged, range(3))
        assert [(one.tags, one.priority, one.state) for one in jobs] == [
            (("bulk",), 5, "scheduled")
        ] * 3
        threads = await supervisor.submit_many(blocking_echo, range(3))
        assert [await one for one in (*jobs, *threads)] == [0, 1, 2] * 2


async def test_submit_nowait_says_when_it_is_full() -> None:
    """Where `submit` would wait it raises, and says what to do."""
    async with Supervisor(1, maxsize=1) as supervisor:
        running = supervisor.submit_nowait(for_ever)
        await turns()
        supervisor.submit_nowait(echo, 1)
        for function in (echo, job(echo), job(echo, priority=3)):
            with pytest.raises(QueueFull, match="await submit"):
                supervisor.submit_nowait(function, 2)
        assert supervisor.stats().submitted == 2
        running.cancel()


async def test_call_owns_its_job() -> None:
    """It gives the value or raises the error; who cancels it cancels the job."""
    async with Supervisor(listeners=[recorder := EventRecorder()]) as supervisor:
        assert await supervisor.call(echo, 7) == 7
        assert await supervisor.call(job(echo).bind(8)) == 8
        with pytest.raises(ValueError, match="no"):
            await supervisor.call(fail)
        calling = asyncio.create_task(supervisor.call(for_ever))
        await recorder.wait_for(happened.AttemptStarted, count=4)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        settled = await recorder.wait_for(happened.JobSettled, count=4)
        assert settled.state == "cancelled"


async def test_submit_threadsafe_from_a_thread() -> None:
    """The future gets the value, or the very error; cancelling it cancels the job."""
    begun = threading.Event()

    async def begins() -> None:
        begun.set()
        await for_ever()

    def elsewhere() -> list[Any]:
        found: list[Any] = [supervisor.submit_threadsafe(echo, 7).result(30)]
        found.append(supervisor.submit_threadsafe(blocking_echo, 8).result(30))
        found.append(repr(supervisor.submit_threadsafe(fail).exception(30)))
        future = supervisor.submit_threadsafe(begins)
        begun.wait(30)
        assert future.cancel()
        with contextlib.suppress(concurrent.futures.CancelledError):
            future.result(30)
        found.append(future.cancelled())
        return found

    async with Supervisor(listeners=[recorder := EventRecorder()]) as supervisor:
        found = await asyncio.to_thread(elsewhere)
        await recorder.wait_for(happened.JobSettled, state="cancelled")
    assert found == [7, 8, "ValueError('no')", True]


async def test_submit_threadsafe_waits_for_room_on_the_loops_side() -> None:
    """A full queue holds no thread up; what still waits when the supervisor ends gets the error."""
    gate = asyncio.Event()
    with pytest.raises(ZeroDivisionError):
        async with Supervisor(1, maxsize=1) as supervisor:
            await supervisor.submit(gate.wait)
            await turns()
            futures = [supervisor.submit_threadsafe(echo, number) for number in range(4)]
            await turns(10)
            assert [future.done() for future in futures] == [False] * 4
            raise ZeroDivisionError
    await turns()
    errors = [type(future.exception(0)) for future in futures]
    assert errors == [JobCancelled] + [SupervisorClosed] * 3


# ---- finding and steering


async def test_get_finds_unfinished_jobs_by_their_id() -> None:
    """By the id it was given, until it has ended; by nothing else."""
    async with Supervisor(1) as supervisor:
        running = await supervisor.submit(for_ever)
        queued = await supervisor.submit(echo, 1)
        scheduled = await supervisor.submit(job(echo, delay=60), 1)
        await turns()
        for one in (running, queued, scheduled):
            assert supervisor.get(one.id) is one
        running.cancel()
        await running.wait()
        with pytest.raises(JobNotFound):
            supervisor.get(running.id)
        with pytest.raises(KeyError):
            supervisor.get("")
        scheduled.cancel()


async def test_jobs_by_what_they_match() -> None:
    """Oldest first, by state, queue, name and tag, and everything given at once."""
    async with Supervisor(1, queues=[Queue("mail", 1)]) as supervisor:
        first = await supervisor.submit(job(for_ever, name="first", tags=["a", "b"]))
        second = await supervisor.submit(job(for_ever, name="second", tags=["b"]))
        mail = await supervisor.submit(job(for_ever, name="first", queue="mail"))
        later = await supervisor.submit(job(echo, delay=60, tags=["a"]), 1)
        await turns()
        everything = [first, second, mail, later]
        assert supervisor.jobs() == everything
        assert supervisor.jobs(state="running") == [first, mail]
        assert supervisor.jobs(state=JobState.QUEUED) == [second]
        assert supervisor.jobs(queue="mail") == [mail]
        assert supervisor.jobs(name="first") == [first, mail]
        assert supervisor.jobs(tag="a") == [first, later]
        assert supervisor.jobs(tag="a", state="scheduled") == [later]
        assert supervisor.jobs(tag="b", queue="mail") == []
        assert supervisor.jobs(state="succeeded") == []
        for one in everything:
            assert supervisor.cancel(one.id, "seen")
        for one in everything:
            await one.wait()
            assert supervisor.cancel(one) is False
            assert supervisor.cancel(one.id) is False
        assert supervisor.jobs() == []


async def test_pause_and_resume() -> None:
    """A paused queue accepts and starts nothing, what runs runs on; told once, and the other queues
    do not care.
    """
    gate = asyncio.Event()
    async with Supervisor(2, listeners=[recorder := EventRecorder()]) as supervisor:
        running = await supervisor.submit(gate.wait)
        await turns()
        for _ in range(2):
            supervisor.pause("default")
        jobs = await supervisor.submit_many(echo, range(3))
        assert await supervisor.call(blocking_echo, 1) == 1
        await turns()
        assert {one.state for one in jobs} == {"queued"}
        assert "is paused" in jobs[0].why
        assert "paused" in supervisor.explain()
        assert supervisor.stats().queues["default"].paused
        gate.set()
        assert await running is True
        assert {one.state for one in jobs} == {"queued"}
        for _ in range(2):
            supervisor.resume("default")
        assert [await one for one in jobs] == [0, 1, 2]
    assert len(recorder.of(happened.QueuePaused, queue="default")) == 1
    assert len(recorder.of(happened.QueueResumed, queue="default")) == 1


async def test_resize() -> None:
    """More workers start more at once, fewer let what runs come to its end, none starts nothing."""
    gate = asyncio.Event()
    async with Supervisor(1, listeners=[recorder := EventRecorder()]) as supervisor:
        jobs = [await supervisor.submit(gate.wait) for _ in range(6)]
        for workers, running in ((1, 1), (4, 4), (2, 4), (0, 4)):
            supervisor.resize("default", workers)
            await turns()
            assert supervisor.stats().running == running
            assert supervisor.stats().queues["default"].workers == workers
        gate.set()
        await until(lambda: sum(one.done() for one in jobs) == 4)
        await turns()
        assert supervisor.stats().queued == 2
        assert "has no workers" in jobs[-1].why
        supervisor.resize("default", 1)
        for one in jobs:
            assert await one is True
    assert [event.workers for event in recorder.of(happened.QueueResized)] == [1, 4, 2, 0, 1]


# ---- looking at it


async def test_stats_of_every_moment() -> None:
    """The figures of each queue add up at every moment, and stay to be read after the end."""
    gate = asyncio.Event()

    async def fails_once() -> None:
        raise ValueError

    retried = job(fails_once, retry=Retry(2, on=ValueError, delay=0.001))
    async with Supervisor(2, queues=[Queue("idle", 1)]) as supervisor:
        held = [await supervisor.submit(gate.wait) for _ in range(3)]
        later = await supervisor.submit(job(echo, delay=60), 1)
        await turns()
        stats = supervisor.stats()
        assert (stats.submitted, stats.running, stats.queued, stats.scheduled) == (4, 2, 1, 1)
        gate.set()
        later.cancel()
        for one in held:
            await one
        with pytest.raises(ValueError):
            await supervisor.call(retried)
        timed_out = await supervisor.submit(job(for_ever, timeout=0.001))
        await timed_out.wait()
        await supervisor.map(echo, range(10))
    stats = supervisor.stats()
    default = stats.queues["default"]
    assert (stats.submitted, stats.succeeded, stats.failed, stats.cancelled) == (16, 13, 2, 1)
    assert (stats.running, stats.queued, stats.scheduled) == (0, 0, 0)
    assert (default.retried, default.timed_out, default.abandoned) == (1, 1, 0)
    assert stats.retried == 1
    assert stats.queues["idle"].submitted == 0
    assert default == supervisor.stats().queues["default"]


async def test_explain_says_what_everything_waits_for() -> None:
    """One line a queue, and for a few of its jobs what they wait for."""
    gate = asyncio.Event()
    async with Supervisor(1) as supervisor:
        await supervisor.submit(job(gate.wait, name="holds"))
        await supervisor.submit(job(gate.wait, name="waits"))
        await turns()
        text = supervisor.explain()
        gate.set()
    lines = text.splitlines()
    assert lines[0].startswith("Supervisor open")
    assert "default: 1 of 1 worker busy, 1 job queued" in text
    assert any("holds" in line and "running: attempt 1" in line for line in lines)
    assert any(
        "waits" in line and "the only worker of queue 'default' is busy" in line for line in lines
    )
    assert "threads: 0 of" in text


async def test_listeners_come_and_go() -> None:
    """One that is added hears from then on, and no more once it is taken away."""
    heard: list[happened.Event] = []
    async with Supervisor() as supervisor:
        await supervisor.call(echo, 1)
        assert heard == []
        stop = supervisor.listen(heard.append)
        await supervisor.call(echo, 2)
        names = [type(event).__name__ for event in heard]
        assert names == ["JobSubmitted", "AttemptStarted", "AttemptEnded", "JobSettled"]
        stop()
        stop()
        await supervisor.call(echo, 3)
        assert len(heard) == 4


async def test_failures_nobody_read_are_logged_at_the_end(caplog: Log) -> None:
    """Once each, with their traceback; what was read, awaited or cancelled is not."""
    async with Supervisor() as supervisor:
        unread = await supervisor.submit(job(fail, name="unread"))
        read = await supervisor.submit(job(fail, name="read"))
        assert isinstance((await read.wait()).error, ValueError)  # type: ignore[union-attr]
        await until(unread.done)
        assert not caplog.records
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "job unread" in record.getMessage()
    assert "ValueError: no" in record.getMessage()


async def test_cancelled_jobs_are_counted_out_once() -> None:
    """However many of those that wait are cancelled, the line holds none in the end, by its own count."""
    async with Supervisor(workers=1) as supervisor:
        supervisor.pause("default")
        for one in await supervisor.submit_many(asyncio.sleep, [0] * 300):
            one.cancel()
        supervisor.resume("default")
        await supervisor.call(asyncio.sleep, 0)
        assert supervisor.stats().queued == 0


# ---- opened and closed by hand


async def test_open_and_close() -> None:
    """Without a block it is opened in one task and closed in another, again and again; closing
    finishes every job, and is harmless when there is nothing to close.
    """
    supervisor = Supervisor()
    with pytest.raises(SupervisorClosed, match="was not entered"):
        await supervisor.close()
    async with no_leaks():
        for _ in range(2):
            assert await asyncio.create_task(supervisor.open()) is supervisor
            with pytest.raises(RuntimeError, match="was entered already"):
                await supervisor.open()
            later = await supervisor.submit(job(echo, delay=0.01), 7)
            report = await asyncio.create_task(supervisor.close())
            assert (report.done, later.result()) == ((later.id,), 7)
            assert supervisor.state == "closed"
            assert await supervisor.close() == DrainReport((), (), (), (), 0.0)
            with pytest.raises(SupervisorClosed, match="closed"):
                supervisor.submit_nowait(echo, 1)


async def test_close_within_a_grace() -> None:
    """What does not end in time is cancelled, and in the report."""
    async with no_leaks():
        supervisor = await Supervisor(1).open()
        jobs = await supervisor.submit_many(lambda _: asyncio.Event().wait(), [1])
        for wrong in (-1, "soon"):
            with pytest.raises((TypeError, ValueError), match="grace must be"):
                await supervisor.close(wrong)  # type: ignore[arg-type]
        assert supervisor.state == "open"
        running = await supervisor.submit(for_ever)
        await turns()
        report = await supervisor.close(0)
        assert running.id in report.cancelled + report.not_started
        assert supervisor.state == "closed"
        assert all(one.done() for one in jobs)
        for one in jobs:
            await one.wait()


async def test_whoever_cancels_close_cancels_the_jobs() -> None:
    """As an interrupt of its cell does: what is left ends, and so does the supervisor."""
    async with no_leaks():
        supervisor = await Supervisor().open()
        running = await supervisor.submit(for_ever)
        closing = asyncio.create_task(supervisor.close())
        await turns()
        assert supervisor.state == "draining"
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert supervisor.state == "closed"
        assert running.state == "cancelled"


async def test_close_after_it_failed() -> None:
    """A supervisor that fails cancels nobody where there is no block; closing it tells, once."""
    async with no_leaks():
        opener = asyncio.current_task()
        assert opener is not None
        supervisor = await Supervisor(restarts=0).open()
        cause = RuntimeError("a worker crashed")
        supervisor._worker_crashed("default", cause)
        await turns()
        assert not opener.cancelling()
        with pytest.raises(SupervisorFailed):
            await supervisor.submit(echo, 1)
        with pytest.raises(SupervisorFailed) as caught:
            await supervisor.close()
        assert caught.value.__cause__ is cause
        assert supervisor.state == "failed"
        assert await supervisor.close() == DrainReport((), (), (), (), 0.0)
        async with supervisor:
            assert await supervisor.call(echo, 2) == 2


async def test_one_that_was_opened_and_forgotten(caplog: Log) -> None:
    """It warns when it goes away, and its jobs are cancelled, which the log tells."""
    async with no_leaks():
        supervisors = [await Supervisor().open()]
        running = await supervisors[0].submit(for_ever)
        with pytest.warns(ResourceWarning, match="was never left"):
            supervisors.clear()
        await running.wait()
        assert running.state == "cancelled"
        assert f"was never left; 1 job is lost: <Job for_ever {running.id} running>" in caplog.text
        await turns(20)
