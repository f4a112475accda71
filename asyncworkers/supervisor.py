"""The Supervisor owns everything alive: starts it in order, restarts what crashes, stops it in reverse."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import logging
import os
import sys
import warnings
import weakref
from asyncio import get_running_loop
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from contextvars import Context, copy_context
from datetime import datetime, timedelta
from threading import get_ident
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeAlias, TypeVar, cast, overload

from asyncworkers import _checks, events
from asyncworkers._engine.hub import Hub
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.report import DrainReport, Stats, queue_stats
from asyncworkers._engine.stop import cancel_waiting, close, finish, stop
from asyncworkers._engine.supply import Plan
from asyncworkers._engine.watchdog import Watchdog
from asyncworkers._engine.worker import hire
from asyncworkers.errors import (
    JobNotFound,
    QueueFull,
    SupervisorClosed,
    SupervisorFailed,
)
from asyncworkers.events import Listener, Listeners
from asyncworkers.function import Call, JobFunction, Policies, policies_of
from asyncworkers.job import Job, JobState, Order, running, running_job
from asyncworkers.queue import Queue
from asyncworkers.signals import runs_in
from asyncworkers.stream import Stream

__all__ = ["Supervisor"]

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("asyncworkers")

here: Callable[[], object] = get_ident if sys.version_info < (3, 12) else get_running_loop
"""Where we are, to be compared with where the supervisor is. On Python 3.11 asking for the running
loop makes a system call; the thread tells as much, unless it runs two loops in turn."""

State: TypeAlias = Literal["new", "open", "draining", "closed", "failed"]


class Supervisor:
    """Runs jobs in the event loop it is entered in: `async with Supervisor() as supervisor`.

    It may be made anywhere, at import time too; it is bound to a loop while it is entered, and
    can be entered again after it has ended. Leaving the `async with` block normally finishes
    every job first, retries and delays included; leaving it with an exception cancels them.

    - `workers`: how many jobs may run at once on the queue "default", on the loop.
    - `threads`: how many blocking jobs may run at once on the queue "threads"; None means
      the number of processors plus 4, at most 32. Workers and threads start when first needed.
    - `queues`: more queues, or other settings for these two, as `Queue` declarations.
    - `maxsize`: how many jobs may wait in each of these two; None means no bound.
    - `grace`: seconds that `drain()` and signals give to what is queued and running.
    - `restarts`, `period`: if workers crash more than `restarts` times in `period` seconds (by
      faults of asyncworkers itself: jobs cannot crash a worker), the supervisor fails: the body
      of the `async with` is cancelled, and SupervisorFailed is raised from it with the cause.
    - `listeners`: callables told of every event.
    - `name`: for logs and thread names.
    """

    def __init__(
        self,
        workers: int = 100,
        *,
        threads: int | None = None,
        queues: Iterable[Queue] = (),
        maxsize: int | None = 10_000,
        grace: float | timedelta = 20.0,
        restarts: int = 3,
        period: float | timedelta = 5.0,
        listeners: Iterable[Listener] = (),
        name: str | None = None,
    ) -> None:
        _checks.whole("workers", workers, 0, 1_000_000)
        if threads is None:
            threads = min(32, (os.cpu_count() or 1) + 4)
        _checks.whole("threads", threads, 0, 10_000)
        if maxsize is not None:
            _checks.whole("maxsize", maxsize, 1, 2**63)
        self._grace = _checks.duration("grace", grace)
        self._restarts = _checks.whole("restarts", restarts, 0, 1_000_000)
        self._period = _checks.duration("period", period, zero=False)
        self._name = "supervisor" if name is None else _checks.queue_name("name", name)
        self._listeners = Listeners(_checks.iterable("listeners", listeners))
        self._declared = _declared(workers, threads, maxsize, _checks.iterable("queues", queues))
        self._state: State = "new"
        self._accepting = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._here: object = None
        self._hub: Hub | None = None
        self._queues: dict[str, MemoryQueue] = {}
        self._crashes: deque[float] = deque()
        self._cause: BaseException | None = None
        self._host: asyncio.Task[Any] | None = None
        self._cancelled_host = False
        self._watchdog: Watchdog | None = None
        self._helpers: set[asyncio.Task[Any]] = set()
        self._pid = os.getpid()

    # ---- its life

    @property
    def name(self) -> str:
        """The name it was given."""
        return self._name

    @property
    def state(self) -> State:
        """`new`, `open`, `draining` (accepts nothing new), `closed`, or `failed`."""
        return self._state

    @property
    def queues(self) -> tuple[Queue, ...]:
        """The queues as declared, the two it has by itself included."""
        return tuple(self._declared.values())

    async def __aenter__(self) -> Self:
        if self._state in ("open", "draining"):
            raise RuntimeError(
                f"{self!r} was entered already: one supervisor runs in one place at a time"
            )
        loop = get_running_loop()
        self._pid = os.getpid()
        self._loop, self._here = loop, here()
        crashed = weakref.WeakMethod(self._worker_crashed)
        hub = self._hub = Hub(
            loop, self._listeners, self._name, lambda queue, error: _call(crashed, queue, error)
        )
        self._queues = {name: _memory_queue(hub, queue) for name, queue in self._declared.items()}
        hub.queues = tuple(self._queues.values())
        hub.refresh()
        self._host, self._cancelled_host, self._cause = asyncio.current_task(), False, None
        self._crashes.clear()
        if hub.clock.real:
            self._watchdog = Watchdog(hub)
            self._watchdog.start()
        runs_in(self)
        self._state, self._accepting = "open", True
        self._emit(events.SupervisorStarted)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        hub = self._entered()
        hub.check_process()
        try:
            if error is None and self._cause is None:
                self._begin_to_drain()
                await finish(hub, None)
        finally:
            await self._end(
                hub,
                "the supervisor was left with an exception" if error else "the supervisor closed",
            )
        if self._cause is not None:
            if self._cancelled_host and self._host is not None:
                self._host.uncancel()
            if error is None or isinstance(error, asyncio.CancelledError):
                raise self._failed() from self._cause

    async def drain(self, grace: float | timedelta | None = None) -> DrainReport:
        """Accept nothing new, finish, and report what became of the jobs there were.

        What is queued, scheduled or running has `grace` seconds to end (the supervisor's own
        `grace` if None). Then running attempts are cancelled, and what has not started is
        cancelled too. Jobs may go on submitting jobs until then: those belong to what is being
        finished. Returns at most about a second after the grace. Calling it again, or while
        another call waits, is harmless: each returns its own report.
        """
        seconds = self._grace if grace is None else _checks.duration("grace", grace)
        hub = self._entered()
        hub.check_loop()
        self._begin_to_drain()
        return await finish(hub, seconds)

    def cancel_all(self, reason: str = "cancel_all() was called") -> None:
        """Cancel every job there is, waiting or running, and accept nothing new."""
        hub = self._entered()
        hub.check_loop()
        self._begin_to_drain()
        stop(hub, reason)

    def _begin_to_drain(self) -> None:
        if self._state != "open":
            return
        self._state, self._accepting = "draining", False
        self._emit(events.SupervisorDraining)
        for queue in self._queues.values():
            queue.room.refuse(SupervisorClosed(f"supervisor {self._name!r} began to drain"))
            if queue.paused:
                cancel_waiting(queue, f"queue {queue.name!r} was paused when the supervisor ended")

    async def _end(self, hub: Hub, reason: str) -> None:
        """Stop everything in reverse order, in bounded time whatever jobs do."""
        self._accepting = False
        try:
            stop(hub, reason)
            await finish(hub, 0.0)
        finally:
            self._state = "failed" if self._cause is not None else "closed"
            for task in self._helpers:
                task.cancel()
            await close(hub)
            if self._watchdog is not None:
                self._watchdog.stop()
                self._watchdog = None
            self._emit(events.SupervisorClosed)
            for failure in tuple(hub.failures):
                failure.report()

    def _worker_crashed(self, queue: str, error: BaseException) -> None:
        assert self._hub is not None
        now = self._hub.clock.now()
        self._crashes.append(now)
        while self._crashes[0] < now - self._period:
            self._crashes.popleft()
        if len(self._crashes) > self._restarts and self._cause is None:
            self._cause = error
            self._state, self._accepting = "failed", False
            logger.critical(
                "workers of queue %r crash too often: supervisor %r fails", queue, self._name
            )
            stop(self._hub, "the supervisor failed: its workers crashed too often")
            if self._host is not None and not self._host.done():
                self._cancelled_host = self._host.cancel("the supervisor failed")

    def _failed(self) -> SupervisorFailed:
        return SupervisorFailed(
            f"workers crashed more than {self._restarts} times in {self._period:g} s, "
            f"last with {_checks.shown(self._cause, 200)}"
        )

    def __del__(self) -> None:
        hub = self._hub
        if hub is None or self._state not in ("open", "draining") or hub.loop.is_closed():
            return
        if os.getpid() == self._pid:
            warnings.warn(
                f"{self!r} was never left: its workers are cancelled", ResourceWarning, stacklevel=2
            )
            hub.loop.call_soon_threadsafe(hub.give_up)
            if self._watchdog is not None:
                self._watchdog.stop()

    # ---- giving it jobs

    @overload
    async def submit(self, function: Call[Coroutine[Any, Any, T]], /) -> Job[T]: ...
    @overload
    async def submit(
        self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...
    @overload
    async def submit(self, function: Call[T], /) -> Job[T]: ...
    @overload
    async def submit(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...
    async def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Make a job of this call and put it in its queue; waits only while the queue is full.

        All arguments after the first are the function's own. A job that submits to a full queue
        lends its slot while it waits. Raises SupervisorClosed if nothing is accepted, WrongLoop
        outside the supervisor's loop, WouldDeadlock if 1,000 jobs already wait for room from
        inside jobs, TypeError and ValueError for what makes no job.
        """
        # The path of each job: nothing is asked here but what could make the job another than an
        # ordinary one of a function submitted before. `_make` does it all.
        if self._accepting and type(function) is JobFunction and function.last_hub is self._hub:
            order: Order = function.last_order
            queue: MemoryQueue = order.home  # type: ignore[assignment]
            if (
                order.plain
                and here() == self._here
                and not (room := queue.room).waiters
                and len(queue.line) + room.promised < room.limit
                and (not (context := copy_context()) or running not in context)
            ):
                job: Job[Any] = Job(order, args, kwargs or None, context or None, queue.now())
                queue.line.append(job)
                if (crew := queue.crew).idle or crew.spare > 0:
                    crew.staff(1)
                if queue.told:
                    queue.tell_submitted(job)
                return job
        job = self._make(function, args, kwargs)
        queue = cast("MemoryQueue", job._order.home)
        if queue.is_full():
            await queue.room.wait()
            queue.room.use(1)
        self._put(queue, job)
        return job

    @overload
    def submit_nowait(self, function: Call[Coroutine[Any, Any, T]], /) -> Job[T]: ...
    @overload
    def submit_nowait(
        self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...
    @overload
    def submit_nowait(self, function: Call[T], /) -> Job[T]: ...
    @overload
    def submit_nowait(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...
    def submit_nowait(self, function: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """As `submit`, but raises QueueFull at once where that would wait."""
        job = self._make(function, args, kwargs)
        queue = cast("MemoryQueue", job._order.home)
        if queue.is_full():
            raise QueueFull(
                f"queue {queue.name!r} holds {queue.maxsize} waiting jobs: await submit(...) to wait for room"
            )
        self._put(queue, job)
        return job

    @overload
    async def submit_many(
        self, function: Callable[[Any], Coroutine[Any, Any, T]], items: Iterable[Any], /
    ) -> list[Job[T]]: ...
    @overload
    async def submit_many(
        self, function: Callable[[Any], T], items: Iterable[Any], /
    ) -> list[Job[T]]: ...
    async def submit_many(self, function: Any, items: Iterable[Any], /) -> list[Job[Any]]:
        """Make a job of each item, the function's only argument; all are accepted, or none is.

        Waits until the queue has room for all of them. Raises QueueFull if it never can have:
        `map` takes any number, and holds few at a time.
        """
        jobs = [
            self._make(function, (item,), _NO_KWARGS) for item in _checks.iterable("items", items)
        ]
        if not jobs:
            return jobs
        queue = cast("MemoryQueue", jobs[0]._order.home)
        if queue.maxsize is not None and len(jobs) > queue.maxsize:
            raise QueueFull(
                f"{len(jobs)} jobs can never fit in queue {queue.name!r} of maxsize {queue.maxsize}: use map"
            )
        if not queue.room.has(len(jobs)):
            await queue.room.wait(len(jobs))
            queue.room.use(len(jobs))
        if all(job._rare is None for job in jobs) and jobs[0]._order.policies.simple:
            queue.put_many(jobs)
        else:
            for job in jobs:
                self._put(queue, job)
        return jobs

    @overload
    async def call(
        self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Submit and await in one: the function's value, or its exception.

        The job belongs to this call: whoever cancels it cancels the job.
        """
        job = await self.submit(function, *args, **kwargs)
        try:
            return await job
        except asyncio.CancelledError:
            job.cancel("the call that awaited it was cancelled")
            raise

    @overload
    def map(
        self,
        function: Callable[[Any], Coroutine[Any, Any, T]],
        items: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        ordered: bool = True,
        window: int | None = None,
    ) -> Stream[T]: ...
    @overload
    def map(
        self,
        function: Callable[[Any], T],
        items: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        ordered: bool = True,
        window: int | None = None,
    ) -> Stream[T]: ...
    def map(
        self,
        function: Any,
        items: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        ordered: bool = True,
        window: int | None = None,
    ) -> Stream[Any]:
        """Run the function for each item of an iterable of any length, finite or not.

        Returns a Stream: await it for a list, or iterate it. Items are taken from the iterable
        as there is room, so that never more than `window` are on their way (twice the queue's
        workers if None, and at least 64).
        """
        _checks.flag("ordered", ordered)
        if window is not None:
            _checks.whole("window", window, 1, 10_000_000)
        if not isinstance(items, (AsyncIterable, Iterable)):
            raise TypeError(
                f"items must be an iterable or an async iterable, not {_checks.shown(items)}"
            )
        self._order(function)  # whatever makes no job is refused here, not when the stream is read
        return Stream(lambda: self._plan(function), items, ordered, window)

    @overload
    def submit_threadsafe(
        self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]: ...
    @overload
    def submit_threadsafe(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]: ...
    def submit_threadsafe(
        self, function: Any, /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Submit from any other thread, without waiting; the future gets the job's value or error.

        While the queue is full the job waits for room on the loop's side. Cancelling the future
        cancels the job. Do not wait for the future in the loop's own thread: that would block it.
        """
        hub = self._entered()
        hub.check_process()
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            hub.loop.call_soon_threadsafe(self._start_helper, hub, future, function, args, kwargs)
        except RuntimeError as error:
            raise SupervisorClosed("the supervisor's event loop is closed") from error
        return future

    # ---- steering

    def get(self, job_id: str, /) -> Job[Any]:
        """The unfinished job with this id; raises JobNotFound if there is none (any more)."""
        hub = self._entered()
        if type(job_id) is not str:
            raise TypeError(f"job_id must be a str, not {_checks.shown(job_id)}")
        prefix, _, number = job_id.rpartition("-")
        if prefix == hub.prefix and number.isascii() and number.isdigit() and len(number) < 20:
            job = hub.index.get(int(number))
            if job is not None:
                return job
        raise JobNotFound(f"no unfinished job has the id {_checks.shown(job_id)}")

    def jobs(
        self,
        *,
        state: JobState | str | None = None,
        queue: str | None = None,
        name: str | None = None,
        tag: str | None = None,
    ) -> list[Job[Any]]:
        """The unfinished jobs, oldest first, that match everything given."""
        hub = self._entered()
        hub.check_loop()
        wanted = None if state is None else _state(state)
        if queue is not None:
            self._queue(queue)
        return [
            job
            for job in hub.unfinished()
            if (wanted is None or job.state is wanted)
            and (queue is None or job.queue == queue)
            and (name is None or job.name == name)
            and (tag is None or tag in job.tags)
        ]

    def cancel(self, job: Job[Any] | str, reason: str = "cancel() was called") -> bool:
        """Cancel a job, given itself or by its id: as `Job.cancel`, False if it has ended."""
        if isinstance(job, str):
            try:
                job = self.get(job)
            except JobNotFound:
                return False
        if not isinstance(job, Job):
            raise TypeError(f"job must be a Job or an id, not {_checks.shown(job)}")
        return job.cancel(reason)

    def pause(self, queue: str) -> None:
        """Start no more jobs of this queue; it goes on accepting them, and what runs runs on."""
        self._set_paused(queue, True)

    def resume(self, queue: str) -> None:
        """Start jobs of this queue again."""
        self._set_paused(queue, False)

    def resize(self, queue: str, workers: int) -> None:
        """Let so many jobs of this queue run at once. If more are running, they run to their end."""
        self._entered().check_loop()
        found = self._queue(queue)
        found.resize(_checks.whole("workers", workers, 0, 1_000_000))
        found.emit(events.QueueResized, queue, workers)

    def _set_paused(self, queue: str, paused: bool) -> None:
        self._entered().check_loop()
        found = self._queue(queue)
        if found.paused is not paused:
            found.paused = paused
            found.hold(paused)
            found.emit(events.QueuePaused if paused else events.QueueResumed, queue)

    # ---- looking at it

    def stats(self) -> Stats:
        """The figures of every queue at this moment; after the end, the last ones."""
        return Stats({name: queue_stats(queue) for name, queue in self._queues.items()})

    def explain(self) -> str:
        """What every queue is doing, and what its jobs are waiting for, in a few lines of text."""
        lines = [repr(self)[1:-1]]
        for queue in self._queues.values():
            lines.append(f"  {queue.explain()}")
            lines.extend(f"    {job.name} {job.id} {job.why}" for job in queue.examples(3))
        return "\n".join(lines)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell this callable of every event from now on; call what is returned to stop that."""
        self._listeners.add(listener)
        if self._hub is not None:
            self._hub.refresh()

        def stop_listening() -> None:
            self._listeners.remove(listener)
            if self._hub is not None:
                self._hub.refresh()

        return stop_listening

    def __repr__(self) -> str:
        figures = [
            f"{queue.name}: {queue.running} running, {queue.queued} queued, {queue.crew.workers} workers"
            for queue in self._queues.values()
            if queue.submitted or queue.name == "default"
        ]
        inside = f" [{'; '.join(figures)}]" if figures else ""
        named = "" if self._name == "supervisor" else f" {self._name!r}"
        return f"<Supervisor{named} {self._state}{inside}>"

    # ---- making and placing jobs

    def _make(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job[Any]:
        """The job of a call, not yet in its queue: all that can be refused is refused here."""
        if not self._accepting or get_running_loop() is not self._loop:
            self._refuse_unless_inside()
        if type(function) is Call:
            if args or kwargs:
                raise TypeError(
                    "a bound call has its arguments already: submit(f.bind(x)), nothing more"
                )
            args, kwargs, function = function.args, function.kwargs, function.function
        order = self._order(function)
        context, parent = self._surroundings(copy_context())
        if not order.plain:
            context = _chosen(context, order.policies)
        queue = cast("MemoryQueue", order.home)
        job: Job[Any] = Job(order, args, kwargs or None, context, queue.clock.now())
        if parent is not None:
            rare = job._uncommon()
            rare.parent, rare.depth = parent, parent._depth() + 1
        return job

    def _put(self, queue: MemoryQueue, job: Job[Any]) -> None:
        order = job._order
        if order.policies.simple and job._rare is None:
            queue.put(job)
        else:
            queue.put_special(job, self._delay(order.policies), order.policies.expires)

    def _delay(self, policies: Policies) -> float:
        delay = policies.delay
        if isinstance(delay, datetime):
            return self._entered().clock.until(delay)
        return delay or 0.0

    def _order(self, function: Any) -> Order:
        """What the jobs of this function have in common here; remembered by a JobFunction."""
        hub = self._entered()
        if isinstance(function, JobFunction):
            known = cast("JobFunction[..., Any]", function)
            if known.last_hub is not hub:
                known.last_order = Order(
                    self._queue_for(known.policies), known.policies, known.function
                )
                known.last_hub = hub
                hub.functions.add(known)
            return cast("Order", known.last_order)
        policies = policies_of(function)
        return Order(self._queue_for(policies), policies, function)

    def _surroundings(self, context: Context) -> tuple[Context | None, Job[Any] | None]:
        """What a job keeps of where it was submitted: a snapshot of the context variables, if there
        are any but our own, and the job whose code submits it.
        """
        parent = running_job()
        if not context or (len(context) == 1 and running in context):
            return None, parent
        return context, parent

    def _plan(self, function: Any) -> Plan:
        """What a stream that starts here and now needs to know."""
        if not self._accepting or get_running_loop() is not self._loop:
            self._refuse_unless_inside()
        order = self._order(function)
        context, parent = self._surroundings(copy_context())
        context = _chosen(context, order.policies)
        queue = cast("MemoryQueue", order.home)
        return Plan(queue, order, context, self._delay(order.policies), parent)

    def _start_helper(
        self,
        hub: Hub,
        future: concurrent.futures.Future[Any],
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """On the loop: submit for another thread, by a task because the queue may be full."""
        task = hub.loop.create_task(self._submit_for(hub, future, function, args, kwargs))
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)

    async def _submit_for(
        self,
        hub: Hub,
        future: concurrent.futures.Future[Any],
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if future.cancelled():
            return
        try:
            job = await self.submit(function, *args, **kwargs)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                error = SupervisorClosed("the supervisor ended before the queue had room")
            _settle_future(future, None, error)
            return

        def cancelled(future: concurrent.futures.Future[Any]) -> None:
            if future.cancelled() and not hub.loop.is_closed():
                hub.loop.call_soon_threadsafe(job.cancel, "its future was cancelled")

        job._watch(lambda job: _settle_future(future, job, None))
        future.add_done_callback(cancelled)

    def _entered(self) -> Hub:
        if self._hub is None:
            raise SupervisorClosed(
                f"supervisor {self._name!r} was not entered: async with Supervisor() as supervisor"
            )
        return self._hub

    def _refuse_unless_inside(self) -> None:
        """Say why no job is accepted; while draining, the supervisor's own jobs may go on."""
        hub = self._entered()
        hub.check_process()
        hub.check_loop()
        if self._cause is not None:
            raise self._failed() from self._cause
        if self._state == "draining" and hub.stopping is None:
            parent = running_job()
            if (
                parent is not None
                and parent._runner() is not None
                and getattr(parent._order.home, "hub", None) is hub
            ):
                return
        raise SupervisorClosed(f"supervisor {self._name!r} is {self._state}: it accepts no jobs")

    def _queue(self, name: str) -> MemoryQueue:
        found = self._queues.get(_checks.queue_name("queue", name))
        if found is None:
            raise ValueError(f"there is no queue {name!r}: {_checks.nearest(name, self._queues)}")
        return found

    def _queue_for(self, policies: Policies) -> MemoryQueue:
        """The queue of these policies; raises if there is none, or it serves the other kind."""
        queue = self._queue(policies.queue) if self._hub is not None else None
        if queue is None:
            raise SupervisorClosed(
                f"supervisor {self._name!r} was not entered: async with Supervisor() as supervisor"
            )
        if (queue.kind == "threads") is not policies.blocking:
            kinds = ("def", "threads") if policies.blocking else ("async def", "the loop")
            raise ValueError(
                f"queue {queue.name!r} is of kind {queue.kind!r}; a function made with {kinds[0]} runs on {kinds[1]}"
            )
        return queue

    def _emit(self, event: Callable[[float, str], events.Event]) -> None:
        if self._listeners and self._hub is not None:
            self._listeners.emit(event(self._hub.clock.now(), self._name))


_NO_KWARGS: dict[str, Any] = {}


def _declared(
    workers: int, threads: int, maxsize: int | None, more: Iterable[Queue]
) -> dict[str, Queue]:
    declared = {
        "default": Queue("default", workers, maxsize=maxsize),
        "threads": Queue("threads", threads, kind="threads", maxsize=maxsize),
    }
    given: set[str] = set()
    for queue in more:
        if not isinstance(queue, Queue):
            raise TypeError(f"queues must hold Queue declarations, not {_checks.shown(queue)}")
        if queue.name in given:
            raise ValueError(f"queues declare {queue.name!r} twice")
        given.add(queue.name)
        if queue.workers is None:
            queue = dataclasses.replace(queue, workers=threads if queue.kind == "threads" else 100)
        declared[queue.name] = queue
    return declared


def _memory_queue(hub: Hub, queue: Queue) -> MemoryQueue:
    return MemoryQueue(
        hub,
        queue.name,
        kind=queue.kind,
        workers=cast("int", queue.workers),
        maxsize=queue.maxsize,
        isolation=queue.isolation,
        unwind=cast("float", queue.unwind),
        ageing=cast("float | None", queue.ageing),
        hire=hire,
    )


def _chosen(context: Context | None, policies: Policies) -> Context | None:
    """The part of the submitter's context that the function wants."""
    if policies.context == "none":
        context = None
    elif policies.context != "submitter":
        chosen = Context()
        for var in policies.context:
            if context is not None and var in context:
                chosen.run(var.set, context[var])
        context = chosen or None
    return Context() if context is None and policies.sets_context else context


def _settle_future(
    future: concurrent.futures.Future[Any], job: Job[Any] | None, error: BaseException | None
) -> None:
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        if job is not None:
            error = job.exception()
        if error is not None:
            future.set_exception(error)
        elif job is not None:
            future.set_result(job.result())


def _state(value: JobState | str) -> JobState:
    try:
        return JobState(value)
    except ValueError:
        raise ValueError(
            f"state must be one of {', '.join(JobState)}, not {_checks.shown(value)}"
        ) from None


def _call(
    method: weakref.WeakMethod[Callable[[str, BaseException], None]],
    queue: str,
    error: BaseException,
) -> None:
    found = method()
    if found is not None:
        found(queue, error)
