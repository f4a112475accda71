"""Any sequence of calls has the same answers from every store as from the reference store."""

import asyncio
import functools
import os
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule

from asyncworkers.job import JobState
from asyncworkers.store.clock import ManualClock
from asyncworkers.store.memory import MemoryData, MemoryStore
from asyncworkers.store.protocol import TTL, Settlement, Submission, Unique, Want, Where
from asyncworkers.store.sqlite import SqliteStore

STEPS = int(os.environ.get("ASYNCWORKERS_STORE_STEPS", "6000"))
"""About how many calls to make of each store; the release asks for more."""

HOW_MANY = 100
workers = st.sampled_from([0, 1])
queues = st.sampled_from(["q", "r"])
uniques = st.none() | st.builds(
    Unique,
    st.sampled_from(["k", "l"]),
    st.sampled_from(["started", "done", 5.0, 100.0]),
    st.sampled_from(["existing", "replace", "reject"]),
)
submissions = st.builds(
    Submission,
    id=st.integers(0, 30).map(lambda number: f"job-{number:02}"),
    queue=queues,
    name=st.sampled_from(["f", "g", "unknown"]),
    codec=st.just("json/1"),
    due=st.none() | st.sampled_from([1_799_999_999.0, 1_800_000_002.0]),
    extra=st.just(""),
    args=st.sampled_from(["[[],{}]", '[["é\\u0000"],{}]']),
    priority=st.integers(-1, 1),
    delay=st.sampled_from([0.0, 0.0, 0.0, 1.0, 40.0]),
    expires=st.sampled_from([None, None, None, 2.0, 50.0]),
    once=st.sampled_from([False, False, False, True]),
    unique=uniques,
    keep=st.sampled_from([None, 0.0, 10.0]),
    tags=st.sampled_from([(), ("a",), ("a", "b")]),
)
wheres = st.builds(
    Where,
    ids=st.sets(st.integers(0, 30), max_size=3).map(
        lambda s: tuple(f"job-{n:02}" for n in sorted(s))
    ),
    queues=st.none() | queues.map(lambda queue: (queue,)),
    names=st.none() | st.just(("f", "unknown")),
    states=st.none()
    | st.sets(st.sampled_from(list(JobState)), max_size=3).map(lambda s: tuple(sorted(s))),
    tags=st.sampled_from([(), (), ("a",)]),
    submitted_before=st.none() | st.sampled_from([1_800_000_000.0, 1_800_000_005.0, 9e99]),
    submitted_after=st.none() | st.sampled_from([-9e99, 1_799_999_999.0, 1_800_000_005.0]),
)


