"""The link is a supervisor's way to its store: it asks, and goes on while the store is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, TypeVar

from asyncworkers import _checks
from asyncworkers._engine.hub import Hub
from asyncworkers._log import log
from asyncworkers.errors import SupervisorClosed
from asyncworkers.events import StoreFound, StoreMissed
from asyncworkers.job import Job
from asyncworkers.store.protocol import Store
from asyncworkers.units import lasting

__all__ = ["EMPTY", "Link", "ignore"]

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds until the store is asked again after it could not be reached: doubled each time."""

EMPTY = Context()
"""What callbacks run in, so that none sees the context variables of whoever caused them."""


class Link:
    """Asks the store, and remembers whether it can be reached.

    `runs` are the jobs leased here, by id; `stir` has the feeder and the settler look, soon.
    """

    def __init__(self, hub: Hub, store: Store, stir: Callable[[], None]) -> None:
        self.hub = hub
        self.store = store
        self.stir = stir
        self.runs: dict[str, Job[Any]] = {}
        self.background: set[asyncio.Task[Any]] = set()  # what is asked and nobody waits for
        self.closed = False
        self.trouble: str | None = None  # what the store last said while it could not be reached
        self._since = 0.0
        self._failures = 0
        self._missed: set[str] = set()
        self._sleepers: set[asyncio.Future[None]] = set()

    def start(self, verb: Callable[[], Awaitable[T]]) -> asyncio.Future[T]:
        """Ask now. Whatever goes wrong is in the future; its exception counts as seen."""
        try:
            awaitable = verb()
            if not asyncio.isfuture(awaitable):
                coroutine = awaitable if asyncio.iscoroutine(awaitable) else _value_of(awaitable)
                awaitable = self.hub.loop.create_task(coroutine, context=Context())
        except Exception as error:  # it could not even be asked
            awaitable = self.hub.loop.create_future()
            awaitable.set_exception(error)
        awaitable.add_done_callback(ignore, context=EMPTY)
        return awaitable

    async def persist(self, verb: Callable[[], Awaitable[T]]) -> T:
        """Ask until the store answers. Raises its error once the supervisor has closed."""
        while True:
            try:
                return await verb()
            except Exception as error:
                if self.closed:
                    raise
                await self.pause(self.missed("maintain", error))

    def see_to(self, verb: Callable[[], Awaitable[Any]]) -> None:
        """Have something done, however often the store must be asked."""

        async def do() -> None:
            with contextlib.suppress(Exception):  # we close
                await self.persist(verb)

        task = self.hub.loop.create_task(do(), context=Context())
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    def missed(self, what: str, error: BaseException) -> float:
        """The store could not do this: say so once, and answer with the seconds to wait.

        What is not asked for regularly counts as maintenance, whose success says that it is back.
        """
        said = _checks.summary(error)
        if self.trouble is None:
            self._since = self.hub.clock.now()
            log.warning("the store cannot be reached, and is asked again until it can: %s", said)
            if self.hub.listeners:
                self.hub.listeners.emit(StoreMissed(self.hub.clock.now(), said))
        self.trouble = said
        self._missed.add(what)
        self._failures += 1
        longest = min(FIRST_PAUSE * 2.0 ** min(self._failures - 1, 30), LONGEST_PAUSE)
        return longest * (0.5 + self.hub.clock.random.random() / 2)

    def found(self, what: str) -> None:
        """The store has done this; it is back when it does again all that it could not."""
        if self.trouble is None:
            return
        self._missed.discard(what)
        if not self._missed:
            self._failures = 0
            self.trouble = None
            seconds = self.hub.clock.now() - self._since
            log.info("the store can be reached again, after %.1f s", seconds)
            if self.hub.listeners:
                self.hub.listeners.emit(StoreFound(self.hub.clock.now(), seconds))
            self.stir()

    @property
    def why(self) -> str | None:
        """A sentence on why the store does nothing, if it does not."""
        if self.trouble is None:
            return None
        seconds = self.hub.clock.now() - self._since
        return f"the store cannot be reached, for {lasting(seconds)}: {self.trouble}"

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the supervisor's end."""
        if self.closed:
            return
        loop = self.hub.loop
        future: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _resolve, future)
        self._sleepers.add(future)
        try:
            await future
        finally:
            timer.cancel()
            self._sleepers.discard(future)

    def close(self) -> None:
        """The supervisor ends: nobody waits any more."""
        self.closed = True
        for future in tuple(self._sleepers):
            _resolve(future)

    def closed_error(self, what: str) -> SupervisorClosed:
        """The error for who wants to know more of the store."""
        return SupervisorClosed(f"supervisor {self.hub.name!r} has closed its store: {what}")


async def _value_of(awaitable: Awaitable[T]) -> T:
    return await awaitable


def ignore(future: asyncio.Future[Any]) -> None:
    """Whoever asked may not wait any more; that is no reason for asyncio to complain."""
    if not future.cancelled():
        future.exception()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
