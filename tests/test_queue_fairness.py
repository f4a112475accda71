"""Who waits for room in a full queue, and who waits for a job, gets it; and nothing is lost."""

import asyncio
from typing import Any, Self

import pytest

from asyncworkers import Job, JobCancelled, Queue, QueueFull, Retry, Supervisor, job

pytestmark = pytest.mark.asyncio


class Full:
    """A supervisor with one worker, at work behind a gate, and a full queue of jobs."""

    def __init__(self, maxsize: int) -> None:
        self.supervisor = Supervisor(1, maxsize=maxsize)
        self.gates: dict[object, asyncio.Event] = {}
        self.order: list[object] = []
        self.waiting: list[Job[Any]] = []
        self.maxsize = maxsize

    async def __aenter__(self) -> Self:
        await self.supervisor.__aenter__()
        for name in ["first", *range(self.maxsize)]:
            self.waiting.append(await self.supervisor.submit(self.run, name))
            await asyncio.sleep(0)
        with pytest.raises(QueueFull, match=r"await submit\(\.\.\.\) to wait for room"):
            self.supervisor.submit_nowait(self.run, "refused")
        return self

    async def __aexit__(self, *_: object) -> None:
        for gate in self.gates.values():
            gate.set()
        await self.supervisor.__aexit__(None, None, None)

    async def run(self, name: object) -> object:
        """The job: note that it runs, and wait to be let go if it is the first."""
        self.order.append(name)
        if name == "first":
            await self.gates.setdefault(name, asyncio.Event()).wait()
        return name

    def let_go(self) -> None:
        """Let the first job end, so that the worker goes through the line."""
        self.gates["first"].set()

    async def putter(self, name: object) -> Job[Any]:
        """Submit one more; it has to wait for room."""
        return await self.supervisor.submit(self.run, name)


@pytest.mark.parametrize("maxsize", [1, 3])
async def test_first_come_first_served(maxsize: int) -> None:
    """Those who wait for room get it in the order in which they came, and nobody overtakes them."""
    async with Full(maxsize) as full:
        putters = []
        for name in "abcdefgh":
            putters.append(asyncio.create_task(full.putter(name)))
            await asyncio.sleep(0)
        assert not any(putter.done() for putter in putters)
        full.let_go()
        jobs = [await putter for putter in putters]
        assert [await one for one in jobs] == list("abcdefgh")
        assert full.order == ["first", *range(maxsize), *"abcdefgh"]


async def test_newcomer_does_not_overtake() -> None:
    """Room that is promised to somebody who waits is not given to who comes a moment later."""
    async with Full(1) as full:
        putter = asyncio.create_task(full.putter("waited"))
        await asyncio.sleep(0)
        full.waiting[1].cancel()  # there is room now, and it is the putter's
        with pytest.raises(QueueFull):
            full.supervisor.submit_nowait(full.run, "newcomer")
        newcomer = asyncio.create_task(full.putter("newcomer"))
        await asyncio.sleep(0)
        assert putter.done()
        assert not newcomer.done()
        full.let_go()
        await (await newcomer)
        assert full.order == ["first", "waited", "newcomer"]


async def test_cancelled_putter_passes_its_room_on() -> None:
    """A putter that is cancelled, before or just after it was promised room, keeps none of it."""
    async with Full(1) as full:
        putters = []
        for name in "abc":
            putters.append(asyncio.create_task(full.putter(name)))
            await asyncio.sleep(0)
        putters[0].cancel()  # while it waits
        await asyncio.sleep(0)
        full.waiting[1].cancel()  # promises the room to b, which has not run yet
        putters[1].cancel()
        full.let_go()
        one = await putters[2]
        assert await one == "c"
        for putter in putters[:2]:
            with pytest.raises(asyncio.CancelledError):
                await putter
        assert full.order == ["first", "c"]
        room = full.supervisor._intake.queues["default"].room  # type: ignore[union-attr]
        assert (room.promised, len(room.waiters)) == (0, 0)
        assert await full.supervisor.call(full.run, "last") == "last"


