"""A job that waits for jobs lends its slot: nothing stands still, and no slot is lost or doubled."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from ways import WAYS, double, supervisor_of, turns

from asyncworkers import (
    Job,
    JobCancelled,
    JobTimedOut,
    Queue,
    Retry,
    Supervisor,
    SupervisorClosed,
    WouldDeadlock,
    current_job,
    job,
)

pytestmark = pytest.mark.asyncio


class Crowd:
    """Counts the jobs whose code runs and does not wait for other jobs."""

    def __init__(self) -> None:
        self.active = 0
        self.most_at_start = 0
        self.begun = 0

    def begin(self) -> None:
        """A job's code has begun."""
        self.begun += 1
        self.active += 1
        self.most_at_start = max(self.most_at_start, self.active)

    async def wait(self, awaitable: Awaitable[Any]) -> Any:
        """Wait for a job from inside another one."""
        self.active -= 1
        try:
            return await awaitable
        finally:
            self.active += 1

    def end(self) -> None:
        """A job's code ends."""
        self.active -= 1


async def has_all_its_slots(supervisor: Supervisor, workers: int, queue: str = "default") -> None:
    """Exactly so many jobs run at once: no slot was lost, none was given out twice."""
    gate = asyncio.Event()
    probe = job(gate.wait, queue=queue)
    jobs = [await supervisor.submit(probe) for _ in range(workers + 3)]
    await turns(20)
    assert [one.state for one in jobs] == ["running"] * workers + ["queued"] * 3
    stats = supervisor.stats().queues[queue]
    assert (stats.lent, stats.workers) == (0, workers)
    gate.set()
    for one in jobs:
        await one


# ---- everything comes to its end


@pytest.mark.parametrize(
    ("way", "how"),
    [*((way, "gather") for way in WAYS), ("alone", "submit"), ("alone", "many"), ("alone", "call")],
)
async def test_fan_out_three_levels_deep(way: str, how: str) -> None:
    """On one worker, a job that awaits a hundred jobs that await a hundred each ends; at most one
    at a time is at work, and few are open at once, for the deepest go first.
    """
    crowd, most_lent = Crowd(), 0

    async def fan(level: int) -> int:
        nonlocal most_lent
        crowd.begin()
        total = 1
        if level:
            ends: list[int] = await crowd.wait(children(level - 1))
            total += sum(ends)
        most_lent = max(most_lent, supervisor.stats().queues["default"].lent)
        crowd.end()
        return total

    async def children(level: int) -> list[int]:
        if how == "call":
            return list(await asyncio.gather(*(supervisor.call(fan, level) for _ in range(100))))
        if how == "many":
            jobs = await supervisor.submit_many(fan, [level] * 100)
        else:
            jobs = [await supervisor.submit(fan, level) for _ in range(100)]
        return list(await asyncio.gather(*jobs)) if how == "gather" else [await one for one in jobs]

    async with supervisor_of(way, workers=1) as supervisor:
        assert await supervisor.call(fan, 2) == 1 + 100 + 100 * 100
        assert crowd.most_at_start == 1
        assert most_lent <= 2
        await has_all_its_slots(supervisor, 1)


@pytest.mark.parametrize("maxsize", [1, 7])
@pytest.mark.parametrize("way", WAYS)
async def test_blocked_submit_lends(way: str, maxsize: int) -> None:
    """Jobs that wait for room in their own full queue lend their slots, so that the queue moves."""
    crowd = Crowd()

    async def submits(level: int) -> int:
        crowd.begin()
        jobs = [
            await crowd.wait(supervisor.submit(submits, level - 1)) for _ in range(3 * bool(level))
        ]
        crowd.end()
        return 1 + sum([await one for one in jobs])

    queues = [
        Queue("default", 2, maxsize=maxsize, isolation="task" if way == "in tasks" else "shared")
    ]
    async with Supervisor(queues=queues) as supervisor:
        assert await supervisor.call(submits, 3) == 1 + 3 + 9 + 27
        assert crowd.most_at_start <= 2
        await asyncio.sleep(0)
        stats = supervisor.stats().queues["default"]
        assert (stats.lent, stats.queued, stats.running) == (0, 0, 0)


