"""Faults of the end (group X): every way to stop is bounded, loses nothing silently, takes nothing away.

Signals are real ones, sent to real processes that say by lines where they are.
"""

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from children import child, child_of, run_child
from invariants import trial, turns

from asyncworkers import (
    Job,
    JobCancelled,
    Queue,
    Retry,
    Supervisor,
    SupervisorClosed,
    current_job,
    job,
)
from asyncworkers import events as happened
from asyncworkers.signals import SignalChain
from asyncworkers.testing import EventRecorder
from asyncworkers.testing.plugin import Simulate

LOOPS = ("asyncio", "uvloop")

each_loop = pytest.mark.parametrize("loop", LOOPS)
each_signal = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])

Log = pytest.LogCaptureFixture


async def for_ever() -> None:
    """A job that ends only if it is cancelled."""
    await asyncio.Event().wait()


# ---- X01: the first signal


@each_loop
@each_signal
def test_fault_X01_first_signal_drains_while_the_body_goes_on(
    loop: str, number: signal.Signals
) -> None:
    """The first signal: nothing new from outside, what runs and what waits is finished with the
    body's help, the body that waits for ever is ended then, and the exit code is 0.
    """
    script = """
        async def main():
            draining, release = asyncio.Event(), asyncio.Event()

            def listener(event):
                if type(event).__name__ == "SupervisorDraining":
                    draining.set()

            async def work(name):
                await release.wait()
                say("done", name)

            async with Supervisor(workers=1, listeners=[listener]) as supervisor:
                await supervisor.submit(work, "running")
                await supervisor.submit(work, "queued")
                say("ready")
                await draining.wait()
                try:
                    await supervisor.submit(work, "late")
                except SupervisorClosed:
                    say("refused late")
                say("the body goes on")
                release.set()
                await asyncio.Event().wait()

        run(main)
    """
    with child(script, loop) as one:
        one.expect("ready")
        one.tell(number)
        assert one.ends() == 0, one.output
    order = [one.output.index(line) for line in ("refused late", "the body goes on", "done run")]
    assert order == sorted(order)
    assert one.output.index("done running") < one.output.index("done queued")
    assert "2 done, 0 cancelled, 0 not started, 0 abandoned" in one.output
    assert "Traceback" not in one.output


@each_loop
@each_signal
def test_fault_X01_when_the_grace_is_over_jobs_are_cancelled(
    loop: str, number: signal.Signals
) -> None:
    """What does not end within the grace is cancelled and reported; the exit code tells, also if
    the body awaits one of the cancelled jobs and so gets a JobCancelled.
    """
    script = """
        async def for_ever():
            await asyncio.Event().wait()

        async def main():
            async with Supervisor(workers=1, grace=0.05) as supervisor:
                running = await supervisor.submit(for_ever)
                await supervisor.submit(for_ever)
                say("ready")
                await running

        run(main)
    """
    with child(script, loop) as one:
        one.expect("ready")
        one.tell(number)
        assert one.ends() == 128 + number, one.output
    assert "0 done, 1 cancelled, 1 not started, 0 abandoned" in one.output
    assert "Traceback" not in one.output


@each_loop
def test_fault_X01_a_body_that_goes_on_submitting_does_not_break_the_drain(loop: str) -> None:
    """A body that meets with SupervisorClosed because of the drain leaves the `async with` by that
    exception; what was accepted is finished all the same, and the exit code is 0.
    """
    script = """
        async def main():
            refused = asyncio.Event()

            async def work(name):
                await refused.wait()
                say("done", name)

            async with Supervisor() as supervisor:
                await supervisor.submit(work, "first")
                say("ready")
                try:
                    while True:
                        supervisor.submit_nowait(asyncio.sleep, 0)
                        await asyncio.sleep(0)
                finally:
                    refused.set()

        run(main)
    """
    with child(script, loop) as one:
        one.expect("ready")
        one.tell(signal.SIGTERM)
        assert one.ends() == 0, one.output
    assert "done first" in one.output
    assert "0 cancelled, 0 not started, 0 abandoned" in one.output


