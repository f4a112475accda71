"""The last waits of a drain: who awaits a job that is only stored hears of it while the grace lasts."""

from __future__ import annotations

import asyncio
from typing import Any

from asyncworkers._engine.stored.views import Views
from asyncworkers.job import ENDED, Job

__all__ = ["end_waits"]


async def end_waits(views: Views, seconds: float) -> None:
    """Nothing runs here any more: who awaits a job that others may end has so many seconds left, and is
    told then that it must be awaited elsewhere.
    """
    awaited: list[tuple[Job[Any], asyncio.Future[None]]] = []
    known = list(views.here.values())  # at once: any of them may be collected meanwhile
    for view in filter(None, [one() for one in known]):
        if view._state < ENDED and view._waiters is not None:
            ended = views.link.hub.loop.create_future()
            Job[Any]._watch(view, ended)  # not as one more who awaits it
            awaited.append((view, ended))
    try:
        if awaited and seconds > 0:
            await asyncio.wait([ended for _, ended in awaited], timeout=seconds)
    finally:
        for view, ended in awaited:
            view._unwatch(ended)
    views.close()
