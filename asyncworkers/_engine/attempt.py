"""An attempt is one execution of a job, as its worker has it in hand: begun, cancelled, lent, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import types
from collections.abc import Sequence
from typing import Any, Protocol

from asyncworkers import _checks
from asyncworkers._engine.children import ChildStats
from asyncworkers.bridge import CancelToken
from asyncworkers.errors import JobFailed
from asyncworkers.job import Job
from asyncworkers.outcome import Cancelled, Failed, TimedOut

__all__ = [
    "UNFINISHED",
    "Attempt",
    "Lender",
    "failure",
    "fault_of_ours",
    "unfinished",
    "waits_for",
]

UNFINISHED: frozenset[Any] = frozenset(
    {
        types.CoroutineType,
        types.GeneratorType,
        types.AsyncGeneratorType,
        asyncio.Task,
        asyncio.Future,
    }
)
"""Types of values that a job returns only when somebody forgot an `await` or a loop."""


class Lender(Protocol):
    """What an attempt needs of its queue to lend its slot and take it back."""

    hub: Any

    def lend_slot(self) -> None: ...
    def take_slot_back(self) -> None: ...


class Attempt:
    """The execution that a worker has in hand; the worker uses it again for its next job.

    One object a worker, not one a job, because making one costs a tenth of the whole job.
    `serial` grows with every use, so that whoever remembers an attempt can tell if it is over.

    Facts about cancelling, which the rules here follow:
    - `task.cancel()` throws at the next step of the task. So it may be called only while the
      task is inside this attempt, which is when `job` is set: all of this is synchronous.
    - On Python 3.11 a cancellation that was not delivered yet cannot be taken back. So a task
      that was ever cancelled never runs another job: its worker ends and a new one is started.
    - The first reason to cancel is the outcome, whatever the function makes of it afterwards.
    """

    __slots__ = (
        "_token",
        "at",
        "has_begun",
        "hub",
        "job",
        "lends",
        "number",
        "off_duty",
        "queue",
        "retired",
        "serial",
        "since",
        "supply",
        "task",
        "value",
        "verdict",
        "waits_for",
        "worker",
    )

    def __init__(self, queue: Lender, number: int) -> None:
        self.queue = queue
        self.hub = queue.hub
        self.number = number  # of the worker, for people
        self.worker: asyncio.Task[None] | None = None
        self.task: asyncio.Task[Any] | None = None  # the job's own, or else the worker's
        self.job: Job[Any] | None = None
        self.supply: Any = None  # the stream's supply that the worker works through, if it does
        self.at: Any = None  # the item of that supply: (this attempt, index, item, supply)
        self.since = 0.0  # when the worker's turn with that supply began
        self.serial = 0
        self.verdict: Cancelled | TimedOut | None = None
        self.retired = False  # the job was settled without waiting for its code to end
        self.has_begun = False  # the worker, to work
        self.off_duty = False  # the worker no longer counts as one of its queue's
        self.value: Any = None
        self.lends = 0
        self.waits_for: list[Job[Any]] = []
        self._token: CancelToken | None = None

    def running_job(self) -> Job[Any] | None:
        """The job at hand; that of a stream's item is made here, if nobody has asked before."""
        if self.job is None and self.at is not None and self.supply is not None:
            made: Job[Any] = self.supply.make_running_job(self)
            return made
        return self.job

    @property
    def token(self) -> CancelToken:
        """The token of the job at hand, made when first asked for, perhaps by a thread, while the
        loop's cancels the attempt or ends it: each looks after the other may have written.
        """
        token = self._token
        if token is None:
            token = CancelToken()
            if self.job is not None:
                self._token = token
            verdict = self.verdict
            if verdict is not None:
                token.cancel(_reason(verdict))
            elif self.job is None:
                token.cancel("the attempt is over")
        return token

    def cancel(self, verdict: Cancelled | TimedOut) -> bool:
        """End the attempt with this outcome; False if it already has one or is over."""
        if self.verdict is not None or self.job is None or self.task is None:
            return False
        self.verdict = verdict
        self.tell_token(verdict)
        self.task.cancel(_reason(verdict))
        return True

    def tell_token(self, verdict: Cancelled | TimedOut) -> None:
        """The job's code is to notice, if it has asked for a token."""
        if self._token is not None:
            self._token.cancel(_reason(verdict))

    # What only some kinds of workers can do.

    @property
    def ahead(self) -> Sequence[Job[Any]]:
        """Jobs that this worker was given and has not begun."""
        return ()

    def refresh(self) -> None:
        """Note what has begun, if that is elsewhere."""

    def give_up(self, job: Job[Any]) -> bool:  # noqa: ARG002
        """Let go of a job that this worker was given; False if it has begun, or is not its own."""
        return False

    def kill(self) -> bool:
        """End the job by force and settle it; False if its code can only be left behind."""
        return False

    @property
    def left(self) -> str | None:
        """The name of a call that runs on here although its job has been settled; None if none does."""
        return None

    @property
    def child(self) -> ChildStats | None:
        """The process of its own that this worker has, if it has one."""
        return None

    @property
    def delay(self) -> str | None:
        """Why this worker, which runs nothing, cannot take a job yet; None if it can."""
        return None

    @property
    def stuck(self) -> str | None:
        """Why this worker can take no job for longer than it takes to begin; None if it can."""
        return None

    def drop(self) -> None:
        """The loop was closed under this worker: let go of what would outlive it."""

    def leave(self) -> float:
        """The supervisor closes: end, if nothing else tells this worker to; seconds that may take."""
        return 0.0

    def clear(self) -> None:
        """Let go of the job; a slot it still lends (to a subtask that waits on) is taken back."""
        self.job = None
        self._token = None
        self.verdict = None
        if self.lends:
            self.lends = 0
            self.waits_for.clear()
            self.queue.take_slot_back()

    def lend(self, awaited: Job[Any] | None) -> None:
        """The job waits for another job, or for room, so its slot may serve somebody meanwhile."""
        if awaited is not None:
            self.waits_for.append(awaited)
        self.lends += 1
        if self.lends == 1:
            self.queue.lend_slot()

    def take_back(self, awaited: Job[Any] | None, serial: int) -> None:
        """The wait is over; the last one to end takes the slot back, and never has to wait for it."""
        if serial != self.serial or not self.lends:
            return
        if awaited is not None:
            self.waits_for.remove(awaited)
        self.lends -= 1
        if not self.lends:
            self.queue.take_slot_back()


