"""Faults of the code of jobs (group J): whatever a job does, only that job ends by it."""

import asyncio
import contextlib
import decimal
import gc
import inspect
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

import pytest
from invariants import CANARY, PLACES, echo, trial, turns, until

from asyncworkers import (
    Cancelled,
    Failed,
    Job,
    JobCancelled,
    JobFailed,
    Retry,
    Succeeded,
    Supervisor,
    TimedOut,
    WouldDeadlock,
    current_job,
    job,
)
from asyncworkers._engine import watchdog as watchdog_module
from asyncworkers.events import (
    AttemptAbandoned,
    LoopStalled,
    TasksLeaked,
    WorkerReplaced,
)
from asyncworkers.testing import simulate

pytestmark = pytest.mark.asyncio

ON_THE_LOOP = PLACES[:3]

Log = pytest.LogCaptureFixture


def raising(error: BaseException, place: str) -> Callable[..., Any]:
    """A job function for the place that raises this error."""

    async def raises(_payload: object) -> None:
        raise error

    def raises_in_thread(_payload: object) -> None:
        raise error

    return raises_in_thread if place == "in a thread" else raises


class Custom(BaseException):
    """A BaseException of nobody's."""


@pytest.mark.parametrize("place", PLACES)
async def test_fault_J01_raises_an_exception(caplog: Log, place: str) -> None:
    """An exception fails the attempt, the policy retries it, and the worker goes on unharmed."""
    async with trial(caplog, place=place, workers=1) as t:
        error = ValueError("no")
        function = job(raising(error, place), retry=Retry(3, on=ValueError, delay=0))
        failing = await t.submit(place, function, CANARY)
        with pytest.raises(ValueError) as caught:
            await failing
        assert caught.value is error
        assert error.__notes__ == ["attempt 3 of 3"]
        t.told_once(failing, "Failed", "ValueError", attempts=3)
        assert t.recorder.of(WorkerReplaced) == []
        assert {e.worker for e in t.recorder.all if hasattr(e, "worker")} == {1}


