"""What commits together: a job's own rows, the jobs that follow it, and its end."""

import asyncio
import contextlib
import sqlite3
import threading

import pytest
from stored_jobs import double

from asyncworkers import (
    JobCancelled,
    JobState,
    Retry,
    StoreBusy,
    StoreUnavailable,
    Supervisor,
    SupervisorClosed,
    WouldDeadlock,
    current_job,
    job,
)
from asyncworkers.store.memory import MemoryStore
from asyncworkers.store.sqlite import SqliteStore
from asyncworkers.store.sqlite.effect import Effect

pytestmark = pytest.mark.asyncio

HERE: list[Supervisor] = []


@job
async def write(number: int, how: str = "") -> int:
    """Write a row of its own, and end as told."""
    async with current_job().transaction() as connection:
        await connection.execute("INSERT INTO effects VALUES (?, ?)", (number, current_job().id))
        if how == "raise inside":
            raise KeyError(number)
    if how == "raise after":
        raise KeyError(number)
    return number


@job
async def undone_by_a_conflict() -> None:
    """Have SQLite itself undo everything, and go on as if nothing had happened."""
    async with current_job().transaction() as connection:
        await connection.execute("CREATE TABLE mine (number INTEGER PRIMARY KEY)")
        await connection.execute("INSERT INTO mine VALUES (1)")
        with contextlib.suppress(sqlite3.IntegrityError):
            await connection.execute("INSERT OR ROLLBACK INTO mine VALUES (1)")
        await connection.execute("INSERT INTO effects VALUES (1, 'alone')")


@job(retry=Retry(3, on=KeyError, delay=0))
async def write_at_last(number: int) -> int:
    """Write a row in each attempt, of which the third one succeeds."""
    async with current_job().transaction() as connection:
        await connection.execute("INSERT INTO effects VALUES (?, ?)", (number, current_job().id))
    if current_job().attempt < 3:
        raise KeyError(number)
    return number


@job
def write_in_thread(number: int) -> int:
    """Write a row of its own, from a thread, having read what there is."""
    with current_job().transaction() as connection:
        ((there,),) = connection.execute("SELECT count(*) FROM effects")
        connection.executemany("INSERT INTO effects VALUES (?, ?)", [(number + there, "thread")])
    return number


@job
async def dawdle() -> None:
    """Hold the store for longer than anybody may."""
    async with current_job().transaction() as connection:
        await connection.execute("INSERT INTO effects VALUES (1, 'late')")
        await asyncio.sleep(0.4)


@job
async def read_what_is_not_there() -> None:
    """Take the first of no rows."""
    async with current_job().transaction() as connection:
        await connection.run(lambda on: next(on.execute("SELECT 1 WHERE false")))


@job
async def close_it() -> None:
    """Close what is not its own, and go on."""
    async with current_job().transaction() as connection:
        await connection.execute("INSERT INTO effects VALUES (1, 'closed')")
        await connection.run(lambda on: on.close())
        await connection.execute("INSERT INTO effects VALUES (2, 'closed')")


@job
async def lead(number: int, how: str = "") -> str:
    """Submit a job that follows, and end as told."""
    follower = await HERE[0].using(current_job()).submit(double, number)
    FOLLOWERS.append(follower)
    if how == "await":
        await follower
    if how == "fail":
        raise KeyError(number)
    return follower.id


@job(unique=lambda number: f"double {number}")
async def double_once(number: int) -> int:
    """Return twice the number; no two of these may wait for one number."""
    return 2 * number


@job
async def lead_twice(number: int) -> None:
    """Submit two that follow, of one key."""
    for _ in range(2):
        FOLLOWERS.append(await HERE[0].using(current_job()).submit(double_once, number))


@job
async def write_and_lead_twice(number: int) -> None:
    """Submit two of one key in one transaction."""
    async with current_job().transaction() as connection:
        for _ in range(2):
            FOLLOWERS.append(await HERE[0].using(connection).submit(double_once, number))


@job
async def lead_and_write(number: int, how: str = "") -> str:
    """Write a row and submit a job in one transaction."""
    async with current_job().transaction() as connection:
        follower = await HERE[0].using(connection).submit(double, number)
        FOLLOWERS.append(follower)
        await connection.execute("INSERT INTO effects VALUES (?, ?)", (number, follower.id))
    if how == "fail":
        raise KeyError(number)
    return follower.id


