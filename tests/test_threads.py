"""The queue "threads": blocking functions in daemon threads of its own, and how they are let go."""

import asyncio
import gc
import logging
import socket
import subprocess
import sys
import textwrap
import threading
import weakref
from datetime import timedelta
from typing import Any

import pytest

from asyncworkers import (
    CancelToken,
    JobCancelled,
    JobFailed,
    JobTimedOut,
    Queue,
    Retry,
    Supervisor,
    current_job,
    job,
)
from asyncworkers.events import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptStarted,
    JobSettled,
    LoopStalled,
    QueueExhausted,
)
from asyncworkers.testing import EventRecorder, no_leaks

pytestmark = pytest.mark.asyncio

Log = pytest.LogCaptureFixture


class Held:
    """A function that blocks until it is let go, however often it is told to stop."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.threads: list[threading.Thread] = []
        self.begun = threading.Semaphore(0)

    def __call__(self, value: Any = None) -> Any:
        """Block."""
        self.threads.append(threading.current_thread())
        self.begun.release()
        self.gate.wait()
        return value

    async def has_begun(self) -> None:
        """Wait until another call has begun."""
        await asyncio.to_thread(self.begun.acquire)

    async def has_ended(self) -> None:
        """Let all calls go, and wait until the threads that ran them are over."""
        self.gate.set()
        for thread in self.threads:
            await asyncio.to_thread(thread.join)


@pytest.fixture
def held() -> Any:
    """A function that blocks until it is let go, at the latest when the test is over."""
    function = Held()
    yield function
    function.gate.set()


def polls() -> str | None:
    """Block until told to stop."""
    token = current_job().cancelled
    token.wait()
    return token.reason


def threads_of(workers: int = 1, recorder: EventRecorder | None = None, **options: Any) -> Any:
    """A supervisor with so many threads; options are those of the queue."""
    queues = [Queue("threads", workers, kind="threads", **options)]
    return Supervisor(queues=queues, listeners=[recorder] if recorder else [], stall=None)


def said(caplog: Log, text: str) -> list[str]:
    """The lines of the log that have this in them."""
    return [line for line in (record.getMessage() for record in caplog.records) if text in line]


# ---- whose threads they are


async def test_threads_of_their_own() -> None:
    """Jobs run in named daemon threads, never in the loop's default executor, which a supervisor
    does not even start; as few as are needed, and none is left.
    """
    before = set(threading.enumerate())
    async with Supervisor(threads=3, name="mine") as supervisor:
        found = await supervisor.map(lambda _: threading.current_thread(), range(50))
        for thread in found:
            assert thread.daemon
            assert thread.name.startswith("asyncworkers-mine-threads-")
        assert 1 <= len(set(found)) <= 3
        assert threading.current_thread() not in found
        one = await supervisor.call(threading.current_thread)
        again = await supervisor.call(threading.current_thread)
        assert one is again  # one after the other needs one
        assert getattr(asyncio.get_running_loop(), "_default_executor", None) is None
    assert set(threading.enumerate()) <= before


async def test_as_many_at_once_as_there_are_workers() -> None:
    """So many calls run at once, no more, and the rest waits in line."""
    barrier = threading.Barrier(4)

    def meets() -> int:
        return barrier.wait()  # ends only if four are here at once

    held = Held()
    async with threads_of(4) as supervisor:
        assert sorted(await supervisor.map(lambda _: meets(), range(8))) == [0, 0, 1, 1, 2, 2, 3, 3]
        jobs = [await supervisor.submit(held, number) for number in range(7)]
        for _ in range(4):
            await held.has_begun()
        assert [one.state for one in jobs] == ["running"] * 4 + ["queued"] * 3
        assert "all 4 workers" in jobs[6].why
        supervisor.resize("threads", 5)
        await held.has_begun()
        held.gate.set()
        assert [await one for one in jobs] == list(range(7))


@pytest.mark.virtual_time
async def test_idle_threads_are_let_go() -> None:
    """Threads that have nothing to do for a while end."""
    async with threads_of(3) as supervisor:
        barrier = threading.Barrier(3)
        threads = await supervisor.map(
            lambda _: (barrier.wait(), threading.current_thread())[1], range(3)
        )
        assert len(set(threads)) == 3
        await asyncio.sleep(60)
        for thread in threads:
            await asyncio.to_thread(thread.join)
        assert await supervisor.call(threading.current_thread) not in threads


async def test_nothing_is_kept() -> None:
    """An idle thread keeps neither the last call's arguments, nor its value, nor its error alive."""

    class Thing:
        pass

    def takes(thing: Thing) -> tuple[Thing, Thing]:
        return thing, Thing()

    def raises(thing: Thing) -> None:
        error = ValueError("with a thing")
        error.thing = thing  # type: ignore[attr-defined]
        raise error

    async with threads_of() as supervisor:
        thing = Thing()
        value = await supervisor.call(takes, thing)
        references = [weakref.ref(thing), weakref.ref(value[1])]
        del thing, value
        await supervisor.call(takes, Thing())
        thing = Thing()
        references.append(weakref.ref(thing))
        with pytest.raises(ValueError, match="with a thing"):
            await supervisor.call(raises, thing)
        del thing
        await supervisor.call(abs, 1)  # its thread and its worker have let go of the one before
        gc.collect()
        assert [one() for one in references] == [None] * 3


