"""The chronicle of a run: its figures are right, its memory is bounded, and it costs only who wants it."""

import asyncio
import threading
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworkers import Retry, Supervisor, current_job, job
from asyncworkers.chronicle import Chronicle, Histogram
from asyncworkers.chronicle.book import OTHERS
from asyncworkers.chronicle.histogram import ACCURACY
from asyncworkers.events import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptStarted,
    ChildStarted,
    JobSettled,
    JobSubmitted,
    LeaseLost,
    LoopStalled,
    QueuePaused,
    SupervisorClosed,
    SupervisorStarted,
)

# ---- histograms

TIMES = st.floats(0, 1e9, allow_subnormal=False) | st.floats(1e-7, 1e-2)


@given(st.lists(TIMES, min_size=1), st.floats(0, 1))
def test_a_percentile_is_off_by_less_than_it_says(times, share):
    """Whatever the times, each percentile lies within `ACCURACY` of the exact one."""
    histogram = Histogram()
    for time in times:
        histogram.add(time)
    exact = sorted(times)[max(1, ceil(share * len(times))) - 1]
    found = histogram.percentile(share)
    assert found is not None
    assert abs(found - exact) <= ACCURACY * exact + 1e-9
    assert histogram.percentile(0) == min(times)
    assert histogram.percentile(1) == max(times)
    assert (histogram.count, histogram.least, histogram.most) == (
        len(times),
        min(times),
        max(times),
    )
    assert histogram.total == pytest.approx(sum(times))


@given(st.lists(TIMES), st.lists(TIMES))
def test_histograms_add_up(some, others):
    """Two histograms put together are that of all their times, and their buckets hold them."""
    one, other, both = Histogram(), Histogram(), Histogram()
    for time in some:
        one.add(time)
    for time in others:
        other.add(time)
    for time in some + others:
        both.add(time)
    one.include(other)
    assert one.buckets() == both.buckets()
    assert one.to_dict() == {**both.to_dict(), "total": one.total, "mean": one.mean}
    assert sum(count for _, _, count in one.buckets()) == len(some) + len(others)
    for low, high, _ in one.buckets():
        assert any(low <= max(time, 1e-9) < high for time in some + others)


def test_an_empty_histogram_has_no_percentile():
    """There is no time of nothing; a share that is none is refused."""
    assert Histogram().percentile(0.5) is None
    assert Histogram().mean is None
    assert set(Histogram().to_dict().values()) == {0, None}
    assert repr(Histogram()) == "<Histogram: none>"
    with pytest.raises(ValueError, match="share must be between 0 and 1, not 50"):
        Histogram().percentile(50)


# ---- bounds

NAMES = st.sampled_from("abcdef")
OUTCOMES = st.sampled_from(
    [("Succeeded", "Complete"), ("Failed", "Fail"), ("Failed", "RetryAfter"), ("Lost", "Release")]
)


@st.composite
def any_event(draw):
    """Return some event, in no order that makes sense."""
    at, ident, name = draw(st.floats(0, 1e6)), draw(st.text("0123456789", max_size=2)), draw(NAMES)
    whose = at, ident, name, draw(st.sampled_from("xy")), ()
    attempt = draw(st.integers(1, 5))
    outcome, decision = draw(OUTCOMES)
    error = draw(NAMES) + "Error" if outcome == "Failed" else None
    seconds = draw(st.floats(0, 100))
    return draw(
        st.sampled_from(
            [
                JobSubmitted(*whose),
                AttemptStarted(*whose, attempt, 1),
                AttemptEnded(*whose, attempt, 1, seconds, outcome, decision, error, error),
                JobSettled(*whose, attempt, draw(st.sampled_from(["succeeded", "failed"]))),
                AttemptAbandoned(*whose, attempt),
                LeaseLost(*whose, attempt),
                LoopStalled(at, seconds, ident, name, "file.py", 1, "function", False),
                QueuePaused(at, "x"),
                ChildStarted(at, "x", 1, 4711, seconds),
                SupervisorStarted(at, "s"),
                SupervisorClosed(at, "s"),
            ]
        )
    )


