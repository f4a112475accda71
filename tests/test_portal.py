"""A portal: a supervisor for code without `await`, in the loop of a thread, and all ways to leave it."""

import asyncio
import concurrent.futures
import contextvars
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asyncworkers import (
    Cancelled,
    JobCancelled,
    Queue,
    Retry,
    Supervisor,
    SupervisorClosed,
    SupervisorFailed,
    WrongLoop,
    WrongProcess,
    current_job,
    job,
)
from asyncworkers.portal import Portal
from asyncworkers.testing import no_leaks

LOOPS = ("asyncio", "uvloop")


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of loop that portals run."""
    monkeypatch.setenv("ASYNCWORKERS_LOOP", request.param)
    return str(request.param)


@pytest.fixture
def portal(loop: str) -> Iterator[Portal]:
    """An open portal, which is closed and has left nothing behind at the end."""
    with no_leaks(grace=5.0), Portal(Supervisor(50, threads=3, processes=1)) as opened:
        yield opened


async def double(number: int) -> int:
    """A job on the loop."""
    await asyncio.sleep(0)
    return number * 2


def treble(number: int) -> int:
    """A job in a thread or a process."""
    return number * 3


async def for_ever() -> None:
    """End only if cancelled."""
    await asyncio.Event().wait()


# ---- jobs and their ends


def test_calls_on_every_bridge(portal: Portal, loop: str) -> None:
    """`call` gives the value, whichever bridge the job takes, and runs on the loop that was asked for."""
    assert portal.call(double, 1) == 2
    assert portal.call(treble, 1) == 3
    assert portal.call(job(treble, cpu=True), 2) == 6
    assert portal.call(job(double).bind(4)) == 8
    kind = portal.run(lambda: type(asyncio.get_running_loop()).__module__)
    assert kind.partition(".")[0] == loop


def test_errors_are_the_very_same(portal: Portal) -> None:
    """What a job raises, and what is wrong with a call, is raised where it is waited for."""
    error = ValueError("no")

    async def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="no") as caught:
        portal.call(fail)
    assert caught.value is error
    failed = portal.submit(fail)
    with pytest.raises(ValueError, match="no") as caught:
        portal.result(failed)
    assert caught.value is error
    with pytest.raises(TypeError, match="missing a required argument: 'number'"):
        portal.call(double)
    with pytest.raises(TypeError, match="items must be an iterable"):
        portal.map(double, 5)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="window must be between"):
        portal.map(double, [], window=0)
    with pytest.raises(TypeError, match="job must be a Job or an id, not 7"):
        portal.cancel(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="supervisor must be a Supervisor, not 7"):
        Portal(7)  # type: ignore[arg-type]


def test_whatever_a_call_raises_ends_no_loop(portal: Portal) -> None:
    """SystemExit and the like come out of `run` and leave the portal as it was."""
    for error in (SystemExit(3), KeyboardInterrupt(), StopAsyncIteration(), GeneratorExit()):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)):
            portal.run(fail)
    assert portal.call(double, 2) == 4


def test_jobs_are_looked_at_and_steered(portal: Portal) -> None:
    """`submit` gives a Job, which can be waited for, and cancelled, any number of times."""
    done = portal.submit(double, 5)
    assert portal.result(done) == portal.result(done) == 10
    assert done.state == "succeeded"
    running = portal.submit(for_ever)
    with pytest.raises(TimeoutError):
        portal.wait(running, 0.01)
    assert portal.cancel(running, "enough")
    assert portal.wait(running) == Cancelled("enough")
    assert not portal.cancel(running.id)
    many = portal.submit_many(double, iter(range(3)))
    assert [portal.result(one) for one in many] == [0, 2, 4]


def test_submit_waits_for_room(loop: str) -> None:
    """Where the queue is full, the thread that submits waits until it has room."""
    gate = threading.Event()
    taken: list[int] = []
    with no_leaks(grace=5.0), Portal(Supervisor(threads=1, maxsize=1)) as portal:
        held = portal.submit(gate.wait)
        while held.state != "running":
            portal.run(asyncio.sleep, 0)
        portal.submit(treble, 1)

        def submit() -> None:
            taken.append(portal.result(portal.submit(treble, 2)))

        thread = threading.Thread(target=submit)
        thread.start()
        assert portal.run(lambda: portal.supervisor.stats().submitted) == 2
        assert not taken
        gate.set()
        thread.join()
    assert taken == [6]


def test_jobs_see_the_context_of_the_thread(portal: Portal) -> None:
    """A job has the context variables of the thread that asks for it."""
    variable = contextvars.ContextVar("variable", default="none")

    async def look() -> str:
        return variable.get()

    variable.set("here")
    assert portal.call(look) == "here"
    assert contextvars.Context().run(portal.call, look) == "none"
    assert portal.map(look_at(variable), [1]).all() == ["here"]


def look_at(variable: contextvars.ContextVar[str]) -> Callable[[int], Any]:
    """A job function that returns the variable."""

    async def look(_: int) -> str:
        return variable.get()

    return look


def test_many_threads_share_a_portal(portal: Portal) -> None:
    """It may be used from any thread but the loop's own, where it says what to do instead."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: portal.call(double, n), range(100))) == [
            2 * n for n in range(100)
        ]
    with pytest.raises(WrongLoop, match="await the supervisor's methods"):
        portal.run(portal.call, double, 1)

    async def from_a_job() -> int:
        return portal.call(double, 1)

    with pytest.raises(WrongLoop, match="await the supervisor's methods"):
        portal.call(from_a_job)
    assert portal.call(lambda: portal.call(double, 4)) == 8  # in a thread it may wait


