"""Faults of the loop and of its host (group L): another loop, thread or process, a loop that stops or
closes, an interpreter that ends, and what a host may run out of.
"""

import asyncio
import contextlib
import contextvars
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from children import child, run_child
from invariants import CANARY, PLACES, blocking_echo, echo, trial, turns, until

from asyncworkers import (
    Job,
    JobCancelled,
    JobTimedOut,
    Queue,
    Retry,
    Supervisor,
    SupervisorClosed,
    WrongLoop,
    current_job,
    job,
    run,
)
from asyncworkers._engine import call_worker as worker_module
from asyncworkers._engine import crew as crew_module
from asyncworkers.portal import Portal
from asyncworkers.testing import no_leaks

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

each_loop = pytest.mark.parametrize("loop", LOOPS)
both_loops = pytest.mark.asyncio

Log = pytest.LogCaptureFixture


async def fail(_payload: object = None) -> None:
    """Fail."""
    raise ValueError("no")


async def for_ever() -> None:
    """A job that ends only if it is cancelled."""
    await asyncio.Event().wait()


# ---- L01: whatever loop the host runs


def _eager() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def _own_factory(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> asyncio.AbstractEventLoop:
    """A host that makes its tasks itself, as some tracers do."""

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coroutine, loop=loop, **options)

    loop = new_loop()
    loop.set_task_factory(make)
    return loop


HOSTS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    **LOOPS,
    "asyncio, own task factory": lambda: _own_factory(asyncio.new_event_loop),
    "uvloop, own task factory": lambda: _own_factory(uvloop.new_event_loop),
}
if sys.version_info >= (3, 12):
    HOSTS["asyncio, eager tasks"] = _eager


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("host", HOSTS)
def test_fault_L01_whatever_loop_the_host_runs(caplog: Log, host: str, debug: bool) -> None:
    """Stock or uvloop, with eager tasks or a task factory of the host's, in debug mode or not: jobs
    in every place end as they should, and the loop has nothing to complain about.
    """

    async def life() -> None:
        asyncio.get_running_loop().slow_callback_duration = 60  # the machine may be busy
        for place in PLACES:
            await everything(place)

    async def everything(place: str) -> None:
        async with trial(caplog, place=place) as t:
            function = blocking_echo if place == "in a thread" else echo
            assert await (await t.submit(place, function, CANARY)) == CANARY
            with pytest.raises(ValueError, match="no"):
                await (await t.submit(place, job(fail, retry=Retry(2, on=ValueError, delay=0))))
            with pytest.raises(JobTimedOut):
                await (await t.submit(place, job(for_ever, timeout=0.01)))
            cancelled = await t.submit(place, for_ever)
            await turns()
            cancelled.cancel()
            with pytest.raises(JobCancelled):
                await cancelled
            with t.going_to(place):
                assert await t.supervisor.map(function, range(50)) == list(range(50))
                parent = await t.supervisor.submit(calls_back, t.supervisor, function)
            assert await parent == 7

    async def calls_back(supervisor: Supervisor, function: Any) -> int:
        return int(await supervisor.call(function, 7))

    with asyncio.Runner(loop_factory=HOSTS[host], debug=debug) as runner:
        runner.run(life())


# ---- L02: another thread, another loop


Use = Callable[[Supervisor, Job[Any]], Any]

USES: dict[str, Use] = {
    "submit": lambda s, _: s.submit(echo, 1),
    "submit what is known": lambda s, _: s.submit(known, 1),
    "submit_nowait": lambda s, _: s.submit_nowait(echo, 1),
    "submit_nowait what is known": lambda s, _: s.submit_nowait(known, 1),
    "submit_many": lambda s, _: s.submit_many(echo, [1]),
    "call": lambda s, _: s.call(echo, 1),
    "map": lambda s, _: s.map(echo, [1]),
    "jobs": lambda s, _: s.jobs(),
    "cancel": lambda s, one: s.cancel(one),
    "pause": lambda s, _: s.pause("default"),
    "resume": lambda s, _: s.resume("default"),
    "resize": lambda s, _: s.resize("default", 3),
    "drain": lambda s, _: s.drain(),
    "cancel_all": lambda s, _: s.cancel_all(),
    "Job.cancel": lambda _, one: one.cancel(),
    "Job.wait": lambda _, one: one.wait(),
    "Job.__await__": lambda _, one: one,
}
"""Every use of a supervisor and its jobs that belongs to its loop."""

TO_BE_AWAITED = {"submit", "submit what is known", "submit_many", "call", "map", "drain"} | {
    "Job.wait",
    "Job.__await__",
}
"""Those that begin when they are awaited, and so in a loop."""

READS: dict[str, Use] = {
    "stats": lambda s, _: s.stats(),
    "explain": lambda s, _: s.explain(),
    "state": lambda s, _: s.state,
    "repr": lambda s, one: (repr(s), repr(one), one.why, one.state, one.id),
    "get": lambda s, one: s.get(one.id).state,
}
"""What may be read from anywhere: a moment's figures, for people."""


async def known_echo(value: Any) -> Any:
    """A job whose function the supervisor knows already: it takes the shortest way in."""
    return value


known = job(known_echo)


async def _awaited(value: Any) -> Any:
    return await value if hasattr(value, "__await__") else value


