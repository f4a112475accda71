"""Jobs in a store through the supervisor: accepted when committed, run, settled, awaited, given back."""

import asyncio
import contextlib
import gc
import re
import time
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from stored_jobs import (
    SUPERVISORS,
    OwnError,
    at_most_once,
    cpu_double,
    cpu_hold,
    double,
    fail,
    hold,
    keyed,
    notes,
    parent,
    ready_second,
    rejecting,
    surprise,
    third_time,
    thread_double,
    thread_hold,
    who,
)

from asyncworkers import (
    ArgumentsMismatch,
    DuplicateJob,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobState,
    NotSerializable,
    Queue,
    Retry,
    Supervisor,
    SupervisorClosed,
    events,
    job,
)
from asyncworkers._engine.stored.feeder import NOTHING, Feeder
from asyncworkers._engine.stored.queue import TURN, StoredQueue
from asyncworkers.events import Event, JobSubmitted
from asyncworkers.store import Submission
from asyncworkers.store.clock import ManualClock
from asyncworkers.store.memory import MemoryData, MemoryStore
from asyncworkers.testing import EventRecorder, no_leaks

pytestmark = pytest.mark.asyncio


async def value_of(submitted):
    """Await a job, in a task of its own."""
    return await submitted


async def began(diary, count=1):
    """Wait until so many attempts have noted that they began."""
    while sum(line.startswith("began") for line in notes(diary)) < count:
        await asyncio.sleep(0.002)


async def test_what_another_process_submitted_is_seen_with_all_its_arguments(place):
    """A job that was read from the store has the keyword arguments too, not only the others."""

    @job(name="mix")
    async def mix(number: int, *, times: int = 1) -> int:
        return number * times

    async with place.supervisor([mix]) as supervisor:
        ident = (await supervisor.submit(mix, 2, times=3)).id
        assert await (await supervisor.stored.get(ident)) == 6
    async with place.supervisor([mix]) as supervisor:
        found = await supervisor.stored.get(ident)
        assert (found.args, dict(found.kwargs)) == ((2,), {"times": 3})


@pytest.mark.parametrize("function", [double, thread_double, cpu_double], ids=lambda f: f.name)
async def test_a_stored_job_runs_and_gives_its_value(place, function):
    """A job is committed, runs on the loop, in a thread or in a process, and its value comes back."""
    async with no_leaks(ignore=("shared memory *",), grace=3.0):
        async with place.supervisor() as supervisor:
            submitted = await supervisor.submit(function, 21)
            assert await submitted == 42
            assert submitted.state is JobState.SUCCEEDED
            assert (submitted.attempt, submitted.name) == (1, function.name)
            assert "succeeded" in submitted.why


async def test_a_child_that_becomes_ready_late_is_given_what_waits(place, tmp_path):
    """A job that came while no child was free does not wait for one that runs, but for the next that is."""
    diary = tmp_path / "diary"
    terms = {"kind": "processes", "initializer": partial(ready_second, str(tmp_path))}
    async with no_leaks(ignore=("shared memory *",), grace=3.0):
        queues, functions = [Queue("processes", 2, **terms)], [cpu_double, cpu_hold]
        async with place.supervisor(functions, queues=queues) as supervisor:
            first = await supervisor.submit(cpu_double, 1)
            held = await supervisor.submit(cpu_hold, str(diary))
            assert await first == 2
            await began(diary)
            last = await supervisor.submit(cpu_double, 2)
            (tmp_path / "gate").touch()
            async with asyncio.timeout(60):
                assert await last == 4
            held.cancel()


async def test_jobs_of_each_way_to_submit(place):
    """`submit_many`, `call`, a bound call and a submission from a thread all store their jobs."""
    async with place.supervisor() as supervisor:
        jobs = await supervisor.submit_many(double, range(200))
        assert await asyncio.gather(*jobs) == [2 * n for n in range(200)]
        assert await supervisor.call(double, 4) == 8
        assert await supervisor.call(double.bind(5)) == 10
        future = await asyncio.to_thread(supervisor.submit_threadsafe, double, 6)
        assert await asyncio.wrap_future(future) == 12
        assert (await supervisor.submit_many(double, [])) == []
        stored = [one async for one in supervisor.stored.jobs(state="succeeded")]
        assert len(stored) == 203
        assert await stored[0] == 12


