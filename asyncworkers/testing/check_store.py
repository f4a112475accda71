"""What every store must do: checks to run over one's own, each against fresh data and a set clock.

A store that passes them can be used where those of asyncworkers can. With pytest:

    @pytest.mark.asyncio
    @pytest.mark.parametrize("check", store_checks(), ids=check_name)
    async def test_my_store(check, tmp_path):
        await check(lambda clock: lambda: MyStore(tmp_path / "jobs", clock=clock, ttl=30))

`make(clock)` makes new, empty data and returns a function; each call of that returns another store
over the data, not opened yet, as another process would have it. Its `ttl` must be 30 seconds, and
its other settings those that the protocol names.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import msgspec

from asyncworkers.job import JobState
from asyncworkers.store.clock import ManualClock, StoreClock, SystemClock
from asyncworkers.store.protocol import (
    KEEP,
    KEEP_DEAD,
    LOSSES,
    TTL,
    Lease,
    Receipt,
    Settlement,
    Store,
    StoredJob,
    Submission,
    Unique,
    Want,
    Where,
    error_text,
)

__all__ = ["MakeStores", "check_name", "check_store", "store_checks"]

MakeStores: TypeAlias = Callable[[StoreClock], Callable[[], Store]]
"""Makes new data for a clock, and answers with what connects another store to it."""

Check: TypeAlias = Callable[[MakeStores], Awaitable[None]]

ERROR = error_text("ValueError", "no")
BY = error_text("JobCancelled", "asked to")
LONG = 60.0
"""Seconds that no wait takes, unless what it waits for never comes."""

_checks: list[Check] = []


def store_checks() -> list[Check]:
    """All checks, to parametrize a test with; `check_name` names each."""
    return list(_checks)


def check_name(check: Check) -> str:
    """The name of a check."""
    return str(getattr(check, "__name__", check))


async def check_store(make: MakeStores) -> None:
    """Run every check; raises what the first one that fails raises, with a note that names it."""
    for check in _checks:
        try:
            await check(make)
        except BaseException as error:
            error.add_note(f"while checking {check_name(check)}")
            raise


class World:
    """Fresh data, a clock, and the stores that are open on it."""

    def __init__(self, make: MakeStores, *, real: bool) -> None:
        self.clock = ManualClock()
        self._connect = make(SystemClock() if real else self.clock)
        self._opened: list[Store] = []
        self._made = 0

    async def open(self, *names: str) -> Store:
        """Another worker, which can run these functions ("f" if none is named)."""
        store = self._connect()
        await store.open(names or ("f",))
        self._opened.append(store)
        return store

    def new(self, **fields: Any) -> Submission:
        """A submission with an id of its own."""
        self._made += 1
        new = Submission(f"job-{self._made:04}", "q", "f", "[[],{}]")
        return new._replace(**fields)

    async def close(self) -> None:
        """Close all stores."""
        for store in self._opened:
            await store.close()


def _check(function: Callable[[World], Awaitable[None]]) -> None:
    """Make a check of a function."""
    _register(function, real=False)


def _check_in_real_time(function: Callable[[World], Awaitable[None]]) -> None:
    """The same, with the machine's own clock."""
    _register(function, real=True)


def _register(function: Any, *, real: bool) -> None:
    async def check(make: MakeStores) -> None:
        world = World(make, real=real)
        try:
            await function(world)
        finally:
            await world.close()

    check.__name__ = check.__qualname__ = function.__name__.strip("_")
    check.__doc__ = function.__doc__
    _checks.append(check)


async def _take(store: Store, free: int = 100, ahead: int = 0, queue: str = "q") -> list[Lease]:
    return await store.lease([Want(queue, free, ahead)])


async def _take_ids(store: Store, free: int = 100, ahead: int = 0, queue: str = "q") -> list[str]:
    return [lease.id for lease in await _take(store, free, ahead, queue)]


async def _begin(store: Store) -> Lease:
    """Take the one job there is, and start it."""
    (lease,) = await _take(store)
    store.started(lease)
    return lease


async def _record(store: Store, ident: str) -> StoredJob:
    (record,) = await store.get([ident])
    assert record is not None, f"{ident} is gone"
    return record


async def _dies(world: World, witness: Store) -> None:
    """Let so much time pass that every worker but the witness is given up."""
    world.clock.advance(TTL / 2)
    witness.renew()
    world.clock.advance(TTL / 2 + 1)
    witness.renew()
    await witness.maintain()


# ---- the ordinary life of a job


@_check
async def _a_job_is_stored_leased_settled_and_read(world: World) -> None:
    """A job comes back as it was submitted, runs once, and its result can be read."""
    store = await world.open()
    new = world.new(args='[["é", 1],{}]', priority=3, tags=("a", "b"), extra="context", keep=60.0)
    assert await store.submit([new]) == [Receipt(new.id, "created")]
    queued = await _record(store, new.id)
    assert (queued.state, queued.attempt, queued.started) == (JobState.QUEUED, 0, None)
    (lease,) = await _take(store)
    assert (lease.id, lease.queue, lease.name, lease.args) == (new.id, "q", "f", new.args)
    assert (lease.codec, lease.priority, lease.tags, lease.extra) == (
        new.codec,
        3,
        ("a", "b"),
        "context",
    )
    assert (lease.attempt, lease.failures, lease.losses, lease.once) == (1, 0, 0, False)
    assert lease.submitted == lease.due == world.clock.wall()
    assert (await _record(store, new.id)).state is JobState.RUNNING
    store.started(lease)
    assert await _take(store) == []
    world.clock.advance(5)
    assert await store.settle([Settlement.complete(lease, '"fine"')]) == [True]
    done = await _record(store, new.id)
    assert (done.state, done.result, done.error) == (JobState.SUCCEEDED, '"fine"', None)
    assert (done.started, done.ended) == (world.clock.wall() - 5, world.clock.wall())
    assert done.until == world.clock.wall() + 60
    assert await _take(store) == []


