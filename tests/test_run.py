"""run(): which loop, what comes out, what is put back, and an end that is bounded whatever is left.

What it does about signals is proved in faults/test_shutdown.py.
"""

import asyncio
import contextvars
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncworkers import Supervisor, run
from asyncworkers.testing import no_leaks

Log = pytest.LogCaptureFixture

LOOPS = ("asyncio", "uvloop")


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which loop `run` is told to use."""
    monkeypatch.setenv("ASYNCWORKERS_LOOP", request.param)
    return str(request.param)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left at the end gets a moment instead of two seconds."""
    monkeypatch.setattr(sys.modules["asyncworkers.run"], "WIND_UP", 0.02)


async def kind_of_loop() -> str:
    """The library of the loop this runs in."""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


# ---- which loop


def test_the_loop_that_was_asked_for(loop: str) -> None:
    """ASYNCWORKERS_LOOP decides."""
    assert run(kind_of_loop) == loop


def test_uvloop_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a wish it is uvloop, and an empty wish is none."""
    monkeypatch.delenv("ASYNCWORKERS_LOOP", raising=False)
    assert run(kind_of_loop) == "uvloop"
    monkeypatch.setenv("ASYNCWORKERS_LOOP", "")
    assert run(kind_of_loop) == "uvloop"


def test_the_stock_loop_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows: the stock loop is used, unless uvloop was asked for by name."""
    monkeypatch.delenv("ASYNCWORKERS_LOOP", raising=False)
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run(kind_of_loop) == "asyncio"
    monkeypatch.setenv("ASYNCWORKERS_LOOP", "uvloop")
    with pytest.raises(ImportError):
        run(kind_of_loop)


# ---- what goes in and comes out


