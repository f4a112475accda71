"""Jobs in processes, through the supervisor, with real children."""

import asyncio
import functools
import gc
import linecache
import math
import os
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import bridge_jobs
import pytest
import pytest_asyncio
import uvloop

from asyncworkers import (
    Job,
    JobCancelled,
    JobExpired,
    JobFailed,
    NotSerializable,
    Queue,
    QueueFull,
    Retry,
    RetryLater,
    Supervisor,
    WorkerCrashed,
    current_job,
    job,
)
from asyncworkers._engine import bridged, line_worker, sent
from asyncworkers.bridge.child import ring
from asyncworkers.events import AttemptEnded, AttemptStarted, JobProgressed, JobSettled
from asyncworkers.testing import EventRecorder, no_leaks

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(sys.platform == "win32", reason="children need POSIX pipes and signals"),
]


OTHERS = ("shared memory /dev/shm/*",)
"""Children share memory that has no name; what has one is not ours."""


def cpu(function: Any, **options: Any) -> Any:
    """The function as a job for processes."""
    return job(function, cpu=True, **options)


async def until(condition: Any) -> None:
    """Turn the loop until something is so."""
    while not condition():
        await asyncio.sleep(0)


@pytest.fixture(autouse=True, scope="module")
def uvloop_is_set_up() -> None:
    """The first loop of uvloop opens files that stay as long as the process does."""
    uvloop.run(asyncio.sleep(0))


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    """No test leaves a child, thread, file or shared memory behind."""
    with no_leaks(ignore=OTHERS, tasks=False, grace=3.0):
        yield


@pytest_asyncio.fixture
async def two():
    """A supervisor with two processes."""
    async with Supervisor(processes=2) as supervisor:
        yield supervisor
        supervisor.cancel_all("the test is over")


@pytest_asyncio.fixture
async def one():
    """A supervisor with one process."""
    async with Supervisor(processes=1) as supervisor:
        yield supervisor
        supervisor.cancel_all("the test is over")


# ---- calls


async def test_every_way_of_giving_it_jobs(two: Supervisor) -> None:
    """submit, submit_nowait, submit_many, call, map, keyword arguments and bound calls all cross."""
    double = cpu(bridge_jobs.double)
    assert await (await two.submit(double, 1)) == 2
    assert await two.submit_nowait(double, 2) == 4
    assert [await one for one in await two.submit_many(double, range(3))] == [0, 2, 4]
    assert await two.call(double, 5) == 10
    assert await two.call(cpu(bridge_jobs.add), 1, two=2) == 3
    assert await two.call(cpu(bridge_jobs.add).bind(3, two=4)) == 7
    assert await two.map(double, range(100)) == [2 * n for n in range(100)]
    assert await two.map(bridge_jobs.double, range(5), cpu=True) == [0, 2, 4, 6, 8]
    assert sorted([n async for n in two.map(double, range(50), ordered=False)]) == [
        2 * n for n in range(50)
    ]
    assert await asyncio.to_thread(two.submit_threadsafe(double, 4).result) == 8


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(2**200), 1.5, math.inf, 1j, "", "ü" * 5000, "\ud800", b"", b"x" * 5000, ()],
)
async def test_values_come_back_as_they_went(one: Supervisor, value: Any) -> None:
    """Plain values of all kinds, short and long, make the journey both ways."""
    assert await one.call(cpu(bridge_jobs.echo), value) == value
    assert await one.call(cpu(bridge_jobs.echo), [value, {"key": value}]) == [value, {"key": value}]


async def test_arguments_are_taken_at_submit(one: Supervisor) -> None:
    """What the caller changes after submit is not seen by the job."""
    one.pause("processes")
    numbers = [1, 2, 3]
    waiting = await one.submit(cpu(bridge_jobs.echo), numbers)
    numbers.append(4)
    one.resume("processes")
    assert await waiting == [1, 2, 3]


@pytest.mark.parametrize("length", [ring.LARGEST - 100, ring.LARGEST + 1, 3 * ring.RING, 9 << 20])
async def test_results_of_any_length(two: Supervisor, length: int) -> None:
    """Results come whole, be they long for the ring or for the pipe, and short ones between."""
    jobs = [
        await two.submit(cpu(bridge_jobs.large), size) for size in (length, 1, length, 2, length)
    ]
    assert [len(await one) for one in jobs] == [length, 1, length, 2, length]