@_check
async def _what_a_worker_holds_can_be_asked_and_given_back(world: World) -> None:
    store, other = await world.open(), await world.open()
    await store.submit([world.new() for _ in range(3)])
    mine, others = await _take(store, 2), await _take(other, 1)
    assert await store.holding() == mine
    assert await other.holding() == others
    assert await store.settle([Settlement.release(one) for one in await store.holding()]) == [
        True,
        True,
    ]
    assert await store.holding() == []


@_check
async def _submitting_an_id_again_does_nothing(world: World) -> None:
    """A submission whose outcome is unknown can be repeated, before and after the job has ended."""
    store = await world.open()
    new = world.new(unique=Unique("key"))
    for outcome in ("created", "existing", "existing"):
        receipts = await store.submit([new, new])
        assert receipts == [Receipt(new.id, outcome), Receipt(new.id, "existing")]
    lease = await _begin(store)
    await store.submit([new._replace(args="[[2],{}]")])
    assert await _take(store) == []
    await store.settle([Settlement.complete(lease, "1")])
    plain = [world.new(), new._replace(unique=None), world.new()]
    receipts = await store.submit([plain[0], *plain])
    outcomes = ("created", "existing", "existing", "created")
    ids = (plain[0].id, plain[0].id, new.id, plain[2].id)
    assert [(one.id, one.outcome) for one in receipts] == list(zip(ids, outcomes, strict=True))
    assert await _take_ids(store) == [plain[0].id, plain[2].id]
    assert (await _record(store, new.id)).args == new.args


@_check
async def _jobs_come_by_priority_then_date_then_place(world: World) -> None:
    """Whatever their functions are, jobs of a queue come in one order."""
    store = await world.open("f", "g")
    late = world.new(delay=10.0, name="g")
    wanted = [
        world.new(priority=1),
        world.new(name="g"),
        world.new(),
        world.new(name="g"),
        late,
        world.new(priority=-1),
    ]
    await store.submit([wanted[5], late, wanted[1]])
    await store.submit([wanted[2], wanted[3], wanted[0]])
    world.clock.advance(10)
    assert await _take_ids(store, 2) == [one.id for one in wanted[:2]]
    assert await _take_ids(store) == [one.id for one in wanted[2:]]


@_check
async def _nothing_starts_before_it_is_due(world: World) -> None:
    """A delay and a date hold a job back, the later of the two; it is scheduled meanwhile."""
    store = await world.open()
    by_delay = world.new(delay=10.0)
    by_date = world.new(due=world.clock.wall() + 20)
    by_both = world.new(delay=30.0, due=world.clock.wall() + 5)
    past = world.new(due=world.clock.wall() - 99)
    await store.submit([by_delay, by_date, by_both, past])
    assert await _take_ids(store) == [past.id]
    assert (await _record(store, by_delay.id)).state is JobState.SCHEDULED
    world.clock.advance(9.5)
    assert await _take(store) == []
    world.clock.advance(0.5)
    assert (await _record(store, by_delay.id)).state is JobState.QUEUED
    assert await _take_ids(store) == [by_delay.id]
    world.clock.advance(10)
    assert await _take_ids(store) == [by_date.id]
    world.clock.advance(10)
    assert await _take_ids(store) == [by_both.id]


@_check
async def _each_queue_gives_no_more_than_is_wanted(world: World) -> None:
    """Several queues are asked at once, each for so many."""
    store = await world.open()
    await store.submit([world.new(queue=queue) for queue in "aabbcc"])
    leases = await store.lease([Want("a", 1), Want("b", 0), Want("c", 1, 4), Want("none", 5)])
    assert [lease.queue for lease in leases] == ["a", "c", "c"]


@_check
async def _what_is_not_known_here_is_left(world: World) -> None:
    """A job of an unknown function or codec waits for who knows it, and is seen to."""
    store = await world.open("f")
    unknown = [world.new(name="g"), world.new(name="g"), world.new(codec="other/9")]
    known = world.new()
    await store.submit([*unknown, known])
    assert await _take_ids(store) == [known.id]
    assert await store.wait_ready(["q"], 0) is False
    (counts,) = await store.counts()
    assert dict(counts.unknown) == {"g": 2, "f": 1}
    other = await world.open("g")
    assert await _take_ids(other) == [unknown[0].id, unknown[1].id]


# ---- settling


@_check
async def _attempts_failures_and_losses_are_counted_apart(world: World) -> None:
    """A retry is a failure, a release costs nothing, an interruption costs an attempt only."""
    store = await world.open()
    new = world.new()
    await store.submit([new])
    (lease,) = await _take(store)
    assert await store.settle([Settlement.release(lease)]) == [True]
    lease = await _begin(store)
    assert (lease.attempt, lease.failures) == (1, 0)
    assert await store.settle([Settlement.retry(lease, ERROR, 5.0)]) == [True]
    waiting = await _record(store, new.id)
    assert (waiting.state, waiting.error) == (JobState.SCHEDULED, ERROR)
    assert waiting.due == world.clock.wall() + 5
    assert await _take(store) == []
    world.clock.advance(5)
    lease = await _begin(store)
    assert (lease.attempt, lease.failures, lease.losses) == (2, 1, 0)
    assert await store.settle([Settlement.interrupt(lease, ERROR)]) == [True]
    lease = await _begin(store)
    assert (lease.attempt, lease.failures, lease.losses) == (3, 1, 0)
    assert await store.settle([Settlement.fail(lease, ERROR)]) == [True]
    dead = await _record(store, new.id)
    assert (dead.state, dead.error, dead.attempt) == (JobState.FAILED, ERROR, 3)
    assert dead.until == world.clock.wall() + KEEP_DEAD


