"""What events tell of a job, and what they keep to themselves."""

import asyncio
from typing import Any

import pytest

from asyncworkers import Job, JobCancelled, JobNotFound, Supervisor, current_job, job
from asyncworkers.events import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptStarted,
    Event,
    JobEvent,
    JobProgressed,
    JobSettled,
    JobSubmitted,
    ListenerDropped,
)

pytestmark = pytest.mark.asyncio


class Wordy(Exception):
    """Says what it is told to say."""


class Mute(Exception):
    """Its message cannot be asked for."""

    def __str__(self) -> str:
        raise RuntimeError("hostile")


class Odd(str):
    """A str that fails where a str does not."""

    __slots__ = ()

    def __getitem__(self, _: Any) -> str:
        raise RuntimeError("hostile")


class Oddly(Exception):
    """Its message is such a str."""

    def __str__(self) -> str:
        return Odd("message")


SUMMARIES = [
    (ValueError("bad"), "ValueError: bad"),
    (ValueError(), "ValueError"),
    (KeyError("key"), "KeyError: 'key'"),
    (Wordy("two\nlines \x1b[31m \u202e"), "Wordy: two\\nlines \\x1b[31m \\u202e"),
    (Mute(), "Mute: <its message raised RuntimeError>"),
    (Oddly(), "Oddly: <its message raised RuntimeError>"),
    (Wordy("x" * 193), "Wordy: " + "x" * 193),
    (Wordy("x" * 1_000_000), "Wordy: " + "x" * 190 + "..."),
    (Wordy("\n" * 1_000_000), "Wordy: " + "\\n" * 95 + "..."),
]


@pytest.mark.parametrize(("error", "told"), SUMMARIES, ids=range(len(SUMMARIES)))
async def test_an_attempt_tells_its_error(event_recorder, error, told):
    """The class and the message come on one printable line of at most 200 characters."""

    async def fails() -> None:
        raise error

    async with Supervisor(listeners=[event_recorder]) as supervisor:
        await (await supervisor.submit(fails)).wait()
    (ended,) = event_recorder.of(AttemptEnded)
    assert ended.error == told
    assert ended.error_type == type(error).__name__
    assert len(told) <= 200


@pytest.mark.virtual_time
async def test_no_error_is_told_where_the_function_raised_none(event_recorder):
    """Success, a timeout and a cancellation are told by the outcome alone."""

    async def waits(forever: bool) -> None:
        if forever:
            await asyncio.Event().wait()

    async with Supervisor(listeners=[event_recorder]) as supervisor:
        await supervisor.call(waits, False)
        await (await supervisor.submit(job(waits, timeout=1), True)).wait()
        stopped = await supervisor.submit(waits, True)
        await event_recorder.wait_for(AttemptStarted, job_id=stopped.id)
        stopped.cancel("enough")
    ends = [(e.outcome, e.error_type, e.error) for e in event_recorder.of(AttemptEnded)]
    assert ends == [(name, None, None) for name in ("Succeeded", "TimedOut", "Cancelled")]


@pytest.mark.virtual_time
async def test_everything_about_a_job_tells_whose_it_is(event_recorder):
    """Each event of a job has its id, its name, its queue and its function's tags."""

    @job(name="report", tags=("shop", "nightly"), timeout=1)
    async def stubborn() -> None:
        current_job().report(1, 2)
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    release = asyncio.Event()
    async with Supervisor(listeners=[event_recorder]) as supervisor:
        hanging = await supervisor.submit(stubborn)
        await hanging.wait()
        release.set()
    about = [event for event in event_recorder.all if isinstance(event, JobEvent)]
    assert {type(event) for event in about} == {
        JobSubmitted,
        AttemptStarted,
        JobProgressed,
        AttemptEnded,
        AttemptAbandoned,
        JobSettled,
    }
    whose = {(event.job_id, event.job_name, event.queue, event.tags) for event in about}
    assert whose == {(hanging.id, "report", "default", ("shop", "nightly"))}


