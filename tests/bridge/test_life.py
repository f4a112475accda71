"""Life in a child: what is said there comes home, how it is made ready, and when it is replaced."""

import asyncio
import collections
import contextlib
import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import life_jobs
import pytest

from asyncworkers import (
    NotSerializable,
    Queue,
    Retry,
    Supervisor,
    WorkerCrashed,
    job,
)
from asyncworkers.bridge.process import ProcessBridge
from asyncworkers.events import ChildEnded, ChildStarted, JobProgressed, SupervisorClosed
from asyncworkers.testing import EventRecorder, no_leaks, simulate

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="children need POSIX pipes and signals"),
]

Log = pytest.LogCaptureFixture

OTHERS = ("shared memory /dev/shm/*",)
"""Children share memory that has no name; what has one is not ours."""

WARNING = logging.WARNING
FILES = Path("/proc/self/fd")


def cpu(function: Callable[..., Any], **options: Any) -> Any:
    """The function as a job for processes."""
    return job(function, cpu=True, **options)


@contextlib.asynccontextmanager
async def processes(count: int = 1, listeners: Any = (), **terms: Any) -> AsyncIterator[Supervisor]:
    """A supervisor whose children live on these terms; it leaves nothing behind."""
    queue = Queue("processes", count, kind="processes", **terms)
    async with no_leaks(ignore=OTHERS, grace=3.0):
        async with Supervisor(queues=[queue], listeners=listeners) as supervisor:
            yield supervisor


async def until(condition: Callable[[], object]) -> None:
    """Turn the loop until something is so."""
    while not condition():
        await asyncio.sleep(0)


def said(caplog: Log, name: str) -> list[logging.LogRecord]:
    """What a logger has said."""
    return [record for record in caplog.records if record.name == name]


def block_until(condition: Callable[[], object]) -> None:
    """Keep the whole loop waiting."""
    while not condition():
        time.sleep(0.001)


# ---- the end


@pytest.mark.skipif(not FILES.exists(), reason="needs /proc")
@pytest.mark.asyncio
async def test_a_child_ends_by_itself_though_a_copy_of_its_parent_holds_the_pipe(
    tmp_path: Path,
) -> None:
    """What a program forks has copies of its descriptors: children hear all the same that it closes."""
    before = {file.name for file in FILES.iterdir()}
    copies: list[int] = []
    note = tmp_path / "note"
    try:
        async with processes() as supervisor:
            await supervisor.call(cpu(life_jobs.note_at_exit), str(note))
            for name in {file.name for file in FILES.iterdir()} - before:
                with contextlib.suppress(OSError):
                    copies.append(os.dup(int(name)))
            await supervisor.close()
            for copy in copies:
                os.close(copy)
            copies.clear()
    finally:
        for copy in copies:
            os.close(copy)
    assert note.exists()


# ---- logging


@pytest.mark.asyncio
async def test_log_record_comes_home(caplog: Log) -> None:
    """A record that a job logs is given to the logger of its name, before the job's end is told, and
    says where it is from.
    """
    caplog.set_level(logging.INFO, "life.some")
    async with processes() as supervisor:
        logging_job = cpu(life_jobs.log)
        lock = threading.Lock
        one = await supervisor.submit(
            logging_job, "life.some", logging.INFO, "%s %d", "it is", 5, color="blue", odd=lock
        )
        pid = await one
        (record,) = said(caplog, "life.some")
        assert record.getMessage() == "it is 5"
        assert (record.levelname, record.funcName, record.pathname) == (
            *("INFO", "log"),
            life_jobs.__file__,
        )
        assert (record.process, record.processName) == (pid, "processes-1")
        where: Any = record
        assert (where.job_id, where.job_name, where.attempt) == (one.id, "log", 1)
        assert where.color == "blue"
        assert where.odd == str(lock), "what is no plain data comes as its text"


@pytest.mark.asyncio
async def test_logged_error_comes_with_its_traceback(caplog: Log) -> None:
    """The traceback of a logged exception comes as text, which handlers print as usual."""
    async with processes() as supervisor:
        await supervisor.call(cpu(life_jobs.log_an_error), "wrong")
    (record,) = said(caplog, "life.errors")
    text = logging.Formatter("%(message)s").format(record)
    assert text.startswith("it failed\nTraceback")
    assert "in log_an_error" in text
    assert text.endswith("ValueError: wrong")