def waits_for(job: Job[Any], goal: Job[Any]) -> bool:
    """Whether the job is the goal, or awaits it through any number of others."""
    seen: set[int] = set()
    open_jobs = [job]
    while open_jobs:
        one = open_jobs.pop()
        if one is goal:
            return True
        attempt = one._runner()
        if id(one) not in seen and attempt is not None:
            seen.add(id(one))
            open_jobs.extend(attempt.waits_for)
    return False


def _reason(verdict: Cancelled | TimedOut) -> str:
    match verdict:
        case Cancelled(reason):
            return reason
        case TimedOut(timeout):
            return f"ran longer than {timeout:g} s"


_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_OURS = (os.path.join(_HERE, "_engine") + os.sep, os.path.join(_HERE, "bridge") + os.sep)


def failure(error: BaseException) -> Failed:
    """What a function raised, as whoever awaits the job will see it.

    An ordinary exception is itself. What would end a task, a thread or the loop if it were raised
    again (SystemExit, KeyboardInterrupt, a CancelledError nobody asked for, StopIteration, ...)
    comes as a JobFailed with the original as its cause; and what raises itself when it is asked what
    it is, as a JobFailed that says so.
    """
    try:
        return _as_seen(error)
    except BaseException as trouble:
        kind, said = _checks.kind_of(error), _checks.kind_of(trouble)
        return Failed(JobFailed(f"the job raised {kind}, which raises {said} when it is looked at"))


def _as_seen(error: BaseException) -> Failed:
    _drop_our_frames(error)
    if isinstance(error, Exception) and not isinstance(error, (StopIteration, StopAsyncIteration)):
        return Failed(error)
    kind = _checks.kind_of(error)
    if isinstance(error, asyncio.CancelledError):
        failed = JobFailed("the job was cancelled by its own code: nobody asked asyncworkers to")
    else:
        failed = JobFailed(f"the job raised {kind}, which must not leave it")
    failed.__cause__ = error
    return Failed(failed)


def fault_of_ours(crash: BaseException) -> JobFailed:
    """The error of a job whose worker crashed."""
    error = JobFailed(f"a fault of asyncworkers: its worker raised {_checks.kind_of(crash)}")
    error.__cause__ = crash
    return error


def unfinished(value: Any, name: str) -> Failed:
    """The failure of a job that returned something still to be awaited or iterated."""
    kind = type(value).__name__
    return Failed(
        TypeError(f"{name} returned a {kind}, not a value: an await or a loop is missing")
    )


def _drop_our_frames(error: BaseException) -> None:
    """The traceback is to begin with the job's code. Ours holds the job, which holds the error, and
    a frame of the job's code may know the one that called it: so ours are emptied as well.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        with contextlib.suppress(RuntimeError):  # the worker's own runs on
            trace.tb_frame.clear()
        trace = trace.tb_next
    if trace is not None:
        BaseException.with_traceback(error, trace)
