"""A Queue declares a named line of jobs: how many workers serve it, where they run, what limits hold."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal

from asyncworkers import _checks
from asyncworkers._record import Record
from asyncworkers.bridge import Bridge
from asyncworkers.bridge.terms import STARTUP, has_interpreters
from asyncworkers.signed import SignedPickle

__all__ = ["Queue"]

UNWIND = {"loop": 10.0, "threads": 10.0, "processes": 1.0, "interpreters": 10.0, "bridge": 1.0}

LEAST_MEMORY = 16 << 20
"""Bytes. No child does with less, so a lower limit is in the wrong unit."""

FOR_CHILDREN = ("initializer", "max_jobs", "max_memory", "nice", "prints", "startup")


class Queue(Record):
    """The declaration of a queue, for `Supervisor(queues=[...])`. Frozen; hold as many as you like.

    - `name`: lower-case letters, digits and `_.-`, at most 64 characters.
    - `workers`: how many jobs may run at once, 0 to 1,000,000; `resize` changes it. None means
      100 on the loop, and as many threads or processes as the supervisor has by itself.
    - `kind`: "loop" for `async def` functions, "threads", "processes" or, from Python 3.14 on,
      "interpreters" for `def` functions.
    - `maxsize`: how many jobs may wait in line; `submit` waits for room, `submit_nowait` raises
      QueueFull. It bounds admission only: a retry or a delayed job that comes due goes in line
      even so. None means no bound.
    - `bridge`: what carries the queue's jobs, in place of a `kind`: a class derived from `Bridge`, or
      anything else that makes one when called without arguments. Its jobs are `def` functions,
      with `cpu=True` or without.
    - `isolation`: "shared" runs jobs one after the other in a worker's task, each in its own
      context; "task" gives each job a task of its own, for code that tells jobs apart by
      `asyncio.current_task()`. Loop queues only.
    - `unwind`: seconds a cancelled or timed-out attempt may take to end before it is abandoned,
      or, in a process or over a bridge of your own, killed. None means 10 seconds, there 1.
    - `ageing`: seconds after which a waiting job goes first whatever its priority; without it,
      jobs of a low priority wait as long as there are higher ones.
    - `stored`: whether its jobs live in the supervisor's store: None if it has one, False never, and
      True refuses a supervisor that has none. What a store holds is not bounded by `maxsize`, and
      `ageing` does not reach there. Streams (`map`) always run in memory.

    - `codec`: None writes arguments and results of stored jobs as JSON typed by annotations; a
      `SignedPickle` pickles and signs them, for what JSON cannot hold.

    The rest is about the child processes of a queue of the kind "processes", and refused for others:

    - `initializer`: a `def` function without arguments that each child calls once, before its
      first job. If it raises, that child is given up; after three in a row without a job between,
      the jobs that wait fail with WorkerCrashed, and new children are started ever more rarely.
    - `max_jobs`: how many jobs a child runs before a new one takes its place.
    - `max_memory`: bytes. A child that has more than that resident after a job is replaced; what it
      shares with others, such as big arguments and the code of libraries, does not count. Never
      during a job: this is against memory that leaks, not a limit for one job.
    - `nice`: 0 to 19, by how much children give way to other processes.
    - `prints`: "through" leaves what jobs print to the standard streams of this process; "log"
      makes log records of its lines, of the loggers "asyncworkers.stdout" (level INFO) and
      "asyncworkers.stderr" (level WARNING). None means "through".
    - `startup`: seconds in which a child must be ready, its initializer included, or an interpreter,
      or a bridge of your own. None means 60.
    """

    name: str
    workers: int | None
    kind: Literal["loop", "threads", "processes", "interpreters", "bridge"]
    maxsize: int | None
    isolation: Literal["shared", "task"]
    unwind: float
    ageing: float | None
    stored: bool | None
    initializer: Callable[[], object] | None
    max_jobs: int | None
    max_memory: int | None
    nice: int | None
    prints: Literal["through", "log"] | None
    startup: float | None
    bridge: Callable[[], Bridge] | None
    codec: SignedPickle | None

    def __init__(
        self,
        name: str,
        workers: int | None = None,
        *,
        kind: Literal["loop", "threads", "processes", "interpreters", "bridge"] = "loop",
        maxsize: int | None = 10_000,
        isolation: Literal["shared", "task"] = "shared",
        unwind: float | timedelta | None = None,
        ageing: float | timedelta | None = None,
        stored: bool | None = None,
        initializer: Callable[[], object] | None = None,
        max_jobs: int | None = None,
        max_memory: int | None = None,
        nice: int | None = None,
        prints: Literal["through", "log"] | None = None,
        startup: float | timedelta | None = None,
        bridge: Callable[[], Bridge] | None = None,
        codec: SignedPickle | None = None,
    ) -> None:
        _checks.queue_name("Queue.name", name)
        if workers is not None:
            _checks.whole("Queue.workers", workers, 0, 1_000_000)
        if maxsize is not None:
            _checks.whole("Queue.maxsize", maxsize, 1, 2**63)
        _check_kind(kind)
        if bridge is not None:
            kind = _checked_bridge(kind, bridge)
        elif kind == "bridge":
            raise ValueError('Queue.bridge must say which, if Queue.kind is "bridge"')
        _checks.one_of("Queue.isolation", isolation, ("shared", "task"))
        if kind != "loop" and isolation == "task":
            raise ValueError(f'Queue.isolation must be "shared" for {kind}: they run no tasks')
        unwind = _checks.duration("Queue.unwind", UNWIND[kind] if unwind is None else unwind)
        if ageing is not None:
            ageing = _checks.duration("Queue.ageing", ageing)
        if stored is not None:
            _checks.flag("Queue.stored", stored)
        _check_codec(codec, stored)
        terms = (initializer, max_jobs, max_memory, nice, prints, startup)
        if kind == "processes":
            terms = _checked(*terms)
        else:
            for term, value in zip(FOR_CHILDREN, terms, strict=True):
                if value is not None and (
                    term != "startup" or kind not in ("bridge", "interpreters")
                ):
                    raise ValueError(
                        f"Queue.{term} is for queues of processes: queue {name!r} is of the kind "
                        f"{kind!r}"
                    )
            if startup is not None:
                terms = (*terms[:-1], _checks.duration("Queue.startup", startup, zero=False))
        super().__init__(
            name, workers, kind, maxsize, isolation, unwind, ageing, stored, *terms, bridge, codec
        )


def _check_kind(kind: str) -> None:
    _checks.one_of("Queue.kind", kind, tuple(UNWIND))
    if kind == "interpreters" and not has_interpreters():
        raise ValueError(
            "Queue.kind 'interpreters' needs Python 3.14 or later, and this is "
            f"{sys.version_info.major}.{sys.version_info.minor}: use 'processes'"
        )


def _check_codec(codec: Any, stored: bool | None) -> None:
    if codec is None:
        return
    if not isinstance(codec, SignedPickle):
        raise TypeError(f"Queue.codec must be a SignedPickle, not {_checks.shown(codec)}")
    if stored is False:
        raise ValueError("Queue.codec is for stored jobs, and Queue.stored is False")


def _checked_bridge(kind: str, bridge: Any) -> Literal["bridge"]:
    """What there is to say against a bridge, before one is made."""
    shown = _checks.shown(bridge)
    if kind not in ("loop", "bridge"):
        raise ValueError(f"Queue.bridge takes the place of Queue.kind: leave out kind={kind!r}")
    if isinstance(bridge, Bridge):
        raise TypeError(
            f"Queue.bridge must make bridges, one a worker: give the class, not {shown}"
        )
    if not callable(bridge) or inspect.iscoroutinefunction(bridge):
        raise TypeError(
            f"Queue.bridge must be a Bridge class, or a function that makes one: {shown}"
        )
    if isinstance(bridge, type) and not issubclass(bridge, Bridge):
        raise TypeError(f"Queue.bridge must be derived from Bridge, which {shown} is not")
    if inspect.isabstract(bridge):
        raise TypeError(f"Queue.bridge must define both run and kill, which {shown} does not")
    return "bridge"


def _checked(
    initializer: Any, max_jobs: Any, max_memory: Any, nice: Any, prints: Any, startup: Any
) -> tuple[Any, ...]:
    """What concerns children, checked, with what it means not to be given."""
    if initializer is not None:
        shown = _checks.shown(initializer)
        if not callable(initializer):
            raise TypeError(f"Queue.initializer must be callable, not {shown}")
        if inspect.iscoroutinefunction(initializer):
            raise TypeError(f"Queue.initializer must be a def function, not {shown}: no loop runs")
    if max_jobs is not None:
        _checks.whole("Queue.max_jobs", max_jobs, 1, 2**63)
    if max_memory is not None:
        _checks.whole("Queue.max_memory", max_memory, LEAST_MEMORY, 2**63)
    if nice is not None:
        _checks.whole("Queue.nice", nice, 0, 19)
    prints = "through" if prints is None else prints
    _checks.one_of("Queue.prints", prints, ("through", "log"))
    startup = _checks.duration("Queue.startup", STARTUP if startup is None else startup, zero=False)
    return initializer, max_jobs, max_memory, nice, prints, startup
