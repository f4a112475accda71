"""Processes on one SQLite file are killed in the middle of things, and nothing that was accepted is lost."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from asyncworkers.job import JobState
from asyncworkers.store import Settlement, Submission, Want, Where
from asyncworkers.store.sqlite import SqliteStore

KILLS = int(os.environ.get("ASYNCWORKERS_KILLS", "40"))
"""For a release: `ASYNCWORKERS_KILLS=10000 python -m pytest tests/store -k kills`."""

pytestmark = [pytest.mark.asyncio, pytest.mark.slow, pytest.mark.timeout(300 + 2 * KILLS)]
CHILD = Path(__file__).with_name("crash_child.py")


class Children:
    """Child processes on a store, each with a diary; all are gone at the end."""

    def __init__(self, tmp_path):
        self.path = tmp_path / "jobs.db"
        self.diaries = tmp_path / "diaries"
        self.diaries.mkdir()
        self.living = []
        self.count = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.living:
            child.kill()
            child.wait()
            child.stderr.close()

    def start(self, role):
        """Start another one."""
        self.count += 1
        name = f"{role}{self.count}"
        arguments = [str(self.path), str(self.diaries / name), role, name]
        child = subprocess.Popen([sys.executable, str(CHILD), *arguments], stderr=subprocess.PIPE)
        child.diary = self.diaries / name
        self.living.append(child)
        return child

    def kill(self, child):
        """Kill one, without a warning."""
        child.kill()
        child.wait()
        error = child.stderr.read().decode()
        child.stderr.close()
        assert child.returncode == -signal.SIGKILL, error
        self.living.remove(child)

    async def written(self, child, word, count=1):
        """Wait until a child has written a word so often."""
        while child.poll() is None:
            if child.diary.exists() and child.diary.read_text().count(word) >= count:
                return
            await asyncio.sleep(0.005)
        pytest.fail(f"the child ended: {child.stderr.read().decode()}")

    def lines(self):
        """Return all that was written, as (word, id, token)."""
        return [
            (word, ident, int(token))
            for diary in self.diaries.iterdir()
            for word, ident, token in map(str.split, diary.read_text().splitlines())
        ]


async def drained(store):
    """Work until nothing is left that could be worked on; return the ids and tokens settled."""
    done = []
    while True:
        await store.maintain()
        leases = await store.lease([Want("q", 500)])
        for lease in leases:
            store.started(lease)
        done += [(lease.id, lease.token) for lease in leases]
        if leases:
            assert all(await store.settle([Settlement.complete(one, "1") for one in leases]))
            continue
        counts = await store.counts()
        if not any(queue.queued or queue.running for queue in counts):
            return done


def table_for_effects(folder):
    """Make the table into which children that work write rows of their own."""
    with contextlib.closing(sqlite3.connect(folder / "jobs.db")) as connection:
        connection.execute("CREATE TABLE effects (id TEXT)")


async def test_fault_Q01_kills_at_random_lose_nothing(tmp_path):
    """Of four processes killed at any moment, no accepted job is lost and none settled twice; what
    jobs wrote in the commit that settled them is there once for each, and for no other.
    """
    dice = random.Random(4)
    table_for_effects(tmp_path)
    with Children(tmp_path) as children:
        crowd = [children.start(role) for role in ("submit", "work", "work", "submit")]
        for child in crowd:
            await children.written(child, "ready")
        for _ in range(KILLS):
            await asyncio.sleep(dice.uniform(0.0, 0.15))
            child = crowd.pop(dice.randrange(len(crowd)))
            role = "submit" if "submit" in child.diary.name else "work"
            children.kill(child)
            crowd.append(children.start(role))
            if dice.random() < 0.8:  # the others are killed while they start
                await children.written(crowd[-1], "ready")
        for child in crowd:
            children.kill(child)
        store = SqliteStore(children.path)
        await store.open({"f"})
        by_us = [ident for ident, _ in await drained(store)]
        settled = Counter(by_us)
        lines = children.lines()
        settled.update(ident for word, ident, _ in lines if word == "settled")
        accepted = [ident for word, ident, _ in lines if word == "accepted"]
        assert len(accepted) > KILLS
        records = dict(zip(accepted, await store.get(accepted), strict=True))
        assert [ident for ident, record in records.items() if record is None] == []
        for record in records.values():
            assert record.state in (JobState.SUCCEEDED, JobState.FAILED), record
            if record.state is JobState.FAILED:
                assert record.once, record
                assert "JobLost" in record.error
        began = Counter(ident for word, ident, _ in lines if word == "began")
        once = {ident for ident, record in records.items() if record.once}
        assert [ident for ident in once if began[ident] > 1] == []
        assert [ident for ident, times in settled.items() if times > 1] == []
        leased = Counter((ident, token) for word, ident, token in lines if word == "leased")
        assert max(leased.values()) == 1
        await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        wrote = Counter(ident for (ident,) in connection.execute("SELECT id FROM effects"))
        in_transaction = {
            ident
            for (ident,) in connection.execute(
                "SELECT id FROM asyncworkers_jobs WHERE state = 3 AND result = '1'"
                " AND id NOT IN (SELECT value FROM json_each(?))",
                (json.dumps(by_us),),
            )
        }
    assert wrote.keys() == in_transaction
    assert len(wrote) > KILLS / 4
    assert max(wrote.values()) == 1
    assert [path.suffix for path in (tmp_path / "jobs.db-workers").iterdir()] == [""]  # the board


async def store_with(folder, *names):
    """Open a store in a file, with jobs of these ids."""
    store = SqliteStore(folder / "jobs.db")
    await store.open({"f"})
    await store.submit([Submission(name, "q", "f", "[[],{}]") for name in names])
    return store


async def test_fault_S06_the_jobs_of_a_killed_process_are_found_at_once(tmp_path):
    """A killed worker's jobs are back with the next round of maintenance, its lease not awaited."""
    store = await store_with(tmp_path, "begun", "unbegun")
    with Children(tmp_path) as children:
        child = children.start("hold")
        await children.written(child, "began")
        assert (await store.maintain()).recovered == 0
        children.kill(child)
        assert (await store.maintain()).recovered == 2
    leases = {lease.id: lease for lease in await store.lease([Want("q", 5)])}
    assert (leases["begun"].attempt, leases["begun"].losses) == (2, 1)
    assert (leases["unbegun"].attempt, leases["unbegun"].losses) == (1, 0)
    await store.close()