@each_loop
def test_fault_X01_every_supervisor_of_the_program_is_drained(loop: str) -> None:
    """All supervisors that are open get the drain, also one that was entered after another had
    ended; one that a thread runs in a loop of its own is not touched from here.
    """
    script = """
        async def elsewhere():
            async with Supervisor(name="other-loop") as supervisor:
                open_there.set()
                await asyncio.to_thread(leave_there.wait)
                say("other loop is", supervisor.state)

        def thread():
            asyncio.run(elsewhere())

        async def main():
            async with Supervisor(name="ended"):
                pass
            async with Supervisor(name="a") as a, Supervisor(name="b") as b:
                running = [await one.submit(release.wait) for one in (a, b)]
                beside = asyncio.create_task(asyncio.to_thread(thread))
                await asyncio.to_thread(open_there.wait)
                say("ready")
                try:
                    while a.state == "open":
                        await asyncio.sleep(0.001)
                    release.set()
                    await asyncio.Event().wait()
                finally:
                    leave_there.set()
                    await beside

        release = asyncio.Event()
        open_there, leave_there = threading.Event(), threading.Event()
        run(main)
    """
    with child(script, loop) as one:
        one.expect("ready")
        one.tell(signal.SIGTERM)
        assert one.ends() == 0, one.output
    assert one.output.count("1 done, 0 cancelled") == 2
    assert "other loop is open" in one.output


@each_loop
def test_fault_X01_signal_without_a_supervisor_cancels_the_body(loop: str) -> None:
    """A program that has entered no supervisor is ended by the first signal, with code 0."""
    script = """
        async def main():
            say("ready")
            await asyncio.Event().wait()

        run(main)
    """
    with child(script, loop) as one:
        one.expect("ready")
        one.tell(signal.SIGTERM)
        assert one.ends() == 0, one.output


# ---- X02: the second and the third


@each_loop
@each_signal
def test_fault_X02_second_signal_cancels(loop: str, number: signal.Signals) -> None:
    """The second signal cancels jobs and body although the grace is long, code 128 + n; a thread
    that is blocked and a job that swallows every cancellation do not hold it up.
    """
    script = """
        async def tender():
            try:
                await asyncio.Event().wait()
            finally:
                say("cancelled:", sys.exc_info()[0].__name__)

        async def stubborn():
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    pass

        def blocked():
            threading.Event().wait()

        async def main():
            async with Supervisor(grace=3600) as supervisor:
                for function in (tender, stubborn, blocked):
                    await supervisor.submit(function)
                await supervisor.submit(job(tender, delay=3600))
                await asyncio.sleep(0)
                say("ready")
                await asyncio.Event().wait()

        run(main)
    """
    with child(script, loop) as one:
        one.expect("ready")
        one.tell(number)
        one.expect("draining; once more cancels everything")
        one.tell(number)
        assert one.ends() == 128 + number, one.output
    assert "cancelled: CancelledError" in one.output
    assert "0 done, 1 cancelled, 1 not started, 2 abandoned" in one.output, one.output


@each_loop
def test_fault_X02_second_signal_ends_a_body_that_leaves_normally(loop: str) -> None:
    """A body that has come to its end waits for its jobs; the second signal cuts that short too."""
    script = """
        async def main():
            async with Supervisor(grace=3600) as supervisor:
                await supervisor.submit(asyncio.Event().wait)
                say("ready")

        run(main)
    """
    with child(script, loop) as one:
        one.expect("ready")
        one.tell(signal.SIGTERM)
        one.expect("once more")
        one.tell(signal.SIGTERM)
        assert one.ends() == 128 + signal.SIGTERM, one.output


BLOCKED = """
    async def spin():
        say("blocking")
        while True:
            pass

    async def search():
        say("blocking")
        re.match("(a+)+$", "a" * 60 + "b")  # would take a thousand years

    async def main():
        async with Supervisor() as supervisor:
            say_when_heard()
            await supervisor.submit({job})
            await asyncio.Event().wait()

    module("asyncworkers.run").DEAD_LOOP = {dead_loop}
    run(main)
"""


