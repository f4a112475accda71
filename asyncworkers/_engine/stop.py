"""How a supervisor comes to its end: finish what there is, then cancel, then abandon; never hang."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Container
from contextvars import Context
from typing import Any

from asyncworkers._engine.hub import Hub
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.origin import Origin, Strays, origin_of
from asyncworkers._engine.report import DrainReport
from asyncworkers._log import log
from asyncworkers.events import TasksLeaked
from asyncworkers.job import CANCELLED, FAILED, RUNNING, SUCCEEDED, Job
from asyncworkers.units import agreed, counted

__all__ = ["close", "end_if_still", "finish", "forget", "give_up", "stop", "tell_what_is_lost"]

LAST_UNWIND = 0.75
"""Seconds that cancelled attempts get to end when the supervisor stops, if their queue gives more."""

LAST_MOMENT = 0.2
"""Seconds for the tasks themselves to end after that, before they are left to the loop."""


async def finish(hub: Hub, grace: float | None) -> DrainReport:
    """Wait for all jobs, as long as `grace` says (None: for ever); then stop them, in bounded time."""
    began = hub.clock.now()
    had = hub.unfinished()
    abandoned: dict[Job[Any], None] = {}
    hub.finishing.append(abandoned)
    try:
        left, waiting = await _finish(hub, grace)
    finally:
        hub.finishing[:] = [one for one in hub.finishing if one is not abandoned]
    jobs = tuple(dict.fromkeys((*had, *left, *abandoned)))
    return _report(hub, jobs, waiting, abandoned, began)


async def _finish(hub: Hub, grace: float | None) -> tuple[list[Job[Any]], set[Job[Any]]]:
    """What was left when the grace was over, and what of it had not started."""
    quiet = await hub.wait_quiet(grace)
    left = [] if quiet else hub.unfinished()
    waiting = {job for job in left if job._state < RUNNING}
    if not quiet:
        stop(hub, hub.stopping or "the grace of the drain was over")
        patience = min([LAST_UNWIND, *(queue.unwinding.seconds for queue in _queues(hub))])
        if not await hub.wait_quiet(patience):
            for queue in _queues(hub):
                queue.unwinding.abandon_all()
    return left, waiting


def _report(
    hub: Hub,
    jobs: tuple[Job[Any], ...],
    waiting: set[Job[Any]],
    abandoned: Container[Job[Any]],
    began: float,
) -> DrainReport:
    """Sort the jobs by what became of them; perhaps it was somebody else who stopped them."""
    ends: dict[str, list[str]] = {}
    failed: list[str] = []
    withdrawn: list[str] = []
    returned: list[str] = []
    for job in jobs:
        if job in abandoned and job._state != SUCCEEDED:  # else a later attempt made up for it
            end = "abandoned"
        elif job._state == FAILED and _is_tried_again(job):
            end = "not_started"  # its next attempt
        elif hub.stopping is None or job._state != CANCELLED:
            end = "done"
            if job._state == FAILED:
                failed.append(job.id)
            elif job._state == CANCELLED:
                withdrawn.append(job.id)
        elif job in waiting or not job.attempt:
            end = "not_started"
        else:
            end = "cancelled"
        if end in ("not_started", "cancelled") and _goes_back(job):
            returned.append(job.id)
        ends.setdefault(end, []).append(job.id)
    done, cancelled, not_started, abandoned_ids = (
        tuple(ends.get(end, ())) for end in ("done", "cancelled", "not_started", "abandoned")
    )
    seconds = hub.clock.now() - began
    return DrainReport(
        *(done, cancelled, not_started, abandoned_ids, seconds),
        *(tuple(ids) for ids in (failed, withdrawn, returned)),
    )


def _goes_back(job: Job[Any]) -> bool:
    """Whether a job that has not come to its end here is stored, and nobody wanted it cancelled for good."""
    held: Any = job._rare
    lease = getattr(held, "lease", None)
    return lease is not None and held.asked is None and not (held.begun and lease.once)


def _is_tried_again(job: Job[Any]) -> bool:
    """Whether a stored job has failed here, and waits in its store for the next attempt."""
    held: Any = job._rare
    return _goes_back(job) and bool(held.again)


def stop(hub: Hub, reason: str) -> None:
    """Cancel everything, the newest first: what waits ends now, what runs as soon as it lets us."""
    hub.stopping = reason
    for reader in tuple(hub.readers):
        reader.abort(reason)
    for job in reversed(hub.unfinished()):
        job._order.home.cancel(job, reason)


def end_if_still(queue: MemoryQueue) -> None:
    """The supervisor drains: if this queue starts nothing, cancel what waits, or comes to wait."""
    queue.ending = None
    if queue.paused:
        queue.ending = f"queue {queue.name!r} was paused when the supervisor ended"
    elif not queue.crew.workers:
        queue.ending = f"queue {queue.name!r} had no workers when the supervisor ended"
    if queue.ending is not None:
        for reader in tuple(queue.hub.readers):
            if reader.queue is queue:
                reader.abort(queue.ending)
        queue.cancel_waiting(queue.ending)


def give_up(hub: Hub, strays: Strays | None) -> None:
    """Nobody holds the supervisor any more, so nobody will leave it: end what there is."""
    ending = hub.loop.create_task(_end_orphans(hub, strays), context=Context())
    _endings.add(ending)
    ending.add_done_callback(_endings.discard)


_endings: set[asyncio.Task[None]] = set()


def tell_what_is_lost(hub: Hub) -> None:
    """Nobody has left this supervisor: what it still had, and is in no store, is lost."""
    lost = hub.unfinished() if os.getpid() == hub.pid else []
    lost = [job for job in lost if not getattr(job._rare, "lease", None)]
    if lost:
        named = ", ".join(map(repr, lost[:10])) + (", ..." if len(lost) > 10 else "")
        number, are = counted(len(lost), "job"), agreed(len(lost), "is", "are")
        log.warning("supervisor %r was never left; %s %s lost: %s", hub.name, number, are, named)


async def _end_orphans(hub: Hub, strays: Strays | None) -> None:
    tell_what_is_lost(hub)
    if hub.depot is not None:
        hub.depot.drain()
    stop(hub, "its supervisor was never left, and is gone")
    await finish(hub, 0.0)
    if hub.depot is not None:
        await hub.depot.close()
    await close(hub)
    if strays is not None:
        strays.close()


async def close(hub: Hub) -> None:
    """Send the workers home and end what jobs left behind; what does not end is left to the loop."""
    for stopped in _queues(hub):
        stopped.unwinding.abandon_all()  # all of it has ended, unless somebody was in too much of a hurry
    for queue in hub.queues:
        queue.close()
    hub.aside.close()
    hub.let_functions_go()
    workers = [task for task in hub.tasks() if not task.done()]
    patience = LAST_MOMENT
    for queue in hub.queues:
        for attempt in (*queue.crew.members, *queue.crew.zombies):
            patience = max(patience, attempt.leave())
            if attempt.retired:
                attempt.task.cancel("the supervisor closed")
    leaked = _cancel_leaked_tasks(hub)
    if workers or leaked:
        await asyncio.wait([*workers, *leaked], timeout=patience)


def forget(hub: Hub) -> None:
    """The loop was closed under us, so no worker will ever end: let their bridges go at least."""
    if hub.depot is not None:
        hub.depot.forget()
    for queue in hub.queues:
        for attempt in queue.crew.members:
            attempt.drop()


def _cancel_leaked_tasks(hub: Hub) -> list[asyncio.Task[Any]]:
    """Cancel the tasks that jobs started and left behind, and say whose they were."""
    current = asyncio.current_task()
    ours = set(hub.tasks())
    found: dict[Origin, list[asyncio.Task[Any]]] = {}
    for task in asyncio.all_tasks(hub.loop):
        origin = None if task in ours or task is current else origin_of(task)
        if origin is not None and origin.hub is hub:
            found.setdefault(origin, []).append(task)
    for origin, tasks in found.items():
        number, are = counted(len(tasks), "task"), agreed(len(tasks), "is", "are")
        log.warning("%s left %s behind, which %s cancelled now", origin, number, are)
        if hub.listeners:
            event = TasksLeaked(hub.clock.now(), origin.job_id, origin.name, len(tasks))
            hub.listeners.emit(event)
        for task in tasks:
            task.cancel("the job that started it is over, and its supervisor closes")
    return [task for tasks in found.values() for task in tasks]


def _queues(hub: Hub) -> list[MemoryQueue]:
    return [queue for queue in hub.queues if isinstance(queue, MemoryQueue)]