async def test_a_job_knows_its_stored_id(place):
    """`current_job()` has the id that the store knows the job by."""
    async with place.supervisor() as supervisor:
        submitted = await supervisor.submit(who)
        assert await submitted == (submitted.id, 1, "who")
        assert len(submitted.id) == 32


@pytest.mark.parametrize("dated", [False, True])
async def test_a_delayed_job_is_scheduled_from_the_start(place, dated):
    """Whoever submits a job with a delay is told so without reading it, and how long it waits."""
    delay = datetime.now(UTC) + timedelta(hours=1) if dated else timedelta(hours=1)
    async with place.supervisor() as supervisor:
        one, two = await supervisor.submit_many(double.options(delay=delay), [1, 2])
        assert one.state is two.state is JobState.SCHEDULED
        assert re.fullmatch(r"scheduled: its delay ends in 3,[56]\d\d s", one.why)
        at_once = await supervisor.submit(double.options(delay=0), 3)
        assert await at_once == 6


async def test_retries_are_the_stores(place, tmp_path):
    """An attempt that failed goes back to the store with its delay, and the next one counts on."""
    async with place.supervisor() as supervisor:
        assert await supervisor.call(third_time, str(tmp_path / "diary")) == 3
        assert notes(tmp_path / "diary") == ["attempt 1", "attempt 2", "attempt 3"]
        assert supervisor.stats().retried == 2


async def test_a_retry_policy_counts_failures(place):
    """A job that always fails is begun as often as its policy says, and then it has failed."""
    always = job(fail.function, name="always", retry=Retry(3, on=KeyError, delay=0))
    async with place.supervisor(functions=[always]) as supervisor:
        submitted = await supervisor.submit(always, "gone")
        with pytest.raises(KeyError):
            await submitted
        assert (await supervisor.stored.get(submitted.id)).attempt == 3


async def test_errors_come_back_as_data(place):
    """A builtin error is rebuilt, any other is a JobFailed that names it; the store keeps both."""
    async with place.supervisor() as supervisor:
        with pytest.raises(KeyError, match="gone"):
            await supervisor.call(fail, "gone")
        with pytest.raises(JobFailed, match="OwnError: mine"):
            await supervisor.call(fail, "own")
        dead = [one async for one in supervisor.stored.jobs(state="failed")]
        assert [type(one.exception()) for one in dead] == [JobFailed, KeyError]
        assert OwnError.__name__ in str(dead[0].exception())


async def test_what_cannot_be_stored_is_refused_by_name(place):
    """An argument that would not come back is an error at the call; such a result fails the job."""
    async with place.supervisor() as supervisor:
        with pytest.raises(NotSerializable, match="argument 'number'"):
            await supervisor.submit(double, {1, 2})
        with pytest.raises(TypeError, match="missing"):
            await supervisor.submit(double)
        with pytest.raises(NotSerializable, match="the result"):
            await supervisor.call(surprise)
        assert supervisor.stats().queues["default"].failed == 1
        assert await supervisor.call(double, 1) == 2


async def test_one_function_may_be_listed_under_two_names(place):
    """While jobs of its old name are left, a renamed function goes by both, and new ones by either."""
    old = job(double.function, name="old_name")
    for functions in ([double, old], [old, double]):
        async with place.supervisor(functions) as supervisor:
            jobs = [await supervisor.submit(one, 1) for one in (double, old)]
            assert [await one for one in jobs] == [2, 2]
            assert [one.name for one in jobs] == ["double", "old_name"]


async def test_jobs_of_functions_that_nobody_lists_are_named_at_the_start(place, caplog):
    """Who renames a function leaves its jobs behind: the log of the next process names it, once, and
    says nothing where all are known, or where nothing is run.
    """
    caplog.set_level("INFO", "asyncworkers")
    later = job(double.function, name="old_name")
    async with place.supervisor([later, double], workers=0, threads=0, processes=0) as supervisor:
        await supervisor.submit_many(later, [1, 2])
        await supervisor.submit(double, 3)
        await supervisor.stored.pause("default")
    for functions, workers in (([double], 0), ([later, double], 1), ([double], 1)):
        assert "not listed here" not in caplog.text
        async with place.supervisor(functions, workers=workers, threads=0, processes=0):
            pass
    said = [one for one in caplog.messages if "not listed here" in one]
    assert said == ["jobs wait in the store for functions that are not listed here: old_name (2)"]


