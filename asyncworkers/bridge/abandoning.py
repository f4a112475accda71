"""What bridges share that cannot stop a call: it is abandoned, and the bridge is not free until it ends."""

from __future__ import annotations

import asyncio
from types import CoroutineType
from typing import Any, TypeAlias

from asyncworkers.bridge.protocol import Work

__all__ = ["AbandoningBridge", "End"]

End: TypeAlias = tuple[Any, BaseException | None]


class AbandoningBridge:
    """Waits for the end of one call at a time; subclasses say where it runs."""

    def __init__(self) -> None:
        self._under_way: asyncio.Future[End] | None = None
        self._abandoned: Work | None = None
        self._freed: asyncio.Future[None] | None = None

    @property
    def abandoned(self) -> str | None:
        """The name of the call that still runs although nobody waits for it, or None."""
        return None if self._abandoned is None else self._abandoned.name

    async def call(self, work: Work) -> End:
        """Have the work run and return its end; when cancelled, abandon it where it runs."""
        future: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._start(work, future)
        self._under_way = future
        try:
            return await future
        except asyncio.CancelledError:
            if self._under_way is future:  # the end may have come in the very same tick
                self._abandoned = work
            raise

    async def wait_free(self) -> None:
        """Wait until the abandoned call, if there is one, has ended."""
        if self._abandoned is not None:
            self._freed = asyncio.get_running_loop().create_future()
            await self._freed

    def _start(self, work: Work, future: asyncio.Future[End]) -> None:
        """Begin the work; its end comes to `_deliver`, on the loop. May raise BridgeBroken."""
        raise NotImplementedError

    def _deliver(self, future: asyncio.Future[End], end: End) -> None:
        self._under_way = None
        self._abandoned = None
        if not future.done():
            future.set_result(end)
        elif isinstance(end[0], CoroutineType):
            end[0].close()  # nobody will await what an abandoned call returned
        if self._freed is not None and not self._freed.done():
            self._freed.set_result(None)
