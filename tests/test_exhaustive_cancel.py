"""Every public coroutine, cancelled at every one of its steps, once and twice: nothing is lost.

Whoever uses a supervisor may be cancelled wherever they wait. Each use here is run again and again in
simulations that differ in nothing but the step at which its task is cancelled, then for every pair of
steps. After each run the standing invariants hold: fresh jobs run on every queue, every job has one
end, the figures and the events agree, no slot and no room is lost, nothing is left behind.
"""

import asyncio
import contextlib
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from asyncworkers import (
    Job,
    JobCancelled,
    Queue,
    Retry,
    Stream,
    Supervisor,
    SupervisorClosed,
    job,
)
from asyncworkers.events import JobSettled, JobSubmitted
from asyncworkers.testing import CancelRun, EventRecorder, SimLoop, cancel_at_every_step
from asyncworkers.testing.simulate import run_to_end

Use = Callable[[Supervisor, list[Job[Any]]], Awaitable[None]]


async def brief(number: Any) -> Any:
    """Suspend twice."""
    await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    return number


def blocking(number: Any) -> Any:
    """A job for the thread, which a simulation runs in its own time."""
    return number


async def fails(_number: Any) -> None:
    """Fail."""
    await asyncio.sleep(0.01)
    raise ValueError("no")


async def numbers(count: int) -> AsyncIterator[int]:
    """Items that come one by one."""
    for number in range(count):
        await asyncio.sleep(0)
        yield number


# ---- the uses


