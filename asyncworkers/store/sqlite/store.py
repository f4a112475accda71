"""The SQLite store: what a supervisor asks, carried to the writer's and the reader's thread and back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from asyncworkers import _checks
from asyncworkers._log import log
from asyncworkers.errors import StoreUnavailable, WrongLoop, WrongProcess
from asyncworkers.store.clock import StoreClock, SystemClock
from asyncworkers.store.protocol import (
    CODEC,
    HISTORY,
    KEEP,
    KEEP_DEAD,
    LOSSES,
    TTL,
    Cancelled,
    Lease,
    Maintained,
    Page,
    QueueCounts,
    Receipt,
    Renewal,
    Settlement,
    StoredJob,
    Submission,
    Tally,
    Want,
    Where,
)
from asyncworkers.store.sqlite import schema
from asyncworkers.store.sqlite.effect import Effect, Plain, is_closed
from asyncworkers.store.sqlite.place import Durability, Place
from asyncworkers.store.sqlite.presence import ENDED, READY, Board, Presence
from asyncworkers.store.sqlite.reading import Outlook, Reading
from asyncworkers.store.sqlite.records import milliseconds
from asyncworkers.store.sqlite.thread import Ask, Batches
from asyncworkers.store.sqlite.transaction import News, Settings, Tables

__all__ = ["SqliteStore"]

LOOK_AGAIN = 1.0
"""Seconds after which whoever waits looks anyway, should a bell have been missed."""

LOOK_AT_FILE = 0.25
"""Seconds between two looks at whether the file is still there, while there is something to do."""

MANY = 100
"""Jobs whose submission begins while the loop goes on with its turn: it has as much to do for each."""

COUNT_HISTORY = 60.0
"""Seconds between two counts of all ended jobs."""

LARGE_LOG = 64 * 2**20
"""Bytes of the write-ahead log at which something keeps SQLite from emptying it."""


class SqliteStore:
    """Jobs in a SQLite file, which may be shared by all processes of one machine.

    - `path`: the file; it is made, readable by its owner only, if it is not there. A directory
      `<path>-workers` beside it holds what the processes know of each other.
    - `durability`: "power" commits to the disk before `submit` returns. "process" leaves that to
      the system: nothing is lost when a process dies, but a power cut may take the last seconds.
    - `ttl`: seconds for which a worker that says nothing counts as alive. A process that has ended
      is noticed at once, by a lock that the kernel lets go.
    - `busy`: seconds to wait for another program that writes to the file.
    - `losses`, `keep`, `keep_dead`, `history`: see `MemoryData`.

    Bound to the loop and the process in which it is opened. Needs a POSIX system.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "power",
        ttl: float | timedelta = TTL,
        busy: float | timedelta = 5.0,
        losses: int = LOSSES,
        keep: float | timedelta = KEEP,
        keep_dead: float | timedelta = KEEP_DEAD,
        history: int = HISTORY,
        clock: StoreClock | None = None,
    ) -> None:
        text = os.fspath(path)
        if type(text) is not str or not text or "\0" in text:
            raise ValueError(f"path must name a file, not {_checks.shown(path)}")
        _checks.one_of("durability", durability, ("power", "process"))
        self._ttl = _checks.duration("ttl", ttl, zero=False)
        self._settings = Settings(
            _checks.whole("losses", losses, 1, 1_000_000),
            milliseconds(_checks.duration("keep", keep)),
            milliseconds(_checks.duration("keep_dead", keep_dead)),
            _checks.whole("history", history, 0, 2**40),
        )
        self._place = Place(Path(text).absolute(), durability, _checks.duration("busy", busy))
        self._clock = clock or SystemClock()
        self._open: _Open | None = None

    @property
    def ttl(self) -> float:
        """Seconds that this worker counts as alive after a renewal."""
        return self._ttl

    @property
    def path(self) -> Path:
        """The file."""
        return self._place.path

    # ---- running

    async def open(self, names: Collection[str] = (), codecs: Collection[str] = (CODEC,)) -> None:
        """Open the file, making or migrating what is in it, and come in as a worker.

        Raises StoreUnavailable, or one of its kinds, naming the path and the cause.
        """
        if self._open is not None:
            raise StoreUnavailable(f"{self._place.name} is open already")
        opened = _Open(
            self._place, self._clock, self._settings, self._ttl, frozenset(names), frozenset(codecs)
        )
        await opened.begin()
        self._open = opened

    async def close(self) -> None:
        """Leave. What is still leased goes back; what had begun is charged for it."""
        opened, self._open = self._open, None
        if opened is not None:
            await opened.end()

    def submit(self, batch: Sequence[Submission]) -> Awaitable[list[Receipt]]:
        """Store jobs: all of the batch in one commit or none."""
        return self._use().write("submit", batch, at_once=len(batch) >= MANY)

    def lease(self, wants: Sequence[Want]) -> Awaitable[list[Lease]]:
        """Take waiting jobs that are due."""
        return self._use().write("lease", wants)

    def holding(self) -> Awaitable[list[Lease]]:
        """The leases that this worker has now."""
        return self._use().write("holding", None)

    def breathe(self) -> None:
        """Let the writer have the interpreter, if it is at work, before the loop goes on."""
        if self._open is not None:
            self._open.writer.breathe()

    def started(self, lease: Lease) -> None:
        """Note that the job begins now."""
        opened = self._open
        if opened is None:
            raise StoreUnavailable(f"{self._place.name} is not open")
        opened.presence.begin(lease.seq, lease.token)

    def settle(self, batch: Sequence[Settlement]) -> Awaitable[list[bool]]:
        """End leases."""
        return self._use().write("settle", batch)

    def renew(self, progress: Sequence[tuple[Lease, str]] = ()) -> Renewal:
        """Count as alive for another `ttl` seconds; from any thread."""
        opened = self._open
        if opened is None:
            raise StoreUnavailable(f"{self._place.name} is not open")
        opened.check_process()
        answer: Renewal = opened.writer.ask_and_wait("renew", tuple(progress))
        return answer

    def transaction(self) -> Effect:
        """Begin a transaction whose settle commits it; from any thread."""
        opened = self._open
        if opened is None:
            raise StoreUnavailable(f"{self._place.name} is not open")
        return opened.effect()

    def submit_on(self, connection: Any, batch: Sequence[Submission]) -> list[Receipt]:
        """Store jobs in a transaction that is open on somebody else's connection to the same file,
        in this thread. They exist exactly if it is committed.

        Raises TypeError or ValueError for what is no such connection.
        """
        opened = self._use()
        opened.check_foreign(connection)
        with self._place.translated():
            return opened.tables_on(Plain(connection)).submit(batch)

    def committed(self) -> Awaitable[None]:
        """Have everybody look for jobs: something was committed past this store."""
        return self._use().change(Tables.say_ready)

    async def wait_ready(self, queues: Collection[str], timeout: float) -> bool:
        """Wait until there is something to lease."""
        opened = self._use()

        async def look() -> Outlook:
            names, codecs = opened.names, opened.codecs
            seen: Outlook = await opened.read(lambda on: on.outlook(queues, names, codecs))
            return seen

        return await opened.wait(READY, look, timeout, frozenset(queues))

    async def maintain(self) -> Maintained:
        """Bring back the jobs of dead workers, expire, prune."""
        return await self._use().maintain()

    # ---- looking and steering

    def get(self, ids: Sequence[str]) -> Awaitable[list[StoredJob | None]]:
        """The jobs with these ids."""
        return self._use().read(lambda on: on.get(ids))

    def find(self, where: Where, *, limit: int = 100, after: int | None = None) -> Awaitable[Page]:
        """A page of jobs, newest first."""
        return self._use().read(lambda on: on.find(where, limit, after))

    async def wait_ended(self, ids: Collection[str], timeout: float) -> bool:
        """Wait until one of these jobs has ended."""
        opened = self._use()

        async def look() -> Outlook:
            return Outlook(await opened.read(lambda on: on.any_ended(ids)), None)

        return await opened.wait(ENDED, look, timeout)

    def counts(self) -> Awaitable[list[QueueCounts]]:
        """How every queue stands."""
        opened = self._use()
        return opened.read(lambda on: on.counts(opened.names, opened.codecs))

    def tally(self, where: Where, *, since: int | None = None) -> Awaitable[Tally]:
        """Count jobs."""
        return self._use().read(lambda on: on.tally(where, since))

    def cancel(self, where: Where, error: str) -> Awaitable[list[Cancelled]]:
        """Cancel waiting jobs, mark running ones."""
        return self._use().change(lambda tables: tables.cancel(where, error))

    def retry(self, where: Where) -> Awaitable[list[str]]:
        """Put dead jobs back in line."""
        return self._use().change(lambda tables: tables.retry(where))

    def purge(self, where: Where) -> Awaitable[int]:
        """Forget ended jobs."""
        return self._use().change(lambda tables: tables.purge(where))

    def pause(self, queue: str, paused: bool) -> Awaitable[None]:
        """Give out no jobs of the queue, or go on."""
        return self._use().change(lambda tables: tables.pause(queue, paused))

    # ---- how

    def _use(self) -> _Open:
        opened = self._open
        if opened is None:
            raise StoreUnavailable(f"{self._place.name} is not open")
        opened.check_process()
        if asyncio.get_running_loop() is not opened.loop:
            raise WrongLoop(
                "a store is used in the loop that opened it; `renew` alone from threads"
            )
        return opened

    def __repr__(self) -> str:
        return f"<SqliteStore {self._place.name} {'open' if self._open else 'closed'}>"


