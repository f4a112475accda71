"""What bridges share that cannot stop a call: whoever waited is let go, and the call runs to its end."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from inspect import CORO_CREATED, getcoroutinestate
from types import CoroutineType
from typing import Any, TypeAlias, cast

from asyncworkers.bridge.protocol import Bridge, Work
from asyncworkers.outcome import Failed, Succeeded

__all__ = ["AbandoningBridge", "End", "forget", "forget_value"]

End: TypeAlias = Succeeded | Failed
"""How a call ended."""


class AbandoningBridge(Bridge):
    """Runs one call at a time, to its end; subclasses say where.

    A worker does not wait for `run` to learn that nobody needs the call any more. It settles the
    job, and uses the bridge no more, but its slot is taken until `begin`'s future is done.
    """

    @abstractmethod
    def begin(self, work: Work) -> asyncio.Future[End]:
        """Begin the work; the future gets its end. Nothing can be done about it meanwhile."""

    async def run(self, work: Work) -> End:
        """Run the work; when cancelled, leave it behind."""
        return await self.begin(work)


def forget_value(end: object) -> None:
    """Nobody wants what a call returned: if it is a coroutine, nobody will await it either."""
    if isinstance(end, Succeeded):
        forget(end.value)


def forget(value: Any) -> None:
    """Nobody will await this value: no warning of it, if it is a coroutine. One that has begun is in
    somebody else's hands, perhaps those of its task.
    """
    if type(value) is CoroutineType and getcoroutinestate(cast("Any", value)) == CORO_CREATED:
        value.close()