# ---- functions


async def test_functions_by_value(one: Supervisor) -> None:
    """Lambdas, closures and their defaults cross; a closure that changed is sent as it is now."""
    base = 1
    plus = cpu(lambda n, more=100: n + base + more)
    assert await one.call(plus, 1) == 102
    base = 2
    assert await one.call(plus, 1) == 103


async def test_tracebacks_of_functions_by_value_show_their_lines(one: Supervisor) -> None:
    """A function that was sent by value is told of with its file and its line, as any other."""
    with pytest.raises(ZeroDivisionError) as caught:
        await one.call(cpu(lambda: 1 / 0))
    assert f'File "{__file__}", line ' in str(caught.value.__cause__)
    assert "cpu(lambda: 1 / 0)" in str(caught.value.__cause__)


async def test_tracebacks_show_lines_that_only_the_parent_knows(
    one: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of a notebook's cell is in no file, so the child cannot show it."""
    source = "def fails():\n    return [][1]  # in a cell\n"
    name = str(tmp_path / "cell.py")
    monkeypatch.setitem(linecache.cache, name, (len(source), None, source.splitlines(True), name))
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), scope)
    with pytest.raises(IndexError) as caught:
        await one.call(cpu(scope["fails"]))
    shown = f'  File "{name}", line 2, in fails\n    return [][1]  # in a cell\nIndexError: '
    assert shown in str(caught.value.__cause__)


async def test_an_error_that_pickle_cannot_make_anew_says_why(one: Supervisor) -> None:
    """It comes as a JobFailed with its class and text, and a note on what its class lacks."""

    class OfTwo(Exception):
        def __init__(self, code: int, text: str) -> None:
            super().__init__(f"{code}: {text}")

    def fail() -> None:
        raise OfTwo(7, "seven")

    with pytest.raises(JobFailed, match="OfTwo: 7: seven") as caught:
        await one.call(cpu(fail))
    (note,) = caught.value.__notes__
    assert "OfTwo anew" in note
    assert "__reduce__" in note


async def test_what_cannot_be_pickled_and_cannot_say_why(one: Supervisor) -> None:
    """An argument, an item or a value whose error has no words is refused like any other: no process
    ends for it, and nothing waits for ever.
    """
    stubborn = cpu(bridge_jobs.stubborn)
    with pytest.raises(
        NotSerializable, match="argument 1 of stubborn cannot be pickled, a Stubborn"
    ):
        await one.call(stubborn, bridge_jobs.Stubborn())
    with pytest.raises(NotSerializable, match="of double cannot be pickled"):
        await one.map(cpu(bridge_jobs.double), [1, bridge_jobs.Stubborn()])
    with pytest.raises(
        NotSerializable, match="the value it returned cannot be pickled, a Stubborn"
    ):
        await one.call(stubborn, 1)
    with pytest.raises(
        NotSerializable, match="unreadable returned or raised could not be unpickled"
    ):
        await one.call(cpu(bridge_jobs.unreadable))


async def test_an_initializer_that_cannot_say_why_it_failed() -> None:
    """Its children are given up at once, as for any other error."""
    queue = Queue("processes", 1, kind="processes", initializer=bridge_jobs.raise_unspeakable)
    async with Supervisor(queues=[queue]) as supervisor:
        with pytest.raises(WorkerCrashed, match="its initializer raised Unspeakable"):
            await supervisor.call(cpu(bridge_jobs.whoami))


async def test_a_program_that_a_job_starts_can_be_interrupted(one: Supervisor) -> None:
    """A child does not hear SIGINT, but what it starts does, as anywhere else."""
    assert await one.call(cpu(bridge_jobs.interrupt_a_program)) == 3


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, ValueError])
async def test_a_result_whose_pickling_raises_anything(one: Supervisor, kind: Any) -> None:
    """It is that job's failure, and says so; the process goes on, among items of a map as well."""
    pid = await one.call(cpu(bridge_jobs.whoami))
    says = f"the value it returned cannot be pickled, a Raises: {kind.__name__}: in the middle"
    with pytest.raises(NotSerializable, match=says):
        await one.call(cpu(bridge_jobs.raise_while_pickled), kind)
    with pytest.raises(NotSerializable, match=f"a Raises: {kind.__name__}: in the middle"):
        await one.map(bridge_jobs.raise_while_pickled, [kind] * 10, cpu=True)
    assert await one.call(cpu(bridge_jobs.whoami)) == pid


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, and a limit that is kept")
async def test_a_result_for_whose_pickle_there_is_no_memory(one: Supervisor) -> None:
    """It is a MemoryError of that job, and the process goes on."""
    pid = await one.call(cpu(bridge_jobs.whoami))
    with pytest.raises(MemoryError):
        await one.call(cpu(bridge_jobs.large_text_in_little_memory), 200_000_000)
    assert await one.call(cpu(bridge_jobs.whoami)) == pid