@each_loop
def test_fault_X02_second_signal_ends_a_loop_stuck_in_python(loop: str) -> None:
    """A job that blocks the loop in Python: a thread sees that the loop does not turn after the
    second signal, shows where it is stuck and ends the process with 128 + n.
    """
    with child(BLOCKED.format(job="spin", dead_loop=0.3), loop) as one:
        one.expect("blocking")
        for _ in range(2):
            one.tell(signal.SIGTERM)
            one.expect("heard SIGTERM")
        assert one.ends() == 128 + signal.SIGTERM, one.output
    assert "the event loop is stuck; the process ends now" in one.output
    assert "in spin" in one.output


@each_loop
def test_fault_X02_second_signal_ends_a_loop_stuck_in_a_call_that_holds_the_gil(loop: str) -> None:
    """No Python thread can run then, so the end comes from C: code 1, with the place."""
    with child(BLOCKED.format(job="search", dead_loop=0.3), loop) as one:
        one.expect("blocking")
        for _ in range(2):
            one.tell(signal.SIGTERM)
            one.expect("heard SIGTERM")
        assert one.ends() == 1, one.output
    assert "in search" in one.output


@each_loop
@pytest.mark.parametrize("stuck", ["spin", "search"])
def test_fault_X02_third_signal_ends_the_process_on_the_spot(loop: str, stuck: str) -> None:
    """The third signal needs neither the loop nor a thread: `os._exit(128 + n)`."""
    with child(BLOCKED.format(job=stuck, dead_loop=3600), loop) as one:
        one.expect("blocking")
        for number in (signal.SIGTERM, signal.SIGTERM):
            one.tell(number)
            one.expect("heard")
        one.tell(signal.SIGINT)
        assert one.ends() == 128 + signal.SIGINT, one.output
    assert one.output.count("heard") == 2


@each_loop
def test_fault_X02_after_the_loop_has_turned_nothing_is_killed(loop: str) -> None:
    """The last resort is called off once the loop turns: a body may take longer to end than that,
    its code decides, and nobody ends the process behind its back.
    """
    script = """
        async def main():
            async with Supervisor():
                say("ready")
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    say("cleaning up")
                    await asyncio.sleep(1.0)  # longer than both last resorts
                    say("clean")

        module("asyncworkers.run").DEAD_LOOP = 0.05
        run(main)
    """
    with child(script, loop) as one:
        one.expect("ready")
        one.tell(signal.SIGTERM)
        one.expect("cleaning up")
        assert one.ends() == 0, one.output
    assert "clean\n" in one.output


# ---- X03: bounded whatever jobs do


async def stubborn() -> None:
    """A job that swallows every cancellation."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if _released:
                raise


_released: list[bool] = []


@pytest.fixture
def released() -> Iterator[list[bool]]:
    """Filled at the end of a test, so that the loop's own end finds obedient tasks."""
    yield _released
    _released.clear()


async def slow_to_end() -> None:
    """A job whose `finally` takes an hour."""
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(3600)


