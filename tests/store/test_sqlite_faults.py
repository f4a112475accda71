"""What a file, a disk and other programs can do to a SQLite store, and what it makes of that."""

import asyncio
import errno
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from asyncworkers.errors import (
    StoreBusy,
    StoreChanged,
    StoreDamaged,
    StoreFull,
    StoreUnavailable,
    StoreVersion,
    WrongLoop,
)
from asyncworkers.job import JobState
from asyncworkers.store import Settlement, Submission, Unique, Want, Where
from asyncworkers.store.clock import ManualClock
from asyncworkers.store.sqlite import SqliteStore, place, presence, schema, thread
from asyncworkers.store.sqlite.effect import Effect
from asyncworkers.store.sqlite.place import file_system
from asyncworkers.testing import FaultInjector, no_leaks, sweep_async

pytestmark = pytest.mark.asyncio
OTHERS = ("shared memory *",)
"""Stores make none: what comes and goes there meanwhile is of other programs."""
ERROR = '{"type":"ValueError"}'
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
"""Begins a command that may mount, for itself alone."""


def new(number, **fields):
    """Return a submission."""
    return Submission(f"job-{number}", "q", "f", "[[],{}]", **fields)


class opened:
    """An open store, closed at the end whatever happened to it, with nothing left behind."""

    def __init__(self, path, **settings):
        self.store = SqliteStore(path, **settings)
        self.leaks = no_leaks(ignore=OTHERS)

    async def __aenter__(self):
        await self.leaks.__aenter__()
        await self.store.open({"f"})
        return self.store

    async def __aexit__(self, *error):
        await self.store.close()
        await self.leaks.__aexit__(*error)


async def take(store, free=100):
    """Lease up to so many jobs."""
    return await store.lease([Want("q", free)])


@pytest.fixture
def path(tmp_path):
    """Where the store is."""
    return tmp_path / "jobs.db"


# ---- Q05, Q06, V15: opening


async def refused(path, error, *words):
    """Check that opening fails so, naming the path and the cause, and leaves nothing behind."""
    async with no_leaks(ignore=OTHERS):
        store = SqliteStore(path)
        with pytest.raises(error) as caught:
            await store.open()
        assert str(path) in str(caught.value)
        for word in words:
            assert word in str(caught.value)
        with pytest.raises(StoreUnavailable, match="not open"):
            store.submit([])


async def test_fault_Q05_a_path_that_cannot_be_opened(tmp_path):
    """What is wrong with the path is said when the store is opened, not at the first job."""
    await refused(tmp_path, StoreUnavailable, "directory")
    await refused(tmp_path / "none" / "jobs.db", StoreUnavailable, "does not exist")
    (tmp_path / "file").write_bytes(b"")
    await refused(tmp_path / "file" / "jobs.db", StoreUnavailable, "no directory")
    os.mkfifo(tmp_path / "pipe")
    await refused(tmp_path / "pipe", StoreUnavailable, "no ordinary file")
    for wrong in ("", "a\0b", b"bytes"):
        with pytest.raises(ValueError, match="path"):
            SqliteStore(wrong)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_fault_Q05_no_permission(tmp_path):
    """A file or a directory that may not be written to is refused by name."""
    (tmp_path / "jobs.db").touch(0o400)
    await refused(tmp_path / "jobs.db", StoreUnavailable, "permission denied")
    (tmp_path / "locked").mkdir(0o500)
    await refused(tmp_path / "locked" / "jobs.db", StoreUnavailable, "permission denied")