async def test_lends_to_its_own_queue_only() -> None:
    """A job that awaits a job of another queue lends its slot, to jobs of its own queue."""
    gate = asyncio.Event()

    async def parent() -> None:
        await supervisor.call(job(gate.wait, queue="other"))

    async with Supervisor(1, queues=[Queue("other", 1)]) as supervisor:
        waiting = await supervisor.submit(parent)
        await turns(5)
        assert supervisor.stats().queues["default"].lent == 1
        assert supervisor.stats().queues["other"].lent == 0
        assert "awaits" in waiting.why
        assert await supervisor.call(double, 2) == 4
        gate.set()
        await waiting
        await has_all_its_slots(supervisor, 1)
        await has_all_its_slots(supervisor, 1, "other")


async def test_lent_while_it_awaits_a_job_of_another_supervisor() -> None:
    """A job that awaits a job of another supervisor in its loop lends its slot there where it runs."""
    gate = asyncio.Event()

    async with Supervisor(1, name="one") as one, Supervisor(1, name="two") as two:

        async def parent() -> None:
            await two.call(gate.wait)

        waiting = await one.submit(parent)
        await turns(5)
        beside = await one.submit(double, 1)
        await turns(5)
        assert one.stats().queues["default"].lent == 1
        assert two.stats().queues["default"].lent == 0
        assert await beside == 2
        gate.set()
        await waiting
        await has_all_its_slots(one, 1)
        await has_all_its_slots(two, 1)


@pytest.mark.parametrize("how", ["call", "map", "full"])
async def test_supervisors_that_give_jobs_to_each_other(how: str) -> None:
    """Two with one worker each go on, whatever their jobs wait for at the other: a job, a stream, room."""

    async def ask(there: Supervisor, here: Supervisor, depth: int) -> int:
        if depth == 0:
            return 1
        if how == "map":
            return sum(await there.map(partial(ask, here, there), [depth - 1] * 2))
        jobs = [await there.submit(ask, here, there, depth - 1) for _ in range(2)]
        return sum([await one for one in jobs])

    maxsize = 1 if how == "full" else 100
    async with Supervisor(1, maxsize=maxsize) as one, Supervisor(1, maxsize=maxsize) as two:
        assert await one.call(ask, two, one, 5) == 32
        for supervisor in (one, two):
            stats = supervisor.stats().queues["default"]
            assert (stats.lent, stats.running, stats.failed) == (0, 0, 0)


async def test_jobs_of_two_supervisors_that_await_each_other() -> None:
    """They would wait for ever: the one that closes the circle gets WouldDeadlock."""
    jobs: list[Job[None]] = []

    async def awaits(number: int) -> None:
        await gate.wait()
        await jobs[number]

    gate = asyncio.Event()
    async with Supervisor(1) as one, Supervisor(1) as two:
        jobs += [await one.submit(awaits, 1), await two.submit(awaits, 0)]
        gate.set()
        for each in jobs:
            with pytest.raises(WouldDeadlock):
                await each


async def test_room_is_refused_to_jobs_of_another_supervisor() -> None:
    """A drain lets its own jobs wait for room, and nobody else's, be they jobs elsewhere."""

    async def submits() -> None:
        await two.submit(gate.wait)

    gate = asyncio.Event()
    async with Supervisor(1) as one, Supervisor(1, maxsize=1) as two:
        for _ in range(2):
            await two.submit(gate.wait)
            await turns(5)
        waiting = await one.submit(submits)
        await turns(5)
        assert one.stats().queues["default"].lent == 1
        draining = asyncio.create_task(two.drain())
        with pytest.raises(SupervisorClosed):
            await waiting
        gate.set()
        await draining
        await has_all_its_slots(one, 1)


async def test_nothing_lent_for_what_has_ended() -> None:
    """Awaiting a job that has ended, or asking it without waiting, lends nothing."""

    async def parent(ended: Job[int]) -> int:
        seen.append(supervisor.stats().queues["default"].lent)
        value = await ended
        seen.append(supervisor.stats().queues["default"].lent)
        return value + ended.result()

    seen: list[int] = []
    async with Supervisor(1) as supervisor:
        ended = await supervisor.submit(double, 2)
        await ended
        assert await supervisor.call(parent, ended) == 8
        assert seen == [0, 0]