@pytest.mark.asyncio
async def test_nothing_is_paid_for_what_nobody_hears(caplog: Log) -> None:
    """A record below the level of its logger here is not even made into text there, and a child that
    logs nothing does not import `logging`.
    """
    caplog.set_level(logging.DEBUG, "life")
    logging.getLogger("life.costly").setLevel(logging.ERROR)
    try:
        async with processes() as supervisor:
            assert not await supervisor.call(cpu(life_jobs.imports), "logging")
            assert not await supervisor.call(cpu(life_jobs.log_costly), WARNING)
            assert await supervisor.call(cpu(life_jobs.log_costly), logging.ERROR)
            await supervisor.call(cpu(life_jobs.log), "life.other", logging.DEBUG, "heard")
        assert [record.getMessage() for record in said(caplog, "life.costly")] == ["it is costly"]
        assert len(said(caplog, "life.other")) == 1
    finally:
        logging.getLogger("life.costly").setLevel(logging.NOTSET)


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["disabled", "all of them"])
async def test_disabled_loggers_are_not_heard(caplog: Log, how: str) -> None:
    """A logger that is disabled here, or all of them, are so in children."""
    logger = logging.getLogger("life.costly")
    try:
        if how == "disabled":
            logger.disabled = True
        else:
            logging.disable(logging.ERROR)
        async with processes() as supervisor:
            assert not await supervisor.call(cpu(life_jobs.log_costly), logging.ERROR)
        assert said(caplog, "life.costly") == []
    finally:
        logger.disabled = False
        logging.disable(logging.NOTSET)


@pytest.mark.asyncio
async def test_flood_of_records_blocks_nobody(caplog: Log, tmp_path: Path) -> None:
    """A job that logs more than the parent reads is not kept waiting by that, even if the parent reads
    nothing at all: what there is no room for is dropped and counted.
    """
    end = tmp_path / "end"
    count = 3_000
    async with processes() as supervisor:
        await supervisor.call(cpu(life_jobs.whoami))
        flooding = await supervisor.submit(cpu(life_jobs.log_flood), count, 1_000, str(end))
        await until(lambda: flooding.state == "running")
        block_until(end.exists)
        assert await flooding == count
        heard = said(caplog, "life.flood")
        dropped = supervisor.stats().queues["processes"].logs_dropped
        assert 0 < len(heard) < count
        assert len(heard) + dropped == count
        numbers = [int(record.getMessage().split()[0]) for record in heard]
        assert numbers == sorted(
            set(numbers)
        )  # in order, each once, with gaps where there was no room
        assert any("log records were dropped" in record.getMessage() for record in caplog.records)


@pytest.mark.asyncio
async def test_log_in_the_middle_of_anything(caplog: Log) -> None:
    """What is logged while the child writes to what it shares with us, by a finalizer say, is dropped
    and counted: nothing is spoiled.
    """
    count = 200
    async with processes() as supervisor:
        pid = await supervisor.call(cpu(life_jobs.whoami))
        inside = await supervisor.call(cpu(life_jobs.log_while_logging), count)
        assert inside > count
        assert await supervisor.call(cpu(life_jobs.whoami)) == pid
        assert supervisor.stats().queues["processes"].logs_dropped == inside
    texts = [record.getMessage() for record in said(caplog, "life.middle")]
    assert texts == [str(number) for number in range(count)]


@pytest.mark.asyncio
async def test_log_in_a_copy_of_the_child(caplog: Log, capfd: Any) -> None:
    """A process that a job forks keeps off what the child shares with us: what it logs is on standard
    error.
    """
    async with processes() as supervisor:
        assert await supervisor.call(cpu(life_jobs.log_from_a_fork)) == 5
        assert await supervisor.call(cpu(life_jobs.echo), 1) == 1
    assert [record.getMessage() for record in said(caplog, "life.fork")] == ["before"]
    assert "from the copy\n" in capfd.readouterr().err


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("how", "code", "said_last"),
    [
        ("returns", 0, ""),
        ("exits", 3, ""),
        ("raises", 1, "LookupError: from the copy\n"),
        ("asks", 1, "RuntimeError: this must be asked before the job forks\n"),
    ],
)
async def test_a_copy_of_the_child_ends_with_its_job(
    capfd: Any, how: str, code: int, said_last: str
) -> None:
    """A process that a job forks and that comes back from the job ends there, as any program would: it
    neither answers for the job nor takes the next ones.
    """
    async with processes() as supervisor:
        pid = await supervisor.call(cpu(life_jobs.whoami))
        assert await supervisor.call(cpu(life_jobs.come_back_from_a_fork), how) == code
        for number in range(3):
            assert await supervisor.call(cpu(life_jobs.echo), number) == number
        assert await supervisor.call(cpu(life_jobs.whoami)) == pid
    assert capfd.readouterr().err.endswith(said_last)