async def drained_seconds(supervisor: Supervisor, grace: float) -> tuple[float, Any]:
    """How long a drain takes, in the loop's own time."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    report = await supervisor.drain(grace)
    return loop.time() - began, report


@pytest.mark.asyncio
@pytest.mark.virtual_time
@pytest.mark.parametrize("function", [stubborn, slow_to_end])
async def test_fault_X03_stubborn_job(function: Any, released: list[bool]) -> None:
    """A job that does not end when cancelled is abandoned: `drain(grace)` returns within one
    second after the grace and names it, its awaiter is told, and leaving takes a moment only.
    """
    async with Supervisor() as supervisor:
        job = await supervisor.submit(function)
        await turns()
        seconds, report = await drained_seconds(supervisor, 5)
        assert 5 <= seconds <= 6
        assert report.abandoned == (job.id,)
        assert (report.done, report.cancelled, report.not_started) == ((), (), ())
        assert job.id in str(report)
        with pytest.raises(JobCancelled, match="grace"):
            await job
        released.append(True)
    assert supervisor.state == "closed"


@pytest.mark.asyncio
async def test_fault_X03_blocked_thread(caplog: Log) -> None:
    """A thread cannot be stopped: the job is cancelled, the thread gets the token, the report
    names it, and neither the drain nor the exit waits for it.
    """
    let_go, begun, saw = threading.Event(), threading.Event(), list[str | None]()

    def blocked() -> None:
        token = current_job().cancelled
        begun.set()
        let_go.wait()
        saw.append(token.reason)

    async with trial(caplog, leaks=("thread *",)) as t:
        job = await t.supervisor.submit(blocked)
        await asyncio.get_running_loop().run_in_executor(None, begun.wait)
        inner = Supervisor(name="inner")
        async with inner:
            held = await inner.submit(blocked)
            begun.clear()
            await asyncio.get_running_loop().run_in_executor(None, begun.wait)
            report = await inner.drain(0)
            assert report.abandoned == (held.id,)
            assert held.state == "cancelled"
        assert inner.state == "closed"
        assert saw == []  # all of that without waiting for the thread
        let_go.set()
        await job
    assert "the grace of the drain was over" in saw


@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_fault_X03_leaving_with_an_exception_is_bounded(released: list[bool]) -> None:
    """Also an exit by an exception does not wait for what refuses to end: a second is enough."""
    loop = asyncio.get_running_loop()
    with pytest.raises(ZeroDivisionError):
        async with Supervisor() as supervisor:
            jobs = [await supervisor.submit(stubborn) for _ in range(10)]
            await turns()
            began = loop.time()
            raise ZeroDivisionError
    assert loop.time() - began <= 1
    assert {one.state for one in jobs} == {"cancelled"}
    released.append(True)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await turns()


@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_fault_X03_cancelled_while_it_ends(released: list[bool]) -> None:
    """Whoever is cancelled while leaving still leaves nothing open: every job has its end, the
    watchdog is gone, the listeners heard of the end.
    """
    recorder = EventRecorder()
    supervisor = Supervisor(listeners=[recorder])
    jobs: list[Job[Any]] = []

    async def host() -> None:
        async with supervisor:
            jobs.extend([await supervisor.submit(stubborn) for _ in range(2)])
            await turns()
            raise ZeroDivisionError

    hosting = asyncio.create_task(host())
    await recorder.wait_for(happened.AttemptStarted, count=2)
    await turns(10)  # it is in the middle of its end, where the stubborn are waited for
    hosting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hosting
    assert supervisor.state == "closed"
    assert [one.state for one in jobs] == ["cancelled", "cancelled"]
    assert len(recorder.of(happened.SupervisorClosed)) == 1
    released.append(True)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await turns()


# ---- X04: killed while it drains


@each_loop
def test_fault_X04_killed_during_a_drain(loop: str, tmp_path: Path) -> None:
    """SIGKILL in the middle of a drain, with jobs running on the loop, in a thread and waiting: the
    process is gone at once and nothing of it stays, no process and no file. What it had in memory
    is lost, as is documented; a new one begins with nothing.
    """
    script = """
        def blocked():
            threading.Event().wait()

        async def main():
            async with Supervisor(workers=1, grace=3600) as supervisor:
                for function in (asyncio.Event().wait, blocked, asyncio.Event().wait):
                    await supervisor.submit(function)
                await supervisor.submit(job(asyncio.sleep, delay=3600), 0)
                say("ready with", len(supervisor.jobs()))
                await asyncio.Event().wait()

        os.setsid()
        os.chdir(os.environ["TMPDIR"])
        run(main)
    """
    with child(script, loop, TMPDIR=str(tmp_path), HOME=str(tmp_path)) as one:
        one.expect("ready with 4")
        one.tell(signal.SIGTERM)
        one.expect("draining; once more cancels everything")
        one.tell(signal.SIGKILL)
        assert one.ends() == -signal.SIGKILL, one.output
        with pytest.raises(ProcessLookupError):
            os.killpg(one.process.pid, 0)  # its session has nobody left
    assert list(tmp_path.iterdir()) == []
    assert Supervisor().stats().submitted == 0


# ---- X06: signals are chained


@pytest.fixture
def host_handler() -> Iterator[list[int]]:
    """A host's own SIGTERM handler, and what it has heard."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    yield heard
    signal.signal(signal.SIGTERM, before)