# ---- when they go on


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_new_starts_while_too_many_go_on(way: str) -> None:
    """Jobs that go on never wait for a slot; until there are as few as there are workers again,
    nothing new is started.
    """
    gate, hold = asyncio.Event(), [asyncio.Event() for _ in range(5)]
    resumed: list[int] = []

    async def shared() -> None:
        await gate.wait()

    async def parent(number: int) -> None:
        await child
        resumed.append(number)
        await hold[number].wait()

    queues = [Queue("gates", 1)]
    async with supervisor_of(way, workers=2, queues=queues) as supervisor:
        child = await supervisor.submit(job(shared, queue="gates"))
        parents = [await supervisor.submit(parent, number) for number in range(5)]
        await turns(20)
        assert supervisor.stats().queues["default"].lent == 5
        waiting = [await supervisor.submit(hold[4].wait) for _ in range(2)]
        await turns(10)
        assert [one.state for one in waiting] == ["running"] * 2
        fresh = [await supervisor.submit(double, number) for number in range(3)]
        gate.set()
        await turns(20)
        assert sorted(resumed) == [0, 1, 2, 3, 4]  # at once, though there are two workers
        hold[4].set()  # three of seven end: four are left on two workers
        await turns(10)
        assert all(one.done() for one in [parents[4], *waiting])
        for number in (0, 1):
            assert not any(one.done() for one in fresh)
            hold[number].set()
            await parents[number]
            await turns(10)
            assert parents[number].done()
        assert not any(one.done() for one in fresh)  # two are running on two workers
        hold[2].set()
        assert [await one for one in fresh] == [0, 2, 4]
        hold[3].set()
        await asyncio.gather(*parents)
        await has_all_its_slots(supervisor, 2)


@pytest.mark.parametrize("way", WAYS)
async def test_resized_while_lent(way: str) -> None:
    """The number of workers may change while slots are lent, up and down and to nothing."""
    gate = asyncio.Event()

    async def parent() -> None:
        await child

    async with supervisor_of(way, workers=3, queues=[Queue("gates", 1)]) as supervisor:
        child = await supervisor.submit(job(gate.wait, queue="gates"))
        parents = [await supervisor.submit(parent) for _ in range(6)]
        await turns(20)
        assert supervisor.stats().queues["default"].lent == 6
        supervisor.resize("default", 2)
        hold = asyncio.Event()
        holding = [await supervisor.submit(hold.wait) for _ in range(4)]
        await turns(10)
        assert [one.state for one in holding] == ["running"] * 2 + ["queued"] * 2
        hold.set()
        await asyncio.gather(*holding)
        supervisor.resize("default", 0)
        beside = await supervisor.submit(double, 1)
        await turns(10)
        assert beside.state == "queued"
        gate.set()
        await asyncio.gather(*parents)
        assert beside.state == "queued"
        supervisor.resize("default", 5)
        assert await beside == 2
        await has_all_its_slots(supervisor, 5)


@pytest.mark.parametrize("way", WAYS)
async def test_paused_while_lent(way: str) -> None:
    """On a paused queue a job that waited for a job of another queue goes on, and ends."""
    gate = asyncio.Event()

    async def parent() -> None:
        await child

    async with supervisor_of(way, workers=1, queues=[Queue("gates", 1)]) as supervisor:
        child = await supervisor.submit(job(gate.wait, queue="gates"))
        waiting = await supervisor.submit(parent)
        await turns(10)
        supervisor.pause("default")
        beside = await supervisor.submit(double, 1)
        gate.set()
        await waiting
        await turns(10)
        assert beside.state == "queued"
        supervisor.resume("default")
        assert await beside == 2
        await has_all_its_slots(supervisor, 1)


# ---- from subtasks


@pytest.mark.parametrize("way", WAYS)
async def test_subtasks_lend_one_slot(way: str) -> None:
    """However many of its subtasks await jobs, a job has one slot to lend, and lends it until the
    last of them goes on.
    """
    gates = [asyncio.Event() for _ in range(10)]

    async def parent() -> int:
        await asyncio.gather(*(supervisor.call(job(g.wait, queue="gates")) for g in gates))
        return supervisor.stats().queues["default"].lent

    def lent() -> int:
        return supervisor.stats().queues["default"].lent

    async with supervisor_of(way, workers=1, queues=[Queue("gates", 20)]) as supervisor:
        waiting = await supervisor.submit(parent)
        await turns(20)
        for gate in gates:
            assert lent() == 1
            gate.set()
            await turns(10)
        assert await waiting == 0
        await has_all_its_slots(supervisor, 1)