def _in_bare_thread(use: Callable[[], Any]) -> Any:
    """Use it in a thread that has no loop, and so cannot await anything."""
    return use()


def _in_loop_of_another_thread(use: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return await _awaited(use())

    return asyncio.run(main())


@both_loops
@pytest.mark.parametrize("elsewhere", [_in_bare_thread, _in_loop_of_another_thread])
async def test_fault_L02_used_elsewhere(
    caplog: Log, elsewhere: Callable[[Callable[[], Any]], Any]
) -> None:
    """In another thread, with a loop or without one, everything that belongs to the loop raises
    WrongLoop and changes nothing; `submit_threadsafe` is routed; what only reads may be read.
    """
    async with trial(caplog, leaks=("thread 'uvloop_*'",)) as t:  # the loop's own executor
        loop = asyncio.get_running_loop()
        gate = asyncio.Event()
        held = await t.supervisor.submit(gate.wait)
        await t.supervisor.call(known, 1)
        before = t.supervisor.stats()
        for name, use in USES.items():
            if elsewhere is _in_bare_thread and name in TO_BE_AWAITED:
                continue
            with pytest.raises(WrongLoop, match="submit_threadsafe"):
                await loop.run_in_executor(None, elsewhere, lambda use=use: use(t.supervisor, held))
                pytest.fail(f"{name} did not notice")
        for use in READS.values():
            await loop.run_in_executor(None, elsewhere, lambda use=use: use(t.supervisor, held))
        assert t.supervisor.stats() == before
        assert t.supervisor.state == "open"
        future = await loop.run_in_executor(
            None, t.supervisor.submit_threadsafe, known_echo, CANARY
        )
        assert await asyncio.wrap_future(future) == CANARY
        gate.set()
        assert await held is True


@each_loop
def test_fault_L02_two_loops_in_turn_in_one_thread(loop: str) -> None:
    """A thread that runs two loops in turn: what is used in the other one raises WrongLoop, and what
    was under way goes on when its own loop does.
    """
    ours, other = LOOPS[loop](), LOOPS[loop]()
    supervisor = Supervisor()

    async def use_elsewhere() -> None:
        for name, use in USES.items():
            with pytest.raises(WrongLoop):
                await _awaited(use(supervisor, held))
                pytest.fail(f"{name} did not notice")

    try:
        ours.run_until_complete(supervisor.__aenter__())
        ours.run_until_complete(supervisor.call(known, 1))
        held = ours.run_until_complete(supervisor.submit(asyncio.sleep, 0.01))
        other.run_until_complete(use_elsewhere())
        assert supervisor.state == "open"
        ours.run_until_complete(supervisor.__aexit__(None, None, None))
        assert (supervisor.state, held.state) == ("closed", "succeeded")
        assert supervisor.stats().submitted == 2
    finally:
        ours.close()
        other.close()


# ---- L03: the loop is closed under us


@each_loop
def test_fault_L03_loop_closed_under_us(caplog: Log, loop: str) -> None:
    """Every way in says SupervisorClosed, a thread's result is dropped with one line of the log, the
    watchdog ends, and the supervisor can be entered again in another loop.
    """
    begun, let_go = threading.Event(), threading.Event()

    def blocked() -> str:
        begun.set()
        let_go.wait()
        return CANARY

    async def prepare() -> tuple[Job[Any], Job[Any]]:
        await supervisor.__aenter__()
        in_thread = await supervisor.submit(blocked)
        while not begun.is_set():
            await asyncio.sleep(0.001)
        return in_thread, await supervisor.submit(job(echo, delay=3600), 1)

    async def again() -> None:
        async with supervisor:
            assert await supervisor.call(echo, 2) == 2
            assert await supervisor.call(blocking_echo, 3) == 3

    supervisor = Supervisor()
    with no_leaks(grace=3.0):
        ours = LOOPS[loop]()
        in_thread, waiting = ours.run_until_complete(prepare())
        ours.close()
        let_go.set()
        for way_in in ("submit_nowait", "submit_threadsafe"):
            with pytest.raises(SupervisorClosed, match=r"event loop.* is closed"):
                getattr(supervisor, way_in)(echo, 1)
        for coroutine in (
            supervisor.submit(echo, 1),
            supervisor.call(echo, 1),
            supervisor.drain(),
            waiting.wait(),
        ):
            with pytest.raises(SupervisorClosed, match="is closed"):
                asyncio.run(coroutine)
        for steer in (in_thread.cancel, waiting.cancel, supervisor.jobs, supervisor.cancel_all):
            with pytest.raises(SupervisorClosed, match="is closed"):
                steer()
        assert repr(supervisor).startswith("<Supervisor open")
        asyncio.run(again())
        del waiting, in_thread, coroutine, steer
        gc.collect()  # what the closed loop never ended is told of now, not in the next test
    lines = [r.getMessage() for r in caplog.records if "its result is lost" in r.getMessage()]
    assert len(lines) == 1
    assert CANARY not in lines[0]


@each_loop
def test_fault_L03_closed_while_it_is_left(loop: str) -> None:
    """A body whose loop is closed in the middle of it ends with the loop's own error at most; the
    thread of its job gets no RuntimeError, and nothing hangs.
    """
    script = """
        def blocked():
            begun.set()
            let_go.wait()

        async def main():
            async with Supervisor() as supervisor:
                await supervisor.submit(blocked)
                await asyncio.to_thread(begun.wait)
                say("begun")
                await asyncio.Event().wait()

        begun, let_go = threading.Event(), threading.Event()
        if os.environ["ASYNCWORKERS_LOOP"] == "uvloop":
            import uvloop
            loop = uvloop.new_event_loop()
        else:
            loop = asyncio.new_event_loop()
        task = loop.create_task(main())
        loop.call_later(0.5, loop.stop)
        loop.run_forever()
        loop.close()
        let_go.set()
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                thread.join(10)
        say("threads:", threading.active_count())
    """
    output = run_child(script, loop)
    assert "threads: 1" in output
    assert "RuntimeError" not in output
    assert output.count("its result is lost") == 1
    assert "1 job is lost" in output  # what the interpreter's end tells of one that was never left


# ---- L04: two runs of one module-level supervisor


@each_loop
@pytest.mark.parametrize("ends", ["well", "badly", "never left"])
def test_fault_L04_asyncio_run_twice(caplog: Log, loop: str, ends: str) -> None:
    """A supervisor of the module's serves one `asyncio.run` after the other, however the one before
    ended; the job functions it knew from there are no trouble, its old jobs have ended.
    """
    supervisor = Supervisor(2)
    known_here = job(known_echo)
    old: list[Job[Any]] = []

    async def first() -> None:
        await supervisor.__aenter__()
        assert await supervisor.call(known_here, 1) == 1
        old.append(await supervisor.submit(known_here, 2))
        old.append(await supervisor.submit(for_ever))
        await turns()
        if ends == "well":
            old[1].cancel()
            await supervisor.__aexit__(None, None, None)
        elif ends == "badly":
            error = ZeroDivisionError()
            await supervisor.__aexit__(type(error), error, None)
            raise error

    async def second() -> None:
        with pytest.raises(SupervisorClosed):
            await supervisor.submit(known_here, 3)
        async with supervisor:
            assert await supervisor.call(known_here, 4) == 4
            assert await supervisor.map(known_here, range(5)) == list(range(5))
            assert await supervisor.call(blocking_echo, 5) == 5
            assert supervisor.stats().submitted == 7
            assert supervisor.jobs() == []

    with no_leaks(grace=3.0):
        for main in (first, second, second):
            expected = ends == "badly" and main is first
            with pytest.raises(ZeroDivisionError) if expected else contextlib.nullcontext():
                with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
                    runner.run(main())
        assert all(one.done() for one in old)
        old.clear()


# ---- L05: notebook, REPL, no loop at all


@both_loops
async def test_fault_L05_cells_of_a_notebook(caplog: Log) -> None:
    """In a loop that runs already a supervisor is entered in one task and left in another, with
    whatever context variables each has; `run` says that it is not needed there.
    """
    stack = contextlib.AsyncExitStack()
    cell = contextvars.ContextVar("cell", default=0)
    seen: list[int] = []

    async def look() -> None:
        seen.append(cell.get())

    async def enter() -> Supervisor:
        cell.set(1)
        return await stack.enter_async_context(Supervisor())

    async def use(supervisor: Supervisor) -> None:
        await supervisor.call(look)
        cell.set(2)
        await supervisor.call(look)

    async def main() -> None:
        raise AssertionError("begun")

    async with no_leaks():
        supervisor = await asyncio.create_task(enter())
        await asyncio.create_task(use(supervisor))
        with pytest.raises(RuntimeError, match=r"use `async with Supervisor\(\)` there"):
            run(main)
        assert await supervisor.call(echo, 1) == 1
        await asyncio.create_task(stack.aclose())
        assert supervisor.state == "closed"
    assert seen == [0, 2]


@both_loops
async def test_fault_L05_opened_in_one_cell_and_closed_in_another() -> None:
    """Where there is no block to leave, `open` and `close` do what its ends do, each in its own task."""
    async with no_leaks():
        supervisor = await asyncio.create_task(Supervisor(processes=1).open())
        assert await asyncio.create_task(supervisor.call(echo, 1)) == 1
        assert await asyncio.create_task(_mapped(supervisor)) == [0, 1, 2]
        report = await asyncio.create_task(supervisor.close())
        assert (report.done, supervisor.state) == ((), "closed")


async def _mapped(supervisor: Supervisor) -> list[Any]:
    return await supervisor.map(echo, range(3))


@each_loop
def test_fault_L05_code_that_must_not_await(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A portal serves code without `await` where no loop runs, and where one runs that must wait."""
    monkeypatch.setenv("ASYNCWORKERS_LOOP", loop)

    def work(portal: Portal) -> list[Any]:
        return [portal.call(echo, 1), *portal.map(echo, iter([2, 3]))]

    async def cell(portal: Portal) -> list[Any]:
        return work(portal)

    with no_leaks(grace=5.0), Portal() as portal:
        assert work(portal) == [1, 2, 3]
        assert asyncio.run(cell(portal)) == [1, 2, 3]
        with pytest.raises(WrongLoop, match="belongs to another event loop"):
            portal.supervisor.submit_nowait(echo, 1)


def test_fault_L05_without_a_loop() -> None:
    """Where no loop runs nothing is accepted, and the error says what is to be done."""
    supervisor = Supervisor()
    for way_in in ("submit_nowait", "submit_threadsafe", "map"):
        with pytest.raises(SupervisorClosed, match="async with Supervisor"):
            getattr(supervisor, way_in)(echo, [1])
    for way_in in (supervisor.submit(echo, 1), supervisor.call(echo, 1), supervisor.drain()):
        with pytest.raises(SupervisorClosed, match="async with Supervisor"):
            asyncio.run(way_in)
    entering = supervisor.__aenter__()
    with pytest.raises(RuntimeError, match="no running event loop"):
        entering.send(None)
    assert (supervisor.state, supervisor.stats().submitted) == ("new", 0)


@each_loop
def test_fault_L05_in_the_ordinary_repl(loop: str) -> None:
    """Python's prompt has no loop: `run(main)` works line by line, any number of times."""
    lines = """
from asyncworkers import *
supervisor = Supervisor()
async def main(value):
    async with supervisor:
        return await supervisor.call(echo, value)

async def echo(value):
    return value

run(main, 20 + 1)
supervisor.submit_nowait(echo, 1)
run(main, 40 + 2)
from asyncworkers.portal import Portal
portal = Portal().open()
portal.call(echo, 60 + 3)
portal.map(echo, range(3)).all()
portal.close()
"""
    output = _typed("-i", lines, loop)
    assert "21" in output
    assert "errors.SupervisorClosed: " in output
    assert "42" in output
    assert "63" in output
    assert "[0, 1, 2]" in output
    assert "DrainReport(" in output


def test_fault_L05_in_the_asyncio_repl() -> None:
    """`python -m asyncio` runs a loop in one thread and the lines of the prompt in its tasks."""
    lines = """
from asyncworkers import *
supervisor = await Supervisor().open()
async def echo(value): return value

await supervisor.call(echo, 20 + 1)
await supervisor.map(echo, range(3))
run(echo, 1)
await supervisor.close()
supervisor.state
"""
    output = _typed("-masyncio", lines, "asyncio")
    assert "21" in output
    assert "[0, 1, 2]" in output
    assert "run() was called inside a running event loop" in output
    assert "DrainReport(" in output
    assert "'closed'" in output


def _typed(flag: str, lines: str, loop: str) -> str:
    """What Python's prompt answers to these lines."""
    return subprocess.run(
        [sys.executable, "-q", flag],
        input=lines,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "ASYNCWORKERS_LOOP": loop, "PYTHON_BASIC_REPL": "1"},
    ).stdout


# ---- L06: forked after the start


@each_loop
def test_fault_L06_forked_after_the_start(loop: str) -> None:
    """A forked child refuses every use of its copy with WrongProcess and closes nothing: it ends
    without a word about jobs that are not its own, may run a supervisor of its own, and the parent
    goes on as if nothing had been.
    """
    script = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads

        async def echo(value):
            return value

        async def own():
            async with Supervisor() as one:
                return await one.call(echo, 3), await one.call(len, "four")

        async def main():
            async with Supervisor() as supervisor:
                known = job(echo)
                await supervisor.call(known, 0)
                await supervisor.call(len, "thread")
                held = await supervisor.submit(release.wait)
                await asyncio.sleep(0)
                child = os.fork()
                if not child:
                    await in_child(supervisor, known, held)
                _, status = os.waitpid(child, 0)
                say("child ended with", status)
                release.set()
                say("parent:", await held, await supervisor.call(known, 5), supervisor.state)
                say("thread:", await supervisor.call(len, "six"))

        async def in_child(supervisor, known, held):
            uses = {
                "submit": lambda: supervisor.submit(known, 1),
                "call": lambda: supervisor.call(echo, 1),
                "submit_many": lambda: supervisor.submit_many(known, [1]),
                "drain": lambda: supervisor.drain(),
                "submit_nowait": lambda: supervisor.submit_nowait(known, 1),
                "map": lambda: supervisor.map(known, [1]),
                "submit_threadsafe": lambda: supervisor.submit_threadsafe(known, 1),
                "cancel": lambda: held.cancel(),
                "cancel_all": lambda: supervisor.cancel_all(),
                "jobs": lambda: supervisor.jobs(),
                "pause": lambda: supervisor.pause("default"),
                "resize": lambda: supervisor.resize("default", 1),
                "await": lambda: held,
                "leave": lambda: supervisor.__aexit__(None, None, None),
                "enter": lambda: supervisor.__aenter__(),
            }
            for name, use in uses.items():
                try:
                    found = use()
                    if hasattr(found, "__await__"):
                        await found
                    say(name, "did not notice")
                except WrongProcess:
                    pass
                except Exception as error:
                    say(name, "raised", repr(error))
            held.state, repr(supervisor), supervisor.stats(), supervisor.explain()
            say("child has asked", len(uses))
            thread = threading.Thread(target=lambda: say("child's own:", asyncio.run(own())))
            thread.start()
            thread.join()
            del supervisor, held
            raise SystemExit(7)  # through every finally, finalizer and atexit there is

        release = asyncio.Event()
        try:
            run(main)
        except SystemExit as end:
            say("SystemExit", end.code)
            raise
    """
    output = run_child(script, loop)
    assert "child has asked 15" in output
    assert "did not notice" not in output
    assert " raised " not in output
    assert "child's own: (3, 4)" in output
    assert f"child ended with {7 << 8}" in output
    assert "parent: True 5 open" in output
    assert "thread: 3" in output
    assert "lost" not in output
    assert "never left" not in output


@each_loop
def test_fault_L06_a_worker_process_of_the_host(loop: str) -> None:
    """A server that forks its workers after the module was loaded, as `gunicorn --preload` does:
    the module's supervisor, not entered yet, is entered in each child and works there.
    """
    script = """
        import multiprocessing

        async def echo(value):
            return value

        async def main(number):
            async with supervisor:
                answer = await supervisor.call(known, 40 + number)
                os.write(1, f"child {number} {answer}\\n".encode())  # whole, beside its sibling

        supervisor = Supervisor()
        known = job(echo)
        fork = multiprocessing.get_context("fork")
        children = [fork.Process(target=run, args=(main, number)) for number in (1, 2)]
        for one in children:
            one.start()
        for one in children:
            one.join()
        say("codes", [one.exitcode for one in children], supervisor.state)
    """
    output = run_child(script, loop)
    assert "child 1 41" in output
    assert "child 2 42" in output
    assert "codes [0, 0] new" in output


# ---- L07: a callback of the loop raises what nobody may catch


@each_loop
@pytest.mark.parametrize("runner", ["run", "asyncio.Runner"])
@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()"])
def test_fault_L07_callback_ends_the_loop(loop: str, runner: str, error: str) -> None:
    """A callback that raises SystemExit or KeyboardInterrupt ends the loop: the process ends with
    that very error, its traceback names the culprit, and every job has its end before.
    """
    script = """
        import traceback

        def culprit():
            raise ERROR

        async def tender(number):
            try:
                await asyncio.Event().wait()
            finally:
                say("ended", number)

        async def main():
            async with Supervisor(2) as supervisor:
                jobs.extend(await supervisor.submit_many(tender, range(3)))
                await asyncio.sleep(0)
                asyncio.get_running_loop().call_soon(culprit)
                await asyncio.Event().wait()

        def new_loop():
            if os.environ["ASYNCWORKERS_LOOP"] == "uvloop":
                import uvloop
                return uvloop.new_event_loop()
            return asyncio.new_event_loop()

        jobs = []
        try:
            if "RUNNER" == "run":
                run(main)
            else:
                with asyncio.Runner(loop_factory=new_loop) as runner:
                    runner.run(main())
        except BaseException as end:
            say("raised", repr(end))
            say("in culprit:", "in culprit" in traceback.format_exc())
        say("jobs", *[one.state for one in jobs])
    """
    output = run_child(script.replace("ERROR", error).replace("RUNNER", runner), loop)
    assert f"raised {error}" in output
    assert "in culprit: True" in output
    assert output.count("ended ") == 2
    states = output[output.index("jobs ") :].split()[1:]
    assert len(states) == 3
    # What `run` ends is ended in order; asyncio's own cancels workers and main at once.
    assert set(states) <= ({"cancelled"} if runner == "run" else {"cancelled", "failed"})
    assert "Task was destroyed" not in output


@each_loop
def test_fault_L07_callback_raises_an_ordinary_error(caplog: Log, loop: str) -> None:
    """An ordinary exception out of a callback reaches the loop's handler as ever, with ours in
    front of it, and ends nothing.
    """
    told: list[dict[str, Any]] = []

    def culprit() -> None:
        raise ZeroDivisionError("mine")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with trial(caplog) as t:
            asyncio.get_running_loop().call_soon(culprit)
            await turns()
            assert t.supervisor.state == "open"

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
    (context,) = told
    assert isinstance(context["exception"], ZeroDivisionError)
    assert "culprit" in repr(context["handle"])


# ---- L08: the host stops the loop


@each_loop
def test_fault_L08_host_stops_the_loop(caplog: Log, loop: str) -> None:
    """A loop that is stopped and run again goes on where it was: no job is lost, none runs twice,
    wherever the stop came, also from inside a job and while threads are at work.
    """
    let_go = threading.Event()
    ran: list[int] = []

    def blocked(number: int) -> int:
        let_go.wait()
        ran.append(number)
        return number

    async def stops(number: int) -> int:
        if number % 3 == 0:
            asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        ran.append(number)
        return number

    async def main() -> None:
        # uvloop opens a pair of sockets each time it is run.
        async with trial(caplog, workers=2, leaks=("file *socket*",)) as t:
            in_thread = await t.supervisor.submit(blocked, 100)
            jobs = await t.supervisor.submit_many(stops, range(10))
            later = await t.supervisor.submit(job(stops, delay=0.01), 10)
            assert await t.supervisor.map(stops, range(20, 30)) == list(range(20, 30))
            assert [await one for one in jobs] == list(range(10))
            let_go.set()
            assert (await later, await in_thread) == (10, 100)

    ours = LOOPS[loop]()
    stopped = 0
    try:
        task = ours.create_task(main())
        task.add_done_callback(lambda _: ours.stop())
        while not task.done():
            ours.run_forever()
            stopped += 1
        task.result()
        assert stopped > 5
    finally:
        let_go.set()
        ours.close()
    assert sorted(ran) == [*range(11), *range(20, 30), 100]


@each_loop
def test_fault_L08_loop_stopped_under_run(loop: str) -> None:
    """Under `run` a stopped loop is an error, raised when main and its jobs have had their end."""

    async def stops() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.Event().wait()

    jobs: list[Job[Any]] = []
    states: list[str] = []

    async def main() -> None:
        supervisor = Supervisor()
        try:
            async with supervisor:
                jobs.append(await supervisor.submit(stops))
                jobs.append(await supervisor.submit(job(echo, delay=3600), 1))
                await jobs[0]
        finally:
            states.append(supervisor.state)

    with pytest.MonkeyPatch.context() as patch, no_leaks():
        patch.setenv("ASYNCWORKERS_LOOP", loop)
        with pytest.raises(RuntimeError, match="stopped before Future completed"):
            run(main)
        assert states == ["closed"]
        assert [one.state for one in jobs] == ["cancelled", "cancelled"]
        jobs.clear()


# ---- L09: no collector, or nothing but


@pytest.fixture
def no_collector() -> Iterator[None]:
    """The garbage collector is off."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def _fails_in_vain(supervisor: Supervisor) -> None:
    with contextlib.suppress(ValueError):
        await supervisor.call(fail)


async def _fails_twice(supervisor: Supervisor) -> None:
    with contextlib.suppress(ValueError):
        await supervisor.call(job(fail, retry=Retry(2, on=ValueError, delay=0)))


async def _times_out(supervisor: Supervisor) -> None:
    with contextlib.suppress(JobTimedOut):
        await supervisor.call(job(for_ever, timeout=0.0001))


async def _is_cancelled(supervisor: Supervisor) -> None:
    one = await supervisor.submit(for_ever)
    await asyncio.sleep(0)
    one.cancel()
    await one.wait()


async def _maps(supervisor: Supervisor) -> None:
    await supervisor.map(echo, range(5))
    async for _ in supervisor.map(echo, range(5), ordered=False):
        pass


async def _maps_in_vain(supervisor: Supervisor) -> None:
    with contextlib.suppress(ValueError):
        await supervisor.map(fail, range(5))
    async for one in supervisor.map(fail, range(3)).outcomes():
        one.exception()


async def _leaves_a_map(supervisor: Supervisor) -> None:
    async with supervisor.map(echo, range(5)) as stream:
        async for _ in stream:
            break


async def _blocks(supervisor: Supervisor) -> None:
    await supervisor.call(blocking_echo, 1)
    with contextlib.suppress(ZeroDivisionError):
        await supervisor.call(divmod, 1, 0)


async def _in_a_task_of_its_own(supervisor: Supervisor) -> None:
    await supervisor.call(job(echo, queue="own"), 1)
    with contextlib.suppress(ValueError):
        await supervisor.call(job(fail, queue="own"))


async def _is_listed(supervisor: Supervisor) -> None:
    one = await supervisor.submit(job(echo, tags=["a"], delay=0.0001), 1)
    assert supervisor.get(one.id) is one
    assert len(supervisor.jobs()) == 1
    assert one.why
    await one


async def _from_a_thread(supervisor: Supervisor) -> None:
    await asyncio.wrap_future(supervisor.submit_threadsafe(echo, 1))


USED = (
    _fails_in_vain,
    _fails_twice,
    _times_out,
    _is_cancelled,
    _maps,
    _maps_in_vain,
    _leaves_a_map,
    _blocks,
    _in_a_task_of_its_own,
    _is_listed,
    _from_a_thread,
)


@both_loops
@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("use", USED, ids=lambda use: use.__name__.strip("_"))
async def test_fault_L09_without_a_collector(use: Callable[[Supervisor], Awaitable[None]]) -> None:
    """With the collector off nothing is missed: what a job leaves behind is freed at once, for there
    is no cycle in it, whether it ends well or not.
    """
    if use is _in_a_task_of_its_own and asyncio.get_running_loop().get_task_factory() is not None:
        pytest.skip(
            "a task that an eager factory of asyncio's ends at once keeps its error in a cycle"
        )
    async with Supervisor(4, threads=1, queues=[Queue("own", 2, isolation="task")]) as supervisor:
        for _ in range(10):  # what is only made the first time
            await use(supervisor)
        gc.collect()
        for _ in range(100):
            await use(supervisor)
        unreachable = gc.collect()
    assert unreachable < 50  # less than one object for two times


@both_loops
async def test_fault_L09_collected_all_the_time(caplog: Log) -> None:
    """With the collector at work after each few allocations, and everything frozen, nothing that is
    still needed goes away: every job ends.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(5, 1, 1)
    gc.freeze()
    try:
        async with trial(caplog, workers=4) as t:
            for _ in range(5):
                for use in (_fails_twice, _is_cancelled, _maps, _leaves_a_map, _from_a_thread):
                    await use(t.supervisor)
                await t.supervisor.submit(echo, CANARY)  # and let go of
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


# ---- L10: the interpreter ends


@each_loop
@pytest.mark.parametrize("how", ["falls off the end", "exits", "raises"])
def test_fault_L10_interpreter_ends_with_jobs_running(loop: str, how: str) -> None:
    """A script that never leaves its supervisor ends all the same, with its own exit code: nothing
    waits for jobs or their threads, and the log names what is lost.
    """
    script = """
        import logging
        logging.basicConfig(format="%(message)s")

        def blocked(secret):
            begun.set()
            threading.Event().wait()

        async def for_ever(secret):
            await asyncio.Event().wait()

        async def main():
            await supervisor.__aenter__()
            await supervisor.submit(job(for_ever, name="waits"), "CANARY")
            await supervisor.submit(job(blocked, name="blocks"), "CANARY")
            await supervisor.submit(job(for_ever, name="delayed", delay=60), "CANARY")
            while not begun.is_set():
                await asyncio.sleep(0.001)

        begun = threading.Event()
        supervisor = Supervisor()
        if os.environ["ASYNCWORKERS_LOOP"] == "uvloop":
            import uvloop
            loop = uvloop.new_event_loop()
        else:
            loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        HOW
    """
    code = {"falls off the end": 0, "exits": 5, "raises": 1}[how]
    ends = {"falls off the end": "", "exits": "sys.exit(5)", "raises": "1 / 0"}[how]
    with child(script.replace("HOW", ends), loop) as one:
        assert one.ends() == code, one.output
    (line,) = [line for line in one.output.splitlines() if "jobs are lost" in line]
    assert "was never left; 3 jobs are lost" in line
    for name in ("waits", "blocks", "delayed"):
        assert f"<Job {name} " in line
    told = one.output.partition("Traceback")[0]
    assert "CANARY" not in told


@each_loop
def test_fault_L10_interpreter_ends_with_stored_jobs(loop: str, tmp_path: Path) -> None:
    """Stored jobs of such a script are lost to nobody: whoever opens the store next runs them, at once, what
    had begun with its next attempt; and the log does not call them lost.
    """
    url = f"sqlite:///{tmp_path}/jobs.db"
    script = f"""
        import logging
        logging.basicConfig(format="%(message)s")

        @job(name="held")
        async def held():
            begun.set()
            await asyncio.Event().wait()

        async def main():
            await supervisor.__aenter__()
            jobs = [await supervisor.submit(held) for _ in range(3)]
            await begun.wait()
            say("ids", *[one.id for one in jobs])

        begun = asyncio.Event()
        supervisor = Supervisor(1, store={url!r}, functions=[held])
        if os.environ["ASYNCWORKERS_LOOP"] == "uvloop":
            import uvloop
            loop = uvloop.new_event_loop()
        else:
            loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
    """
    output = run_child(script, loop)
    ids = next(line for line in output.splitlines() if line.startswith("ids")).split()[1:]
    assert len(ids) == 3
    assert "lost" not in output

    @job(name="held")
    async def held() -> int:
        return current_job().attempt

    async def main() -> list[int]:
        async with Supervisor(store=url, functions=[held]) as supervisor:
            return [await (await supervisor.stored.get(one)) for one in ids]

    with no_leaks(grace=3.0), asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        assert runner.run(main()) == [2, 1, 1]


# ---- L11: little stack


@each_loop
def test_fault_L11_submitted_at_the_end_of_the_stack(loop: str) -> None:
    """Submitted with ever fewer frames left, down to none: each call either gives a job, which ends,
    or raises RecursionError; afterwards the figures agree, no worker is lost and jobs run as ever.
    """
    script = """
        def with_frames_left(left, call):
            depth, frame = 0, sys._getframe()
            while frame is not None:
                depth, frame = depth + 1, frame.f_back
            sys.setrecursionlimit(depth + left)
            return call()

        async def note(number):
            return number

        async def submit(supervisor, way_in, function, left):
            argument = [left] if way_in == "map" else left
            use = getattr(supervisor, way_in)
            try:
                value = with_frames_left(left, lambda: use(function, argument))
            except RecursionError:
                return "refused"
            finally:
                sys.setrecursionlimit(1000)
            value = asyncio.wrap_future(value) if way_in == "submit_threadsafe" else value
            assert await value in (left, [left])
            return "accepted"

        async def main():
            for way_in in ("submit_nowait", "submit_threadsafe", "map"):
                outcomes = set()
                for function in (note, job(note, priority=1)):
                    for left in range(3, 60):
                        # A new one for each: no worker waits on a future yet, and futures of
                        # asyncio itself cannot stand an end of the stack.
                        async with Supervisor(2) as supervisor:
                            outcomes.add(await submit(supervisor, way_in, function, left))
                            assert await supervisor.map(note, range(9)) == list(range(9))
                            crew = supervisor._intake.queues["default"].crew
                            assert crew.spare + len(crew.members) == crew.workers
                        stats = supervisor.stats()
                        assert stats.submitted == stats.succeeded, stats
                say(way_in, *sorted(outcomes))

        run(main)
    """
    output = run_child(script, loop)
    for way_in in ("submit_nowait", "submit_threadsafe", "map"):
        assert f"{way_in} accepted refused" in output


@each_loop
def test_fault_L11_small_stacks(loop: str) -> None:
    """With threads of the smallest stack there is and a low recursion limit jobs still run, and one
    that goes too deep fails by itself.
    """
    script = """
        def deep(left):
            return left and deep(left - 1)

        async def deep_on_the_loop(left):
            return deep(left)

        async def main():
            async with Supervisor() as supervisor:
                for function in (deep, deep_on_the_loop):
                    assert await supervisor.call(function, 20) == 0
                    try:
                        await supervisor.call(function, 10_000)
                    except RecursionError:
                        say("contained")
                say(await supervisor.map(deep, [1, 2, 3]))

        threading.stack_size(64 * 1024)
        sys.setrecursionlimit(150)
        run(main)
    """
    output = run_child(script, loop)
    assert output.count("contained") == 2
    assert "[0, 0, 0]" in output


# ---- L12: the machine has no more


@both_loops
async def test_fault_L12_no_thread_can_be_started(
    caplog: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the machine starts no threads, jobs for threads wait, with no attempt spent; jobs on the
    loop go on; health and `why` say so; when there are threads again all end.
    """
    monkeypatch.setattr(worker_module, "BACK_OFF", 0.01)
    tried = 0
    start = threading.Thread.start

    def cannot(thread: threading.Thread) -> None:
        nonlocal tried
        tried += 1
        raise RuntimeError("can't start new thread")

    async with trial(caplog, workers=3) as t:
        monkeypatch.setattr(threading.Thread, "start", cannot)
        waiting = [await t.supervisor.submit(blocking_echo, CANARY) for _ in range(5)]
        await until(lambda: tried > 9)
        assert await t.supervisor.call(echo, 1) == 1
        assert {one.state for one in waiting} <= {"queued", "running"}
        await until(lambda: not t.supervisor.health().ready)
        health = t.supervisor.health()
        assert health.alive
        assert "can't start new thread" in health.reasons[0]
        assert "can't start new thread" in waiting[-1].why
        monkeypatch.setattr(threading.Thread, "start", start)
        for one in waiting:
            assert await one == CANARY
            assert one.attempt == 1
        assert t.supervisor.health().ready


@both_loops
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate")], ids=repr)
async def test_fault_L12_no_worker_can_be_hired(
    caplog: Log, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A worker that cannot be made for want of memory costs no slot and no job: what was accepted
    waits, and runs once there is memory again, as many at a time as before, with nobody's help.
    """
    gate = asyncio.Event()
    tried = 0

    def cannot(*_: object) -> Any:
        nonlocal tried
        tried += 1
        raise error

    monkeypatch.setattr(crew_module, "BACK_OFF", 0.01)
    async with trial(caplog, workers=3) as t:
        crew = t.supervisor._intake.queues["default"].crew  # type: ignore[union-attr]
        with monkeypatch.context() as patch:
            patch.setattr(crew, "_hire_one", cannot)
            jobs = [t.supervisor.submit_nowait(gate.wait) for _ in range(5)]
            assert tried == 5
            await until(lambda: tried > 7)  # by itself
            jobs += await t.supervisor.submit_many(asyncio.Event.wait, [gate] * 5)
            assert {one.state for one in jobs} == {"queued"}
            assert not t.supervisor.health().ready
            assert "no worker can be hired" in t.supervisor.health().reasons[0]
            assert "no worker can be hired" in jobs[0].why
        await until(lambda: t.supervisor.stats().running == 3)
        await turns()
        assert t.supervisor.stats().running == 3
        assert t.supervisor.health().ready
        gate.set()
        for one in jobs:
            assert await one is True
    told = [r for r in caplog.records if "no worker can be hired" in r.getMessage()]
    assert len(told) < tried


@each_loop
def test_fault_L12_no_file_can_be_opened(loop: str) -> None:
    """With every file descriptor taken a supervisor can be entered, run jobs and be left: it needs
    none. A job that needs one fails, and its retry succeeds when there are some again.
    """
    script = """
        import errno, resource

        def use_up():
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            try:
                while True:
                    hoard.append(os.dup(1))
            except OSError as error:
                return error.errno

        async def echo(value):
            return value

        async def opens():
            number = current_job().attempt
            if number == 3:
                os.close(hoard.pop())
            with open("/dev/null"):
                return number

        async def main():
            say("used up:", use_up() == errno.EMFILE)
            async with Supervisor() as supervisor:
                say(await supervisor.call(echo, 1), await supervisor.call(len, "ab"))
                retried = job(opens, retry=Retry(5, on=OSError, delay=0))
                say("opened in attempt", await supervisor.call(retried))
                hoard.append(os.dup(1))
                try:
                    await supervisor.call(opens)
                except OSError as error:
                    say("failed with", errno.errorcode[error.errno])
                say((await supervisor.drain(1)).abandoned)

        hoard = []
        run(main)
        say("over")
    """
    output = run_child(script, loop)
    for line in ("used up: True", "1 2", "opened in attempt 3", "failed with EMFILE", "()", "over"):
        assert line in output, output


@each_loop
def test_fault_L12_no_memory(loop: str) -> None:
    """Jobs that ask for more memory than there is fail with MemoryError, one by one; where threads
    cannot have their stack either, the watchdog says so and blocking jobs wait for better times.
    """
    script = """
        import logging, resource
        logging.basicConfig(format="%(message)s")

        async def greedy():
            return len(bytearray(1 << 40))

        async def echo(value):
            return value

        def blocking():
            return "in a thread"

        async def main():
            threading.stack_size(1 << 36)  # no thread gets so much
            async with Supervisor() as supervisor:
                waiting = await supervisor.submit(blocking)
                for place in (greedy, lambda: len(bytearray(1 << 40))):
                    if place is not greedy:
                        threading.stack_size(0)
                    try:
                        await supervisor.call(place)
                    except MemoryError:
                        say("no memory")
                say(await waiting, await supervisor.call(echo, 5))

        resource.setrlimit(resource.RLIMIT_AS, (1 << 35, 1 << 35))
        module("asyncworkers._engine.call_worker").BACK_OFF = 0.01
        run(main)
    """
    output = run_child(script, loop)
    assert output.count("no memory") == 2
    assert "no thread for the watchdog" in output
    assert "in a thread 5" in output