async def test_a_function_that_was_redefined_is_sent_anew(one: Supervisor) -> None:
    """As in a notebook: what a function of `__main__` refers to may be replaced between two calls;
    jobs that were submitted before keep what there was then.
    """
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def helper(): return 'old'\ndef function(): return helper()", space)
    function = cpu(space["function"])
    assert await one.call(function) == "old"
    one.pause("processes")
    before = await one.submit(function)
    exec("def helper(): return 'new'", space)
    after = await one.submit(function)
    one.resume("processes")
    assert (await before, await after) == ("old", "new")


async def test_callables_with_state_travel_each_time(one: Supervisor) -> None:
    """Bound methods, partials and callable objects are sent as they are at each submit."""
    adder = bridge_jobs.Adder(10)
    function = cpu(adder)
    assert await one.call(function, 1) == 11
    adder.number = 20
    assert await one.call(function, 1) == 21
    assert await one.call(cpu(adder.method), 2) == 40
    assert await one.call(cpu(functools.partial(bridge_jobs.add, two=5)), 1) == 6
    assert await one.call(cpu(math.factorial), 5) == 120
    assert await one.call(cpu(len), "four") == 4


async def test_a_child_forgets_functions(one: Supervisor, monkeypatch: Any) -> None:
    """A child keeps a limited number of functions, and gets those it has forgotten again."""
    monkeypatch.setattr(line_worker, "KNOWN", 3)
    functions = [cpu(lambda n, k=k: n + k) for k in range(10)]
    for _ in range(2):
        jobs = [await one.submit(function, 100) for function in functions]
        assert [await each for each in jobs] == [100 + k for k in range(10)]


async def test_what_does_not_belong_there_is_refused(one: Supervisor) -> None:
    """cpu=True is for def functions, and jobs go to queues of their kind."""

    async def coroutine() -> None: ...

    with pytest.raises(TypeError, match="cpu=True is for def functions"):
        cpu(coroutine)
    with pytest.raises(TypeError, match="cpu must be a bool"):
        job(bridge_jobs.echo, cpu=1)
    with pytest.raises(ValueError, match=r"kind 'threads'.*runs on a queue of kind processes"):
        await one.submit(cpu(bridge_jobs.echo, queue="threads"), 1)
    with pytest.raises(ValueError, match="runs on a queue of kind loop"):
        await one.submit(job(coroutine, queue="processes"))
    assert await one.call(job(bridge_jobs.echo, queue="processes"), 1) == 1
    with pytest.raises(ValueError, match="isolation"):
        Queue("mine", kind="processes", isolation="task")
    with pytest.raises(ValueError, match="processes must be between"):
        Supervisor(processes=-1)


# ---- the child


async def test_a_child_is_light_and_like_its_parent(one: Supervisor, monkeypatch: Any) -> None:
    """A child has not imported asyncio or asyncworkers; it has our path, arguments, directory and flags."""
    modules = await one.call(cpu(bridge_jobs.modules))
    assert not {"asyncio", "asyncworkers", "socket", "logging", "pathlib2"} & set(modules) - {
        "socket"
    }
    path, arguments, folder, dev_mode = await one.call(cpu(bridge_jobs.surroundings))
    assert path == sys.path
    assert arguments == sys.argv
    assert folder == str(Path.cwd())
    assert dev_mode == sys.flags.dev_mode


