"""The Supervisor owns everything alive: starts it in order, restarts what crashes, stops it in reverse."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import itertools
import os
import warnings
import weakref
from asyncio import get_running_loop
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from contextlib import asynccontextmanager
from contextvars import Context
from datetime import timedelta
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    ParamSpec,
    Self,
    TypeAlias,
    TypeVar,
    cast,
    overload,
)

from asyncworkers import _checks, _html, _premises, events
from asyncworkers._engine.escorting import Escorting
from asyncworkers._engine.explain import explain_queue
from asyncworkers._engine.hub import Hub, Witness
from asyncworkers._engine.intake import Intake
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.origin import Strays
from asyncworkers._engine.relay import Relay
from asyncworkers._engine.report import (
    Backlog,
    DrainReport,
    Stats,
    WorkerStats,
    backlog_everywhere,
    backlog_here,
    health_asked,
    health_of,
    queue_stats,
    worker_stats,
)
from asyncworkers._engine.stop import (
    close,
    end_if_still,
    finish,
    forget,
    give_up,
    stop,
    tell_what_is_lost,
)
from asyncworkers._engine.watchdog import Watchdog
from asyncworkers._log import log
from asyncworkers._notebook import in_notebook, keep_awake
from asyncworkers.bridge.steps import Heavy
from asyncworkers.embedding import living
from asyncworkers.errors import (
    JobNotFound,
    QueueFull,
    SupervisorClosed,
    SupervisorFailed,
)
from asyncworkers.escort import Escort
from asyncworkers.events import Listener, Listeners
from asyncworkers.function import Call, JobFunction
from asyncworkers.health import Health
from asyncworkers.job import Job, JobState
from asyncworkers.queue import Queue
from asyncworkers.signals import runs_in
from asyncworkers.stored import Stored, Using
from asyncworkers.stream import Stream
from asyncworkers.subscription import Subscription
from asyncworkers.units import counted

if TYPE_CHECKING:
    from asyncworkers._engine.stored.depot import Depot
    from asyncworkers.chronicle import Chronicle
    from asyncworkers.plot import Plot
    from asyncworkers.report import Report
    from asyncworkers.store.protocol import Store
    from asyncworkers.timeline import Timeline

__all__ = ["Supervisor"]

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")

ESCORTS = ("submitted", "sent", "begun", "ended")
"""What an escort must be able to do."""

LEAST_STALL = 0.01
"""Seconds. To notice shorter ones the watchdog would have to look so often that it became one."""

State: TypeAlias = Literal["new", "open", "draining", "closed", "failed"]


class Supervisor:
    """Runs jobs in the event loop it is entered in: `async with Supervisor() as supervisor`.

    It may be made anywhere, at import time too; it is bound to a loop while it is entered, and
    can be entered again after it has ended. Leaving the `async with` block normally finishes
    every job first, retries and delays included; leaving it with an exception cancels them.

    - `workers`: how many jobs may run at once on the queue "default", on the loop.
    - `threads`: how many blocking jobs may run at once on the queue "threads"; None means
      the number of processors plus 4, at most 32.
    - `processes`: how many jobs that compute may run at once on the queue "processes"; None means
      the number of processors this process may use. Workers, threads and processes start when
      first needed.
    - `queues`: more queues, or other settings for these three, as `Queue` declarations.
    - `maxsize`: how many jobs may wait in each of these three; None means no bound.
    - `store`: where jobs live that must outlive this process: a URL such as
      "sqlite:///jobs.db", a Store, or a function that makes one. Every queue is stored then, but those
      declared `Queue(..., stored=False)`; streams (`map`) run in memory.
    - `functions`: those whose stored jobs may be submitted and run here. Their names are what is
      stored, so another process that lists them can run the jobs.
    - `max_block`: seconds for which a job may block the event loop before this process stops to
      say that it is alive; some time later its stored jobs are given to others.
    - `grace`: seconds that `drain()` and signals give to what is queued and running.
    - `restarts`, `period`: if workers crash more than `restarts` times in `period` seconds (by
      faults of asyncworkers itself: jobs cannot crash a worker), the supervisor fails: the body
      of the `async with` is cancelled, and SupervisorFailed is raised from it with the cause.
    - `stall`: a step of the event loop that takes longer than so many seconds, 0.01 at the least,
      is reported while it lasts, with job, file and line; in a notebook, only if it is a job's. A
      thread watches for that, unless None.
    - `listeners`: callables told of every event.
    - `record`: True keeps what happens, in bounded memory, for `report()` and `timeline()`: a
      `Chronicle`, or one that was given. It costs each job a little, so by default nothing is kept.
    - `name`: for logs and thread names.
    """

    _intake: Intake | None = None
    """What takes jobs in, once it was entered. Of the class: what was never made is finalized too."""

    _escort: Escort | None = None
    _since = 0.0
    _ended: float | None = None

    def __init__(
        self,
        workers: int = 100,
        *,
        threads: int | None = None,
        processes: int | None = None,
        queues: Iterable[Queue] = (),
        maxsize: int | None = 10_000,
        store: str | Store | Callable[[], Store] | None = None,
        functions: Iterable[Callable[..., Any]] = (),
        max_block: float | timedelta = 10.0,
        grace: float | timedelta = 20.0,
        restarts: int = 3,
        period: float | timedelta = 5.0,
        stall: float | timedelta | None = 0.1,
        listeners: Iterable[Listener] = (),
        record: bool | Chronicle = False,
        name: str | None = None,
    ) -> None:
        usual = _premises.usual(workers, threads, processes, maxsize)
        self._store = _premises.store_maker(store)
        self._functions = tuple(
            map(_premises.listed_function, _checks.iterable("functions", functions))
        )
        if self._store is not None:
            from asyncworkers._engine.stored.forms import listed  # what most never need

            listed(self._functions)
        self._max_block = _checks.duration("max_block", max_block, zero=False)
        self._grace = _checks.duration("grace", grace)
        self._restarts = _checks.whole("restarts", restarts, 0, 1_000_000)
        self._period = _checks.duration("period", period, zero=False)
        self._stall = None if stall is None else _checks.duration("stall", stall)
        if self._stall is not None and self._stall < LEAST_STALL:
            raise ValueError(
                f"stall must be at least {LEAST_STALL} seconds, or None, not {_checks.shown(stall)}"
            )
        self._name = "supervisor" if name is None else _checks.queue_name("name", name)
        self._chronicle = _premises.chronicle_of(record)
        self._listeners = Listeners([] if self._chronicle is None else [self._chronicle])
        for listener in _checks.iterable("listeners", listeners):
            self._listeners.add(listener)
        self._declared = _premises.declared(usual, _checks.iterable("queues", queues))
        for queue in self._declared.values():
            if queue.stored and self._store is None:
                raise ValueError(f"queue {queue.name!r} is to be stored, and there is no store=")
        self._state: State = "new"
        self._opening = False
        self._relay: Relay | None = None
        self._crashes: deque[float] = deque()
        self._cause: BaseException | None = None
        self._host: asyncio.Task[Any] | None = None
        self._cancelled_host = False
        self._refuses = asyncio.Event()
        self._witnesses: list[Witness] = []
        self._watchdog: Watchdog | None = None
        self._strays: Strays | None = None
        self._depot: Depot | None = None
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
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it was entered in; None before it was entered."""
        return None if self._intake is None else self._intake.hub.loop

    @property
    def queues(self) -> tuple[Queue, ...]:
        """The queues as declared, the three it has by itself included."""
        return tuple(self._declared.values())

    @property
    def functions(self) -> tuple[JobFunction[..., Any], ...]:
        """Those whose stored jobs may be submitted and run here, as given."""
        return self._functions

    async def __aenter__(self) -> Self:
        if self._state in ("open", "draining"):
            hub = self._entered().hub
            hub.check_process()
            if not hub.loop.is_closed():
                raise RuntimeError(
                    f"{self!r} was entered already: one supervisor runs in one place at a time"
                )
            self._let_go()
        if self._opening:
            raise RuntimeError(
                f"{self!r} is being entered already: one supervisor runs in one place at a time"
            )
        loop = get_running_loop()
        self._pid = os.getpid()
        if self._chronicle is not None:
            self._chronicle.clear()
        crashed: weakref.WeakMethod[Callable[[str, BaseException], None]]
        crashed = weakref.WeakMethod(self._worker_crashed)
        hub = Hub(
            loop, self._listeners, self._name, lambda queue, error: _tell(crashed, queue, error)
        )
        stored = self._store is not None
        queues = {
            name: _premises.memory_queue(hub, queue, stored=stored and queue.stored is not False)
            for name, queue in self._declared.items()
        }
        hub.queues = tuple(queues.values())
        hub.witnesses = self._witnesses
        hub.refresh()
        self._escort_in(hub)
        intake = Intake(hub, queues)
        self._depot = None if self._store is None else await self._open_depot(intake, self._store())
        self._intake, self._relay = intake, Relay(hub)
        self._host, self._cancelled_host, self._cause = asyncio.current_task(), False, None
        hub.hosted_by(self._host)
        self._crashes.clear()
        self._refuses = asyncio.Event()  # one for each life: it belongs to the loop
        if hub.clock.real and self._stall is not None:
            self._watchdog = Watchdog(hub, self._stall, of_jobs=in_notebook())
            self._watchdog.start()
        self._strays = Strays(hub)
        runs_in(loop, self)
        _open.add(self)
        self._state = "open"
        self._since, self._ended = hub.clock.now(), None
        if in_notebook():
            itself = weakref.ref(self)
            keep_awake(loop, lambda: (one := itself()) is not None and one in _open)
        self._emit(events.SupervisorStarted)
        return self

    async def _open_depot(self, intake: Intake, store: Store) -> Depot:
        self._opening = True  # which takes a while
        try:
            return await _premises.open_depot(
                intake, store, self._functions, self._declared.values(), self._max_block
            )
        finally:
            self._opening = False

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        hub = self._entered().hub
        if error is not None and os.getpid() != hub.pid:
            return  # what ends a forked child goes on its way, and nothing is closed there
        hub.check_process()
        if hub.loop.is_closed():  # under us: the body is thrown away, and nothing can be awaited
            self._let_go()
            return
        try:
            if error is None and self._cause is None:
                self._begin_to_drain()
                await finish(hub, None)
            elif isinstance(error, SupervisorClosed) and self._state == "draining":
                await finish(hub, self._grace)  # the body only ran into the drain, as by a signal
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

    async def open(self) -> Self:
        """Enter it without a block, where there can be none: `supervisor = await Supervisor().open()`.

        This is for a notebook or a prompt, whose supervisor lives from one cell to another.
        Call `close` at the end: a supervisor that is forgotten warns of it when it goes away, and
        names the jobs that are lost if that is when the process ends. Should its workers crash
        too often there is no block to cancel, so `close` raises SupervisorFailed, as `submit` does.

        Raises RuntimeError if it was entered already, or if no event loop is running.
        """
        await self.__aenter__()
        self._host = None  # it is no block of this task's, which may end long before
        self._entered().hub.hosted_by(None)
        return self

    async def close(self, grace: float | timedelta | None = None) -> DrainReport:
        """Leave it: accept nothing new, finish, end, and report what became of the jobs there were.

        Waits for all jobs, retries and delays included, or for so many seconds of `grace`, as
        `drain` does; whoever cancels that cancels the jobs. Calling it again is harmless. Raises
        SupervisorClosed if it was never entered, SupervisorFailed if it has failed, WrongLoop
        outside its loop.
        """
        seconds = None if grace is None else _checks.duration("grace", grace)
        hub = self._entered().hub
        if self not in _open:
            return DrainReport((), (), (), (), 0.0)
        hub.check_loop()
        try:
            self._begin_to_drain()
            report = await finish(hub, seconds)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        await self.__aexit__(None, None, None)
        return report

    async def drain(self, grace: float | timedelta | None = None) -> DrainReport:
        """Accept nothing new, finish, and report what became of the jobs there were.

        What is queued, scheduled or running has `grace` seconds to end (the supervisor's own
        `grace` if None). Then running attempts are cancelled, and what has not started is
        cancelled too. Jobs may go on submitting jobs until then: those belong to what is being
        finished. Returns at most about a second after the grace. Calling it again, or while
        another call waits, is harmless: each returns its own report.

        Who awaits a stored job that others are to run may do so until the grace is over, and gets
        SupervisorClosed then: the job stays in the store.
        """
        seconds = self._grace if grace is None else _checks.duration("grace", grace)
        hub = self._entered().hub
        hub.check_loop()
        self._begin_to_drain()
        report = await finish(hub, seconds)
        if self._depot is not None:
            await self._depot.drained(seconds - report.seconds)
        return report

    async def wait_draining(self) -> None:
        """Wait until nothing new is accepted any more: a drain has begun, or the end has come.

        For what would go on for ever and so hold up the end of a server, as a stream of events
        does: wait for this beside the next event. Returns at once if it has begun already. Raises
        SupervisorClosed before the supervisor was entered, WrongLoop outside its loop.
        """
        self._entered().hub.check_loop()
        await self._refuses.wait()

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncGenerator[dict[str, Self]]:
        """Live as long as a web application: `Starlette(lifespan=supervisor.lifespan)`.

        The supervisor is entered when the server starts, and is `request.state.supervisor` in
        its handlers. It is drained when the server stops, or already when SIGINT or SIGTERM
        comes, in `grace` seconds and about one more; a SIGINT after another signal cancels its
        jobs. The server's own handlers hear of these signals as well. In an application's own lifespan
        write `async with supervisor.lifespan(app):` around what needs it.
        """
        async with living(self):
            yield {"supervisor": self}

    async def cleanup_ctx(self, _app: object) -> AsyncGenerator[None]:
        """The same for aiohttp: `app.cleanup_ctx.append(supervisor.cleanup_ctx)`.

        Handlers use the supervisor that the application was made with.
        """
        async with living(self):
            yield

    def cancel_all(self, reason: str = "cancel_all() was called") -> None:
        """Cancel every job there is, waiting or running, and accept nothing new.

        Raises SupervisorClosed before the supervisor was entered, WrongLoop outside its loop.
        """
        _checks.text("reason", reason)
        hub = self._entered().hub
        hub.check_loop()
        self._begin_to_drain()
        stop(hub, reason)

    def _begin_to_drain(self) -> None:
        if self._state != "open":
            return
        intake = self._entered()
        self._state = "draining"
        self._refuses.set()
        intake.shut(self._refusal, from_jobs=True)
        self._emit(events.SupervisorDraining)
        if self._depot is not None:
            self._depot.drain()
        for queue in intake.queues.values():
            queue.room.refuse(self._refusal, jobs_too=False)
            end_if_still(queue)

    async def _end(self, hub: Hub, reason: str) -> None:
        """Stop everything in reverse order, in bounded time whatever jobs do."""
        intake = self._entered()
        if self._state == "open":
            self._state = "draining"
        self._refuses.set()
        intake.shut(self._refusal)
        for queue in intake.queues.values():
            queue.room.refuse(self._refusal, jobs_too=True)
        try:
            if self._depot is not None:
                self._depot.drain()
            stop(hub, reason)
            try:
                await finish(hub, 0.0)
            finally:
                if self._depot is not None:
                    await self._depot.close()
        finally:
            self._state = "failed" if self._cause is not None else "closed"
            _open.discard(self)
            if self._relay is not None:
                self._relay.close()
            try:
                await close(hub)
            finally:
                if self._strays is not None:
                    self._strays.close()
                    self._strays = None
                if self._watchdog is not None:
                    self._watchdog.stop()
                    self._watchdog = None
                self._ended = hub.clock.now()
                self._emit(events.SupervisorClosed)
                for failure in tuple(hub.failures):
                    failure.report()

    def _worker_crashed(self, queue: str, error: BaseException) -> None:
        intake = self._entered()
        now = intake.hub.clock.now()
        self._crashes.append(now)
        while self._crashes[0] < now - self._period:
            self._crashes.popleft()
        if len(self._crashes) > self._restarts and self._cause is None:
            self._cause = error
            self._state = "failed"
            self._refuses.set()
            intake.shut(self._refusal)
            log.critical(
                "workers of queue %r crash too often: supervisor %r fails", queue, self._name
            )
            stop(intake.hub, "the supervisor failed: its workers crashed too often")
            if self._host is not None and not self._host.done():
                self._cancelled_host = self._host.cancel("the supervisor failed")

    def _failed(self) -> SupervisorFailed:
        return SupervisorFailed(
            f"workers crashed more than {counted(self._restarts, 'time')} in {self._period:g} s, "
            f"last with {_checks.shown(self._cause, 200)}"
        )

    def _refusal(self) -> Exception:
        """The error for a job that is not accepted."""
        if self._cause is not None:
            failed = self._failed()
            failed.__cause__ = self._cause
            return failed
        text = f"supervisor {self._name!r} is {self._state}: it accepts no jobs"
        return SupervisorClosed(text, self._state)

    def __del__(self) -> None:
        hub = None if self._intake is None else self._intake.hub
        if hub is None or self._state not in ("open", "draining") or os.getpid() != self._pid:
            return
        if hub.loop.is_closed():
            self._let_go()
        else:
            warnings.warn(
                f"{self!r} was never left: its workers are cancelled", ResourceWarning, stacklevel=2
            )
            hub.loop.call_soon_threadsafe(give_up, hub, self._strays, context=Context())
            if self._watchdog is not None:
                self._watchdog.stop()

    def _let_go(self) -> None:
        """The loop was closed under us: end the threads there are, for nobody else will."""
        self._state = "closed"
        _open.discard(self)
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._intake is not None:
            forget(self._intake.hub)

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
        lends its slot while it waits. What goes to a process is pickled here, and in a thread if
        that takes long: do not change it before this returns. Raises SupervisorClosed if nothing
        is accepted, WrongLoop outside the supervisor's loop, WouldDeadlock if 1,000 jobs already
        wait for room from inside jobs, NotSerializable for what cannot be pickled, TypeError and
        ValueError for what makes no job, arguments that the function does not take among it.
        """
        intake = self._intake or self._entered()
        job, heavy = intake.take_ordinary(function, args, kwargs), None
        if job is not None:
            return job
        depot = self._depot
        if depot is not None and depot.takes(function):
            intake.check()
            (stored,) = await depot.submit([(function, args, kwargs)])
            return stored
        try:
            job = intake.take_packed(function, args, kwargs, True)
            if job is not None:
                return job
            job = intake.make(function, args, kwargs, True)
        except Heavy as found:
            heavy = found.with_traceback(None)
        if heavy is not None:
            job = await intake.make_aside(function, args, kwargs, heavy)
        assert job is not None
        queue = cast("MemoryQueue", job._order.home)
        if queue.is_full():
            await queue.room.take(1, intake.check)
        intake.put(job)
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
        """As `submit`, but raises QueueFull at once where that would wait.

        What goes to a process is pickled at once, however long that takes.
        """
        intake = self._intake or self._entered()
        job = intake.take_ordinary(function, args, kwargs)
        if job is None:
            job = intake.take_packed(function, args, kwargs)
        if job is not None:
            return job
        if self._depot is not None and self._depot.takes(function):
            raise TypeError(
                "a stored job is accepted when it is committed, and submit_nowait cannot wait for "
                "that: await submit(...), or declare its queue Queue(..., stored=False)"
            )
        job = intake.make(function, args, kwargs)
        queue = cast("MemoryQueue", job._order.home)
        if queue.is_full():
            raise QueueFull(
                f"queue {queue.name!r} holds {queue.maxsize} waiting jobs: await submit(...) to wait for room"
            )
        intake.put(job)
        return job

    @overload
    async def submit_many(
        self, function: Callable[[Item], Coroutine[Any, Any, T]], items: Iterable[Item], /
    ) -> list[Job[T]]: ...
    @overload
    async def submit_many(
        self, function: Callable[[Item], T], items: Iterable[Item], /
    ) -> list[Job[T]]: ...
    async def submit_many(self, function: Any, items: Iterable[Any], /) -> list[Job[Any]]:
        """Make a job of each item, the function's only argument; all are accepted, or none is.

        Waits until the queue has room for all of them. Raises QueueFull if it never can have:
        `map` takes any number, and holds few at a time. Raises TypeError if `items` cannot be
        iterated, and otherwise what `submit` raises; if that is DuplicateJob, of a stored job
        whose key is held, the others of the items are stored nevertheless.
        """
        intake = self._entered()
        intake.check()
        depot = self._depot
        if depot is not None and depot.takes(function):
            each = _checks.iterable("items", items)
            return await depot.submit([(function, (item,), {}) for item in each])
        queue = cast("MemoryQueue", intake.order(function).home)
        jobs: list[Job[Any]] = []
        for item in _checks.iterable("items", items):
            if len(jobs) == queue.maxsize:
                raise QueueFull(
                    f"more than {counted(len(jobs), 'job')} can never fit in queue "
                    f"{queue.name!r}: use map"
                )
            heavy = None
            try:
                jobs.append(intake.make(function, (item,), {}, True))
            except Heavy as found:
                heavy = found.with_traceback(None)
            if heavy is not None:
                jobs.append(await intake.make_aside(function, (item,), {}, heavy))
        if not jobs:
            return jobs
        if not queue.room.has(len(jobs)):
            await queue.room.take(len(jobs), intake.check)
        if all(job._rare is None for job in jobs) and jobs[0]._order.policies.simple:
            queue.put_many(jobs)
        else:
            for job in jobs:
                intake.put(job)
        return jobs

    @overload
    async def call(self, function: Call[Coroutine[Any, Any, T]], /) -> T: ...
    @overload
    async def call(
        self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def call(self, function: Call[T], /) -> T: ...
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
        finally:
            del job  # this frame is in the traceback of the error, which is the job's

    @overload
    def map(
        self,
        function: Callable[[Item], Coroutine[Any, Any, T]],
        items: Iterable[Item] | AsyncIterable[Item],
        /,
        *,
        ordered: bool = True,
        window: int | None = None,
        cpu: bool = False,
    ) -> Stream[T]: ...
    @overload
    def map(
        self,
        function: Callable[[Item], T],
        items: Iterable[Item] | AsyncIterable[Item],
        /,
        *,
        ordered: bool = True,
        window: int | None = None,
        cpu: bool = False,
    ) -> Stream[T]: ...
    def map(
        self,
        function: Any,
        items: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        ordered: bool = True,
        window: int | None = None,
        cpu: bool = False,
    ) -> Stream[Any]:
        """Run the function for each item of an iterable of any length, finite or not.

        Returns a Stream: await it for a list, or iterate it. Items are taken from the iterable
        as there is room, so that never more than `window` are on their way (twice the queue's
        workers if None, and at least 64). `cpu=True` runs a `def` function in processes, as if it
        were declared so; there quick items cross many at a time, and without a `window` so many
        are on their way that no process waits for them. Raises TypeError or ValueError for what
        makes no job, what cannot be iterated (a text counts as that) and a senseless window.
        """
        _checks.flag("ordered", ordered)
        if _checks.flag("cpu", cpu):
            if not isinstance(function, JobFunction):
                function = JobFunction(function, {})
            function = cast("JobFunction[..., Any]", function).options(cpu=True)
        if window is not None:
            _checks.whole("window", window, 1, 10_000_000)
        if not isinstance(items, AsyncIterable):
            _checks.iterable("items", items, "an iterable or an async iterable")
        intake = self._entered()
        intake.check_mapped(function)  # what makes no job is refused here, not when it is read
        return Stream(lambda: intake.plan(function), items, ordered, window)

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
        intake = self._entered()
        intake.hub.check_process()
        assert self._relay is not None
        return self._relay.submit(lambda: self.submit(function, *args, **kwargs))

    # ---- steering

    def get(self, job_id: str, /) -> Job[Any]:
        """The unfinished job with this id; raises JobNotFound if there is none (any more).

        Of a stored job: if this process has anything to do with it. `await stored.get(id)` finds all.
        """
        hub = self._entered().hub
        if type(job_id) is not str:
            raise TypeError(f"job_id must be a str, not {_checks.shown(job_id)}")
        job = hub.index.get(job_id)
        if job is None and self._depot is not None:
            job = self._depot.find(job_id)
        if job is None:
            raise JobNotFound(f"no unfinished job has the id {_checks.shown(job_id)}")
        return job

    def jobs(
        self,
        *,
        state: JobState | str | None = None,
        queue: str | None = None,
        name: str | None = None,
        tag: str | None = None,
    ) -> list[Job[Any]]:
        """The unfinished jobs of this process, oldest first, that match everything given. Of stored
        jobs those it has leased; `stored.jobs()` has all.
        """
        hub = self._entered().hub
        hub.check_loop()
        wanted = None if state is None else _state(state)
        for argument, text in (("name", name), ("tag", tag)):
            if text is not None:
                _checks.text(argument, text)
        if queue is not None:
            self._entered().queue(queue)
        depot = self._depot
        jobs = hub.unfinished()
        if depot is not None:
            runs = set(depot.link.runs.values())
            jobs = [depot.view_of(job) if job in runs else job for job in jobs]
        return [
            job
            for job in jobs
            if (wanted is None or job.state is wanted)
            and (queue is None or job.queue == queue)
            and (name is None or job.name == name)
            and (tag is None or tag in job.tags)
        ]

    def cancel(self, job: Job[Any] | str, reason: str = "cancel() was called") -> bool:
        """Cancel a job, given itself or by its id: as `Job.cancel`, False if it has ended.

        Raises TypeError for what is neither, and WrongLoop outside the supervisor's loop.
        """
        _checks.text("reason", reason)
        if isinstance(job, str):
            try:
                job = self.get(job)
            except JobNotFound:
                return False
        if not isinstance(job, Job):
            raise TypeError(f"job must be a Job or an id, not {_checks.shown(job)}")
        return job.cancel(reason)

    def pause(self, queue: str) -> None:
        """Start no more jobs of this queue; it goes on accepting them, and what runs runs on.

        Raises ValueError if there is no such queue, WrongLoop outside the supervisor's loop.
        """
        self._set_paused(queue, True)

    def resume(self, queue: str) -> None:
        """Start jobs of this queue again. Raises what `pause` does."""
        self._set_paused(queue, False)

    def resize(self, queue: str, workers: int) -> None:
        """Let so many jobs of this queue run at once. If more are running, they run to their end.

        Raises what `pause` does, and TypeError or ValueError for a senseless number.
        """
        self._entered().hub.check_loop()
        found = self._entered().queue(queue)
        found.resize(_checks.whole("workers", workers, 0, 1_000_000))
        found.teller.emit(events.QueueResized, queue, workers)
        if self._state == "draining":
            end_if_still(found)

    def _set_paused(self, queue: str, paused: bool) -> None:
        self._entered().hub.check_loop()
        found = self._entered().queue(queue)
        if found.paused is not paused:
            found.paused = paused
            found.hold(paused)
            found.teller.emit(events.QueuePaused if paused else events.QueueResumed, queue)
            if self._state == "draining":
                end_if_still(found)

    @property
    def stored(self) -> Stored:
        """What is in the store, whichever process submitted or runs it.

        Raises ValueError if this supervisor has no store, SupervisorClosed before it was entered.
        """
        if self._store is None:
            raise ValueError(f"supervisor {self._name!r} has no store: Supervisor(store=...)")
        self._entered()
        assert self._depot is not None
        return Stored(self._depot)

    def dashboard(
        self,
        *,
        auth: object,
        actions: bool = False,
        hosts: Iterable[str] = (),
        every: float | timedelta = 1.0,
        clients: int = 16,
    ) -> Callable[[Any, Any, Any], Awaitable[None]]:
        """A page that shows live what this supervisor does, as an ASGI app to mount:
        `app.mount("/dashboard", supervisor.dashboard(auth=...))`. It may be made at any time.

        - `auth`: who may see it: `asyncworkers.http.Token()`, or a function that is given the request
          and says True, "read" (only look) or False. None: whoever is on this machine, nobody else.
        - `actions`: whether they may cancel and retry jobs, pause and resize queues; without it the
          page shows and changes nothing.
        - `hosts`: the names under which it may be asked, beside those of this machine itself.
        - `every`: seconds between two pictures, while somebody looks.
        - `clients`: how many may look at once.

        From then on it hears of every event, to know what has ended and how long that took. Needs
        `pip install 'asyncworkers[dashboard]'`. Raises TypeError or ValueError for what makes no
        sense, such as `hosts` without `auth`.
        """
        from asyncworkers.dashboard import (  # an extra, imported when it is wanted
            Dashboard,
            LiveSource,
        )

        return Dashboard(
            LiveSource(self),
            auth=cast("Any", auth),
            actions=actions,
            hosts=hosts,
            every=every,
            clients=clients,
            ends=self.wait_draining,
        )

    def using(self, what: object, /) -> Using:
        """Submit stored jobs together with something else: `using(connection).submit(function, x)`.

        They are stored exactly if that is committed, in the same commit. `what` is:

        - `current_job()`: with the end of the job that submits, if it succeeds. One whose unique key
          is held by another then is not stored but cancelled, and a warning says so;
        - the connection of `current_job().transaction()`: likewise, and with what is written there;
        - a `sqlite3.Connection` to the store's file on which you have a transaction open. The jobs
          begin a moment after you have committed it.

        Raises what `stored` does.
        """
        self.stored  # noqa: B018 (it says what is wrong)
        assert self._depot is not None
        return Using(self._depot, what, self._entered().check)

    # ---- looking at it

    def stats(self) -> Stats:
        """The figures of every queue at this moment; after the end, the last ones."""
        return Stats({name: queue_stats(queue) for name, queue in self._known_queues().items()})

    def workers(self, most: int = 1_000) -> list[WorkerStats]:
        """What the workers of every queue are doing that are at work, `most` of them at the most."""
        _checks.whole("most", most, 0, 1_000_000)
        found = (one for queue in self._known_queues().values() for one in worker_stats(queue))
        return list(itertools.islice(found, most))

    def iter_jobs(self, queue: str | None = None) -> Iterator[Job[Any]]:
        """The unfinished jobs of this process one by one, of all queues or of one, for who wants only
        some of them: a million that wait cost nothing until they are reached.

        Of each queue come first those that run, then those in line as they are to run, then the
        scheduled ones. Take them without an `await` in between: what waits may change there.
        Raises ValueError if there is no such queue, WrongLoop outside the supervisor's loop.
        """
        intake = self._entered()
        intake.hub.check_loop()
        queues = intake.queues.values() if queue is None else (intake.queue(queue),)
        depot = self._depot
        jobs = (job for one in queues for job in one.census.jobs())
        if depot is None:
            return jobs
        runs = depot.link.runs
        return (
            depot.view_of(job) if runs.get(getattr(job._rare, "id", "")) is job else job
            for job in jobs
        )

    @property
    def chronicle(self) -> Chronicle | None:
        """What was recorded of this run; None without `record`. It stays when the supervisor closes."""
        return self._chronicle

    def health(self, *, patience: float | timedelta = 1.0) -> Health:
        """Whether it is alive and ready for jobs, and if not, why; see `HealthApp` for probes.

        May be called in any thread; outside the loop's own, the loop has `patience` seconds to
        answer, and is not alive if it does not.
        """
        seconds = _checks.duration("patience", patience)
        hub = None if self._intake is None else self._intake.hub
        if hub is None or self._state not in ("open", "draining") or hub.is_here():
            return health_of(self._state, hub)
        return health_asked(lambda: health_of(self._state, hub), hub.loop, seconds)

    async def backlog(self) -> dict[str, Backlog]:
        """What every queue has to do, by name: how many jobs wait and how long the oldest has.

        Made for autoscalers: cheap however many jobs there are in memory, one question to the
        store for its queues. Raises StoreUnavailable if that cannot be asked, and WrongLoop outside
        the supervisor's loop.
        """
        intake = self._entered()
        intake.hub.check_loop()
        counts: dict[str, Any] = {}
        if self._depot is not None:
            counts = {one.queue: one for one in await self._depot.store.counts()}
        return {
            name: backlog_everywhere(queue, counts.get(name))
            if queue.stored
            else backlog_here(queue)
            for name, queue in intake.queues.items()
        }

    def report(self) -> Report:
        """What became of the jobs, how long they waited and ran, what went wrong: `print()` it.

        It may be asked for at any time, and when the supervisor has closed. Times, the slowest
        and most retried jobs, and errors are in it if the supervisor records: `record=True`.
        Raises SupervisorClosed before the supervisor was entered.
        """
        from asyncworkers.report import make_report  # what many never need

        hub = self._entered().hub
        lasted = (hub.clock.now() if self._ended is None else self._ended) - self._since
        return make_report(
            self._name, self._state, lasted, self.stats(), hub.stalls, self._chronicle
        )

    def timeline(self) -> Timeline:
        """Every attempt that was recorded, over time: `supervisor.timeline().save("run.html")`.

        It may be asked for at any time, and when the supervisor has closed. Raises ValueError if
        this supervisor does not record, SupervisorClosed before it was entered.
        """
        if self._chronicle is None:
            raise ValueError(f"supervisor {self._name!r} does not record: Supervisor(record=True)")
        from asyncworkers.timeline import make_timeline  # what many never need

        return make_timeline(self._chronicle, self.report())

    def plot(self) -> Plot:
        """Throughput and the times of attempts over time, by matplotlib; a notebook shows it.

        `supervisor.plot().save("run.png")` writes it. It may be asked for at any time, and when
        the supervisor has closed. Raises ValueError if this supervisor does not record,
        SupervisorClosed before it was entered, ImportError without `asyncworkers[plot]`.
        """
        if self._chronicle is None:
            raise ValueError(f"supervisor {self._name!r} does not record: Supervisor(record=True)")
        from asyncworkers.plot import make_plot  # what many never need

        return make_plot(self._chronicle, self.report().headline)

    def explain(self) -> str:
        """What every queue is doing, and what its jobs are waiting for, in a few lines of text."""
        lines = [repr(self)[1:-1]]
        for queue in self._known_queues().values():
            lines.append(f"  {explain_queue(queue)}")
            lines.extend(f"    {job.name} {job.id} {job.why}" for job in queue.census.examples(3))
        return "\n".join(lines)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell this callable of every event from now on; call what is returned to stop that.

        Raises TypeError if it is not callable.
        """
        self._listeners.add(listener)
        if self._intake is not None:
            self._intake.hub.refresh()

        def stop_listening() -> None:
            self._listeners.remove(listener)
            if self._intake is not None:
                self._intake.hub.refresh()

        return stop_listening

    def on_error(self, witness: Callable[[Job[Any], Exception], object]) -> Callable[[], None]:
        """Show this callable every attempt's error, with its job, as it ends, while somebody listens:
        events are plain data, and have neither traceback nor arguments. Call what is returned to
        stop that.

        It is called on the loop, so keep it short, and keep neither job nor error, for they hold on
        to whatever they were made of. If it raises it is dropped. Raises TypeError if it is not callable.
        """
        if not callable(witness):
            raise TypeError(f"witness must be callable, not {_checks.shown(witness)}")
        self._witnesses.append(witness)

        def stop_showing() -> None:
            if witness in self._witnesses:
                self._witnesses.remove(witness)

        return stop_showing

    def subscribe(self, limit: int = 10_000) -> Subscription:
        """The events from now on, to be read one by one, of which at most `limit` wait to be read.

        Raises TypeError or ValueError for a senseless limit.
        """
        return Subscription(self.listen, limit)

    def escort(self, escort: Escort) -> Callable[[], None]:
        """Have every job accompanied from now on, as traces do; call what is returned to stop that.

        One that raises is dropped, loudly. Raises TypeError for what cannot do what an Escort does,
        ValueError if there is an escort already.
        """
        if not all(callable(getattr(escort, verb, None)) for verb in ESCORTS):
            raise TypeError(f"escort must be an Escort, not {_checks.shown(escort)}")
        if self._escort is not None:
            raise ValueError(f"{self._escort!r} accompanies the jobs of {self!r} already")
        self._escort = escort
        if self._intake is not None:
            self._escort_in(self._intake.hub)

        def stop() -> None:
            if self._escort is escort:
                self._escort = None
                if self._intake is not None:
                    self._intake.hub.escort_with(None)

        return stop

    def _escort_in(self, hub: Hub) -> None:
        if self._escort is not None:
            hub.escort_with(Escorting(self._escort, lambda: hub.escort_with(None)))

    def __repr__(self) -> str:
        figures = [
            f"{queue.name}: {queue.census.running} running, {queue.census.queued} queued, "
            f"{counted(queue.crew.workers, 'worker')}"
            for queue in self._known_queues().values()
            if queue.census.submitted or queue.name == "default"
        ]
        inside = f" [{'; '.join(figures)}]" if figures else ""
        named = "" if self._name == "supervisor" else f" {self._name!r}"
        return f"<Supervisor{named} {self._state}{inside}>"

    def _repr_html_(self) -> str:
        """As notebooks show it: every queue with its figures, and what some jobs wait for."""
        named = "" if self._name == "supervisor" else f" {self._name}"
        waits = [
            (job.name, job.id, job.why)
            for queue in self._known_queues().values()
            for job in queue.census.examples(3)
        ]
        return _html.block(
            f"Supervisor{named}, {self._state}",
            self.stats()._tables(),
            _html.rows(("job", "id", "why it is not done"), waits),
        )

    def _entered(self) -> Intake:
        if self._intake is None:
            raise SupervisorClosed(
                f"supervisor {self._name!r} was not entered: async with Supervisor() as supervisor",
                "new",
            )
        return self._intake

    def _known_queues(self) -> dict[str, MemoryQueue]:
        return {} if self._intake is None else self._intake.queues

    def _emit(self, event: Callable[[float, str], events.Event]) -> None:
        if self._listeners and self._intake is not None:
            self._listeners.emit(event(self._intake.hub.clock.now(), self._name))


_open: weakref.WeakSet[Supervisor] = weakref.WeakSet()


@atexit.register
def _tell_what_is_lost() -> None:
    """The interpreter ends, and nobody has left these."""
    for supervisor in tuple(_open):
        tell_what_is_lost(supervisor._entered().hub)


def _state(value: JobState | str) -> JobState:
    if isinstance(value, JobState):
        return value
    return JobState(_checks.one_of("state", value, tuple(JobState)))


def _tell(
    crashed: weakref.WeakMethod[Callable[[str, BaseException], None]],
    queue: str,
    error: BaseException,
) -> None:
    found = crashed()
    if found is not None:
        found(queue, error)
