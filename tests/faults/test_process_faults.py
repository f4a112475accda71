"""Faults of processes (group P), with real children and real signals, and job J28: a crash fails the
job that ran and nothing else.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cpu_jobs
import pytest
from children import child, run_child
from invariants import CANARY, trial, until

from asyncworkers import (
    Cancelled,
    Job,
    JobFailed,
    NotSerializable,
    Queue,
    Retry,
    Supervisor,
    TimedOut,
    WorkerCrashed,
    job,
)
from asyncworkers.bridge import process
from asyncworkers.events import WorkerReplaced
from asyncworkers.testing import no_leaks

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(sys.platform == "win32", reason="children need socket pairs"),
]

Log = pytest.LogCaptureFixture

SOON = 0.8
"""A timeout that is over soon, but not before a job has begun, however busy the machine is."""


def cpu(function: Callable[..., Any], **options: Any) -> Any:
    """The function as a job for processes."""
    return job(function, cpu=True, **options)


async def appears(path: Path) -> str:
    """Wait for a file that a job makes; what stands in it."""
    await until(lambda: path.exists() and path.read_text(), f"file {path.name}")
    return path.read_text()


async def gone(pid: int) -> None:
    """Wait until a process that is not ours to reap has ended."""

    def has_ended() -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True
        return stat.rpartition(")")[2].split()[0] == "Z"

    await until(has_ended, f"the end of process {pid}")


async def running_twice(supervisor: Supervisor, tmp_path: Path) -> list[tuple[Job[Any], int]]:
    """Two jobs that wait for the file `go`, in two children; with the children's ids."""
    found = []
    for name in ("one", "two"):
        file = tmp_path / name
        waiting = await supervisor.submit(
            cpu(cpu_jobs.wait_for_file), str(file), str(tmp_path / "go"), CANARY
        )
        pid = int(await appears(file))
        await until(lambda waiting=waiting: waiting.state == "running")
        found.append((waiting, pid))
    return found


async def test_fault_P01_child_is_killed(caplog: Log, tmp_path: Path) -> None:
    """A child that is killed in the middle of a job fails that attempt and no other; there is a new
    child for the next job.
    """
    async with trial(caplog, processes=2) as t:
        (victim, pid), (other, other_pid) = await running_twice(t.supervisor, tmp_path)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerCrashed, match="SIGKILL") as caught:
            await victim
        assert (caught.value.signal, caught.value.exit_code) == (signal.SIGKILL, None)
        assert other.state == "running"
        fresh = await t.supervisor.call(cpu(cpu_jobs.whoami), CANARY)
        assert fresh not in (pid, other_pid)
        (tmp_path / "go").touch()
        assert await other == "done"
        t.told_once(victim, "Failed", "WorkerCrashed")
        assert len(t.recorder.of(WorkerReplaced)) == 1


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        (cpu_jobs.segfault, (), (signal.SIGSEGV, None)),
        (cpu_jobs.leave, (0,), (None, 0)),
        (cpu_jobs.leave, (7,), (None, 7)),
        (cpu_jobs.abort, (), (signal.SIGABRT, None)),
    ],
)
async def test_fault_P02_child_ends_itself(
    caplog: Log, function: Any, args: tuple[Any, ...], expected: Any
) -> None:
    """A fault in C code, an abort, and an exit without a result, also one with code 0, are crashes."""
    async with trial(caplog, processes=1) as t:
        crashing = await t.supervisor.submit(cpu(function), *args, CANARY)
        behind = [await t.supervisor.submit(cpu(cpu_jobs.echo), n) for n in range(20)]
        with pytest.raises(WorkerCrashed) as caught:
            await crashing
        assert (caught.value.signal, caught.value.exit_code) == expected
        assert [await one for one in behind] == list(range(20))
        t.told_once(crashing, "Failed", "WorkerCrashed")


