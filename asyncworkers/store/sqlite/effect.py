"""A transaction of a job's own: the rows it writes, and its settle, in one commit.

The file has one writer at a time, so while such a transaction is open the writer's thread serves it
and nothing else; what is asked meanwhile gathers, and goes with the next commit. Therefore it is
short, and ends by itself when it is not.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from asyncworkers.errors import StoreBusy, StoreUnavailable
from asyncworkers.store.protocol import Receipt, Settlement, Submission
from asyncworkers.store.sqlite.place import Place
from asyncworkers.store.sqlite.transaction import News, Tables

__all__ = ["BlockingConnection", "Connection", "Effect", "Plain", "guard", "is_closed"]

T = TypeVar("T")

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]

_Asked: TypeAlias = tuple[Callable[[sqlite3.Connection], Any], concurrent.futures.Future[Any]]

DENIED = {sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}
WRITES = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE}
CHANGES = {
    *(sqlite3.SQLITE_ALTER_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_DROP_INDEX),
    *(sqlite3.SQLITE_CREATE_TRIGGER, sqlite3.SQLITE_CREATE_TEMP_TRIGGER),
}
"""Those that name the table second."""


class Connection:
    """What a job on the loop writes through: `async with current_job().transaction() as connection`.

    Each call runs in the store's writer thread, on an ordinary `sqlite3.Connection` to the file that
    holds the jobs. The transaction is begun and ended for you, and the tables of asyncworkers can
    only be read.
    """

    def __init__(self, effect: Effect) -> None:
        self._effect = effect

    @property
    def effect(self) -> Effect:
        """The transaction."""
        return self._effect

    async def execute(self, sql: str, parameters: Parameters = ()) -> list[Any]:
        """Execute one statement; its rows, all of them. Raises what sqlite3 raises."""
        return await self.run(lambda on: on.execute(sql, parameters).fetchall())

    async def executemany(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Execute one statement for each of these rows; how many rows that changed."""
        listed = list(rows)
        return await self.run(lambda on: on.executemany(sql, listed).rowcount)

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Call the function with the connection, in the writer's thread; its value."""

        def call(on: sqlite3.Connection) -> T:
            try:
                return function(on)
            except StopIteration as error:  # which no future may hold: it would never be done
                raise RuntimeError("the function raised StopIteration, as of next()") from error

        answer: T = await asyncio.wrap_future(self._effect.ask(call))
        return answer