async def test_children_start_when_first_needed(two: Supervisor, tmp_path: Path) -> None:
    """No child without a job; as many as there is work for, at most as many as allowed."""
    crew = two._entered().queues["processes"].crew
    assert not crew.members
    go = str(tmp_path / "go")
    jobs = [
        await two.submit(cpu(bridge_jobs.wait_for_file), str(tmp_path / str(n)), go)
        for n in range(4)
    ]
    await until(lambda: sum((tmp_path / name).exists() for name in "0123") == 2)
    assert len(crew.members) == 2
    Path(go).touch()
    assert len({await each for each in jobs}) == 2


async def test_a_call_that_a_dead_child_cannot_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job for which a worker was woken just when its child died is run by another idle one."""
    monkeypatch.setattr(bridged, "ENOUGH", 1)
    monkeypatch.setattr(bridged, "PAUSES", (1e6, 1e6))  # the dead one's place stays empty
    async with Supervisor(processes=2) as two:
        crew = two._entered().queues["processes"].crew
        for each in await two.submit_many(cpu(bridge_jobs.double), range(2)):
            await each
        await until(lambda: len(crew.idle) == 2)
        woken: Any = crew.idle[-1]
        woken.process.kill()
        woken._ended()  # is heard in the turn in which the job comes
        async with asyncio.timeout(60):
            assert await two.submit_nowait(cpu(bridge_jobs.double), 4) == 8


async def test_a_context_travels_as_far_as_it_can(one: Supervisor) -> None:
    """Variables that a module has, with values that can be pickled, are set in the child, for this
    job only; the others are left behind.
    """
    mine: ContextVar[Any] = ContextVar("mine")
    mine.set("a variable without a module")
    bridge_jobs.tenant.set("acme")
    assert await one.call(cpu(bridge_jobs.which_tenant)) == "acme"
    assert await one.call(cpu(bridge_jobs.which_tenant, context="none")) == "nobody"
    assert await one.call(cpu(bridge_jobs.set_tenant), "other") == ("acme", "unset")
    assert await one.call(cpu(bridge_jobs.which_tenant)) == "acme"
    bridge_jobs.tenant.set(lambda: iter(()))
    assert callable(await one.call(cpu(bridge_jobs.which_tenant)))
    bridge_jobs.tenant.set(asyncio.current_task())
    assert await one.call(cpu(bridge_jobs.which_tenant)) == "nobody"


async def test_what_a_job_sets_is_not_seen_by_the_next(one: Supervisor) -> None:
    """A job that changes context variables leaves none of it to the jobs behind it in the line."""
    one.pause("processes")
    jobs = [
        await one.submit(cpu(bridge_jobs.set_tenant, context="none"), str(n)) for n in range(20)
    ]
    one.resume("processes")
    assert [await each for each in jobs] == [("nobody", "unset")] * 20


async def test_current_job_in_a_child(one: Supervisor, tmp_path: Path) -> None:
    """The code of a job can ask who it is, also in its second attempt."""
    named = await one.submit(cpu(bridge_jobs.who, tags=["a"], retry=Retry(3, on=OSError)))
    told = await named
    assert told == {
        "id": named.id,
        "name": "who",
        "queue": "processes",
        "attempt": 1,
        "attempts": 3,
        "tags": ("a",),
    }
    again = cpu(bridge_jobs.fail_once, retry=Retry(2, on=OSError, delay=0))
    assert await one.call(again, str(tmp_path / "file")) == 2


async def test_progress_comes_home(one: Supervisor, tmp_path: Path) -> None:
    """What a job reports is seen while it runs, in its progress and as an event."""
    recorder = EventRecorder()
    one.listen(recorder)
    go = tmp_path / "go"
    running = await one.submit(cpu(bridge_jobs.report_and_wait), str(go))
    told = await recorder.wait_for(JobProgressed, job_id=running.id)
    assert (told.done, told.total, told.message) == (1, 4, "a quarter")
    assert (running.progress.done, running.state) == (1, "running")
    go.touch()
    await running
    assert await one.call(cpu(bridge_jobs.report_from_threads), 200) == 200


async def test_a_job_that_is_interrupted_while_it_asks(one: Supervisor, tmp_path: Path) -> None:
    """Nothing that it has read of what its parent sends is lost: the child goes on to the next job."""
    file = tmp_path / "file"
    pid = await one.call(cpu(bridge_jobs.whoami))
    asking = await one.submit(cpu(bridge_jobs.ask_while_interrupted), str(file))
    await until(file.exists)
    asking.cancel("enough")
    with pytest.raises(JobCancelled, match="enough"):
        await asking
    assert await one.call(cpu(bridge_jobs.whoami)) == pid
    assert not file.with_suffix(".answered").exists()


async def test_reports_in_the_middle_of_reports(one: Supervisor) -> None:
    """What a job reports while another report of its is written, in a signal handler say, is dropped:
    nothing is spoiled.
    """
    events: list[Any] = []
    one.listen(events.append)
    pid = await one.call(cpu(bridge_jobs.whoami))
    inside = await one.call(cpu(bridge_jobs.report_within_reports), 100)
    assert inside > 100
    told = [event.done for event in events if isinstance(event, JobProgressed)]
    assert told == list(range(100))
    said = await one.call(cpu(bridge_jobs.ask_within_a_report))
    assert said == "this must be asked before: now the child is in the middle of telling something"
    assert await one.call(cpu(bridge_jobs.whoami)) == pid


async def test_a_deaf_job_can_poll_its_token(one: Supervisor, tmp_path: Path) -> None:
    """`current_job().cancelled` turns true in the child when the job is cancelled."""
    file = tmp_path / "file"
    polling = await one.submit(cpu(bridge_jobs.poll), str(file))
    await until(file.exists)
    polling.cancel("enough")
    with pytest.raises(JobCancelled, match="enough"):
        await polling
    await until(file.with_suffix(".polled").exists)


async def test_current_job_is_nobodys_outside(one: Supervisor) -> None:
    """In the parent nothing has changed: there is no current job outside a job."""
    await one.call(cpu(bridge_jobs.echo), 1)
    with pytest.raises(RuntimeError, match="outside a job"):
        current_job()


# ---- the line


async def test_little_waits_behind_a_long_job(two: Supervisor, tmp_path: Path) -> None:
    """Short jobs that were sent behind one that turns out to be long are run by the other child."""
    go, started = str(tmp_path / "go"), tmp_path / "started"
    await two.map(bridge_jobs.double, range(500), cpu=True)  # they are known to be short
    sometimes_long = cpu(_wait_or_not)
    for _ in range(50):
        await two.call(sometimes_long, "", "")
    jobs = [await two.submit(sometimes_long, str(started), go)]
    jobs += [await two.submit(sometimes_long, "", "") for _ in range(200)]
    for each in jobs[1:]:
        await each
    assert jobs[0].state == "running"
    assert len({await each for each in jobs[1:]}) == 1  # all in the child that was not held up
    Path(go).touch()
    await jobs[0]


def _wait_or_not(started: str, go: str) -> int:
    return bridge_jobs.wait_for_file(started, go) if go else os.getpid()


async def _nine_in_line(
    one: Supervisor, go: Path, started: Path, monkeypatch: Any
) -> tuple[Any, Job[int], list[Job[int]]]:
    """A worker, the job that its child runs until `go` is there, and nine behind it in its line."""
    monkeypatch.setattr(sent, "LONG", 1e9)  # nothing is taken back
    monkeypatch.setattr(sent, "LINE", 1e9)
    for _ in range(5):
        await one.call(cpu(_wait_or_not), "", "")
    running = await one.submit(cpu(_wait_or_not), str(started), str(go))
    behind = [await one.submit(cpu(_wait_or_not), "", "") for _ in range(9)]
    await until(lambda: running.state == "running")
    worker: Any = next(iter(one._entered().queues["processes"].crew.members))
    await until(lambda: len(worker.ahead) == 9)
    return worker, running, behind


async def test_sent_jobs_count_as_queued_and_can_be_cancelled(
    one: Supervisor, tmp_path: Path, monkeypatch: Any
) -> None:
    """Jobs in a child's line have not begun: they are queued, listed, explained, and end at once when
    cancelled or expired, without an attempt.
    """
    go = tmp_path / "go"
    _, running, behind = await _nine_in_line(one, go, tmp_path / "started", monkeypatch)
    stats = one.stats().queues["processes"]
    assert (stats.running, stats.queued) == (1, 9)
    assert stats.submitted == 15
    assert one.jobs(queue="processes") == [running, *behind]
    assert all(each.state == "queued" for each in behind)
    assert "waits in the line of process" in behind[3].why
    assert behind[4].cancel("enough")
    assert not behind[4].cancel("enough")
    assert (behind[4].state, behind[4].attempt) == ("cancelled", 0)
    expiring = await one.submit(cpu(_wait_or_not, expires=0.05), "", "")
    with pytest.raises(JobExpired):
        await expiring
    assert expiring.attempt == 0
    assert one.stats().queues["processes"].queued == 8
    go.touch()
    await running
    for each in behind[:4] + behind[5:]:
        await each
    assert one.stats().queues["processes"].submitted == 16


@pytest.mark.parametrize("paused", [False, True], ids=["sent anew", "in line again"])
async def test_a_job_that_goes_back_while_it_is_cancelled(
    one: Supervisor, tmp_path: Path, monkeypatch: Any, paused: bool
) -> None:
    """Who asks the child for a job may hear that it went back to the queue, or is in line anew: it is
    cancelled there, counted once, and no other job suffers.
    """
    go = tmp_path / "go"
    worker, running, behind = await _nine_in_line(one, go, tmp_path / "started", monkeypatch)
    if paused:
        one.pause("processes")
    look, take_back = worker.look, type(worker.process).take_back
    late: list[int] = []

    def refuse(process: Any, number: int) -> bool:
        if late:
            return take_back(process, number)
        late.append(number)
        return False

    def look_late() -> None:
        if len(late) == 1:  # as if the record had come only now that says it was skipped
            late.append(late[0])
            one = dict(worker.line.numbered())[late[0]]
            assert take_back(worker.process, late[0])
            worker.line.drop(late[0])
            worker._give_back([one])
            if not paused:
                worker.fill(100)
        look()

    with monkeypatch.context() as patch:
        patch.setattr(type(worker.process), "take_back", refuse)
        patch.setattr(type(worker), "look", lambda _: look_late())
        assert behind[8].cancel("enough")
    assert behind[8].state == "cancelled"
    assert len(late) == 2
    assert worker.line.number_of(behind[8]) is None
    assert one.stats().queues["processes"].queued == 8
    if paused:
        one.resume("processes")
    go.touch()
    await running
    for each in behind[:8]:
        await each
    assert one.stats().queues["processes"].queued == 0


async def test_running_is_said_when_it_is_so(one: Supervisor, tmp_path: Path) -> None:
    """A job's start is told when the child has come to it, with the time by the child's clock."""
    recorder = EventRecorder()
    one.listen(recorder)
    go, started = tmp_path / "go", tmp_path / "started"
    running = await one.submit(cpu(bridge_jobs.wait_for_file), str(started), str(go))
    assert running.state == "queued"
    event = await recorder.wait_for(AttemptStarted, job_id=running.id)
    assert (event.attempt, running.state) == (1, "running")
    assert running.created <= running.started
    assert running.why.startswith("running: attempt 1")
    go.touch()
    await running
    assert running.started <= running.finished
    assert [type(e).__name__ for e in recorder.of(AttemptEnded, job_id=running.id)] == [
        "AttemptEnded"
    ]


async def test_events_tell_the_same_story(two: Supervisor) -> None:
    """Each job that crosses in a batch is told of as any other: started, ended and settled, once."""
    recorder = EventRecorder()
    two.listen(recorder)
    jobs = await two.submit_many(cpu(bridge_jobs.double), range(300))
    for each in jobs:
        await each
    for kind in (AttemptStarted, AttemptEnded, JobSettled):
        assert sorted(e.job_id for e in recorder.of(kind)) == sorted(each.id for each in jobs)


async def test_pausing_and_resizing(two: Supervisor, tmp_path: Path) -> None:
    """A paused queue sends nothing more; a smaller one lets children go, a larger one starts more."""
    crew = two._entered().queues["processes"].crew
    await two.map(cpu(bridge_jobs.nap), [0.01] * 8)
    assert len(crew.members) == 2
    two.pause("processes")
    waiting = await two.submit(cpu(bridge_jobs.double), 4)
    await asyncio.sleep(0)
    assert waiting.state == "queued"
    two.resize("processes", 1)
    two.resume("processes")
    assert await waiting == 8
    await until(lambda: len(crew.members) == 1)
    two.resize("processes", 0)
    await until(lambda: not crew.members)
    two.resize("processes", 2)
    assert await two.call(cpu(bridge_jobs.double), 5) == 10


async def test_a_full_queue_makes_wait(tmp_path: Path) -> None:
    """`maxsize` bounds what waits; who submits waits for room, and everything runs in the end."""
    queues = [Queue("processes", 1, kind="processes", maxsize=5)]
    async with Supervisor(queues=queues) as supervisor:
        go = tmp_path / "go"
        await supervisor.submit(cpu(bridge_jobs.wait_for_file), str(tmp_path / "s"), str(go))
        await until((tmp_path / "s").exists)
        for number in range(5):
            supervisor.submit_nowait(cpu(bridge_jobs.double), number)
        with pytest.raises(QueueFull):
            supervisor.submit_nowait(cpu(bridge_jobs.double), 5)
        blocked = asyncio.ensure_future(supervisor.call(cpu(bridge_jobs.double), 5))
        await asyncio.sleep(0)
        assert not blocked.done()
        go.touch()
        assert await blocked == 10


async def test_priorities_hold_in_processes(one: Supervisor) -> None:
    """Of what waits, the urgent is sent first."""
    order: list[int] = []
    one.pause("processes")
    jobs = [
        await one.submit(cpu(bridge_jobs.echo, priority=priority), priority)
        for priority in (0, -5, 9)
    ]
    for each in jobs:
        each._watch(lambda ended: order.append(ended.result()))
    one.resume("processes")
    for each in jobs:
        await each
    assert order == [9, 0, -5]


# ---- policies


async def test_errors_that_steer_retries_keep_what_they_say(one: Supervisor) -> None:
    """RetryLater comes back with its seconds and its message."""
    with pytest.raises(RetryLater, match="come back") as caught:
        await one.call(cpu(bridge_jobs.retry_later), 0.5)
    assert caught.value.seconds == 0.5


async def test_leaving_cancels_what_runs_and_waits(tmp_path: Path) -> None:
    """Leaving with an exception ends running and waiting jobs, and their processes, at once."""
    async with no_leaks(ignore=OTHERS, grace=3.0):
        jobs = []
        with pytest.raises(ZeroDivisionError):
            async with Supervisor(processes=2) as supervisor:
                for number in range(6):
                    jobs.append(
                        await supervisor.submit(
                            cpu(bridge_jobs.wait_for_file), str(tmp_path / str(number)), "/nowhere"
                        )
                    )
                await until(lambda: sum((tmp_path / n).exists() for n in "012345") == 2)
                raise ZeroDivisionError
        assert {each.state for each in jobs} == {"cancelled"}


async def test_draining_reports(tmp_path: Path) -> None:
    """A drain whose grace is over cancels jobs in processes, and its report has them all."""
    async with Supervisor(processes=1) as supervisor:
        running = await supervisor.submit(
            cpu(bridge_jobs.wait_for_file), str(tmp_path / "s"), "/nowhere"
        )
        waiting = await supervisor.submit(cpu(bridge_jobs.double), 1)
        await until((tmp_path / "s").exists)
        report = await supervisor.drain(0.05)
        assert (report.cancelled, report.not_started) == ((running.id,), (waiting.id,))
        assert (report.done, report.abandoned) == ((), ())


async def test_a_stranger_cancels_the_worker(one: Supervisor, tmp_path: Path) -> None:
    """A worker's task that a stranger cancels takes its child with it: its job fails, others go on."""
    running = await one.submit(
        cpu(bridge_jobs.wait_for_file), str(tmp_path / "s"), str(tmp_path / "go")
    )
    await until((tmp_path / "s").exists)
    behind = await one.submit(cpu(bridge_jobs.double), 4)
    for task in asyncio.all_tasks():
        if "LineWorker.work" in repr(task):
            task.cancel()
    with pytest.raises(WorkerCrashed):
        await running
    assert await behind == 8


@pytest.mark.slow
async def test_memory_stays_flat() -> None:
    """After 100,000 jobs neither we nor the child hold more than after the first thousands."""
    async with Supervisor(processes=1) as supervisor:
        echo = cpu(bridge_jobs.echo)
        figures = []
        for _ in range(11):
            for start in range(0, 10_000, 500):
                for each in await supervisor.submit_many(echo, range(start, start + 500)):
                    await each
                each = None
            gc.collect()
            figures.append((bridge_jobs.memory(), await supervisor.call(cpu(bridge_jobs.memory))))
        for first, last in zip(figures[1], figures[-1], strict=True):
            assert last - first < 4 << 20
