"""Runs stored jobs in simulated processes on one simulated store: `python explore_stored.py 0 500`.

Three supervisors share a store, whose calls fail before or after they took effect, answer late, and
are cut off from one of them for longer than its lease: what runs there goes on as a zombie. Every
call of the store is watched, so that what it accepts can be compared with what jobs really did. The
last line of the output is a summary in JSON.
"""

# ruff: noqa: T201  # its output is what it is for

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import sys
from collections import Counter
from typing import Any

import asyncworkers
from asyncworkers import JobState, Retry, StoreUnavailable, Supervisor, current_job, job
from asyncworkers.store.memory import MemoryData, MemoryStore
from asyncworkers.testing import simulate

TTL = 5.0
JOBS = 12
PATIENCE = 600.0
"""Seconds, virtual ones, in which everything must have ended."""

PROMPT = 0.3
"""Seconds in which an idle process must begin what another one has submitted, nothing being wrong."""


class Clock:
    """The store's clock, on the simulated loop's."""

    def __init__(self) -> None:
        self.loop: Any = asyncio.get_running_loop()

    def wall(self) -> float:
        return self.loop.wall()

    def uptime(self) -> float:
        return self.loop.time()

    def boot(self) -> str:
        return "boot"


class World:
    """One run, and what is wrong with it."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.calm = seed % 4 == 0  # nothing goes wrong: then everything has to be prompt
        self.quiet = seed % 4 < 2  # no call fails, so that what is periodic stays in step
        self.problems: list[str] = []
        self.tally: Counter[str] = Counter()
        self.holder: dict[int, tuple[int, Watched]] = {}  # the newest token of each job, and whose
        self.began: dict[str, list[float]] = {}
        self.finished: set[tuple[str, int]] = set()
        self.settled: Counter[int] = Counter()

    def wrong(self, what: str) -> None:
        self.problems.append(f"{asyncio.get_running_loop().time():.3f}: {what}")


WORLD: World


@job(retry=Retry(3, on=ValueError, delay=0.5, jitter=False))
async def work(seconds: float, fails: int) -> int:
    """Take a while, and fail so many times."""
    this = current_job()
    WORLD.began.setdefault(this.id, []).append(asyncio.get_running_loop().time())
    await asyncio.sleep(seconds)
    if len(WORLD.began[this.id]) <= fails:
        raise ValueError("not yet")
    WORLD.finished.add((this.id, this.attempt))
    return this.attempt


@job(once=True)
async def once(seconds: float) -> int:
    """Begin at most once."""
    return await work(seconds, 0)


class Watched(MemoryStore):
    """A store that fails and dawdles as the dice say, and checks what it is told."""

    def __init__(self, data: MemoryData, world: World) -> None:
        super().__init__(data, ttl=TTL)
        self.world, self.cut = world, False
        self.supervisor: Any = None

    async def _meddle(self, ask: Any) -> Any:
        """Fail before, or after, or be late; rarely."""
        world = self.world
        chance = 1.0 if world.quiet else world.dice.random()
        if self.cut or chance < 0.03:
            world.tally["failed before"] += 1
            raise StoreUnavailable("before")
        answer = await ask()
        if chance < 0.06:
            world.tally["failed after"] += 1
            raise StoreUnavailable("after")
        if chance < 0.12:
            await asyncio.sleep(world.dice.choice((0.5, 1.0, 2.0)))
        return answer

    def submit(self, batch: Any) -> Any:
        return self._meddle(lambda: super(Watched, self).submit(batch))

    def lease(self, wants: Any) -> Any:
        async def ask() -> Any:
            leases = await super(Watched, self).lease(wants)
            for one in leases:
                _, before = self.world.holder.get(one.seq, (0, None))
                if before not in (None, self) and before.believes(one.id):
                    self.world.wrong(f"{one.id} was given away while its holder relied on it")
                self.world.holder[one.seq] = one.token, self
            return leases

        return self._meddle(ask)

    def believes(self, ident: str) -> bool:
        """Whether its supervisor runs this job and has no reason to doubt that it may."""
        depot = self.supervisor._depot
        run = depot.link.runs.get(ident)
        return run is not None and run.state is JobState.RUNNING and depot.keeper.trusts()

    def settle(self, batch: Any) -> Any:
        async def ask() -> Any:
            running = {
                one.seq: self._data.jobs[one.seq].state is JobState.RUNNING
                for one in batch
                if one.seq in self._data.jobs
            }
            attempts = {one.seq: self._data.jobs[one.seq].attempt for one in batch}
            accepted = await super(Watched, self).settle(batch)
            for one, took in zip(batch, accepted, strict=True):
                if took and running.get(one.seq):
                    self._check(one, attempts[one.seq])
            return accepted

        return self._meddle(ask)

    def _check(self, one: Any, attempt: int) -> None:
        world = self.world
        token, holder = world.holder.get(one.seq, (0, None))
        if one.token != token or holder is not self:
            world.wrong(f"{one.id}: {one.verb} was accepted from who does not hold it")
        if one.verb == "complete":
            world.settled[one.seq] += 1
            if (one.id, attempt) not in world.finished:
                world.wrong(f"{one.id} succeeded before attempt {attempt} was finished")
            if world.settled[one.seq] > 1:
                world.wrong(f"{one.id} succeeded twice")

    def renew(self, progress: Any = ()) -> Any:
        if self.cut or (not self.world.quiet and self.world.dice.random() < 0.03):
            raise StoreUnavailable("renew")
        return super().renew(progress)

    async def maintain(self) -> Any:
        return await self._meddle(lambda: super(Watched, self).maintain())


async def run(world: World) -> None:
    """Submit jobs here and there, disturb, and look at how it all ended."""
    global WORLD
    WORLD, dice = world, world.dice
    loop = asyncio.get_running_loop()
    data = MemoryData(Clock(), losses=50)
    stores = [Watched(data, world) for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        for number, store in enumerate(stores):
            supervisor = Supervisor(
                dice.choice((1, 2)) if number else 0,  # the first one only submits
                store=store,
                functions=[work, once],
                grace=0,
                stall=None,
            )
            store.supervisor = supervisor
            while True:
                try:
                    await supervisor.__aenter__()
                    break
                except StoreUnavailable:
                    continue
            stack.push_async_exit(supervisor.__aexit__)
        submitted: dict[str, float] = {}
        if not world.calm:
            for _ in range(dice.randrange(3) + world.quiet):
                loop.call_later(dice.choice((1.0, 2.0, 5.0)), cut, dice.choice(stores[1:]), dice)
        for number in range(JOBS):
            await asyncio.sleep(dice.choice((0.0, 0.0, 0.5, 1.0, 4.0)))
            seconds = dice.choice((0.0, 0.5, 1.0, 3.0, 8.0))
            call = (
                once.bind(seconds)
                if dice.random() < 0.2
                else work.bind(seconds, dice.choice((0, 0, 1, 4)))
            )
            named = call.with_id(f"job-{number}")
            while True:
                try:
                    await stores[dice.choice((0, 0, 1))].supervisor.submit(named)
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.1)
            submitted[named.job_id] = loop.time()
            others = (one for one in data.jobs.values() if one.submission.id != named.job_id)
            if world.calm and all(one.over for one in others):  # every worker is free for it
                loop.call_later(PROMPT, was_prompt, world, named.job_id)
        end = loop.time() + PATIENCE
        while any(not one.over for one in data.jobs.values()) and loop.time() < end:
            await asyncio.sleep(1.0)
        for one in data.jobs.values():
            judge(world, one)
        if set(submitted) != {one.submission.id for one in data.jobs.values()}:
            world.wrong("a job that was accepted is not there")


def judge(world: World, one: Any) -> None:
    """Look at how one job ended."""
    ident, state = one.submission.id, one.state
    world.tally[f"{one.submission.name} {state}"] += 1
    world.tally["lost and run again"] += one.losses > 0
    if not one.over:
        world.wrong(f"{ident} is {state} and does not end")
    elif one.submission.once and len(world.began.get(ident, ())) > 1:
        world.wrong(f"{ident} may run once and ran {len(world.began[ident])} times")


def was_prompt(world: World, ident: str) -> None:
    """Nothing was in the way of this job."""
    if ident not in world.began:
        world.wrong(f"{ident} was not begun within {PROMPT:g} s, and nothing was in the way")


def cut(store: Watched, dice: random.Random) -> None:
    """Cut one process off from the store, for longer than its lease or not."""
    store.cut = True
    store.world.tally["cut off"] += 1
    asyncio.get_running_loop().call_later(dice.choice((2.0, TTL, TTL + 1, 12.0)), mend, store)


def mend(store: Watched) -> None:
    """Let it through again."""
    store.cut = False


def main() -> int:
    """Run the seeds that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("end", type=int)
    parser.add_argument("--until-failure", action="store_true")
    arguments = parser.parse_args()
    logging.getLogger("asyncworkers").setLevel(logging.CRITICAL + 1)
    tally: Counter[str] = Counter()
    failures: dict[int, list[str]] = {}
    digests: list[str] = []
    ran = 0
    for seed in range(arguments.first, arguments.end):
        world = World(seed)

        async def begin(world: World = world) -> None:
            await run(world)

        ran += 1
        try:
            result = simulate(begin, seed=seed, latency=(0.0, 0.0), max_steps=200_000)
            digests.append(result.digest)
        except Exception as error:
            world.problems.append(f"the run raised {type(error).__name__}: {error}")
        tally.update(world.tally)
        if world.problems:
            failures[seed] = world.problems
            print(f"seed {seed}:", *world.problems, sep="\n  ")
            if arguments.until_failure:
                break
    package = asyncworkers.__file__
    print(
        json.dumps(
            {
                "ran": ran,
                "failures": failures,
                "tally": tally,
                "digests": digests[:20],
                "package": package,
            }
        )
    )
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