async def test_a_failure_that_nobody_here_awaits_is_logged_with_its_error(place, caplog):
    """Whoever reads the log of the process that ran it learns what went wrong, on one line."""
    async with place.supervisor() as supervisor:
        ident = (await supervisor.submit(fail, "gone")).id
        while ident not in caplog.text:
            await asyncio.sleep(0.001)
        message = caplog.messages[-1]
    assert message.endswith(
        "nobody here awaited it: KeyError: 'gone'; the store keeps all of its error"
    )


async def test_fault_J17_what_cannot_be_stored_is_no_result(place):
    """A value that is a circle, too large or of no type that comes back fails its attempt, and is not tried
    again, however often the function may be; the job is dead, and others go on.
    """
    circle: list = []
    circle.append(circle)
    values = {"circle": circle, "large": "x" * (1 << 21), "object": object()}
    ran = []

    @job(retry=Retry(3, on=ValueError, delay=0))
    async def returns(which: str):
        ran.append(which)
        return values[which]

    async with place.supervisor([returns, double]) as supervisor:
        for which in values:
            failing = await supervisor.submit(returns, which)
            with pytest.raises(NotSerializable, match=r"(the|its) result"):
                await failing
            assert (failing.state, failing.attempt) == (JobState.FAILED, 1)
        assert await supervisor.call(double, 1) == 2
    assert ran == list(values)


async def test_fault_J26_stored_arguments_that_do_not_fit_fail_the_job(place):
    """Arguments of an older version of the function are no attempt and no storm: the job fails."""
    async with place.supervisor() as supervisor:
        store = supervisor._depot.store
        await store.submit([Submission("old", "default", "double", '[["x", 2],{}]')])
        with pytest.raises(ArgumentsMismatch):
            await (await supervisor.stored.get("old"))
        assert await supervisor.call(double, 1) == 2


async def test_fault_J25_an_unknown_function_is_left_and_said(place):
    """A job whose function is not listed here stays where it is, and `why` says so."""
    async with place.supervisor() as supervisor:
        store = supervisor._depot.store
        await store.submit([Submission("alien", "default", "alien", "[[],{}]")])
        assert await supervisor.call(double, 1) == 2
        found = await supervisor.stored.get("alien")
        assert found.state is JobState.QUEUED
        assert "no process here knows function 'alien'" in found.why
        (counts,) = await supervisor.stored.counts()
        assert counts.unknown == {"alien": 1}


async def test_an_unlisted_function_is_an_error_at_submit(place):
    """Nobody could run it; on a queue in memory it may be submitted."""

    async def stranger() -> int:
        return 1

    async with place.supervisor(queues=[Queue("local", stored=False)]) as supervisor:
        with pytest.raises(ValueError, match="functions"):
            await supervisor.submit(stranger)
        assert await supervisor.call(job(stranger, queue="local")) == 1
        assert await supervisor.map(stranger_double, [1, 2]) == [2, 4]


async def stranger_double(number: int) -> int:
    """A function that was not listed."""
    return 2 * number


async def test_what_only_a_store_can_do_is_refused_in_memory():
    """`once`, `unique`, `keep`, an id of one's own and `stored=True` need a store; so does steering."""
    async with Supervisor() as supervisor:
        for option in ({"once": True}, {"unique": "a"}, {"keep": 5}):
            with pytest.raises(ValueError, match=f"{next(iter(option))}= is for jobs in a store"):
                await supervisor.submit(double.options(**option), 1)
        with pytest.raises(ValueError, match="with_id"):
            await supervisor.submit(double.bind(1).with_id("a"))
        with pytest.raises(ValueError, match="no store"):
            _ = supervisor.stored
    with pytest.raises(ValueError, match="no store="):
        Supervisor(queues=[Queue("a", stored=True)])


async def test_submit_nowait_says_what_to_do(place):
    """What is accepted when committed cannot be accepted without waiting."""
    async with place.supervisor() as supervisor:
        with pytest.raises(TypeError, match="await submit"):
            supervisor.submit_nowait(double, 1)


