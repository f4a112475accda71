"""Faults around workers, supervisor, listeners, log and timers (group W)."""

import asyncio
import contextlib
import gc
import logging
import os
import threading
import tracemalloc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from invariants import CANARY, PLACES, echo, trial, turns, until

from asyncworkers import (
    Cancelled,
    Failed,
    Job,
    JobFailed,
    Queue,
    Retry,
    Succeeded,
    Supervisor,
    SupervisorClosed,
    SupervisorFailed,
    job,
)
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.teller import Teller
from asyncworkers.events import (
    Event,
    JobSettled,
    ListenerDropped,
    QueueResized,
    WorkerReplaced,
)
from asyncworkers.testing import (
    FaultInjector,
)

pytestmark = pytest.mark.asyncio

Log = pytest.LogCaptureFixture


async def fail() -> None:
    """Fail."""
    raise ValueError("no")


@pytest.mark.parametrize(
    ("part", "point", "when"),
    [
        (Teller, "started", "after"),
        (MemoryQueue, "tell_completed", "after"),
        (MemoryQueue, "conclude", "before"),
        (MemoryQueue, "settle", "before"),
        (MemoryQueue, "failure_of", "before"),
        (MemoryQueue, "_end", "after"),
    ],
)
async def test_fault_W01_worker_crashes(caplog: Log, part: type, point: str, when: Any) -> None:
    """A worker that crashes by a fault of ours is replaced, and its job ends as failed with the
    crash as the cause; the other workers' jobs are unharmed.
    """
    gate = asyncio.Event()

    async def sibling() -> str:
        await gate.wait()
        return "alive"

    async with trial(caplog) as t:
        beside = await t.supervisor.submit(sibling)
        await turns()
        succeeds = point in ("started", "tell_completed")
        function = echo if succeeds else job(fail, name="fail")
        arguments = (CANARY,) if succeeds else ()
        faults = FaultInjector(1, when=when, error=ZeroDivisionError("ours"))
        with faults.planted(part, point):
            unlucky = await t.supervisor.submit(function, *arguments)
            outcome = await unlucky.wait()
            await turns()
        assert faults.failed
        if point == "tell_completed":
            assert outcome == Succeeded(CANARY)  # it had succeeded before the fault
        elif point == "_end":
            assert repr(outcome) == "Failed(error=ValueError('no'))"  # likewise
        else:
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, JobFailed)
            assert isinstance(outcome.error.__cause__, ZeroDivisionError)
        (event,) = t.recorder.of(WorkerReplaced)
        assert event.cause == "crashed: ZeroDivisionError"
        assert event.job_id == unlucky.id
        gate.set()
        assert await beside == "alive"
    crashes = [r for r in caplog.records if "crashed: ZeroDivisionError" in r.getMessage()]
    assert len(crashes) == 1


