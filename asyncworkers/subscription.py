"""A Subscription is the stream of a supervisor's events for who reads them one by one, however slowly."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self

from asyncworkers import _checks
from asyncworkers.events import Event, Listener, SupervisorClosed

__all__ = ["Subscription"]


class Subscription:
    """The events from now on: `async with supervisor.subscribe() as events: async for event in events`.

    A listener is called while everything waits for it; here whoever reads may take their time. No
    more than `limit` events wait for them: of more the oldest are dropped, and `dropped` counts
    them. It ends after the event that the supervisor has closed, or when it is closed itself.
    """

    def __init__(self, listen: Callable[[Listener], Callable[[], None]], limit: int) -> None:
        self._waiting: deque[Event] = deque()
        self._limit = _checks.whole("limit", limit, 1, 10_000_000)
        self._dropped = 0
        self._over = False
        self._reader: asyncio.Future[None] | None = None
        self._stop = listen(self._put)

    @property
    def dropped(self) -> int:
        """How many events came while `limit` others waited, and were lost."""
        return self._dropped

    def close(self) -> None:
        """Take no more events; those that wait can still be read."""
        self._stop()
        self._over = True
        self._wake()

    def _put(self, event: Event) -> None:
        if len(self._waiting) == self._limit:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(event)
        if isinstance(event, SupervisorClosed):
            self.close()
        else:
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._waiting:
            if self._over:
                raise StopAsyncIteration
            if self._reader is not None:
                raise RuntimeError("one reads a subscription at a time: make another one")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._waiting.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        over = ", over" if self._over else ""
        return f"<Subscription {len(self._waiting)} waiting, {self._dropped} dropped{over}>"