async def test_options_that_a_store_cannot_keep_are_refused(place):
    """Whoever runs the job has the listed function's retry and timeout, so others are refused; and what
    context variables it is to see nobody else knows.
    """
    variable = ContextVar("variable")
    async with place.supervisor() as supervisor:
        with pytest.raises(ValueError, match="timeout= of a stored job"):
            await supervisor.submit(double.options(timeout=5), 1)
        with pytest.raises(ValueError, match="names context variables, which are not stored"):
            await supervisor.submit(double.options(context=(variable,)), 1)
        assert await supervisor.call(double.options(priority=5, tags=["a"]), 1) == 2
    with pytest.raises(ValueError, match="two of the name 'double'"):
        place.supervisor(functions=[double, double.options(priority=1)])
    with pytest.raises(TypeError, match="store must be"):
        Supervisor(store=5)


async def test_an_id_of_ones_own_is_submitted_once(place):
    """To submit an id again does nothing, and answers with the job there is, of which is told once."""
    told: list[Event] = []
    async with place.supervisor() as supervisor:
        supervisor.listen(told.append)
        call = double.bind(3).with_id("order-3")
        first, second = await supervisor.submit(call), await supervisor.submit(call)
        assert (await first, await second) == (6, 6)
        assert first.id == second.id == "order-3"
        third = await supervisor.submit(call)
        assert await third == 6
        assert len([one async for one in supervisor.stored.jobs()]) == 1
        assert [type(one) for one in told].count(JobSubmitted) == 1


async def test_fault_J29_unique_keys(place):
    """A second job of a key answers with the first one, or is refused, as its function says."""
    async with place.supervisor() as supervisor:
        await supervisor.stored.pause("default")
        first, second = await supervisor.submit(keyed, "a"), await supervisor.submit(keyed, "a")
        other = await supervisor.submit(keyed, "b")
        assert first.id == second.id != other.id
        await supervisor.stored.resume("default")
        assert await asyncio.gather(first, second, other) == ["a", "a", "b"]
        there = await supervisor.submit(rejecting)
        with pytest.raises(DuplicateJob) as refused:
            await supervisor.submit(rejecting)
        assert refused.value.job_id == there.id


async def test_cancelling_what_waits_and_what_runs(place, tmp_path):
    """A stored job is cancelled in line, while it runs, and by its id, and says why."""
    diary = tmp_path / "diary"
    async with place.supervisor() as supervisor:
        running = await supervisor.submit(hold, str(diary))
        await began(diary)
        later = await supervisor.submit(double.options(delay=3_600), 1)
        assert later.cancel("not needed")
        with pytest.raises(JobCancelled) as cancelled:
            await later
        assert cancelled.value.reason == "not needed"
        assert running.state is JobState.RUNNING
        assert await supervisor.stored.cancel(running.id, reason="enough") == 1
        with pytest.raises(JobCancelled, match="enough"):
            await running
        assert notes(diary)[-1] == "cancelled"
        assert not running.cancel()


async def test_a_job_that_runs_is_shown_so_whoever_asks_later(place, tmp_path):
    """Who asks the store for a job that began before, and that nobody held, sees that it runs here."""
    async with place.supervisor() as supervisor:
        ident = (await supervisor.submit(hold, str(tmp_path / "diary"))).id
        await began(tmp_path / "diary")
        gc.collect()
        found = await supervisor.stored.get(ident)
        assert (found.state, found.attempt) == (JobState.RUNNING, 1)
        assert found.started is not None
        assert "running" in found.why
        found.cancel("seen")
        with pytest.raises(JobCancelled):
            await found


async def test_no_job_has_started_before_it_was_created(tmp_path):
    """The one is a date of the store, in milliseconds and by its clock, the other a moment of this loop."""
    clock, diary = ManualClock(time.time() + 60), tmp_path / "diary"
    store = MemoryStore(MemoryData(clock))
    async with Supervisor(store=store, functions=[hold]) as supervisor:
        held = await supervisor.submit(hold, str(diary))
        await began(diary)
        found = await supervisor.stored.get(held.id)
        assert found.created <= found.started
        held.cancel()


async def test_a_job_that_waits_for_a_worker_says_so(place, tmp_path):
    """Of a job that is still in the store while all workers are busy, `why` tells how busy they are."""
    async with place.supervisor(workers=1) as supervisor:
        running = await supervisor.submit(hold, str(tmp_path / "diary"))
        await began(tmp_path / "diary")
        waiting = [await supervisor.submit(double, number) for number in range(3)]
        assert "in the store, for a free worker: default: 1 of 1 worker busy" in waiting[-1].why
        assert waiting[-1].why.endswith("at hand, others may wait in the store")
        assert supervisor.explain().count("others may wait in the store") == 3
        running.cancel("seen")
        assert [await one for one in waiting] == [0, 2, 4]
        with pytest.raises(JobCancelled):
            await running