# ---- what comes back


@pytest.mark.parametrize(
    "error",
    [
        StopIteration(1),
        StopAsyncIteration(),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        BaseExceptionGroup("many", [SystemExit(3)]),
    ],
)
async def test_what_is_no_exception(error: BaseException, caplog: Log) -> None:
    """What is no ordinary exception ends the job, not its thread, nor the loop, nor the program."""

    def raises() -> None:
        raise error

    async with threads_of() as supervisor:
        thread = await supervisor.call(threading.current_thread)
        with pytest.raises(JobFailed) as caught:
            await supervisor.call(raises)
        assert caught.value.__cause__ is error
        again = await supervisor.call(threading.current_thread)
        assert again is thread
        jobs = await supervisor.map(lambda _: raises(), range(3)).outcomes()
        assert [type(one.exception()) for one in jobs] == [JobFailed] * 3
    assert not caplog.records


async def test_unfinished_values() -> None:
    """A coroutine or generator that a function returns is no value."""

    async def coroutine() -> int:
        return 1

    async with threads_of() as supervisor:
        for function in (lambda: coroutine(), lambda: (n for n in "ab")):
            with pytest.raises(TypeError, match="not a value"):
                await supervisor.call(job(function, name="odd"))


async def test_tracebacks_begin_with_the_function() -> None:
    """An error's traceback shows the function's own frames, not the thread's."""

    def outer() -> None:
        inner()

    def inner() -> None:
        raise ValueError("deep")

    async with threads_of() as supervisor:
        one = await supervisor.submit(outer)
        await one.wait()
        error = one.exception()
        assert error is not None
        trace, names = error.__traceback__, []
        while trace is not None:
            names.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        assert names == ["outer", "inner"]


# ---- told to stop


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_polling_is_no_abandonment(how: str, caplog: Log) -> None:
    """A function that polls its token and ends when told to is not abandoned: nothing is counted,
    logged or said; whoever awaits the job sees its end at once.
    """
    recorder = EventRecorder()
    noticed, may_end = threading.Event(), threading.Event()

    def polls_and_tidies() -> None:
        current_job().cancelled.wait()
        noticed.set()
        may_end.wait()

    timeout = 0.01 if how == "timed out" else None
    async with threads_of(1, recorder) as supervisor:
        one = await supervisor.submit(job(polls_and_tidies, timeout=timeout))
        await recorder.wait_for(AttemptStarted, job_id=one.id)
        await asyncio.sleep(0)
        if how == "cancelled":
            one.cancel("enough")
        with pytest.raises(JobTimedOut if how == "timed out" else JobCancelled):
            await one
        assert not may_end.is_set()  # we are told before the function ends
        await asyncio.to_thread(noticed.wait)
        waiting = await supervisor.submit(abs, -1)
        await asyncio.sleep(0)
        assert waiting.state == "queued"  # the slot is taken until it has ended
        assert "still runs what was told to stop: " in waiting.why
        assert "1 thread still runs what was told to stop: " in supervisor.explain()
        stats = supervisor.stats().queues["threads"]
        assert (stats.abandoned, stats.held_threads, stats.running) == (0, 0, 0)
        may_end.set()
        assert await waiting == 1
        assert supervisor.stats().queues["threads"].abandoned == 0
        assert not recorder.of(AttemptAbandoned)
        assert not recorder.of(QueueExhausted)
    assert not caplog.records


