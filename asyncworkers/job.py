"""A Job is one call to be made: await it for the value, ask it for its state, cancel it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Callable, Generator, Mapping
from contextvars import Context, ContextVar
from datetime import datetime
from enum import StrEnum
from types import FrameType, MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from asyncworkers import _checks, _html
from asyncworkers._arity import ANY, Arity
from asyncworkers._log import log
from asyncworkers._record import Record
from asyncworkers.errors import JobCancelled, JobExpired, JobTimedOut
from asyncworkers.function import Policies, name_of
from asyncworkers.outcome import Cancelled, Failed, Outcome, Succeeded, TimedOut

__all__ = ["Job", "JobState", "Progress"]

T_co = TypeVar("T_co", covariant=True)


class JobState(StrEnum):
    """Where a job is on its way; a retry that waits is `scheduled` again."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# The same states as small integers, for the path of each job: all from ENDED on are final.
SCHEDULED: Final = 0
QUEUED: Final = 1
RUNNING: Final = 2
SUCCEEDED: Final = 3
FAILED: Final = 4
CANCELLED: Final = 5
ENDED: Final = SUCCEEDED
STATES: Final = tuple(JobState)


class Progress(Record):
    """How far a running job is, by its own last report: `done` of `total`, in units of its own."""

    done: float
    total: float | None = None
    message: str | None = None


class Home(Protocol):
    """What a job needs of the queue it belongs to."""

    @property
    def name(self) -> str: ...
    def job_id(self, job: Job[Any]) -> str: ...
    def utc(self, moment: float) -> datetime: ...
    def create_future(self) -> asyncio.Future[None]: ...
    def cancel(self, job: Job[Any], reason: str) -> bool: ...
    def explain_job(self, job: Job[Any]) -> str: ...
    def lender(self, job: Job[Any]) -> Runner | None: ...


class Runner(Protocol):
    """What a job knows of the attempt that runs it at the moment."""

    number: int
    serial: int
    waits_for: list[Job[Any]]

    def lend(self, awaited: Job[Any] | None) -> None: ...
    def take_back(self, awaited: Job[Any] | None, serial: int) -> None: ...


class Order:
    """What all jobs of one function on one queue have in common, so that a job need not hold it.

    `plain` folds the questions on the way into the queue into one: true if a job is a coroutine
    function's, starts as soon as a worker is free, and takes the submitter's context as it is.
    `gate` is that of the intake which takes such jobs without another question. `pack` packs the
    calls of functions whose jobs run in other processes. `arity` knows what the function takes, and
    `fewest` and `most` are its.
    """

    __slots__ = (
        *("_name", "arity", "fewest", "function", "gate", "home", "most", "pack", "plain"),
        *("policies", "timeout"),
    )

    def __init__(self, home: Home, policies: Policies, function: Callable[..., Any]) -> None:
        self._name = policies.name
        self.home = home
        self.policies = policies
        self.function = function
        self.timeout = policies.timeout
        self.plain = (
            policies.simple
            and not policies.blocking
            and policies.context == "submitter"
            and not policies.sets_context
        )
        self.gate: object = None
        self.pack: Callable[[Any, Any, Any, bool], Any] | None = None
        self.takes(ANY)

    def takes(self, arity: Arity) -> None:
        """Say what the function takes; at first it is anything."""
        self.arity, self.fewest, self.most = arity, arity.fewest, arity.most

    @property
    def name(self) -> str:
        """The name of the function, for people."""
        if self._name is None:
            self._name = name_of(self.function)
        return self._name


class Rare:
    """What most jobs never have, kept apart so that a million queued jobs stay small."""

    __slots__ = (
        "depth",
        "due",
        "expires_at",
        "headers",
        "id",
        "last_error",
        "parent",
        "progress",
        "tries",
    )

    def __init__(self, tries: int) -> None:
        self.id = ""  # given when somebody first asks for it
        self.tries = tries
        self.progress: Progress | None = None
        self.due = 0.0
        self.expires_at: float | None = None
        self.last_error: str | None = None  # the type that caused the retry
        self.parent: Job[Any] | None = None
        self.depth = 0
        self.headers: Mapping[str, str] | None = None  # what an escort has it carry