async def test_fault_W01_crashes_too_often(caplog: Log) -> None:
    """More crashes than `restarts` within `period` end the supervisor with the cause; the body is
    cancelled, and every job has an end.
    """
    jobs: list[Job[Any]] = []
    body_was_cancelled = False

    def crash(*_: object) -> None:
        raise ZeroDivisionError("ours")

    async def body() -> None:
        nonlocal body_was_cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            body_was_cancelled = True
            raise

    failing = job(fail, retry=Retry(5, on=ValueError, delay=0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryQueue, "_retry", crash)
        with pytest.raises(SupervisorFailed, match="more than 2 times") as caught:
            async with Supervisor(1, restarts=2) as supervisor:
                jobs.extend([await supervisor.submit(failing) for _ in range(10)])
                await body()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert body_was_cancelled
        assert supervisor.state == "failed"
        assert all(one.done() for one in jobs)
        with pytest.raises(SupervisorFailed):
            await supervisor.submit(echo, 1)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
    assert sum(r.levelno == logging.CRITICAL for r in caplog.records) == 1
    async with supervisor:  # the fault is mended: it can be entered again
        assert await supervisor.call(echo, 1) == 1


async def test_fault_W02_supervisor_cancelled_from_outside(caplog: Log) -> None:
    """Cancelling the task that holds the supervisor ends every job and every worker with it."""
    started: asyncio.Future[list[Job[Any]]] = asyncio.get_running_loop().create_future()
    ends: list[str] = []

    async def waits(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ends.append(name)

    async def host() -> None:
        async with trial(caplog, expect=asyncio.CancelledError) as t:
            jobs = [await t.supervisor.submit(waits, str(number)) for number in range(4)]
            await until(lambda: t.supervisor.stats().running == 2)
            started.set_result(jobs)
            await asyncio.Event().wait()

    hosting = asyncio.create_task(host())
    jobs = await started
    hosting.cancel()
    await hosting  # `trial` has looked at everything when the supervisor had ended
    assert sorted(ends) == ["0", "1"]
    for one in jobs:
        assert await one.wait() == Cancelled("the supervisor was left with an exception")


class Hostile:
    """A listener that fails in its own way."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls = 0

    def __call__(self, _event: Event) -> None:
        self.calls += 1
        raise self.error


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()]
)
async def test_fault_W05_listener_raises(caplog: Log, error: BaseException) -> None:
    """A listener that raises anything is dropped once, loudly; jobs and other listeners are
    unharmed, and hear of it.
    """
    async with trial(caplog) as t:
        hostile = Hostile(error)
        t.supervisor.listen(hostile)
        assert await t.supervisor.call(echo, CANARY) == CANARY
        assert await t.supervisor.call(echo, CANARY) == CANARY
        assert hostile.calls == 1
        (event,) = t.recorder.of(ListenerDropped)
        assert "Hostile" in event.listener
        assert type(error).__name__ in event.error
    dropped = [r.getMessage() for r in caplog.records if "dropped listener" in r.getMessage()]
    assert len(dropped) == 1


async def test_fault_W05_listener_meddles(caplog: Log) -> None:
    """A listener that submits, cancels or listens, and so causes events of its own, confuses
    neither the order of events nor the jobs.
    """
    async with trial(caplog) as t:
        more: list[Job[Any]] = []
        seen: list[Event] = []

        def meddles(event: Event) -> None:
            seen.append(event)
            t.supervisor.stats()
            t.supervisor.explain()
            t.supervisor.jobs()
            if isinstance(event, JobSettled) and event.job_name == "echo" and len(more) < 3:
                more.append(t.supervisor.submit_nowait(echo, len(more)))
                more.append(t.supervisor.submit_nowait(echo, len(more)))
                more[-1].cancel("by a listener")

        stop_listening = t.supervisor.listen(meddles)
        assert await t.supervisor.call(echo, CANARY) == CANARY
        await until(lambda: len(more) == 4 and all(one.done() for one in more))
        assert [one.state for one in more] == ["succeeded", "cancelled"] * 2
        assert seen == list(t.recorder.all[-len(seen) :])  # everybody heard the same, in order
        stop_listening()
        stop_listening()
        heard = len(seen)
        assert await t.supervisor.call(echo, 1) == 1
        assert len(seen) == heard


class BrokenHandler(logging.Handler):
    """A log handler that raises instead of logging."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the disk is full")


@pytest.fixture
def broken_log() -> Iterator[None]:
    """Every log line raises."""
    handler = BrokenHandler()
    logging.getLogger("asyncworkers").addHandler(handler)
    yield
    logging.getLogger("asyncworkers").removeHandler(handler)


@pytest.mark.usefixtures("broken_log")
async def test_fault_W06_log_handler_raises(caplog: Log, capfd: pytest.CaptureFixture[str]) -> None:
    """Where the log raises, whatever had something to say goes on, and stderr tells of it."""
    async with trial(caplog, unwind=0.01) as t:
        gate = asyncio.Event()
        entered = asyncio.Event()

        async def stubborn() -> None:
            entered.set()
            while not gate.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await gate.wait()

        t.supervisor.listen(Hostile(ValueError("no")))
        refusing = await t.supervisor.submit(stubborn)
        await entered.wait()
        refusing.cancel("enough")
        assert await refusing.wait() == Cancelled("enough")
        unread = await t.supervisor.submit(fail)
        await until(unread.done)
        del unread
        await turns()
        gc.collect()
        gate.set()
        assert t.recorder.of(WorkerReplaced) == []
        await until(lambda: t.supervisor.stats().queues["default"].zombies == 0)
    said = capfd.readouterr().err
    for text in ("dropped listener", "abandoned attempt", "nobody awaited it"):
        assert said.count(text) == 1


async def test_fault_W06_log_blocks_on_a_full_pipe(caplog: Log) -> None:
    """A log that blocks, because nobody reads the pipe, holds the loop up but loses nothing; the
    watchdog, which logs too, does not lock up with it.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    handler = logging.StreamHandler(os.fdopen(writing, "w"))
    logged = threading.Event()

    def read() -> None:
        logged.wait()
        while os.read(reading, 65536):
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        async with trial(caplog) as t:
            logging.getLogger("asyncworkers").addHandler(handler)
            timer = threading.Timer(0.3, logged.set)  # long enough for the watchdog to notice
            timer.start()
            t.supervisor.listen(Hostile(ValueError("no")))
            assert await t.supervisor.call(echo, CANARY) == CANARY
            assert logged.is_set(), "nothing blocked"
            timer.join()
    finally:
        logging.getLogger("asyncworkers").removeHandler(handler)
        handler.stream.close()
        logged.set()
        reader.join()
        os.close(reading)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "answer",
    [
        float("nan"),
        -1,
        float("inf"),
        "soon",
        True,
        1e300,
        ValueError("broken"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
    ],
    ids=repr,
)
async def test_fault_W07_retry_policy_answers_nonsense(
    caplog: Log, answer: object, place: str
) -> None:
    """A backoff that raises or answers nonsense: the job fails once, with its own error and a
    note about the policy.
    """

    def backoff(_attempt: int, _error: Exception) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def fails() -> None:
        raise LookupError("mine")

    async def fails_on_the_loop() -> None:
        fails()

    async with trial(caplog, place=place, workers=1) as t:
        function = fails if place == "in a thread" else fails_on_the_loop
        retry = Retry(5, on=LookupError, backoff=backoff)
        failing = await t.submit(place, job(function, retry=retry))
        with pytest.raises(LookupError, match="mine") as caught:
            await failing
        (note,) = caught.value.__notes__
        assert note.startswith("not retried, because the retry policy failed")
        t.told_once(failing, "Failed", "LookupError")
        assert t.recorder.of(WorkerReplaced) == []


async def test_fault_W07_retry_policy_answers_none(caplog: Log) -> None:
    """None from a backoff means the formula."""
    asked: list[int] = []

    def backoff(attempt: int, _error: Exception) -> None:
        asked.append(attempt)

    async with trial(caplog) as t:
        retry = Retry(3, on=ValueError, backoff=backoff, delay=0)
        failing = await t.supervisor.submit(job(fail, retry=retry))
        with pytest.raises(ValueError, match="no"):
            await failing
        assert asked == [1, 2]
        t.told_once(failing, "Failed", "ValueError", attempts=3)


async def test_fault_W08_clumsy_hands(caplog: Log) -> None:
    """Entered twice, left twice, used before or after, drained from inside a job, entered again:
    each has a defined answer.
    """
    supervisor = Supervisor(name="clumsy")
    for use in (
        lambda: supervisor.submit_nowait(echo, 1),
        lambda: supervisor.submit_threadsafe(echo, 1),
        lambda: supervisor.get("x-1"),
        lambda: supervisor.jobs(),
        lambda: supervisor.pause("default"),
        lambda: supervisor.cancel_all(),
    ):
        with pytest.raises(SupervisorClosed, match="was not entered"):
            use()
    with pytest.raises(SupervisorClosed, match="was not entered"):
        await supervisor.drain()
    for _ in range(2):
        async with supervisor:
            with pytest.raises(RuntimeError, match="entered already"):
                async with supervisor:
                    raise AssertionError("it was entered twice")
            assert supervisor.state == "open"
            assert await supervisor.call(echo, 1) == 1
        assert supervisor.state == "closed"
        await supervisor.__aexit__(None, None, None)
        report = await supervisor.drain()
        assert report.done == report.cancelled == report.not_started == report.abandoned == ()
        with pytest.raises(SupervisorClosed, match="is closed"):
            await supervisor.submit(echo, 1)

    async def drains() -> str:
        report = await supervisor.drain(grace=0)
        return f"not reached: {report}"

    async def reenters() -> None:
        async with supervisor:
            raise AssertionError("it was entered twice")

    async with supervisor:
        inner = await supervisor.submit(reenters)
        with pytest.raises(RuntimeError, match="entered already"):
            await inner
        draining = await supervisor.submit(drains)
        assert await draining.wait() == Cancelled("the grace of the drain was over")
        assert supervisor.state == "draining"
        with pytest.raises(SupervisorClosed):
            await supervisor.submit(echo, 1)
    async with trial(caplog) as t:
        await t.supervisor.drain()
        await t.supervisor.drain()
        with pytest.raises(SupervisorClosed):
            await t.works()
        t.works = _nothing  # type: ignore[method-assign]  # it accepts nothing, as it should


async def _nothing() -> None: ...


@pytest.mark.filterwarnings("always::ResourceWarning")
async def test_fault_W09_supervisor_is_lost(caplog: Log) -> None:
    """A supervisor nobody holds any more warns, and ends its jobs, workers and threads as one
    that is left does.
    """
    entered = asyncio.Event()
    cleaned = asyncio.Event()

    async def waits() -> None:
        try:
            entered.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    threads = set(threading.enumerate())
    supervisor = Supervisor(1)
    await supervisor.__aenter__()
    assert await supervisor.call(threading.get_ident)
    jobs = [await supervisor.submit(waits) for _ in range(3)]
    await entered.wait()
    lost = weakref.ref(supervisor)
    with pytest.warns(ResourceWarning, match="was never left"):  # noqa: PT031
        del supervisor
        gc.collect()
    assert lost() is None
    for one in jobs:
        assert await one.wait() == Cancelled("its supervisor was never left, and is gone")
    assert cleaned.is_set()
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    await until(lambda: set(threading.enumerate()) == threads)
    assert loop.get_exception_handler() is handler


@pytest.mark.parametrize("kind", ["default", "threads"])
async def test_fault_W10_resized_below_what_runs(caplog: Log, kind: str) -> None:
    """Fewer workers than there are jobs running: those run to their end, and then no more than
    allowed; back up again, as many run.
    """
    gate = threading.Event()
    running: set[str] = set()
    together: list[set[str]] = []  # those that ran at once, noted at each start

    def begin(name: str) -> None:
        running.add(name)
        together.append(set(running))

    def blocks(name: str) -> None:
        begin(name)
        gate.wait()
        running.discard(name)

    async def waits(name: str) -> None:
        begin(name)
        while not gate.is_set():
            await asyncio.sleep(0)
        running.discard(name)

    async with trial(caplog, workers=10) as t:
        function = blocks if kind == "threads" else waits
        first = [await t.supervisor.submit(function, f"first {n}") for n in range(10)]
        await until(lambda: len(running) == 10)
        t.supervisor.resize(kind, 1)
        assert [e.workers for e in t.recorder.of(QueueResized)] == [1]
        behind = [await t.supervisor.submit(function, f"behind {n}") for n in range(5)]
        await turns()
        assert t.supervisor.stats().running == 10
        together.clear()
        gate.set()
        for one in (*first, *behind):
            await one
        assert [names for names in together if any("first" in name for name in names)] == []
        assert [len(names) for names in together] == [1] * 5
        gate.clear()
        t.supervisor.resize(kind, 3)
        again = [await t.supervisor.submit(function, f"again {n}") for n in range(5)]
        await until(lambda: len(running) == 3)
        await turns()
        assert len(running) == 3
        gate.set()
        for one in again:
            await one


async def test_fault_W11_thundering_wake(caplog: Log) -> None:
    """One job wakes one of 10,000 idle workers, not all of them."""
    gate = asyncio.Event()
    async with Supervisor(10_000, maxsize=None) as supervisor:
        jobs = await supervisor.submit_many(_wait_for, [gate] * 10_000)
        await until(lambda: jobs[-1].state == "running")
        assert supervisor.stats().running == 10_000
        gate.set()
        for one in jobs:
            await one
        crew = supervisor._intake.queues["default"].crew  # type: ignore[union-attr]
        await until(lambda: len(crew.idle) == 10_000)
        gate.clear()
        for number in range(1, 4):
            one = await supervisor.submit(_wait_for, gate)
            assert len(crew.idle) == 10_000 - number
            await turns()
            assert (one.state, len(crew.idle)) == ("running", 10_000 - number)
        gate.set()


async def _wait_for(gate: asyncio.Event) -> None:
    await gate.wait()


@pytest.mark.parametrize("ageing", [None, 5.0])
@pytest.mark.virtual_time
async def test_fault_W12_starvation(caplog: Log, ageing: float | None) -> None:
    """Under endless urgent jobs an ordinary one waits as long as they last, as documented; with
    `ageing` it runs once it has waited so long.
    """
    loop = asyncio.get_running_loop()
    async with Supervisor(queues=[Queue("default", 1, ageing=ageing)]) as supervisor:
        urgent = job(asyncio.sleep, priority=5)
        queued = [await supervisor.submit(urgent, 1.0) for _ in range(2)]
        began = loop.time()
        ordinary = await supervisor.submit(echo, "at last")
        for _ in range(20):
            queued.append(await supervisor.submit(urgent, 1.0))
            await queued.pop(0)
            if ordinary.done():
                break
        waited = loop.time() - began
        if ageing is None:
            assert not ordinary.done()
            assert waited == pytest.approx(20.0)
        else:
            assert ordinary.done()
            assert ageing <= waited <= ageing + 2
        for one in queued:
            await one
        assert await ordinary == "at last"


@pytest.mark.virtual_time
async def test_fault_W13_many_delayed_jobs(caplog: Log) -> None:
    """20,000 jobs with delays stand under one timer of the loop, start in the order in which they
    are due, and those that are cancelled do not pile up.
    """
    loop = asyncio.get_running_loop()
    started: list[int] = []

    async def note(number: int) -> None:
        started.append(number)

    async with Supervisor(1, maxsize=None) as supervisor:
        loop.call_later(10, lambda: None)
        timers = len(loop._scheduled)  # type: ignore[attr-defined]
        numbers = [(number * 7_919) % 20_000 for number in range(20_000)]
        by_delay = {number: job(note, delay=1.0 + number / 1000) for number in set(numbers)}
        jobs = [await supervisor.submit(by_delay[number], number) for number in numbers]
        assert supervisor.stats().scheduled == 20_000
        alive = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        assert len(alive) <= timers + 2
        for one in jobs[::2]:
            one.cancel()
        agenda = supervisor._intake.queues["default"].timetable._due  # type: ignore[union-attr]
        for _ in range(3):
            jobs += [await supervisor.submit(by_delay[19_999], 19_999) for _ in range(10_000)]
            for one in jobs[-10_000:]:
                one.cancel()
        assert len(agenda) < 40_000
    assert started == sorted(numbers[1::2])
    assert sum(one.state == "succeeded" for one in jobs) == 10_000


@pytest.mark.slow
async def test_fault_W13_delayed_jobs_are_small() -> None:
    """Hundreds of thousands of delayed jobs can wait, and take less than 600 bytes each."""
    async with Supervisor(1, maxsize=None) as supervisor:
        later = job(echo, delay=3_600)
        await supervisor.submit_many(later, range(200_000))
        tracemalloc.start()
        await supervisor.submit_many(later, range(100_000))
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert supervisor.stats().scheduled == 300_000
        assert size / 100_000 < 600
        supervisor.cancel_all()
    assert supervisor.stats().cancelled == 300_000
