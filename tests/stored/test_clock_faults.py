"""Clocks that jump and machines that sleep, under a supervisor with stored jobs."""

import asyncio

import pytest

from asyncworkers import JobState, JobTimedOut, Supervisor, current_job, job
from asyncworkers.events import LeaseLost
from asyncworkers.store.memory import MemoryData, MemoryStore
from asyncworkers.testing import EventRecorder, simulate

YEARS = 10 * 365 * 86_400.0


class Clock:
    """A store's clock on a simulated loop: the wall clock is the loop's, and the machine may sleep."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.slept = 0.0

    def wall(self):
        return self.loop.wall()

    def uptime(self):
        return self.loop.time() + self.slept

    def boot(self):
        return "boot"

    def sleep(self, seconds):
        """Let the machine sleep: the loop's clock stands still, the others do not."""
        self.slept += seconds
        self.loop.wall_offset += seconds


@job(timeout=30)
async def stuck() -> None:
    """Run into the timeout."""
    await asyncio.sleep(3_600)


@job
async def work(seconds: float) -> int:
    """Take a while."""
    RAN.append(asyncio.get_running_loop().time())
    await asyncio.sleep(seconds)
    return current_job().attempt


RAN: list[float] = []


@pytest.mark.parametrize("jump", [3_600.0, -3_600.0, YEARS, -YEARS])
def test_fault_T01_the_wall_clock_jumps(jump):
    """Timeouts and leases do not care; what has a date goes by the store's clock, wherever it stands."""
    RAN.clear()

    async def main():
        loop, recorder = asyncio.get_running_loop(), EventRecorder()
        data = MemoryData(Clock())
        options = {"functions": [stuck, work], "listeners": [recorder], "grace": 0}
        async with (  # the neighbour only looks for leases that have run out
            Supervisor(0, store=MemoryStore(data), **options),
            Supervisor(4, store=MemoryStore(data), **options) as supervisor,
        ):
            began = loop.time()
            timed, long = await supervisor.submit(stuck), await supervisor.submit(work, 100)
            dated = await supervisor.submit(work.options(delay=600), 0)
            await asyncio.sleep(5)
            loop.wall_offset += jump
            with pytest.raises(JobTimedOut):
                await timed
            assert loop.time() - began == pytest.approx(30, abs=0.5)
            assert await long == 1
            assert recorder.of(LeaseLost) == []
            if jump > 0:
                assert await dated == 1
                assert RAN[1] - began == pytest.approx(5, abs=1.5)
            else:
                assert (await supervisor.stored.get(dated.id)).state is JobState.SCHEDULED
                loop.wall_offset -= jump
                assert await dated == 1
                assert RAN[1] - began == pytest.approx(600, abs=1.5)

    simulate(main)


def test_fault_T02_the_machine_sleeps_for_eight_hours():
    """Leases are judged by a clock that does not stop: of two processes one takes over what the other
    held, whose end counts for nothing then; what came due meanwhile begins at once, and once.
    """
    RAN.clear()

    async def main():
        loop, clock, recorder = asyncio.get_running_loop(), Clock(), EventRecorder()
        data = MemoryData(clock)
        options = {"functions": [stuck, work], "listeners": [recorder], "grace": 0}
        async with (
            Supervisor(2, store=MemoryStore(data), **options) as first,
            Supervisor(2, store=MemoryStore(data), **options) as second,
        ):
            one = await first.submit(work, 20)
            other = await second.submit(work, 20)
            due = await first.submit(work.options(delay=3_600), 0)
            await asyncio.sleep(5)
            clock.sleep(8 * 3_600)
            awake = loop.time()
            ends = [await one, await other]
            assert await due == 1
            began = [moment for moment in RAN if moment >= awake]
            # And what it begins before it has heard of that is no attempt of the job's.
            assert len(RAN) >= 3 + sum(ends) - 2
            # Who takes over may be overdue itself, and lose what it took to the other, once at most.
            assert set(ends) <= {1, 2, 3}
            assert began[0] - awake < 2
        states = [one.state for one in data.jobs.values()]
        assert states == [JobState.SUCCEEDED] * 3
        assert recorder.of(LeaseLost) or max(ends) == 1
        return max(ends) > 1

    taken_over = []
    for seed in range(20):
        RAN.clear()
        taken_over.append(simulate(main, seed=seed).value)
    assert set(taken_over) == {False, True}, "who looks first after the sleep is chance"