@pytest.mark.asyncio
async def test_log_after_the_job(caplog: Log, tmp_path: Path) -> None:
    """What a thread logs that its job has left behind comes at once, and belongs to no job."""
    async with processes() as supervisor:
        go = tmp_path / "go"
        await supervisor.call(cpu(life_jobs.log_from_a_thread_left_behind), str(go))
        go.touch()
        await until(lambda: said(caplog, "life.thread"))
        assert not hasattr(said(caplog, "life.thread")[0], "job_id")
        assert await supervisor.call(cpu(life_jobs.echo), 1) == 1


@pytest.mark.asyncio
async def test_log_just_before_we_sleep(
    caplog: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said by no job, after we looked and before we ask to be woken, is not left lying."""
    go, again, done = (tmp_path / name for name in ("go", "again", "done"))
    sleep = ProcessBridge.sleep

    def late(bridge: ProcessBridge, asleep: bool) -> None:
        if asleep and said(caplog, "life.thread") and not done.exists():
            again.touch()
            block_until(done.exists)
        sleep(bridge, asleep)

    monkeypatch.setattr(ProcessBridge, "sleep", late)
    async with processes() as supervisor:
        twice = cpu(life_jobs.log_from_a_thread_left_behind)
        await supervisor.call(twice, str(go), str(again), str(done))
        go.touch()
        await until(lambda: len(said(caplog, "life.thread")) == 2)
        assert supervisor.stats().queues["processes"].children, "it came only with the child's end"


@pytest.mark.asyncio
async def test_idle_child_that_logs_is_idle_once(caplog: Log, tmp_path: Path) -> None:
    """A worker whose child had something to say while it was idle is not taken for two: when it is
    gone, a new one takes the next job.
    """
    async with processes() as supervisor:
        pid = await supervisor.call(cpu(life_jobs.whoami))
        for round_ in range(5):
            go = tmp_path / str(round_)
            await supervisor.call(cpu(life_jobs.log_from_a_thread_left_behind), str(go))
            go.touch()
            await until(lambda heard=round_: len(said(caplog, "life.thread")) > heard)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not supervisor.stats().queues["processes"].children)
        for _ in range(5):
            await asyncio.sleep(0)  # until the worker itself has ended
        assert await supervisor.call(cpu(life_jobs.echo), 1) == 1


class Raising(logging.Handler):
    """A handler that raises."""

    def handle(self, record: logging.LogRecord) -> bool:
        raise OSError("the disk is full")


@pytest.mark.asyncio
async def test_handler_that_raises(caplog: Log) -> None:
    """A handler that raises for a child's record harms neither the loop nor the job."""
    logger, handler = logging.getLogger("life.raising"), Raising()
    logger.addHandler(handler)
    try:
        async with processes() as supervisor:
            await supervisor.call(cpu(life_jobs.log), "life.raising", WARNING, "text")
            assert await supervisor.call(cpu(life_jobs.echo), 1) == 1
    finally:
        logger.removeHandler(handler)
    (trouble,) = said(caplog, "asyncworkers")
    assert "could not be logged: OSError('the disk is full')" in trouble.getMessage()
    assert said(caplog, "asyncio") == []


# ---- warnings and prints


@pytest.mark.asyncio
async def test_warning_comes_home(caplog: Log) -> None:
    """A warning becomes a record of the logger "py.warnings", with the job it belongs to."""
    async with processes() as supervisor:
        warning = await supervisor.submit(cpu(life_jobs.warn), "careful")
        await warning
    (record,) = said(caplog, "py.warnings")
    assert "UserWarning: careful" in record.getMessage()
    assert record.levelno == WARNING
    assert record.pathname == life_jobs.__file__
    assert record.job_id == warning.id  # type: ignore[attr-defined]


@pytest.mark.asyncio
async def test_prints_become_log_records(caplog: Log, capfd: Any) -> None:
    """With `prints="log"` each line of a job's standard streams is a record, whole lines only; what is
    written to the descriptor itself passes through.
    """
    caplog.set_level(logging.INFO, "asyncworkers.stdout")
    async with processes(prints="log") as supervisor:
        speaking = await supervisor.submit(cpu(life_jobs.speak), "to out", "to err")
        await speaking
        assert await supervisor.call(cpu(life_jobs.print_half_lines)) == 1
    out, err = said(caplog, "asyncworkers.stdout"), said(caplog, "asyncworkers.stderr")
    assert [record.getMessage() for record in out] == ["to out", "one, two", "the rest"]
    assert [record.getMessage() for record in err] == ["to err"]
    assert {record.job_id for record in (out[0], *err)} == {speaking.id}  # type: ignore[attr-defined]
    told = capfd.readouterr()
    assert told.out == "bytes\n"
    assert "to err" not in told.err


@pytest.mark.asyncio
async def test_prints_pass_through_line_by_line(
    caplog: Log, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise they go where ours go, each line at once, so that a crash loses none."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    async with processes() as supervisor:
        with pytest.raises(WorkerCrashed):
            await supervisor.call(cpu(life_jobs.print_and_die), "the last line")
    assert capfd.readouterr().out == "the last line\n"
    assert said(caplog, "asyncworkers.stdout") == []


# ---- initializers


@pytest.mark.asyncio
async def test_initializer_runs_once_in_each_child(tmp_path: Path) -> None:
    """The initializer is called in each child, once, before its first job; it may be a closure."""
    file = tmp_path / "starts"
    path = str(file)
    async with processes(2, initializer=lambda: life_jobs.note_start(path)) as supervisor:
        ready = [await supervisor.submit(cpu(life_jobs.is_ready)) for _ in range(50)]
        assert {await one for one in ready} == {True}
        children = {child.pid for child in supervisor.stats().queues["processes"].children}
    starts = [int(line) for line in file.read_text().split()]
    assert len(starts) == len(set(starts))
    assert children <= set(starts)


@pytest.mark.asyncio
async def test_initializer_logs(caplog: Log) -> None:
    """What an initializer logs comes home, though no job runs yet, also if the child then dies."""
    start = functools.partial(life_jobs.log_at_start, 200)
    async with processes(initializer=start) as supervisor:
        assert await supervisor.call(cpu(life_jobs.echo), 1) == 1
    assert len(said(caplog, "life.start")) == 200


@pytest.mark.asyncio
async def test_initializer_that_raises_once(tmp_path: Path) -> None:
    """A job waits for a child that can be made ready: an initializer that raises at first costs it no
    attempt.
    """
    starts, marker = tmp_path / "starts", tmp_path / "marker"
    marker.touch()
    failing = functools.partial(life_jobs.fail_while, str(starts), str(marker))
    async with processes(initializer=failing) as supervisor:
        waiting = await supervisor.submit(cpu(life_jobs.echo), 1)
        await until(starts.exists)
        marker.unlink()
        assert await waiting == 1
        assert waiting.attempt == 1


@pytest.mark.asyncio
async def test_initializer_that_ends_the_process() -> None:
    """An initializer that ends its process is no different from one that raises."""
    async with processes(initializer=life_jobs.die_at_start) as supervisor:
        with pytest.raises(
            WorkerCrashed, match=r"made ready to run echo: .* exit code 9"
        ) as caught:
            await supervisor.call(cpu(life_jobs.echo), 1)
        assert caught.value.exit_code == 9


@pytest.mark.asyncio
async def test_initializer_that_takes_too_long(tmp_path: Path) -> None:
    """A child that is not ready in time is given up, and until then its job says what it waits for."""
    marker = str(tmp_path / "never")
    slow = functools.partial(life_jobs.wait_to_start, marker)
    async with processes(initializer=slow, startup=0.2) as supervisor:
        waiting = await supervisor.submit(cpu(life_jobs.echo), 1)
        await until(lambda: "is starting" in waiting.why)
        (child,) = supervisor.stats().queues["processes"].children
        assert f"its child process {child.pid} is starting" in waiting.why
        assert "is starting" in supervisor.explain()
        with pytest.raises(WorkerCrashed, match=r"it was not ready after 0.2 s"):
            await waiting


@pytest.mark.asyncio
async def test_why_of_a_job_for_which_the_first_of_several_children_starts(tmp_path: Path) -> None:
    """It waits for that child: no other one is wanted for it, though there might be one."""
    slow = functools.partial(life_jobs.wait_to_start, str(tmp_path / "go"))
    async with processes(2, initializer=slow) as supervisor:
        waiting = await supervisor.submit(cpu(life_jobs.echo), 1)
        await until(lambda: supervisor.stats().queues["processes"].children)
        (child,) = supervisor.stats().queues["processes"].children
        assert f"its child process {child.pid} is starting" in waiting.why
        (tmp_path / "go").touch()
        assert await waiting == 1


@pytest.mark.asyncio
async def test_close_during_an_initializer(tmp_path: Path) -> None:
    """A supervisor that closes does not wait for children that are being made ready."""
    slow = functools.partial(life_jobs.wait_to_start, str(tmp_path / "never"))
    async with processes(2, initializer=slow) as supervisor:
        waiting = await supervisor.submit(cpu(life_jobs.echo), 1)
        await until(lambda: supervisor.stats().queues["processes"].children)
        supervisor.cancel_all("enough")
        assert (await waiting.wait()).reason == "enough"  # type: ignore[union-attr]


@pytest.mark.asyncio
async def test_initializer_that_cannot_travel() -> None:
    """An initializer that cannot be pickled is refused as the supervisor is entered."""
    lock = threading.Lock()
    queue = Queue("processes", 1, kind="processes", initializer=lambda: lock.acquire())
    with pytest.raises(NotSerializable, match="the initializer of queue 'processes' cannot"):
        async with Supervisor(queues=[queue]):
            pass


def test_initializer_in_a_simulation(tmp_path: Path) -> None:
    """On a simulated loop the initializer is called before the first job, and fails it if it raises."""
    life_jobs.state.clear()

    async def main(initializer: Any) -> Any:
        queue = Queue("processes", 1, kind="processes", initializer=initializer)
        async with Supervisor(queues=[queue]) as supervisor:
            return await supervisor.call(cpu(life_jobs.is_ready))

    good = functools.partial(life_jobs.note_start, str(tmp_path / "starts"))
    assert simulate(functools.partial(main, good), seed=1).value is True
    bad = functools.partial(life_jobs.fail_to_start, str(tmp_path / "bad"))
    with pytest.raises(WorkerCrashed, match="its initializer raised ValueError"):
        assert simulate(functools.partial(main, bad), seed=1).value
    life_jobs.state.clear()


# ---- limits


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [1, 2])
async def test_child_is_replaced_after_max_jobs(tmp_path: Path, count: int) -> None:
    """No child runs more than `max_jobs` jobs, each job runs once, and none counts an attempt more."""
    file = tmp_path / "runs"
    recorder = EventRecorder()
    async with processes(count, max_jobs=10, listeners=[recorder]) as supervisor:
        jobs = [await supervisor.submit(cpu(life_jobs.note_run), str(file), n) for n in range(95)]
        pids = collections.Counter([await one for one in jobs])
        assert {one.attempt for one in jobs} == {1}
    assert max(pids.values()) <= 10
    assert sorted(map(int, file.read_text().split())) == list(range(95))
    causes = [event.cause for event in recorder.of(ChildEnded)]
    assert causes.count("it has run 10 jobs, its max_jobs") >= 95 // 10 - count + 1


@pytest.mark.asyncio
async def test_one_job_a_child() -> None:
    """With `max_jobs=1` every job has a process of its own."""
    async with processes(2, max_jobs=1) as supervisor:
        pids = await supervisor.map(cpu(life_jobs.whoami), range(6))
        assert len(set(pids)) == 6


@pytest.mark.asyncio
async def test_items_count_for_max_jobs() -> None:
    """Each item of a map is a job: short ones do not cross many at a time where jobs are counted."""
    async with processes(2, max_jobs=10) as supervisor:
        pids = collections.Counter(await supervisor.map(cpu(life_jobs.whoami), range(150)))
    assert sum(pids.values()) == 150
    assert max(pids.values()) <= 10


@pytest.mark.asyncio
@pytest.mark.parametrize(("size", "count"), [(1_000, 20), (40 << 20, 8)])
async def test_child_is_replaced_with_big_data_on_its_way(size: int, count: int) -> None:
    """What was sent to a child that has served enough reaches the next one whole, big data too, and
    big data that crosses does not count as the child's memory.
    """
    recorder = EventRecorder()
    async with processes(max_jobs=3, max_memory=64 << 20, listeners=[recorder]) as supervisor:
        data = [bytes([n]) * size for n in range(count)]
        jobs = [await supervisor.submit(cpu(life_jobs.echo), each) for each in data]
        assert [await one for one in jobs] == data
    causes = collections.Counter(event.cause for event in recorder.of(ChildEnded))
    assert causes["it has run 3 jobs, its max_jobs"] >= count // 3 - 1
    assert not [cause for cause in causes if "max_memory" in cause]


@pytest.mark.asyncio
async def test_failed_jobs_count_for_max_jobs() -> None:
    """A job that raises is one of them, so that with `max_jobs=1` each attempt has a process."""
    recorder = EventRecorder()
    async with processes(max_jobs=1, listeners=[recorder]) as supervisor:
        failing = cpu(life_jobs.refuse, retry=Retry(3, on=ValueError, delay=0))
        with pytest.raises(ValueError, match=r"\d+") as caught:
            await supervisor.call(failing)
    pids = [event.pid for event in recorder.of(ChildStarted)]
    assert len(set(pids)) == 3
    assert int(caught.value.args[0]) == pids[-1]


@pytest.mark.asyncio
async def test_niceness() -> None:
    """Children give way to others by as much as they are told to."""
    async with processes(nice=3) as supervisor:
        assert await supervisor.call(cpu(life_jobs.niceness)) == min(19, os.nice(0) + 3)


NAMES = [
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    "VECLIB_MAXIMUM_THREADS",
]


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [1, 2, 1000])
async def test_threads_of_libraries(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Libraries that compute are told to start as many threads as there are processors for each child."""
    from asyncworkers.bridge import terms

    monkeypatch.setattr(terms, "usable_processors", lambda: 8)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    async with processes(count) as supervisor:
        found = await supervisor.call(cpu(life_jobs.environment), NAMES)
    assert found == dict.fromkeys(NAMES, str(max(1, 8 // count)))
    assert not set(NAMES) & set(os.environ)


@pytest.mark.asyncio
async def test_threads_as_the_user_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says stands; OMP_NUM_THREADS speaks also for those that go by it."""
    from asyncworkers.bridge import terms

    monkeypatch.setattr(terms, "usable_processors", lambda: 8)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    async with processes() as supervisor:
        found = await supervisor.call(cpu(life_jobs.environment), NAMES)
    assert found == {**dict.fromkeys(NAMES, "8"), "MKL_NUM_THREADS": "7"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    async with processes() as supervisor:
        found = await supervisor.call(cpu(life_jobs.environment), NAMES)
    assert found == {
        **dict.fromkeys(NAMES),
        "OMP_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "7",
        "VECLIB_MAXIMUM_THREADS": "8",
    }


# ---- what is told of children


@pytest.mark.asyncio
async def test_children_are_shown(tmp_path: Path) -> None:
    """`stats()` and `explain()` tell each child's process, memory, jobs, and what it runs now."""
    go = tmp_path / "go"
    async with processes(2) as supervisor:
        assert supervisor.stats().queues["processes"].children == ()
        await supervisor.call(cpu(life_jobs.echo), 1)
        started = tmp_path / "started"
        running = await supervisor.submit(cpu(life_jobs.wait_for_file), str(started), str(go))
        await until(lambda: running.state == "running")
        await until(started.exists)
        children = supervisor.stats().queues["processes"].children
        (busy,) = [child for child in children if child.job_id is not None]
        assert (busy.job_id, busy.job_name) == (running.id, "wait_for_file")
        assert busy.ready
        if sys.platform == "linux":
            assert busy.memory is not None
            assert busy.memory > 1 << 20
        assert sum(child.jobs for child in children) == 1
        assert f"pid {busy.pid}" in str(busy)
        assert f"runs wait_for_file {running.id}" in supervisor.explain()
        assert f"in process {busy.pid}" in running.why
        go.touch()
        assert await running == busy.pid


@pytest.mark.asyncio
async def test_children_are_told_of() -> None:
    """Each child has a start and an end, with a cause, and nothing follows the supervisor's own end, even
    if a thread keeps the process from ending by itself.
    """
    recorder = EventRecorder()
    async with processes(listeners=[recorder]) as supervisor:
        pid = await supervisor.call(cpu(life_jobs.leave_a_thread))
        assert await supervisor.call(cpu(life_jobs.whoami)) == pid
        with pytest.raises(WorkerCrashed):
            await supervisor.call(cpu(life_jobs.print_and_die), "")
        last = await supervisor.call(cpu(life_jobs.leave_a_thread))
    starts, ends = recorder.of(ChildStarted), recorder.of(ChildEnded)
    assert [event.pid for event in starts] == [pid, last] == [event.pid for event in ends]
    assert all(event.seconds > 0 for event in starts)
    assert [event.cause for event in ends] == [
        "it was ended by SIGKILL",
        "it is not needed any more",
    ]
    assert isinstance(recorder.all[-1], SupervisorClosed)


# ---- declarations


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"initializer": 5}, TypeError, "Queue.initializer must be callable, not 5"),
        ({"initializer": asyncio.sleep}, TypeError, "Queue.initializer must be a def function"),
        ({"max_jobs": 0}, ValueError, "Queue.max_jobs must be between 1 and"),
        ({"max_jobs": 1.5}, TypeError, "Queue.max_jobs must be an int, not 1.5"),
        ({"max_memory": 500}, ValueError, "Queue.max_memory must be between 16777216 and"),
        ({"nice": -1}, ValueError, "Queue.nice must be between 0 and 19, not -1"),
        ({"nice": True}, TypeError, "Queue.nice must be an int"),
        ({"prints": "lines"}, ValueError, "Queue.prints must be one of 'through', 'log'"),
        ({"startup": 0}, ValueError, "Queue.startup must be more than 0"),
    ],
)
def test_senseless_terms_are_refused(wrong: Any, error: Any, text: str) -> None:
    """A term that makes no sense is refused where it is written, naming it and what is accepted."""
    with pytest.raises(error, match=text):
        Queue("some", kind="processes", **wrong)