class BlockingConnection:
    """The same for a job in a thread: `with current_job().transaction() as connection`."""

    def __init__(self, effect: Effect) -> None:
        self._effect = effect

    @property
    def effect(self) -> Effect:
        """The transaction."""
        return self._effect

    def execute(self, sql: str, parameters: Parameters = ()) -> list[Any]:
        """Execute one statement; its rows, all of them. Raises what sqlite3 raises."""
        return self.run(lambda on: on.execute(sql, parameters).fetchall())

    def executemany(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Execute one statement for each of these rows; how many rows that changed."""
        listed = list(rows)
        return self.run(lambda on: on.executemany(sql, listed).rowcount)

    def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Call the function with the connection, in the writer's thread; its value."""
        answer: T = self._effect.ask(function).result()
        return answer


class Effect:
    """One transaction. `ask` is called from anywhere, `serve` is the writer's thread's part.

    `worker` holds the job, `make_tables` gives what writes jobs on the connection, `tell` is told what was committed.
    """

    def __init__(
        self,
        place: Place,
        longest: float,
        worker: int,
        make_tables: Callable[[sqlite3.Connection], Tables],
        tell: Callable[[News], None],
    ) -> None:
        self._place = place
        self._longest = longest
        self._worker = worker
        self._make_tables, self._tell = make_tables, tell
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._over: Exception | None = None
        self._tables: Tables | None = None
        self._ours = False
        self._news: News | None = None
        self.begun: concurrent.futures.Future[None] = concurrent.futures.Future()

    # ---- from anywhere

    @property
    def connection(self) -> Connection:
        """For code on the loop."""
        return Connection(self)

    @property
    def blocking(self) -> BlockingConnection:
        """For code in a thread."""
        return BlockingConnection(self)

    async def wait_begun(self) -> None:
        """Wait for its turn."""
        await asyncio.wrap_future(self.begun)

    def ask(self, do: Callable[[sqlite3.Connection], T]) -> concurrent.futures.Future[T]:
        """Have something done inside the transaction."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        with self._lock:
            if self._over is not None:
                future.set_exception(self._over)
            else:
                self._asked.put((do, future))
        return future

    def undo(self) -> None:
        """Roll it back, whether it has begun or not; does nothing once it is over."""
        self._asked.put(None)

    async def submit(self, batch: Sequence[Submission]) -> list[Receipt]:
        """Store jobs with it."""
        listed = list(batch)
        return await asyncio.wrap_future(
            self.ask(lambda on: self._as_ours(on, self._submit, listed))
        )

    def settle(self, settlement: Settlement) -> asyncio.Future[bool]:
        """Settle, and commit everything together; False, and nothing is written, if the lease was
        lost meanwhile. Raises StoreUnavailable if it could not be committed.

        It is asked at once, and is no task, which would be cancelled by what cancels all of them.
        """
        return asyncio.wrap_future(self.ask(lambda on: self._as_ours(on, self._settle, settlement)))

    # ---- in the writer's thread

    def refuse(self, error: BaseException) -> None:
        """It cannot even begin, or the thread broke off while it served it: nobody waits for it."""
        self._close(StoreUnavailable("the transaction could not begin"))
        begun = self.begun
        if begun.running() or (not begun.done() and begun.set_running_or_notify_cancel()):
            begun.set_exception(self._place.translate(error))

    def serve(self, connection: sqlite3.Connection) -> None:
        """Do what is asked until it is over."""
        if not self.begun.set_running_or_notify_cancel():
            self._end(connection, StoreUnavailable("the transaction was not wanted any more"))
            return
        self._ours = True
        guard(connection, lambda: self._ours)
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._tables = self._make_tables(connection)
            self._ours = False
        except BaseException as error:
            final = self._place.translate(error)
            self._end(connection, StoreUnavailable("the transaction could not begin"))
            self.begun.set_exception(final)
            return
        self.begun.set_result(None)
        ends = time.monotonic() + self._longest
        while self._over is None:
            try:
                asked = self._asked.get(timeout=max(0.0, ends - time.monotonic()))
            except queue.Empty:
                late = StoreBusy(
                    f"a job's transaction held {self._place.name} for {self._longest:g} s and was "
                    "rolled back: do what takes long before it"
                )
                self._end(connection, late)
                break
            if asked is None:
                self._end(connection, StoreUnavailable("the transaction was rolled back"))
                break
            do, future = asked
            if not future.set_running_or_notify_cancel():
                continue
            try:
                answer = do(connection)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(answer)
            self._end_if_undone(connection)
        if self._news is not None:
            self._tell(self._news)

    def _as_ours(self, connection: sqlite3.Connection, do: Callable[..., T], *args: Any) -> T:
        """What the job must not do itself: its statements reach our tables, and its end."""
        connection.row_factory, connection.text_factory = None, bytes
        self._ours = True
        try:
            return do(connection, *args)
        finally:
            self._ours = False
            connection.text_factory = str

    def _submit(self, _: sqlite3.Connection, batch: list[Submission]) -> list[Receipt]:
        assert self._tables is not None
        with self._place.translated():
            return self._tables.submit(batch)

    def _settle(self, connection: sqlite3.Connection, settlement: Settlement) -> bool:
        assert self._tables is not None
        tables = self._tables
        try:
            before = connection.total_changes
            (accepted,) = tables.settle(self._worker, [settlement])
            if connection.total_changes == before or not accepted:
                self._end(connection, StoreUnavailable("the job belongs to somebody else now"))
                return accepted
            connection.execute("COMMIT")
        except BaseException as error:
            final = self._place.translate(error)
            self._end(connection, StoreUnavailable("the transaction could not be committed"))
            raise final from error
        self._end(connection, StoreUnavailable("the transaction was committed with its job"))
        self._news = tables.news
        return True

    def _end_if_undone(self, connection: sqlite3.Connection) -> None:
        """End if SQLite has undone everything by itself, as at INSERT OR ROLLBACK, or when the disk is
        full: what came after that would be committed at once, without the job. Or if the job has
        closed the connection, which undoes everything as well.
        """
        if self._over is not None:
            return
        if is_closed(connection):
            self._end(
                connection, StoreUnavailable("the job has closed its transaction's connection")
            )
        elif not connection.in_transaction:
            self._end(connection, StoreUnavailable("SQLite rolled the transaction back"))

    def _end(self, connection: sqlite3.Connection, error: Exception) -> None:
        """Whatever was not committed is undone; whoever asks from now on gets this error."""
        self._ours = True
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        self._close(error)

    def _close(self, error: Exception) -> None:
        with self._lock:
            self._over = error
            while not self._asked.empty():
                left = self._asked.get()
                if left is not None and left[1].set_running_or_notify_cancel():
                    left[1].set_exception(error)


class Plain:
    """Somebody else's connection, used without their settings for rows."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        """Execute one statement; rows are tuples."""
        cursor = self._connection.cursor()
        cursor.row_factory = None
        return cursor.execute(sql, values)

    @property
    def total_changes(self) -> int:
        """Rows changed so far."""
        return self._connection.total_changes

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._connection.in_transaction


def is_closed(connection: sqlite3.Connection) -> bool:
    """Whether somebody has closed the connection."""
    try:
        connection.in_transaction  # noqa: B018
    except sqlite3.ProgrammingError:
        return True
    return False


def guard(connection: sqlite3.Connection, ours: Callable[[], bool]) -> None:
    """Refuse statements that would end the transaction, or change our tables, unless they are ours."""

    def allows(action: int, first: str | None, second: str | None, *_: Any) -> int:
        if ours():
            return sqlite3.SQLITE_OK
        table = first if action in WRITES else second if action in CHANGES else None
        if action in DENIED or str(table).lower().startswith("asyncworkers_"):
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    connection.row_factory, connection.text_factory = None, str
    connection.set_authorizer(allows)