class Failure:
    """A job's error, kept so that it is raised the same every time and never lost in silence.

    The frames of its traceback are cleared, so that no local variable stays alive with it. If
    nobody ever looks at it, it is logged when the job goes away, or when the supervisor closes.
    """

    __slots__ = ("__weakref__", "error", "job_id", "name", "outcome", "trace", "unread")

    def __init__(self, error: Exception, outcome: Outcome, job_id: str, name: str) -> None:
        self.error = error
        self.trace = error.__traceback__
        self.outcome = outcome
        self.job_id = job_id
        self.name = name
        self.unread = True
        with contextlib.suppress(Exception):  # an error may have a class that answers by raising
            _clear_frames(error)

    def as_new(self) -> Exception:
        """The very exception, with the traceback it had when the job ended; counts as reading."""
        self.unread = False
        BaseException.with_traceback(self.error, self.trace)
        return self.error

    def report(self) -> None:
        """Log the error if nobody has read it; at most once."""
        if self.unread:
            self.unread = False
            log.failure(
                f"job {self.name} ({self.job_id}) failed and nobody awaited it", self.as_new()
            )

    def __del__(self) -> None:
        self.report()


def _clear_frames(error: BaseException) -> None:
    """Drop the local variables that a traceback, and those of its causes, would keep alive.

    A traceback may lead through a frame that has caught the error and goes on: a connection's
    reader, say, that handed its error to all who wait. Up to Python 3.12 to clear the frame of a
    suspended coroutine is to close the coroutine, so those are left alone.
    """
    seen: set[int] = set()
    errors = [error]
    while errors and len(seen) < 100:
        one = errors.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        trace = one.__traceback__
        while trace is not None:
            if _has_ended(trace.tb_frame):
                with contextlib.suppress(RuntimeError):
                    trace.tb_frame.clear()
            trace = trace.tb_next
        errors.extend(each for each in (one.__cause__, one.__context__) if each is not None)
        if isinstance(one, BaseExceptionGroup):
            errors.extend(cast("BaseExceptionGroup[BaseException]", one).exceptions)


def _has_ended(frame: FrameType) -> bool:
    """Whether the frame holds its variables by itself: while it runs or is suspended, the stack or
    its coroutine does, and it refers to nothing.
    """
    return sys.version_info >= (3, 13) or frame.f_code in gc.get_referents(frame)


class Lending:
    """While this is entered, the job whose code waits here lends its slot; None lends nothing."""

    __slots__ = ("_attempt", "_awaited", "_serial")

    def __init__(self, attempt: Runner | None, awaited: Job[Any] | None = None) -> None:
        self._attempt = attempt
        self._awaited = awaited
        self._serial = 0

    def __enter__(self) -> None:
        if self._attempt is not None:
            self._serial = self._attempt.serial
            self._attempt.lend(self._awaited)

    def __exit__(self, *_: object) -> None:
        if self._attempt is not None:
            self._attempt.take_back(self._awaited, self._serial)


_LENDS_NOTHING = Lending(None)