async def test_a_crash_tells_the_last_words(caplog: Log, capfd: Any) -> None:
    """The error holds what the child said last, which is on our standard error as well."""
    async with trial(caplog, processes=1) as t:
        with pytest.raises(WorkerCrashed) as caught:
            await t.supervisor.call(cpu(cpu_jobs.speak_and_die), CANARY)
        assert "the last thing it said" in caught.value.stderr
        assert any("the last thing it said" in note for note in caught.value.__notes__)
    assert "the last thing it said" in capfd.readouterr().err


@pytest.mark.parametrize("function", [cpu_jobs.exit_politely, cpu_jobs.interrupt_keyboard])
async def test_fault_P03_job_raises_what_ends_processes(caplog: Log, function: Any) -> None:
    """SystemExit and KeyboardInterrupt in a child are the job's failure; the child lives on."""
    async with trial(caplog, processes=1) as t:
        before = await t.supervisor.call(cpu(cpu_jobs.whoami))
        failing = await t.supervisor.submit(cpu(function), CANARY)
        with pytest.raises(JobFailed, match=r"SystemExit|KeyboardInterrupt") as caught:
            await failing
        assert isinstance(caught.value.__cause__, (SystemExit, KeyboardInterrupt))
        assert await t.supervisor.call(cpu(cpu_jobs.whoami)) == before
        t.told_once(failing, "Failed", "JobFailed")


@pytest.mark.parametrize("function", [cpu_jobs.raise_two, cpu_jobs.raise_hostile])
async def test_fault_P04_error_that_cannot_travel(caplog: Log, function: Any) -> None:
    """An error that pickle cannot make anew comes as a JobFailed that tells its class, its text and
    its traceback.
    """
    async with trial(caplog, processes=1) as t:
        before = await t.supervisor.call(cpu(cpu_jobs.whoami))
        failing = await t.supervisor.submit(cpu(function), CANARY)
        with pytest.raises(
            JobFailed, match=r"cpu_jobs\.(TwoArguments: one and two|Hostile)"
        ) as caught:
            await failing
        assert f"in {function.__name__}" in str(caught.value.__cause__)
        assert await t.supervisor.call(cpu(cpu_jobs.whoami)) == before
        t.told_once(failing, "Failed", "JobFailed")


async def test_error_comes_with_its_traceback(caplog: Log) -> None:
    """An ordinary error is itself, and its cause shows where it was raised in the child, causes too."""
    async with trial(caplog, processes=1) as t:
        with pytest.raises(ValueError, match="wrong") as caught:
            await t.supervisor.call(cpu(cpu_jobs.raise_value_error), "wrong")
        text = str(caught.value.__cause__)
        assert "in raise_value_error" in text
        assert "KeyError: 'inner'" in text
        assert "serve.py" not in text


async def test_fault_P05_argument_cannot_travel(caplog: Log) -> None:
    """What cannot be pickled is refused at submit, naming function and argument; lambdas, closures
    and local classes can.
    """

    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

    async with trial(caplog, processes=1) as t:
        for submit in (t.supervisor.submit, t.supervisor.call):
            with pytest.raises(NotSerializable, match=r"argument 2 of whoami .* a lock"):
                await submit(cpu(cpu_jobs.whoami), 1, threading.Lock())
        with pytest.raises(NotSerializable, match="argument 'value' of echo"):
            t.supervisor.submit_nowait(cpu(cpu_jobs.echo), value=threading.Lock())
        lock = threading.Lock()
        with pytest.raises(NotSerializable, match="cannot be pickled"):
            await t.supervisor.submit(cpu(lambda: lock))
        with pytest.raises(NotSerializable):
            await t.supervisor.submit_many(cpu(cpu_jobs.echo), [1, threading.Lock()])
        assert t.supervisor.stats().submitted == 0
        add = 5
        assert await t.supervisor.call(cpu(lambda n: n + add), 1) == 6
        assert (await t.supervisor.call(cpu(cpu_jobs.echo), lambda: 3))() == 3
        again = await t.supervisor.call(cpu(cpu_jobs.echo), Local(7))
        assert (type(again), again.value) == (Local, 7)