def test_inside_a_running_loop(portal: Portal) -> None:
    """Where a loop runs, as in a notebook, it stands still while the portal is waited for."""

    async def cell() -> list[int]:
        return [*portal.map(double, range(3)), portal.call(treble, 1)]

    assert asyncio.run(cell()) == [0, 2, 4, 3]


# ---- streams


@pytest.mark.parametrize("cpu", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
def test_every_way_to_read_a_map(portal: Portal, cpu: bool, ordered: bool, lazy: bool) -> None:
    """`all`, `for`, `reduce` and `outcomes` give what the supervisor's stream gives."""

    def numbers() -> Any:
        return iter(range(600)) if lazy else range(600)

    wanted = [3 * number for number in range(600)]

    def mapped() -> Any:
        return portal.map(treble, numbers(), cpu=cpu, ordered=ordered)

    assert mapped().all() == wanted
    read = list(mapped())
    assert (read if ordered else sorted(read)) == wanted
    with mapped() as stream:
        read = list(stream)
    assert (read if ordered else sorted(read)) == wanted
    assert mapped().reduce(lambda one, other: one + other) == sum(wanted)
    assert mapped().reduce(lambda one, other: one + other, 5) == sum(wanted) + 5
    assert sorted(one.result() for one in mapped().outcomes()) == wanted
    assert len(mapped().outcomes().all()) == 600


def test_items_are_taken_where_they_are_read(portal: Portal) -> None:
    """An iterator runs in the thread that reads the results, as far ahead as the window allows, and
    what it raises is raised there after all results before.
    """
    threads: set[threading.Thread] = set()
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        for number in range(10_000):
            threads.add(threading.current_thread())
            taken = number
            yield number

    values = iter(portal.map(double, numbers(), window=5))
    assert [next(values) for _ in range(3)] == [0, 2, 4]
    assert taken < 2000  # a window, and what crosses at once, at most twice
    del values

    def broken() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("broken")

    read = []
    with pytest.raises(ZeroDivisionError, match="broken"):
        read.extend(portal.map(double, broken()))
    assert read == [2]
    assert threads == {threading.current_thread()}


def test_asynchronous_items_run_in_the_loop(portal: Portal) -> None:
    """An asynchronous iterable is read where it must be."""

    async def numbers() -> Any:
        for number in range(4):
            await asyncio.sleep(0)
            yield number

    assert portal.map(double, numbers()).all() == [0, 2, 4, 6]


def test_a_failure_ends_a_map(portal: Portal) -> None:
    """What a job raises is raised after the values before it, once; then there is no more."""

    async def fails_at_three(number: int) -> int:
        if number == 3:
            raise ValueError(number)
        return number

    for items in (range(100), iter(range(100))):
        values = iter(portal.map(fails_at_three, items))
        assert [next(values) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="3"):
            next(values)
        assert list(values) == []
    with pytest.raises(ValueError, match="3"):
        portal.map(fails_at_three, range(100)).all()
    kinds = [type(one.exception()) for one in portal.map(fails_at_three, range(5)).outcomes()]
    assert kinds == [type(None)] * 3 + [ValueError, type(None)]


def test_a_map_is_used_once(portal: Portal) -> None:
    """The second use is an error, and a map that is never used says so."""
    stream = portal.map(double, [1])
    assert stream.all() == [2]
    for use in (stream.all, lambda: list(stream), stream.outcomes, stream.__enter__):
        with pytest.raises(RuntimeError, match="can be used once"):
            use()
    assert repr(stream) == "<PortalStream used, ordered>"

    def forgets_one() -> None:
        portal.map(double, [1])
        portal.run(asyncio.sleep, 0)  # the loop's thread may be the last that lets go of it

    with pytest.warns(RuntimeWarning, match="a map was never used"):
        forgets_one()


@pytest.mark.parametrize("way", ["break", "with", "raise"])
def test_a_map_that_is_left_cancels_its_jobs(portal: Portal, way: str) -> None:
    """However its loop is left, the jobs it has started are cancelled; with `with`, before it goes on."""
    ended = threading.Event()

    async def waits(number: int) -> int:
        try:
            if number:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
            raise
        return number

    if way == "break":
        for _ in portal.map(waits, iter(range(10))):
            break
        assert ended.wait(20)
    elif way == "with":
        with portal.map(waits, iter(range(10))) as values:
            assert next(iter(values)) == 0
        assert ended.is_set()
    else:
        with pytest.raises(LookupError):
            for _ in portal.map(waits, range(10)):
                raise LookupError
        assert ended.wait(20)
    while portal.run(portal.supervisor.jobs):
        portal.run(asyncio.sleep, 0)
    assert portal.call(double, 1) == 2


def test_progress_of_a_map(portal: Portal, capsys: pytest.CaptureFixture[str]) -> None:
    """`progress` shows what it shows of any map."""
    assert portal.map(double, range(3)).progress("doubling").all() == [0, 2, 4]
    assert list(portal.map(double, iter(range(3))).progress("again").outcomes())
    lines = capsys.readouterr().err.splitlines()
    assert "3/3, in " in lines[1]
    assert lines[-1].startswith("again: 3, in ")


# ---- its life


def test_leaving_finishes_every_job(loop: str) -> None:
    """At the end of the block all jobs are done, retries and delays included."""
    ends: list[int] = []

    @job(retry=Retry(2, on=ValueError, delay=0.01, jitter=False))
    async def fails_at_first() -> None:
        if current_job().attempt == 1:
            raise ValueError
        ends.append(1)

    with no_leaks(grace=5.0):
        with Portal() as portal:
            portal.submit(fails_at_first)
            portal.submit(fails_at_first.options(delay=0.02))
        assert ends == [1, 1]
        assert repr(portal).startswith("<Portal closed to <Supervisor closed")


def test_leaving_with_an_error_cancels_every_job(loop: str) -> None:
    """The error goes on, and no job is left."""
    with no_leaks(grace=5.0), pytest.raises(LookupError):
        with Portal() as portal:
            waiting = portal.submit(for_ever)
            raise LookupError
    with pytest.raises(JobCancelled, match="left with an exception"):
        waiting.result()


def stuck_portal() -> Portal:
    """Return a portal whose blocking jobs may take an hour to notice that they are cancelled."""
    return Portal(Supervisor(queues=[Queue("threads", 1, kind="threads", unwind=3600)]))


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """What a job waits for that hears of no cancelling; it comes in a minute, or after the test."""
    comes = threading.Event()
    timer = threading.Timer(60, comes.set)
    timer.start()
    with no_leaks(grace=5.0):
        yield comes
        timer.cancel()
        timer.join()
        comes.set()


def test_leaving_with_an_error_does_not_wait_for_what_is_stuck(
    loop: str, stuck: threading.Event
) -> None:
    """A block is left as fast as that of any supervisor, however long a queue lets jobs unwind."""
    started = threading.Event()
    with pytest.raises(LookupError), stuck_portal() as portal:
        left = portal.submit(lambda: (started.set(), stuck.wait()))
        assert started.wait(60)
        raise LookupError
    assert not stuck.is_set()
    with pytest.raises(JobCancelled, match="left with an exception"):
        left.result()


def test_an_interrupt_at_the_end_does_not_wait_for_what_is_stuck(
    loop: str, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever interrupts the closing of a portal is not kept by a job that hears of nothing."""
    started = threading.Event()
    portal = stuck_portal().open()
    left = portal.submit(lambda: (started.set(), stuck.wait()))
    assert started.wait(60)
    monkeypatch.setattr("asyncworkers.portal._End.wait", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        portal.close()
    assert not stuck.is_set()
    with pytest.raises(JobCancelled, match="closing the portal was interrupted"):
        left.result()


def _interrupted(_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("wrong", [3, "an id", None])
def test_what_is_no_job_or_function_is_refused(portal: Portal, wrong: Any) -> None:
    """The error names the argument, where it was given."""
    for use in (portal.result, portal.wait):
        with pytest.raises(TypeError, match=f"^job must be a Job, not {wrong!r}"):
            use(wrong)
    with pytest.raises(TypeError, match=f"^function must be callable, not {wrong!r}"):
        portal.run(wrong)


def test_opened_and_closed_by_hand(loop: str) -> None:
    """Without a block it is opened and closed, in so many seconds, again and again; and says so."""
    portal = Portal()
    assert repr(portal).startswith("<Portal new to <Supervisor new")
    with no_leaks(grace=5.0):
        for _ in range(2):
            assert portal.open() is portal
            with pytest.raises(RuntimeError, match="was opened already"):
                portal.open()
            waiting = portal.submit(for_ever)
            report = portal.close(0)
            assert report.cancelled == (waiting.id,)
            assert portal.close() == report
            with pytest.raises(SupervisorClosed, match="accepts no calls"):
                portal.call(double, 1)


def test_before_it_is_open(loop: str) -> None:
    """Everything says that it must be opened first, and its supervisor must be free."""
    portal = Portal()
    for use in (portal.close, lambda: portal.call(double, 1), lambda: portal.map(double, [1])):
        with pytest.raises(SupervisorClosed, match="with Portal"):
            use()
    with no_leaks(grace=5.0), Portal() as one, pytest.raises(RuntimeError, match="was entered"):
        Portal(one.supervisor).open()
    with no_leaks(grace=5.0):
        one.open().close()


def test_a_drain_through_the_portal(portal: Portal) -> None:
    """`run` reaches every method of the supervisor, and what that refuses is refused here."""
    report = portal.run(portal.supervisor.drain, 1)
    assert report.done == ()
    with pytest.raises(SupervisorClosed, match="draining"):
        portal.submit(double, 1)


def test_a_supervisor_that_fails(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls, and closing it, raise SupervisorFailed with the cause, and no thread is left."""
    with no_leaks(grace=5.0):
        portal = Portal().open()
        cause = RuntimeError("a worker crashed")
        for _ in range(4):
            portal.run(portal.supervisor._worker_crashed, "default", cause)
        with pytest.raises(SupervisorFailed) as caught:
            portal.call(double, 1)
        assert caught.value.__cause__ is cause
        with pytest.raises(SupervisorFailed) as caught:
            portal.close()
        assert caught.value.__cause__ is cause


def test_what_waits_when_it_is_closed(loop: str) -> None:
    """Another thread that waits for a job gets its end when the portal is closed under it."""
    ends: list[BaseException | None] = []
    with no_leaks(grace=5.0):
        portal = Portal().open()
        waiting = portal.submit(for_ever)
        begun = threading.Event()

        async def wait() -> None:
            begun.set()
            await waiting

        def use() -> None:
            try:
                portal.run(wait)
            except BaseException as error:
                ends.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        assert begun.wait(20)
        portal.close(0)
        thread.join()
    assert [type(end) for end in ends] == [JobCancelled]


def test_one_that_is_forgotten(loop: str) -> None:
    """It warns when it goes away, and its thread ends with its jobs cancelled."""
    with no_leaks(grace=10.0):
        portals = [Portal().open()]
        waiting = portals[0].submit(for_ever)
        with pytest.warns(ResourceWarning, match="was never closed"):
            portals.clear()
        while not waiting.done():
            threading.Event().wait(0.001)
    with pytest.raises(JobCancelled, match="never closed"):
        waiting.result()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_in_a_forked_child(portal: Portal) -> None:
    """A child that was forked is told so instead of waiting for a thread that it has not."""
    child = os.fork()
    if not child:
        code = 1
        try:
            portal.call(double, 1)
        except WrongProcess:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert portal.call(double, 1) == 2


# ---- interrupts, and the end of the process


def script(text: str) -> str:
    """A program that uses a portal, and says when it waits."""
    head = """
        import asyncio, signal, sys, threading
        from asyncworkers import Supervisor, current_job, job
        from asyncworkers.portal import Portal

        def say(*words):
            sys.stdout.write(" ".join(map(str, words)) + "\\n")  # at once: threads say things, too
            sys.stdout.flush()

        async def on_the_loop(*_):
            say("waiting")
            await asyncio.Event().wait()

        def in_a_thread(*_):
            stopped = threading.Event()
            with current_job().cancelled.on_cancel(stopped.set):
                say("waiting")
                stopped.wait()
            say("stopped")

        def in_a_process(*_):
            say("waiting")
            while True:
                pass

        def interrupted(wait):
            try:
                wait()
            except KeyboardInterrupt:
                say("interrupted")
            else:
                say("NOT INTERRUPTED")
    """
    return textwrap.dedent(head) + textwrap.dedent(text)


def run_script(text: str, loop: str, presses: int = 0) -> tuple[str, str, int]:
    """Run it, press Ctrl-C each time it says that it waits, and return what it says and its end."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ASYNCWORKERS_LOOP": loop},
    )
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if line == "waiting\n" and presses:
            presses -= 1
            process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    error = process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    return said, error, process.wait(60)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_cancels_what_is_waited_for(loop: str) -> None:
    """A real SIGINT ends each wait, cancels its jobs on every bridge, and leaves the portal usable."""
    said, error, code = run_script(
        """
        with Portal(Supervisor(processes=1, stall=None)) as portal:
            interrupted(lambda: portal.call(on_the_loop))
            interrupted(lambda: portal.call(in_a_thread))
            interrupted(lambda: portal.call(job(in_a_process, cpu=True)))
            interrupted(lambda: portal.map(on_the_loop, [1]).all())
            interrupted(lambda: list(portal.map(on_the_loop, iter([1]))))
            interrupted(lambda: portal.map(on_the_loop, [1]).reduce(max))
            interrupted(lambda: portal.run(on_the_loop))
            kept = portal.submit(asyncio.Event().wait)
            interrupted(lambda: (say("waiting"), portal.result(kept)))
            say(kept.state, portal.cancel(kept), portal.wait(kept).reason)
            while portal.run(portal.supervisor.jobs):
                pass
            say(portal.map(abs, [-1]).all())
        """,
        loop,
        presses=8,
    )
    assert error == ""
    assert code == 0
    assert sorted(said.split("\n")[:-3]) == sorted(
        ["waiting"] * 8 + ["interrupted"] * 8 + ["stopped"]
    ), said
    assert said.endswith("running True cancel() was called\n[1]\n")


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_in_the_body_and_at_the_end(loop: str) -> None:
    """Where the body does not wait for a job, it leaves the block; while that finishes, it cancels."""
    said, error, code = run_script(
        """
        async def waits_for_the_end():
            while portal.supervisor.state == "open":
                await asyncio.sleep(0)
            await on_the_loop()

        try:
            with Portal(Supervisor(stall=None)) as portal:
                left = portal.submit(waits_for_the_end)
                say("waiting")
                threading.Event().wait()
        except KeyboardInterrupt:
            say("left", portal.supervisor.state, left.state)
        try:
            with Portal(Supervisor(stall=None)) as portal:
                left = portal.submit(waits_for_the_end)
        except KeyboardInterrupt:
            say("left", portal.supervisor.state, left.state)
        """,
        loop,
        presses=2,
    )
    assert (said, error, code) == ("waiting\nleft closed cancelled\n" * 2, "", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_while_the_loop_is_busy(loop: str) -> None:
    """A loop that a job blocks is waited for no longer than until Ctrl-C; what was asked for is not begun."""
    said, error, code = run_script(
        """
        gate = threading.Event()

        async def blocks():
            say("waiting")
            gate.wait()

        portal = Portal(Supervisor(stall=None)).open()
        interrupted(lambda: portal.call(blocks))
        begun = []
        async def begin():
            begun.append(1)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        interrupted(lambda: portal.call(begin))
        gate.set()
        say(portal.call(abs, -1), begun)
        portal.close()
        """,
        loop,
        presses=1,
    )
    assert (said, error, code) == ("waiting\ninterrupted\ninterrupted\n1 []\n", "", 0)


def test_one_that_is_never_closed_ends_with_the_process(loop: str) -> None:
    """At the end of the process its jobs are cancelled, they clean up, and it says how many there were."""
    said, error, code = run_script(
        """
        async def cleans_up():
            try:
                say("begun")
                await asyncio.Event().wait()
            finally:
                say("cleaned up")

        portal = Portal(Supervisor(processes=1, stall=None)).open()
        portal.call(job(abs, cpu=True), -1)
        left = portal.submit(cleans_up)
        while left.state != "running":
            pass
        """,
        loop,
    )
    assert code == 0
    assert said == "begun\ncleaned up\n"
    assert "its portal was never closed, and the process ends; 1 job is cancelled" in error
    assert "Traceback" not in error
    assert "lost" not in error


def test_a_process_ends_whatever_its_jobs_do(loop: str) -> None:
    """A job that refuses to end, and one that holds a thread, do not keep the process."""
    said, error, code = run_script(
        """
        async def refuses():
            say("begun")
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    pass

        with Portal(Supervisor(grace=0.1, stall=None)) as portal:
            portal.submit(refuses)
            portal.submit(threading.Event().wait)
            say(len(portal.close(0.1).abandoned))
        """,
        loop,
    )
    assert sorted(said.split()) == ["2", "begun"]
    assert code == 0, error


def test_a_value_is_let_go_with_whoever_asked(portal: Portal) -> None:
    """No cycle keeps what a call gave, not even where it has come before anybody waits for it."""

    class Value:
        pass

    def wait_for_it(home: Any, call: Any, function: Any, *args: Any) -> None:
        start(home, call, function, *args)
        while not call.come:
            pass

    start = type(portal._home).start
    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(portal._home), "start", wait_for_it)
            gone = weakref.ref(portal.run(Value))
        portal.run(asyncio.sleep, 0)  # the loop's thread may be the last that lets go of it
        assert gone() is None
    finally:
        gc.enable()