@settings(max_examples=300)
@given(st.lists(any_event(), max_size=120))
def test_no_sequence_of_events_exceeds_a_bound(events):
    """Whatever is told, in whatever order: every bound holds, and what was left out is counted."""
    chronicle = Chronicle(
        attempts=5,
        jobs=4,
        open_jobs=6,
        names=3,
        slowest=2,
        retried=2,
        stalls=3,
        moments=3,
        width=1,
        buckets=8,
    )
    began = 0
    for place, event in enumerate(events):
        if isinstance(event, SupervisorStarted) and chronicle.ended is not None:
            began = place
        chronicle(event)
        assert len(chronicle._came) <= 6
        assert len(chronicle._now) <= 6
    heard = events[began:]
    ended = [e for e in heard if isinstance(e, AttemptEnded) and e.decision != "Release"]
    settled = [e for e in heard if isinstance(e, JobSettled)]
    stalls = [e for e in heard if isinstance(e, LoopStalled)]
    dropped = chronicle.dropped
    spans = chronicle.attempts(running=False)
    assert len(spans) == min(5, len(ended)) == len(ended) - dropped.get("attempts", 0)
    jobs = chronicle.jobs()
    assert len(jobs) == min(4, len(settled)) == len(settled) - dropped.get("jobs", 0)
    assert len(chronicle.stalls.last) == len(stalls) - dropped.get("stalls", 0) <= 3
    assert chronicle.stalls.count == len(stalls)
    assert len(chronicle.moments) <= 3
    assert len(set(chronicle.names) - {OTHERS}) <= 3
    assert len(chronicle.errors) <= 4
    seconds = sorted((e.seconds for e in ended if e.seconds > 0), reverse=True)
    assert [s.error for s in chronicle.slowest] == [
        s.error for s in sorted(chronicle.slowest, key=lambda s: -s.seconds)
    ]
    assert len(chronicle.slowest) == min(2, len(seconds))
    assert len(chronicle.most_retried) <= 2
    total = chronicle.total
    assert total.attempts == len(ended)
    assert total.submitted == sum(isinstance(e, JobSubmitted) for e in heard)
    assert total.succeeded + total.failed == len(settled)
    assert sum(one.count for one in chronicle.errors) == sum(
        e.error_type is not None for e in ended
    )
    for recent in (False, True):
        flow = chronicle.throughput(recent=recent)
        assert len(flow.submitted) <= 8
    assert sum(chronicle.throughput().submitted) == total.submitted
    assert sum(chronicle.throughput().ended) == len(settled)
    assert sum(chronicle.throughput().retried) == total.retried


@given(st.lists(st.floats(0, 1000), min_size=1), st.integers(2, 20))
def test_throughput_lies_where_it_was(moments, buckets):
    """Each end is in the interval of its moment, however often the intervals have doubled."""
    chronicle = Chronicle(width=0.5, buckets=buckets)
    chronicle(SupervisorStarted(100.0, "s"))
    moments = sorted(100.0 + moment for moment in moments)
    for moment in moments:
        chronicle(JobSettled(moment, "id", "name", "queue", (), 1, "failed"))
    flow = chronicle.throughput("queue")
    assert len(flow.failed) <= buckets
    assert flow.width in [0.5 * 2**n for n in range(20)]
    expected = [0] * len(flow.failed)
    for moment in moments:
        expected[int((moment - 100.0) / 0.5) // int(flow.width / 0.5)] += 1
    assert list(flow.failed) == expected
    recent = chronicle.throughput(recent=True)
    assert recent.width == 0.5
    after = [moment for moment in moments if moment - 100.0 >= recent.start]
    assert sum(recent.failed) == len(after)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"attempts": -1}, ValueError),
        ({"jobs": 1.5}, TypeError),
        ({"open_jobs": 0}, ValueError),
        ({"names": True}, TypeError),
        ({"width": 0}, ValueError),
        ({"buckets": 1}, ValueError),
    ],
)
def test_senseless_bounds_are_refused(bad, error):
    """The error names the bound."""
    with pytest.raises(error, match=next(iter(bad))):
        Chronicle(**bad)


