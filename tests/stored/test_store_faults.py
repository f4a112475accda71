"""The store fails, at each of its calls, before or after it took effect, or is away for a while."""

import asyncio
import contextlib
from itertools import pairwise

import pytest
from stored_jobs import ALL, double, fail, note, notes, third_time

from asyncworkers import JobState, StoreUnavailable, Supervisor, events, job
from asyncworkers.store.memory import MemoryData, MemoryStore
from asyncworkers.store.sqlite import SqliteStore
from asyncworkers.testing import EventRecorder, FaultInjector

pytestmark = pytest.mark.asyncio

VERBS = (
    "open",
    "lease",
    "holding",
    "started",
    "settle",
    "renew",
    "wait_ready",
    "maintain",
    "close",
)
READS = ("get", "wait_ended", "cancel")


class LoopClock:
    """A store's clock on the loop's own time, which may be virtual."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()

    def wall(self):
        return 1_800_000_000 + self.loop.time()

    def uptime(self):
        return self.loop.time()

    def boot(self):
        return "boot"


async def a_life(store, diary, submitted):
    """Submit jobs of each kind, await them, and leave; every store call may be the one to fail."""
    supervisor = Supervisor(store=store, functions=ALL, stall=None)
    while True:
        try:
            await supervisor.__aenter__()
            break
        except StoreUnavailable:  # opening is the user's to repeat
            continue
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_exit(supervisor.__aexit__)
        for number, call in enumerate(
            [double.bind(1), third_time.bind(str(diary)), fail.bind("gone"), double.bind(2)]
        ):
            named = call.with_id(f"job-{number}")
            while True:
                try:
                    submitted.append(await supervisor.submit(named))
                    break
                except StoreUnavailable:  # an unknown outcome: the same id may be submitted again
                    continue
        ends = await asyncio.gather(*submitted, return_exceptions=True)
    assert ends[:2] == [2, 3]
    assert isinstance(ends[2], KeyError)
    assert ends[3] == 4


@pytest.mark.virtual_time
@pytest.mark.parametrize("when", ["before", "after"])
async def test_fault_S01_each_call_of_a_life_fails(when, tmp_path):
    """Whichever call of the store fails, before or after it took effect: every job ends as it should,
    no settlement is lost or doubled, and nothing stays leased.
    """
    number, failed = 0, set()
    while True:
        number += 1
        diary = tmp_path / f"diary-{when}-{number}"
        injector = FaultInjector(number, when=when, error=StoreUnavailable)
        data = MemoryData(LoopClock())
        store = injector.wrap_object(MemoryStore(data), (*VERBS, *READS, "submit"))
        await a_life(store, diary, [])
        states = [job.state for job in data.jobs.values()]
        assert states == [
            JobState.SUCCEEDED,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.SUCCEEDED,
        ], (number, injector.failed)
        assert [job.attempt for job in data.jobs.values()] == [1, 3, 1, 1], injector.failed
        assert notes(diary) == ["attempt 1", "attempt 2", "attempt 3"], injector.failed
        if injector.failed is None:
            break
        failed.add(injector.failed)
    assert number > 20
    assert {f"MemoryStore.{verb}" for verb in ("lease", "settle", "submit", "maintain")} <= failed


class Away(MemoryStore):
    """A store that can be away, and notes when it was asked in vain, and for what."""

    away = False

    def __init__(self, data):
        super().__init__(data)
        self.asked = []

    def _refuse(self, verb):
        if self.away:
            self.asked.append((verb, asyncio.get_running_loop().time()))
            raise StoreUnavailable("away")

    def _do(self, work):
        self._refuse("other")
        return super()._do(work)

    def settle(self, batch):
        self._refuse("settle")
        return super().settle(batch)

    def renew(self, progress=()):
        self._refuse("renew")
        return super().renew(progress)

    async def maintain(self):
        self._refuse("maintain")
        return await super().maintain()


@pytest.mark.virtual_time
async def test_fault_S02_the_store_is_away_and_comes_back(tmp_path):
    """What runs ends, and is settled when the store is back; nothing is lost, and it is said. Meanwhile the
    store is asked ever more rarely, and not at equal intervals, at which many processes would meet.
    """
    data = MemoryData(LoopClock())
    recorder = EventRecorder()
    store = Away(data)
    started, go = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        started.set()
        await go.wait()
        return "ended"

    functions = [wait, double]
    async with Supervisor(store=store, functions=functions, listeners=[recorder]) as supervisor:
        job = await supervisor.submit(wait)
        await started.wait()
        store.away = True
        go.set()
        await asyncio.sleep(25)
        assert not job.done()
        times = {verb: [at for one, at in store.asked if one == verb] for verb, _ in store.asked}
        assert times.keys() >= {"settle", "renew", "maintain"}
        assert max(map(len, times.values())) <= 25  # none more often than once a second
        gaps = [round(b - a, 6) for a, b in pairwise(times["settle"])]
        assert len(gaps) > 3
        assert gaps[-1] > 2
        assert max(gaps) <= 5
        assert len(set(gaps)) == len(gaps)
        with pytest.raises(StoreUnavailable):
            await supervisor.submit(double, 1)
        assert "cannot be reached" in supervisor._depot.link.why
        store.away = False
        assert await job == "ended"
        assert await supervisor.call(double, 1) == 2
        await recorder.wait_for(events.StoreFound)
    assert len(recorder.of(events.StoreMissed)) == 1
    assert len(recorder.of(events.StoreFound)) == 1
    assert next(iter(data.jobs.values())).attempt == 1


@pytest.mark.virtual_time
async def test_a_store_that_is_away_for_longer_than_a_lease(tmp_path):
    """Once the lease has run out what runs is stopped, and begins anew when the store is back."""
    data = MemoryData(LoopClock())
    store = Away(data)
    attempts = []

    async def wait() -> str:
        attempts.append(1)
        await asyncio.sleep(3_600 if len(attempts) == 1 else 0)
        return "ended"

    async with Supervisor(store=store, functions=[wait]) as supervisor:
        job = await supervisor.submit(wait)
        while not attempts:
            await asyncio.sleep(0)
        store.away = True
        await asyncio.sleep(45)
        assert supervisor.stats().running == 0
        store.away = False
        assert await job == "ended"
    assert len(attempts) == 2


class Slow(MemoryStore):
    """A store that takes five seconds for whatever it is asked; to be heard of takes no time."""

    async def lease(self, wants):
        await asyncio.sleep(5)
        return await super().lease(wants)

    async def settle(self, batch):
        await asyncio.sleep(5)
        return await super().settle(batch)

    async def submit(self, batch):
        await asyncio.sleep(5)
        return await super().submit(batch)

    async def maintain(self):
        await asyncio.sleep(5)
        return await super().maintain()


@pytest.mark.virtual_time
async def test_fault_S03_a_slow_store_loses_nothing(tmp_path):
    """While every call takes longer than a lease lasts the keeper goes on, and no lease is lost: neither of
    what runs for long nor of what waits to be settled, though another process looks for what is lost.
    """
    data, recorder = MemoryData(LoopClock()), EventRecorder()

    async def lasts() -> str:
        await asyncio.sleep(20)
        return "lasted"

    functions = [double, lasts]
    neighbour = Supervisor(workers=0, store=MemoryStore(data, ttl=4.0), functions=functions)
    slow = Supervisor(store=Slow(data, ttl=4.0), functions=functions, listeners=[recorder])
    async with neighbour, slow:
        long = await slow.submit(lasts)
        jobs = await slow.submit_many(double, range(10))
        assert await asyncio.gather(*jobs) == [2 * n for n in range(10)]
        assert await long == "lasted"
    assert {(job.attempt, job.losses) for job in data.jobs.values()} == {(1, 0)}
    assert recorder.of(events.LeaseLost) == []


async def test_what_cannot_be_opened_is_said_at_the_start(tmp_path):
    """A file that can be no store is an error of entering, and leaves nothing behind."""
    with pytest.raises(StoreUnavailable):
        async with Supervisor(store=lambda: SqliteStore(tmp_path), functions=ALL):
            pass
    with pytest.raises(ValueError, match="store"):
        Supervisor(store="redis://localhost")


class Stuttering(MemoryStore):
    """A store whose answers come twice, and the first one again and again."""

    first = ()

    def lease(self, wants):
        async def lease(asked):
            leases = await asked
            self.first = self.first or leases
            return [*leases, *leases, *self.first]

        return lease(super().lease(wants))


async def test_fault_S12_what_is_delivered_twice_runs_once(tmp_path):
    """A lease that is told again while its job is here begins it once."""
    diary, began, gate = tmp_path / "diary", asyncio.Event(), asyncio.Event()

    @job
    async def once(number: int) -> int:
        note(str(diary), f"ran {number}")
        if number < 0:
            began.set()
            await gate.wait()
        return number

    data = MemoryData()
    async with Supervisor(3, store=Stuttering(data), functions=[once]) as supervisor:
        held = await supervisor.submit(once, -1)
        await began.wait()
        jobs = await supervisor.submit_many(once, range(50))
        assert [await one for one in jobs] == list(range(50))
        gate.set()
        assert await held == -1
    assert sorted(notes(diary)) == sorted(f"ran {number}" for number in range(-1, 50))
    assert {one.attempt for one in data.jobs.values()} == {1}