async def test_fault_Q06_what_is_no_database_is_left_alone(path):
    """A file of something else, and a database that is cut off, are refused and not touched."""
    path.write_bytes(b"important" * 1_000)
    await refused(path, StoreDamaged, "no SQLite database")
    assert path.read_bytes() == b"important" * 1_000
    path.unlink()
    async with opened(path) as store:
        await store.submit([new(number) for number in range(500)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    await refused(path, StoreDamaged, "cut off")
    path.write_bytes(whole[:50])
    await refused(path, StoreDamaged)
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    await refused(path, StoreDamaged)
    assert path.stat().st_size == len(whole)


async def test_fault_Q06_a_log_that_was_not_brought_over_whole(path, tmp_path):
    """A file that its log was only begun to be copied to is short by its own head, and no job is lost;
    one that is as short, and has no log, is cut off.
    """
    async with opened(path) as store:
        await store.submit([new(number) for number in range(500)])
        log = Path(f"{path}-wal").read_bytes()
    whole = path.read_bytes()  # what the last one to leave has brought over
    other = tmp_path / "other.db"
    for kept in (4096, 50, len(whole) // 2):
        other.write_bytes(whole[:kept])
        Path(f"{other}-wal").write_bytes(log)
        async with opened(other) as store:
            assert len(await take(store, 1_000)) == 500, kept
        assert other.stat().st_size >= len(whole)
        other.write_bytes(whole[:kept])
        await refused(other, StoreDamaged, "cut off")


async def test_fault_V15_files_are_for_their_owner_only(path):
    """Nothing that the store makes can be read or written by others, whatever the umask."""
    old = os.umask(0)
    try:
        async with opened(path) as store:
            await store.submit([new(1)])
            found = [path, *path.parent.glob("jobs.db-*"), *path.parent.glob("jobs.db-workers/*")]
            assert len(found) >= 6
            for one in found:
                assert one.stat().st_mode & 0o077 == 0, one
    finally:
        os.umask(old)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's link")
async def test_fault_V15_a_strangers_link_in_a_public_directory(tmp_path):
    """In a directory like /tmp, a link or a file of another user is refused."""
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o1777)
    (public / "jobs.db").symlink_to(tmp_path / "target")
    os.lchown(public / "jobs.db", 12345, 12345)
    await refused(public / "jobs.db", StoreUnavailable, "symbolic link")
    assert not (tmp_path / "target").exists()
    (public / "other.db").touch()
    os.chown(public / "other.db", 12345, 12345)
    await refused(public / "other.db", StoreUnavailable, "another user")


async def test_the_directory_of_workers_must_be_safe(path):
    """What lies in the way of the workers' directory, or may be written to by all, is refused."""
    workers = Path(f"{path}-workers")
    workers.write_text("in the way")
    await refused(path, StoreUnavailable, "in the way")
    workers.unlink()
    workers.mkdir()
    workers.chmod(0o777)
    await refused(path, StoreUnavailable, "by others")


# ---- S08: the schema


async def test_fault_S08_a_newer_schema_is_refused(path):
    """A store of a newer version is not touched."""
    async with opened(path) as store:
        await store.submit([new(1)])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE asyncworkers_meta SET value = '99' WHERE name = 'version'")
    connection.close()
    await refused(path, StoreVersion, "99", "upgrade")


async def test_fault_S08_a_migration_that_is_cut_short_changes_nothing(path):
    """Whichever statement of a migration fails, the file is as before, and the next try succeeds."""
    writes = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_CREATE_INDEX}
    for stop in range(30):
        connection = sqlite3.connect(path, isolation_level=None)
        left = stop

        def authorizer(action, *_):
            nonlocal left
            left -= action in writes
            return sqlite3.SQLITE_DENY if action in writes and left < 0 else sqlite3.SQLITE_OK

        connection.set_authorizer(authorizer)
        with pytest.raises(sqlite3.DatabaseError):
            schema.migrate(connection, "name")
        connection.set_authorizer(None)
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
        connection.close()
    async with opened(path) as store:
        await store.submit([new(1)])


async def test_fault_S08_keys_of_the_first_schema_are_migrated(path, monkeypatch):
    """A key is still held by the job that held it, but by no other one of its id; and a dead job that is
    retried holds it again.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "VERSION", 1)
        schema.migrate(connection, "name")
    connection.execute("INSERT INTO asyncworkers_kinds VALUES (1, 'q', 'f', 'json/1')")
    connection.executemany(
        "INSERT INTO asyncworkers_jobs (id, kind, state, rank, due, submitted, once, crc, tags,"
        " extra, args) VALUES (?, 1, ?, 0, 0, 0, 0, 0, '[]', '', '[[],{}]')",
        [("waits", 0), ("failed", 4)],
    )
    connection.executemany(
        "INSERT INTO asyncworkers_keys VALUES (?, ?, 'done', NULL)",
        [("a", "waits"), ("b", "failed"), ("c", "forgotten")],
    )
    connection.close()

    async def outcomes(store, keys, start):
        batch = [new(start + n, unique=Unique(key)) for n, key in enumerate(keys)]
        return [receipt.outcome for receipt in await store.submit(batch)]

    async with opened(path) as store:
        await store.submit([new(1)._replace(id="forgotten")])
        assert await outcomes(store, "ac", 10) == ["existing", "created"]
        assert await store.retry(Where(states=(JobState.FAILED,))) == ["failed"]
        assert await outcomes(store, "abc", 20) == ["existing"] * 3


async def test_fault_S08_two_migrators(path):
    """Stores that are opened at the same time make the tables once."""
    stores = [SqliteStore(path) for _ in range(4)]
    await asyncio.gather(*(store.open({"f"}) for store in stores))
    await stores[0].submit([new(1)])
    assert await stores[3].get(["job-1"]) != [None]
    for store in stores:
        await store.close()


async def test_fault_S08_a_new_file_that_somebody_else_is_making_is_asked_for_again(
    path, monkeypatch
):
    """SQLite refuses at once, without its time-out, who turns on the log while another one does."""
    refused = []
    connect = sqlite3.connect

    class Refused(sqlite3.Connection):
        def execute(self, statement, *values):
            if "journal_mode" in statement and not refused:
                refused.append(statement)
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error
            return super().execute(statement, *values)

    monkeypatch.setattr(
        place.sqlite3, "connect", lambda *some, **more: connect(*some, factory=Refused, **more)
    )
    async with opened(path) as store:
        assert await store.get(["none"]) == [None]
    assert refused


async def test_an_applications_own_tables_may_be_in_the_file(path):
    """The store's tables stand beside others, in a file that was there before."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE jobs (id)")
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    async with opened(path) as store:
        await store.submit([new(1)])
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (7,)
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
        assert {name for name in names if not name.startswith(("asyncworkers_", "sqlite_"))} == {
            "jobs"
        }
    connection.close()


# ---- Q03, Q04: locks and space


async def test_fault_Q03_a_foreign_writer(path):
    """Another program that holds the file is waited for, then named; afterwards all goes on."""
    async with opened(path, busy=0.2) as store:
        foreign = sqlite3.connect(path, isolation_level=None)
        foreign.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match="another program"):
            await store.submit([new(1)])
        waiting = store.submit([new(2)])
        foreign.execute("ROLLBACK")
        foreign.close()
        assert (await waiting)[0].id == "job-2"
        assert await store.get(["job-1"]) == [None]