def test_fault_X06_the_hosts_handler_hears_too(host_handler: list[int]) -> None:
    """A handler installed before ours is called after ours, and is put back as it was."""
    its_own = signal.getsignal(signal.SIGTERM)
    heard: list[int] = []
    with SignalChain(heard.append, call_previous=True):
        assert signal.getsignal(signal.SIGTERM) is not its_own
        signal.raise_signal(signal.SIGTERM)
        assert heard == host_handler == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is its_own
    signal.raise_signal(signal.SIGTERM)
    assert (len(heard), len(host_handler)) == (1, 2)


def test_fault_X06_a_handler_installed_after_ours_stays(host_handler: list[int]) -> None:
    """Who replaced our handler keeps theirs when we leave; if theirs calls ours, ours says nothing
    any more and passes the signal on to whom it had before.
    """
    heard: list[int] = []
    later: list[int] = []
    with SignalChain(heard.append, call_previous=True):
        ours: Any = signal.getsignal(signal.SIGTERM)

        def handler(number: int, frame: Any) -> None:
            later.append(number)
            ours(number, frame)

        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
        assert heard == later == host_handler == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is handler
    signal.raise_signal(signal.SIGTERM)
    assert (len(heard), len(later), len(host_handler)) == (1, 2, 2)


def test_fault_X06_ignored_signals_stay_ignored() -> None:
    """A signal that is ignored on purpose, as under `nohup`, is left alone."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        heard: list[int] = []
        with SignalChain(heard.append, call_previous=False):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            signal.raise_signal(signal.SIGTERM)
        assert heard == []
    finally:
        signal.signal(signal.SIGTERM, before)


def test_fault_X06_nothing_is_installed_off_the_main_thread() -> None:
    """In another thread handlers cannot be installed, and that is no error."""
    seen: list[object] = []

    def elsewhere() -> None:
        with SignalChain(seen.append, call_previous=True):
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.asyncio
async def test_fault_X06_an_embedded_supervisor_touches_no_handler(host_handler: list[int]) -> None:
    """In a host's loop the signals are the host's: entering changes nothing, neither does leaving."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    async with Supervisor() as supervisor:
        await supervisor.call(asyncio.sleep, 0)
        assert [signal.getsignal(number) for number in numbers] == before
        signal.raise_signal(signal.SIGTERM)
        assert host_handler == [signal.SIGTERM]
        assert supervisor.state == "open"
    assert [signal.getsignal(number) for number in numbers] == before


@each_loop
def test_fault_X06_run_puts_back_what_it_found(loop: str) -> None:
    """After `run` the handlers are those from before, whether it ended well or by a signal."""
    script = """
        def host(number, frame):
            say("host heard")

        async def fine():
            return signal.getsignal(signal.SIGTERM) is not host

        async def signalled():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

        signal.signal(signal.SIGTERM, host)
        say("ours inside:", run(fine), signal.getsignal(signal.SIGTERM) is host)
        try:
            run(signalled)
        except SystemExit as end:
            say("ended by", end.code, signal.getsignal(signal.SIGTERM) is host)
        os.kill(os.getpid(), signal.SIGTERM)
    """
    output = run_child(script, loop)
    assert "ours inside: True True" in output
    assert "ended by 0 True" in output
    assert output.count("host heard") == 1


# ---- X07: ending while it begins, and submitting meanwhile


@pytest.mark.asyncio
async def test_fault_X07_ended_as_soon_as_begun(caplog: Log) -> None:
    """Entering takes no turn of the loop, so nothing can come in between; ending at once, twice
    and from several sides is harmless, and a second entry meanwhile is refused.
    """
    supervisor = Supervisor()
    entering = [asyncio.create_task(supervisor.__aenter__()) for _ in range(2)]
    entered, refused = await asyncio.gather(*entering, return_exceptions=True)
    assert entered is supervisor
    assert isinstance(refused, RuntimeError)
    reports = await asyncio.gather(supervisor.drain(), supervisor.drain(0), supervisor.drain())
    assert all(report.abandoned == () for report in reports)
    await supervisor.__aexit__(None, None, None)
    assert supervisor.state == "closed"


