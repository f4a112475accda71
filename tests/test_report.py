"""The report of a run: whole, with and without a chronicle, and after the end."""

import asyncio
import json
import re
import textwrap

import pytest

from asyncworkers import Retry, Supervisor, SupervisorClosed, current_job, job
from asyncworkers.chronicle import Chronicle
from asyncworkers.events import LoopStalled


@job(retry=Retry(attempts=3, on=(ConnectionError,), delay=2, jitter=False), timeout=30)
async def fetch(seconds: float) -> None:
    """Take so long; whole seconds are refused at first, three for good, sixty take too long."""
    await asyncio.sleep(seconds)
    if seconds == 3:
        raise ConnectionRefusedError("no route")
    if seconds == int(seconds) and current_job().attempt == 1:
        raise ConnectionResetError("by peer")


@job
async def parse(_: int) -> None:
    """Take half a second."""
    await asyncio.sleep(0.5)


async def work(supervisor):
    """Have a few jobs run, one by one; one is cancelled and one fails."""
    for seconds in (0.25, 1, 3, 60, 0.75):
        await (await supervisor.submit(fetch, seconds)).wait()
    await supervisor.map(parse, range(4))
    late = await supervisor.submit(parse.options(delay=10), 1)
    late.cancel("enough")
    stall = LoopStalled(0.0, 0.25, None, None, "/somewhere/shop.py", 12, "sell", False)
    supervisor._intake.hub.stalls = 1, 0.25, stall
    supervisor._listeners.emit(stall)


def without_ids(text):
    """The text with what differs from run to run replaced."""
    return re.sub(r"[0-9a-f]{8}-(\d+)", r"#\1", text)


@pytest.mark.virtual_time
@pytest.mark.asyncio
async def test_the_report_of_a_recorded_run():
    """All of it, as it is printed, when the supervisor has closed; in it is what happened."""
    async with Supervisor(workers=2, record=Chronicle(jobs=2), name="shop") as supervisor:
        await work(supervisor)
    report = supervisor.report()
    expected = """\
        shop, closed after 51.0 s: 10 jobs, 7 succeeded, 2 failed, 1 cancelled; 3 attempts repeated; 0.196 jobs/s

        queue    jobs  failed  cancelled  retried    busy  waited p50   p99  ran p50     p99    most
        default    10       2          1        3  44.0 s        0 ms  0 ms   754 ms  30.0 s  30.0 s

        job    jobs  failed  cancelled  retried    busy  waited p50   p99  ran p50     p99    most
        fetch     5       2          -        3  42.0 s        0 ms  0 ms   1.01 s  30.0 s  30.0 s
        parse     5       -          1        -  2.00 s        0 ms  0 ms   500 ms  500 ms  500 ms

        slowest attempts
          30.0 s  fetch #4  timed out
          3.00 s  fetch #3  ConnectionRefusedError: no route
          3.00 s  fetch #3  ConnectionRefusedError: no route
          3.00 s  fetch #3  ConnectionRefusedError: no route
          1.00 s  fetch #2  ConnectionResetError: by peer

        most retried jobs
          3 attempts  fetch #3  ConnectionRefusedError: no route
          2 attempts  fetch #2

        errors of attempts
          3 ×  ConnectionRefusedError  last in fetch: ConnectionRefusedError: no route
          1 ×  ConnectionResetError    last in fetch: ConnectionResetError: by peer

        The event loop stalled 1 time, 250 ms in all; worst 250 ms in no job, at shop.py:12 in sell.

        For want of room the chronicle left out: 8 of jobs."""
    assert without_ids(str(report)) == textwrap.dedent(expected)
    assert (report.submitted, report.succeeded, report.failed) == (10, 7, 2)
    assert (report.cancelled, report.retried, report.unfinished) == (1, 3, 0)
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["queues"]["default"]["running"]["count"] == 12
    assert plain["jobs"]["fetch"]["waiting"]["p99"] == 0.0
    assert plain["stalls"]["worst"]["function"] == "sell"
    assert [one["error_type"] for one in plain["errors"]] == [
        "ConnectionRefusedError",
        "ConnectionResetError",
    ]


@pytest.mark.virtual_time
@pytest.mark.asyncio
async def test_the_report_of_a_run_that_was_not_recorded():
    """Counts, stalls and throughput are there all the same, and it says what recording would add."""
    supervisor = Supervisor(workers=2)
    with pytest.raises(SupervisorClosed):
        supervisor.report()
    async with supervisor:
        await work(supervisor)
        half = supervisor.report()
        await supervisor.submit(parse, 1)
        assert supervisor.report().unfinished == 1
    expected = """\
        supervisor, closed after 51.5 s: 11 jobs, 8 succeeded, 2 failed, 1 cancelled; 3 attempts repeated; 0.214 jobs/s

        queue    jobs  failed  cancelled  retried
        default    11       2          1        3

        The event loop stalled 1 time, 250 ms in all; worst 250 ms in no job, at shop.py:12 in sell.

        Not recorded: Supervisor(record=True) adds waiting and running times, the slowest and most
        retried jobs, errors by type, and a timeline."""
    assert str(supervisor.report()) == textwrap.dedent(expected)
    assert (half.state, half.seconds, half.submitted) == ("open", 51.0, 10)
    plain = json.loads(json.dumps(supervisor.report().to_dict(), allow_nan=False))
    assert plain["queues"]["default"]["running"] is None
    assert plain["recorded"] is False


@pytest.mark.asyncio
async def test_the_report_of_nothing():
    """A run without a job is a report too, and nothing is divided by zero."""
    for record in (False, True):
        async with Supervisor(record=record) as supervisor:
            pass
        text = str(supervisor.report())
        assert re.match(
            r"supervisor, closed after [\d.]+ (ms|µs|s): 0 jobs, 0 succeeded; 0 jobs/s", text
        )
        assert "The event loop never stalled." in text