async def test_fault_Q04_a_full_disk(path):
    """Without room a submission is refused, nothing is lost, and work goes on when there is some."""
    async with opened(path) as store:
        await store.submit([new(number) for number in range(20)])
        opened_ = store._open
        limit = await opened_.change(lambda tables: tables._value("PRAGMA max_page_count"))
        # The least there can be: the pages there are.
        await opened_.change(lambda tables: tables._value("PRAGMA max_page_count = 1"))
        with pytest.raises(StoreFull, match="no room"):
            await store.submit([new(number, extra="x" * 10_000) for number in range(100, 200)])
        assert await store.get(["job-100"]) == [None]
        leases = await take(store)
        assert len(leases) == 20
        assert await store.settle([Settlement.complete(leases[0], "1")]) == [True]
        await opened_.change(lambda tables: tables._value(f"PRAGMA max_page_count = {limit}"))
        await store.submit([new(number, extra="x" * 10_000) for number in range(100, 200)])
        assert len(await take(store)) == 100


async def test_fault_Q04_memory_that_is_a_file_has_room_on_the_disk(path, monkeypatch):
    """Room is made before what is mapped is written to. Where there is none, opening says so, and a
    worker that begins more jobs than it has room for counts all of its leases as begun.
    """
    full = OSError(errno.ENOSPC, "No space left on device")
    for call in (1, 2):  # for the board, for the worker itself
        faults = FaultInjector(call, error=full)
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", faults.wrap(os.posix_fallocate))
            await refused(path, StoreFull, "no room")
        assert faults.failed
        assert not list(Path(f"{path}-workers").glob("*.alive"))
    async with opened(path) as store:
        folder = Path(f"{path}-workers")
        (alive,) = folder.glob("*.alive")
        for file, least in ((folder / "board", presence.BOARD), (alive, presence.STEP)):
            assert file.stat().st_blocks * 512 >= least
        mine = store._open.presence
        room = mine._room
        for number in range(room + 1):
            mine.begin(number, 1)
        assert mine.begun() == {(number, 1) for number in range(room + 1)}
        assert alive.stat().st_blocks * 512 >= 2 * presence.STEP
        faults = FaultInjector(1, error=full)
        monkeypatch.setattr(os, "posix_fallocate", faults.wrap(os.posix_fallocate))
        for number in range(room + 1, 3 * room):
            mine.begin(number, 1)
        assert faults.failed
        assert mine.begun() is None


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode != 0,
    reason="a small disk of its own needs a namespace of its own",
)
@pytest.mark.parametrize("disk", ["half a megabyte", "full when opened"])
async def test_fault_Q04_a_disk_that_is_really_full(tmp_path, disk):
    """On a small disk that fills up, errors say so, no process is killed for writing to mapped memory,
    and when there is room again, all that was accepted is there.
    """
    child = Path(__file__).with_name("full_disk_child.py")
    size, filled = ("512k", "growing") if disk == "half a megabyte" else ("1m", "filled")
    command = [*NAMESPACE, sys.executable, str(child), size, str(tmp_path), filled]
    done = await asyncio.to_thread(
        subprocess.run, command, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("kept\n")
    assert disk == "full when opened" or int(done.stdout.split()[0]) > 0


async def test_fault_Q03_nobody_comes_between_what_is_read_and_what_is_written(path):
    """Whoever reads first and writes then would be refused at once, without SQLite's time-out, if another
    program wrote in between: so none of our transactions begins as one that only reads.
    """
    tried = []

    async with opened(path) as store:
        await store.submit([new(1)])
        foreign = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)

        def come_between(statement):
            if statement.startswith("UPDATE asyncworkers_jobs SET state"):
                try:
                    foreign.execute("CREATE TABLE IF NOT EXISTS foreign_table (id)")
                except sqlite3.OperationalError as error:
                    tried.append(error.sqlite_errorcode)

        store._open._writing.set_trace_callback(come_between)
        (lease,) = await take(store)
        assert await store.settle([Settlement.complete(lease, "1")]) == [True]
        store._open._writing.set_trace_callback(None)
        foreign.close()
    assert tried
    assert set(tried) == {sqlite3.SQLITE_BUSY}