@job
async def wait_for_itself() -> None:
    """Submit, while its own transaction holds the store."""
    async with current_job().transaction():
        await HERE[0].submit(double, 1)


@job
async def meddle(statement: str) -> None:
    """Try what a transaction does not let a job do."""
    async with current_job().transaction() as connection:
        await connection.execute(statement)


FOLLOWERS: list = []
ALL = [
    *(double, write, write_at_last, write_in_thread, dawdle, lead, lead_and_write),
    *(wait_for_itself, meddle, undone_by_a_conflict, lead_twice, double_once, write_and_lead_twice),
    close_it,
    read_what_is_not_there,
]


@pytest.fixture
def path(tmp_path):
    """Return the file, which holds a table of the application's own."""
    path = tmp_path / "jobs.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE effects (number INTEGER, id TEXT)")
    yield path
    HERE.clear()
    FOLLOWERS.clear()


def rows(path):
    """Return what was written."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT number, id FROM effects ORDER BY 1").fetchall()


@contextlib.asynccontextmanager
async def supervised(store):
    """Enter a supervisor that its jobs know."""
    async with Supervisor(4, store=store, functions=ALL, grace=0) as supervisor:
        HERE[:] = [supervisor]
        yield supervisor


async def test_a_jobs_rows_are_committed_with_its_end(path):
    """They are there when the job has succeeded; several such jobs take their turns."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        jobs = await supervisor.submit_many(write, range(5))
        assert [await one for one in jobs] == list(range(5))
        assert rows(path) == [(number, one.id) for number, one in enumerate(jobs)]


@pytest.mark.parametrize("how", ["raise inside", "raise after"])
async def test_what_a_failed_job_wrote_is_undone(path, how):
    """Nothing is there of a job that raised, whether inside the block or after it."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        with pytest.raises(KeyError):
            await supervisor.call(write, 1, how)
        assert await supervisor.call(double, 1) == 2
        assert rows(path) == []


async def test_each_attempt_begins_without_the_rows_of_the_one_before(path):
    """Of three attempts, which all wrote, the successful one's row remains."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        done = await supervisor.submit(write_at_last, 7)
        assert await done == 7
        assert rows(path) == [(7, done.id)]


