"""A Job, as whoever awaits it sees it: its end, any number of times, by anybody."""

import asyncio
import gc
import traceback
import weakref
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asyncworkers import (
    Cancelled,
    Failed,
    Job,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobNotFound,
    JobState,
    JobTimedOut,
    Queue,
    Retry,
    Succeeded,
    Supervisor,
    TimedOut,
    current_job,
    job,
)

pytestmark = pytest.mark.asyncio


async def echo(value: Any) -> Any:
    """Return the value."""
    return value


async def fail(message: str = "no") -> None:
    """Fail."""
    raise ValueError(message)


class Local:
    """A local variable whose life can be watched."""


async def test_awaited_by_many_and_often() -> None:
    """Any number of awaiters get the same value, before the end and after it."""
    gate = asyncio.Event()

    async def waits() -> object:
        await gate.wait()
        return marker

    marker = object()
    async with Supervisor() as supervisor:
        one = await supervisor.submit(waits)

        async def awaits() -> object:
            return await one

        awaiters = [asyncio.create_task(awaits()) for _ in range(100)]
        await asyncio.sleep(0)
        assert not one.done()
        gate.set()
        assert [await awaiter for awaiter in awaiters] == [marker] * 100
        assert await one is marker
        assert await one is marker
        assert one.result() is marker
        assert one.exception() is None
        assert await one.wait() == Succeeded(marker)


async def test_the_very_error_with_its_own_traceback_each_time() -> None:
    """Each await raises the same object with the traceback it had, not one that grows."""
    async with Supervisor() as supervisor:
        one = await supervisor.submit(fail)
        seen: list[tuple[ValueError, list[str]]] = []
        for _ in range(5):
            try:
                await one
            except ValueError as error:
                names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
                seen.append((error, names))
        assert len({id(error) for error, _ in seen}) == 1
        assert len({tuple(names) for _, names in seen}) == 1
        assert seen[0][1][-1] == "fail"  # where it was raised
        assert "work" not in seen[0][1]  # nothing of ours between
        assert isinstance(one.exception(), ValueError)
        with pytest.raises(ValueError, match="no"):
            one.result()
        assert await one.wait() == Failed(seen[0][0])


async def test_error_keeps_no_local_alive() -> None:
    """The local variables of a job that failed die with it, though its error is kept, whatever
    the error is chained to or grouped with.
    """
    alive: list[weakref.ref[Local]] = []

    async def leaves_locals(how: str) -> None:
        local = Local()
        alive.append(weakref.ref(local))
        if how == "chained":
            try:
                raise LookupError(local.__class__.__name__)
            except LookupError as error:
                raise ValueError("no") from error
        if how == "in a group":
            async with asyncio.TaskGroup() as group:
                group.create_task(leaves_locals("plainly"))
        raise ValueError("no")

    async with Supervisor() as supervisor:
        jobs = [
            await supervisor.submit(leaves_locals, how)
            for how in ("plainly", "chained", "in a group")
        ]
        errors = []
        for one in jobs:
            await one.wait()
            errors.append(one.exception())
        await supervisor.call(echo, 1)
        gc.collect()
        assert len(alive) == 4
        assert [ref() for ref in alive] == [None] * 4
        for error in errors:
            assert error is not None
            text = "".join(traceback.format_exception(error))
            assert "leaves_locals" in text  # the lines are kept


async def test_error_of_somebody_who_goes_on() -> None:
    """A coroutine that handed its own error to jobs goes on, although the error's traceback leads
    through it.
    """
    loop = asyncio.get_running_loop()
    answer = loop.create_future()

    async def reader() -> str:
        try:
            raise ConnectionError("broken")
        except ConnectionError as error:
            answer.set_exception(error)
        await resume.wait()
        return "went on"

    def generator() -> Any:
        try:
            raise ConnectionError("broken")
        except ConnectionError as error:
            yield error
        yield "went on"

    async def awaits() -> None:
        await answer

    async def raises(error: Exception) -> None:
        raise error

    resume = asyncio.Event()
    reading = loop.create_task(reader())
    async with Supervisor() as supervisor:
        one = await supervisor.submit(awaits)
        with pytest.raises(ConnectionError, match="broken"):
            await one
        generating = generator()
        other = await supervisor.submit(raises, next(generating))
        with pytest.raises(ConnectionError, match="broken"):
            await other
        assert next(generating) == "went on"
        resume.set()
        assert await reading == "went on"


