"""Makes one picture at a time for all who look, and none while nobody does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec

from asyncworkers.dashboard.data import clean
from asyncworkers.web.events import Feed

__all__ = ["Ticker"]

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Ticker:
    """Whoever comes first after `every` seconds has a new picture made; the others get the same one,
    written down once.
    """

    def __init__(self, look: Callable[[], Awaitable[dict[str, Any]]], every: float) -> None:
        self._look = look
        self._every = every
        self._lock = anyio.Lock()
        self._made_at: float | None = None
        self._picture = msgspec.Raw(b"null")
        self.looks = 0

    async def picture(self) -> msgspec.Raw:
        """How everything stands, at most one tick old, as JSON."""
        async with self._lock:
            now = anyio.current_time()
            if self._made_at is None or now - self._made_at >= self._every * 0.9:
                self._picture = msgspec.Raw(_encode(clean(await self._look())))
                self._made_at = now
                self.looks += 1
            return self._picture

    async def follow(self, feed: Feed) -> None:
        """Put a picture into a feed, again and again."""
        while True:
            feed.put(await self.picture(), "picture")
            await anyio.sleep(self._every)