@pytest.mark.parametrize("way", WAYS)
async def test_subtask_that_waits_longer_than_its_job(way: str) -> None:
    """A subtask that still awaits a job when its own job has ended takes nothing from the next one."""
    first, second = asyncio.Event(), asyncio.Event()
    left: list[asyncio.Task[Any]] = []

    async def parent() -> None:
        left.append(asyncio.create_task(supervisor.call(job(first.wait, queue="gates"))))
        await turns(5)

    async def next_one() -> None:
        await supervisor.call(job(second.wait, queue="gates"))

    def lent() -> int:
        return supervisor.stats().queues["default"].lent

    async with supervisor_of(way, workers=1, queues=[Queue("gates", 2)]) as supervisor:
        await supervisor.call(parent)
        assert lent() == 0
        waiting = await supervisor.submit(next_one)
        await turns(10)
        assert lent() == 1
        first.set()
        assert await left[0] is True
        assert lent() == 1
        second.set()
        await waiting
        await has_all_its_slots(supervisor, 1)


# ---- what would never end


@pytest.mark.parametrize("ask", ["await", "wait"])
@pytest.mark.parametrize("length", [1, 2, 3, 10])
@pytest.mark.parametrize("way", WAYS)
async def test_ring_of_jobs(way: str, length: int, ask: str) -> None:
    """The job that would close a ring of jobs that await each other gets a WouldDeadlock, and the
    others the end of the one they await.
    """
    jobs: list[Job[str]] = []

    async def link(number: int) -> str:
        while len(jobs) < length:
            await asyncio.sleep(0)
        other = jobs[(number + 1) % length]
        if ask == "wait":
            await other.wait()
        else:
            await other
        return "went on"

    async with supervisor_of(way, workers=1 if length < 3 else length) as supervisor:
        made = [await supervisor.submit(link, number) for number in range(length)]
        jobs.extend(made)
        await asyncio.gather(*(one.wait() for one in made))
        errors = [one.exception() for one in made]
        refused = [error for error in errors if isinstance(error, WouldDeadlock)]
        if ask == "wait":
            assert len(refused) == 1
            assert [error for error in errors if error is None] == [None] * (length - 1)
        else:
            assert all(error is refused[0] for error in errors)  # passed on from job to job
        assert "which waits for it to end" in str(refused[0])
        await has_all_its_slots(supervisor, 1 if length < 3 else length)


@pytest.mark.parametrize("way", WAYS)
async def test_ring_through_a_subtask(way: str) -> None:
    """A ring is found through the subtasks of its jobs too, among other jobs they await."""
    jobs: list[Job[str]] = []

    async def first() -> str:
        others = [await supervisor.submit(double, number) for number in range(5)]
        await asyncio.gather(*others, asyncio.ensure_future(jobs[1].wait()))
        return "went on"

    async def second() -> str:
        await turns(20)
        with pytest.raises(WouldDeadlock):
            await asyncio.gather(jobs[0].wait())
        return "refused"

    async with supervisor_of(way, workers=2) as supervisor:
        jobs.extend([await supervisor.submit(one) for one in (first, second)])
        assert [await one for one in jobs] == ["went on", "refused"]
        await has_all_its_slots(supervisor, 2)


@pytest.mark.parametrize("way", WAYS)
async def test_no_false_alarm(way: str) -> None:
    """Two jobs may await the same job, and a job one that had awaited it before."""
    gate = asyncio.Event()
    jobs: dict[str, Job[Any]] = {}

    async def shared() -> int:
        await gate.wait()
        return 1

    async def left() -> int:
        return int(await jobs["shared"])

    async def right() -> int:
        return int(await jobs["left"]) + int(await jobs["shared"])

    async def patient() -> str:
        with pytest.raises(TimeoutError):
            await jobs["late"].wait(0.001)
        gate.set()
        return "done"

    async def late() -> str:
        await gate.wait()
        return str(await jobs["patient"])

    async with supervisor_of(way, workers=1) as supervisor:
        jobs["late"] = await supervisor.submit(job(late, priority=-1))
        jobs["patient"] = await supervisor.submit(patient)
        assert await jobs["late"] == "done"
        gate.clear()
        for function in (shared, left, right):
            jobs[function.__name__] = await supervisor.submit(function)
        await turns(10)
        gate.set()
        assert await jobs["right"] == 2