async def test_what_goes_back_to_its_store_is_not_called_lost(place, tmp_path, caplog):
    """When an application ends its log names a job that is back in the store once, and as that."""
    supervisor = place.supervisor(workers=1, grace=0)
    async with supervisor.lifespan(None):
        held = await supervisor.submit(hold, str(tmp_path / "diary"))
        await began(tmp_path / "diary")
    assert f"(back in the store: {held.id})" in caplog.text
    assert "not done" not in caplog.text


async def test_dead_jobs_are_replayed(place):
    """A failed job is run again on request, as if it were new, and forgotten on request."""
    async with place.supervisor() as supervisor:
        with pytest.raises(KeyError):
            await supervisor.call(fail, "gone")
        (dead,) = [one async for one in supervisor.stored.jobs(state="failed")]
        assert await supervisor.stored.retry(name="fail") == 1
        again = await supervisor.stored.get(dead.id)
        with contextlib.suppress(KeyError):
            await again
        assert await supervisor.stored.purge(dead) == 1
        with pytest.raises(JobNotFound):
            await supervisor.stored.get(dead.id)
        with pytest.raises(ValueError, match="which jobs"):
            await supervisor.stored.cancel()


async def test_a_drain_gives_back_what_did_not_start(place, tmp_path):
    """On leaving, what runs is finished; what has not begun is in the store, nothing charged."""
    async with place.supervisor(workers=1) as supervisor:
        running = await supervisor.submit(hold, str(tmp_path / "diary"))
        await began(tmp_path / "diary")
        queue = supervisor._intake.queues["default"]
        queue._rate = 1e9  # as if jobs were quick: some are leased ahead
        waiting = await supervisor.submit_many(double, range(5))
        while not queue.census.queued:
            await asyncio.sleep(0)
        assert await supervisor.drain(0)
    assert notes(tmp_path / "diary")[-1] == "cancelled"
    for one in (running, waiting[0]):
        with pytest.raises(SupervisorClosed):
            await one
    async with place.supervisor(workers=0) as supervisor:
        records = await supervisor._depot.store.get([running.id, *(one.id for one in waiting)])
        assert [(one.state, one.attempt, one.failures, one.losses) for one in records] == [
            (JobState.QUEUED, 1, 0, 0),
            *[(JobState.QUEUED, 0, 0, 0)] * 5,
        ]
    async with place.supervisor(workers=2) as supervisor:
        again = [await supervisor.stored.get(one.id) for one in waiting]
        assert await asyncio.gather(*again) == [0, 2, 4, 6, 8]
        assert (await supervisor.stored.get(running.id)).attempt == 2
        await supervisor.stored.cancel(running)


async def test_a_drain_ends_the_waits_for_what_stays_in_the_store(place):
    """Whoever awaits a job that nobody here will run, as a handler of a server does, which has to end first,
    hears at the end of the grace that it stays in the store; if another process ends it before, its result.
    """
    async with place.supervisor(workers=0) as supervisor:
        done = await supervisor.submit(double, 21)
        waiting = asyncio.create_task(value_of(done))
        await asyncio.sleep(0)
        draining = asyncio.create_task(supervisor.drain(60))
        async with place.supervisor([double], workers=1):
            assert await waiting == 42
        await draining
    async with place.supervisor(workers=0) as supervisor:
        left = await supervisor.submit(double, 1)
        waiting = asyncio.create_task(value_of(left))
        await asyncio.sleep(0)
        await supervisor.drain(0)
        with pytest.raises(SupervisorClosed, match="kept there"):
            await waiting
        with pytest.raises(SupervisorClosed, match="kept there"):
            await left


async def test_however_many_await_it_all_hear_of_the_drain(place):
    """Each of several who await one job hears that it stays in the store, and a drain that waits for
    them ends as soon as another one has told them.
    """
    async with place.supervisor(workers=0) as supervisor, asyncio.timeout(30):
        left = await supervisor.submit(double, 1)
        waiting = [asyncio.create_task(value_of(left)) for _ in range(4)]
        await asyncio.sleep(0)
        patient = asyncio.create_task(supervisor.drain(60))
        await supervisor.wait_draining()
        await supervisor.drain(0)
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [SupervisorClosed] * 4
        await patient