@pytest.mark.parametrize("unwind", [0, 0.02])
async def test_abandoned_after_its_unwind(unwind: float, caplog: Log, held: Held) -> None:
    """After `unwind` seconds it is abandoned: counted, logged and told of once, by its name; its
    slot is free again when it ends, and not before.
    """
    recorder = EventRecorder()
    async with threads_of(1, recorder, unwind=unwind) as supervisor:
        one = await supervisor.submit(job(held, name="deaf"))
        await held.has_begun()
        one.cancel("enough")
        with pytest.raises(JobCancelled, match="enough"):
            await one
        await recorder.wait_for(AttemptAbandoned, job_id=one.id, attempt=1)
        await recorder.wait_for(QueueExhausted, queue="threads", abandoned=("deaf",))
        waiting = await supervisor.submit(abs, -1)
        await asyncio.sleep(0)
        assert (
            "every thread of queue 'threads' is held by an abandoned attempt of deaf" in waiting.why
        )
        assert "1 thread held by abandoned attempts of deaf" in supervisor.explain()
        stats = supervisor.stats().queues["threads"]
        assert (stats.abandoned, stats.held_threads, stats.zombies) == (1, 1, 0)
        held.gate.set()
        assert await waiting == 1
        assert supervisor.stats().queues["threads"].held_threads == 0
        assert len(recorder.of(AttemptAbandoned)) == 1
        kinds = [type(event) for event in recorder.all if getattr(event, "job_id", "") == one.id]
        assert kinds[-3:] == [AttemptEnded, JobSettled, AttemptAbandoned]
    assert len(said(caplog, "abandoned attempt 1 of <Job deaf")) == 1
    assert len(said(caplog, "no thread left")) == 1
    assert len(caplog.records) == 2


async def test_threads_left_do_not_pile_up(held: Held) -> None:
    """However many jobs time out, never more threads are there than workers."""
    async with threads_of(2, unwind=0) as supervisor:
        jobs = [await supervisor.submit(job(held, timeout=0.01)) for _ in range(2)]
        for one in jobs:
            with pytest.raises(JobTimedOut):
                await one
        for _ in jobs:
            await held.has_begun()
        more = [await supervisor.submit(job(held, expires=0.05)) for _ in range(5)]
        for one in more:
            await one.wait()
        assert len(held.threads) == 2
        supervisor.resize("threads", 3)
        assert await supervisor.call(abs, -1) == 1  # another slot, another thread
        await held.has_ended()
        supervisor.resize("threads", 2)
        assert await supervisor.map(abs, [-1] * 5) == [1] * 5


async def test_retry_while_the_last_attempt_runs_on(held: Held, caplog: Log) -> None:
    """A timed-out attempt that runs on does not keep the next one, in another thread, from its
    value; it is abandoned by its own number, and its late value is nobody's. The report of a drain
    calls the job done: it has a value.
    """
    recorder = EventRecorder()

    def blocks_once() -> str:
        match current_job().attempt:
            case 1:
                raise OSError
            case 2:
                held()
                return "late"
            case _:
                return "in time"

    retry = Retry(3, on=(OSError, JobTimedOut), delay=0)
    async with threads_of(2, recorder, unwind=0.02) as supervisor:
        one = await supervisor.submit(job(blocks_once, timeout=1.0, retry=retry))
        report = await supervisor.drain()
        assert one.result() == "in time"
        assert (report.done, report.abandoned) == ((one.id,), ())
        assert [event.attempt for event in recorder.of(AttemptAbandoned, job_id=one.id)] == [2]
        await held.has_ended()
        assert one.result() == "in time"
    assert len(said(caplog, "abandoned attempt 2 of")) == 1