async def test_fault_S04_a_stopped_process_keeps_its_jobs_until_its_time_is_up(tmp_path):
    """A process that is only stopped is not dead: its jobs are its own while its lease lasts."""
    store = await store_with(tmp_path, "begun", "unbegun")
    with Children(tmp_path) as children:
        child = children.start("hold")
        await children.written(child, "began")
        child.send_signal(signal.SIGSTOP)
        assert (await store.maintain()).recovered == 0
    assert (await store.maintain()).recovered == 2
    await store.close()


async def test_fault_S04_a_process_that_goes_on_too_late_is_refused(tmp_path):
    """A process that stood still for longer than its lease, and goes on then, learns that its jobs are
    others' now, and what it settles counts for nothing.
    """
    store = await store_with(tmp_path, "taken", "waits")
    with Children(tmp_path) as children:
        child = children.start("zombie")
        await children.written(child, "began")
        file = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
        with contextlib.closing(file) as held:
            # Stopped while it writes, it would hold up everybody: while we could write, it cannot.
            held.execute("BEGIN IMMEDIATE")
            child.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
            held.execute("ROLLBACK")
        while not (recovered := (await store.maintain()).recovered):
            await store.wait_ready(["nothing"], 0.05)
        assert recovered == 2
        (lease,) = await store.lease([Want("q", 1)])
        assert (lease.attempt, lease.losses) == (2, 1)
        assert await store.settle([Settlement.complete(lease, '"ours"')]) == [True]
        child.send_signal(signal.SIGCONT)
        await children.written(child, "refused", 2)
        assert "settled" not in child.diary.read_text()
    taken, waits = await store.get(["taken", "waits"])
    assert (taken.state, taken.result) == (JobState.SUCCEEDED, '"ours"')
    assert (waits.state, waits.result) == (JobState.QUEUED, None)
    await store.close()


async def test_a_submission_of_another_process_wakes_who_waits(tmp_path):
    """A process that waits is rung for, and does not have to look again by itself."""
    store = SqliteStore(tmp_path / "jobs.db")
    await store.open({"f"})
    opened = store._open
    looks = 0
    with Children(tmp_path) as children:
        look = opened.wait

        async def counted(what, see, timeout, queues):
            async def seen():
                nonlocal looks
                looks += 1
                return await see()

            return await look(what, seen, timeout, queues)

        opened.wait = counted
        waiting = asyncio.ensure_future(store.wait_ready(["q"], 60))
        heard = asyncio.Event()
        opened._heard, hear = (lambda: (heard.set(), hear())), opened._heard
        opened._listen()
        child = children.start("submit")
        assert await waiting is True
        assert heard.is_set()
        children.kill(child)
    assert looks >= 2
    await store.close()


async def test_fault_S05_many_processes_share_a_queue_without_a_double_lease(tmp_path):
    """Workers in several processes take each job once."""
    table_for_effects(tmp_path)
    store = SqliteStore(tmp_path / "jobs.db", durability="process")
    await store.open()
    with Children(tmp_path) as children:
        crowd = [children.start("work") for _ in range(4)]
        for child in crowd:
            await children.written(child, "ready")
        ids = [f"job-{number}" for number in range(3_000)]
        await store.submit([Submission(one, "q", "f", "[[],{}]") for one in ids])
        while (
            await store.find(Where(states=(JobState.QUEUED, JobState.RUNNING)), limit=1)
        ).records:
            await store.wait_ready(["nothing"], 0.05)
            assert [child.poll() for child in crowd] == [None] * 4
        for child in crowd:
            children.kill(child)
        settled = Counter(ident for word, ident, _ in children.lines() if word == "settled")
    assert set(settled.values()) == {1}
    records = await store.get(ids)
    assert {record.state for record in records} == {JobState.SUCCEEDED}
    assert {record.attempt for record in records} == {1}
    await store.close()


HOLDS = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX)
print(flush=True)
input()
"""


async def test_who_was_killed_while_it_came_leaves_nothing(tmp_path):
    """Files of workers that the store does not know of go when the next worker comes, unless somebody
    holds their lock: a file that was put back to what it was knows less than there is.
    """
    first = SqliteStore(tmp_path / "jobs.db")
    await first.open()
    folder = tmp_path / "jobs.db-workers"
    for number in ("701", "702"):
        (folder / f"{number}.alive").touch()
        os.mkfifo(folder / f"{number}.bell")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, folder / "701.alive"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        holder.stdout.readline()
        second = SqliteStore(tmp_path / "jobs.db")
        await second.open()
        left = {path.name for path in folder.iterdir()}
        holder.communicate(b"\n")
    assert {"701.alive", "701.bell"} <= left
    assert not {"702.alive", "702.bell"} & left
    await second.close()
    third = SqliteStore(tmp_path / "jobs.db")
    await third.open()
    await third.close()
    await first.close()
    assert [path.suffix for path in folder.iterdir()] == [""]  # the board
