"""A Queue declares a named line of jobs: how many workers serve it, where they run, what limits hold."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from asyncworkers import _checks
from asyncworkers._record import Record

__all__ = ["Queue"]

UNWIND = {"loop": 10.0, "threads": 10.0, "processes": 1.0}


class Queue(Record):
    """The declaration of a queue, for `Supervisor(queues=[...])`. Frozen; hold as many as you like.

    - `name`: lower-case letters, digits and `_.-`, at most 64 characters.
    - `workers`: how many jobs may run at once, 0 to 1,000,000; `resize` changes it. None means
      100 on the loop, and as many threads or processes as the supervisor has by itself.
    - `kind`: "loop" for `async def` functions, "threads" or "processes" for `def` functions.
    - `maxsize`: how many jobs may wait in line; `submit` waits for room, `submit_nowait` raises
      QueueFull. It bounds admission only: a retry or a delayed job that comes due goes in line
      even so. None means no bound.
    - `isolation`: "shared" runs jobs one after the other in a worker's task, each in its own
      context; "task" gives each job a task of its own, for code that tells jobs apart by
      `asyncio.current_task()`. Loop queues only.
    - `unwind`: seconds a cancelled or timed-out attempt may take to end before it is abandoned,
      or, in a process, killed. None means 10 seconds, in processes 1.
    - `ageing`: seconds after which a waiting job goes first whatever its priority; without it,
      jobs of a low priority wait as long as there are higher ones.
    """

    name: str
    workers: int | None
    kind: Literal["loop", "threads", "processes"]
    maxsize: int | None
    isolation: Literal["shared", "task"]
    unwind: float
    ageing: float | None

    def __init__(
        self,
        name: str,
        workers: int | None = None,
        *,
        kind: Literal["loop", "threads", "processes"] = "loop",
        maxsize: int | None = 10_000,
        isolation: Literal["shared", "task"] = "shared",
        unwind: float | timedelta | None = None,
        ageing: float | timedelta | None = None,
    ) -> None:
        _checks.queue_name("Queue.name", name)
        if workers is not None:
            _checks.whole("Queue.workers", workers, 0, 1_000_000)
        if maxsize is not None:
            _checks.whole("Queue.maxsize", maxsize, 1, 2**63)
        _checks.one_of("Queue.kind", kind, ("loop", "threads", "processes"))
        _checks.one_of("Queue.isolation", isolation, ("shared", "task"))
        if kind != "loop" and isolation == "task":
            raise ValueError(f'Queue.isolation must be "shared" for {kind}: they run no tasks')
        unwind = _checks.duration("Queue.unwind", UNWIND[kind] if unwind is None else unwind)
        if ageing is not None:
            ageing = _checks.duration("Queue.ageing", ageing)
        super().__init__(name, workers, kind, maxsize, isolation, unwind, ageing)