# ---- in a supervisor


def test_nothing_is_paid_by_default():
    """Without `record` nobody listens, so no event is made; what is no Chronicle is refused."""
    assert not Supervisor()._listeners
    assert Supervisor().chronicle is None
    own = Chronicle()
    assert Supervisor(record=own).chronicle is own
    with pytest.raises(TypeError, match="record must be a bool or a Chronicle, not 1"):
        Supervisor(record=1)


@job(retry=Retry(attempts=3, on=(OSError,), delay=2, jitter=False))
async def fetch(last: int) -> None:
    """Take a second; fail until the last attempt."""
    await asyncio.sleep(1)
    if current_job().attempt < last:
        raise OSError("reset")


@pytest.mark.virtual_time
@pytest.mark.asyncio
async def test_times_are_exact_in_virtual_time():
    """Each attempt waits from when it could have run, and runs from its start to its end."""
    async with Supervisor(workers=1, record=True) as supervisor:
        first = await supervisor.submit(fetch, 1)
        second = await supervisor.submit(fetch.options(delay=4), 1)
        third = await supervisor.submit(fetch, 3)
        await first
        running = supervisor.chronicle.attempts()
        assert [(s.job_id, s.start, s.end) for s in running] == [
            (first.id, 0.0, 1.0),
            (third.id, 1.0, None),
        ]
        await second
        await third
    chronicle = supervisor.chronicle
    figures = chronicle.queues["default"]
    assert figures.to_dict() == chronicle.names["fetch"].to_dict() == chronicle.total.to_dict()
    assert (figures.waiting.count, figures.waiting.least, figures.waiting.most) == (5, 0.0, 1.0)
    assert (figures.running.count, figures.running.total, figures.running.most) == (5, 5.0, 1.0)
    assert (figures.retried, figures.attempts) == (2, 5)
    assert [(s.job_id, s.attempt, s.start, s.end) for s in chronicle.attempts()] == [
        (first.id, 1, 0.0, 1.0),
        (third.id, 1, 1.0, 2.0),
        (second.id, 1, 4.0, 5.0),
        (third.id, 2, 5.0, 6.0),
        (third.id, 3, 10.0, 11.0),
    ]
    last = chronicle.jobs()[-1]
    assert (last.job_id, last.attempt, last.state) == (third.id, 3, "succeeded")
    assert (last.submitted, last.started, last.finished) == (0.0, 10.0, 11.0)
    assert [span.attempt for span in chronicle.most_retried] == [3]
    assert (chronicle.began, chronicle.ended, chronicle.dropped) == (0.0, 11.0, {})
    async with supervisor:
        await supervisor.call(fetch, 1)
    assert chronicle.total.submitted == 1, "a run begins anew"


def compute(number: int) -> int:
    """Fail for every seventh."""
    if number % 7 == 3:
        raise ValueError(number)
    return number


@job(retry=Retry(attempts=2, on=(OSError,), delay=0), timeout=30)
async def flaky(number: int) -> int:
    """Fail at first, or for good, or time out, as the number has it."""
    if number % 3 == 0 and current_job().attempt == 1:
        raise OSError
    if number % 5 == 0:
        raise LookupError
    await asyncio.sleep(0)
    return number