async def test_a_drain_does_not_mind_what_is_collected_meanwhile(place):
    """Jobs that nobody holds any more may be collected at any moment, also while it looks who is awaited."""
    async with place.supervisor(workers=0) as supervisor:
        supervisor._depot.views.here["collects"] = lambda: gc.collect() and None
        cycle = [await supervisor.submit(double, 1)]
        cycle.append(cycle)
        del cycle
        await supervisor.drain(0)


@pytest.mark.parametrize(
    "function", [hold, thread_hold, cpu_hold], ids=["loop", "thread", "process"]
)
async def test_what_cancels_all_tasks_gives_back_what_ran(place, tmp_path, function):
    """A program that ends by cancelling every task, as `asyncio.run` and some servers do, takes the workers'
    along: their jobs did nothing wrong, and go back to the store.
    """

    async def program():
        async with place.supervisor(functions=[function], workers=1) as supervisor:
            ids.append((await supervisor.submit(function, str(tmp_path / "diary"))).id)
            await asyncio.Event().wait()

    ids: list[str] = []
    before = asyncio.all_tasks()
    running = asyncio.create_task(program())
    await began(tmp_path / "diary")
    for task in asyncio.all_tasks() - before:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with place.supervisor(
        functions=[function], workers=0, threads=0, processes=0
    ) as supervisor:
        (record,) = await supervisor._depot.store.get(ids)
        found = record.state, record.attempt, record.failures, record.losses
        assert found == (JobState.QUEUED, 1, 0, 0)


async def test_a_drain_tells_what_is_back_in_the_store(place, tmp_path):
    """Of what it stopped the report names what another process will run: not what may run only once,
    not what lives in memory.
    """
    diary = str(tmp_path / "diary")
    queues = [Queue("memory", stored=False)]
    async with place.supervisor([hold, at_most_once], queues=queues) as supervisor:
        goes_back = await supervisor.submit(hold, diary)
        only_once = await supervisor.submit(at_most_once, diary)
        in_memory = await supervisor.submit(hold.options(queue="memory"), diary)
        while len(notes(tmp_path / "diary")) < 3:
            await asyncio.sleep(0.001)
        report = await supervisor.drain(0)
    assert set(report.cancelled) == {goes_back.id, only_once.id, in_memory.id}
    assert report.returned == (goes_back.id,)
    assert str(report).endswith(f"0 abandoned (back in the store: {goes_back.id})")
    assert "of them back in the store" in report._repr_html_()


async def test_a_drain_tells_that_a_retry_is_back_in_the_store(place):
    """A job that failed and is to be tried again is neither done nor failed when the drain ends."""

    @job(name="again", retry=Retry(5, on=OwnError, delay=3600, jitter=False))
    async def again() -> None:
        began.set()
        await draining.wait()
        raise OwnError

    began, draining = asyncio.Event(), asyncio.Event()
    async with place.supervisor([again]) as supervisor:
        one = await supervisor.submit(again)
        await began.wait()
        drain = asyncio.create_task(supervisor.drain(grace=5))
        await supervisor.wait_draining()
        draining.set()
        report = await drain
        assert (report.done, report.failed) == ((), ())
        assert report.not_started == report.returned == (one.id,)


async def test_a_normal_exit_finishes_what_runs(place):
    """A job that runs when the block is left normally runs to its end, and its end is written."""
    started = asyncio.Event()

    @job(name="slow")
    async def slow() -> str:
        started.set()
        await asyncio.sleep(0.05)
        return "done"

    async with place.supervisor(functions=[slow]) as supervisor:
        submitted = await supervisor.submit(slow)
        await started.wait()
    assert submitted.result() == "done"
    assert submitted.state is JobState.SUCCEEDED


async def test_a_job_that_awaits_what_is_left_in_the_store_goes_back_at_the_end(place):
    """Nobody here will run the job it awaits, so leaving does not wait for it: both are in the store."""
    waits = asyncio.Event()

    @job(name="waits")
    async def wait_for_later() -> int:
        later = await SUPERVISORS[0].submit(double.options(delay=3_600), 1)
        waits.set()
        return await later

    async with place.supervisor(functions=[double, wait_for_later]) as supervisor:
        SUPERVISORS[:] = [supervisor]
        left = await supervisor.submit(wait_for_later)
        await waits.wait()
    SUPERVISORS.clear()
    assert left.state is JobState.QUEUED
    async with place.supervisor(workers=0) as supervisor:
        states = [(one.name, one.state.value) async for one in supervisor.stored.jobs()]
        assert states == [("double", "scheduled"), ("waits", "queued")]


