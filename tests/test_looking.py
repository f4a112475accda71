"""Looking at a supervisor without cost: its workers, its jobs one by one, and the errors of attempts."""

import asyncio
import itertools

import pytest

from asyncworkers import Queue, Retry, Supervisor, SupervisorClosed, current_job, job


@job
async def hold(gate: asyncio.Event, *, extra: int = 0) -> None:
    """Wait."""
    await gate.wait()


@job(retry=Retry(attempts=2, on=ValueError, delay=0))
async def fail(number: int) -> None:
    """Fail."""
    raise ValueError(number)


@pytest.mark.asyncio
async def test_workers_say_what_they_have_in_hand():
    """Those at work, with the job, since when, and what it awaits; items of a stream have no id."""
    gate = asyncio.Event()

    async def parent(child: asyncio.Event) -> None:
        waits = await supervisor.submit(hold, child)
        ids.append((current_job().id, waits.id))
        await waits

    ids = []
    async with Supervisor(3, queues=[Queue("other", 1)]) as supervisor:
        assert supervisor.workers() == []
        supervisor.submit_nowait(parent, gate)
        reading = asyncio.create_task(_read(supervisor.map(hold, [gate])))
        while len(supervisor.workers()) < 3 or not ids:
            await asyncio.sleep(0.005)
        while not any(one.waits_for for one in supervisor.workers()):
            await asyncio.sleep(0.005)
        found = {one.job_id: one for one in supervisor.workers()}
        ((mine, awaited),) = ids
        assert found[mine].waits_for == (awaited,)
        assert found[awaited].job_name == "hold"
        assert found[awaited].seconds >= 0
        assert found[awaited].pid is None
        assert found[None].job_name == "hold"
        assert len(supervisor.workers(1)) == 1
        with pytest.raises(ValueError, match="most"):
            supervisor.workers(-1)
        gate.set()
        await reading


async def _read(items):
    return await items


@pytest.mark.asyncio
async def test_jobs_come_one_by_one():
    """What runs, what is in line, what is scheduled; of one queue if asked; nobody looks further."""
    gate = asyncio.Event()
    supervisor = Supervisor(1)
    with pytest.raises(SupervisorClosed):
        supervisor.iter_jobs()
    async with supervisor:
        jobs = [supervisor.submit_nowait(hold, gate, extra=n) for n in range(5)]
        later = supervisor.submit_nowait(hold.options(delay=60), gate)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert list(supervisor.iter_jobs()) == [*jobs, later]
        assert list(itertools.islice(supervisor.iter_jobs("default"), 2)) == jobs[:2]
        assert list(supervisor.iter_jobs("threads")) == []
        with pytest.raises(ValueError, match="nowhere"):
            supervisor.iter_jobs("nowhere")
        one = jobs[3]
        assert (one.args, dict(one.kwargs), one.stored, one.due) == (
            (gate,),
            {"extra": 3},
            False,
            None,
        )
        assert one.function.__name__ == "hold"
        with pytest.raises(TypeError):
            one.kwargs["extra"] = 4
        assert 59 < (later.due - later.created).total_seconds() < 61
        supervisor.cancel_all("enough")


@pytest.mark.asyncio
async def test_errors_are_shown_as_attempts_end_and_a_witness_that_raises_is_dropped(caplog):
    """Each attempt's error with its job, until stopped; trouble of a witness is its own, and logged."""
    seen, bad = [], []

    def broken(job, error):
        bad.append(job.attempt)
        raise SystemExit("broken")

    supervisor = Supervisor(1, listeners=[lambda event: None])
    supervisor.on_error(broken)
    stop = supervisor.on_error(lambda job, error: seen.append((job.args, job.attempt, str(error))))
    with pytest.raises(TypeError, match="witness must be callable"):
        supervisor.on_error(1)
    async with supervisor:
        await (await supervisor.submit(fail, 7)).wait()
        assert seen == [((7,), 1, "7"), ((7,), 2, "7")]
        assert bad == [1]
        assert "is shown no more errors" in caplog.text
        stop()
        stop()
        await (await supervisor.submit(fail, 8)).wait()
        assert len(seen) == 2