@_check
async def _a_settlement_can_be_asked_for_again(world: World) -> None:
    """Repeating what was accepted says so and changes nothing, whatever the verb."""
    store = await world.open()
    for make in (
        partial(Settlement.complete, result="1"),
        partial(Settlement.fail, error=ERROR),
        partial(Settlement.cancel, error=BY),
        partial(Settlement.retry, error=ERROR, delay=50.0),
        Settlement.release,
    ):
        new = world.new()
        await store.submit([new])
        settlement = make(await _begin(store))
        assert await store.settle([settlement, settlement]) == [True, True]
        before = await _record(store, new.id)
        assert await store.settle([settlement]) == [True]
        assert await _record(store, new.id) == before
        await store.cancel(Where(ids=(new.id,)), BY)


@_check
async def _a_lost_lease_is_never_settled_by_its_loser(world: World) -> None:
    """Whoever was given up for dead changes nothing, whatever it says, before or after another."""
    zombie, heir = await world.open(), await world.open()
    new = world.new()
    await zombie.submit([new])
    old = await _begin(zombie)
    await _dies(world, heir)
    verbs = [
        Settlement.complete(old, "1", follow=[world.new()]),
        Settlement.retry(old, ERROR, 0),
        Settlement.fail(old, ERROR),
        Settlement.cancel(old, BY),
        Settlement.release(old),
        Settlement.interrupt(old, ERROR),
    ]
    before = await _record(heir, new.id)
    assert before.state is JobState.QUEUED
    assert await zombie.settle(verbs) == [False] * 6
    assert await _record(heir, new.id) == before
    lease = await _begin(heir)
    assert lease.token > old.token
    before = await _record(heir, new.id)
    assert await zombie.settle(verbs) == [False] * 6
    assert await _record(heir, new.id) == before
    assert await heir.settle([Settlement.complete(lease, "2")]) == [True]
    assert await zombie.settle(verbs) == [False] * 6
    assert (await _record(heir, new.id)).result == "2"
    assert await _take(heir) == []


@_check
async def _what_follows_is_submitted_exactly_if_accepted(world: World) -> None:
    """The follow-ups of a settlement come with it, once, and not if it is refused."""
    store = await world.open()
    follow = [world.new(), world.new(delay=10.0)]
    await store.submit([world.new()])
    lease = await _begin(store)
    assert await store.settle([Settlement.complete(lease, "1", follow=follow)] * 2) == [True, True]
    assert await _take_ids(store) == [follow[0].id]
    stale = msgspec.structs.replace(lease, token=lease.token - 1)
    refused = world.new()
    assert await store.settle([Settlement.complete(stale, "1", follow=[refused])]) == [False]
    assert await store.get([refused.id]) == [None]


# ---- dying


@_check
async def _a_job_lost_too_often_fails(world: World) -> None:
    """A job whose workers keep dying is tried again, but not for ever."""
    new = world.new()
    witness = await world.open("nothing")
    await witness.submit([new])
    for losses in range(LOSSES):
        lease = await _begin(await world.open())
        assert (lease.attempt, lease.losses, lease.failures) == (losses + 1, losses, 0)
        await _dies(world, witness)
    dead = await _record(witness, new.id)
    assert (dead.state, dead.losses) == (JobState.FAILED, LOSSES)
    assert dead.error is not None
    assert "JobLost" in dead.error


@_check
async def _what_had_not_started_is_not_charged(world: World) -> None:
    """Of the jobs of a dead worker only those that had begun have lost an attempt."""
    victim, heir = await world.open(), await world.open()
    begun, unbegun = world.new(), world.new()
    await victim.submit([begun, unbegun])
    for lease in await _take(victim):
        if lease.id == begun.id:
            victim.started(lease)
    await _dies(world, heir)
    leases = {lease.id: lease for lease in await _take(heir)}
    assert (leases[begun.id].attempt, leases[begun.id].losses) == (2, 1)
    assert (leases[unbegun.id].attempt, leases[unbegun.id].losses) == (1, 0)


@_check
async def _renewing_keeps_the_jobs(world: World) -> None:
    """A worker that renews in time keeps its jobs as long as it likes."""
    store, other = await world.open(), await world.open()
    await store.submit([world.new()])
    lease = await _begin(store)
    for _ in range(10):
        world.clock.advance(TTL - 1)
        assert store.renew() == (False, ())
        other.renew()
        assert (await other.maintain()).recovered == 0
    assert await store.settle([Settlement.complete(lease, "1")]) == [True]


@_check
async def _a_worker_given_up_comes_in_anew(world: World) -> None:
    """Whoever renews too late is told that its jobs are lost, and may go on with others."""
    late, other = await world.open(), await world.open()
    await late.submit([world.new()])
    await _begin(late)
    await _dies(world, other)
    assert await _take(late) == []
    assert late.renew().lost is True
    assert late.renew().lost is False
    lease = await _begin(late)
    assert lease.losses == 1
    assert await late.settle([Settlement.complete(lease, "1")]) == [True]


