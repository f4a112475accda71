"""Bridges of users: how a worker hires, cancels, kills and replaces them, and what it is told of them."""

import asyncio
import logging
import os
import sys
from typing import Any

import pytest

from asyncworkers import (
    Bridge,
    Cancelled,
    Failed,
    JobFailed,
    NotSerializable,
    Queue,
    Retry,
    Succeeded,
    Supervisor,
    TimedOut,
    Work,
    WorkerCrashed,
    current_job,
    job,
)
from asyncworkers._engine import bridged
from asyncworkers.bridge.terms import kind_for_cpu
from asyncworkers.events import AttemptAbandoned, WorkerReplaced
from asyncworkers.testing import EventRecorder, simulate

pytestmark = pytest.mark.asyncio


class Spy(Bridge):
    """Runs calls inline, and notes what is asked of it; what a call returns decides how it goes on."""

    made: list["Spy"]

    def __init__(self) -> None:
        self.made.append(self)
        self.log: list[str] = []
        self.begun = asyncio.Event()
        self.killed = asyncio.Event()

    async def start(self) -> None:
        self.log.append("start")

    async def run(self, work: Work) -> Any:
        self.log.append(f"run {work.name}")
        self.begun.set()
        end = work.run()
        word = end.value if isinstance(end, Succeeded) else None
        if isinstance(word, BaseException):
            raise word
        if word == "wait":
            try:
                await asyncio.Event().wait()
            finally:
                self.log.append("stopped")
        elif word == "deaf":
            await self.deaf(self.killed)
        elif word == "mad":
            await self.deaf(asyncio.Event())
        return word if word == "junk" else end

    async def deaf(self, gate: asyncio.Event) -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                self.log.append("deaf")
                if len(self.log) > 20:
                    raise

    def kill(self) -> None:
        self.log.append("kill")
        self.killed.set()

    async def close(self) -> None:
        self.log.append("close")


@pytest.fixture
def spy() -> type[Spy]:
    """A class of spies that knows those that were made."""
    return type("Own", (Spy,), {"made": []})


def say(word: Any) -> Any:
    """The job of these tests."""
    return word


def over(bridge: Any, recorder: EventRecorder | None = None, **options: Any) -> Supervisor:
    """A supervisor with a queue over such bridges."""
    queues = [Queue("own", options.pop("workers", 1), bridge=bridge, **options)]
    return Supervisor(queues=queues, listeners=[recorder] if recorder else [])


echo = job(say, queue="own")


async def test_one_worker_owns_one_bridge(spy: type[Spy]) -> None:
    """A bridge is made and started when its worker is hired, used for job after job, closed, then
    killed; none is made before there are jobs.
    """
    async with over(spy) as supervisor:
        assert not spy.made
        assert [await supervisor.call(echo, n) for n in (1, None, "x")] == [1, None, "x"]
        assert await supervisor.map(echo, range(3)) == [0, 1, 2]
    (one,) = spy.made
    assert one.log == ["start", *["run say"] * 6, "close", "kill"]


async def test_each_kind_of_function_that_may_cross(spy: type[Spy]) -> None:
    """`def` functions run there, with `cpu=True` or without; `async def` is refused by name."""

    async def plain() -> None: ...

    async with over(spy) as supervisor:
        assert await supervisor.call(job(say, queue="own", cpu=True), 3) == 3
        with pytest.raises(ValueError, match="kind 'bridge'"):
            await supervisor.submit(job(plain, queue="own"))


async def test_a_bridge_knows_its_job(spy: type[Spy]) -> None:
    """Code of a bridge, and a call that stays here, may ask and say what any job's code may."""

    class Knowing(spy):
        async def run(self, work: Work) -> Any:
            current_job().report(1, 2, "there")
            self.log.append(current_job().id)
            return work.run()

    async with over(Knowing) as supervisor:
        one = await supervisor.submit(job(lambda: current_job().id, queue="own"))
        assert await one == one.id
        assert spy.made[0].log[1] == one.id
        assert one.progress is not None
        assert one.progress.message == "there"


async def test_a_cancelled_run_that_ends_leaves_a_good_bridge(spy: type[Spy]) -> None:
    """The job ends when `run` has, not before, and the same bridge takes the next job."""
    async with over(spy, unwind=60) as supervisor:
        one = await supervisor.submit(echo, "wait")
        while not spy.made:
            await asyncio.sleep(0)
        await spy.made[0].begun.wait()
        one.cancel("enough")
        assert one.state == "running"
        assert await one.wait() == Cancelled("enough")
        assert spy.made[0].log[-1] == "stopped"
        timed = echo.options(timeout=0.02)
        assert await (await supervisor.submit(timed, "wait")).wait() == TimedOut(0.02)
        assert await supervisor.call(echo, 5) == 5
    assert len(spy.made) == 1