@pytest.mark.parametrize("code", ["disk I/O error", "database or disk is full"])
async def test_fault_Q04_any_statement_may_fail(path, code):
    """Whichever statement of a job's life fails, asking again gives the same end, and once."""
    runs = 0

    async def run(faults):
        nonlocal runs
        runs += 1
        clock = ManualClock()
        async with opened(path.with_name(f"{runs}.db"), clock=clock) as store:
            # SQLite fails a statement before it took effect, and a commit in either way.
            tables = store._open._tables
            tables._execute = faults.wrap(tables._execute)

            async def ask(verb):
                for _ in range(2):
                    try:
                        return await verb()
                    except StoreUnavailable:
                        continue
                raise AssertionError("failed twice")

            batch = [new(1), new(2)]
            await ask(lambda: store.submit(batch))
            leases = await ask(lambda: take(store))
            if not leases:  # a lease that was committed and not answered is given up in time
                raise AssertionError("nobody has the jobs")
            settled = [
                Settlement.complete(leases[0], "1", follow=[new(3)]),
                Settlement.retry(leases[1], ERROR, 0),
            ]
            assert await ask(lambda: store.settle(settled)) == [True, True]
            leases = await ask(lambda: take(store))
            assert [lease.id for lease in leases] == ["job-2", "job-3"]
            page = await store.find(Where())
            assert [record.attempt for record in page.records] == [1, 2, 1]

    # Only "before": what a statement that took effect and then fails would mean, SQLite rules out.
    for number in range(1, 200):
        faults = FaultInjector(number, error=sqlite3.OperationalError(code))
        await run(faults)
        if faults.failed is None:
            break
    assert runs > 15


async def test_fault_S01_an_answer_that_is_lost(path):
    """Whether a call failed before or after it was committed: repeating it is safe, nothing is lost."""
    runs = 0

    async def run(faults):
        nonlocal runs
        runs += 1
        clock = ManualClock()
        async with opened(path.with_name(f"{runs}.db"), clock=clock) as store:
            tables = store._open._tables
            tables.commit = faults.wrap(tables.commit)

            async def ask(verb):
                try:
                    return await verb()
                except StoreUnavailable:
                    return await verb()

            await ask(lambda: store.submit([new(1)]))
            leases = await ask(lambda: take(store))
            while not leases:
                # The lease was committed and its answer lost: it ends with its time.
                clock.advance(31)
                async with opened_beside(store, clock) as other:
                    await other.maintain()
                try:
                    store.renew()
                except StoreUnavailable:
                    store.renew()
                leases = await ask(lambda: take(store))
            store.started(leases[0])
            done = Settlement.complete(leases[0], "1", follow=[new(2)])
            assert await ask(lambda: store.settle([done])) == [True]
            (first, second) = await store.get(["job-1", "job-2"])
            assert (first.state, first.attempt, first.losses) == (JobState.SUCCEEDED, 1, 0)
            assert second.state is JobState.QUEUED

    assert await sweep_async(run, error=sqlite3.OperationalError("disk I/O error")) >= 6


class opened_beside:
    """Another worker on a store's file."""

    def __init__(self, store, clock):
        self.store = SqliteStore(store.path, clock=clock)

    async def __aenter__(self):
        await self.store.open()
        return self.store

    async def __aexit__(self, *_):
        await self.store.close()


async def test_fault_S09_a_clock_that_is_wrong_by_an_hour(path):
    """A worker whose wall clock is set wrong ends nobody's lease, and neither keeps nor loses its own for
    it: that ends when it has said nothing for so long, whatever its clock said when it last did.
    """
    clocks = [ManualClock(), ManualClock()]
    async with opened(path, clock=clocks[0]) as store, opened_beside(store, clocks[1]) as other:
        await store.submit([new(1)])
        (lease,) = await take(store)
        for hours in (1, -2, 100_000, -100_000):
            for clock in clocks:
                clock.set_wall(clock.wall() + 3600 * hours)
                assert (await other.maintain()).recovered == 0
                store.renew()
                assert (await other.maintain()).recovered == 0
        assert await store.settle([Settlement.complete(lease, "1")]) == [True]
        await store.submit([new(2)])
        clocks[0].set_wall(clocks[0].wall() + 1e9)
        (lease,) = await take(store)
        clocks[1].advance(store.ttl - 1)
        assert (await other.maintain()).recovered == 0
        clocks[1].advance(1)
        assert (await other.maintain()).recovered == 1
        assert await store.settle([Settlement.complete(lease, "1")]) == [False]