def test_arguments_and_value(loop: str) -> None:
    """All arguments after the function are the function's own; its value is returned."""

    async def main(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    assert run(main, 1, 2, three=3) == ((1, 2), {"three": 3})


@pytest.mark.parametrize(
    "error",
    [ValueError("mine"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError("mine")],
    ids=repr,
)
def test_the_very_exception_comes_out(loop: str, error: BaseException) -> None:
    """Whatever main raises is raised, and everything is put back and closed."""
    loops: list[asyncio.AbstractEventLoop] = []
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        async with Supervisor() as supervisor:
            await supervisor.submit(asyncio.Event().wait)
            raise error

    with no_leaks():
        with pytest.raises(type(error)) as caught:
            run(main)
        assert loops[0].is_closed()
        loops.clear()
    if not isinstance(error, asyncio.CancelledError):
        assert caught.value is error
    assert signal.getsignal(signal.SIGTERM) is before


def test_context_variables_of_the_caller_are_seen_and_kept(loop: str) -> None:
    """Inside main one sees what its caller had set, and changes nothing of it."""
    var = contextvars.ContextVar("var", default="none")

    async def main() -> str:
        seen = var.get()
        var.set("changed")
        return seen

    var.set("caller's")
    assert run(main) == "caller's"
    assert var.get() == "caller's"


def test_one_after_the_other(loop: str) -> None:
    """Each call has a loop of its own, and leaves nothing behind that the next could meet."""
    seen: set[int] = set()
    supervisor = Supervisor()

    async def main(number: int) -> int:
        seen.add(id(asyncio.get_running_loop()))
        async with supervisor:
            return await supervisor.call(asyncio.sleep, 0, number)

    with no_leaks():
        assert [run(main, number) for number in range(3)] == [0, 1, 2]


def test_in_another_thread(loop: str) -> None:
    """Outside the main thread it works as well, without touching signal handlers."""
    found: list[Any] = []
    before = signal.getsignal(signal.SIGINT)

    async def main() -> None:
        async with Supervisor() as supervisor:
            found.append(await supervisor.call(asyncio.sleep, 0, "there"))
        found.append(signal.getsignal(signal.SIGINT) is before)

    thread = threading.Thread(target=run, args=(main,))
    thread.start()
    thread.join()
    assert found == ["there", True]


# ---- the end


def test_tasks_that_are_left_are_cancelled_and_awaited(loop: str) -> None:
    """What main started and left is cancelled, with a reason, and may clean up."""
    ends: list[str] = []

    async def left() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            await asyncio.sleep(0)
            ends.append(str(error))

    async def main() -> None:
        main.task = asyncio.create_task(left())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    run(main)
    assert ends == ["the main function has ended"]


@pytest.mark.usefixtures("hasty")
@pytest.mark.filterwarnings("ignore:coroutine method 'aclose':RuntimeWarning")
def test_a_task_that_does_not_end_is_left_behind(loop: str, caplog: Log) -> None:
    """`asyncio.run` would wait for ever: here it is named, and the value is returned."""
    released: list[bool] = []

    async def stubborn() -> None:
        while not released:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass

    async def main() -> str:
        main.task = asyncio.create_task(stubborn())  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        return "done"

    assert run(main) == "done"
    (record,) = [r for r in caplog.records if "left behind" in r.getMessage()]
    assert "stubborn" in record.getMessage()
    assert record.levelno == logging.WARNING
    released.append(True)
    main.task._log_destroy_pending = False  # type: ignore[attr-defined]
    main.task.get_coro().close()  # type: ignore[attr-defined]


def test_generators_that_are_left_are_closed(loop: str) -> None:
    """An asynchronous generator that main left in the middle runs its `finally`."""
    ends: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            ends.append("closed")

    kept: list[Any] = []

    async def main() -> int:
        kept.append(numbers())
        return int(await anext(kept[0]))

    assert run(main) == 1
    assert ends == ["closed"]


def test_a_thread_of_the_default_executor_is_not_waited_for(loop: str) -> None:
    """A thread that main left in `to_thread` holds the end up for a moment only, and is told of."""
    script = """
import asyncio, sys, threading
from asyncworkers import run

def blocked():
    begun.set()
    release.wait()

async def main():
    main.future = asyncio.ensure_future(asyncio.to_thread(blocked))
    while not begun.is_set():
        await asyncio.sleep(0)
    return "done"

begun, release = threading.Event(), threading.Event()
sys.modules["asyncworkers.run"].WIND_UP = 0.02
print(run(main), flush=True)
release.set()
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "done\n"
    assert "threads of the default executor still run" in ended.stderr


def test_a_supervisor_that_was_never_left_is_told_of(loop: str) -> None:
    """A program that forgets to leave its supervisor ends all the same, and hears of it."""
    script = """
import asyncio
from asyncworkers import Supervisor, run

async def main():
    supervisor = await Supervisor().__aenter__()
    await supervisor.submit(asyncio.Event().wait)
    return supervisor

supervisor = run(main)
print("ended", supervisor.state)
"""
    ended = subprocess.run(
        [sys.executable, "-W", "always", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout.startswith("ended ")
    assert "Traceback (most recent call last)" not in ended.stderr.partition("failed and nobody")[0]


@pytest.mark.parametrize(
    ("end", "code"),
    [("return 5", 0), ("raise SystemExit(3)", 3), ("sys.exit('why')", 1), ("1 / 0", 1)],
)
def test_exit_codes_of_a_program(loop: str, end: str, code: int) -> None:
    """As of any Python program: what main raises decides, what it returns does not."""
    script = f"""
import sys
from asyncworkers import Supervisor, run

async def main():
    async with Supervisor():
        {end}

run(main)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == code
    assert ("ZeroDivisionError" in ended.stderr) is (end == "1 / 0")


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_ctrl_c_has_the_code_of_shells_if_jobs_were_cut(loop: str, again: bool) -> None:
    """SIGINT to a program with a job that does not end: 130 when the grace is over, or at once by
    the second; and no traceback.
    """
    script = f"""
import asyncio
from asyncworkers import Supervisor, run

async def main():
    async with Supervisor(grace={3600 if again else 0.01}) as supervisor:
        await supervisor.submit(asyncio.Event().wait)
        await asyncio.sleep(0)
        print("ready", flush=True)
        await asyncio.Event().wait()

run(main)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            said = process.stderr.readline()
            assert "SIGINT: draining" in said
            if again:
                process.send_signal(signal.SIGINT)
            said += process.stderr.read()
            assert process.wait(60) == 130
        finally:
            process.kill()
    assert "Traceback" not in said
    assert "1 cancelled" in said


@pytest.mark.parametrize("record", [True, False])
def test_ctrl_c_reports_what_was_recorded(loop: str, record: bool) -> None:
    """After the drain, stderr has its report, and the run in a few lines if that was recorded; a
    program whose jobs all came to their end has exit code 0, and can print the whole report.
    """
    script = f"""
import asyncio
from asyncworkers import Supervisor, run

async def fails():
    raise LookupError("nothing there")

async def main():
    released = asyncio.Event()
    supervisor = Supervisor(record={record}, name="shop")
    try:
        async with supervisor:
            await (await supervisor.submit(fails)).wait()
            await supervisor.submit(released.wait)
            print("ready", flush=True)
            while supervisor.state == "open":
                await asyncio.sleep(0.01)
            released.set()
            await asyncio.Event().wait()
    finally:
        print(supervisor.report())

run(main)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            printed, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "1 done, 0 cancelled, 0 not started, 0 abandoned" in said
    assert ("shop, draining after" in said) is record
    assert ("errors of attempts: 1 × LookupError" in said) is record
    assert "shop, closed after" in printed
    assert "2 jobs, 1 succeeded, 1 failed" in printed
    assert ("Not recorded" in printed) is not record