class Machine(RuleBasedStateMachine):
    """Drives a store and the reference store side by side, two workers on each."""

    leases = Bundle("leases")

    def connect(self, path, clock):
        """Return what connects another store of the kind to its data."""
        raise NotImplementedError

    @initialize()
    def start(self):
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(prefix="asyncworkers-test-")
        clocks = self.clocks = (ManualClock(), ManualClock())
        connect = (
            self.connect(Path(self.folder.name) / "jobs.db", clocks[0]),
            functools.partial(MemoryStore, MemoryData(clocks[1])),
        )
        self.pairs = [tuple(make() for make in connect) for _ in range(2)]
        self.tokens = {}
        self.began = set()
        self.settled = set()
        self.held = ([], [])  # the leases of each worker's present life
        for worker in range(2):
            self.both(
                worker, lambda store: store.open(("f", "g") if store in self.pairs[0] else ("f",))
            )

    def both(self, worker, ask, same=lambda answer: answer):
        """Ask both stores of a worker; their answers must agree."""

        async def answer(store):
            found = ask(store)
            return await found if hasattr(found, "__await__") else found

        real, model = (self.loop.run_until_complete(answer(store)) for store in self.pairs[worker])
        assert same(real) == same(model)
        return real, model

    @rule(worker=workers, batch=st.lists(submissions, min_size=1, max_size=4))
    def submit(self, worker, batch):
        self.both(worker, lambda store: store.submit(batch))

    @rule(
        target=leases, worker=workers, queue=queues, free=st.integers(0, 3), ahead=st.integers(0, 2)
    )
    def lease(self, worker, queue, free, ahead):
        def no_seq(leases):
            return [msgspec.structs.replace(lease, seq=0) for lease in leases]

        real, model = self.both(
            worker, lambda store: store.lease([Want(queue, free, ahead)]), no_seq
        )
        for lease in real:
            assert lease.token > self.tokens.get(lease.seq, 0), "a token did not grow"
            self.tokens[lease.seq] = lease.token
            assert not (lease.once and lease.seq in self.began), "a once job was given out again"
        self.held[worker].extend(real)
        return multiple(*[(worker, *pair) for pair in zip(real, model, strict=True)])

    @rule(lease=leases)
    def begin(self, lease):
        worker, real, model = lease
        if real not in self.held[worker]:
            return  # a process that opens the store anew has none of its former leases
        if self.tokens[real.seq] == real.token and real not in self.settled:
            self.pairs[worker][0].started(real)
            self.pairs[worker][1].started(model)
            if real.once:
                self.began.add(real.seq)

    @rule(
        lease=leases,
        verb=st.sampled_from(
            ["complete", "complete", "retry", "fail", "cancel", "interrupt", "release"]
        ),
        delay=st.sampled_from([0.0, 3.0]),
        follow=st.lists(submissions, max_size=1),
        times=st.integers(1, 2),
    )
    def settle(self, lease, verb, delay, follow, times):
        worker, *both = lease
        if verb == "release" and both[0].seq in self.began:
            return  # it would be a lie
        self.settled.add(both[0])
        real, model = (
            Settlement(one.seq, one.token, one.id, verb, "1", delay, tuple(follow)) for one in both
        )
        asked = {id(self.pairs[worker][0]): real, id(self.pairs[worker][1]): model}
        self.both(worker, lambda store: store.settle([asked[id(store)]] * times))

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0, TTL - 0.5, TTL, 100_000.0]))
    def advance(self, seconds):
        for clock in self.clocks:
            clock.advance(seconds)

    @rule(worker=workers)
    def renew(self, worker):
        def no_seq(renewal):
            return renewal.lost, sorted(mark._replace(seq=0) for mark in renewal.cancel)

        self.both(worker, lambda store: store.renew(), no_seq)

    @rule(worker=workers)
    def give_up(self, worker):
        """Let so much time pass that one of the workers is given up by the other."""
        for clock in self.clocks:
            clock.advance(TTL / 2)
        self.renew(1 - worker)
        for clock in self.clocks:
            clock.advance(TTL / 2)
        self.renew(1 - worker)
        self.maintain(1 - worker)

    @rule(worker=workers)
    def maintain(self, worker):
        self.both(worker, lambda store: store.maintain())

    @rule(worker=workers, where=wheres)
    def cancel(self, worker, where):
        self.both(worker, lambda store: store.cancel(where, "asked to"))

    @rule(worker=workers, where=wheres)
    def retry(self, worker, where):
        where = where._replace(states=(JobState.CANCELLED, JobState.FAILED))
        self.both(worker, lambda store: store.retry(where))
        self.began.clear()  # somebody asked for them to run again

    @rule(worker=workers, where=wheres)
    def purge(self, worker, where):
        self.both(worker, lambda store: store.purge(where))

    @rule(worker=workers, queue=queues, paused=st.booleans())
    def pause(self, worker, queue, paused):
        self.both(worker, lambda store: store.pause(queue, paused))

    @rule(worker=workers)
    def reopen(self, worker):
        self.both(worker, lambda store: store.close())
        self.both(worker, lambda store: store.open(("f",)))
        self.held[worker].clear()

    @rule()
    def restart(self):
        for clock in self.clocks:
            clock.restart()

    @rule(worker=workers, where=wheres, queue=queues)
    def look(self, worker, where, queue):
        self.both(worker, lambda store: store.find(where, limit=20), lambda page: page.records)
        self.both(worker, lambda store: store.counts())
        self.both(worker, lambda store: store.wait_ready([queue], 0))

    def teardown(self):
        if not hasattr(self, "loop"):
            return
        try:
            self.both(0, lambda store: store.find(Where(), limit=1_000), lambda page: page.records)
        finally:
            for pair in self.pairs:
                for store in pair:
                    self.loop.run_until_complete(store.close())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            self.folder.cleanup()


class OnMemory(Machine):
    def connect(self, path, clock):
        return functools.partial(MemoryStore, MemoryData(clock))


class OnSqlite(Machine):
    def connect(self, path, clock):
        return functools.partial(SqliteStore, path, durability="process", clock=clock)


@pytest.mark.slow
@pytest.mark.timeout(300 + STEPS // 50)
@pytest.mark.parametrize("machine", [OnMemory, OnSqlite])
def test_every_sequence_of_calls_agrees_with_the_reference(machine):
    """Whatever is called, in whatever order, both answer the same and hold the same jobs."""
    case = machine.TestCase()
    case.settings = settings(
        max_examples=max(1, STEPS // HOW_MANY),
        stateful_step_count=HOW_MANY,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    case.runTest()