@pytest.mark.parametrize("place", PLACES)
async def test_fault_J02_raises_system_exit(caplog: Log, place: str) -> None:
    """SystemExit ends the job that raises it, not the process, the loop or the job beside it."""
    async with trial(caplog, place=place) as t:
        gate = asyncio.Event()

        async def sibling() -> str:
            await gate.wait()
            return "alive"

        beside = await t.supervisor.submit(sibling)
        leaving = await t.submit(place, raising(SystemExit(3), place), CANARY)
        with pytest.raises(JobFailed) as caught:
            await leaving
        assert isinstance(caught.value.__cause__, SystemExit)
        assert caught.value.__cause__.code == 3
        gate.set()
        assert await beside == "alive"
        t.told_once(leaving, "Failed", "JobFailed")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        Custom("of my own"),
        GeneratorExit(),
        BaseExceptionGroup("several", [SystemExit(1), ValueError()]),
        BaseExceptionGroup("one", [KeyboardInterrupt()]),
        StopIteration(1),
        StopAsyncIteration(1),
        asyncio.CancelledError("mine"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_fault_J03_raises_what_is_no_exception(
    caplog: Log, place: str, error: BaseException
) -> None:
    """Whatever a job raises becomes a failure of that job, as an ordinary exception."""
    async with trial(caplog, place=place) as t:
        leaving = await t.submit(place, raising(error, place), CANARY)
        outcome = await leaving.wait()
        assert isinstance(outcome, Failed)
        if isinstance(error, StopIteration) and place != "in a thread":
            assert isinstance(outcome.error, RuntimeError)  # Python makes that of a coroutine's
        else:
            assert isinstance(outcome.error, JobFailed)
            assert outcome.error.__cause__ is error
        t.told_once(leaving, "Failed", type(outcome.error).__name__)


@pytest.mark.parametrize("how", ["raises it", "awaits a cancelled future"])
@pytest.mark.parametrize("place", ON_THE_LOOP)
async def test_fault_J04_cancelled_error_out_of_nowhere(caplog: Log, place: str, how: str) -> None:
    """A CancelledError nobody asked for is a failure of the job, told apart from a cancellation."""
    async with trial(caplog, place=place, workers=1) as t:

        async def odd(_payload: str) -> None:
            if how == "raises it":
                raise asyncio.CancelledError
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            await cancelled

        failing = await t.submit(place, odd, CANARY)
        with pytest.raises(JobFailed, match="by its own code"):
            await failing
        t.told_once(failing, "Failed", "JobFailed")
        assert t.supervisor.stats().cancelled == 0
        assert t.recorder.of(WorkerReplaced) == []


@pytest.mark.parametrize("then", ["awaits", "returns"])
@pytest.mark.parametrize("place", ON_THE_LOOP)
async def test_fault_J05_cancels_its_own_task(caplog: Log, place: str, then: str) -> None:
    """`current_task().cancel()` ends that job alone; the jobs before and behind it are unharmed: none
    meets a cancellation that was not its own, neither thrown nor counted.
    """

    async def looks_around(number: int) -> tuple[int, int]:
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(0)  # where a cancellation that is pending would be thrown
        return number, task.cancelling()

    async with trial(caplog, place=place) as t:
        gate = asyncio.Event()

        async def sibling() -> str:
            await gate.wait()
            return "alive"

        async def cancels_itself(_payload: str) -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            if then == "awaits":
                await asyncio.sleep(0)
            return "went on"

        beside = await t.supervisor.submit(sibling)
        odd = await t.submit(place, cancels_itself, CANARY)
        behind = [await t.submit(place, looks_around, number) for number in range(3)]
        if (
            then == "awaits" or place == "in its own task"
        ):  # asyncio ends its task as cancelled, then
            with pytest.raises(JobFailed, match="by its own code"):
                await odd
            t.told_once(odd, "Failed", "JobFailed")
        else:
            assert await odd == "went on"
            t.told_once(odd, "Succeeded", state="succeeded")
        assert [await one for one in behind] == [(number, 0) for number in range(3)]
        gate.set()
        assert await beside == "alive"


@pytest.mark.parametrize("spares", ["the host", "nobody"])
@pytest.mark.parametrize("place", ON_THE_LOOP)
async def test_fault_J06_cancels_all_tasks(caplog: Log, place: str, spares: str) -> None:
    """A job that cancels every task takes running attempts along, but every worker is replaced;
    if it cancels the host as well, the supervisor ends cleanly.
    """
    gate = asyncio.Event()
    ready = asyncio.Event()
    struck: list[Job[Any]] = []

    async def victim(_payload: str) -> None:
        ready.set()
        await gate.wait()

    async def cancels_all(sparing: set[asyncio.Task[Any]]) -> None:
        for task in asyncio.all_tasks() - sparing:
            task.cancel("by a job")
        await asyncio.sleep(0)

    async def host() -> None:
        me = asyncio.current_task()
        assert me is not None
        async with trial(caplog, place=place, workers=5) as t:
            for _ in range(3):  # so that there are workers with nothing to do
                await t.supervisor.submit(echo, 1)
            beside = await t.submit(place, victim, CANARY)
            await ready.wait()
            sparing = {me, test} if spares == "the host" else {test}
            culprit = await t.submit(place, cancels_all, sparing)
            struck.extend((culprit, beside))
            for one in struck:
                with pytest.raises(JobFailed, match="by its own code"):
                    await one
                t.told_once(one, "Failed", "JobFailed")
            await until(lambda: t.supervisor.stats().running == 0)
            jobs = [await t.submit(place, echo, number) for number in range(20)]
            assert [await one for one in jobs] == list(range(20))
            held = asyncio.Event()  # five at once again: no slot was lost
            together = [await t.submit(place, asyncio.Event.wait, held) for _ in range(5)]
            await until(lambda: t.supervisor.stats().running == 5)
            held.set()
            for one in together:
                assert await one

    test = asyncio.current_task()
    assert test is not None
    hosted = asyncio.create_task(host())
    if spares == "the host":
        await hosted
    else:
        with pytest.raises(asyncio.CancelledError):
            await hosted
        for one in struck:  # so ends a program: whose doing it is cannot be told
            assert isinstance(await one.wait(), Cancelled)


@pytest.mark.virtual_time
async def test_fault_J06_a_timeout_of_its_own_is_no_end_of_all() -> None:
    """Where the host was cancelled once, and went on, a job whose own timeout ends it has failed, and is
    tried again.
    """
    attempts = 0

    async def impatient() -> str:
        nonlocal attempts
        attempts += 1
        async with asyncio.timeout(5 if attempts == 1 else None):
            await asyncio.sleep(10)
        return "made it"

    async def host() -> None:
        async with Supervisor() as supervisor:
            hosted.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            assert (
                await supervisor.call(job(impatient, retry=Retry(2, on=TimeoutError))) == "made it"
            )

    hosted = asyncio.create_task(host())
    await hosted
    assert attempts == 2


@pytest.mark.parametrize("ending", ["returns", "raises"])
@pytest.mark.parametrize("place", ON_THE_LOOP)
async def test_fault_J07_swallows_cancellation(caplog: Log, place: str, ending: str) -> None:
    """A job that refuses to end is abandoned: settled, counted and named, its slot free again;
    and what it does when it ends after all changes nothing.
    """
    release = asyncio.Event()
    stubborn_has_ended = asyncio.Event()

    entered = asyncio.Event()

    async def stubborn(_payload: str) -> str:
        entered.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        stubborn_has_ended.set()
        if ending == "raises":
            raise ValueError("too late")
        return "too late"

    async with trial(caplog, place=place, workers=1, unwind=0.01) as t:
        refusing = await t.submit(place, stubborn, CANARY)
        await entered.wait()
        refusing.cancel("enough")
        with pytest.raises(JobCancelled, match="enough"):
            await refusing
        assert [e.job_id for e in t.recorder.of(AttemptAbandoned)] == [refusing.id]
        stats = t.supervisor.stats().queues["default"]
        assert (stats.abandoned, stats.zombies, stats.running) == (1, 1, 0)
        await t.works()  # by another worker, for there is but one slot
        release.set()
        await stubborn_has_ended.wait()
        await until(lambda: t.supervisor.stats().queues["default"].zombies == 0)
        await t.works()
        t.told_once(refusing, "Cancelled", state="cancelled", logged=1)


@pytest.mark.parametrize("place", ON_THE_LOOP)
async def test_fault_J08_slow_finally(caplog: Log, place: str) -> None:
    """A cancelled job may clean up as long as `unwind` allows; after that it is abandoned."""
    entered, cleaned = asyncio.Event(), asyncio.Event()

    async def cleans_up(_payload: str, done: asyncio.Event) -> None:
        try:
            entered.set()
            await asyncio.Event().wait()
        finally:
            await done.wait()
            cleaned.set()

    in_time, too_late = asyncio.Event(), asyncio.Event()
    async with trial(caplog, place=place, workers=1, unwind=30) as t:
        quick = await t.submit(place, cleans_up, CANARY, in_time)
        await entered.wait()
        quick.cancel()
        await turns()
        assert quick.state == "running"
        assert "told to stop" in quick.why
        in_time.set()
        assert await quick.wait() == Cancelled("cancel() was called")
        assert cleaned.is_set()
        assert t.recorder.of(AttemptAbandoned) == []
        t.told_once(quick, "Cancelled", state="cancelled")
    caplog.clear()
    entered.clear()
    cleaned.clear()
    async with trial(caplog, place=place, workers=1, unwind=0.01) as t:
        slow = await t.submit(place, cleans_up, CANARY, too_late)
        await entered.wait()
        slow.cancel()
        assert await slow.wait() == Cancelled("cancel() was called")
        assert not cleaned.is_set()
        await t.works()
        t.told_once(slow, "Cancelled", state="cancelled", logged=1)
        assert len(t.recorder.of(AttemptAbandoned)) == 1
        too_late.set()  # `abandon` cancelled it again, so its clean-up is over already
        await until(lambda: t.supervisor.stats().queues["default"].zombies == 0)


@pytest.mark.parametrize("first", ["result", "cancel"])
@pytest.mark.parametrize("place", ON_THE_LOOP)
async def test_fault_J09_ends_in_the_tick_of_its_cancellation(
    caplog: Log, place: str, first: str
) -> None:
    """Result and cancellation in one tick give exactly one outcome; a late result is dropped."""
    async with trial(caplog, place=place) as t:
        answer = asyncio.get_running_loop().create_future()

        async def waits(_payload: str) -> str:
            return str(await answer)

        racing = await t.submit(place, waits, CANARY)
        await until(lambda: racing.state == "running")
        await turns()
        for deed in ("result", "cancel") if first == "result" else ("cancel", "result"):
            if deed == "cancel":
                assert racing.cancel("a race")
            elif not answer.done():
                answer.set_result("in time")
        assert await racing.wait() == Cancelled("a race")
        await turns()
        t.told_once(racing, "Cancelled", state="cancelled")

    async def times_out_as_it_ends() -> object:
        async with Supervisor(1) as supervisor:
            both = await supervisor.submit(job(asyncio.sleep, timeout=1.0), 1.0, "in time")
            outcome = await both.wait()
            assert outcome == both._outcome()
        stats = supervisor.stats()
        assert stats.succeeded + stats.failed == stats.submitted == 1
        return outcome

    seen = {await asyncio.to_thread(_simulated, times_out_as_it_ends, seed) for seed in range(40)}
    assert seen == {Succeeded("in time"), TimedOut(1.0)}, "both orders of the tick were tried"


def _simulated(main: Callable[[], Any], seed: int) -> object:
    return simulate(main, seed=seed).value


class Heard(logging.Handler):
    """Tells, also while the loop is blocked, that a matching record was logged."""

    def __init__(self, pattern: str) -> None:
        super().__init__()
        self.pattern = pattern
        self.heard = threading.Event()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if re.search(self.pattern, line):
            self.lines.append(line)
            self.heard.set()

    def __enter__(self) -> Self:
        logging.getLogger("asyncworkers").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("asyncworkers").removeHandler(self)


@pytest.mark.parametrize("place", ON_THE_LOOP)
async def test_fault_J10_blocks_the_loop(caplog: Log, place: str) -> None:
    """While a job blocks the loop the log says which job, file and line; an event follows."""
    async with trial(caplog, place=place) as t:
        with Heard("has been stalled") as watchdog:

            async def blocks(_payload: str) -> bool:
                return watchdog.heard.wait(60)  # ends as soon as the stall is reported

            blocking = await t.submit(place, blocks, CANARY)
            assert await blocking, "nothing was reported while the loop was blocked"
        assert blocking.name in watchdog.lines[0]
        assert blocking.id in watchdog.lines[0]
        stall = await t.recorder.wait_for(LoopStalled)
        assert (stall.job_id, stall.job_name) == (blocking.id, blocking.name)
        assert stall.file == threading.__file__
        assert stall.function.endswith("wait")
        assert not stall.held_gil


async def test_fault_J11_blocks_the_loop_in_python(caplog: Log) -> None:
    """A busy loop in Python code is reported while it lasts, with the line where it spins."""
    async with trial(caplog) as t:
        with Heard("has been stalled") as watchdog:

            async def spins(_payload: str) -> bool:
                while not watchdog.heard.is_set():
                    pass
                return True

            spinning = await t.supervisor.submit(spins, CANARY)
            assert await spinning
        stall = await t.recorder.wait_for(LoopStalled)
        assert (stall.job_id, stall.job_name) == (spinning.id, spinning.name)
        first = spins.__code__.co_firstlineno
        where = [(e.file, e.line) for e in t.recorder.of(LoopStalled)]
        assert any(first < line <= first + 4 and file == __file__ for file, line in where) or (
            stall.file == threading.__file__  # inside `is_set`, which the loop calls
        )


async def test_fault_J12_blocks_holding_the_gil(
    caplog: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that holds the GIL stops the watchdog too: it is reported afterwards, with its job."""
    # On a crowded machine the call gets too little processor time to be sure: do not ask for that.
    monkeypatch.setattr(watchdog_module, "_cpu_seconds", lambda _: time.monotonic())
    async with trial(caplog) as t:

        async def backtracks(_payload: str) -> None:
            re.match("(a+)+$", "a" * 23 + "b")

        for _ in range(100):
            blocking = await t.supervisor.submit(backtracks, CANARY)
            await blocking
            if any(e.held_gil and e.job_id for e in t.recorder.of(LoopStalled)):
                break
        stall = next(e for e in t.recorder.of(LoopStalled) if e.held_gil and e.job_id)
        assert stall.job_name == blocking.name
        assert stall.seconds > 0.1


async def test_fault_J13_never_ends(tmp_path: Path) -> None:
    """A job that spins for ever is named again and again, and the third signal ends the process."""
    kind = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    script = tmp_path / "spins.py"
    script.write_text(SPINS)
    environment = {**os.environ, "ASYNCWORKERS_LOOP": kind, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, str(script)], stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stderr is not None
        named = 0
        while named < 2:
            line = process.stderr.readline()
            assert line, "the process ended before it was told to"
            if "has been stalled" in line:
                assert "job spins" in line
                assert "spins.py" in line
                named += 1
        ended = None
        while ended is None:  # signals that are pending at once arrive as one
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                ended = process.wait(0.05)
        assert ended == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


SPINS = """
import logging
from asyncworkers import Supervisor, run

logging.basicConfig(format="%(message)s")

async def spins():
    while True:
        pass

async def main():
    async with Supervisor() as supervisor:
        await supervisor.call(spins)

run(main)
"""


@pytest.mark.parametrize("error", [RecursionError, MemoryError])
@pytest.mark.parametrize("place", PLACES)
async def test_fault_J14_runs_out_of_stack_or_memory(
    caplog: Log, place: str, error: type[Exception]
) -> None:
    """RecursionError and MemoryError are failed attempts like any other."""

    def exhausts(payload: str) -> None:
        if error is MemoryError:
            raise MemoryError
        exhausts(payload)

    async def exhausts_on_the_loop(payload: str) -> None:
        exhausts(payload)

    async with trial(caplog, place=place) as t:
        function = exhausts if place == "in a thread" else exhausts_on_the_loop
        failing = await t.submit(place, function, CANARY)
        with pytest.raises(error):
            await failing
        t.told_once(failing, "Failed", error.__name__)


def _fails(*_: object) -> Any:
    raise RuntimeError("hostile")


def _recurses(self: object, *_: object) -> str:
    return repr(self)


class HostileError(Exception):
    """Everything that can be asked of it raises."""

    __str__ = __repr__ = __reduce__ = __eq__ = __bool__ = __len__ = __format__ = _fails  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]
    __del__ = _fails


class RecursiveError(Exception):
    """Asking for its text never ends."""

    __str__ = __repr__ = _recurses  # type: ignore[assignment]


class FrozenError(Exception):
    """Takes no attributes, as a frozen dataclass does not; so it takes no notes either."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"cannot assign to {name}")


class HostileArgument:
    """An argument about which nothing can be asked."""

    __str__ = __repr__ = __reduce__ = __eq__ = __bool__ = __len__ = _fails  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]
    __del__ = _fails


@pytest.fixture
def silent_finalizers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What finalizers of hostile objects raise is not the test's own failure."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    yield
    gc.collect()


@pytest.mark.usefixtures("silent_finalizers")
@pytest.mark.parametrize("read", [True, False], ids=["read", "never read"])
@pytest.mark.parametrize("kind", [HostileError, RecursiveError, FrozenError])
@pytest.mark.parametrize("place", PLACES)
async def test_fault_J15_hostile_exception_and_argument(
    caplog: Log, place: str, kind: type[Exception], read: bool
) -> None:
    """An exception and an argument whose methods raise or recurse are carried like any other."""

    async def fails(_argument: object) -> None:
        raise kind("its own words")

    def fails_in_thread(_argument: object) -> None:
        raise kind("its own words")

    async with trial(caplog, place=place) as t:
        inner = fails_in_thread if place == "in a thread" else fails
        function = job(inner, name="hostile", retry=Retry(2, on=Exception, delay=0))
        failing = await t.submit(place, function, HostileArgument())
        await until(failing.done)
        await turns()
        if read:
            with pytest.raises(kind):
                await failing
        assert "hostile" in repr(failing)
        assert kind.__name__ in failing.why
        t.told_once(failing, "Failed", kind.__name__, attempts=2)
        identity = failing.id
        if not read:
            del failing
            gc.collect()
            lines = [r.getMessage() for r in caplog.records if identity in r.getMessage()]
            assert len(lines) == 1
            assert "nobody awaited it" in lines[0]
            assert kind.__name__ in lines[0]


async def test_fault_J16_huge_and_cyclic_errors(caplog: Log) -> None:
    """The log of an error is cut to a limit, and a circle of causes does not hang it."""

    async def fails_hugely(_payload: str) -> None:
        """ValueError"""
        raise ValueError("x" * 50_000_000)

    async def fails_in_circles(_payload: str) -> None:
        """ValueError"""
        first, second = ValueError("first"), KeyError("second")
        first.__cause__, second.__cause__ = second, first
        first.__context__ = first
        raise first

    async def fails_deeply(_payload: str) -> None:
        """KeyError"""
        error: Exception = ValueError("the first of many")
        for _ in range(5_000):
            outer = KeyError("one of many")
            outer.__cause__ = error
            error = outer
        raise error

    async with trial(caplog) as t:
        for function in (fails_hugely, fails_in_circles, fails_deeply):
            failing = await t.supervisor.submit(function, CANARY)
            await until(failing.done)
            await turns()  # the worker goes on and lets go of the job
            identity, name = failing.id, failing.name
            t.told_once(failing, "Failed", function.__doc__)
            del failing
            gc.collect()
            (line,) = [r.getMessage() for r in caplog.records if identity in r.getMessage()]
            assert name in line
            assert len(line) < 40_000


@pytest.mark.parametrize("place", PLACES)
async def test_fault_J17_returns_what_cannot_be_stored(caplog: Log, place: str) -> None:
    """In memory a value is handed over as it is, whether or not it could ever be written down."""
    circle: list[Any] = []
    circle.append(circle)

    async def returns(value: object) -> object:
        return value

    def returns_in_thread(value: object) -> object:
        return value

    async with trial(caplog, place=place) as t:
        function = returns_in_thread if place == "in a thread" else returns
        for value in (circle, lambda: None, threading.Lock(), HostileValue()):
            assert await (await t.submit(place, function, value)) is value


class HostileValue:
    """A value about which nothing can be asked."""

    __str__ = __repr__ = __reduce__ = __eq__ = __bool__ = __len__ = _fails  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


async def _forgotten() -> None: ...


def _generator() -> Any:
    yield 1


async def _async_generator() -> Any:
    yield 1


@pytest.mark.parametrize("what", ["coroutine", "generator", "async generator", "task", "future"])
@pytest.mark.parametrize("place", PLACES)
async def test_fault_J18_returns_what_is_still_to_be_awaited(
    caplog: Log, place: str, what: str
) -> None:
    """A forgotten await is a TypeError that says so; a forgotten coroutine is closed."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    future.set_result(None)
    task = loop.create_task(_forgotten())
    make: dict[str, Callable[[], Any]] = {
        "coroutine": _forgotten,
        "generator": _generator,
        "async generator": _async_generator,
        "task": lambda: task,
        "future": lambda: future,
    }

    async def forgets(_payload: str) -> Any:
        return make[what]()

    def forgets_in_thread(_payload: str) -> Any:
        return make[what]()

    async with trial(caplog, place=place) as t:
        function = forgets_in_thread if place == "in a thread" else forgets
        failing = await t.submit(place, function, CANARY)
        with pytest.raises(TypeError, match="an await or a loop is missing"):
            await failing
        t.told_once(failing, "Failed", "TypeError")
    await task


@pytest.mark.parametrize("how", ["timed out", "cancelled", "abandoned"])
@pytest.mark.parametrize("place", PLACES)
async def test_fault_J18_returns_a_coroutine_when_its_end_is_decided(
    caplog: Log, place: str, how: str
) -> None:
    """A coroutine that comes out of an attempt whose end was decided before is closed all the same:
    nobody is warned that it was never awaited.
    """
    release, begun = threading.Event(), asyncio.Event()
    made: list[Any] = []

    def late(_payload: str) -> Any:
        release.wait()
        made.append(asyncio.sleep(0))
        return made[0]

    async def late_on_the_loop(_payload: str) -> Any:
        begun.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        made.append(asyncio.sleep(0))
        return made[0]

    in_thread = place == "in a thread"
    function = job(
        late if in_thread else late_on_the_loop, timeout=0.01 if how == "timed out" else None
    )
    async with trial(caplog, place=place, unwind=0.01 if how == "abandoned" else 10) as t:
        ended = await t.submit(place, function, CANARY)
        if not in_thread:
            await begun.wait()
        if how != "timed out":
            await turns()
            assert ended.cancel("enough")
        if in_thread or how == "abandoned":
            await ended.wait()
        else:
            await until(lambda: ended.why.endswith("has not ended yet"))
        release.set()
        assert isinstance(await ended.wait(), TimedOut if how == "timed out" else Cancelled)
        await until(lambda: made and inspect.getcoroutinestate(made[0]) == "CORO_CLOSED")
        made.clear()


@pytest.mark.parametrize("way", [*ON_THE_LOOP, "in a map"])
async def test_fault_J19_leaves_tasks_behind(caplog: Log, way: str) -> None:
    """Tasks that a job started and left are cancelled at the end, and the log says whose."""
    left: list[asyncio.Task[None]] = []

    async def goes_on() -> None:
        await asyncio.Event().wait()

    async def leaves(_payload: str) -> None:
        left.extend(asyncio.create_task(goes_on()) for _ in range(2))
        await asyncio.sleep(0)

    place = "in line" if way == "in a map" else way
    if way == "in a map":
        async with Supervisor(stall=None) as supervisor:  # nobody listens: the shortest path
            await supervisor.map(leaves, [CANARY])
            await turns()
            assert not any(task.done() for task in left)
        assert all(task.cancelled() for task in left)
        (line,) = [r.getMessage() for r in caplog.records]
        assert "leaves" in line
        assert "2 tasks" in line
        assert CANARY not in line
        left.clear()
        caplog.clear()
    async with trial(caplog, place=place) as t:
        if way == "in a map":
            await t.supervisor.map(leaves, [CANARY])
        else:
            leaving = await t.submit(place, leaves, CANARY)
            await leaving
        await turns()
        assert not any(task.done() for task in left)
    assert all(task.cancelled() for task in left)
    (event,) = t.recorder.of(TasksLeaked)
    assert event.count == 2
    assert event.job_name == "test_fault_J19_leaves_tasks_behind.leaves"
    if way != "in a map":
        assert event.job_id == leaving.id


@pytest.mark.parametrize("place", ON_THE_LOOP)
async def test_fault_J20_abandons_an_async_generator(caplog: Log, place: str) -> None:
    """A finalizer that fails after its job has ended is reported with that job's name and id."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    heard: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: heard.append(context))

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            raise OSError("while it was finalized")

    async def abandons(_payload: str) -> int:
        async for number in numbers():
            return number
        return 0

    async with trial(caplog, place=place) as t:
        leaving = await t.submit(place, abandons, CANARY)
        assert await leaving == 1
        gc.collect()
        await until(lambda: gc.collect() is not None and heard, "the report")
        (context,) = heard
        assert isinstance(context["exception"], OSError)
        assert leaving.id in context["message"]
        assert leaving.name in context["message"]
        t.told_once(leaving, "Succeeded", state="succeeded")
    loop.set_exception_handler(before)
    heard.clear()


private: ContextVar[str] = ContextVar("private", default="unset")


@pytest.mark.parametrize("way", [*PLACES, "in a map"])
async def test_fault_J21_changes_its_surroundings(caplog: Log, way: str) -> None:
    """Context variables that a job sets, the decimal context among them, no other job sees."""
    ordinary = decimal.DefaultContext.prec

    def meddles(_payload: str) -> tuple[str, int]:
        found = private.get(), decimal.getcontext().prec
        private.set("mine")
        decimal.setcontext(decimal.Context(prec=3))
        return found

    async def meddles_on_the_loop(payload: str) -> tuple[str, int]:
        found = meddles(payload)
        await asyncio.sleep(0)
        assert private.get() == "mine"
        return found

    place = "in line" if way == "in a map" else way
    async with trial(caplog, place=place, workers=1) as t:
        function = meddles if way == "in a thread" else meddles_on_the_loop
        if way == "in a map":
            found = await t.supervisor.map(function, [CANARY] * 5)
        else:
            jobs = [await t.submit(place, function, CANARY) for _ in range(5)]
            found = [await one for one in jobs]
        assert found == [("unset", ordinary)] * 5
    if way == "in a map":
        async with Supervisor(1) as supervisor:
            assert await supervisor.map(function, [CANARY] * 5) == [("unset", ordinary)] * 5
    assert private.get() == "unset"


async def test_fault_J22_changes_the_loop(caplog: Log) -> None:
    """A job that sets the loop's handlers changes nothing for its supervisor, and what it set is
    left alone at the end: only what is still ours is put back.
    """
    loop = asyncio.get_running_loop()
    handler, factory = loop.get_exception_handler(), loop.get_task_factory()
    terminated = signal.getsignal(signal.SIGTERM)
    reports: list[dict[str, Any]] = []

    def theirs(_loop: object, context: dict[str, Any]) -> None:
        reports.append(context)

    def build(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        return asyncio.Task(coroutine, loop=loop, **options)

    async def meddles(_payload: str) -> None:
        loop.set_exception_handler(theirs)
        loop.set_task_factory(build)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    try:
        async with trial(caplog) as t:
            await t.supervisor.call(meddles, CANARY)
            await t.works()
            jobs = [await t.supervisor.submit(echo, number) for number in range(10)]
            assert [await one for one in jobs] == list(range(10))
        assert loop.get_exception_handler() is theirs
        assert loop.get_task_factory() is build
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert reports == []
    finally:
        loop.set_exception_handler(handler)
        loop.set_task_factory(factory)
        signal.signal(signal.SIGTERM, terminated)
    async with trial(caplog) as t:
        await t.works()
    assert loop.get_exception_handler() is handler


@pytest.mark.parametrize("place", ON_THE_LOOP)
async def test_fault_J23_submits_to_its_own_full_queue(caplog: Log, place: str) -> None:
    """One worker, room for one job, and a job that submits three and awaits them: it lends its
    slot, so it ends.
    """
    async with trial(caplog, place=place, workers=1, maxsize=1) as t:

        async def parent(_payload: str) -> list[int]:
            children = [await t.supervisor.submit(echo, number) for number in range(3)]
            return [await child for child in children]

        family = await t.submit(place, parent, CANARY)
        assert await family == [0, 1, 2]
        t.told_once(family, "Succeeded", state="succeeded")

        async def awaits_itself(_payload: str) -> None:
            me = t.supervisor.get(current_job().id)
            await me

        knot = await t.submit(place, awaits_itself, CANARY)
        with pytest.raises(WouldDeadlock):
            await knot
        t.told_once(knot, "Failed", "WouldDeadlock")


async def test_fault_J24_recursion_bomb(caplog: Log) -> None:
    """Jobs that each submit two more are held back by the queue's bound, then by an error."""
    defused = False
    refused: list[str] = []
    most = 0

    async with trial(caplog, workers=2, maxsize=10) as t:

        async def bomb(_payload: str) -> None:
            nonlocal most
            stats = t.supervisor.stats().queues["default"]
            most = max(most, stats.queued)
            if defused:
                return
            try:
                await t.supervisor.submit(bomb, _payload)
                await t.supervisor.submit(bomb, _payload)
            except WouldDeadlock as error:
                refused.append(str(error))

        await t.supervisor.submit(bomb, CANARY)
        await until(lambda: refused, "the limit")
        stats = t.supervisor.stats().queues["default"]
        assert stats.running <= 1_000 + 2
        assert most <= 10
        defused = True
        await until(lambda: t.supervisor.stats().running == t.supervisor.stats().queued == 0)
    assert "raise its maxsize" in refused[0]


async def test_fault_J27_hostile_text(caplog: Log) -> None:
    """Names, reasons and messages with newlines and escape sequences cannot forge a log line."""
    evil = "\x1b[2J\nERROR forged\r\u202e\x00"

    async def stubborn(gate: asyncio.Event) -> None:
        while not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()

    async def fails(_payload: str) -> None:
        raise type(f"Err{evil}", (Exception,), {})(evil)

    for function in (stubborn, fails):
        function.__qualname__ = f"named{evil}"

    async with trial(caplog, unwind=0.01) as t:
        gate = asyncio.Event()
        refusing = await t.supervisor.submit(stubborn, gate)
        failing = await t.supervisor.submit(fails, CANARY)
        await until(failing.done)
        assert refusing.state == "running"
        refusing.cancel(evil)
        await refusing.wait()
        assert evil not in repr(refusing) + refusing.why + failing.why + t.supervisor.explain()
        identity = failing.id
        del failing
        await turns()
        gc.collect()
        gate.set()
        await until(lambda: t.supervisor.stats().queues["default"].zombies == 0)
    lines = [record.getMessage() for record in caplog.records]
    # The collection above may itself take long enough to be a stall, late in the suite.
    lines = [line for line in lines if "the event loop" not in line]
    assert len(lines) == 2
    assert any("abandoned" in line for line in lines)
    assert any("nobody awaited" in line and identity in line for line in lines)
    for line in lines:
        for forbidden in ("\x1b", "\r", "\u202e", "\x00", "\nERROR"):
            assert forbidden not in line
    with pytest.raises(ValueError, match="name"):
        job(fails, name=evil)


async def test_fault_J30_plain_function(caplog: Log) -> None:
    """A plain function runs in a thread, or is refused where a coroutine function is required."""
    here = threading.get_ident()

    def plain(_payload: str) -> int:
        return threading.get_ident()

    async def coroutine(_payload: str) -> int:
        return threading.get_ident()

    async with trial(caplog) as t:
        assert await t.supervisor.call(plain, CANARY) != here
        assert await t.supervisor.call(coroutine, CANARY) == here
        for function in (job(plain, queue="default"), job(coroutine, queue="threads")):
            with pytest.raises(ValueError, match="is of kind"):
                await t.supervisor.submit(function, CANARY)
            with pytest.raises(ValueError, match="is of kind"):
                t.supervisor.map(function, [CANARY])
        disguised = await t.supervisor.submit(lambda payload: coroutine(payload), CANARY)
        with pytest.raises(TypeError, match="await"):  # a wrapper that only looks synchronous
            await disguised
