"""Several processes on one file: killed, stopped, told to leave; jobs and their ends go on elsewhere."""

import asyncio
import signal

import pytest
from stored_jobs import at_most_once, block, cling, double, hold, notes, once_held, poison

from asyncworkers import JobCancelled, JobLost, JobState, Progress, events
from asyncworkers.testing import EventRecorder

pytestmark = pytest.mark.asyncio


async def test_a_result_is_awaited_in_another_process(sqlite, children):
    """A process without workers submits; another one runs; the first one gets the values."""
    await children.start()
    async with sqlite.supervisor(workers=0) as supervisor:
        jobs = await supervisor.submit_many(double, range(100))
        assert await asyncio.gather(*jobs) == [2 * n for n in range(100)]
        assert await supervisor.call(double, 7) == 14


async def test_fault_S06_orphans_of_a_killed_process_run_again_soon(
    sqlite, children, tmp_path, caplog
):
    """Of a process that is killed in the middle, what had begun begins again elsewhere, with its next
    attempt and one loss, without waiting for any lease to run out; whoever notices it says so.
    """
    diary = str(tmp_path / "diary")
    child = await children.start()
    async with sqlite.supervisor(workers=0) as supervisor:
        job = await supervisor.submit(once_held, diary)
        await children.wrote("began")
        children.kill(child)
        while "that had 1 job has died" not in caplog.text:
            await asyncio.sleep(0.01)
        await children.start()
        assert await job == "attempt 2"
        (record,) = await supervisor._depot.store.get([job.id])
        assert (record.attempt, record.losses, record.failures) == (2, 1, 0)


async def test_a_job_that_may_run_once_is_lost_with_its_process(sqlite, children, tmp_path, caplog):
    """`once=True`: after the death of its process it has failed, and never begins again."""
    child = await children.start()
    async with sqlite.supervisor(workers=0) as supervisor:
        job = await supervisor.submit(at_most_once, str(tmp_path / "diary"))
        await children.wrote("began")
        children.kill(child)
        with pytest.raises(JobLost, match="ended 1 time while it ran"):
            await job
        assert "the store took it back; of them 1 failed as JobLost" in caplog.text
        await children.start()
        assert await supervisor.call(double, 1) == 2
    assert notes(tmp_path / "diary").count("began") == 1


async def test_cancelling_reaches_another_process(sqlite, children, tmp_path):
    """A job that runs elsewhere is cancelled there, and says the reason here."""
    await children.start()
    async with sqlite.supervisor(workers=0) as supervisor:
        job = await supervisor.submit(hold, str(tmp_path / "diary"))
        await children.wrote("began")
        assert job.cancel("not needed any more")
        with pytest.raises(JobCancelled) as cancelled:
            await job
        assert cancelled.value.reason == "not needed any more"
    assert "cancelled" in notes(tmp_path / "diary")


async def test_progress_is_seen_in_another_process(sqlite, children, tmp_path):
    """What a job reports where it runs can be read where it does not."""
    await children.start()
    async with sqlite.supervisor(workers=0) as supervisor:
        job = await supervisor.submit(once_held, str(tmp_path / "diary"))
        while (await supervisor.stored.get(job.id)).progress is None:
            await asyncio.sleep(0.01)
        assert job.progress == Progress(1, 2, "half")
        assert job.state is JobState.RUNNING
        assert "in another process" in job.why


async def test_fault_X01_a_process_that_is_told_to_leave_gives_back(sqlite, children, tmp_path):
    """SIGTERM: what ran is interrupted and goes back, at no loss; another process goes on."""
    diary = str(tmp_path / "diary")
    child = await children.start(1)
    async with sqlite.supervisor(workers=0) as supervisor:
        first = await supervisor.submit(once_held, diary)
        rest = await supervisor.submit_many(double, range(20))
        await children.wrote("began")
        children.kill(child, signal.SIGTERM)
        assert child.returncode == 0
        assert notes(tmp_path / "diary")[-1] == "left"
        (record,) = await supervisor._depot.store.get([first.id])
        assert (record.state, record.attempt, record.losses) == (JobState.QUEUED, 1, 0)
        await children.start()
        assert await asyncio.gather(*rest) == [2 * n for n in range(20)]
        assert await first == "attempt 2"


async def test_fault_X04_killed_while_it_drains(sqlite, children, tmp_path):
    """SIGKILL in the middle of a drain: what ran there begins again elsewhere, one loss charged, and what
    waited is done; nothing is lost and nothing is awaited in vain.
    """
    child = await children.start(1)
    async with sqlite.supervisor(workers=0) as supervisor:
        clings = await supervisor.submit(cling, str(tmp_path / "diary"))
        rest = await supervisor.submit_many(double, range(20))
        await children.wrote("began")
        child.send_signal(signal.SIGTERM)
        await children.wrote("clings")
        children.kill(child)
        await children.start()
        assert await clings == "attempt 2"
        assert await asyncio.gather(*rest) == [2 * n for n in range(20)]
        records = await supervisor._depot.store.get([clings.id, *(one.id for one in rest)])
        assert [one.losses for one in records] == [1] + [0] * 20


async def test_fault_S04_a_stopped_process_is_fenced(sqlite, children, tmp_path):
    """A process that stood still for longer than its lease has its jobs taken; what it settles
    afterwards is refused, and the job has one end.
    """
    sqlite_store = sqlite.store
    sqlite.store = lambda **settings: sqlite_store(ttl=0.4, **settings)
    recorder = EventRecorder()
    async with sqlite.supervisor(listeners=[recorder], max_block=0.1, stall=None) as zombie:
        blocking = await zombie.submit(block, 0.0)
        assert await blocking == 0.0
        await children.start()
        blocked = await zombie.submit(block, 2.5)
        with pytest.raises(TypeError):
            zombie.submit_nowait(block, 1)
        assert await blocked == 2.5
        lost = recorder.of(events.LeaseLost)
        assert [event.job_id for event in lost] == [blocked.id]
        (record,) = await zombie._depot.store.get([blocked.id])
        assert (record.state, record.attempt, record.losses) == (JobState.SUCCEEDED, 2, 1)


async def test_a_job_that_blocks_the_loop_keeps_its_lease(sqlite, children):
    """As long as it blocks for less than `max_block`, the keeper's thread speaks for it."""
    sqlite_store = sqlite.store
    sqlite.store = lambda **settings: sqlite_store(ttl=1.2, **settings)
    async with sqlite.supervisor(stall=None) as supervisor:
        await children.start(4)
        assert await supervisor.call(block, 3.0) == 3.0
        found = [one async for one in supervisor.stored.jobs()]
        records = await supervisor._depot.store.get([one.id for one in found])
        assert [(record.attempt, record.losses) for record in records] == [(1, 0)]


async def test_fault_J28_a_job_that_kills_its_process_every_time(sqlite, children, tmp_path):
    """It is begun five times, each in another process, and is dead then; others go on meanwhile."""
    async with sqlite.supervisor(workers=0) as supervisor:
        poisonous = await supervisor.submit(poison, str(tmp_path / "poison"))
        for number in range(1, 6):
            child = await children.start()
            while child.poll() is None:
                await asyncio.sleep(0.01)
            children.living.remove(child)
            assert notes(tmp_path / "poison") == [f"poisoned {one}" for one in range(1, number + 1)]
        with pytest.raises(JobLost, match="5 times"):
            await poisonous
        await children.start()
        assert await supervisor.call(double, 1) == 2
        (found,) = [one async for one in supervisor.stored.jobs(state="failed")]
        assert found.id == poisonous.id