async def test_closing_between_an_answer_and_what_hears_of_it(place):
    """A call to the store that has just been answered is waited for with a turn of the loop."""
    async with place.supervisor() as supervisor:
        feeder = supervisor._depot.feeder
        while feeder._leasing is not None:
            await asyncio.sleep(0)
        feeder.stop()
        await asyncio.wait([feeder._task])
        feeder._leasing = answered = asyncio.get_running_loop().create_future()
        answered.add_done_callback(feeder._leased)
        answered.set_result([])
        await feeder.close()
        assert feeder._leasing is None


async def test_a_job_that_awaits_a_stored_job(place):
    """A stored job lends its slot while it awaits another one: one worker is enough."""
    async with place.supervisor(workers=1) as supervisor:
        SUPERVISORS[:] = [supervisor]
        try:
            assert await supervisor.call(parent, 4) == 9
        finally:
            SUPERVISORS.clear()


async def test_events_of_a_stored_job(place):
    """Submitted, started, ended, settled: in this order, once, settled only when that is written."""
    recorder = EventRecorder()
    async with place.supervisor(listeners=[recorder]) as supervisor:
        submitted = await supervisor.submit(double, 1)
        assert await submitted == 2
    kinds = [type(event) for event in recorder.all if isinstance(event, events.JobEvent)]
    assert kinds[-2:] == [events.AttemptEnded, events.JobSettled]
    assert sorted(kind.__name__ for kind in kinds) == [
        "AttemptEnded",
        "AttemptStarted",
        "JobSettled",
        "JobSubmitted",
    ]


async def test_pausing_everywhere_and_here(place):
    """A queue paused in the store starts nothing; one that is paused here gives back what it had."""
    async with place.supervisor() as supervisor:
        await supervisor.stored.pause("default")
        waiting = await supervisor.submit(double, 1)
        assert await supervisor.call(thread_double, 1) == 2
        assert waiting.state is JobState.QUEUED
        assert "paused in the store" in waiting.why
        await supervisor.stored.resume("default")
        assert await waiting == 2
        supervisor.pause("default")
        waiting = await supervisor.submit(double, 2)
        assert "paused" in waiting.why
        supervisor.resume("default")
        assert await waiting == 4


async def test_the_next_jobs_are_asked_for_before_those_that_came_are_fed(place, monkeypatch):
    """So the store, if it works in a thread, finds them while these run; the loop lets it, too."""
    asked, told = Feeder.pull, []

    def pull(feeder, coming=NOTHING):
        told.append(sum(coming.values()))
        asked(feeder, coming)

    def feed(queue, leases):
        told.append(f"fed {len(leases)}")
        fed(queue, leases)

    fed = StoredQueue.feed
    monkeypatch.setattr(Feeder, "pull", pull)
    monkeypatch.setattr(StoredQueue, "feed", feed)
    async with place.supervisor(workers=2) as supervisor:
        crew = supervisor._intake.queues["default"].crew
        in_thread = hasattr(supervisor._depot.store, "breathe")
        assert in_thread is (place.kind == "sqlite")
        assert (crew.turn == TURN, crew.breathe is not None) == (in_thread, in_thread)
        jobs = await supervisor.submit_many(double, range(5))
        assert [await one for one in jobs] == [0, 2, 4, 6, 8]
    places = [place for place, what in enumerate(told) if isinstance(what, str)]
    assert places
    assert all(told[place] == f"fed {told[place - 1]}" for place in places)


async def test_those_that_came_are_counted_when_the_next_are_asked_for(place, tmp_path):
    """They take the free workers: others may run what is left, so it is not leased here."""
    diary = tmp_path / "diary"
    async with place.supervisor(workers=2) as supervisor:
        await supervisor.submit_many(hold, [str(diary)] * 4)
        await began(diary, 2)
        held = await supervisor._depot.store.holding()
        await supervisor.drain(0)
    assert len(held) == 2