async def test_result_cannot_travel(caplog: Log) -> None:
    """A result that cannot be pickled is that job's failure, and says so."""
    async with trial(caplog, processes=1) as t:
        failing = await t.supervisor.submit(cpu(lambda _: threading.Lock()), CANARY)
        with pytest.raises(
            NotSerializable, match="the value it returned cannot be pickled, a lock"
        ):
            await failing
        t.told_once(failing, "Failed", "NotSerializable")


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
@pytest.mark.parametrize("function", [cpu_jobs.run_on, cpu_jobs.run_on_deaf, cpu_jobs.run_on_in_c])
async def test_fault_P06_running_job_is_stopped(
    caplog: Log, tmp_path: Path, how: str, function: Any
) -> None:
    """Cancelling or timing out a job in a process really ends it: first by an interrupt, which lets
    `finally` run, then with its process. What waited behind it runs all the same.
    """
    polite = function is cpu_jobs.run_on
    queues = [Queue("processes", 1, kind="processes", unwind=10.0 if polite else 0.05)]
    async with trial(caplog, more=queues) as t:
        file = tmp_path / "running"
        stopping = cpu(function, timeout=SOON if how == "timed out" else None)
        running = await t.supervisor.submit(stopping, str(file), CANARY)
        pid = int(await appears(file))
        behind = [await t.supervisor.submit(cpu(cpu_jobs.whoami)) for _ in range(3)]
        if how == "cancelled":
            assert running.cancel("enough")
        outcome = await running.wait()
        assert outcome == (TimedOut(SOON) if how == "timed out" else Cancelled("enough"))
        pids = {await one for one in behind}
        if polite:
            assert pids == {pid}
            assert file.with_suffix(".unwound").exists()
        else:
            assert pid not in pids
            await gone(pid)
        kind, state = ("TimedOut", "failed") if how == "timed out" else ("Cancelled", "cancelled")
        t.told_once(running, kind, state=state)


PARENT = """\
import cpu_jobs
async def main():
    async with Supervisor(processes=2) as supervisor:
        for n in range(2):
            await supervisor.submit(job(cpu_jobs.{function}, cpu=True), sys.argv[n + 1])
        await asyncio.sleep(600)
run(main)
"""


FORKING = """\
sys.path.insert(0, {folder!r})
import cpu_jobs, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads

async def main():
    async with Supervisor(processes=2) as supervisor:
        for name, function in dict(one=cpu_jobs.run_on, two=cpu_jobs.run_on_in_c).items():
            await supervisor.submit(job(function, cpu=True), {place!r} + "/" + name)
        while not all(os.path.exists({place!r} + "/" + name) for name in ("one", "two")):
            await asyncio.sleep(0.01)
        copy = os.fork()
        if not copy:
            for descriptor in range(3):
                os.close(descriptor)
            while True:
                signal.pause()
        say("copy", copy)
        await asyncio.sleep(600)

run(main)
"""


@contextlib.contextmanager
def parent_of_two(tmp_path: Path, loop: str, function: str) -> Any:
    """A process whose two children are in the middle of a job, and their ids."""
    files = [tmp_path / "one", tmp_path / "two"]
    preamble = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    script = (
        preamble
        + "import asyncio, os\nfrom asyncworkers import *\n"
        + f"sys.argv[1:] = {[str(file) for file in files]!r}\n"
        + PARENT.format(function=function)
    )
    with child(script, loop, preamble="") as parent:
        yield parent, files


def loop_name() -> str:
    """The kind of loop this test runs on."""
    kind = type(asyncio.get_running_loop()).__module__
    return "uvloop" if kind.startswith("uvloop") else "asyncio"


