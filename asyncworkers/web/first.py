"""Waits for the first of several things, and then for no other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

__all__ = ["first_of"]


async def first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Call all of these and return when the first of what they return has been awaited; the others
    are cancelled. What one of them raises is raised as it is.
    """
    raised: list[BaseException] = []

    async def wait(one: Callable[[], Awaitable[object]]) -> None:
        try:
            await one()
        except Exception as error:
            raised.append(error)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for one in waits:
            group.start_soon(wait, one)
    if raised:
        raise raised[0]
