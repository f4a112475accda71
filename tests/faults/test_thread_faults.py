"""Faults of threads (group P, as far as threads are concerned): they cannot be stopped, so they
are named, counted and never used again before they end.
"""

import asyncio
import threading
from typing import Any

import pytest
from invariants import CANARY, trial, turns, until

from asyncworkers import Cancelled, JobFailed, TimedOut, current_job, job
from asyncworkers.events import AttemptAbandoned, AttemptStarted, QueueExhausted

pytestmark = pytest.mark.asyncio

Log = pytest.LogCaptureFixture


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_fault_P07_thread_cannot_be_killed(caplog: Log, how: str) -> None:
    """A thread whose job is over for everybody else is abandoned: counted and named, its slot not
    used again until it ends, and the queue says when its last one is held.
    """
    release = threading.Event()
    deaf: list[threading.Thread] = []

    def blocks(_payload: str) -> str:
        deaf.append(threading.current_thread())
        release.wait()
        return "too late"

    def who() -> threading.Thread:
        return threading.current_thread()

    function = job(blocks, name="blocks", timeout=0.01 if how == "timed out" else None)
    async with trial(caplog, workers=2, unwind=0.01) as t:
        held = []
        for number in (1, 2):
            blocked = await t.supervisor.submit(function, CANARY)
            await until(lambda number=number: len(deaf) == number)
            if how == "cancelled":
                assert blocked.cancel("enough")
            outcome = await blocked.wait()
            assert outcome == (TimedOut(0.01) if how == "timed out" else Cancelled("enough"))
            held.append(blocked)
            await t.recorder.wait_for(AttemptAbandoned, job_id=blocked.id)
            exhausted = t.recorder.of(QueueExhausted)
            assert [e.abandoned for e in exhausted] == ([("blocks",) * 2] if number == 2 else [])
        assert len(set(deaf)) == 2
        stats = t.supervisor.stats().queues["threads"]
        assert (stats.held_threads, stats.abandoned, stats.running) == (2, 2, 0)
        waiting = await t.supervisor.submit(who)
        await turns()
        assert waiting.state == "queued"
        assert "held by an abandoned attempt of blocks, blocks" in waiting.why
        assert "2 threads held" in t.supervisor.explain()
        release.set()
        assert await waiting not in deaf
        assert t.supervisor.stats().queues["threads"].held_threads < 2
        assert {e.job_id for e in t.recorder.of(AttemptAbandoned)} == {one.id for one in held}
        outcome_name = "TimedOut" if how == "timed out" else "Cancelled"
        state = "failed" if how == "timed out" else "cancelled"
        for one in held:
            t.told_once(one, outcome_name, state=state, logged=1)
    assert not any(thread.is_alive() for thread in deaf)
    assert sum("no thread left" in r.getMessage() for r in caplog.records) == 1


@pytest.mark.parametrize("error", [StopIteration("mine"), StopAsyncIteration("mine")])
async def test_fault_P17_stop_iteration_from_a_thread(caplog: Log, error: Exception) -> None:
    """StopIteration out of a thread is a failed attempt; nobody waits for ever."""

    def stops(_payload: str) -> None:
        raise error

    def exhausts(_payload: str) -> Any:
        return next(iter(()))

    async with trial(caplog) as t:
        for function in (stops, exhausts):
            failing = await t.supervisor.submit(function, CANARY)
            with pytest.raises(JobFailed) as caught:
                await failing
            assert isinstance(caught.value.__cause__, (StopIteration, StopAsyncIteration))
            t.told_once(failing, "Failed", "JobFailed")


async def test_abandoned_thread_is_polled_out(caplog: Log) -> None:
    """Code in a thread that polls its token ends by itself, and its slot is free again."""
    saw: list[str | None] = []

    def polls(_payload: str) -> None:
        token = current_job().cancelled
        assert not token
        token.wait()
        saw.append(token.reason)

    async with trial(caplog, workers=1) as t:
        polling = await t.supervisor.submit(polls, CANARY)
        await t.recorder.wait_for(AttemptStarted, job_id=polling.id)
        await asyncio.sleep(0)
        polling.cancel("enough")
        assert await polling.wait() == Cancelled("enough")
        await t.works()
        t.told_once(polling, "Cancelled", state="cancelled")
        assert not t.recorder.of(AttemptAbandoned)
    assert saw in (["enough"], [])  # cancelled before the thread took it up: nothing ran