@_check
async def _a_renewal_in_the_last_moment_counts(world: World) -> None:
    """A lease lasts until its time has come, not a moment less, and ends then."""
    for seconds, recovered in ((TTL - 0.001, 0), (TTL, 1)):
        store, other = await world.open(), await world.open("nothing")
        await store.submit([world.new()])
        await _begin(store)
        world.clock.advance(seconds)
        other.renew()
        assert (await other.maintain()).recovered == recovered
        await store.close()
        await store.open(("f",))
        for lease in await _take(store):
            await store.settle([Settlement.complete(lease, "1")])


@_check
async def _leaving_gives_everything_back(world: World) -> None:
    """Closing a store returns its jobs at once: those not started for nothing."""
    store, other = await world.open(), await world.open()
    begun, unbegun = world.new(), world.new(once=True)
    await store.submit([begun, unbegun])
    store.started((await _take(store))[0])
    await store.close()
    leases = {lease.id: lease for lease in await _take(other)}
    assert (leases[begun.id].attempt, leases[begun.id].losses) == (2, 1)
    assert (leases[unbegun.id].attempt, leases[unbegun.id].losses) == (1, 0)
    await store.open(("f",))


@_check
async def _a_restart_of_the_machine_ends_all_leases(world: World) -> None:
    """Leases of before the restart are over, however long they would have lasted."""
    store = await world.open()
    new = world.new()
    await store.submit([new])
    await _begin(store)
    world.clock.restart()
    after = await world.open()
    await after.maintain()
    assert await _take_ids(after) == [new.id]


@_check
async def _the_wall_clock_does_not_end_leases(world: World) -> None:
    """Setting the clock moves no lease, and what has come due stays so."""
    store, other = await world.open(), await world.open()
    first, second = world.new(), world.new()
    await store.submit([first, second])
    await _take(store, 1)
    for hours in (-1, 2, -90_000, 180_000):
        world.clock.set_wall(world.clock.wall() + hours * 3600)
        assert (await other.maintain()).recovered == 0
    world.clock.set_wall(world.clock.wall() - 3600)
    assert await _take_ids(other) == [second.id]


# ---- at most once


@_check
async def _once_is_only_taken_to_start(world: World) -> None:
    """A job that may run once is never taken ahead; others may be, past it."""
    store = await world.open()
    jobs = [world.new(once=number in (1, 2)) for number in range(4)]
    await store.submit(jobs)
    assert await _take_ids(store, 2, 2) == [jobs[0].id, jobs[1].id, jobs[3].id]
    assert await _take_ids(store, 0, 5) == []
    assert await _take_ids(store, 1, 5) == [jobs[2].id]


@_check
async def _once_never_begins_twice(world: World) -> None:
    """However its attempt ends, by retry, interruption or death, it is over; unless it never began."""
    store, other = await world.open(), await world.open("nothing")
    new = world.new(once=True)
    await store.submit([new])
    (lease,) = await _take(store)
    await store.settle([Settlement.release(lease)])
    lease = await _begin(store)
    assert (lease.once, lease.attempt) == (True, 1)
    await store.settle([Settlement.retry(lease, ERROR, 0)])
    assert (await _record(store, new.id)).state is JobState.FAILED
    await store.submit([new := world.new(once=True)])
    await store.settle([Settlement.interrupt(await _begin(store), ERROR)])
    ended = await _record(store, new.id)
    assert (ended.state, ended.error) == (JobState.FAILED, ERROR)
    await store.submit([new := world.new(once=True)])
    await _begin(store)
    await _dies(world, other)
    ended = await _record(other, new.id)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert "JobLost" in ended.error
    store.renew()
    assert await _take(store) == []


# ---- cancelling, expiring, uniqueness


@_check
async def _cancelling_reaches_waiting_and_running_jobs(world: World) -> None:
    """What waits is cancelled at once; what runs is marked, and its worker is told, once asked."""
    store, other = await world.open(), await world.open()
    running, queued, scheduled, done = jobs = [world.new(delay=0.0) for _ in range(4)]
    scheduled = scheduled._replace(delay=9.0)
    await store.submit([done])
    await store.settle([Settlement.complete(await _begin(store), "1")])
    await store.submit([running])
    lease = await _begin(store)
    await store.submit([queued, scheduled])
    reached = await other.cancel(Where(ids=tuple(job.id for job in jobs)), BY)
    assert sorted(reached) == sorted(
        [(running.id, True), (queued.id, False), (scheduled.id, False)]
    )
    assert await other.cancel(Where(ids=(running.id,)), "another") == [(running.id, True)]
    (mark,) = store.renew().cancel
    assert (mark.id, mark.seq, mark.token, mark.reason) == (
        running.id,
        lease.seq,
        lease.token,
        BY,
    )
    assert other.renew().cancel == ()
    assert (await _record(other, running.id)).cancelling == BY
    for job in (queued, scheduled):
        record = await _record(other, job.id)
        assert (record.state, record.error) == (JobState.CANCELLED, BY)
    assert await store.settle([Settlement.cancel(lease, BY)]) == [True]
    assert (await _record(other, running.id)).state is JobState.CANCELLED
    assert store.renew().cancel == ()
    assert (await _record(other, done.id)).state is JobState.SUCCEEDED


@_check
async def _a_marked_job_does_not_come_back(world: World) -> None:
    """A job that was to be cancelled is, when it would wait again; but a success stays one."""
    store, other = await world.open(), await world.open("nothing")

    async def marked() -> Lease:
        await store.submit([new := world.new()])
        lease = await _begin(store)
        await other.cancel(Where(ids=(new.id,)), BY)
        return lease

    for make in (
        partial(Settlement.retry, error=ERROR, delay=0),
        Settlement.release,
        partial(Settlement.interrupt, error=ERROR),
    ):
        lease = await marked()
        assert await store.settle([make(lease)]) == [True]
        record = await _record(store, lease.id)
        assert (record.state, record.error) == (JobState.CANCELLED, BY)
    lease = await marked()
    await store.settle([Settlement.complete(lease, "1")])
    assert (await _record(store, lease.id)).state is JobState.SUCCEEDED
    lease = await marked()
    await _dies(world, other)
    record = await _record(other, lease.id)
    assert (record.state, record.error) == (JobState.CANCELLED, BY)