async def test_a_job_in_a_thread_has_the_same(path):
    """Blocking code uses `with`, and reads what it needs."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        assert await supervisor.call(write_in_thread, 1) == 1
        assert await supervisor.call(write_in_thread, 1) == 1
        assert rows(path) == [(1, "thread"), (2, "thread")]


async def test_a_transaction_that_takes_too_long_is_undone(path):
    """Others are not kept waiting: the attempt fails, and says why."""
    async with supervised(SqliteStore(path, busy=0.2)) as supervisor:
        with pytest.raises(StoreBusy, match=r"held .* for 0\.1 s"):
            await supervisor.call(dawdle)
        assert await supervisor.call(double, 1) == 2
        assert rows(path) == []


async def test_what_a_stale_worker_wrote_is_undone(path):
    """Whoever lost the lease meanwhile commits nothing, neither rows nor end."""
    store, stolen = SqliteStore(path), asyncio.Event()

    @job(name="write")
    async def thief(number: int) -> int:
        await store._open.change(
            lambda tables: tables._execute("UPDATE asyncworkers_jobs SET token = token + 1")
        )
        stolen.set()
        async with current_job().transaction() as connection:
            await connection.execute("INSERT INTO effects VALUES (?, 'stale')", (number,))
        return number

    async with Supervisor(1, store=store, functions=[thief], grace=0) as supervisor:
        one = await supervisor.submit(thief, 1)
        await stolen.wait()
        while supervisor.stats().running:
            await asyncio.sleep(0)
        await supervisor.drain(0)
    assert rows(path) == []
    assert one.state is not JobState.SUCCEEDED


async def test_what_cancels_all_tasks_leaves_a_commit_alone(path):
    """A program that ends so while a job's rows are being committed hears what became of them."""
    store, cancelled = SqliteStore(path), asyncio.Event()
    before = asyncio.all_tasks()

    def cancel_all():
        for task in asyncio.all_tasks() - before:
            task.cancel()
        cancelled.set()

    class Cancelling(Effect):
        def settle(self, settlement):
            asyncio.get_running_loop().call_soon(cancel_all)
            return super().settle(settlement)

    async def program():
        async with Supervisor(store=store, functions=[write]) as supervisor:
            HERE[:] = [await supervisor.submit(write, 1)]
            await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asyncworkers.store.sqlite.store.Effect", Cancelling)
        running = asyncio.create_task(program())
        async with asyncio.timeout(60):
            await cancelled.wait()
            with pytest.raises(asyncio.CancelledError):
                await running
    assert [number for number, _ in rows(path)] == [1]
    assert HERE[0].state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "ROLLBACK",
        "ATTACH ':memory:' AS other",
        "UPDATE asyncworkers_jobs SET state = 3",
        "DELETE FROM asyncworkers_workers",
        "DROP TABLE asyncworkers_queues",
        "DROP INDEX asyncworkers_failed",
        "ALTER TABLE asyncworkers_jobs ADD COLUMN mine TEXT",
        "CREATE INDEX mine ON asyncworkers_jobs (args)",
        "CREATE TRIGGER mine AFTER UPDATE ON ASYNCWORKERS_JOBS BEGIN SELECT 1; END",
        "CREATE TEMP TRIGGER mine AFTER UPDATE ON main.asyncworkers_jobs BEGIN SELECT 1; END",
    ],
)
async def test_a_job_cannot_end_its_transaction_nor_change_our_tables(path, statement):
    """Such a statement is refused, and the job fails."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        with pytest.raises(Exception, match=r"not authorized|prohibited"):
            await supervisor.call(meddle, statement)
        assert await supervisor.call(double, 1) == 2


async def test_what_sqlite_rolled_back_is_over(path):
    """A statement that undoes the whole transaction ends it: what comes after it is refused, instead
    of being committed by itself, and the job fails.
    """
    async with supervised(f"sqlite:///{path}") as supervisor:
        with pytest.raises(StoreUnavailable, match="rolled the transaction back"):
            await supervisor.call(undone_by_a_conflict)
        assert rows(path) == []


async def test_a_job_that_closes_the_connection_harms_only_itself(path):
    """Its transaction is undone and it fails; the store, and the transactions of others, go on."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        with pytest.raises(StoreUnavailable, match="has closed its transaction's connection"):
            await supervisor.call(close_it)
        assert await supervisor.call(write, 3) == 3
        assert [number for number, _ in rows(path)] == [3]


async def test_an_attempt_that_ends_while_it_begins_its_transaction_holds_nothing(path):
    """A call in a thread runs on when its job was cancelled: what it began at that very moment is undone
    at once, and it does not enter the block.
    """
    entered, gate, seen = asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    class Slow(SqliteStore):
        def transaction(self):
            loop.call_soon_threadsafe(entered.set)
            assert gate.wait(60)
            return super().transaction()

    @job
    def late() -> None:
        try:
            with current_job().transaction():
                seen.append("inside")
        except RuntimeError as error:
            seen.append(str(error))
            raise

    async with Supervisor(1, store=Slow(path), functions=[late], threads=1) as supervisor:
        one = await supervisor.submit(late)
        await entered.wait()
        one.cancel()
        with pytest.raises(JobCancelled):
            await one
        gate.set()
    assert [one.endswith("late is over") for one in seen] == [True]


async def test_what_no_future_may_hold_is_an_error_all_the_same(path):
    """A StopIteration of the job's function in the writer's thread fails the job, and does not hang it."""
    async with supervised(f"sqlite:///{path}") as supervisor, asyncio.timeout(60):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await supervisor.call(read_what_is_not_there)
        assert await supervisor.call(write, 3) == 3


async def test_waiting_for_the_store_that_it_holds_itself(path):
    """An ordinary submit inside the block is refused with advice, instead of waiting in vain."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        with pytest.raises(RuntimeError, match=r"using\(connection\)"):
            await supervisor.call(wait_for_itself)


async def test_transactions_are_for_stored_jobs(path):
    """A job in memory, code outside a job, and a store without tables say so."""

    async def in_memory() -> None:
        current_job().transaction()

    async with Supervisor() as supervisor:
        with pytest.raises(RuntimeError, match="lives in memory"):
            await supervisor.call(in_memory)
        with pytest.raises(ValueError, match="has no store"):
            supervisor.using(current_job)
    async with supervised(MemoryStore()) as supervisor:
        with pytest.raises(StoreUnavailable, match="MemoryStore has no transactions"):
            await supervisor.call(write, 1)


@pytest.mark.parametrize("function", [lead, lead_and_write], ids=lambda f: f.name)
async def test_a_follower_is_stored_with_the_end_of_its_leader(path, function):
    """It runs when its leader has succeeded, and whoever awaits it gets its value."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        ident = await supervisor.call(function, 21)
        (follower,) = FOLLOWERS
        assert follower.id == ident
        assert await follower == 42
        assert rows(path) == ([] if function is lead else [(21, ident)])