@pytest.mark.asyncio
async def test_sums_agree_with_stats():
    """For jobs and items of maps, on the loop, in threads and processes, with failures, retries,
    cancellations and priorities: each queue's figures are those of its stats.
    """
    async with Supervisor(8, threads=2, processes=1, record=True) as supervisor:
        jobs = await supervisor.submit_many(flaky, range(40))
        jobs += await supervisor.submit_many(flaky.options(priority=3), range(10))
        jobs += await supervisor.submit_many(compute, range(10))
        jobs += await supervisor.submit_many(job(compute, cpu=True), range(10))
        late = [await supervisor.submit(flaky.options(delay=3600), 1) for _ in range(3)]
        for one in (*late, jobs[20]):
            one.cancel("enough")
        for one in jobs:
            await one.wait()
        async for _ in supervisor.map(flaky, range(20), ordered=False).outcomes():
            pass
        await supervisor.map(flaky, [1, 2, 4])
        await supervisor.map(compute, [1, 2, 4], cpu=True)
        async for _ in supervisor.map(compute, range(20)).outcomes():
            pass
    stats, chronicle = supervisor.stats(), supervisor.chronicle
    names = ("submitted", "succeeded", "failed", "cancelled", "retried", "timed_out", "abandoned")
    assert set(chronicle.queues) == {"default", "threads", "processes"}
    for queue, figures in chronicle.queues.items():
        found = {name: getattr(figures, name) for name in names}
        assert found == {name: getattr(stats.queues[queue], name) for name in names}
        assert figures.waiting.count >= figures.succeeded
        assert figures.ended == figures.submitted
        flow = chronicle.throughput(queue)
        assert (sum(flow.submitted), sum(flow.ended)) == (figures.submitted, figures.ended)
    total = chronicle.total
    assert total.attempts == len(chronicle.attempts())
    assert total.succeeded == stats.succeeded
    assert sum(f.running.total for f in chronicle.names.values()) == pytest.approx(
        total.running.total
    )
    assert (chronicle._came, chronicle._now) == ({}, {})


@pytest.mark.asyncio
async def test_attempts_that_are_heard_of_together_follow_one_another():
    """A child's jobs that end while the loop is busy, and are told of at once, have the times that
    they took: none overlaps the next one of its worker.
    """
    async with Supervisor(processes=1, record=True) as supervisor:
        quick = job(compute, cpu=True)
        await supervisor.call(quick, 1)
        jobs = await supervisor.submit_many(quick, [1] * 300)
        while supervisor.stats().succeeded < 3:
            await asyncio.sleep(0)
        threading.Event().wait(0.05)  # the loop hears of nothing meanwhile
        for one in jobs:
            await one
        spans = supervisor.chronicle.attempts()
        assert len(spans) == 301
        for span, later in pairwise(spans):
            assert span.worker == later.worker
            assert span.start <= span.end <= later.start
        assert [one.submitted <= one.started for one in supervisor.chronicle.jobs()] == [True] * 301


@job(retry=Retry(attempts=2, on=(OSError,), delay=0))
async def stored(number: int) -> int:
    """Fail at first, or for good, as the number has it."""
    if number % 3 == 0 and current_job().attempt == 1:
        raise OSError
    if number == 7:
        raise LookupError
    return number


@pytest.mark.asyncio
async def test_sums_agree_with_stats_of_a_store(tmp_path):
    """Jobs that live in a store are recorded like all others, and no trace of one is left over."""
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    async with Supervisor(4, record=True, store=url, functions=[stored]) as supervisor:
        for one in await supervisor.submit_many(stored, range(12)):
            await one.wait()
        chronicle = supervisor.chronicle
        assert (chronicle._came, chronicle._now) == ({}, {})
    figures, stats = chronicle.queues["default"], supervisor.stats().queues["default"]
    for name in ("submitted", "succeeded", "failed", "cancelled", "retried"):
        assert getattr(figures, name) == getattr(stats, name), name
    assert (figures.submitted, figures.failed, figures.attempts) == (12, 1, 16)
    assert figures.waiting.count == 16
    assert all(one.submitted <= one.started <= one.finished for one in chronicle.jobs())