async def test_a_listener_may_ask_for_the_job():
    """The id finds the job until it has settled, so that a listener can tell it by its arguments."""
    found: list[tuple[type[Event], object]] = []

    def look(event: Event) -> None:
        if isinstance(event, JobEvent):
            try:
                found.append((type(event), supervisor.get(event.job_id).args))
            except JobNotFound:
                found.append((type(event), "gone"))

    async def succeeds(_: int) -> None:
        """Do nothing."""

    async with Supervisor(listeners=[look]) as supervisor:
        ended: Job[None] = await supervisor.submit(succeeds, 7)
        await ended
    assert found == [
        (JobSubmitted, (7,)),
        (AttemptStarted, (7,)),
        (AttemptEnded, (7,)),
        (JobSettled, "gone"),
    ]


async def test_a_listener_that_changes_the_listeners(event_recorder):
    """A listener removed while an event is told still hears that one; one added hears the next."""
    heard: list[tuple[str, str]] = []

    def first(event: Event) -> None:
        heard.append(("first", type(event).__name__))
        if isinstance(event, JobSubmitted):
            remove_second()
            supervisor.listen(third)

    def second(event: Event) -> None:
        heard.append(("second", type(event).__name__))

    def third(event: Event) -> None:
        heard.append(("third", type(event).__name__))

    async with Supervisor() as supervisor:
        supervisor.listen(first)
        remove_second = supervisor.listen(second)
        supervisor.submit_nowait(asyncio.sleep, 0)
        assert heard == [("first", "JobSubmitted"), ("second", "JobSubmitted")]
        supervisor.pause("default")
        assert heard[2:] == [("first", "QueuePaused"), ("third", "QueuePaused")]
        supervisor.resume("default")


async def test_a_dropped_listener_is_told_of_like_an_attempt(event_recorder, caplog):
    """`ListenerDropped.error` has the form of `AttemptEnded.error`."""

    def breaks(_: Event) -> None:
        raise Wordy("no\nmore")

    async with Supervisor(listeners=[breaks, event_recorder]):
        pass
    assert [event.error for event in event_recorder.of(ListenerDropped)] == ["Wordy: no\\nmore"]
    assert "dropped listener" in caplog.text


POLICIES = [{}, {"priority": 1}, {"delay": 10}, {"expires": 10}]


@pytest.mark.virtual_time
@pytest.mark.parametrize("policies", POLICIES, ids=lambda policies: "".join(policies) or "ordinary")
@pytest.mark.parametrize("how", ["submit", "submit_many", "inside a job", "map"])
async def test_a_listener_that_cancels_what_was_submitted(how: str, policies: dict[str, Any]):
    """A job that a listener cancels as soon as it hears of it never runs, and is counted once."""
    ran: list[int] = []

    @job(**policies)
    async def unwanted(number: int) -> None:
        ran.append(number)

    async def submits() -> list[Job[None]]:
        return await supervisor.submit_many(unwanted, range(3))

    def hear(event: Event) -> None:
        if isinstance(event, JobSubmitted) and event.job_name.endswith("unwanted"):
            assert supervisor.cancel(event.job_id)

    async with Supervisor(1, listeners=[hear]) as supervisor:
        if how == "submit":
            jobs = [await supervisor.submit(unwanted, number) for number in range(3)]
        elif how == "submit_many":
            jobs = await submits()
        elif how == "inside a job":
            jobs = await supervisor.call(submits)
        else:
            jobs = await supervisor.map(unwanted, range(3)).outcomes()
        assert [one.state for one in jobs] == ["cancelled"] * 3
        await asyncio.sleep(20)
        assert [one.state for one in jobs] == ["cancelled"] * 3
        assert not ran
        stats = supervisor.stats()
        assert (stats.queued, stats.scheduled, stats.cancelled) == (0, 0, 3)


@pytest.mark.parametrize("how", ["submit_many", "many with policies", "map"])
async def test_a_listener_that_ends_everything(how: str):
    """Once a listener has cancelled everything, nothing begins that was submitted with the first."""
    ran: list[int] = []

    async def unwanted(number: int) -> None:
        ran.append(number)

    def hear(event: Event) -> None:
        if isinstance(event, JobSubmitted):
            stop_listening()
            supervisor.cancel_all()

    async with Supervisor(1) as supervisor:
        stop_listening = supervisor.listen(hear)
        if how == "map":
            with pytest.raises(JobCancelled):
                await supervisor.map(unwanted, range(3))
        elif how == "submit_many":
            await supervisor.submit_many(unwanted, range(3))
        else:
            await supervisor.submit_many(job(unwanted, priority=1), range(3))
    assert not ran