async def test_deaf_and_cancelled_by_a_stranger(held: Held) -> None:
    """However it came that nobody waits for a function, it is abandoned when it does not end."""
    recorder = EventRecorder()
    async with threads_of(1, recorder, unwind=0.02) as supervisor:
        one = await supervisor.submit(held)
        await held.has_begun()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(JobFailed):
            await one
        await recorder.wait_for(AttemptAbandoned, job_id=one.id)
        await held.has_ended()


async def test_cancelled_by_a_stranger(caplog: Log) -> None:
    """Somebody who cancels every task of the loop cancels a worker that waits for its thread: the
    function is told, and its slot stays taken until it ends.
    """
    started, may_end = threading.Event(), threading.Event()

    def polls_and_tidies() -> None:
        token = current_job().cancelled
        started.set()
        token.wait()
        may_end.wait()

    async with threads_of(1) as supervisor:
        one = await supervisor.submit(polls_and_tidies)
        await asyncio.to_thread(started.wait)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(JobFailed, match="nobody asked asyncworkers"):
            await one
        waiting = await supervisor.submit(abs, -1)
        for _ in range(5):
            await asyncio.sleep(0)
        assert waiting.state == "queued"
        may_end.set()
        assert await waiting == 1


# ---- leaving


async def test_leaving_gives_functions_time_to_end(caplog: Log) -> None:
    """Leaving normally, and draining, wait for functions that were told to stop."""
    ended = threading.Event()

    def polls_and_tidies() -> None:
        token = current_job().cancelled
        started.set()
        token.wait()
        tidied.wait()
        ended.set()

    for way in ("leaving", "draining"):
        ended.clear()
        started, tidied = threading.Event(), threading.Event()
        async with threads_of() as supervisor:
            one = await supervisor.submit(polls_and_tidies)
            await asyncio.to_thread(started.wait)
            one.cancel()
            await one.wait()
            asyncio.get_running_loop().call_later(0.02, tidied.set)
            if way == "draining":
                report = await supervisor.drain()
                assert ended.is_set()
                assert report.abandoned == ()
        assert ended.is_set()
    assert not caplog.records


@pytest.mark.parametrize("deaf", [False, True])
async def test_drain_and_log_agree(deaf: bool, caplog: Log, held: Held) -> None:
    """A drain whose grace is over tells threads to stop: those that do are reported as cancelled,
    those that do not as abandoned, and the log has a line for each of the latter, and for no other.
    """
    started = threading.Semaphore(0)

    def polls_after_start() -> None:
        token = current_job().cancelled
        started.release()
        token.wait()

    async with threads_of(4) as supervisor:
        polling = [await supervisor.submit(polls_after_start) for _ in range(2)]
        for _ in polling:
            await asyncio.to_thread(started.acquire)
        blocking = [await supervisor.submit(held) for _ in range(2)] if deaf else []
        for _ in blocking:
            await held.has_begun()
        report = await supervisor.drain(0)
        assert set(report.cancelled) == {one.id for one in polling}
        assert set(report.abandoned) == {one.id for one in blocking}
        assert report.done == report.not_started == ()
        again = await supervisor.drain(0)
        assert again.abandoned == again.cancelled == ()
    lines = said(caplog, "abandoned attempt")
    assert len(lines) == len(blocking)
    for one in blocking:
        assert sum(one.id in line for line in lines) == 1
    await held.has_ended()


async def test_drain_names_what_was_cancelled_before(caplog: Log, held: Held) -> None:
    """A job that was cancelled before the drain, and whose function runs on until it is abandoned
    in the drain, is in that report.
    """
    async with threads_of() as supervisor:
        one = await supervisor.submit(held)
        await held.has_begun()
        one.cancel()
        await one.wait()
        report = await supervisor.drain(0)
        assert report.abandoned == (one.id,)
    assert len(said(caplog, "abandoned attempt")) == 1
    await held.has_ended()


