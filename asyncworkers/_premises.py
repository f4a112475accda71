"""What a supervisor consists of, made from what it was given: queues, who works there, store, chronicle."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from asyncworkers import _checks
from asyncworkers._engine.attempt import Attempt
from asyncworkers._engine.call_worker import Bridges
from asyncworkers._engine.hub import Hub
from asyncworkers._engine.intake import Intake
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.worker import hire
from asyncworkers.bridge import Bridge, InlineBridge, ThreadBridge
from asyncworkers.bridge.terms import (
    STARTUP,
    Terms,
    has_gil,
    kind_for_cpu,
    packed_initializer,
    usable_processors,
)
from asyncworkers.function import JobFunction
from asyncworkers.queue import Queue

if TYPE_CHECKING:
    from asyncworkers._engine.stored.depot import Depot
    from asyncworkers.chronicle import Chronicle
    from asyncworkers.store.protocol import Store

__all__ = [
    "chronicle_of",
    "declared",
    "listed_function",
    "memory_queue",
    "open_depot",
    "store_maker",
    "usual",
]


def usual(
    workers: int, threads: int | None, processes: int | None, maxsize: int | None
) -> dict[str, Queue]:
    """The three queues that each supervisor has. Raises TypeError or ValueError for senseless numbers."""
    _checks.whole("workers", workers, 0, 1_000_000)
    if threads is None:
        threads = min(32, (os.cpu_count() or 1) + 4)
    _checks.whole("threads", threads, 0, 10_000)
    if processes is None:
        processes = usable_processors()
    _checks.whole("processes", processes, 0, 10_000)
    if maxsize is not None:
        _checks.whole("maxsize", maxsize, 1, 2**63)
    return {
        "default": Queue("default", workers, maxsize=maxsize),
        "threads": Queue("threads", threads, kind="threads", maxsize=maxsize),
        "processes": Queue(
            "processes", processes, kind=kind_for_cpu(gil=has_gil()), maxsize=maxsize
        ),
    }


def declared(usual: dict[str, Queue], more: Iterable[Queue]) -> dict[str, Queue]:
    """Every queue by name: the three that each supervisor has, and those that were given."""
    # How many workers one has that does not say: of the other kinds as many as processes.
    workers = {"loop": 100, "threads": cast("int", usual["threads"].workers)}
    processes = usual["processes"].workers
    declared = dict(usual)
    given: set[str] = set()
    for queue in more:
        if not isinstance(queue, Queue):
            raise TypeError(f"queues must hold Queue declarations, not {_checks.shown(queue)}")
        if queue.name in given:
            raise ValueError(f"queues declare {queue.name!r} twice")
        given.add(queue.name)
        if queue.workers is None:
            queue = queue.replace(workers=workers.get(queue.kind, processes))  # noqa: PLW2901
        declared[queue.name] = queue
    return declared


def _hire_children(queue: Queue) -> Callable[[MemoryQueue, int], Attempt]:
    """Hires the workers of a queue whose jobs run in processes; most supervisors never need it.

    Raises NotSerializable if the queue's initializer cannot be pickled.
    """
    terms = Terms(
        initializer=packed_initializer(queue.name, queue.initializer),
        max_jobs=queue.max_jobs,
        max_memory=queue.max_memory,
        nice=queue.nice,
        prints=queue.prints or "through",
        startup=STARTUP if queue.startup is None else queue.startup,
    )
    hires: list[Callable[[MemoryQueue, int], Attempt]] = []

    def hire(queue: MemoryQueue, number: int) -> Attempt:
        if not hires:
            from asyncworkers._engine.line_worker import hire_for

            hires.append(hire_for(queue, terms))
        return hires[0](queue, number)

    return hire


def _hire_for(hub: Hub, queue: Queue) -> Callable[[MemoryQueue, int], Attempt]:
    """What hires the workers of a queue. A simulation has neither threads nor anything like it."""
    if queue.kind == "loop":
        return hire
    if queue.kind == "processes" and not hub.clock.simulated:
        return _hire_children(queue)

    def make(number: int) -> Bridge:
        if hub.clock.simulated:
            return InlineBridge(queue.initializer)
        if queue.bridge is None:
            name = f"asyncworkers-{hub.name}-{queue.name}-{number}"
            if queue.kind == "interpreters":
                from asyncworkers.bridge.interpreter import InterpreterBridge

                return InterpreterBridge(name)
            return ThreadBridge(name)
        bridge: object = queue.bridge()
        if not isinstance(bridge, Bridge):
            raise TypeError(f"Queue.bridge made no Bridge but {_checks.shown(bridge)}")
        return bridge

    return Bridges(make, STARTUP if queue.startup is None else queue.startup).hire


def memory_queue(hub: Hub, queue: Queue, *, stored: bool) -> MemoryQueue:
    """The queue that was declared, in this process, with what hires its workers."""
    kind = MemoryQueue
    if stored:
        from asyncworkers._engine.stored.queue import StoredQueue  # what most never need

        kind = StoredQueue
    made = kind(
        hub,
        queue.name,
        kind=queue.kind,
        workers=cast("int", queue.workers),
        maxsize=queue.maxsize,
        isolation=queue.isolation,
        unwind=queue.unwind,
        ageing=queue.ageing,
        hire=_hire_for(hub, queue),
    )
    made.may_chunk = queue.max_jobs is None
    return made


def chronicle_of(given: Any) -> Chronicle | None:
    """What records a run, if that is wanted."""
    if given is False:
        return None
    from asyncworkers.chronicle import Chronicle  # what many never need

    if given is True:
        return Chronicle()
    if not isinstance(given, Chronicle):
        raise TypeError(f"record must be a bool or a Chronicle, not {_checks.shown(given)}")
    return given


def store_maker(given: Any) -> Callable[[], Store] | None:
    """What makes the store, each time the supervisor is entered."""
    if given is None:
        return None
    if isinstance(given, str):
        from asyncworkers.store.address import make_store

        make_store(given)  # what is wrong with the URL is said here
        return lambda: make_store(given)
    verbs = ("lease", "settle", "submit")
    is_store = all(callable(getattr(given, verb, None)) for verb in verbs)
    if is_store and not isinstance(given, type):  # a class of stores is what makes one
        return lambda: cast("Store", given)
    if callable(given):
        return cast("Callable[[], Store]", given)
    raise TypeError(
        f"store must be a URL, a Store or a function that makes one, not {_checks.shown(given)}"
    )


def listed_function(function: Any) -> JobFunction[..., Any]:
    """One of `functions`, as a job function."""
    if isinstance(function, JobFunction):
        return cast("JobFunction[..., Any]", function)
    try:
        return JobFunction(function, {})
    except TypeError as error:
        shown = _checks.shown(function)
        raise TypeError(f"functions must hold functions, not {shown}: {error}") from None


async def open_depot(
    intake: Intake,
    store: Store,
    functions: tuple[JobFunction[..., Any], ...],
    declared: Iterable[Queue],
    max_block: float,
) -> Depot:
    """Open the store, or raise what it raises."""
    from asyncworkers._engine.stored.depot import Depot
    from asyncworkers._engine.stored.forms import listed
    from asyncworkers._engine.stored.queue import StoredQueue

    queues = [one for one in intake.queues.values() if isinstance(one, StoredQueue)]
    signed = {one.name: one.codec for one in declared if one.codec is not None}
    depot = Depot(intake.hub, store, listed(functions), queues, intake.queue_for, max_block, signed)
    await depot.open()
    return depot