async def test_two_spellings_of_a_path_are_one_store(path, tmp_path):
    """Workers of one process that spell the path differently do not take each other for dead, and
    have one directory between them.
    """
    for number, link in enumerate((tmp_path / "folder", tmp_path / "link.db")):
        link.symlink_to(tmp_path if number == 0 else path)
        spelled = link / path.name if number == 0 else link
        async with opened(path) as store:
            other = SqliteStore(spelled)
            await other.open({"f"})
            try:
                await store.submit([new(number)])
                (lease,) = await take(store)
                store.started(lease)
                assert (await other.maintain()).recovered == 0
                assert other._open._board.directory == store._open._board.directory
                assert await store.settle([Settlement.complete(lease, "1")]) == [True]
            finally:
                await other.close()
    assert not (tmp_path / "link.db-workers").exists()


async def test_a_stray_file_in_the_directory_of_the_workers(path):
    """What somebody else left beside the bells is no reason for a commit to be reported as failed."""
    async with opened(path) as store:
        (Path(f"{path}-workers") / "stray.bell").touch()
        store._open._board.announce()
        assert [receipt.outcome for receipt in await store.submit([new(1)])] == ["created"]


async def test_fault_S10_a_submission_that_is_cancelled(path):
    """Whoever was cancelled does not know whether the job exists; asking again makes it once."""
    async with opened(path) as store:
        for number in range(50):
            asking = asyncio.ensure_future(store.submit([new(number)]))
            if number % 2:
                await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert (await store.submit([new(number)]))[0].id == f"job-{number}"
        leases = await take(store)
        assert [lease.id for lease in leases] == [f"job-{number}" for number in range(50)]


async def test_one_bad_request_harms_no_other(path):
    """What cannot be stored fails alone, though it was committed together with others."""
    async with opened(path) as store:
        good = store.submit([new(1)])
        bad = store.submit([new(2)._replace(args=None)])
        also_good = store.submit([new(3)])
        with pytest.raises(StoreUnavailable):
            await bad
        assert [(await good)[0].id, (await also_good)[0].id] == ["job-1", "job-3"]
        assert len(await take(store)) == 2


# ---- Q07, Q08, Q10


@pytest.mark.parametrize("how", ["deleted", "replaced", "moved"])
async def test_fault_Q07_the_file_is_gone(path, how, monkeypatch):
    """Nothing is accepted into a file that nobody would find again, and the error says why."""
    monkeypatch.setattr("asyncworkers.store.sqlite.store.LOOK_AT_FILE", 0.0)
    async with opened(path) as store:
        await store.submit([new(1)])
        if how == "moved":
            path.rename(path.with_name("elsewhere"))
        else:
            path.unlink()
        if how == "replaced":
            path.write_bytes(b"")
        for _ in range(2):
            with pytest.raises(StoreChanged, match="replaced" if how == "replaced" else "deleted"):
                await store.submit([new(2)])
        with pytest.raises(StoreChanged, match="start every process again that has it open"):
            await store.submit([new(2)])


async def test_fault_Q08_a_log_that_grows(path, caplog, monkeypatch):
    """A reader that keeps the write-ahead log from being emptied is warned of, once."""
    monkeypatch.setattr("asyncworkers.store.sqlite.store.LARGE_LOG", 100_000)
    async with opened(path) as store:
        await store.submit([new(1)])
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM asyncworkers_jobs").fetchone()
        await store.submit([new(number, extra="x" * 10_000) for number in range(2, 50)])
        with caplog.at_level(logging.WARNING, "asyncworkers"):
            await store.maintain()
            await store.maintain()
        reader.close()
    assert len([record for record in caplog.records if "log" in record.getMessage()]) == 1


FORKED = """
import asyncio, gc, os, sys
from asyncworkers.errors import WrongProcess
from asyncworkers.store import Submission
from asyncworkers.store.sqlite import SqliteStore

async def submit(*ids):
    for one in ids:
        await store.submit([Submission(one, "q", "f", "[[],{}]")])

store = SqliteStore(sys.argv[1])
loop = asyncio.new_event_loop()
loop.run_until_complete(store.open({"f"}))
loop.run_until_complete(submit("a"))
child = os.fork()
if not child:
    try:
        store.submit([])
    except WrongProcess:
        del store
        gc.collect()
        raise SystemExit(7)  # the whole of an interpreter's end, with all it finalizes
    raise SystemExit(1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
loop.run_until_complete(submit(*(f"b{number}" for number in range(50))))
loop.run_until_complete(store.close())
"""