@_check
async def _what_expires_is_not_started(world: World) -> None:
    """A waiting job whose time runs out is cancelled when it does; a running one goes on."""
    store = await world.open()
    running, retried, waiting = (world.new(expires=10.0) for _ in range(3))
    await store.submit([running, retried, waiting])
    leases = await _take(store, 2)
    world.clock.advance(9.5)
    assert (await store.maintain()).expired == 0
    world.clock.advance(0.5)
    assert (await store.maintain()).expired == 1
    assert (await _record(store, running.id)).state is JobState.RUNNING
    await store.settle([Settlement.retry(leases[1], ERROR, 0)])
    assert await _take(store) == []
    for job in (waiting, retried):
        record = await _record(store, job.id)
        assert record.state is JobState.CANCELLED
        assert record.error is not None
        assert "JobExpired" in record.error
    assert await store.settle([Settlement.complete(leases[0], "1")]) == [True]
    await store.submit([late := world.new(expires=5.0, delay=9.0)])
    world.clock.advance(5)
    assert (await store.maintain()).expired == 1
    assert (await _record(store, late.id)).state is JobState.CANCELLED


@_check
async def _unique_until_done(world: World) -> None:
    """One job holds the key until it has ended, and a second one is answered as it wished."""
    store = await world.open()

    async def ask(new: Submission) -> tuple[str, str]:
        (receipt,) = await store.submit([new])
        return (receipt.id, receipt.outcome)

    def keyed(on_duplicate: Any) -> Submission:
        return world.new(unique=Unique("k", "done", on_duplicate))

    await store.submit([first := keyed("existing")])
    assert await ask(keyed("existing")) == (first.id, "existing")
    assert await ask(refused := keyed("reject")) == (first.id, "rejected")
    assert await store.get([refused.id]) == [None]
    assert await ask(second := keyed("replace")) == (second.id, "replaced")
    record = await _record(store, first.id)
    assert record.state is JobState.CANCELLED
    assert record.error is not None
    assert second.id in record.error
    lease = await _begin(store)
    assert lease.id == second.id
    assert await ask(keyed("replace")) == (second.id, "existing")
    await store.settle([Settlement.retry(lease, ERROR, 0)])
    assert await ask(keyed("replace")) == (second.id, "existing")
    await store.settle([Settlement.fail(await _begin(store), ERROR)])
    assert await ask(third := keyed("reject")) == (third.id, "created")
    assert await ask(other := world.new(unique=Unique("other"))) == (other.id, "created")


@_check
async def _unique_until_started_or_for_a_while(world: World) -> None:
    """A key may be held only while its job waits, or for a time whatever becomes of the job."""
    store = await world.open()
    waiting = [world.new(unique=Unique("w", "started")) for _ in range(3)]
    for new, wanted in zip(waiting[:2], (waiting[0], waiting[0]), strict=True):
        assert (await store.submit([new]))[0].id == wanted.id
    lease = await _begin(store)
    assert (await store.submit([waiting[2]]))[0] == Receipt(waiting[2].id, "created")
    await store.settle([Settlement.complete(lease, "1")])
    await store.purge(Where())
    timed = [world.new(unique=Unique("t", 60.0, "reject")) for _ in range(3)]
    await store.submit([timed[0]])
    for lease in await _take(store):
        await store.settle([Settlement.complete(lease, "1")])
    world.clock.advance(59)
    assert (await store.submit([timed[1]]))[0] == Receipt(timed[0].id, "rejected")
    world.clock.advance(1)
    assert (await store.submit([timed[2]]))[0] == Receipt(timed[2].id, "created")


@_check
async def _a_key_survives_a_lease_that_came_to_nothing(world: World) -> None:
    """What was leased and given back waits as before, and holds its key, whoever tidied up meanwhile."""
    store = await world.open()
    waiting, second = (world.new(unique=Unique("w", "started")) for _ in range(2))
    await store.submit([waiting])
    (lease,) = await _take(store)
    await store.maintain()
    await store.settle([Settlement.release(lease)])
    assert await store.submit([second]) == [Receipt(waiting.id, "existing")]


@_check
async def _unique_within_one_batch(world: World) -> None:
    """Of several jobs with one key in a batch, each finds what the one before it left."""
    store = await world.open()
    batch = [
        world.new(unique=Unique("k")),
        world.new(unique=Unique("k")),
        world.new(),
        world.new(unique=Unique("k", "done", "replace")),
        world.new(unique=Unique("k", "done", "reject")),
    ]
    receipts = await store.submit(batch)
    assert [receipt.outcome for receipt in receipts] == [
        "created",
        "existing",
        "created",
        "replaced",
        "rejected",
    ]
    assert receipts[1].id == batch[0].id
    assert receipts[4].id == batch[3].id
    assert await _take_ids(store) == [batch[2].id, batch[3].id]
    assert (await _record(store, batch[0].id)).state is JobState.CANCELLED


