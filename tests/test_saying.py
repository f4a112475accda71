"""What jobs say to `logging` is kept within bounds, and overheard without changing anything for others."""

import asyncio
import gc
import logging
import sys
import threading
import weakref

import pytest

from asyncworkers import Supervisor, logs
from asyncworkers._overheard import Overheard, overheard
from asyncworkers.chronicle import Chronicle
from asyncworkers.chronicle.saying import LONGEST, LONGEST_TRACEBACK, OF_A_JOB, LogLine, Saying

LOG = logging.getLogger("tests.saying")


def record_of(job_id, text="hello", *args, level=logging.INFO, exc_info=None):
    """A record that names its job, as those that come from children do."""
    record = logging.LogRecord("some.logger", level, "here.py", 1, text, args, exc_info)
    record.job_id, record.attempt = job_id, 1
    return record


class Listens:
    """Keeps records."""

    def __init__(self):
        self.heard = []

    def hear(self, record):
        """Keep one."""
        self.heard.append(record.getMessage())


def test_of_one_job_the_last_records_are_kept():
    """More than a job may have push its first ones out, which is counted, and no other job's."""
    saying = Saying(10 * OF_A_JOB)
    saying.keep(record_of("other"))
    for number in range(OF_A_JOB + 5):
        saying.keep(record_of("much", "line %d", number))
    said = saying.of("much")
    assert (len(said.lines), said.dropped, saying.dropped) == (OF_A_JOB, 5, 5)
    assert (said.lines[0].number, said.lines[0].message) == (6, "line 5")
    assert len(saying.of("other").lines) == 1
    assert saying.of("nobody") == saying.of("nobody else")


def test_in_all_the_job_that_has_been_silent_longest_loses_its_own():
    """By number as by size, so that no log is too much for the memory there is."""
    saying = Saying(4)
    for job_id in ("a", "b", "a", "c", "a"):
        saying.keep(record_of(job_id))
    assert [len(saying.of(job_id).lines) for job_id in "abc"] == [3, 0, 1]
    assert saying.dropped == 1
    saying.keep(record_of("d", "x" * 1_999))
    assert [len(saying.of(job_id).lines) for job_id in "abcd"] == [0, 0, 0, 1]
    saying.clear()
    assert (saying.of("d").lines, saying.dropped) == ((), 0)


def test_what_is_kept_may_be_shown_anywhere():
    """Messages and tracebacks are cut and escaped, and have no password of a URL in them."""
    saying = Saying(100)
    try:
        raise ValueError("y" * 20_000)
    except ValueError:
        info = sys.exc_info()
    saying.keep(record_of("a", "\x1b[2J%s\nnext\u202e", "http://ada:hunter2@x/", exc_info=info))
    saying.keep(record_of("a", "z" * 10_000))
    first, second = saying.of("a").lines
    assert first.message == "\\x1b[2Jhttp://ada:***@x/\nnext\\u202e"
    assert len(first.traceback) <= LONGEST_TRACEBACK
    assert first.traceback.endswith("yyy")
    assert len(second.message) <= LONGEST + 10
    assert second.traceback is None


def test_a_record_that_cannot_be_written_harms_nobody():
    """Whoever logs it is not told by us: the handlers do that."""
    saying = Saying(100)
    saying.keep(record_of("a", "%d", "no number"))
    saying.keep(record_of("a"))
    assert [line.message for line in saying.of("a").lines] == ["hello"]