@pytest.mark.asyncio
async def test_fault_X07_submitting_during_a_drain(caplog: Log) -> None:
    """While it drains, jobs from outside are refused by every way in, and the supervisor's own
    jobs may go on submitting; who waits for room is refused too.
    """
    release = asyncio.Event()

    async def child() -> str:
        return "born while draining"

    async def parent() -> str:
        await release.wait()
        return await supervisor.call(child)

    async with Supervisor(queues=[Queue("default", 1, maxsize=1)]) as supervisor:
        job_of_parent = await supervisor.submit(parent)
        await turns()
        queued = await supervisor.submit(asyncio.sleep, 0)
        waiting = asyncio.create_task(supervisor.submit(asyncio.sleep, 0))
        await turns()
        draining = asyncio.create_task(supervisor.drain())
        await turns()
        with pytest.raises(SupervisorClosed):
            await waiting
        for way_in in (
            lambda: supervisor.submit(child),
            lambda: supervisor.call(child),
            lambda: supervisor.submit_many(asyncio.sleep, [0]),
            lambda: supervisor.map(asyncio.sleep, [0]),
        ):
            with pytest.raises(SupervisorClosed):
                await way_in()
        with pytest.raises(SupervisorClosed):
            supervisor.submit_nowait(child)
        future = supervisor.submit_threadsafe(child)
        with pytest.raises(SupervisorClosed):
            await asyncio.wrap_future(future)
        release.set()
        report = await draining
        assert await job_of_parent == "born while draining"
        assert set(report.done) == {job_of_parent.id, queued.id}
    with pytest.raises(SupervisorClosed, match="closed"):
        await supervisor.submit(child)


def test_fault_X07_every_interleaving_ends(sim: Simulate) -> None:
    """Whatever the order of submitting, draining and leaving: each submission either is refused or
    gives a job that ends, and the supervisor is closed. 300 seeds.
    """

    async def main() -> None:
        accepted: list[Job[Any]] = []
        outside = asyncio.Event()

        async def submitter(supervisor: Supervisor, number: int) -> None:
            try:
                for _ in range(3):
                    accepted.append(await supervisor.submit(asyncio.sleep, number / 100))
            except SupervisorClosed:
                outside.set()

        supervisor = Supervisor(queues=[Queue("default", 2, maxsize=2)])
        async with supervisor:
            tasks = [asyncio.create_task(submitter(supervisor, n)) for n in range(4)]
            await asyncio.sleep(0.01)
            tasks += [asyncio.create_task(supervisor.drain(0.02)) for _ in range(2)]
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)
        assert supervisor.state == "closed"
        assert all(one.done() for one in accepted)

    sim(main, seeds=300)


# ---- X08: left with an exception


class Unusual(BaseException):
    """A BaseException of nobody's."""


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "error", [ValueError("mine"), asyncio.CancelledError("mine"), Unusual("mine")], ids=repr
)
async def test_fault_X08_an_exception_cancels_and_propagates(
    error: BaseException, caplog: Log
) -> None:
    """Leaving with an exception cancels what runs, waits and is scheduled, with that reason, and
    the very exception comes out.
    """
    settled: list[Job[Any]] = []
    ended: list[str] = []

    async def running() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("running")

    async with trial(caplog):
        with pytest.raises(type(error)) as caught:
            async with Supervisor(workers=1) as supervisor:
                settled.append(await supervisor.submit(running))
                settled.append(await supervisor.submit(running))
                settled.append(await supervisor.submit(job(running, delay=3600)))
                await turns()
                raise error
        assert caught.value is error
    assert ended == ["running"]
    for one in settled:
        assert one.state == "cancelled"
        outcome = await one.wait()
        assert outcome.reason == "the supervisor was left with an exception"


# ---- X09: as PID 1, with a bounded budget