@pytest.mark.parametrize(
    "function",
    ["run_on", "run_on_deaf", "run_on_in_c", "run_on_in_c_without_files", "start_grandchild"],
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_fault_P08_parent_is_killed(
    tmp_path: Path, function: str, number: signal.Signals
) -> None:
    """However the parent ends, its children end too, and what they have started, also in the middle
    of a call that never lets go of the interpreter.
    """
    with parent_of_two(tmp_path, loop_name(), function) as (parent, files):
        pids = [int(await appears(file)) for file in files]
        parent.tell(number)
        for pid in pids:
            await gone(pid)


async def test_fault_P08_parent_that_has_forked_is_killed(tmp_path: Path) -> None:
    """Copies that it has made of itself, which go on, do not keep its children alive."""
    script = FORKING.format(folder=str(Path(__file__).parent), place=str(tmp_path))
    with child(script, loop_name()) as parent:
        copy = int(parent.expect("copy").split()[1])
        try:
            pids = [int(await appears(tmp_path / name)) for name in ("one", "two")]
            parent.tell(signal.SIGKILL)
            for pid in pids:
                await gone(pid)
            os.kill(copy, 0)  # it is still there
        finally:
            os.kill(copy, signal.SIGKILL)


async def test_fault_P09_interrupt_reaches_the_parent_only(caplog: Log, tmp_path: Path) -> None:
    """Children are in no group with their parent, and ignore an interrupt that reaches them."""
    async with trial(caplog, processes=2) as t:
        found = await running_twice(t.supervisor, tmp_path)
        for _, pid in found:
            assert os.getpgid(pid) == pid
            assert os.getsid(pid) == pid
            os.killpg(pid, signal.SIGINT)
        (tmp_path / "go").touch()
        assert [await one for one, _ in found] == ["done", "done"]
        assert t.recorder.of(WorkerReplaced) == []


DRAINED = """
    sys.path.insert(0, {folder!r})
    import cpu_jobs

    async def main():
        async with Supervisor(processes=2, grace=60) as supervisor:
            for name in ("one", "two"):
                await supervisor.submit(job(cpu_jobs.wait_for_file, cpu=True), name, "go")
            await asyncio.Event().wait()

    os.setsid()
    os.chdir({place!r})
    run(main)
"""


async def test_fault_P09_interrupt_of_a_terminal_drains(tmp_path: Path) -> None:
    """Ctrl-C goes to the whole group of a terminal: the parent drains, children finish what they run, and
    nobody says anything of KeyboardInterrupt.
    """
    script = DRAINED.format(folder=str(Path(__file__).parent), place=str(tmp_path))
    with child(script, loop_name()) as parent:
        pids = [int(await appears(tmp_path / name)) for name in ("one", "two")]
        os.killpg(parent.process.pid, signal.SIGINT)
        parent.expect("draining; once more cancels everything")
        (tmp_path / "go").touch()
        assert parent.ends() == 0, parent.output
        for pid in pids:
            await gone(pid)
    assert "2 done, 0 cancelled, 0 not started, 0 abandoned" in parent.output
    assert "Traceback" not in parent.output
    assert "KeyboardInterrupt" not in parent.output


async def test_fault_P10_sigterm_to_a_child(caplog: Log, tmp_path: Path) -> None:
    """SIGTERM to one child is a crash of that child; nobody else thinks of ending."""
    async with trial(caplog, processes=2) as t:
        (victim, pid), (other, _) = await running_twice(t.supervisor, tmp_path)
        os.kill(pid, signal.SIGTERM)
        with pytest.raises(WorkerCrashed, match="SIGTERM"):
            await victim
        assert (t.supervisor.state, other.state) == ("open", "running")
        (tmp_path / "go").touch()
        assert await other == "done"


async def test_fault_P11_child_is_stopped(caplog: Log, tmp_path: Path) -> None:
    """A child that stands still neither blocks us, however much is written to it, nor keeps its job
    longer than the timeout and its grace.
    """
    queues = [Queue("processes", 1, kind="processes", unwind=0.05)]
    async with trial(caplog, more=queues) as t:
        file = tmp_path / "running"
        running = await t.supervisor.submit(
            cpu(cpu_jobs.run_on, timeout=2 * SOON), str(file), CANARY
        )
        pid = int(await appears(file))
        os.kill(pid, signal.SIGSTOP)
        data = bytes(60 << 20)
        behind = await t.supervisor.submit(cpu(cpu_jobs.length_of), data)
        assert await running.wait() == TimedOut(2 * SOON)
        assert await behind == len(data)
        await gone(pid)


@pytest.mark.parametrize(
    "function", [cpu_jobs.send_garbage, cpu_jobs.send_half_a_frame, cpu_jobs.spoil_the_ring]
)
async def test_fault_P12_garbage_from_a_child(caplog: Log, function: Any) -> None:
    """A child that sends what is no frame, half of one, or spoils the ring, is killed, and the job that
    ran there fails; nobody else notices.
    """
    async with trial(caplog, processes=1) as t:
        spoiling = await t.supervisor.submit(cpu(function), CANARY)
        behind = [await t.supervisor.submit(cpu(cpu_jobs.echo), n) for n in range(5)]
        broken = function is not cpu_jobs.send_half_a_frame
        with pytest.raises(WorkerCrashed, match="broke the protocol" if broken else "exit code 0"):
            await spoiling
        assert [await one for one in behind] == list(range(5))


async def test_fault_P13_job_spoils_its_process(caplog: Log, tmp_path: Path, capfd: Any) -> None:
    """A job may print, close its standard streams and change the directory; the child goes on."""
    async with trial(caplog, processes=1) as t:
        before = await t.supervisor.call(cpu(cpu_jobs.whoami))
        for _ in range(2):
            spoiling = cpu(cpu_jobs.misbehave)
            if await t.supervisor.call(spoiling, str(tmp_path), CANARY) == "all well":
                break
        assert await t.supervisor.call(cpu(cpu_jobs.whoami)) == before
    told = capfd.readouterr()
    assert "a line on standard output" in told.out
    assert "a line on standard error" in told.err


async def test_fault_P15_child_has_children(caplog: Log, tmp_path: Path) -> None:
    """What a job has started in its process's group ends with the process, also if it holds the
    process's files open.
    """
    queues = [Queue("processes", 1, kind="processes", unwind=0.05)]
    async with trial(caplog, more=queues) as t:
        file = tmp_path / "grandchild"
        starting = await t.supervisor.submit(cpu(cpu_jobs.start_grandchild), str(file), CANARY)
        grandchild = int(await appears(file))
        starting.cancel("enough")
        assert await starting.wait() == Cancelled("enough")
        orphan = await t.supervisor.submit(cpu(cpu_jobs.fork_and_die), str(tmp_path / "orphan"))
        with pytest.raises(WorkerCrashed, match="SIGKILL"):
            await orphan
        await gone(int((tmp_path / "orphan").read_text()))
        await gone(grandchild)


async def test_fault_P16_main_without_a_guard() -> None:
    """A script that makes a supervisor without asking whether it is the main module works: children
    never run it again.
    """
    said = run_child(
        """
        def double(n):
            return 2 * n

        class Point:
            def __init__(self, x):
                self.x = x

        def move(point):
            return Point(point.x + 1)

        async def main():
            say("main runs")
            async with Supervisor(processes=2) as supervisor:
                say(await supervisor.map(double, range(5), cpu=True))
                moved = await supervisor.call(job(move, cpu=True), Point(1))
                say(type(moved) is Point, moved.x)

        run(main)
        """,
        loop_name(),
    )
    assert said.split("\n") == ["main runs", "[0, 2, 4, 6, 8]", "True 2", ""]


async def test_fault_P18_import_fails_in_the_child(
    caplog: Log, tmp_path: Path, monkeypatch: Any
) -> None:
    """A module that cannot be imported in the child is the job's failure, each time; the child lives."""
    (tmp_path / "breaks_in_child.py").write_text(
        "import os\n"
        "if 'BREAKS' in os.environ:\n    raise ImportError('not here')\n"
        "def function(n):\n    return n\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import breaks_in_child

    monkeypatch.setenv("BREAKS", "1")
    try:
        async with trial(caplog, processes=1) as t:
            before = await t.supervisor.call(cpu(cpu_jobs.whoami))
            for _ in range(3):
                with pytest.raises(ImportError, match="not here"):
                    await t.supervisor.call(cpu(breaks_in_child.function), 1)
            assert await t.supervisor.call(cpu(cpu_jobs.whoami)) == before
    finally:
        del sys.modules["breaks_in_child"]


async def test_children_that_cannot_start(caplog: Log, tmp_path: Path, monkeypatch: Any) -> None:
    """If no child gets ready, the jobs that wait are told so after a few attempts, and no more children
    are started than that; once one gets ready all is well.
    """
    broken = tmp_path / "broken.py"
    broken.write_text("import sys; sys.exit('there is no way')")
    async with no_leaks(grace=3.0), Supervisor(processes=1) as supervisor:
        with monkeypatch.context() as patch:
            patch.setattr(process, "BOOT", str(broken))
            waiting = [await supervisor.submit(cpu(cpu_jobs.echo), n) for n in range(5)]
            for one in waiting:
                with pytest.raises(WorkerCrashed, match="exit code 1") as caught:
                    await one
                assert "there is no way" in caught.value.stderr
            patch.setattr(sys, "executable", str(tmp_path / "no such file"))
            with pytest.raises(WorkerCrashed, match="no child process could be started"):
                await supervisor.call(cpu(cpu_jobs.echo), 1)
        assert await supervisor.call(cpu(cpu_jobs.echo), 1) == 1
        stats = supervisor.stats().queues["processes"]
        assert (stats.failed, stats.succeeded) == (6, 1)
    died = [r for r in caplog.records if "is gone" in r.getMessage()]
    assert len(died) <= 5


async def test_fault_P19_large_result(caplog: Log) -> None:
    """While a large result comes, the loop goes on turning; nothing of it is lost."""
    async with trial(caplog, processes=1) as t:
        assert await t.supervisor.call(cpu(cpu_jobs.make_bytes), 10) == bytes(10)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        large = await t.supervisor.call(cpu(cpu_jobs.make_bytes), 64 << 20)
        counting.cancel()
        assert len(large) == 64 << 20
        assert turns > 60


async def test_fault_P20_out_of_memory(caplog: Log) -> None:
    """A job that gets no memory fails with MemoryError or dies with its process, alone either way."""
    async with trial(caplog, processes=1) as t:
        failing = await t.supervisor.submit(cpu(cpu_jobs.exhaust_memory), CANARY)
        with pytest.raises((MemoryError, WorkerCrashed)):
            await failing
        with pytest.raises(WorkerCrashed, match="SIGKILL"):  # what the kernel's killer sends
            await t.supervisor.call(cpu(cpu_jobs.kill_myself), signal.SIGKILL, CANARY)


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="only Linux can be told")
async def test_fault_P20_the_kernel_ends_a_child_rather_than_its_parent(caplog: Log) -> None:
    """Children are marked as those to end first when memory runs out; the process that holds all jobs is not."""
    async with trial(caplog, processes=1) as t:
        ours = int(Path("/proc/self/oom_score_adj").read_text())
        theirs = await t.supervisor.call(cpu(cpu_jobs.read_text), "/proc/self/oom_score_adj")
        assert int(theirs) == min(1000, ours + 200)
        assert int(Path("/proc/self/oom_score_adj").read_text()) == ours


async def test_fault_J28_poison(caplog: Log, tmp_path: Path) -> None:
    """A job that kills its process each time runs as often as its policy says, if that names the crash,
    and once otherwise; the others go on.
    """
    async with trial(caplog, processes=1) as t:
        file = str(tmp_path / "count")
        poison = cpu(poisonous, retry=Retry(3, on=WorkerCrashed, delay=0))
        poisoned = await t.supervisor.submit(poison, file, CANARY)
        others = [await t.supervisor.submit(cpu(cpu_jobs.echo), n) for n in range(20)]
        with pytest.raises(WorkerCrashed, match="SIGKILL"):
            await poisoned
        assert poisoned.attempt == 3
        assert Path(file).read_text() == "..."
        assert [await one for one in others] == list(range(20))
        t.told_once(poisoned, "Failed", "WorkerCrashed", attempts=3)
        once = await t.supervisor.submit(cpu(poisonous, retry=Retry(3, on=OSError)), file, CANARY)
        with pytest.raises(WorkerCrashed):
            await once
        assert (once.attempt, Path(file).read_text()) == (1, "....")


def poisonous(file: str, _payload: str) -> None:
    """Count, and die."""
    cpu_jobs.count_in(file)
    os.kill(os.getpid(), signal.SIGKILL)


async def test_poison_does_not_spin(caplog: Log) -> None:
    """After some children that died in a row there are pauses before the next one; a job that ends
    well makes up for them.
    """
    async with trial(caplog, processes=1) as t:
        dying = [
            await t.supervisor.submit(cpu(cpu_jobs.kill_myself), signal.SIGKILL, CANARY)
            for _ in range(5)
        ]
        for one in dying:
            with pytest.raises(WorkerCrashed):
                await one
        assert await t.supervisor.call(cpu(cpu_jobs.echo), 1) == 1
        pauses = [r.getMessage() for r in caplog.records if "no other is started" in r.getMessage()]
        assert [text.split()[0] for text in pauses] == ["3", "4", "5"]
        assert "for 0.1 s" in pauses[0]
        assert "for 0.4 s" in pauses[2]


KILLS = int(os.environ.get("ASYNCWORKERS_KILLS", "200"))
"""More of them with `ASYNCWORKERS_KILLS=1000 python -m pytest tests/faults -k kills -s`."""


@pytest.mark.timeout(120 + KILLS)
async def test_200_kills_at_random_moments(caplog: Log, tmp_path: Path) -> None:
    """Whenever children are killed, every job ends, none that succeeded ran twice, the count of runs
    is right, and nothing is left behind.
    """
    dice = random.Random(28)
    file = tmp_path / "runs"
    kills = 0
    async with trial(caplog, processes=3) as t:
        jobs: list[Job[Any]] = []
        append = cpu(cpu_jobs.append)
        over = False
        settled, more = 0, asyncio.Event()

        def count(_: Job[Any]) -> None:
            nonlocal settled
            settled += 1
            more.set()

        async def submit() -> None:
            while not over:
                jobs.append(await t.supervisor.submit(append, str(file), str(len(jobs))))
                jobs[-1]._watch(count)
                if len(jobs) % 20 == 0:
                    await jobs[-1].wait()

        submitting = asyncio.create_task(submit())
        while kills < KILLS:
            goal = settled + dice.randrange(40)
            while settled < goal:  # this waits, so that children get what processors there are
                more.clear()
                await more.wait()
            await asyncio.sleep(0)  # let `submit` go on, whatever the dice say
            pids = [int(p) for p in _children() if _serves(p)]
            if pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(dice.choice(pids), signal.SIGKILL)
                    kills += 1
        over = True
        await submitting
        outcomes = [await one.wait() for one in jobs]
        ran = Counter(file.read_text().split("\n")[:-1])
        for number, outcome in enumerate(outcomes):
            times = ran[str(number)]
            if type(outcome).__name__ == "Succeeded":
                assert times == 1, f"job {number} ran {times} times"
            else:
                assert isinstance(outcome.error, WorkerCrashed)
                assert times <= 1
        failed = sum(type(outcome).__name__ != "Succeeded" for outcome in outcomes)
        sys.stdout.write(f"{kills} kills, {len(jobs)} jobs, {failed} of them crashed\n")
        caplog.clear()


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def _serves(pid: str) -> bool:
    try:
        return "boot.py" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