class _Open:
    """A store while it is open. The methods say in which thread they run."""

    presence: Presence
    _tables: Tables
    _reading: Reading
    _board: Board

    def __init__(
        self,
        place: Place,
        clock: StoreClock,
        settings: Settings,
        ttl: float,
        names: frozenset[str],
        codecs: frozenset[str],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.names = names
        self.codecs = codecs
        self._place = place
        self._clock = clock
        self._settings = settings
        self._ttl = ttl
        self._pid = os.getpid()
        self._looked_at_file = 0.0
        self._counted = -COUNT_HISTORY
        self._surplus: int | None = None  # ended jobs that the last round left to the next
        self._log_is_large = False
        self._writing: sqlite3.Connection | None = None
        self._effects: sqlite3.Connection | None = None
        self._seeing: sqlite3.Connection | None = None
        # For READY and for ENDED: who waits, and for which queues, if not for any.
        self._waiters: tuple[dict[asyncio.Future[None], frozenset[str] | None], ...] = ({}, {})
        self._untold: deque[News] = deque()  # committed, and not yet heard of on the loop
        self._unserved: deque[Effect] = deque()  # the job transactions to come, and the one at work
        self._broken: BaseException | None = None
        self._leaving = False
        self._arriving: Presence | None = None
        self.writer: Batches
        self._reader: Batches | None = None

    # ---- on the loop

    async def begin(self) -> None:
        """Open everything; on the loop."""
        self.writer = Batches(
            self.loop,
            "asyncworkers store: writer",
            start=self._start_writing,
            work=self._work,
            stop=self._stop_writing,
            deliver=self._answer,
        )
        try:
            await self.writer.opened
        except BaseException:
            await _until(self.writer.close())
            self.writer.join()
            raise
        self._reader = Batches(
            self.loop,
            "asyncworkers store: reader",
            start=self._start_reading,
            work=self._look,
            stop=self._stop_reading,
            deliver=self._answer,
        )
        self._listen()
        try:
            await self._reader.opened
        except BaseException:
            await self.end()
            raise

    async def end(self) -> None:
        """Leave; on the loop."""
        self.check_process()
        self._leaving = True
        self.loop.remove_reader(self.presence.bell)
        self._wake(READY)
        self._wake(ENDED)
        try:
            if self._broken is None:
                await _until(self.writer.ask("leave", None))
        finally:
            for thread in (self._reader, self.writer):
                if thread is not None:
                    await _until(thread.close())
                    thread.join()

    def check_process(self) -> None:
        """Refuse to work in a forked child; closing anything there would harm the parent."""
        if os.getpid() != self._pid:
            raise WrongProcess(
                "the process was forked after the store was opened: open one in the child"
            )

    def check_foreign(self, connection: Any) -> None:
        """Refuse what is no connection to this file with a transaction open on it."""
        if not isinstance(connection, sqlite3.Connection):
            raise TypeError(
                "connection must be a sqlite3.Connection, or that of a job's transaction, not "
                f"{_checks.shown(connection)}"
            )
        if not connection.in_transaction:
            raise ValueError(
                "connection has no transaction open, so nothing would commit with the job: "
                'execute("BEGIN IMMEDIATE") first, or something that writes'
            )
        for _, name, file in Plain(connection).execute("PRAGMA database_list").fetchall():
            if name in ("main", b"main"):  # as text or as bytes, whatever their settings are
                path = Path(os.fsdecode(file or "."))
                if path.exists() and path.samefile(self._place.path):
                    return
        raise ValueError(f"connection is open on another file than {self._place.name}")

    def write(self, verb: str, items: Any, *, at_once: bool = False) -> Awaitable[Any]:
        """Ask the writer."""
        if self._broken is not None:
            raise self._broken
        return self.writer.ask(verb, items, at_once=at_once)

    def change(self, do: Callable[[Tables], Any]) -> Awaitable[Any]:
        """Ask the writer to do something to the tables."""
        return self.write("change", do)

    def read(self, look: Callable[[Reading], Any]) -> Awaitable[Any]:
        """Ask the reader."""
        assert self._reader is not None
        return self._reader.ask("read", look)

    async def wait(
        self,
        what: int,
        look: Callable[[], Awaitable[Outlook]],
        timeout: float,
        queues: frozenset[str] | None = None,
    ) -> bool:
        """Wait until a look finds something; whatever happens (to these queues) after it wakes us."""
        deadline = self.loop.time() + timeout
        while not self._leaving:
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._waiters[what][waiter] = queues
            self._board.wait(self.presence.worker, what, True)
            timer = None
            try:
                seen = await look()
                left = min(deadline - self.loop.time(), LOOK_AGAIN)
                if seen.ready or left <= 0:
                    return seen.ready
                if seen.seconds is not None:
                    left = min(left, seen.seconds)
                timer = self.loop.call_later(left, _set, waiter)
                await waiter
            finally:
                del self._waiters[what][waiter]
                if timer is not None:
                    timer.cancel()
                if not self._waiters[what]:
                    self._board.wait(self.presence.worker, what, False)
            self.check_process()
        return False

    async def maintain(self) -> Maintained:
        """A round of maintenance; counting all ended jobs is left to the reader."""
        if self._surplus is None and self._clock.uptime() - self._counted >= COUNT_HISTORY:
            self._counted = self._clock.uptime()
            self._surplus = await self.read(lambda on: on.surplus(self._settings.history))
        surplus, self._surplus = self._surplus, None
        answer: Maintained
        answer, self._surplus = await self.write("maintain", surplus)
        size = await self.read(lambda _: self._place.wal_size())
        if size < LARGE_LOG:
            self._log_is_large = False
        elif not self._log_is_large:
            self._log_is_large = True
            log.warning(
                "the write-ahead log of %s has grown to %d MB: some program keeps reading from the "
                "file without an end, so that SQLite cannot empty it",
                self._place.name,
                size // 2**20,
            )
        return answer

    def _listen(self) -> None:
        self.loop.add_reader(self.presence.bell, self._heard)

    def _heard(self) -> None:
        """Another process has something for us."""
        self.presence.heard()
        self._wake(READY)
        self._wake(ENDED)

    def _wake(self, what: int, queues: set[str] | None = None) -> None:
        for waiter, wanted in self._waiters[what].items():
            if queues is None or wanted is None or not queues.isdisjoint(wanted):
                _set(waiter)

    def _spread(self) -> None:
        """Hear what was committed."""
        while self._untold:
            news = self._untold.popleft()
            self.presence.end(news.settled)
            if news.ready:
                self._wake(READY)
            elif news.queues:
                self._wake(READY, news.queues)
            if news.ended:
                self._wake(ENDED)

    def _answer(self, asks: Sequence[Ask]) -> None:
        """Hand out answers, after what was committed with them."""
        self._spread()
        for ask in asks:
            future = ask.future
            if future is None:
                if ask.verb == "effect" and ask.error is not None:
                    ask.items.refuse(ask.error)  # nobody will serve it
                continue
            if not future.done():
                if ask.error is not None:
                    future.set_exception(ask.error)
                else:
                    future.set_result(ask.answer)
            elif ask.verb == "lease" and ask.answer:
                # Whoever asked was cancelled: nobody would ever run these.
                self.write("settle", [Settlement.release(lease) for lease in ask.answer])

    # ---- in the writer's thread

    def _start_writing(self) -> None:
        self._place.prepare()
        with self._place.translated():
            connection = self._writing = self._place.connect()
            board: Board | None = None
            try:
                schema.migrate(connection, self._place.name)
                self._tables = Tables(connection, self._clock, self._settings)
                self._board = board = Board(self._place.path)
                self._tables.begin()
                self._come_in()
                self._tables.commit()
            except BaseException:
                if self._arriving is not None:
                    self._arriving.leave()
                if board is not None:
                    board.close()
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                connection.close()
                raise
        self._arrived()

    def _come_in(self) -> None:
        """Take this worker in, inside a transaction; it has `_arrived` when that is committed."""
        beyond = self._board.newest()  # the file may be older than those who have it open
        self._board.clear_up(self._tables.workers())
        number = self._tables.enlist(self._pid, self._clock.boot(), self._expires(), beyond)
        self._arriving = Presence(self._board.directory, number)

    def _arrived(self) -> None:
        assert self._arriving is not None
        self.presence, self._arriving = self._arriving, None
        self._board.announce()

    def _expires(self) -> int:
        return milliseconds(self._clock.uptime() + self._ttl)

    def _stop_writing(self) -> None:
        for effect in self._unserved:  # the thread broke off
            effect.refuse(StoreUnavailable("the store's thread has ended"))
        assert self._writing is not None
        self._writing.close()
        if self._effects is not None:
            self._effects.close()
        self.presence.leave()
        self._board.close()

    def _work(self, asks: Sequence[Ask]) -> Sequence[Callable[[], None]]:
        """Do everything that was asked, in one transaction if nothing goes wrong; transactions of
        jobs come after it.
        """
        effects = [ask.items for ask in asks if ask.verb == "effect"]
        if effects:
            asks = [ask for ask in asks if ask.verb != "effect"]
        if asks:
            self._do(asks)
        self._unserved += effects
        return [self._serve] * len(effects)

    def _serve(self) -> None:
        """A job's own transaction, from its beginning to its end."""
        effect = self._unserved[0]
        try:
            self._place.check_identity()
            if self._effects is None or is_closed(self._effects):  # by the job before
                self._effects = self._place.connect()
        except BaseException as error:
            effect.refuse(error)
        else:
            effect.serve(self._effects)
        self._unserved.popleft()

    def tables_on(self, connection: Any) -> Tables:
        """What writes jobs inside a transaction that is open on this connection."""
        tables = Tables(connection, self._clock, self._settings)
        tables.now = milliseconds(self._clock.wall())
        return tables

    def effect(self) -> Effect:
        """Begin a transaction of a job's own, as soon as it is its turn; from any thread."""
        self.check_process()
        if self._broken is not None:
            raise self._broken
        worker = self.presence.worker
        effect = Effect(
            self._place, self._place.busy / 2, worker, self.tables_on, self._tell_at_once
        )
        self.writer.post("effect", effect)
        return effect

    def _do(self, asks: Sequence[Ask]) -> None:
        try:
            self._look_at_file()
            self._commit(asks)
            return
        except BaseException as error:
            self._undo()
            final = self._place.translate(error)
            everybodys = isinstance(error, (sqlite3.OperationalError, StoreUnavailable))
            if everybodys or len(asks) == 1:
                self._refuse(asks, final)
                return
        for ask in asks:  # one of them cannot be done: the others must not suffer for it
            try:
                self._commit([ask])
            except BaseException as error:
                self._undo()
                self._refuse([ask], self._place.translate(error))

    def _undo(self) -> None:
        if self._arriving is not None:
            self._arriving.leave()
            self._arriving = None
        try:
            self._tables.rollback()
        except sqlite3.Error:
            log.error("a transaction on %s could not be undone", self._place.name)

    def _refuse(self, asks: Sequence[Ask], error: BaseException) -> None:
        for ask in asks:
            ask.answer, ask.error = None, error

    def _look_at_file(self) -> None:
        """Nothing may be accepted into a file that nobody will ever find again."""
        now = self.loop.time()
        if now - self._looked_at_file >= LOOK_AT_FILE:
            self._place.check_identity()
            self._looked_at_file = now

    def _commit(self, asks: Sequence[Ask]) -> None:
        """One transaction. What leases comes last, so that it finds what comes with it."""
        tables = self._tables
        tables.begin()
        after: list[Callable[[], None]] = []
        together: dict[str, list[Ask]] = {}
        for ask in asks:
            together.setdefault(ask.verb, []).append(ask)
        settle = partial(tables.settle, self.presence.worker)
        for verb, do in (("settle", settle), ("submit", tables.submit)):
            self._merged(together.get(verb, ()), do)
        for ask in asks:
            match ask.verb:
                case "change":
                    ask.answer = ask.items(tables)
                case "maintain":
                    done, dead, left = tables.maintain(
                        self._board.directory, self.presence.worker, ask.items
                    )
                    ask.answer = done, left
                    after += [one.bury for one in dead]
                case "renew":
                    ask.answer = self._renew(ask.items, after)
                case "holding":
                    ask.answer = tables.holding(self.presence.worker)
                case "leave":
                    tables.bring_back(self.presence.worker, self.presence.begun(), certain=True)
                case _:
                    pass
        for ask in together.get("lease", ()):
            ask.answer = tables.lease(self.presence.worker, ask.items, self.names, self.codecs)
        tables.commit()
        for act in after:
            try:
                act()
            except OSError as error:  # what was committed must not be done again
                log.failure("a file beside the store could not be tidied", error)
        self._tell(tables.news)  # the loop hears of it with the answers

    def _merged(self, asks: Sequence[Ask], do: Callable[[list[Any]], list[Any]]) -> None:
        """Do the items of several asks as one, and give each its part of the answers."""
        if not asks:
            return
        answers = do([item for ask in asks for item in ask.items])
        start = 0
        for ask in asks:
            end = start + len(ask.items)
            ask.answer = answers[start:end]
            start = end

    def _renew(self, progress: Any, after: list[Callable[[], None]]) -> Renewal:
        worker = self.presence.worker
        if self._tables.renew(worker, self._expires(), progress):
            return Renewal(cancel=self._tables.marks(worker))
        # Our time had run out and others have our jobs: come in anew.
        self._come_in()
        after.append(self._move)
        return Renewal(lost=True)

    def _move(self) -> None:
        old = self.presence
        self._arrived()

        def listen() -> None:
            self.loop.remove_reader(old.bell)
            old.leave()
            self._listen()
            self._heard()

        with contextlib.suppress(RuntimeError):  # the loop may have been closed under us
            self.loop.call_soon_threadsafe(listen)

    def _tell(self, news: News) -> None:
        worker = self.presence.worker
        try:
            if news.ready or news.queues:
                self._board.ring(worker, READY)
            if news.ended:
                self._board.ring(worker, ENDED)
        except OSError as error:  # it is committed, and whoever waits looks once a second anyway
            log.failure("the other workers of the store could not be woken", error)
        self._untold.append(news)

    def _tell_at_once(self, news: News) -> None:
        self._tell(news)
        with contextlib.suppress(RuntimeError):  # the loop may have been closed under us
            self.loop.call_soon_threadsafe(self._spread)

    # ---- in the reader's thread

    def _start_reading(self) -> None:
        self._seeing = self._place.connect(reading=True)
        self._reading = Reading(self._seeing, self._clock)

    def _stop_reading(self) -> None:
        assert self._seeing is not None
        self._seeing.close()

    def _look(self, asks: Sequence[Ask]) -> Sequence[Callable[[], None]]:
        for ask in asks:
            try:
                ask.answer = ask.items(self._reading)
            except BaseException as error:
                ask.error = self._place.translate(error)
        return ()


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _until(done: asyncio.Future[Any]) -> None:
    """Wait for what must not be left half done, even if whoever waits is cancelled."""
    cancelled: asyncio.CancelledError | None = None
    while not done.done():
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:
            break
    if cancelled is not None:
        raise cancelled