async def test_submit_many_waits_for_room_for_all() -> None:
    """`submit_many` waits until there is room for all of its jobs, and takes it at once; what can
    never fit is refused.
    """
    async with Full(3) as full:
        with pytest.raises(QueueFull, match="use map"):
            await full.supervisor.submit_many(full.run, list("abcd"))
        many = asyncio.create_task(full.supervisor.submit_many(full.run, list("abc")))
        await asyncio.sleep(0)
        single = asyncio.create_task(full.putter("d"))
        for one in full.waiting[1:3]:
            one.cancel()
            await asyncio.sleep(0)
        assert not many.done()
        assert not single.done()  # there is room for one, but it came later
        full.let_go()
        assert [await one for one in await many] == ["a", "b", "c"]
        assert await (await single) == "d"
        assert await full.supervisor.submit_many(full.run, []) == []


async def test_draining_refuses_who_waits_for_room() -> None:
    """Putters from outside get an error when the supervisor begins to drain."""
    async with Full(1) as full:
        putter = asyncio.create_task(full.putter("late"))
        await asyncio.sleep(0)
        draining = asyncio.create_task(full.supervisor.drain())
        with pytest.raises(Exception, match="draining"):
            await putter
        full.let_go()
        report = await draining
        assert len(report.done) == 2


async def test_draining_lets_jobs_submit() -> None:
    """What jobs submit while the supervisor drains belongs to what is being finished, also if
    they had to wait for room when it began.
    """
    done: list[int] = []
    begun = asyncio.Event()

    async def leaf(number: int) -> None:
        done.append(number)

    async def parent() -> None:
        begun.set()
        for number in range(10):
            await supervisor.submit(leaf, number)

    async with Supervisor(1, maxsize=1) as supervisor:
        await supervisor.submit(parent)
        await begun.wait()
    assert done == list(range(10))


async def test_nothing_waits_for_ever_in_a_paused_queue() -> None:
    """A supervisor that is left cancels what waits in a paused queue, and what comes to wait."""
    gate = asyncio.Event()

    async def fails() -> None:
        await gate.wait()
        raise ValueError("no")

    async def parent() -> Any:
        await gate.wait()
        child = await supervisor.submit(job(fails, queue="other"))
        return await child.wait()

    async with Supervisor(queues=[Queue("other", 1), Queue("none", 0)]) as supervisor:
        flaky = await supervisor.submit(
            job(fails, queue="other", retry=Retry(5, on=ValueError, delay=0))
        )
        family = await supervisor.submit(parent)
        waiting = await supervisor.submit(job(fails, queue="none"))
        while family.state != "running" or flaky.state != "running":
            await asyncio.sleep(0)
        behind = await supervisor.submit(job(fails, queue="other"))
        supervisor.pause("other")
        asyncio.get_running_loop().call_later(0.01, gate.set)
    for one in (flaky, behind):
        with pytest.raises(JobCancelled, match="queue 'other' was paused"):
            await one
    with pytest.raises(JobCancelled, match="queue 'none' had no workers"):
        await waiting
    assert "queue 'other' was paused" in (await family).reason


@pytest.mark.parametrize("isolation", ["shared", "task"])
async def test_no_job_is_lost_by_a_cancelled_getter(isolation: Any) -> None:
    """20,000 times a worker is woken for a job and cancelled before it runs: every job is run
    once, by another one.
    """
    runs: list[int] = []
    cancelled = 0

    async def note(number: int) -> int:
        runs.append(number)
        return number

    async with Supervisor(queues=[Queue("default", 2, isolation=isolation)]) as supervisor:
        crew = supervisor._intake.queues["default"].crew  # type: ignore[union-attr]
        for number in range(20_000):
            while not crew.idle and crew.members:
                await asyncio.sleep(0)
            idle = list(crew.idle)
            woken = {
                attempt.worker
                for attempt in crew.members
                if attempt.worker is not None and attempt.worker._fut_waiter in idle  # type: ignore[attr-defined]
            }
            one = await supervisor.submit(note, number)
            for worker in woken:  # woken or not: whoever was idle is cancelled
                cancelled += worker.cancel("by a stranger")
            assert await one == number
    assert runs == list(range(20_000))
    assert cancelled > 19_000