async def test_a_deaf_run_is_killed(spy: type[Spy], caplog: Any) -> None:
    """After `unwind` the bridge is killed, the job settled, and a new bridge made."""
    recorder = EventRecorder()
    async with over(spy, recorder, unwind=0.02) as supervisor:
        one = await supervisor.submit(echo.options(timeout=0.02), "deaf")
        assert await one.wait() == TimedOut(0.02)
        assert await supervisor.call(echo, 5) == 5
        (event,) = recorder.of(WorkerReplaced)
        assert "killed, because a job did not end" in event.cause
        assert not recorder.of(AttemptAbandoned)
    assert len(spy.made) == 2
    assert spy.made[0].log == ["start", "run say", "deaf", "kill"]


async def test_a_run_that_outlives_its_kill_is_abandoned(spy: type[Spy], caplog: Any) -> None:
    """A bridge that does not even let go when killed holds no slot for long: it is counted, named,
    and another worker takes its place.
    """
    recorder = EventRecorder()
    async with over(spy, recorder, unwind=0.01) as supervisor:
        one = await supervisor.submit(echo.options(timeout=0.02), "mad")
        assert await one.wait() == TimedOut(0.02)
        assert await supervisor.call(echo, 5) == 5
        await recorder.wait_for(AttemptAbandoned, job_id=one.id)
        spy.made[0].log.extend(["enough"] * 20)
    assert any("does not let go" in record.getMessage() for record in caplog.records)


async def test_a_broken_bridge_fails_its_job_alone(spy: type[Spy], caplog: Any) -> None:
    """What `run` raises, or returns in place of an end, is WorkerCrashed, with the cause, and the
    next job has a new bridge.
    """
    async with over(spy) as supervisor:
        for broken in (OSError("cut"), SystemExit(3), asyncio.CancelledError(), "junk"):
            with pytest.raises(WorkerCrashed, match="the bridge that carried say is broken") as one:
                await supervisor.call(echo, broken)
            assert one.value.__cause__ is (broken if broken != "junk" else None)
            assert await supervisor.call(echo, 1) == 1
        told = WorkerCrashed("gone", -9, "last words")
        with pytest.raises(WorkerCrashed) as same:
            await supervisor.call(echo, told)
        assert same.value is told
        assert same.value.signal == 9
    assert len(spy.made) == 5


async def test_what_cannot_be_pickled_breaks_nothing(spy: type[Spy]) -> None:
    """NotSerializable out of `run` is the job's own error."""
    async with over(spy) as supervisor:
        with pytest.raises(NotSerializable):
            await supervisor.call(echo, NotSerializable("no"))
    assert len(spy.made) == 1


async def test_what_a_call_raises_is_the_jobs(spy: type[Spy]) -> None:
    """A call's own errors are its job's, whatever they are: also those that bridges raise."""

    def fails(error: BaseException) -> None:
        raise error

    failing = job(fails, queue="own")
    async with over(spy) as supervisor:
        for error in (WorkerCrashed("mine"), OSError("mine")):
            with pytest.raises(type(error), match="mine"):
                await supervisor.call(failing, error)
        for odd in (SystemExit(1), asyncio.CancelledError(), StopIteration()):
            with pytest.raises(JobFailed):
                await supervisor.call(failing, odd)
    assert len(spy.made) == 1


async def test_a_crash_is_retried_over_another_bridge(spy: type[Spy], caplog: Any) -> None:
    """`Retry(on=WorkerCrashed)` runs the job again."""

    def breaks_once() -> Any:
        return OSError() if current_job().attempt == 1 else "well"

    retry = Retry(2, on=WorkerCrashed, delay=0)
    async with over(spy) as supervisor:
        assert await supervisor.call(job(breaks_once, queue="own", retry=retry)) == "well"


# ---- none to be had