@_check
async def _a_key_is_the_jobs_and_not_its_ids(world: World) -> None:
    """Once a job is forgotten, another one of its id does not hold what it held."""
    store = await world.open()
    for until in ("done", "started"):
        for forget in (lambda: store.purge(Where()), store.maintain):
            key = f"{until} {forget}"
            await store.submit([old := world.new(unique=Unique(key, until), keep=0.0)])
            await store.settle([Settlement.complete(await _begin(store), "1")])
            await forget()
            new = world.new(unique=Unique(key, "done", "reject"))
            batch = [old._replace(unique=None), new]
            assert await store.submit(batch[:1]) == [Receipt(old.id, "created")]
            assert await store.submit(batch[1:]) == [Receipt(new.id, "created")]
            await store.cancel(Where(), BY)
            await store.purge(Where())


@_check
async def _a_key_for_a_time_outlives_its_job(world: World) -> None:
    """It is held until its date, forgotten or not; a new job of that id is not taken for its holder."""
    store = await world.open()
    first = world.new(unique=Unique("k", 60.0))
    await store.submit([first])
    await store.settle([Settlement.complete(await _begin(store), "1")])
    assert await store.purge(Where()) == 1
    await store.maintain()
    assert (await store.submit([first]))[0] == Receipt(first.id, "existing")
    assert await store.get([first.id]) == [None]
    await store.submit([first._replace(unique=None, delay=30.0)])
    other = world.new(unique=Unique("k", 60.0, "replace"))
    assert (await store.submit([other]))[0] == Receipt(first.id, "existing")
    assert (await _record(store, first.id)).state is JobState.SCHEDULED
    world.clock.advance(60)
    store.renew()
    assert (await store.submit([other]))[0] == Receipt(other.id, "created")
    assert (await _record(store, first.id)).state is JobState.QUEUED


@_check
async def _a_dead_job_that_is_retried_holds_its_key(world: World) -> None:
    """It holds it again from then on, if it is free; if another job holds it, it stays dead."""
    store = await world.open()

    async def outcome(key: str, until: Any = "done") -> str:
        return (await store.submit([world.new(unique=Unique(key, until))]))[0].outcome

    dead = [world.new(unique=Unique(key)) for key in ("free", "held", "kept")]
    await store.submit(dead)
    await store.settle([Settlement.fail(lease, ERROR) for lease in await _take(store)])
    assert await outcome("held") == "created"
    await store.maintain()
    failed = Where(states=(JobState.FAILED,))
    assert await store.retry(failed) == [dead[0].id, dead[2].id]
    assert [await outcome(key) for key in ("free", "held", "kept")] == ["existing"] * 3
    assert await store.retry(failed) == []
    assert (await _record(store, dead[1].id)).state is JobState.FAILED
    await store.cancel(Where(ids=(dead[0].id,)), BY)
    assert await outcome("free") == "created"
    await store.settle([Settlement.complete(lease, "1") for lease in await _take(store)])
    assert await store.retry(failed) == [dead[1].id]


@_check
async def _of_dead_jobs_with_one_key_one_is_retried(world: World) -> None:
    """The one submitted first; the others stay dead as long as it holds the key."""
    store = await world.open()
    dead = [world.new(unique=Unique("k")) for _ in range(3)]
    for new in dead:
        assert (await store.submit([new]))[0].outcome == "created"
        await store.settle([Settlement.fail(await _begin(store), ERROR)])
    for new in dead:
        assert await store.retry(Where(states=(JobState.FAILED,))) == [new.id]
        assert await store.retry(Where(states=(JobState.FAILED,))) == []
        await store.settle([Settlement.complete(await _begin(store), "1")])


@_check
async def _a_retried_job_claims_what_is_not_over(world: World) -> None:
    """A key that is held until a job has started, or for a time, is not held anew after that."""
    store = await world.open()
    begun = world.new(unique=Unique("w", "started"))
    timed = world.new(unique=Unique("t", 60.0))
    waited = world.new(unique=Unique("v", "started"), delay=1.0)
    await store.submit([begun, timed, waited])
    await store.settle([Settlement.fail(lease, ERROR) for lease in await _take(store)])
    await store.cancel(Where(ids=(waited.id,)), BY)

    def again(key: str, until: Any, **more: Any) -> Submission:
        return world.new(unique=Unique(key, until), **more)

    batch = [again("w", "started"), again("v", "started"), again("t", 60.0)]
    outcomes = [receipt.outcome for receipt in await store.submit(batch)]
    assert outcomes == ["created", "created", "existing"]
    assert await store.retry(Where()) == [begun.id, timed.id]
    await store.cancel(Where(), BY)
    assert await store.retry(Where(ids=(waited.id,))) == [waited.id]
    batch = [again("w", "started"), again("v", "started"), again("t", 60.0)]
    outcomes = [receipt.outcome for receipt in await store.submit(batch)]
    assert outcomes == ["created", "existing", "existing"]
    await store.cancel(Where(), BY)
    world.clock.advance(60)
    store.renew()
    assert (await store.submit([again("t", 60.0)]))[0].outcome == "created"
    assert await store.retry(Where(ids=(timed.id,))) == [timed.id]


# ---- waiting


@_check
async def _waiting_looks_before_it_sleeps(world: World) -> None:
    """Waiting takes nothing, ends at once if there is something, and not for what cannot be had."""
    store, other = await world.open(), await world.open()
    assert await store.wait_ready(["q"], 0) is False
    await other.submit([new := world.new(), world.new(queue="else")])
    assert await store.wait_ready(["q"], LONG) is True
    assert await store.wait_ready(["none"], 0) is False
    await store.pause("q", True)
    assert await store.wait_ready(["q"], 0) is False
    assert await _take(store) == []
    (paused,) = [counts for counts in await store.counts() if counts.queue == "q"]
    assert (paused.paused, paused.queued) == (True, 1)
    await store.pause("q", False)
    assert await store.wait_ready(["none", "q"], LONG) is True
    assert await _take_ids(store) == [new.id]


