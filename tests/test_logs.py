"""Log records name the job they belong to, wherever its code runs and whoever formats them."""

import asyncio
import logging
import sys
from pathlib import Path

import pytest
import structlog

sys.path.insert(0, str(Path(__file__).parent / "bridge"))
import life_jobs

from asyncworkers import Supervisor, job, logs

LOG = logging.getLogger("tests.logs")


class Kept(logging.Handler):
    """Keeps records."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)

    def fields(self):
        """The fields of the job in each record."""
        return [tuple(getattr(record, name) for name in logs.FIELDS) for record in self.records]


@pytest.fixture
def kept():
    """Return a handler of the root logger with our filter, and take it away again."""
    handler = Kept()
    handler.addFilter(logs.JobFilter())
    logging.root.addHandler(handler)
    level, LOG.level = LOG.level, logging.INFO
    yield handler
    LOG.level = level
    logging.root.removeHandler(handler)


async def says():
    """Say something on the loop."""
    await asyncio.sleep(0)
    LOG.info("on the loop")


def says_in_thread():
    """Say something in a thread."""
    LOG.info("in a thread")


@pytest.mark.parametrize("function", [says, says_in_thread])
@pytest.mark.asyncio
async def test_records_of_a_job_name_it(kept, function):
    """On the loop and in threads; outside of jobs the fields are there, and empty."""
    async with Supervisor() as supervisor:
        done = await supervisor.submit(function)
        await done
        LOG.info("outside")
    mine = [f for f, r in zip(kept.fields(), kept.records, strict=True) if r.name == LOG.name]
    assert mine == [(done.id, function.__name__, done.queue, 1), (None,) * 4]


@pytest.mark.skipif(sys.platform == "win32", reason="children need socket pairs")
@pytest.mark.asyncio
async def test_records_of_a_child_name_its_job(kept):
    """They came with the job they belong to; what the filter finds here does not replace that."""
    async with Supervisor(processes=1) as supervisor:
        done = await supervisor.submit(job(life_jobs.log, cpu=True), "life", 30, "hi")
        await done
    found = [f for f in kept.fields() if f[0] is not None]
    assert found == [(done.id, "log", "processes", 1)]


@pytest.mark.asyncio
async def test_a_record_factory_serves_every_handler(kept):
    """So that a handler of somebody else's, without the filter, has the fields as well."""
    before = logging.getLogRecordFactory()
    kept.filters.clear()
    logging.setLogRecordFactory(logs.record_factory())
    try:
        async with Supervisor() as supervisor:
            done = await supervisor.submit(says)
            await done
    finally:
        logging.setLogRecordFactory(before)
    assert (done.id, "says", "default", 1) in kept.fields()


@pytest.mark.asyncio
async def test_structlog_events_name_the_job():
    """By the processor; what the caller gave under such a name stays."""
    captured = structlog.testing.LogCapture()
    log = structlog.wrap_logger(None, processors=[logs.add_job, captured])

    async def says_it():
        log.info("hello", queue="my own")

    async with Supervisor() as supervisor:
        done = await supervisor.submit(says_it)
        await done
    log.info("outside")
    inside, outside = captured.entries
    assert (inside["job_id"], inside["queue"], inside["attempt"]) == (done.id, "my own", 1)
    assert "job_id" not in outside


def test_importing_changes_nothing():
    """There is no factory and no filter before somebody asks for one."""
    assert logging.getLogRecordFactory() is logging.LogRecord
    assert not any(isinstance(f, logs.JobFilter) for f in logging.root.filters)