async def submits(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`submit`, which waits for room after the second."""
    for number in range(4):
        jobs.append(await supervisor.submit(brief, number))


async def submits_many(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`submit_many`, which waits for room for two."""
    for _ in range(2):
        jobs += await supervisor.submit_many(brief, range(2))


async def calls(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`call`, on the loop, in a task of its own and in a thread."""
    for function in (brief, job(brief, queue="own"), blocking):
        assert await supervisor.call(function, 7) == 7


async def calls_in_vain(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`call` of what fails, and of what is tried again."""
    for function in (fails, job(fails, retry=Retry(2, on=ValueError, delay=0.01))):
        with pytest.raises(ValueError, match="no"):
            await supervisor.call(function, 7)


async def awaits(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`await job`, several at a time."""
    mine = [await supervisor.submit(brief, number) for number in range(2)]
    jobs += mine
    assert [await one for one in mine] == [0, 1]
    assert await mine[0] == 0


async def waits(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`Job.wait`, with and without a timeout, run out or not."""
    one = await supervisor.submit(brief, 1)
    jobs.append(one)
    with pytest.raises(TimeoutError):
        await one.wait(0.001)
    await one.wait(60)
    await one.wait()


async def maps(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`await map`."""
    assert await supervisor.map(brief, range(5), window=3) == list(range(5))


async def maps_in_vain(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`await map` that a failure ends."""
    with pytest.raises(ValueError, match="no"):
        await supervisor.map(fails, range(3))


async def maps_async_items(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`await map` over what comes one by one."""
    assert await supervisor.map(brief, numbers(4), window=2) == list(range(4))


async def iterates(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`async for`, in order."""
    found = []
    async for number in supervisor.map(brief, range(4), window=2):
        found.append(number)
    assert found == list(range(4))


async def iterates_unordered(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`async for`, as they come."""
    found = []
    async for number in supervisor.map(brief, range(4), ordered=False, window=2):
        found.append(number)
    assert sorted(found) == list(range(4))


async def iterates_async_items(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`async for` over what comes one by one."""
    found = []
    async for number in supervisor.map(brief, numbers(3), window=2):
        found.append(number)
    assert found == list(range(3))


async def iterates_outcomes(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`async for` over settled jobs."""
    async for one in supervisor.map(fails, range(3), window=2).outcomes():
        assert isinstance(one.exception(), ValueError)


async def reduces(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`reduce` of all values to one."""
    assert await supervisor.map(brief, range(5), window=2).reduce(lambda a, b: a + b) == 10


async def leaves_a_stream(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`async with map` left in the middle."""
    async with supervisor.map(brief, range(6), window=3) as stream:
        async for number in stream:
            if number == 1:
                break


async def closes_a_stream(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`aclose` of the iterator."""
    iterator: Any = aiter(supervisor.map(brief, numbers(6), window=3))
    try:
        assert await anext(iterator) == 0
    finally:
        await iterator.aclose()


async def from_threads(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """The future of `submit_threadsafe`, awaited."""
    futures = [supervisor.submit_threadsafe(brief, number) for number in range(4)]
    for number, future in enumerate(futures):
        assert await asyncio.wrap_future(future) == number


async def looks(supervisor: Supervisor, jobs: list[Job[Any]]) -> None:
    """`backlog`, and `wait_draining` for as long as nobody drains."""
    assert (await supervisor.backlog())["default"].workers == 2
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.001):
            await supervisor.wait_draining()


USES: tuple[Use, ...] = (
    submits,
    submits_many,
    calls,
    calls_in_vain,
    awaits,
    waits,
    maps,
    maps_in_vain,
    maps_async_items,
    iterates,
    iterates_unordered,
    iterates_async_items,
    iterates_outcomes,
    reduces,
    leaves_a_stream,
    closes_a_stream,
    from_threads,
    looks,
)


def test_every_public_coroutine_is_used() -> None:
    """Nothing that can be awaited is left out of the two tables of this file."""
    asynchronous = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    found = {
        f"{owner.__name__}.{name}"
        for owner in (Supervisor, Job, Stream)
        for name, member in vars(owner).items()
        if any(check(inspect.unwrap(member)) for check in asynchronous if callable(member))
        and (not name.startswith("_") or name.startswith("__"))
    }
    assert found == {
        "Supervisor.__aenter__",
        "Supervisor.__aexit__",
        "Supervisor.backlog",
        "Supervisor.call",
        "Supervisor.cleanup_ctx",
        "Supervisor.close",
        "Supervisor.drain",
        "Supervisor.lifespan",
        "Supervisor.open",
        "Supervisor.submit",
        "Supervisor.submit_many",
        "Supervisor.wait_draining",
        "Job.wait",
        "Stream.__aenter__",
        "Stream.__aexit__",
        "Stream.reduce",
    }


# ---- a supervisor in use


def scenario(use: Use, place: str, *, listened: bool = False, again: bool = False) -> Any:
    """Somebody uses a supervisor with a short queue beside others; then everything is looked at.
    With `again` a cancellation does not end the use: it is begun once more.
    """

    async def main() -> None:
        recorder = EventRecorder()
        jobs: list[Job[Any]] = []
        queues = [Queue("own", 2, isolation="task")]
        supervisor = Supervisor(
            2, threads=1, maxsize=2, queues=queues, listeners=[recorder] if listened else []
        )
        async with supervisor:

            async def uses() -> None:
                try:
                    await use(supervisor, jobs)
                except asyncio.CancelledError:
                    if not again:
                        raise
                    await use(supervisor, jobs)

            async def victim() -> None:
                await asyncio.wait([task := asyncio.create_task(uses(), name="victim")])
                if not task.cancelled() and task.exception() is not None:
                    raise AssertionError("the use failed") from task.exception()

            async def other() -> None:
                for number in range(3):
                    jobs.append(await supervisor.submit(brief, number))

            beside = asyncio.create_task(other())
            if place == "inside a job":
                await supervisor.call(job(victim, queue="own"))
            else:
                await victim()
            await beside
            await asyncio.sleep(1)  # what is to end by itself has ended
            await works(supervisor)
            nothing_is_lent_or_promised(supervisor)
        assert all(one.done() for one in jobs), jobs
        adds_up(supervisor, recorder if listened else None)

    return main


async def works(supervisor: Supervisor) -> None:
    """Fresh jobs run on every queue, as many at a time as ever."""
    for function in (brief, job(brief, queue="own"), blocking):
        running = [await supervisor.submit(function, number) for number in range(3)]
        assert [await one for one in running] == [0, 1, 2]


def nothing_is_lent_or_promised(supervisor: Supervisor) -> None:
    """No slot is lent, no room is promised, nobody is waited for, no stream is open."""
    intake = supervisor._intake
    assert intake is not None
    assert not intake.hub.readers
    for queue in intake.queues.values():
        crew, room = queue.crew, queue.room
        assert (crew.lent, crew.calls, room.promised, len(room.waiters)) == (0, 0, 0, 0)
        assert crew.spare + len(crew.members) == crew.workers
        assert not queue.supplies
        assert queue.in_line() == 0


def adds_up(supervisor: Supervisor, recorder: EventRecorder | None) -> None:
    """Every job that was accepted has one end, by the figures and by the events."""
    assert supervisor.state == "closed"
    stats = supervisor.stats()
    assert stats.submitted == stats.succeeded + stats.failed + stats.cancelled
    if recorder is not None:
        submitted = Counter(event.job_id for event in recorder.of(JobSubmitted))
        settled = Counter(event.job_id for event in recorder.of(JobSettled))
        assert settled == submitted
        assert set(settled.values()) == {1}
        assert len(settled) == stats.submitted


@pytest.mark.parametrize("listened", [False, True], ids=["", "listened"])
@pytest.mark.parametrize("place", ["outside", "inside a job"])
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_cancelled_at_every_step(use: Use, place: str, listened: bool) -> None:
    """Whoever uses the supervisor is cancelled at each step: as it waits, and as it wakes."""
    report = cancel_at_every_step(scenario(use, place, listened=listened), task="victim")
    assert not report.violations, report
    assert len(report.cancellations) >= STEPS.get(use, 3)


STEPS = {submits: 5, calls: 7, waits: 5, iterates: 7, from_threads: 7}
"""Places that a use has at least: a sweep that stops too early would prove nothing."""


@pytest.mark.parametrize("place", ["outside", "inside a job"])
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_cancelled_at_every_pair_of_steps(use: Use, place: str) -> None:
    """Cancelled, begun once more and cancelled again, for every two steps; also while it deals with
    the first cancellation.
    """
    assert cancel_at_every_pair(scenario(use, place, again=True)) >= 1


def cancel_at_every_pair(main: Callable[[], Any]) -> int:
    """Run it once for every two steps of the task "victim", cancelled at both; in how many runs
    both came.
    """
    pairs = first = 0
    while True:
        first += 1
        second = first
        while True:
            second += 1
            cancelled = _run(main, {first, second})
            pairs += cancelled == 2
            if cancelled < 2:
                break
        if cancelled == 0:
            return pairs


def _run(main: Callable[[], Any], steps: set[int]) -> int:
    """Run it with the victim cancelled after these of its steps; how many of them came."""
    taken = cancelled = 0

    def hook(task: asyncio.Task[Any] | None, take_step: Callable[[], None]) -> None:
        nonlocal taken, cancelled
        take_step()
        if task is not None and task.get_name() == "victim":
            taken += 1
            if taken in steps and not task.done():
                cancelled += 1
                task.cancel()

    loop = SimLoop()
    loop.step_hook = hook
    ending = run_to_end(loop, main)
    if ending.error is not None:
        ending.error.add_note(f"cancelled at steps {sorted(steps)}")
        raise ending.error
    assert ending.result.leftover == (), f"cancelled at steps {sorted(steps)}"
    assert ending.result.unhandled == (), f"cancelled at steps {sorted(steps)}"
    return cancelled


# ---- a supervisor that is entered, drained and left

Body = Callable[[Supervisor], Awaitable[None]]


async def leaves(supervisor: Supervisor) -> None:
    """Just leave the block."""


async def drains(supervisor: Supervisor) -> None:
    """`drain`, long enough."""
    await supervisor.drain(1)


async def drains_in_a_hurry(supervisor: Supervisor) -> None:
    """`drain` whose grace ends before the jobs do."""
    await supervisor.drain(0.001)


async def raises(supervisor: Supervisor) -> None:
    """Leave with an exception."""
    raise ZeroDivisionError


async def cancels_all(supervisor: Supervisor) -> None:
    """`cancel_all`, then leave."""
    supervisor.cancel_all()
    await asyncio.sleep(0)


async def drains_from_a_job(supervisor: Supervisor) -> None:
    """A job that drains its own supervisor: it is one of those that are waited for."""

    async def ends() -> None:
        await supervisor.drain(0.01)

    await supervisor.call(ends)


BODIES: tuple[Body, ...] = (
    leaves,
    drains,
    drains_in_a_hurry,
    raises,
    cancels_all,
    drains_from_a_job,
)


def life(body: Body, way: str) -> Callable[[], Any]:
    """A supervisor is entered, works, and is left in one way or the other; then it lives again."""

    async def main() -> None:
        recorder = EventRecorder()
        jobs: list[Job[Any]] = []
        supervisor = Supervisor(2, threads=1, grace=0.5, listeners=[recorder])

        async def inside() -> None:
            for number in range(3):
                jobs.append(await supervisor.submit(brief, number))
            jobs.append(await supervisor.submit(blocking, 1))
            jobs.append(await supervisor.submit(job(brief, delay=0.02), 2))
            await body(supervisor)

        async def victim() -> None:
            if way == "async with":
                async with supervisor:
                    await inside()
            elif way == "lifespan":
                async with supervisor.lifespan():
                    await inside()
            elif way == "open":
                await supervisor.open()
                try:
                    await inside()
                finally:
                    await supervisor.close()
            else:
                context = supervisor.cleanup_ctx(None)  # as aiohttp uses it
                await anext(context)
                try:
                    await inside()
                finally:
                    await anext(context, None)

        user = asyncio.create_task(victim(), name="victim")
        await asyncio.wait([user])
        if not user.cancelled():
            error = user.exception()
            expected = (ZeroDivisionError, JobCancelled, SupervisorClosed)
            assert error is None or isinstance(error, expected), repr(error)
        assert supervisor.state in ("closed", "new")
        assert all(one.done() for one in jobs), jobs
        if supervisor.state == "closed":
            adds_up(supervisor, recorder if jobs else None)
        async with supervisor:
            await works_again(supervisor)

    return main


async def works_again(supervisor: Supervisor) -> None:
    """It can be entered again, and does its work."""
    assert await supervisor.call(brief, 1) == 1
    assert await supervisor.call(blocking, 1) == 1
    assert await supervisor.map(brief, range(3)) == [0, 1, 2]


WAYS = ("async with", "lifespan", "cleanup_ctx", "open")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_life_cancelled_at_every_step(body: Body, way: str) -> None:
    """Whoever holds the supervisor is cancelled while it is entered, used, drained or left: it is
    closed afterwards with every job ended, and can be entered again.
    """

    def check(run: CancelRun[None]) -> None:
        assert run.error is None

    report = cancel_at_every_step(life(body, way), check, task="victim")
    assert not report.violations, report
    assert len(report.cancellations) >= 3


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_life_cancelled_at_every_pair_of_steps(body: Body, way: str) -> None:
    """Cancelled again while it is closing because of the first cancellation."""
    assert cancel_at_every_pair(life(body, way)) >= (0 if body is raises else 1)


# ---- the sweep itself


def test_a_pair_sweep_finds_what_only_two_cancellations_break() -> None:
    """A clean-up that must not be interrupted is found by the second cancellation alone."""

    async def careless() -> None:
        open_files = ["one"]

        async def user() -> None:
            try:
                await asyncio.sleep(1)
            finally:
                await asyncio.sleep(0.1)
                open_files.clear()

        task = asyncio.create_task(user(), name="victim")
        await asyncio.wait([task])
        assert not open_files, "left open"

    with pytest.raises(AssertionError, match="left open"):
        cancel_at_every_pair(careless)