@pytest.mark.parametrize("how", ["raises", "hangs", "is no bridge", "made nothing"])
async def test_bridges_that_never_start(
    spy: type[Spy], how: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """After three in a row the jobs that wait fail with WorkerCrashed, and more are started ever
    more rarely.
    """

    class Never(spy):
        async def start(self) -> None:
            if how == "raises":
                raise ConnectionRefusedError("nobody there")
            await asyncio.Event().wait()

    def makes_nothing() -> Any:
        if how == "made nothing":
            raise RuntimeError("no")
        return 5

    monkeypatch.setattr(bridged, "PAUSES", (0.01, 0.01))
    make = Never if how in ("raises", "hangs") else makes_nothing
    async with over(make, startup=0.02) as supervisor:
        jobs = [await supervisor.submit(echo, n) for n in range(3)]
        for one in jobs:
            with pytest.raises(WorkerCrashed, match="no bridge could be made ready to run say: it"):
                await one
        await supervisor.submit(echo, 9)
        while "because it" not in supervisor.jobs()[0].why if supervisor.jobs() else False:
            await asyncio.sleep(0)
        supervisor.cancel_all()
    assert any("no other is started" in record.getMessage() for record in caplog.records)
    for one in spy.made:
        assert one.log == ["kill"]


async def test_a_bridge_that_will_not_close(spy: type[Spy], caplog: Any) -> None:
    """What `close` and `kill` raise is logged, and nothing else suffers."""

    class Grim(spy):
        async def close(self) -> None:
            raise OSError("stuck")

        def kill(self) -> None:
            raise SystemExit(4)

    async with over(Grim) as supervisor:
        assert await supervisor.call(echo, 1) == 1
    text = "\n".join(r.getMessage() for r in caplog.records if r.levelno == logging.ERROR)
    assert "did not close" in text
    assert "in kill()" in text


async def test_a_stranger_who_cancels_everything(spy: type[Spy], caplog: Any) -> None:
    """A worker whose task is cancelled from outside kills its bridge; the job fails, others go on."""
    async with over(spy) as supervisor:
        one = await supervisor.submit(echo, "wait")
        while not spy.made:
            await asyncio.sleep(0)
        await spy.made[0].begun.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        assert isinstance(await one.wait(), Failed)
        assert await supervisor.call(echo, 2) == 2
    assert "kill" in spy.made[0].log


# ---- what is refused at the call


class Incomplete(Bridge):
    def kill(self) -> None: ...


class NoBridge:
    pass


class Whole(Incomplete):
    async def run(self, work: Work) -> Any: ...


@pytest.mark.parametrize(
    ("bridge", "error", "text"),
    [
        (5, TypeError, "must be a Bridge class, or a function that makes one"),
        ("ssh", TypeError, "must be a Bridge class"),
        (Whole(), TypeError, "must make bridges, one a worker: give the class"),
        (NoBridge, TypeError, "must be derived from Bridge"),
        (Incomplete, TypeError, "must define both run and kill"),
        (asyncio.sleep, TypeError, "must be a Bridge class"),
    ],
)
async def test_bad_bridges_are_refused(bridge: Any, error: type[Exception], text: str) -> None:
    """What can make no bridges is refused where the queue is declared, by name."""
    with pytest.raises(error, match=f"Queue.bridge {text}"):
        Queue("own", bridge=bridge)


async def test_what_does_not_go_with_a_bridge() -> None:
    """Settings for children, another kind and tasks of their own are refused."""
    with pytest.raises(ValueError, match="leave out kind='threads'"):
        Queue("own", kind="threads", bridge=Whole)
    with pytest.raises(ValueError, match="must say which"):
        Queue("own", kind="bridge")
    with pytest.raises(ValueError, match="isolation"):
        Queue("own", bridge=Whole, isolation="task")
    with pytest.raises(ValueError, match="max_jobs is for queues of processes"):
        Queue("own", bridge=Whole, max_jobs=3)
    declared = Queue("own", bridge=Whole, startup=3)
    assert (declared.kind, declared.unwind, declared.startup) == ("bridge", 1.0, 3.0)
    assert declared.replace(workers=2).bridge is Whole


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_simulation_has_no_bridges(spy: type[Spy]) -> None:
    """Under a simulated loop calls run inline, as if they crossed."""

    async def main() -> int:
        async with over(spy) as supervisor:
            return await supervisor.call(echo, 5)

    assert (await asyncio.to_thread(simulate, main)).value == 5
    assert not spy.made


async def test_the_call_as_a_pickle() -> None:
    """`pickled` names what can be named, carries the rest by value, and says what it cannot."""
    import pickle
    import threading
    from contextvars import Context

    def work(function: Any, *args: Any, **kwargs: Any) -> Work:
        return Work(function, args, kwargs, Context(), "f")

    function, args, kwargs = pickle.loads(work(echo.function, 1, a=2).pickled())
    assert (function(3), args, kwargs) == (3, (1,), {"a": 2})
    assert pickle.loads(work(divmod, 7, 2).pickled())[0] is divmod
    function, _, _ = pickle.loads(work(lambda x: x + 1).pickled())
    assert function(1) == 2
    with pytest.raises(NotSerializable, match="argument 2 of divmod cannot be pickled, a lock"):
        work(divmod, 1, threading.Lock()).pickled()
    lock = threading.Lock()
    with pytest.raises(NotSerializable, match="the function itself of"):
        work(lambda: lock).pickled()


# ---- where jobs that compute run


@pytest.mark.parametrize(("gil", "kind"), [(True, "processes"), (False, "threads")])
async def test_threads_compute_where_there_is_no_lock(
    gil: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the interpreter's lock `cpu=True` jobs run in threads, unless the queue says otherwise."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: gil, raising=False)
    assert kind_for_cpu(gil=gil) == kind
    getpid = job(os.getpid, cpu=True)
    async with Supervisor(processes=1) as supervisor:
        assert {queue.name: queue.kind for queue in supervisor.queues}["processes"] == kind
        assert (await supervisor.call(getpid) == os.getpid()) is not gil
    async with Supervisor(queues=[Queue("processes", 1, kind="processes")]) as supervisor:
        assert await supervisor.call(getpid) != os.getpid()
    if gil:
        async with Supervisor() as supervisor:
            with pytest.raises(ValueError, match="of kind 'threads'"):
                await supervisor.submit(getpid.options(queue="threads"))