@pytest.mark.parametrize("kind", ["loop", "threads"])
@pytest.mark.parametrize(
    "terms",
    [
        {"initializer": life_jobs.die_at_start},
        *({"max_jobs": 5}, {"max_memory": 1 << 30}, {"nice": 5}, {"prints": "through"}),
        {"startup": 5},
    ],
)
def test_terms_are_for_processes(kind: Any, terms: Any) -> None:
    """Queues that have no children refuse what is about children."""
    (name,) = terms
    with pytest.raises(ValueError, match=f"Queue.{name} is for queues of processes"):
        Queue("some", kind=kind, **terms)


HALFWAY = """
from .part import value
from pathlib import Path
from time import sleep
from asyncworkers import current_job

begun = Path(__file__).with_name("begun")
if not begun.exists():
    begun.touch()
    if {reports}:
        while True:
            current_job().report(1)
    current_job().report(1)
    sleep(3600)
value = part.value
"""
"""A package that is long in coming the first time. When a submodule is there already, its name is not
given to the package once more, so what is imported a second time is not what it would be the first.
"""


@pytest.mark.asyncio
@pytest.mark.parametrize("reports", [False, True], ids=["sleeps", "reports"])
async def test_stopped_in_the_middle_of_an_import(
    tmp_path: Path, event_recorder: EventRecorder, reports: bool
) -> None:
    """A job that is stopped while it imports leaves nothing half imported to the next one."""
    package = tmp_path / "halfway"
    package.mkdir()
    (package / "part.py").write_text("value = 7")
    (package / "__init__.py").write_text(HALFWAY.format(reports=reports))
    imports = cpu(life_jobs.import_it)
    async with processes(1, [event_recorder]) as supervisor:
        pid = await supervisor.call(cpu(life_jobs.whoami))
        stopped = await supervisor.submit(imports, str(tmp_path), "halfway")
        await event_recorder.wait_for(JobProgressed)
        stopped.cancel()
        await stopped.wait()
        other, value = await supervisor.call(imports, str(tmp_path), "halfway")
        assert (value, other != pid) == (7, True)
        (ended,) = event_recorder.of(ChildEnded)
        assert "import" in ended.cause