@pytest.mark.parametrize("function", [lead, lead_and_write], ids=lambda f: f.name)
async def test_a_follower_of_a_job_that_failed_never_was(path, function):
    """It is cancelled for whoever holds it, and is not in the store."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        with pytest.raises(KeyError):
            await supervisor.call(function, 21, "fail")
        (follower,) = FOLLOWERS
        with pytest.raises(JobCancelled, match="was not stored"):
            await follower
        assert [found.name async for found in supervisor.stored.jobs()] == [function.name]
        assert rows(path) == []


async def test_a_follower_whose_key_is_held_says_so(path, caplog):
    """Of two followers with one key one is stored; the other is cancelled, and a warning says why."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        await supervisor.call(lead_twice, 21)
        ends = [str(end) for end in await asyncio.gather(*FOLLOWERS, return_exceptions=True)]
        assert ends[0] == "42"
        assert "was not stored: another job holds its unique key" in ends[1]
        assert [found.name async for found in supervisor.stored.jobs(name="double_once")] == [
            "double_once"
        ]
    assert "another job holds its unique key" in caplog.text
    assert "double 21" in caplog.text


async def test_a_follower_of_a_transaction_whose_key_is_held_is_the_job_there_is(path, caplog):
    """The second one of a key is answered with the first, and nobody is warned of what was answered."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        await supervisor.call(write_and_lead_twice, 21)
        first, second = FOLLOWERS
        assert first is second
        assert await second == 42
    assert not caplog.text


async def test_followers_need_no_database():
    """In a store without tables they are stored with the end of their leader as well."""
    try:
        async with supervised(MemoryStore()) as supervisor:
            await supervisor.call(lead, 21)
            assert await FOLLOWERS[0] == 42
    finally:
        HERE.clear()
        FOLLOWERS.clear()


async def test_awaiting_what_is_stored_when_one_ends(path):
    """It would never come: WouldDeadlock, at once."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        with pytest.raises(WouldDeadlock):
            await supervisor.call(lead, 1, "await")


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_job_in_a_transaction_of_the_application(path, end):
    """The job exists exactly if the application's own transaction commits, and then begins soon."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("INSERT INTO effects VALUES (1, 'order')")
            submitted = await supervisor.using(connection).submit(double, 21)
            waiting = asyncio.ensure_future(submitted.wait())
            await asyncio.sleep(0)
            getattr(connection, end)()
        await waiting
        if end == "commit":
            assert await submitted == 42
        else:
            with pytest.raises(JobCancelled, match="was not stored"):
                await submitted
        assert len(rows(path)) == (end == "commit")


async def test_a_closed_supervisor_stores_nothing(path):
    """Also with a transaction of the application: SupervisorClosed, and nothing is written."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        using = supervisor.using
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(SupervisorClosed):
            await using(connection).submit(double, 1)
        count = connection.execute("SELECT count(*) FROM asyncworkers_jobs").fetchone()
        assert count == (0,)


async def test_what_is_no_transaction_of_the_application(path, tmp_path):
    """Another thing, a connection without a transaction and one to another file are refused."""
    async with supervised(f"sqlite:///{path}") as supervisor:
        with pytest.raises(TypeError, match=r"must be a sqlite3\.Connection"):
            await supervisor.using("jobs.db").submit(double, 1)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            with pytest.raises(ValueError, match="no transaction open"):
                await supervisor.using(connection).submit(double, 1)
        with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as connection:
            connection.execute("BEGIN")
            with pytest.raises(ValueError, match="another file"):
                await supervisor.using(connection).submit(double, 1)
        with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as connection:
            connection.text_factory = bytes
            connection.execute("ATTACH ? AS jobs", (str(path),))
            connection.execute("BEGIN")
            with pytest.raises(ValueError, match="another file"):
                await supervisor.using(connection).submit(double, 1)