async def test_fault_Q10_a_fork_does_not_carry_the_store(path):
    """A forked child is refused, and its end does no harm to the parent's store."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "ignore", "-c", FORKED, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM asyncworkers_jobs").fetchone() == (51,)
    connection.close()


async def test_another_loop_is_refused(path):
    """A store belongs to the loop that opened it; `renew` may be called from any thread."""
    async with opened(path) as store:
        found = []

        def elsewhere():
            async def ask():
                with pytest.raises(WrongLoop):
                    store.submit([])

            asyncio.run(ask())
            found.append(store.renew())

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert found == [(False, ())]


# ---- S07: damage


DAMAGE = {
    "arguments": "args = '[[2],{}]'",
    "no text": "args = CAST(x'5b5b22ff225d2c7b7d5d' AS TEXT)",
    "no tags": "tags = '[\"'",
    "extra": "extra = 'y'",
    "id": "id = 'job-9'",
    "once": "once = 1",
    "once no truth": "once = 2",
    "another queue": "kind = (SELECT kind FROM asyncworkers_kinds WHERE name = 'g')",
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_fault_S07_a_damaged_row_is_set_aside(path, damage, caplog):
    """A job that is not what was stored is not run: it fails, visibly, and the queue goes on."""
    store = SqliteStore(path)
    await store.open({"f", "g"})
    await store.submit([new(1), new(2), new(3), new(4)._replace(name="g")])
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE asyncworkers_jobs SET {DAMAGE[damage]} WHERE id = 'job-2'")
    connection.close()
    with caplog.at_level(logging.ERROR, "asyncworkers"):
        assert [lease.id for lease in await take(store)] == ["job-1", "job-3", "job-4"]
    assert "damaged" in caplog.text
    (record,) = (await store.find(Where(states=(JobState.FAILED,)))).records
    assert "StoreDamaged" in record.error
    assert record.args.startswith("[[")
    assert record.attempt == 0
    await store.close()


async def test_fault_S07_a_damaged_tag_hides_no_other_job(path):
    """One job whose tags are no JSON any more does not keep the others from being found by theirs."""
    async with opened(path) as store:
        await store.submit([new(number, tags=("mail",)) for number in (1, 2, 3)])
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE asyncworkers_jobs SET tags = '[\"' WHERE id = 'job-2'")
        connection.close()
        tagged = Where(tags=("mail",))
        found = await store.find(tagged)
        assert [record.id for record in found.records] == ["job-3", "job-1"]
        assert (await store.tally(tagged)).queues == {"q": 2}
        assert [one.id for one in await store.cancel(tagged, ERROR)] == ["job-1", "job-3"]


async def test_who_waits_is_not_woken_for_other_queues(path, monkeypatch):
    """What is submitted to a queue that nobody waits for here costs no look at the file."""
    monkeypatch.setattr("asyncworkers.store.sqlite.store.LOOK_AGAIN", 60.0)
    async with opened(path) as store:
        waiting = asyncio.ensure_future(store.wait_ready(["p", "q"], 60))
        await asyncio.sleep(0)  # it begins
        (woken,) = store._open._waiters[presence.READY]
        await store.submit([new(1)._replace(queue="other")])
        assert not woken.done()
        await store.submit([new(2)._replace(queue="other"), new(3)])
        assert woken.done()
        assert await waiting is True


async def test_who_waits_while_the_store_is_closed_is_told_at_once(path, monkeypatch):
    """There is nothing any more, it hears, and not only with the next look, nor of a closed file."""
    monkeypatch.setattr("asyncworkers.store.sqlite.store.LOOK_AGAIN", 3_600.0)
    async with opened(path) as store:
        await store.submit([new(1, delay=60.0)])
        waits = [
            asyncio.ensure_future(store.wait_ready(["other"], 3_600.0)),
            asyncio.ensure_future(store.wait_ended(["job-1"], 3_600.0)),
        ]
        while len([one for waiters in store._open._waiters for one in waiters]) < 2:
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await store.close()
            assert await asyncio.gather(*waits) == [False, False]


async def test_any_number_of_ids_can_be_asked_for(path):
    """More ids than SQLite has room for among a statement's parameters, and such as no job can have."""
    async with opened(path) as store:
        await store.submit([new(1, tags=("mail",)), new(2)])
        ids = (*map(str, range(260_000)), "job-1", "\ud800", "job-2\0")
        assert [one.id for one in await store.cancel(Where(ids=ids), ERROR)] == ["job-1"]
        for where in (Where(names=("\ud800",)), Where(tags=("mail\0",)), Where(tags=("\ud800",))):
            assert (await store.find(where)).records == []


async def test_a_queue_may_have_more_functions_than_sqlite_puts_together(path):
    """Jobs of a thousand functions are leased in their order, where SQLite takes 500 parts at most."""
    names = [f"f{number}" for number in range(1_001)]
    store = SqliteStore(path)
    await store.open(names)
    batch = [new(number)._replace(name=name) for number, name in enumerate(names)]
    await store.submit([one._replace(priority=one.id.endswith("7")) for one in batch])
    assert [lease.id for lease in await take(store, 3)] == ["job-7", "job-17", "job-27"]
    assert len(await take(store, 2_000)) == 998
    await store.close()


# ---- Q09 and beyond: what a store says of itself


async def test_settings_are_checked_at_once(tmp_path):
    """A senseless setting is refused by name before anything is made."""
    for wrong in (
        {"durability": "full"},
        {"ttl": 0},
        {"busy": -1},
        {"losses": 0},
        {"keep": float("nan")},
        {"history": True},
    ):
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            SqliteStore(tmp_path / "jobs.db", **wrong)
    assert list(tmp_path.iterdir()) == []