needs_namespaces = pytest.mark.skipif(
    sys.platform != "linux"
    or shutil.which("unshare") is None
    or subprocess.run(
        ["unshare", "--pid", "--fork", "true"], check=False, capture_output=True
    ).returncode
    != 0,
    reason="no PID namespace may be made here",
)


@needs_namespaces
@each_loop
def test_fault_X09_as_pid_1_it_drains_and_ends(loop: str) -> None:
    """In a container without an init the program is PID 1, where a signal that nobody handles is
    ignored: ours is handled, the drain keeps its grace, and the process ends with its code.
    """
    script = """
        async def main():
            async with Supervisor(grace=0.05) as supervisor:
                await supervisor.submit(asyncio.Event().wait)
                say("I am", os.getpid())
                await asyncio.Event().wait()

        run(main)
    """
    with child(script, loop, before=["unshare", "--pid", "--fork", "--kill-child"]) as one:
        assert one.expect("I am") == "I am 1"
        os.kill(child_of(one.process.pid), signal.SIGTERM)
        assert one.ends() == 128 + signal.SIGTERM, one.output
    assert "0 done, 1 cancelled" in one.output


@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_fault_X09_the_grace_is_the_budget(released: list[bool]) -> None:
    """Whatever jobs do, a drain takes the grace and at most a second: 8 s fit the 10 s of docker
    stop, 25 s the 30 s of Kubernetes; the supervisor's own grace is the default.
    """
    for grace in (8.0, 25.0):
        async with Supervisor(workers=4, grace=grace) as supervisor:
            for function in (stubborn, slow_to_end, for_ever, for_ever, for_ever):
                await supervisor.submit(function)
            await supervisor.submit(job(for_ever, retry=Retry(5, on=OSError), timeout=1))
            loop = asyncio.get_running_loop()
            began = loop.time()
            report = await supervisor.drain()
            assert grace <= loop.time() - began <= grace + 1
            assert len(report.abandoned) == 2
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            released.append(True)
            task.cancel()
        await turns()
        released.clear()


# ---- X10: listeners that raise at the end


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "error", [ValueError("hook"), SystemExit(3), KeyboardInterrupt()], ids=repr
)
@pytest.mark.parametrize(
    "kind",
    [
        happened.SupervisorDraining,
        happened.AttemptEnded,
        happened.JobSettled,
        happened.SupervisorClosed,
    ],
)
async def test_fault_X10_listener_raises_at_shutdown(
    kind: type[happened.Event], error: BaseException, caplog: Log
) -> None:
    """A listener that raises at the end is dropped, once and loudly; the others are told
    everything, every job has its end, and the supervisor closes.
    """
    calls: list[happened.Event] = []

    def breaks(event: happened.Event) -> None:
        if isinstance(event, kind):
            calls.append(event)
            raise error

    async with trial(caplog) as t:
        recorder = EventRecorder()
        async with Supervisor(listeners=[breaks, recorder]) as supervisor:
            one = await supervisor.submit(asyncio.sleep, 0)
            await supervisor.drain()
        assert supervisor.state == "closed"
        assert one.state == "succeeded"
        assert len(calls) == 1
        assert len(recorder.of(kind)) == 1
        assert len(recorder.of(happened.ListenerDropped)) == 1
        assert isinstance(recorder.all[-1], (happened.SupervisorClosed, happened.ListenerDropped))
        assert t.supervisor.state == "open"
    dropped = [r for r in caplog.records if "dropped listener" in r.getMessage()]
    assert [record.levelno for record in dropped] == [logging.ERROR]


@pytest.mark.asyncio
async def test_fault_X10_a_listener_that_ends_the_supervisor_again(caplog: Log) -> None:
    """A listener that calls back into the supervisor that ends changes nothing about the end."""

    def meddles(event: happened.Event) -> None:
        if isinstance(event, (happened.SupervisorDraining, happened.JobSettled)):
            supervisor.cancel_all("a listener said so")

    async with trial(caplog):
        supervisor = Supervisor(listeners=[meddles])
        async with supervisor:
            one = await supervisor.submit(for_ever)
            await turns()
        assert one.state == "cancelled"
        assert supervisor.state == "closed"