@_check
async def _whoever_waits_is_woken(world: World) -> None:
    """A submission, a release, a resumption and a retry wake a worker that waits elsewhere."""
    store, other = await world.open(), await world.open()

    async def woken(action: Callable[[], Awaitable[Any]]) -> None:
        waiting = asyncio.ensure_future(store.wait_ready(["q"], LONG))
        await asyncio.sleep(0)
        await action()
        assert await waiting is True

    await woken(lambda: other.submit([world.new()]))
    lease = await _begin(other)
    await woken(lambda: other.settle([Settlement.release(lease)]))
    await other.pause("q", True)
    await woken(lambda: other.pause("q", False))
    lease = await _begin(other)
    await other.settle([Settlement.fail(lease, ERROR)])
    await woken(lambda: other.retry(Where(states=(JobState.FAILED,))))
    lease = await _begin(other)
    await woken(lambda: other.settle([Settlement.complete(lease, "1", follow=[world.new()])]))


@_check_in_real_time
async def _what_comes_due_wakes(world: World) -> None:
    """A worker that waits is woken when a job comes due."""
    store = await world.open()
    await store.submit([new := world.new(delay=0.05)])
    assert await store.wait_ready(["q"], LONG) is True
    assert await _take_ids(store) == [new.id]


@_check
async def _waiting_for_an_end(world: World) -> None:
    """Whoever waits for jobs is told, in another store too, when one has ended or there is none."""
    store, other = await world.open(), await world.open()
    await store.submit([first := world.new(), second := world.new()])
    ids = (first.id, second.id)
    assert await other.wait_ended(ids, 0) is False
    lease = (await _take(store, 1))[0]
    waiting = asyncio.ensure_future(other.wait_ended(ids, LONG))
    await asyncio.sleep(0)
    await store.settle([Settlement.complete(lease, "1")])
    assert await waiting is True
    assert await other.wait_ended((second.id,), 0) is False
    waiting = asyncio.ensure_future(other.wait_ended((second.id,), LONG))
    await asyncio.sleep(0)
    await store.cancel(Where(ids=(second.id,)), BY)
    assert await waiting is True
    assert await other.wait_ended(("nothing",), LONG) is True


@_check
async def _waiting_can_be_cancelled(world: World) -> None:
    """A wait that is cancelled ends, and leaves the store as it was."""
    store = await world.open()
    waiting = asyncio.ensure_future(store.wait_ready(["q"], LONG))
    await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert waiting.cancelled()
    await store.submit([new := world.new()])
    assert await _take_ids(store) == [new.id]


@_check
async def _a_cancelled_lease_gives_back_what_it_took(world: World) -> None:
    """Jobs that were taken for somebody who went away are not held by nobody."""
    store, other = await world.open(), await world.open()
    await store.submit([new := world.new()])
    taking = asyncio.ensure_future(_take(store))
    await asyncio.sleep(0)
    taking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        for lease in await taking:  # too late to be cancelled: then it was taken in earnest
            await store.settle([Settlement.release(lease)])
    while not (leases := await _take(other)):  # it may be on its way there and back
        assert await other.wait_ready(["q"], LONG) is True
    (lease,) = leases
    assert (lease.id, lease.attempt) == (new.id, 1)


@_check
async def _no_two_workers_have_one_job(world: World) -> None:
    """However many take at the same time, each job is given out once."""
    stores = [await world.open() for _ in range(4)]
    jobs = [world.new() for _ in range(200)]
    await stores[0].submit(jobs)
    taken: list[str] = []

    async def work(store: Store) -> None:
        while leases := await _take(store, 7):
            taken.extend(lease.id for lease in leases)
            await store.settle([Settlement.complete(lease, "1") for lease in leases])

    await asyncio.gather(*map(work, stores))
    assert sorted(taken) == [job.id for job in jobs]


# ---- looking and steering


@_check
async def _progress_is_seen_elsewhere(world: World) -> None:
    """What a running job says of itself can be read in another store, and is its lease's only."""
    store, other = await world.open(), await world.open()
    await store.submit([new := world.new()])
    lease = await _begin(store)
    store.renew([(lease, "[1,2]")])
    assert (await _record(other, new.id)).progress == "[1,2]"
    store.renew([(msgspec.structs.replace(lease, token=99), "[2,2]")])
    assert (await _record(other, new.id)).progress == "[1,2]"
    await store.settle([Settlement.retry(lease, ERROR, 0)])
    assert (await _record(other, new.id)).progress is None