async def test_note_of_the_last_attempt() -> None:
    """After retries the error says how many there were; once, whoever looks at it."""
    flaky = job(fail, retry=Retry(3, on=ValueError, delay=0))
    async with Supervisor() as supervisor:
        one = await supervisor.submit(flaky)
        for _ in range(2):
            with pytest.raises(ValueError, match="no") as caught:
                await one
            assert caught.value.__notes__ == ["attempt 3 of 3"]
        assert one.attempt == 3
        single = await supervisor.submit(fail)
        with pytest.raises(ValueError, match="no") as caught:
            await single
        assert not hasattr(caught.value, "__notes__")


async def test_cancelled_awaiter_only_detaches() -> None:
    """Cancelling whoever awaits a job leaves the job, and the others who await it, alone."""
    gate = asyncio.Event()

    async def waits() -> str:
        await gate.wait()
        return "done"

    async with Supervisor() as supervisor:
        one = await supervisor.submit(waits)
        awaiters = [asyncio.create_task(_await(one)) for _ in range(3)]
        await asyncio.sleep(0)
        awaiters[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaiters[1]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await one
        assert one.state == "running"
        gate.set()
        assert await awaiters[0] == await awaiters[2] == await one == "done"


async def _await(one: Job[Any]) -> Any:
    return await one


async def test_call_owns_its_job() -> None:
    """Cancelling a `call` cancels its job, unlike cancelling whoever awaits a submitted one."""
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with Supervisor() as supervisor:

        async def waits() -> None:
            started.set_result(current_job().id)
            await asyncio.Event().wait()

        calling = asyncio.create_task(supervisor.call(waits))
        one = supervisor.get(await started)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert await one.wait() == Cancelled("the call that awaited it was cancelled")


async def test_not_done_yet() -> None:
    """Before the end, `result` and `exception` say that there is none."""
    async with Supervisor() as supervisor:
        supervisor.pause("default")
        one = await supervisor.submit(echo, 1)
        for ask in (one.result, one.exception):
            with pytest.raises(asyncio.InvalidStateError, match="queued, not done"):
                ask()
        with pytest.raises(TimeoutError):
            await one.wait(0)
        assert one.state is JobState.QUEUED
        supervisor.resume("default")
        assert await one == 1
        with pytest.raises(ValueError, match="timeout"):
            await one.wait(-1)


async def test_cancelled_while_it_waits() -> None:
    """A waiting job is cancelled at once, without an attempt, and says why; only the first time."""
    async with Supervisor() as supervisor:
        supervisor.pause("default")
        one = await supervisor.submit(echo, 1)
        assert one.cancel("not needed") is True
        assert one.cancel("again") is False
        with pytest.raises(JobCancelled, match="not needed") as caught:
            await one
        assert caught.value.reason == "not needed"
        assert one.attempt == 0
        assert one.started is None
        assert one.why == "cancelled: not needed"
        delayed = await supervisor.submit(job(echo, delay=3_600), 1)
        assert delayed.state == "scheduled"
        assert supervisor.cancel(delayed.id, "by its id")
        assert await delayed.wait() == Cancelled("by its id")
        with pytest.raises(TypeError, match="reason"):
            one.cancel(7)  # type: ignore[arg-type]
        supervisor.resume("default")


@pytest.mark.virtual_time
async def test_times_and_states() -> None:
    """A job tells when it was created, started and finished, and what it is waiting for."""
    loop = asyncio.get_running_loop()
    begun = datetime.fromtimestamp(loop.wall(), UTC)  # type: ignore[attr-defined]

    async def naps() -> str:
        await asyncio.sleep(2)
        raise OSError("once")

    def at(moment: datetime | None) -> float:
        assert moment is not None
        return round((moment - begun).total_seconds(), 6)

    function = job(naps, delay=3, retry=Retry(2, on=OSError, delay=10, jitter=False), tags=("a",))
    async with Supervisor() as supervisor:
        one = await supervisor.submit(function)
        assert (one.state, one.attempt, one.started, one.finished) == ("scheduled", 0, None, None)
        assert one.why == "scheduled: its delay ends in 3 s"
        assert one.tags == ("a",)
        assert one.queue == "default"
        await asyncio.sleep(4)
        assert (one.state, one.attempt) == ("running", 1)
        assert one.why == "running: attempt 1, for 1 s"
        await asyncio.sleep(2)
        assert (one.state, one.attempt) == ("scheduled", 1)
        assert "attempt 2 of 2 starts in 9 s, because the last one raised OSError" in one.why
        assert one.finished is None
        with pytest.raises(OSError, match="once"):
            await one
        assert at(one.created) == 0
        assert at(one.started) == 15
        assert at(one.finished) == 17
        assert one.why == "failed in attempt 2: OSError: once"
        assert one.created.tzinfo is UTC


@pytest.mark.virtual_time
async def test_dates_are_in_the_order_of_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the two clocks behind a date are read a moment apart; a wall clock that is set is followed."""
    loop: Any = asyncio.get_running_loop()
    late = [0.0]
    monkeypatch.setattr(loop, "wall", lambda: 1_800_000_000 + loop.time() + late[0], raising=False)
    async with Supervisor() as supervisor:
        one = await supervisor.submit(echo, 1)
        assert await one == 1
        late[0] = 0.002
        created = one.created
        late[0] = 0.0
        assert one.started is not None
        assert created <= one.started
        late[0] = 3_600
        assert (one.created - created).total_seconds() == pytest.approx(3_600, abs=0.01)


@pytest.mark.virtual_time
async def test_timeout_and_expiry() -> None:
    """A timeout bounds an attempt from its start, `expires` the waiting from its submission."""
    loop = asyncio.get_running_loop()
    async with Supervisor(1) as supervisor:
        slow = job(asyncio.sleep, timeout=5)
        one = await supervisor.submit(slow, 60)
        late = await supervisor.submit(job(echo, expires=3), 1)
        with pytest.raises(JobExpired):
            await late
        assert loop.time() == 3
        assert late.state == "cancelled"
        with pytest.raises(JobTimedOut) as caught:
            await one
        assert loop.time() == 5
        assert isinstance(caught.value, TimeoutError)
        assert await one.wait() == TimedOut(5)
        retry = Retry(9, on=OSError, delay=3, jitter=False)
        retried = job(asyncio.sleep, timeout=5, expires=12, retry=retry)
        again = await supervisor.submit(retried, 60)
        outcome = await again.wait()
        assert outcome == Cancelled("it expired before it could start", expired=True)
        assert again.attempt == 2
        assert loop.time() == 18  # when the attempt ended during which it expired


@pytest.mark.virtual_time
@pytest.mark.parametrize("ending", ["returns", "raises", "swallows"])
async def test_first_reason_is_the_outcome(ending: str) -> None:
    """Whatever a cancelled or timed-out attempt does in the end, the reason given is its end."""

    async def odd() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if ending == "raises":
                raise ValueError("instead") from None
            if ending == "swallows":
                await asyncio.sleep(1)
        return "instead"

    for isolation in ("shared", "task"):
        queue = Queue("default", 1, isolation=isolation)  # type: ignore[arg-type]
        async with Supervisor(queues=[queue]) as supervisor:
            one = await supervisor.submit(job(odd, timeout=5))
            assert await one.wait() == TimedOut(5)
            other = await supervisor.submit(odd)
            await asyncio.sleep(1)
            other.cancel("first")
            other.cancel("second")
            assert await other.wait() == Cancelled("first")
            assert await supervisor.call(echo, 1) == 1


async def test_unread_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A failure that nobody looked at is logged once, with its traceback; a read one never."""

    def said() -> list[str]:  # a collection that takes its time is a stall, and told as one
        lines = [record.getMessage() for record in caplog.records]
        return [line for line in lines if "the event loop" not in line]

    async with Supervisor() as supervisor:
        for read in (True, False):
            one = await supervisor.submit(fail, f"read: {read}")
            await one.wait() if read else None
            identity = one.id
        forgotten = identity
        kept = await supervisor.submit(fail, "kept")
        del one
        await supervisor.call(echo, 1)
        await asyncio.sleep(0)
        gc.collect()
        (line,) = said()
        assert forgotten in line
        assert "read: False" in line
        assert "Traceback" in line
    (_, line) = said()  # that of the job we kept comes when the supervisor closes
    assert kept.id in line
    with pytest.raises(ValueError, match="kept"):
        kept.result()
    del kept
    gc.collect()
    assert len(said()) == 2


async def test_found_while_unfinished() -> None:
    """A job is found by its id until it has ended."""
    gate = asyncio.Event()
    async with Supervisor() as supervisor:

        async def waits() -> None:
            await gate.wait()

        one = await supervisor.submit(job(waits, tags=("x",)))
        other = await supervisor.submit(job(waits, name="named"))
        assert supervisor.get(one.id) is one
        assert supervisor.jobs() == [one, other]
        assert supervisor.jobs(tag="x") == [one]
        assert supervisor.jobs(name="named") == [other]
        gate.set()
        await one
        for unknown in (one.id, "nonsense", "", "-1", one.id + "0" * 30):
            with pytest.raises(JobNotFound):
                supervisor.get(unknown)
        assert not supervisor.cancel(one.id)
        assert "succeeded" in repr(one)
        assert one.id in repr(one)


@pytest.mark.virtual_time
async def test_delay_until_a_date() -> None:
    """A delay may be an aware datetime; one in the past means now."""
    loop = asyncio.get_running_loop()
    now = datetime.fromtimestamp(loop.wall(), UTC)  # type: ignore[attr-defined]
    async with Supervisor() as supervisor:
        tomorrow = job(echo, delay=now + timedelta(days=1))
        assert await supervisor.call(tomorrow, 1) == 1
        assert loop.time() == pytest.approx(86_400)
        assert await supervisor.call(tomorrow, 2) == 2
        assert loop.time() == pytest.approx(86_400)
    with pytest.raises(ValueError, match="aware"):
        job(echo, delay=datetime(2030, 1, 1))  # noqa: DTZ001


async def test_progress() -> None:
    """What a job reports is seen on the job."""
    reported = asyncio.Event()
    seen = asyncio.Event()

    async def reports() -> None:
        current_job().report(3, 10, "third")
        reported.set()
        await seen.wait()
        with pytest.raises(TypeError, match="done"):
            current_job().report("much")  # type: ignore[arg-type]

    async with Supervisor() as supervisor:
        one = await supervisor.submit(reports)
        assert one.progress is None
        await reported.wait()
        progress = one.progress
        assert progress is not None
        assert (progress.done, progress.total, progress.message) == (3, 10, "third")
        seen.set()
        await one
    with pytest.raises(RuntimeError, match="outside a job"):
        current_job()


class Proxy:
    """A proxy of nothing yet: it can tell nobody what it is, as those of web frameworks cannot."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError("bound to nothing")


@pytest.mark.parametrize("where", ["loop", "task", "threads"])
async def test_value_that_hides_what_it_is(where: str) -> None:
    """A value is handed on untouched: that its `__class__` raises is nobody's concern."""
    value = Proxy()

    async def makes() -> object:
        return value

    async with Supervisor(queues=[Queue("task", 1, isolation="task")]) as supervisor:
        if where == "threads":
            assert await supervisor.call(lambda: value) is value
        else:
            made = job(makes, queue="default" if where == "loop" else where)
            assert await supervisor.call(made) is value


async def test_value_that_is_a_coroutine_under_way(caplog: pytest.LogCaptureFixture) -> None:
    """A coroutine that has begun is somebody else's: it is not closed, and crashes no worker."""

    async def returns_its_workers() -> object:
        task = asyncio.current_task()
        assert task is not None
        return task.get_coro()

    async def returns_anothers() -> object:
        return other.get_coro()

    gate = asyncio.Event()
    other = asyncio.create_task(gate.wait())
    await asyncio.sleep(0)
    async with Supervisor(1) as supervisor:
        for function in (returns_its_workers, returns_anothers):
            with pytest.raises(TypeError, match="returned a coroutine, not a value"):
                await supervisor.call(function)
    gate.set()
    assert await other
    assert not caplog.records


async def test_cancels_itself_and_returns(caplog: pytest.LogCaptureFixture) -> None:
    """A job that cancels itself, and never awaits again, leaves nobody the impression of a crash."""
    async with Supervisor(1) as supervisor:

        async def cancels() -> None:
            cancelled[0].cancel("by itself")

        cancelled = [await supervisor.submit(cancels)]
        assert await cancelled[0].wait() == Cancelled("by itself")
        assert await supervisor.call(echo, 1) == 1
    assert not caplog.records


async def test_outcome_of_a_job_that_another_let_fail() -> None:
    """A job that failed because another one timed out, or was cancelled, has failed."""

    @job(timeout=0.001)
    async def late() -> None:
        await asyncio.sleep(3600)

    async def awaits_late() -> None:
        await supervisor.call(late)

    async def awaits_cancelled() -> None:
        one = await supervisor.submit(asyncio.sleep, 3600)
        one.cancel()
        await one

    async with Supervisor(1) as supervisor:
        for function, kind in ((awaits_late, JobTimedOut), (awaits_cancelled, JobCancelled)):
            parent = await supervisor.submit(function)
            outcome = await parent.wait()
            assert isinstance(outcome, Failed)
            assert outcome.error is parent.exception()
            assert (type(outcome.error), parent.state) == (kind, JobState.FAILED)


class Unwilling(Exception):
    """An error that cannot be asked what it is."""

    def __getattribute__(self, _: str) -> Any:
        raise RuntimeError("ask somebody else")


class Untraced(Exception):
    """An error whose class has made properties of what every error has, and they raise."""

    __cause__ = __context__ = property(lambda _: 1 / 0)  # type: ignore[assignment]


@pytest.mark.parametrize("how", ["alone", "with retries", "in a thread", "in a map"])
@pytest.mark.parametrize("kind", [Unwilling, Untraced])
async def test_error_that_raises_when_looked_at(
    kind: type[Exception], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It fails its job, one way or another, and crashes no worker."""

    async def raises(_: int) -> None:
        raise kind

    def raises_in_thread(_: int) -> None:
        raise kind

    async with Supervisor(1) as supervisor:
        with pytest.raises((JobFailed, kind)):
            if how == "alone":
                await supervisor.call(raises, 1)
            elif how == "with retries":
                await supervisor.call(job(raises, retry=Retry(2, on=kind, delay=0)), 1)
            elif how == "in a thread":
                await supervisor.call(raises_in_thread, 1)
            else:
                await supervisor.map(raises, [1])
        assert supervisor.stats().failed == 1
    assert not [record for record in caplog.records if "crashed" in record.getMessage()]


async def test_submitted_while_a_worker_is_hired() -> None:
    """A task factory that submits the first job of a higher priority makes another line: what is being
    submitted meanwhile comes to stand in that one, and is run.
    """
    loop = asyncio.get_running_loop()
    usual = loop.get_task_factory()
    ordinary, first = job(echo), job(echo, priority=1)
    urgent: list[Job[Any]] = []
    async with Supervisor(workers=3) as supervisor:
        before = [supervisor.submit_nowait(ordinary, number) for number in range(2)]

        def factory(
            loop: asyncio.AbstractEventLoop, coroutine: Any, **given: Any
        ) -> asyncio.Task[Any]:
            loop.set_task_factory(usual)
            urgent.append(supervisor.submit_nowait(first, "urgent"))
            return asyncio.Task(coroutine, loop=loop, **given)

        loop.set_task_factory(factory)
        last = supervisor.submit_nowait(ordinary, "last")
        assert urgent
        assert await asyncio.gather(*before, *urgent, last) == [0, 1, "urgent", "last"]
