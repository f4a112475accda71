"""Frozen records that something happened, and the listeners that are told of them in order.

Events are plain data: they hold no job, no argument and no result, so that they can be kept,
logged or sent elsewhere without holding anything alive. Nothing in them comes from a job's
arguments, but for what the message of an exception quotes. `at` is in seconds on the supervisor's
clock: `time.monotonic()` on ordinary loops, a test loop's own time. Attempts tell when they began
and ended where they ran, of which the loop may hear a little later: events come in the order in
which they are heard of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeAlias

from asyncworkers import _checks
from asyncworkers._log import log
from asyncworkers._record import Record

__all__ = [
    "AttemptAbandoned",
    "AttemptEnded",
    "AttemptStarted",
    "ChildEnded",
    "ChildStarted",
    "Event",
    "JobEvent",
    "JobProgressed",
    "JobSettled",
    "JobSubmitted",
    "LeaseLost",
    "Listener",
    "ListenerDropped",
    "Listeners",
    "LoopStalled",
    "QueueExhausted",
    "QueuePaused",
    "QueueResized",
    "QueueResumed",
    "StoreFound",
    "StoreMissed",
    "SupervisorClosed",
    "SupervisorDraining",
    "SupervisorStarted",
    "TasksLeaked",
    "WorkerReplaced",
]


class Event(Record):
    """Something happened, at `at` on the supervisor's clock."""

    at: float


class JobEvent(Event):
    """Something happened to a job. `tags` are those its function gave it."""

    job_id: str
    job_name: str
    queue: str
    tags: tuple[str, ...]


class JobSubmitted(JobEvent):
    """A job was accepted by its queue; of a stored job nothing is told if its id was there already, or
    if its `unique` key makes another job stand for it.
    """


class AttemptStarted(JobEvent):
    """A worker began to run the job; `attempt` counts from 1. The job had waited for `waited` seconds
    since it could have run: since it was submitted, or its delay or the pause before a retry ended.
    """

    attempt: int
    worker: int
    waited: float = 0.0


class AttemptEnded(JobEvent):
    """An attempt ended after `seconds`. The kinds of outcome and decision come as class names,
    such as `"TimedOut"` and `"RetryAfter"`. If the function raised, `error_type` is the class and
    `error` the class and message, as in `"ValueError: bad"`: one line, cut at 200 characters.
    After a `"Release"` the same attempt starts again: it could not begin, for want of a thread.
    """

    attempt: int
    worker: int
    seconds: float
    outcome: str
    decision: str
    error_type: str | None
    error: str | None


class JobSettled(JobEvent):
    """A job reached its end: `state` is succeeded, failed or cancelled, and stays so."""

    attempt: int
    state: str


class JobProgressed(JobEvent):
    """A running job reported how far it is."""

    done: float
    total: float | None
    message: str | None


class LeaseLost(JobEvent):
    """A stored job that was leased or ran here belongs to somebody else now: this process had not
    been heard of for too long. What the attempt returned is discarded.
    """

    attempt: int


class StoreMissed(Event):
    """The store cannot be reached; what runs goes on, and everything asked is asked again."""

    error: str


class StoreFound(Event):
    """The store can be reached again, after `seconds`."""

    seconds: float


class WorkerReplaced(Event):
    """A worker's task ended unasked, by a crash or a foreign cancellation, and was replaced."""

    queue: str
    worker: int
    cause: str
    job_id: str | None


class ChildStarted(Event):
    """A child process is ready, its initializer included, `seconds` after it was started."""

    queue: str
    worker: int
    pid: int
    seconds: float


class ChildEnded(Event):
    """A child process has ended, because of `cause`: it was not needed any more, it had served
    enough by the queue's limits, a job was stopped there while it imported, or it died.
    """

    queue: str
    worker: int
    pid: int
    cause: str


class AttemptAbandoned(JobEvent):
    """A cancelled attempt did not end in time; its job is settled, its code may still run."""

    attempt: int


class QueueExhausted(Event):
    """Every thread of the queue is held by an abandoned attempt, so its jobs must wait."""

    queue: str
    abandoned: tuple[str, ...]


class QueuePaused(Event):
    """The queue accepts jobs and starts none."""

    queue: str


class QueueResumed(Event):
    """The queue starts jobs again."""

    queue: str


class QueueResized(Event):
    """The queue may now run `workers` jobs at a time."""

    queue: str
    workers: int


class LoopStalled(Event):
    """One step blocked the event loop for `seconds`; the place is where it was seen blocking.

    `held_gil` is true if no other thread could run meanwhile, so that the place was only seen
    when the blocking call returned. `job_id` is None if no job was at work.
    """

    seconds: float
    job_id: str | None
    job_name: str | None
    file: str
    line: int
    function: str
    held_gil: bool


class TasksLeaked(Event):
    """Tasks that a job started and left behind; they were cancelled when the supervisor ended.

    `job_id` is None for an item of a map, which mostly has no Job.
    """

    job_id: str | None
    job_name: str
    count: int


class ListenerDropped(Event):
    """A listener raised, so it is told no more."""

    listener: str
    error: str


class SupervisorStarted(Event):
    """The supervisor is open."""

    supervisor: str


class SupervisorDraining(Event):
    """The supervisor accepts nothing new and finishes what it has."""

    supervisor: str


class SupervisorClosed(Event):
    """The supervisor has ended; nothing follows."""

    supervisor: str


Listener: TypeAlias = Callable[[Event], object]
"""A synchronous callable told of every event, on the loop, in order. Keep it short: the loop
waits for it. If it raises it is dropped, once and loudly."""


class Listeners:
    """Tells every listener of every event, in the same order, also when one of them emits more.

    Truthy while anybody listens, so that whoever would emit can skip making the event.
    """

    __slots__ = ("_listeners", "_telling", "_untold")

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._listeners: tuple[Listener, ...] = ()
        self._untold: deque[Event] = deque()
        self._telling = False
        for listener in listeners:
            self.add(listener)

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def __len__(self) -> int:
        return len(self._listeners)

    def add(self, listener: Listener) -> None:
        """Tell this callable too, from the next event on; raises TypeError if it is not callable."""
        if not callable(listener):
            raise TypeError(f"a listener must be callable, not {_checks.shown(listener)}")
        self._listeners += (listener,)

    def remove(self, listener: Listener) -> None:
        """Tell it no more; nothing happens if it was not told before."""
        left = list(self._listeners)
        if listener in left:
            left.remove(listener)
            self._listeners = tuple(left)

    def emit(self, event: Event) -> None:
        """Tell everybody. Never raises: a listener that does is dropped and the others are told."""
        if self._telling:  # a listener caused this event: it comes after the one being told
            self._untold.append(event)
            return
        self._telling = True
        try:
            self._tell(event)
            while self._untold:
                self._tell(self._untold.popleft())
        finally:
            self._telling = False

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except BaseException as error:  # also SystemExit: a listener must not end the loop
                self.remove(listener)
                name = _checks.shown(listener)
                log.failure(f"dropped listener {name}, which raised", error)
                self._untold.append(ListenerDropped(event.at, name, _checks.summary(error)))