async def test_what_is_asked_in_one_turn_is_one_commit(path):
    """A submission and a lease of the same turn of the loop share a commit."""
    async with opened(path) as store:
        tables = store._open._tables
        counted = FaultInjector()
        tables.commit = counted.wrap(tables.commit)
        taking = store.lease([Want("q", 1)])
        submitting = store.submit([new(1)])
        leases = await taking
        await submitting
        assert [lease.id for lease in leases] == ["job-1"]
        assert counted.calls == 1


async def test_history_is_bounded_by_number(path):
    """Of more ended jobs than are to be kept, those that would go first go."""
    clock = ManualClock()
    async with opened(path, clock=clock, history=5) as store:
        await store.submit([new(number) for number in range(9)])
        await store.settle([Settlement.complete(lease, "1") for lease in await take(store)])
        assert (await store.maintain()).pruned == 4
        page = await store.find(Where())
        assert [record.id for record in page.records] == [f"job-{n}" for n in (8, 7, 6, 5, 4)]
        await store.submit([new(number) for number in range(20, 23)])
        await store.settle([Settlement.complete(lease, "1") for lease in await take(store)])
        assert (await store.maintain()).pruned == 0  # it counts once a minute
        clock.advance(61)
        store.renew()
        assert (await store.maintain()).pruned == 3


async def test_what_is_too_much_is_forgotten_in_as_many_rounds_as_it_takes(path, monkeypatch):
    """No round forgets more jobs, or more keys, than a call may change, and the next one goes on with
    them at once: a store that fills faster than that in a minute does not grow without an end.
    """
    monkeypatch.setattr("asyncworkers.store.sqlite.transaction.LIMIT", 4)
    async with opened(path, clock=ManualClock(), history=0) as store:
        await store.submit([new(n, unique=Unique(f"key-{n}", "done", "return")) for n in range(10)])
        for _ in range(3):
            await store.settle([Settlement.complete(lease, "1") for lease in await take(store)])
        assert [(await store.maintain()).pruned for _ in range(4)] == [4, 4, 2, 0]
        keys = "SELECT count(*) FROM asyncworkers_keys"
        assert await store._open.change(lambda tables: tables._value(keys)) == 0


async def test_keys_that_are_held_do_not_hide_others_that_are_not(path, monkeypatch):
    """A round looks at no more keys than a call may, held or not, and the next one goes on behind them."""
    monkeypatch.setattr("asyncworkers.store.sqlite.transaction.LIMIT", 4)
    keys = "SELECT count(*) FROM asyncworkers_keys"
    async with opened(path, clock=ManualClock()) as store:
        await store.submit([new(n, unique=Unique(f"a-{n}"), delay=9.0) for n in range(9)])
        await store.submit([new(n, unique=Unique(f"b-{n}")) for n in range(20, 22)])
        await store.settle([Settlement.complete(lease, "1") for lease in await take(store)])
        left = []
        for _ in range(3):
            await store.maintain()
            left.append(await store._open.change(lambda tables: tables._value(keys)))
        assert left == [11, 11, 9]


async def test_who_renews_does_not_wait_for_all_transactions(path):
    """Of several transactions that were begun together each has its turn, and what others ask is done
    in between: a worker's renewal is not kept waiting until the last one is over.
    """
    async with opened(path) as store:
        effects = [store.transaction() for _ in range(3)]
        await effects[0].wait_begun()
        renewal = threading.Thread(target=store.renew)
        renewal.start()
        while not store._open.writer._gathered:
            await asyncio.sleep(0)
        effects[0].undo()
        await effects[1].wait_begun()
        renewal.join()
        assert not effects[2].begun.done()
        for effect in effects[1:]:
            effect.undo()


async def test_no_job_waits_for_its_transaction_when_the_thread_broke_off(path, monkeypatch):
    """Whether it was being served, was to follow, or was only asked for; and none begins any more."""
    busy, serving, gathered = threading.Event(), threading.Event(), threading.Event()

    def breaks(effect, connection):
        serving.set()
        assert gathered.wait(30)
        raise MemoryError

    monkeypatch.setattr(Effect, "serve", breaks)
    store = SqliteStore(path)
    await store.open({"f"})
    waits = store._open.change(lambda tables: busy.wait(30))
    effects = [store.transaction(), store.transaction()]
    busy.set()
    await waits
    while not serving.is_set():
        await asyncio.sleep(0)
    effects.append(store.transaction())
    gathered.set()
    for effect in effects:
        with pytest.raises(StoreUnavailable):
            await effect.wait_begun()
        with pytest.raises(StoreUnavailable):
            await effect.connection.execute("SELECT 1")
    with pytest.raises(StoreUnavailable):
        store.transaction()
    with pytest.raises(StoreUnavailable):
        await store.close()