class Job(Generic[T_co]):
    """One call to be made, as returned by `submit`.

    Await it for the function's value, or for the very exception the function raised; it may be
    awaited any number of times, by anybody in the same event loop. Cancelling whoever awaits a
    job leaves the job running. Every job ends, also when its supervisor does.
    """

    __slots__ = (
        "__weakref__",
        "_args",
        "_context",
        "_created",
        "_finished",
        "_kwargs",
        "_order",
        "_rare",
        "_started",
        "_state",
        "_value",
        "_waiters",
    )
    _started: float
    _finished: float
    _value: Any

    def __init__(
        self,
        order: Order,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        context: Context | None,
        created: float,
    ) -> None:
        # Not for users: jobs are made by `submit`. Every slot costs each job, in time and memory,
        # so `_value` holds the attempt while the job runs and its end afterwards, and it, like
        # `_started` and `_finished`, has no value before the state says so.
        self._order = order
        self._args = args
        self._kwargs = kwargs
        self._context = context
        self._created = created
        self._state = QUEUED
        self._waiters: Any = None
        self._rare: Rare | None = None

    # ---- what it is

    @property
    def id(self) -> str:
        """A text that names the job within its supervisor."""
        return self._order.home.job_id(self)

    @property
    def name(self) -> str:
        """The name of the function, for people."""
        return self._order.name

    @property
    def queue(self) -> str:
        """The name of the queue it was submitted to."""
        return self._order.home.name

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags its function gave it."""
        return self._order.policies.tags

    @property
    def priority(self) -> int:
        """Its priority: higher runs sooner, 0 is ordinary."""
        return self._order.policies.priority

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments of the call; kept as long as the job is."""
        return self._args

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """The keyword arguments of the call; kept as long as the job is."""
        return MappingProxyType(self._kwargs or {})

    @property
    def stored(self) -> bool:
        """Whether it lives in a store, and outlives this process."""
        return False

    @property
    def function(self) -> Callable[..., Any]:
        """The function it calls; of a stored job that nothing here can run, one that does nothing."""
        return self._order.function

    # ---- where it is

    @property
    def state(self) -> JobState:
        """Where it is now; only ever moves on, but for a retry, which is scheduled again."""
        return STATES[self._state]

    @property
    def attempt(self) -> int:
        """The number of the current or last attempt: 0 before the first has started."""
        if self._rare is not None:
            return self._rare.tries
        return 1 if self._state >= RUNNING else 0

    @property
    def progress(self) -> Progress | None:
        """What the job last reported with `current_job().report(...)`, or None."""
        return None if self._rare is None else self._rare.progress

    @property
    def created(self) -> datetime:
        """When it was submitted, in UTC."""
        return self._order.home.utc(self._created)

    @property
    def started(self) -> datetime | None:
        """When its latest attempt started, in UTC; None before the first."""
        if not self.attempt:
            return None
        # Of a stored job the one may be a store's date, in milliseconds, and the other a moment here.
        return self._order.home.utc(max(self._started, self._created))

    @property
    def due(self) -> datetime | None:
        """When it may start, in UTC, if it waits for that: a delay, or a retry; None otherwise."""
        if self._state != SCHEDULED or self._rare is None:
            return None
        return self._order.home.utc(self._rare.due)

    @property
    def finished(self) -> datetime | None:
        """When it ended, in UTC; None before."""
        return self._order.home.utc(self._finished) if self._state >= ENDED else None

    @property
    def why(self) -> str:
        """One sentence: what the job is waiting for, what it is doing, or how it ended."""
        return self._order.home.explain_job(cast("Job[Any]", self))

    # ---- how it ended

    def done(self) -> bool:
        """Whether it has ended, however."""
        return self._state >= ENDED

    def result(self) -> T_co:
        """Its value, or raise what it failed with; `asyncio.InvalidStateError` before the end."""
        if self._state < ENDED:
            raise asyncio.InvalidStateError(
                f"job {self.name} ({self.id}) is {self.state}, not done"
            )
        if self._state == SUCCEEDED:
            return cast("T_co", self._value)
        try:
            raise self._error()
        finally:
            del self  # this frame is in the error's traceback, and the error is the job's

    def exception(self) -> Exception | None:
        """What `await job` would raise, or None; `asyncio.InvalidStateError` before the end."""
        if self._state < ENDED:
            raise asyncio.InvalidStateError(
                f"job {self.name} ({self.id}) is {self.state}, not done"
            )
        return None if self._state == SUCCEEDED else self._error()

    def __await__(self) -> Generator[Any, None, T_co]:
        if self._state < ENDED:
            yield from self._until_ended()
        if self._state == SUCCEEDED:
            return cast("T_co", self._value)
        try:
            raise self._error()
        finally:
            del self  # this frame is in the error's traceback, and the error is the job's

    async def wait(self, timeout: float | None = None) -> Outcome:
        """Wait for the end and say how it came, as a value: this raises nothing the job raised.

        Raises TimeoutError if the job has not ended after `timeout` seconds; it goes on running.
        """
        if timeout is not None:
            timeout = _checks.duration("timeout", timeout)
        if self._state < ENDED:
            async with asyncio.timeout(timeout):
                await _Ended(cast("Job[Any]", self))
        return self._outcome()

    def cancel(self, reason: str = "cancel() was called") -> bool:
        """Ask for the job's end. False if it has ended already.

        A waiting job ends at once. A running attempt is cancelled at its next `await`; in a
        thread it is left behind, and can notice by `current_job().cancelled`. Raises WrongLoop
        outside the supervisor's event loop.
        """
        _checks.text("reason", reason)
        return self._order.home.cancel(cast("Job[Any]", self), reason)

    def __repr__(self) -> str:
        attempt = f", attempt {self.attempt}" if self.attempt > 1 else ""
        return f"<Job {self.name} {self.id} {self.state}{attempt}>"

    def _repr_html_(self) -> str:
        """As notebooks show it. Its arguments and its value stay its own, as in its repr."""
        parts = [_html.words(self.why)]
        progress = self.progress
        if progress is not None:
            total = "" if progress.total is None else f" of {progress.total:g}"
            said = "" if progress.message is None else f": {progress.message}"
            line = _html.text(f"{progress.done:g}{total}{said}")
            parts.append(f"<div>{_html.bar(progress.done, progress.total)} {line}</div>")
        times = [("created", self.created), ("started", self.started), ("finished", self.finished)]
        pairs: list[tuple[str, object]] = [
            ("id", self.id),
            ("queue", self.queue),
            ("attempt", self.attempt),
            ("tags", ", ".join(self.tags) or None),
            *((name, f"{at:%Y-%m-%d %H:%M:%S} UTC") for name, at in times if at is not None),
        ]
        return _html.block(f"Job {self.name}", *parts, _html.figures(pairs))

    # ---- for the rooms above

    def _until_ended(self) -> Generator[Any, None, None]:
        job = cast("Job[Any]", self)
        home = self._order.home
        waiter = home.create_future()
        lender = home.lender(job) if running.get(None) is not None else None
        with _LENDS_NOTHING if lender is None else Lending(lender, job):
            self._watch(waiter)
            try:
                yield from waiter
            except BaseException:
                self._unwatch(waiter)
                raise

    def _watch(self, waiter: asyncio.Future[None] | Callable[[Job[Any]], object]) -> None:
        """Wake this future, or call this callable, when the job ends. One waiter is the rule."""
        waiters: Any = self._waiters
        if waiters is None:
            self._waiters = waiter
        elif type(waiters) is list:
            cast("list[Any]", waiters).append(waiter)
        else:
            self._waiters = [waiters, waiter]

    def _unwatch(self, waiter: object) -> None:
        waiters: Any = self._waiters
        if waiters is waiter:
            self._waiters = None
        elif type(waiters) is list and waiter in waiters:
            cast("list[Any]", waiters).remove(waiter)

    def _wake(self) -> None:
        waiters: Any = self._waiters
        self._waiters = None
        for waiter in cast("list[Any]", waiters if type(waiters) is list else [waiters]):
            if isinstance(waiter, asyncio.Future):
                if not waiter.done():
                    cast("asyncio.Future[None]", waiter).set_result(None)
            else:
                waiter(self)

    def _uncommon(self) -> Rare:
        if self._rare is None:
            self._rare = Rare(self.attempt)
        return self._rare

    def _runner(self) -> Any:
        """The attempt that runs it at the moment, or None."""
        return self._value if self._state == RUNNING else None

    def _depth(self) -> int:
        return 0 if self._rare is None else self._rare.depth

    def _error(self) -> Exception:
        return cast("Failure", self._value).as_new()

    def _outcome(self) -> Outcome:
        if self._state == SUCCEEDED:
            return Succeeded(self._value)
        failure = cast("Failure", self._value)
        failure.unread = False
        return failure.outcome


class _Ended:
    """Awaits the end of a job and nothing else, so that its error is not raised."""

    __slots__ = ("_job",)

    def __init__(self, job: Job[Any]) -> None:
        self._job = job

    def __await__(self) -> Generator[Any, None, None]:
        if not self._job.done():
            yield from self._job._until_ended()


def outcome_of(error: Exception) -> Outcome:
    """The outcome that an error of a job's end stands for."""
    match error:
        case JobExpired(reason=reason):
            return Cancelled(reason, expired=True)
        case JobCancelled(reason=reason):
            return Cancelled(reason)
        case JobTimedOut(timeout=timeout):
            return TimedOut(timeout)
        case _:
            return Failed(error)


running: ContextVar[Any] = ContextVar("asyncworkers_running")
"""What runs in this context: a job, or None, or the (attempt, index, item) of a stream's item for
which no Job was made yet."""


def running_job() -> Job[Any] | None:
    """The job whose code is asking, also from a subtask or a thread it started; None outside."""
    found: Any = running.get(None)
    if type(found) is tuple:
        attempt = cast("tuple[Any, ...]", found)[0]
        return cast("Job[Any]", attempt.running_job()) if attempt.at is found else None
    return cast("Job[Any] | None", found)