async def test_left_with_an_exception(caplog: Log, held: Held) -> None:
    """Leaving with an exception waits less than a second for threads, and names who is left."""
    with pytest.raises(LookupError):
        async with threads_of() as supervisor:
            one = await supervisor.submit(held)
            await held.has_begun()
            raise LookupError
    assert isinstance(one.exception(), JobCancelled)
    assert len(said(caplog, "abandoned attempt 1 of")) == 1
    await held.has_ended()
    assert not said(caplog, "event loop")


# ---- being told


async def test_on_cancel_unblocks() -> None:
    """A callback ends what the function blocks in: a socket that is read, a program that runs."""
    begun = threading.Semaphore(0)
    left, right = socket.socketpair()
    codes: list[int] = []

    def reads() -> bytes:
        with current_job().cancelled.on_cancel(lambda: left.shutdown(socket.SHUT_RDWR)):
            begun.release()
            return left.recv(10)

    def runs() -> None:
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        with (
            subprocess.Popen(command) as child,
            current_job().cancelled.on_cancel(child.kill),
        ):
            begun.release()
            codes.append(child.wait())

    with left, right:
        async with threads_of(2) as supervisor:
            jobs = [await supervisor.submit(function) for function in (reads, runs)]
            for _ in jobs:
                await asyncio.to_thread(begun.acquire)
            for one in jobs:
                one.cancel("enough")
                await one.wait()
        assert len(codes) == 1
        assert codes[0] != 0
        assert supervisor.stats().queues["threads"].abandoned == 0


async def test_on_cancel_is_called_once(caplog: Log) -> None:
    """Callbacks are called in their order, once each, at once when it is too late, not after they
    were taken back; and one that raises is logged, and harms neither the others nor the loop.
    """
    token, called = CancelToken(), list[str]()

    def raises() -> None:
        called.append("raises")
        raise SystemExit(3)

    token.on_cancel(lambda: called.append("first"))
    removed = token.on_cancel(lambda: called.append("removed"))
    assert "waiting" in repr(removed)
    removed.remove()
    removed.remove()
    assert "called or removed" in repr(removed)
    with token.on_cancel(lambda: called.append("left")) as entered:
        assert "waiting" in repr(entered)
    token.on_cancel(raises)
    last = token.on_cancel(lambda: called.append("last"))
    assert called == []
    token.cancel("enough")
    token.cancel("again")
    assert token.reason == "enough"
    assert called == ["first", "raises", "last"]
    assert "called or removed" in repr(last)
    token.on_cancel(lambda: called.append("late"))
    assert called[3:] == ["late"]
    assert len(said(caplog, "told of a cancellation, raised")) == 1
    assert caplog.records[0].levelno == logging.ERROR