@_check
async def _jobs_are_found_by_what_they_are(world: World) -> None:
    """Every condition chooses, all together, and pages come newest first without gaps."""
    store = await world.open("f", "g")
    plain, tagged, other, elsewhere, later = jobs = [
        world.new(),
        world.new(tags=("red", "big")),
        world.new(name="g", tags=("red",)),
        world.new(queue="r"),
        world.new(delay=60.0),
    ]
    await store.submit(jobs[:3])
    world.clock.advance(10)
    await store.submit(jobs[3:])
    await store.settle([Settlement.complete((await _take(store, 1))[0], "1")])

    async def found(**conditions: Any) -> list[str]:
        page = await store.find(Where(**conditions))
        assert page.after is None
        return [record.id for record in page.records]

    assert await found() == [job.id for job in reversed(jobs)]
    assert await found(queues=("r", "none")) == [elsewhere.id]
    assert await found(names=("g",)) == [other.id]
    assert await found(tags=("red",)) == [other.id, tagged.id]
    assert await found(tags=("red", "big")) == [tagged.id]
    assert await found(ids=(plain.id, "nothing", other.id)) == [other.id, plain.id]
    assert await found(states=(JobState.SUCCEEDED,)) == [plain.id]
    assert await found(states=(JobState.QUEUED,)) == [elsewhere.id, other.id, tagged.id]
    assert await found(states=(JobState.SCHEDULED, JobState.SUCCEEDED)) == [later.id, plain.id]
    assert await found(states=()) == []
    assert await found(submitted_before=world.clock.wall()) == [other.id, tagged.id, plain.id]
    assert await found(submitted_after=world.clock.wall() - 5) == [later.id, elsewhere.id]
    assert await found(tags=("red",), names=("f",)) == [tagged.id]
    pages: list[str] = []
    after = None
    while True:
        page = await store.find(Where(), limit=2, after=after)
        pages += [record.id for record in page.records]
        after = page.after
        if after is None:
            break
    assert pages == await found()


@_check
async def _dead_jobs_can_be_tried_again(world: World) -> None:
    """One by one or by condition; the count of failures begins anew, that of attempts goes on."""
    store = await world.open()
    jobs = [world.new(queue=queue, expires=30.0) for queue in ("a", "a", "b")]
    await store.submit(jobs)
    for queue in "ab":
        for lease in await _take(store, queue=queue):
            store.started(lease)
            await store.settle([Settlement.retry(lease, ERROR, 0)])
        for lease in await _take(store, queue=queue):
            await store.settle([Settlement.fail(lease, ERROR)])
    world.clock.advance(60)
    assert await store.retry(Where(ids=(jobs[0].id,))) == [jobs[0].id]
    assert await store.retry(Where(ids=(jobs[0].id,))) == []
    assert await store.retry(Where(queues=("a",))) == [jobs[1].id]
    record = await _record(store, jobs[0].id)
    assert (record.state, record.error, record.ended) == (JobState.QUEUED, None, None)
    (lease, _) = await _take(store, queue="a")
    assert (lease.id, lease.attempt, lease.failures, lease.losses) == (jobs[0].id, 3, 0, 0)
    assert lease.due == world.clock.wall()
    assert await store.settle([Settlement.complete(lease, "1")]) == [True]
    await store.cancel(Where(), BY)


@_check
async def _ended_jobs_are_kept_as_long_as_said(world: World) -> None:
    """A success is kept as its submission says, or a day; a failure two weeks; `purge` is at once."""
    store = await world.open()
    short, usual, dead = world.new(keep=10.0), world.new(), world.new(keep=10.0)
    await store.submit([short, usual, dead])
    leases = await _take(store)
    await store.settle(
        [
            Settlement.complete(leases[0], "1"),
            Settlement.complete(leases[1], "2"),
            Settlement.fail(leases[2], ERROR),
        ]
    )
    for seconds, kept in (
        (0.0, [dead, usual, short]),
        (10.0, [dead, usual]),
        (KEEP - 10.5, [dead, usual]),
        (0.5, [dead]),
        (KEEP_DEAD - KEEP, []),
    ):
        world.clock.advance(seconds)
        store.renew()
        await store.maintain()
        page = await store.find(Where())
        assert [record.id for record in page.records] == [job.id for job in kept]
    await store.submit([new := world.new(), waiting := world.new()])
    await store.settle([Settlement.complete((await _take(store, 1))[0], "1")])
    assert await store.purge(Where()) == 1
    assert await store.get([new.id]) == [None]
    assert (await _record(store, waiting.id)).state is JobState.QUEUED


@_check
async def _queues_are_counted(world: World) -> None:
    """How many wait, run and are dead, and for how long the oldest has been due."""
    store = await world.open()
    await store.submit([world.new() for _ in range(3)])
    await store.submit([world.new(delay=50.0), world.new(queue="p")])
    failing, _ = await _take(store, 2)
    await store.settle([Settlement.fail(failing, ERROR)])
    world.clock.advance(20)
    await store.pause("empty", True)
    counts = {one.queue: one for one in await store.counts()}
    assert tuple(counts["q"]) == ("q", False, 1, 1, 1, 1, 20.0, {})
    assert tuple(counts["p"])[:3] == ("p", False, 1)
    assert tuple(counts["empty"]) == ("empty", True, 0, 0, 0, 0, None, {})


@_check
async def _jobs_are_tallied(world: World) -> None:
    """Jobs are counted by queue, all that match or only what was submitted since another tally."""
    store = await world.open()
    nothing = await store.tally(Where())
    assert nothing.queues == {}
    await store.submit([world.new(), world.new(queue="p"), world.new(tags=("red",))])
    first = await store.tally(Where())
    assert first.queues == {"q": 2, "p": 1}
    assert (await store.tally(Where(tags=("red",)))).queues == {"q": 1}
    assert (await store.tally(Where(), since=nothing.mark)).queues == {"q": 2, "p": 1}
    assert await store.tally(Where(), since=first.mark) == ({}, first.mark)
    (lease,) = await _take(store, 1)
    await store.settle([Settlement.complete(lease, "1")])
    new = world.new(queue="p")
    await store.submit([new])
    await store.cancel(Where(ids=(new.id,)), BY)
    second = await store.tally(Where(), since=first.mark)
    assert second.queues == {"p": 1}
    assert await store.purge(Where()) == 2
    assert (await store.tally(Where())).queues == {"q": 1, "p": 1}
    await store.submit([world.new()])
    assert (await store.tally(Where(), since=second.mark)).queues == {"q": 1}