def test_records_come_from_any_thread():
    """Many threads log at once: nothing is lost, and the count is right."""
    saying = Saying(10_000)

    def log(name):
        for _ in range(OF_A_JOB):
            saying.keep(record_of(name))

    threads = [threading.Thread(target=log, args=(f"job-{n}",)) for n in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert {len(saying.of(f"job-{n}").lines) for n in range(8)} == {OF_A_JOB}
    assert saying.dropped == 0


# ---- overhearing


@pytest.fixture
def factory():
    """The record factory that was set, which is set again."""
    before = logging.getLogRecordFactory()
    yield before
    logging.setLogRecordFactory(before)


def test_the_factory_is_wrapped_while_somebody_listens(factory):
    """It is there for the first and gone with the last, and each record is told of once to each."""
    room, one, other = Overheard(), Listens(), Listens()
    room.hear(one.hear)
    room.hear(other.hear)
    LOG.warning("both")
    room.leave(one.hear)
    LOG.warning("other")
    assert logging.getLogRecordFactory() is not factory
    room.leave(other.hear)
    room.leave(other.hear)
    LOG.warning("nobody")
    assert (one.heard, other.heard) == (["both"], ["both", "other"])
    assert logging.getLogRecordFactory() is factory


def test_a_factory_that_somebody_else_sets_stays(factory):
    """One that wraps ours keeps it, which says nothing any more; and nothing is told of twice."""
    room, one = Overheard(), Listens()
    room.hear(one.hear)
    theirs = logs.record_factory()
    logging.setLogRecordFactory(theirs)
    LOG.warning("through theirs")
    room.leave(one.hear)
    assert logging.getLogRecordFactory() is theirs
    LOG.warning("nobody listens")
    room.hear(one.hear)
    LOG.warning("again")
    room.leave(one.hear)
    assert one.heard == ["through theirs", "again"]


def test_a_record_from_elsewhere_is_told_of_by_whoever_brings_it(factory):
    """`makeLogRecord` makes an empty one, which is filled in later."""
    room, one = Overheard(), Listens()
    room.hear(one.hear)
    logging.makeLogRecord({"name": "x", "msg": "from a child"})
    assert one.heard == []
    room.leave(one.hear)


def test_who_is_gone_is_told_nothing(factory):
    """Whoever listens is not kept alive by the log, and is forgotten with the next one that comes."""
    room, one = Overheard(), Listens()
    room.hear(one.hear)
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None
    LOG.warning("nobody")
    last = Listens()
    room.hear(last.hear)
    room.leave(last.hear)
    assert logging.getLogRecordFactory() is factory


# ---- in a supervisor


async def says():
    """Say something that is let through."""
    LOG.warning("said")


@pytest.mark.asyncio
async def test_nothing_is_overheard_unless_somebody_records(factory):
    """A supervisor that does not record leaves `logging` as it was, and so does one that has ended."""
    async with Supervisor(1) as supervisor:
        assert logging.getLogRecordFactory() is factory
    async with Supervisor(1, record=True) as supervisor:
        done = await supervisor.submit(says)
        await done
        (line,) = supervisor.chronicle.log_of(done.id).lines
        assert (line.level, line.message, line.attempt) == ("WARNING", "said", 1)
    assert logging.getLogRecordFactory() is factory
    assert len(supervisor.chronicle.log_of(done.id).lines) == 1  # which outlives it
    async with supervisor:
        assert supervisor.chronicle.log_of(done.id).lines == ()
    async with Supervisor(1, record=Chronicle(log=0)):
        assert logging.getLogRecordFactory() is factory


@pytest.mark.asyncio
async def test_items_of_a_stream_are_jobs_too():
    """What each says is kept with it, though most items have no Job until somebody asks."""

    async def says_its_number(number):
        LOG.warning("number %d", number)
        return number

    async with Supervisor(2, record=True) as supervisor:
        assert await supervisor.map(says_its_number, range(5)) == list(range(5))
        ids = [one.job_id for one in supervisor.chronicle.jobs()]
        told = sorted(supervisor.chronicle.log_of(one).lines[0].message for one in ids)
    assert told == [f"number {number}" for number in range(5)]


@pytest.mark.asyncio
async def test_two_supervisors_hear_each_their_own_end(factory):
    """The first one that ends takes nothing from the other."""
    async with Supervisor(1, record=True) as one:
        async with Supervisor(1, record=True):
            pass
        done = await one.submit(says)
        await done
        assert len(one.chronicle.log_of(done.id).lines) == 1
        assert overheard._witnesses
    await asyncio.sleep(0)
    assert not overheard._witnesses


def test_what_is_logged_in_the_midst_of_keeping_is_kept_afterwards(monkeypatch):
    """A finalizer may log wherever memory is asked for: nobody waits for himself then."""
    saying = Saying(10)

    class Line(LogLine):
        def __init__(self, *values):
            if values[4] == "outer":
                saying.keep(record_of("a job", "inner"))
            super().__init__(*values)

    monkeypatch.setattr("asyncworkers.chronicle.saying.LogLine", Line)
    saying.keep(record_of("a job", "outer"))
    assert [line.message for line in saying.of("a job").lines] == ["outer", "inner"]