async def test_on_cancel_from_many_threads() -> None:
    """While one thread cancels, others register and take back: each callback is called once, or
    was taken back, and none is forgotten.
    """
    for _ in range(50):
        token, barrier = CancelToken(), threading.Barrier(4)
        called: list[int] = []

        def registers(
            start: int,
            token: CancelToken = token,
            called: list[int] = called,
            barrier: Any = barrier,
        ) -> None:
            barrier.wait()
            for number in range(start, start + 20):
                token.on_cancel(lambda number=number: called.append(number))

        threads = [threading.Thread(target=registers, args=(20 * n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        barrier.wait()
        token.cancel("enough")
        for thread in threads:
            thread.join()
        assert sorted(called) == list(range(60))


async def test_on_cancel_on_the_loop() -> None:
    """A coroutine may be told too, for what it started elsewhere; a job that ends well calls nobody."""
    called: list[str] = []

    async def waits(name: str) -> None:
        current_job().cancelled.on_cancel(lambda: called.append(name))
        if name == "cancelled":
            await asyncio.Event().wait()

    async with Supervisor() as supervisor:
        await supervisor.call(waits, "ended")
        one = await supervisor.submit(waits, "cancelled")
        for _ in range(3):
            await asyncio.sleep(0)
        one.cancel()
        await one.wait()
        assert called == ["cancelled"]


def told_in_a_process(path: str) -> None:
    """For a child process: note that it was told to stop, and that it may be told."""
    from pathlib import Path

    def note() -> None:
        with Path(path).open("a") as file:
            file.write("told\n")

    with current_job().cancelled.on_cancel(note):
        Path(path + ".begun").touch()
        while True:
            threading.Event().wait(0.01)


async def test_on_cancel_in_a_process(tmp_path: Any) -> None:
    """In a process too the callback is called, once, though the function is interrupted there."""
    path = tmp_path / "notes"
    async with Supervisor(processes=1) as supervisor:
        one = await supervisor.submit(job(told_in_a_process, cpu=True), str(path))
        while not path.with_name("notes.begun").exists():  # another process
            await asyncio.sleep(0.01)
        one.cancel("enough")
        await one.wait()
        assert path.read_text() == "told\n"


async def test_asking_late() -> None:
    """Code that asks for its token when its attempt is over gets one that says so."""
    found: list[CancelToken] = []
    started, go = threading.Event(), threading.Event()

    def asks_late() -> None:
        running.append(one._runner())
        started.set()
        go.wait()
        found.append(current_job().cancelled)

    async with threads_of() as supervisor:
        running: list[Any] = []
        one = await supervisor.submit(asks_late)
        await asyncio.to_thread(started.wait)
        one.cancel("enough")
        await one.wait()
        go.set()
        assert await supervisor.call(abs, -1) == 1
        assert [bool(token) for token in found] == [True]
        assert found[0].reason == running[0].token.reason == "the attempt is over"


# ---- no thread to be had


@pytest.mark.virtual_time
async def test_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started the job waits, without having spent an attempt, and another
    try is made after a pause, not at once.
    """
    loop = asyncio.get_running_loop()
    start, tries = threading.Thread.start, list[float]()

    def cannot(thread: threading.Thread) -> None:
        if thread.name.startswith("asyncworkers-supervisor-threads"):
            tries.append(loop.time())
            if len(tries) < 3:
                raise RuntimeError("can't start new thread")
        start(thread)

    recorder = EventRecorder()
    monkeypatch.setattr(threading.Thread, "start", cannot)
    async with threads_of(1, recorder) as supervisor:
        one = await supervisor.submit(lambda: current_job().attempt)
        assert await one == 1
        assert len(tries) == 3
        assert one.attempt == 1
        ended = recorder.of(AttemptEnded, job_id=one.id)
        assert [event.outcome for event in ended] == ["Succeeded"]
    assert tries == [0.0, 0.5, 1.0]


# ---- when the program ends


def program(code: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; it may not take a minute."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_program_ends_with_abandoned_threads() -> None:
    """Abandoned threads keep no program from ending, and are spoken of once: when they are left."""
    ended = await asyncio.to_thread(
        program,
        """
        import asyncio, threading, time
        from asyncworkers import Queue, Supervisor, run

        begun = threading.Semaphore(0)
        go = threading.Event()

        def deaf(seconds):
            begun.release()
            go.wait(seconds)

        async def main():
            queues = [Queue("threads", 3, kind="threads", unwind=0.01)]
            async with Supervisor(queues=queues) as supervisor:
                jobs = [await supervisor.submit(deaf, seconds) for seconds in (60, 60, 600)]
                for _ in jobs:
                    await asyncio.to_thread(begun.acquire)
                report = await supervisor.drain(0)
                print(len(report.abandoned), "abandoned")

        run(main)
        go.set()
        time.sleep(0.2)  # they end while the program still runs, after its loop was closed
        """,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "3 abandoned\n"
    lines = ended.stderr.splitlines()
    assert len(lines) == 3
    assert all("abandoned attempt 1 of <Job deaf" in line for line in lines)


async def test_loop_closed_under_a_thread() -> None:
    """A loop that is closed without its supervisor being left loses results, and that is said once
    for each, by name of function and thread.
    """
    ended = await asyncio.to_thread(
        program,
        """
        import asyncio, threading, warnings
        from asyncworkers import Supervisor

        warnings.simplefilter("ignore")
        begun, go = threading.Event(), threading.Event()

        def late():
            begun.set()
            go.wait()
            return 1

        async def main():
            await supervisor.__aenter__()
            await supervisor.submit(late)
            await asyncio.to_thread(begun.wait)

        supervisor = Supervisor(stall=None)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        go.set()
        for thread in threading.enumerate():
            if thread.name.startswith("asyncworkers-supervisor-threads"):
                thread.join()
        """,
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if "event loop was closed" in line]
    assert len(lines) == 1
    assert (
        "while late ran in thread asyncworkers-supervisor-threads-1; its result is lost" in lines[0]
    )


async def test_nothing_is_left(held: Held) -> None:
    """No task, thread or file is left by threads that were used, told to stop, or abandoned."""
    await asyncio.to_thread(int)  # the loop's own executor has its thread
    async with no_leaks():
        async with threads_of(2, unwind=0.01) as supervisor:
            await supervisor.map(abs, range(-50, 0))
            one = await supervisor.submit(polls)
            two = await supervisor.submit(held)
            await held.has_begun()
            for each in (one, two):
                each.cancel()
                await each.wait()
        await held.has_ended()


# ---- the watchdog's patience


@pytest.mark.parametrize("stall", [None, 0.01, 0.3, timedelta(seconds=0.2)])
async def test_stall(stall: Any, caplog: Log) -> None:
    """`stall` says what is reported: what takes as long, and nothing with None, for which there is
    not even a thread.
    """
    recorder = EventRecorder()

    async def blocks() -> bool:
        wanted = None if stall is None else "stalled"
        waited = threading.Event()
        for _ in range(100 if wanted else 1):
            waited.wait(0.02)
            if wanted and said(caplog, "has been stalled"):
                return True
        return False

    async with Supervisor(stall=stall, listeners=[recorder]) as supervisor:
        watched = [t for t in threading.enumerate() if t.name.endswith("-watchdog")]
        assert len(watched) == (stall is not None)
        assert await supervisor.call(blocks) is (stall is not None)
        if stall is not None:
            stalled = await recorder.wait_for(LoopStalled)
            least = stall.total_seconds() if isinstance(stall, timedelta) else stall
            assert stalled.seconds >= least


@pytest.mark.parametrize("stall", [0, 0.009, -1, float("nan"), True, "1", timedelta(0)])
async def test_senseless_stall(stall: Any) -> None:
    """What is no time, or too short a time to look for, is refused by name."""
    with pytest.raises((TypeError, ValueError), match="stall must be"):
        Supervisor(stall=stall)


# ---- who cancels from inside what is told of it


async def test_a_callback_that_cancels_again_changes_nothing() -> None:
    """The first reason to cancel counts, also if being told of it makes somebody cancel once more."""
    begun = threading.Event()
    gate = threading.Event()

    def waits() -> None:
        with current_job().cancelled.on_cancel(again):
            begun.set()
            gate.wait()

    def again() -> None:
        cancelled.cancel("second")
        gate.set()

    async with threads_of() as supervisor:
        cancelled = await supervisor.submit(waits)
        await asyncio.to_thread(begun.wait)
        assert cancelled.cancel("first")
        assert (await cancelled.wait()).reason == "first"
        assert await supervisor.call(threading.get_ident)


async def test_a_listener_that_cancels_what_begins() -> None:
    """A job that is cancelled while its start is told ends so, is not called, and its thread goes on."""
    called: list[int] = []

    def listen(event: Any) -> None:
        if isinstance(event, AttemptStarted) and event.attempt == 1 and not called:
            called.append(0)
            assert first.cancel("not now")

    with no_leaks():
        async with threads_of() as supervisor:
            supervisor.listen(listen)
            first = await supervisor.submit(called.append, 1)
            with pytest.raises(JobCancelled, match="not now"):
                await first
            assert called == [0]
            assert await supervisor.call(threading.get_ident)
