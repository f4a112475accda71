"""The watchdog: a stall of the loop is reported while it lasts, with the job, the file and the line;
afterwards if nothing else could run; and what is no stall is not reported.

Jobs here block until they are reported, so that no test depends on how fast the machine is.
"""

import asyncio
import logging
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import pytest

from asyncworkers import Supervisor, job
from asyncworkers._engine.watchdog import Watchdog
from asyncworkers.events import LoopStalled
from asyncworkers.testing import EventRecorder, no_leaks

pytestmark = pytest.mark.asyncio

Log = pytest.LogCaptureFixture


class Reported(logging.Handler):
    """Notices, in whatever thread logs it, that a stall is being reported; keeps all lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.seen = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if "has been stalled" in self.lines[-1]:
            self.seen.set()

    def __enter__(self) -> Self:
        logging.getLogger("asyncworkers").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("asyncworkers").removeHandler(self)

    def block(self) -> None:
        """Block the calling thread until a stall is reported."""
        assert self.seen.wait(60), "no stall was reported"

    def lines_with(self, text: str) -> list[str]:
        """The lines that hold a text."""
        return [line for line in self.lines if text in line]


HERE = re.escape(__file__)


async def test_reported_while_it_lasts_and_once_afterwards() -> None:
    """The log names job, id, file, line and function while the job blocks; when it is over a line
    and one event say how long it was.
    """
    with Reported() as reported:

        async def blocks() -> None:
            reported.block()

        async with Supervisor(listeners=[recorder := EventRecorder()]) as supervisor:
            blocking = await supervisor.submit(blocks)
            await blocking
            await recorder.wait_for(LoopStalled)
            during = reported.lines_with("has been stalled")
            after = reported.lines_with("was stalled for")
            stalls = recorder.of(LoopStalled)
            identity = f"{blocking.name} ({blocking.id})"
    assert len(during) == 1
    assert re.search(r"for \d+\.\d\d s: job ", during[0])
    assert identity in during[0]
    assert re.search(r" at \S+\.py:\d+ in ", during[0])
    assert [line for line in after if identity in line]
    mine = [stall for stall in stalls if stall.job_id == blocking.id]
    assert len(mine) == 1
    assert (mine[0].job_name, mine[0].held_gil) == (blocking.name, False)
    assert mine[0].seconds > 0.1


async def test_in_a_kernel_jobs_stall_and_cells_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook a cell that keeps the loop is what somebody asked for, and nothing is said of it;
    a job that does so is reported as everywhere.
    """
    looked = threading.Event()
    place = Watchdog._place

    def look(self: Watchdog) -> object:
        found = place(self)
        looked.set()
        return found

    monkeypatch.setattr(Watchdog, "_place", look)
    monkeypatch.setattr("asyncworkers.supervisor.in_notebook", lambda: True)
    with Reported() as reported:

        async def blocks() -> None:
            reported.block()

        async with Supervisor(listeners=[recorder := EventRecorder()]) as supervisor:
            waiting = await supervisor.submit(asyncio.Event().wait)
            assert looked.wait(60), "nobody looked at the loop"  # as a cell that computes
            await supervisor.call(blocks)
            await recorder.wait_for(LoopStalled)
            waiting.cancel()
        stalls = recorder.of(LoopStalled)
    assert len(stalls) == 1
    assert stalls[0].job_name.endswith("blocks")
    assert not reported.lines_with("no job of ours")


async def test_the_line_is_where_it_blocks() -> None:
    """A job that spins in a function of another is named with the line it is at, not where it
    began.
    """
    with Reported() as reported:

        def spins() -> None:
            while not reported.seen.is_set():
                pass

        async def calls() -> None:
            spins()

        async with Supervisor(listeners=[recorder := EventRecorder()]) as supervisor:
            await supervisor.call(calls)
            await recorder.wait_for(LoopStalled)
    lines = reported.lines_with("has been stalled")
    first = spins.__code__.co_firstlineno
    where = re.search(HERE + r":(\d+) in .*spins", lines[0])
    # The look may also fall into `is_set`, which the loop calls.
    assert where is None or first < int(where[1]) <= first + 2
    assert where is not None or threading.__file__ in lines[0]


async def test_an_item_of_a_map_is_named() -> None:
    """Items mostly have no Job of their own; the function's name is told either way."""
    with Reported() as reported:

        async def blocks(_item: int) -> None:
            reported.block()

        async with Supervisor() as supervisor:
            await supervisor.map(job(blocks, name="each_item"), [1])
    assert re.search(
        r"job each_item \((of a map|\w+-\d+)\) at ", reported.lines_with("has been stalled")[0]
    )


async def test_a_task_of_a_job_is_named_with_its_job() -> None:
    """A task that a job has started blocks in the job's name."""
    with Reported() as reported:

        async def subtask() -> None:
            reported.block()

        async def starts() -> None:
            await asyncio.create_task(subtask())

        async with Supervisor() as supervisor:
            one = await supervisor.submit(starts)
            await one
    assert f"job {one.name} ({one.id}) at " in reported.lines_with("has been stalled")[0]


async def test_what_is_no_job_of_ours_is_not_blamed_on_one() -> None:
    """While jobs wait, the host's own code blocks: reported, and as what it is."""
    with Reported() as reported:

        async def host() -> None:
            reported.block()

        async with Supervisor(listeners=[recorder := EventRecorder()]) as supervisor:
            waiting = await supervisor.submit(asyncio.Event().wait)
            await asyncio.create_task(host())
            stall = await recorder.wait_for(LoopStalled)
            waiting.cancel()
    assert "no job of ours at " in reported.lines_with("has been stalled")[0]
    assert (stall.job_id, stall.job_name) == (None, None)


