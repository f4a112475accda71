"""What a diary makes of events, and of what it is told by hand."""

from pathlib import Path

import pytest

from asyncworkers import Retry, RetryLater, Supervisor, current_job, job
from asyncworkers.demo.analyze import compress, parse
from asyncworkers.demo.diary import Diary, ending_of
from asyncworkers.demo.records import Ending, Page, Run, Settings, Stall
from asyncworkers.events import LoopStalled


@pytest.fixture
def run():
    """Return an empty run."""
    return Run(Settings(Path("out")))


@job(retry=Retry(attempts=3, on=(OSError,), delay=0), timeout=60)
async def fetch(address: str) -> str:
    """Be refused, then reset, then answered."""
    this = current_job()
    if this.attempt == 1:
        raise RetryLater(0)
    if this.attempt == 2:
        raise type("ClientOSError", (OSError,), {})
    return address


@job
def render(count: int) -> int:
    """Report each of so many modules."""
    for done in range(1, count + 1):
        current_job().report(done, count)
    return count


@pytest.mark.asyncio
async def test_every_attempt_of_a_job_is_written_down(run):
    """Number, subject, ending and queue of each attempt come from the supervisor's events."""
    diary = Diary(run)
    async with Supervisor(workers=1) as supervisor:
        diary.follow(supervisor)
        await supervisor.map(fetch, ["a.html"])
    assert [(a.job, a.subject, a.number, a.queue, a.ending) for a in run.attempts] == [
        ("fetch", "a.html", 1, "default", Ending.BUSY),
        ("fetch", "a.html", 2, "default", Ending.RESET),
        ("fetch", "a.html", 3, "default", Ending.SUCCEEDED),
    ]
    assert all(0 <= a.start <= a.end for a in run.attempts)
    assert (run.stage("fetch").done, run.stage("fetch").running) == (1, 0)


@pytest.mark.asyncio
async def test_a_job_that_reports_is_counted_in_its_own_units(run):
    """What the display shows of rendering are modules, not batches."""
    diary = Diary(run)
    async with Supervisor(threads=2) as supervisor:
        diary.follow(supervisor)
        await supervisor.map(render, [3, 4])
    assert run.stage("render").done == 7


@pytest.mark.asyncio
async def test_what_child_processes_do_is_written_down(run):
    """Jobs of the queue of processes have their workers, and CPU time once these have ended."""
    diary = Diary(run)
    pages = [Page(f"{name}.html", 200, b"<h1>Title</h1>" * 500) for name in "abcd"]
    with diary.timing_children():
        async with Supervisor(processes=2) as supervisor:
            diary.follow(supervisor)
            readings = await supervisor.map(parse, pages)
            await supervisor.map(compress, pages)
    assert [reading.headings for reading in readings] == [500] * 4
    assert {(a.job, a.subject, a.queue, a.ending) for a in run.attempts} == {
        (job, page.address, "processes", Ending.SUCCEEDED)
        for job in ("parse", "compress")
        for page in pages
    }
    assert len({a.worker for a in run.attempts}) in {1, 2}
    assert run.cpu_children > 0


def test_a_stall_is_named_by_its_place(run):
    """The file's name, the line and the function are enough to find it."""
    diary = Diary(run)
    diary(LoopStalled(1.0, 0.5, "id", "fetch", "/somewhere/crawl.py", 12, "fetch", False))
    assert run.stalls == [Stall(0.5, "fetch", "crawl.py:12 in fetch")]


def test_attempts_told_by_hand_end_as_their_bodies_do(run):
    """The plain loop keeps the same diary: errors pass through, and are written down."""
    diary = Diary(run)
    with diary.attempt("fetch", "a.html"):
        assert run.stage("fetch").running == 1
    with pytest.raises(RetryLater), diary.attempt("fetch", "b.html", 2):
        raise RetryLater(1)
    assert [(a.subject, a.number, a.ending) for a in run.attempts] == [
        ("a.html", 1, Ending.SUCCEEDED),
        ("b.html", 2, Ending.BUSY),
    ]
    assert run.stage("fetch").running == 0


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (None, Ending.SUCCEEDED),
        ("RetryLater", Ending.BUSY),
        ("TimeoutError", Ending.TIMED_OUT),
        ("JobTimedOut", Ending.TIMED_OUT),
        ("ClientPayloadError", Ending.RESET),
        ("ServerDisconnectedError", Ending.RESET),
        ("ValueError", Ending.FAILED),
    ],
)
def test_errors_have_names_people_know(error, ending):
    """What the network did is told by the type of the error."""
    assert ending_of(error) is ending


def test_time_is_measured_where_it_was_spent(run):
    """Work in this thread counts as the loop's; the wall clock holds at least as much."""
    diary = Diary(run)
    with diary.timing(), diary.timing_children():
        sum(range(200_000))
    assert 0 < run.cpu_loop <= run.seconds
    assert run.cpu_children == 0