@pytest.mark.parametrize(("seconds", "between"), [(3600.0, 0), (0.0, 2)])
async def test_transactions_have_their_turn_while_others_ask_without_an_end(
    path, monkeypatch, seconds, between
):
    """Those that wait together follow each other although something new has been asked since, as long
    as a turn lasts; when it has lasted for long enough, what was asked is done in between.
    """
    monkeypatch.setattr(thread, "TURN", seconds)
    async with opened(path) as store:
        writer, order = store._open.writer, []
        work = writer._work
        monkeypatch.setattr(writer, "_work", lambda asks: order.append("batch") or work(asks))

        async def hold(effect):
            await effect.wait_begun()
            order.append("transaction")
            submitted = asyncio.ensure_future(store.submit([new(len(order))]))
            effect.undo()
            await submitted

        await asyncio.gather(*[hold(store.transaction()) for _ in range(3)])
        transactions = [place for place, what in enumerate(order) if what == "transaction"]
        assert order[transactions[0] : transactions[-1]].count("batch") == between, order


async def test_fault_S11_a_lease_looks_at_no_more_rows_than_it_takes(path):
    """Ended, scheduled and unknown jobs, however many, are not read when a job is leased."""
    async with opened(path) as store:
        await store.submit([new(number) for number in range(300)])
        await store.settle([Settlement.complete(lease, "1") for lease in await take(store, 1_000)])
        await store.submit([new(number, delay=99.0) for number in range(300, 600)])
        await store.submit([new(number)._replace(name="unknown") for number in range(600, 900)])
        await store.submit([new(number) for number in range(900, 1_200)])

        def steps(tables):
            counted = 0

            def count():
                nonlocal counted
                counted += 1

            tables._connection.set_progress_handler(count, 1)
            tables.lease(store._open.presence.worker, [Want("q", 1)], {"f"}, {"json/1"})
            tables._connection.set_progress_handler(None, 1)
            return counted

        assert await store._open.change(steps) < 1_500


async def test_a_closed_loop_leaves_no_thread_in_the_way(path):
    """A loop that was closed under a store does not hang the interpreter's end."""
    code = (
        "import asyncio, sys\n"
        "from asyncworkers.store.sqlite import SqliteStore\n"
        "async def main():\n"
        "    global store\n"
        "    store = SqliteStore(sys.argv[1])\n"
        "    await store.open()\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, str(path)], timeout=60, capture_output=True
    )
    assert done.returncode == 0, done.stderr


# ---- Q09: where a file must not be


MOUNTINFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
40 27 0:50 / {place} rw,relatime shared:9 master:1 - {kind} server:/export rw
"""


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
async def test_fault_Q09_a_network_file_system_is_refused(path, kind, monkeypatch, tmp_path):
    """Locks and memory of this machine say nothing about another one: it does not start, and says why."""
    mounts = tmp_path / "mounts of this test"
    mounts.write_text(MOUNTINFO.format(place=str(tmp_path).replace(" ", "\\040"), kind=kind))
    monkeypatch.setattr("asyncworkers.store.sqlite.place.MOUNTS", mounts)
    with pytest.raises(StoreUnavailable, match=rf"network file system \({kind}\).*local disk"):
        await SqliteStore(path).open()
    assert not path.exists()


async def test_fault_Q09_a_file_system_that_nobody_can_vouch_for(
    path, monkeypatch, tmp_path, caplog
):
    """That of a virtual machine is warned of; one that nobody tells of is taken as it is."""
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTINFO.format(place=tmp_path, kind="9p"))
    monkeypatch.setattr("asyncworkers.store.sqlite.place.MOUNTS", mounts)
    async with opened(path):
        assert "locks may not hold" in caplog.text
    caplog.clear()
    monkeypatch.setattr("asyncworkers.store.sqlite.place.MOUNTS", tmp_path / "no such file")
    async with opened(path):
        assert caplog.text == ""
    monkeypatch.undo()
    assert file_system(Path("/proc")) in ("proc", None)


# ---- Q11: back to an older state


async def test_fault_Q11_a_file_that_is_restored_while_it_is_open(path, tmp_path):
    """Who came after the backup is not in it: what it leased is somebody else's, although the very
    token is given out again, and its number is given to nobody while it lives.
    """
    backup = tmp_path / "backup.db"
    async with opened(path) as early:
        await early.submit([new(1), new(2)])
        with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(backup)) as copy:
            live.backup(copy)
        stale = SqliteStore(path)
        await stale.open({"f"})
        (lease,) = await take(stale, 1)
        stale.started(lease)
        with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(backup)) as copy:
            copy.backup(live)  # in place: the path leads to the same file
        late = SqliteStore(path)
        await late.open({"f"})
        assert late._open.presence.worker > stale._open.presence.worker
        (again,) = await take(late, 1)
        assert (again.id, again.token) == (lease.id, lease.token)
        assert await stale.settle([Settlement.complete(lease, '"stale"')]) == [False]
        assert stale.renew().lost
        assert await late.settle([Settlement.complete(again, '"late"')]) == [True]
        (record,) = await early.get([lease.id])
        assert record.result == '"late"'
        await stale.close()
        await late.close()
