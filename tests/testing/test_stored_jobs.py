"""Stored jobs in the tests of an application."""

import asyncio

import pytest

from asyncworkers import (
    JobState,
    NotSerializable,
    Queue,
    Retry,
    SignedPickle,
    Supervisor,
    current_job,
    job,
)
from asyncworkers.testing import stored_jobs

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual_time]

DONE: list = []


@job
async def send(to: str, text: str = "") -> str:
    """Note that it was sent."""
    DONE.append((to, text))
    return to


@job
async def welcome(name: str) -> None:
    """Submit another job."""
    await SUPERVISOR.submit(send, name, text="welcome")


@job
async def lead(name: str) -> None:
    """Submit a job that follows."""
    await SUPERVISOR.using(current_job()).submit(send, name, text="follows")


@job(retry=Retry(2, on=OSError, delay=60, jitter=False))
async def flaky(attempt: int) -> int:
    """Fail before this attempt."""
    if current_job().attempt < attempt:
        raise OSError(f"attempt {current_job().attempt}")
    return current_job().attempt


@job(queue="other")
async def other() -> None:
    """On another queue."""


SUPERVISOR = Supervisor(
    store="sqlite:////nowhere/at/all.db",
    functions=[send, welcome, lead, flaky, other],
    queues=[Queue("other", 1), Queue("memory", 1, stored=False)],
)


@pytest.fixture(autouse=True)
def _forget():
    DONE.clear()


async def test_inline_a_job_has_ended_when_submit_returns():
    """Also one that a job submits; the supervisor's own store is never touched."""
    async with stored_jobs(SUPERVISOR) as jobs:
        done = await SUPERVISOR.submit(send, "Ada")
        assert done.state is JobState.SUCCEEDED
        assert await done == "Ada"
        await SUPERVISOR.submit(welcome, "Grace")
        assert DONE == [("Ada", ""), ("Grace", "welcome")]
        assert [str(one) for one in jobs.submitted()] == [
            "send('Ada')",
            "welcome('Grace')",
            "send('Grace', text='welcome')",
        ]


async def test_inline_an_error_is_the_jobs():
    """It comes when the job is awaited; a job with a delay is not waited for."""
    async with stored_jobs(SUPERVISOR):
        failed = await SUPERVISOR.submit(flaky, 3)
        assert failed.state is JobState.FAILED
        with pytest.raises(OSError, match="attempt 2"):
            await failed
        assert await (await SUPERVISOR.submit(flaky, 2)) == 2
        delayed = await SUPERVISOR.submit(send.options(delay=60), "later")
        assert delayed.state is not JobState.SUCCEEDED
        assert DONE == []
        with pytest.raises(NotSerializable):
            await SUPERVISOR.submit(send, object())  # type: ignore[arg-type]


async def test_drain_runs_what_waits_and_what_that_submits():
    """Nothing runs before; then everything does, but what has a delay."""
    async with stored_jobs(SUPERVISOR, run="drain") as jobs:
        first = await SUPERVISOR.submit(welcome, "Ada")
        await SUPERVISOR.submit(lead, "Grace")
        late = await SUPERVISOR.submit(send.options(delay=3_600), "late")
        await asyncio.sleep(10)
        assert DONE == []
        ended = await jobs.drain()
        assert [one.name for one in ended] == ["welcome", "lead", "send", "send"]
        assert sorted(DONE) == [("Ada", "welcome"), ("Grace", "follows")]
        assert first.state is JobState.SUCCEEDED
        assert [one.name for one in await jobs.drain(delayed=True)] == ["send"]
        assert await late == "late"


@pytest.mark.parametrize("first", [True, False])
async def test_drain_leaves_a_retry_that_waits(first):
    """Whether it is the only job, or another one ends after it: the drain does not wait for it."""
    loop = asyncio.get_running_loop()
    async with stored_jobs(SUPERVISOR, run="drain") as jobs:
        retried = await SUPERVISOR.submit(flaky, 2)
        if not first:
            await SUPERVISOR.submit(send, "Ada")
        began = loop.time()
        assert [one.name for one in await jobs.drain()] == ([] if first else ["send"])
        assert loop.time() - began < 1
        assert retried.state is JobState.SCHEDULED
        assert [one.name for one in await jobs.drain(delayed=True)] == ["flaky"]
        assert await retried == 2


async def test_one_queue_is_drained():
    """The jobs of the others stay."""
    async with stored_jobs(SUPERVISOR, run="drain") as jobs:
        await SUPERVISOR.submit(send, "Ada")
        await SUPERVISOR.submit(other)
        assert [one.name for one in await jobs.drain("other")] == ["other"]
        assert DONE == []
        with pytest.raises(ValueError, match="queue must be"):
            await jobs.drain("memory")


async def test_assertions_say_what_was_submitted():
    """A failed one lists it; arguments are compared as they are stored."""
    async with stored_jobs(SUPERVISOR, run="drain") as jobs:
        jobs.assert_nothing_submitted()
        await SUPERVISOR.submit(send, "Ada", text="hello")
        await SUPERVISOR.submit(send, "Ada", text="hello")
        (first, _) = jobs.assert_submitted(send)
        assert first.args == ("Ada",)
        jobs.assert_submitted(send.bind("Ada", text="hello"), times=2)
        with pytest.raises(AssertionError, match=r"submitted 1 time, and was 2 times"):
            jobs.assert_submitted(send, times=1)
        with pytest.raises(AssertionError, match=r"(?s)at least once.*send\('Ada', text='hello'\)"):
            jobs.assert_submitted(send.bind("Grace"))
        with pytest.raises(AssertionError, match="no job was to be"):
            jobs.assert_nothing_submitted()
        with pytest.raises(TypeError, match="made with @job"):
            jobs.submitted("send")  # type: ignore[arg-type]


async def test_a_supervisor_without_a_store_needs_none_of_this():
    """It says so; and its own store is back after the block, whatever happened there."""
    with pytest.raises(ValueError, match="has no store"):
        async with stored_jobs(Supervisor()):
            pass
    own = SUPERVISOR._store
    with pytest.raises(KeyError):
        async with stored_jobs(SUPERVISOR):
            raise KeyError
    assert SUPERVISOR._store is own


async def test_jobs_whose_arguments_are_pickled():
    """A queue with a codec of its own works as in production, and its calls are found by their values."""

    @job(name="fit", queue="models")
    async def fit(points, *, degree=1):
        return len(points) * degree

    supervisor = Supervisor(
        store="sqlite:////nowhere/at/all.db",
        functions=[fit],
        queues=[Queue("models", 1, codec=SignedPickle(b"k" * 32))],
    )
    async with stored_jobs(supervisor) as jobs:
        assert await (await supervisor.submit(fit, {(1, 2), (3, 4)}, degree=2)) == 4
        jobs.assert_submitted(fit.bind({(3, 4), (1, 2)}, degree=2), times=1)
        jobs.assert_submitted(fit.bind({(1, 2)}), times=0)