async def test_blocking_in_a_thread_is_no_stall() -> None:
    """A job in a thread may block as long as it likes: the loop turns, so nothing is reported. The
    thread's job ends when the watchdog has looked many times.
    """
    looks = 0
    enough = threading.Event()
    wait = threading.Event.wait

    def counted(event: threading.Event, timeout: float | None = None) -> bool:
        nonlocal looks
        if threading.current_thread().name.endswith("-watchdog"):
            looks += 1
            if looks > 6:
                enough.set()
        return wait(event, timeout)

    def blocks() -> None:
        assert wait(enough, 60)

    with Reported() as reported, pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Event, "wait", counted)
        async with Supervisor() as supervisor:
            await supervisor.call(blocks)
    # A crowded machine may hold the loop's own thread up, but never by this job.
    assert not [line for line in reported.lines if "job test_blocking" in line]


async def test_the_thread_ends_with_its_supervisor() -> None:
    """One thread a supervisor, by its name, gone when that has ended."""
    name = "asyncworkers-guarded-watchdog"

    def alive() -> bool:
        return name in {thread.name for thread in threading.enumerate()}

    async with no_leaks():
        async with Supervisor(name="guarded"):
            assert alive()
        assert not alive()


@pytest.mark.virtual_time
async def test_virtual_time_has_no_watchdog() -> None:
    """On a loop whose time is not real there is nothing to measure, and no thread."""
    async with Supervisor(name="guarded"):
        assert not [t.name for t in threading.enumerate() if t.name.endswith("watchdog")]


# ---- in a process of its own


PREAMBLE = """
import asyncio, logging, os, re, sys, threading, time
from asyncworkers import Supervisor, job, run
from asyncworkers.events import LoopStalled

logging.basicConfig(format="%(message)s", stream=sys.stdout)

def say(*words):
    print(*words, flush=True)
"""


class Child:
    """A script in a process of its own, read line by line."""

    def __init__(self, tmp_path: Path, script: str) -> None:
        path = tmp_path / "script.py"
        path.write_text(PREAMBLE + script)
        kind = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        self.process = subprocess.Popen(
            [sys.executable, "-u", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "ASYNCWORKERS_LOOP": kind},
        )

    def read_to(self, text: str) -> list[str]:
        """Read lines until one holds the text; return them all."""
        assert self.process.stdout is not None
        lines: list[str] = []
        while not lines or text not in lines[-1]:
            assert select.select([self.process.stdout], [], [], 60)[0], lines
            line = self.process.stdout.readline().decode()
            assert line, lines
            lines.append(line)
        return lines

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


async def test_a_stall_is_said_again_while_it_goes_on(tmp_path: Path) -> None:
    """The longer it lasts the less often it is said; when it is over, how long it was."""
    script = """
async def stuck():
    while not os.path.exists(sys.argv[0] + ".release"):
        pass

async def main():
    async with Supervisor(listeners=[told]) as supervisor:
        await supervisor.call(stuck)
        await over.wait()

def told(event):
    if isinstance(event, LoopStalled) and event.job_name == "stuck":
        say("event", os.path.basename(event.file), event.function, event.held_gil)
        over.set()

over = asyncio.Event()
run(main)
say("end")
"""
    with Child(tmp_path, script) as child:
        for _ in range(2):
            line = child.read_to("has been stalled")[-1]
            assert "job stuck (" in line
        (tmp_path / "script.py.release").touch()
        lines = child.read_to("end")
        assert child.process.wait(60) == 0
    assert any("was stalled for" in line and "job stuck" in line for line in lines)
    (event,) = [line for line in lines if line.startswith("event ")]
    assert event.split()[-1] == "False"


async def test_a_call_that_holds_the_gil_is_reported_afterwards(tmp_path: Path) -> None:
    """No thread can run meanwhile, this one included: the report comes when the call returns, says
    so, and names the job and the line.
    """
    script = """
async def backtracks():
    re.match("(a+)+$", "a" * 23 + "b")

async def main():
    async with Supervisor(listeners=[told]) as supervisor:
        while not over.is_set():
            await supervisor.call(backtracks)

def told(event):
    if isinstance(event, LoopStalled) and event.held_gil and event.job_name == "backtracks":
        say("event", event.job_id is not None, event.line)
        over.set()

over = asyncio.Event()
# On a crowded machine the call gets too little processor time to be sure; here that is not asked.
sys.modules["asyncworkers._engine.watchdog"]._cpu_seconds = lambda thread: time.monotonic()
run(main)
"""
    with Child(tmp_path, script) as child:
        lines = child.read_to("event True")
        assert child.process.wait(60) == 0
    assert any("holding the GIL: job backtracks" in line for line in lines)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be suspended here")
async def test_a_suspended_process_is_no_stall(tmp_path: Path) -> None:
    """A computer that was asleep, or a process that was stopped, is nobody's stall: neither with a
    loop that waits, nor for the job that is at hand.
    """
    script = """
async def main():
    async with Supervisor(listeners=[told]) as supervisor:
        waiting = await supervisor.submit(asyncio.Event().wait)
        await asyncio.sleep(0)
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        waiting.cancel()
    say("end")

def told(event):
    if isinstance(event, LoopStalled):
        say("stalled", event)

run(main)
"""
    with Child(tmp_path, script) as child:
        child.read_to("ready")
        for _ in range(3):
            child.process.send_signal(signal.SIGSTOP)
            time.sleep(0.3)  # what it must not take for a stall
            child.process.send_signal(signal.SIGCONT)
        assert child.process.stdin is not None
        child.process.stdin.write(b"\n")
        child.process.stdin.flush()
        lines = child.read_to("end")
    assert not [line for line in lines if "stalled" in line]