# ---- cancelled


async def _cancel(one: Job[Any]) -> None:
    one.cancel("enough")
    with pytest.raises(JobCancelled, match="enough"):
        await one


async def _time_out(one: Job[Any]) -> None:
    with pytest.raises(JobTimedOut):
        await one


@pytest.mark.virtual_time
@pytest.mark.parametrize("end", [_cancel, _time_out])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_ended_early_while_lending(
    way: str, own: bool, end: Callable[[Job[Any]], Awaitable[None]]
) -> None:
    """A job that is cancelled or times out while it lends takes its slot back; the job it awaited
    goes on, unless it was its own by `call`.
    """
    gate = asyncio.Event()
    children: list[Job[Any]] = []

    async def child() -> None:
        children.append(supervisor.get(current_job().id))
        await gate.wait()

    async def parent() -> None:
        if own:
            await supervisor.call(job(child, queue="gates"))
        else:
            await (await supervisor.submit(job(child, queue="gates")))

    async with supervisor_of(way, workers=1, queues=[Queue("gates", 5)]) as supervisor:
        for _ in range(3):
            waiting = await supervisor.submit(job(parent, timeout=5))
            await turns(10)
            assert supervisor.stats().queues["default"].lent == 1
            await end(waiting)
            await has_all_its_slots(supervisor, 1)
        assert [one.done() for one in children] == [own] * 3
        gate.set()
        for one in children:
            assert isinstance((await one.wait(), one.exception())[1], JobCancelled) is own


@pytest.mark.virtual_time
@pytest.mark.parametrize("way", WAYS)
async def test_abandoned_while_lending(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """A job that will not end when cancelled, and lends, is left behind with nothing of the queue's."""
    gate = asyncio.Event()

    async def stubborn() -> None:
        while not gate.is_set():
            try:
                await child
            except asyncio.CancelledError:
                continue

    async with supervisor_of(way, workers=1, queues=[Queue("gates", 1)]) as supervisor:
        child = await supervisor.submit(job(gate.wait, queue="gates"))
        waiting = await supervisor.submit(stubborn)
        await turns(10)
        waiting.cancel("enough")
        with pytest.raises(JobCancelled):
            await waiting
        assert sum("abandoned attempt" in one.getMessage() for one in caplog.records) == 1
        await has_all_its_slots(supervisor, 1)
        gate.set()
        await turns(10)
        await has_all_its_slots(supervisor, 1)


@pytest.mark.virtual_time
@pytest.mark.parametrize("way", WAYS)
async def test_retry_of_a_lender(way: str) -> None:
    """A job whose child fails is tried again; each attempt lends anew."""
    tries: list[int] = []

    async def child() -> int:
        tries.append(supervisor.stats().queues["default"].lent)
        if len(tries) < 3:
            raise OSError
        return len(tries)

    async def parent() -> int:
        return await supervisor.call(child)

    async with supervisor_of(way, workers=1) as supervisor:
        assert await supervisor.call(job(parent, retry=Retry(3, on=OSError))) == 3
        assert tries == [1, 1, 1]
        await has_all_its_slots(supervisor, 1)


@pytest.mark.parametrize("way", WAYS)
async def test_supervisor_left_while_lent(way: str) -> None:
    """Leaving normally finishes a tree of jobs that await each other; with an exception it ends."""

    async def tree(level: int) -> int:
        if not level:
            await turns(3)
            return 1
        return sum(await asyncio.gather(*(supervisor.call(tree, level - 1) for _ in range(4))))

    async with supervisor_of(way, workers=1) as supervisor:
        root = await supervisor.submit(tree, 3)
        await turns(10)
    assert root.result() == 64
    with pytest.raises(LookupError):
        async with supervisor:
            root = await supervisor.submit(tree, 3)
            await turns(10)
            raise LookupError
    assert isinstance(root.exception(), JobCancelled)
    stats = supervisor.stats().queues["default"]
    assert (stats.lent, stats.running, stats.queued, stats.zombies) == (0, 0, 0, 0)
