"""EventRecorder: it records, waits for what is to happen, and says what happened instead."""

import asyncio

import pytest

from asyncworkers import Supervisor
from asyncworkers.events import (
    AttemptStarted,
    Event,
    JobSettled,
    JobSubmitted,
    SupervisorClosed,
    SupervisorStarted,
)
from asyncworkers.testing import EventNotSeen, EventRecorder


def settled(name: str, at: float = 1.0) -> JobSettled:
    """Make an event."""
    return JobSettled(at, "id", name, "default", (), 1, "succeeded")


def test_events_are_kept_in_order_and_found_by_their_fields():
    """`all` has everything as it came, `of` what matches."""
    recorder = EventRecorder()
    told = [SupervisorStarted(0.0, "s"), settled("a"), settled("b"), settled("a", 2.0)]
    for event in told:
        recorder(event)
    assert recorder.all == tuple(told)
    assert recorder.of(JobSettled) == told[1:]
    assert recorder.of(JobSettled, job_name="a", at=2.0) == [told[3]]
    assert recorder.of(Event) == told
    assert repr(recorder) == "<EventRecorder 4 events, 0 waited for>"


@pytest.mark.asyncio
async def test_waiting_ends_with_the_event_that_makes_the_count_full():
    """Events before the wait count, others do not, and the last one needed is returned."""
    recorder = EventRecorder()
    recorder(settled("a", 1.0))
    assert (await recorder.wait_for(JobSettled)).at == 1.0
    waiting = asyncio.ensure_future(recorder.wait_for(JobSettled, job_name="a", count=3))
    await asyncio.sleep(0)
    for event in (settled("b"), settled("a", 2.0), SupervisorStarted(0.0, "s")):
        recorder(event)
    await asyncio.sleep(0)
    assert not waiting.done()
    for at in (3.0, 4.0):
        recorder(settled("a", at))
    assert (await waiting).at == 3.0


@pytest.mark.asyncio
async def test_a_supervisor_that_closes_ends_the_wait_with_a_report():
    """Whoever waits in vain is told what came instead of waiting for ever."""
    recorder = EventRecorder()
    recorder(SupervisorStarted(0.0, "s"))
    waiting = asyncio.ensure_future(recorder.wait_for(JobSettled, job_name="fetch", count=2))
    await asyncio.sleep(0)
    recorder(settled("other"))
    recorder(SupervisorClosed(2.0, "s"))
    with pytest.raises(EventNotSeen) as caught:
        await waiting
    text = str(caught.value)
    assert "2 x JobSettled(job_name='fetch')" in text
    assert "1 x SupervisorStarted, 1 x JobSettled, 1 x SupervisorClosed" in text
    assert "job_name='other'" in text
    with pytest.raises(EventNotSeen):
        await recorder.wait_for(JobSettled, job_name="fetch")


@pytest.mark.asyncio
async def test_one_of_two_supervisors_may_close():
    """A recorder of two supervisors waits until both have closed."""
    recorder = EventRecorder()
    recorder(SupervisorStarted(0.0, "one"))
    recorder(SupervisorStarted(0.0, "two"))
    waiting = asyncio.ensure_future(recorder.wait_for(JobSettled))
    await asyncio.sleep(0)
    recorder(SupervisorClosed(1.0, "one"))
    recorder(settled("a"))
    assert (await waiting).job_name == "a"


@pytest.mark.asyncio
async def test_mistakes_are_refused_at_the_call():
    """A misspelled field or a count of 0 would wait for ever or not at all."""
    recorder = EventRecorder()
    with pytest.raises(TypeError, match=r"job_nam.*job_name"):
        await recorder.wait_for(JobSettled, job_nam="a")
    with pytest.raises(TypeError, match="no field 'x'"):
        recorder.of(JobSettled, x=1)
    with pytest.raises(ValueError, match="count"):
        await recorder.wait_for(JobSettled, count=0)


@pytest.mark.asyncio
async def test_a_cancelled_wait_leaves_nothing_behind():
    """After a timeout the recorder waits for nobody."""
    recorder = EventRecorder()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await recorder.wait_for(JobSettled)
    assert "0 waited for" in repr(recorder)


@pytest.mark.asyncio
async def test_it_listens_to_a_supervisor(event_recorder):
    """With the real supervisor a test waits for an attempt to start, then acts."""
    gate = asyncio.Event()

    async def fetch() -> str:
        await gate.wait()
        return "page"

    async with Supervisor(listeners=[event_recorder]) as supervisor:
        job = await supervisor.submit(fetch)
        started = await event_recorder.wait_for(AttemptStarted, job_id=job.id)
        assert started.attempt == 1
        in_vain = asyncio.ensure_future(event_recorder.wait_for(JobSettled, count=2))
        gate.set()
        assert await job == "page"
    with pytest.raises(EventNotSeen, match="2 x JobSettled"):
        await in_vain
    kinds = [type(event) for event in event_recorder.all]
    assert kinds[:2] == [SupervisorStarted, JobSubmitted]
    assert kinds[-1] is SupervisorClosed
