"""A job's own transaction: rows that are committed together with its settle.

Imports nothing of the store before it is used: `current_job()` is for jobs in memory too.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any

from asyncworkers.errors import StoreUnavailable
from asyncworkers.job import RUNNING, Job

if TYPE_CHECKING:
    from asyncworkers.store.protocol import Transaction
    from asyncworkers.store.sqlite.effect import BlockingConnection, Connection

__all__ = ["JobTransaction"]


class JobTransaction:
    """`async with current_job().transaction() as connection`, or `with ...` in a thread.

    What is written through the connection is committed together with the end of the job: all of it if
    the job succeeds, none of it otherwise, and once, however often the job is begun. Leaving the block
    with an exception undoes it at once. Nobody else can write to the store meanwhile, so the block is
    short and the last thing that the job does; after some seconds it is undone, and the attempt fails.
    """

    def __init__(self, job: Job[Any]) -> None:
        from asyncworkers._engine.stored.queue import held_of

        self._job = job
        self._held = held_of(job, "transaction()")
        self._transaction: Transaction | None = None

    def _begin(self) -> Transaction:
        held = self._held
        home: Any = self._job._order.home
        begin: Any = getattr(home.desk.link.store, "transaction", None)
        if begin is None:
            raise StoreUnavailable(
                f"{type(home.desk.link.store).__name__} has no transactions that a job could share"
            )
        if held.transaction is not None:
            raise RuntimeError(f"this attempt of {self._job.name} has its transaction already")
        if self._job._state != RUNNING:
            raise RuntimeError(f"this attempt of {self._job.name} is over")
        transaction: Transaction = begin()
        self._transaction = held.transaction = transaction
        if self._job._state != RUNNING:  # by now: in a thread, this goes on beside the loop
            transaction.undo()
            raise RuntimeError(f"this attempt of {self._job.name} is over")
        return transaction

    def _leave(self, error: BaseException | None) -> None:
        if error is not None and self._transaction is not None:
            self._transaction.undo()
            if self._held.transaction is self._transaction:
                self._held.transaction = None

    async def __aenter__(self) -> Connection:
        transaction = self._begin()
        try:
            await asyncio.wrap_future(transaction.begun)
        except BaseException as error:
            self._leave(error)
            raise
        connection: Connection = transaction.connection
        return connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(error)

    def __enter__(self) -> BlockingConnection:
        home: Any = self._job._order.home
        try:
            here = asyncio.get_running_loop() is home.hub.loop
        except RuntimeError:
            here = False
        if here:
            raise RuntimeError("on the event loop it is `async with current_job().transaction()`")
        transaction = self._begin()
        try:
            transaction.begun.result()
        except BaseException as error:
            self._leave(error)
            raise
        connection: BlockingConnection = transaction.blocking
        return connection

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(error)
