"""What the code of a running job may ask and say about itself."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from asyncworkers import _checks
from asyncworkers._engine.attempt import Attempt
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.stored.effects import JobTransaction
from asyncworkers.bridge import CancelCallback, CancelToken
from asyncworkers.job import Job, Progress, running_job

__all__ = ["CurrentJob", "current_job"]


class CurrentJob:
    """The job whose code is asking. May be kept and used in the job's own threads and subtasks."""

    __slots__ = ("_job", "_token")

    def __init__(self, job: Job[Any], attempt: Attempt | None) -> None:
        self._job = job
        self._token = attempt.token if attempt is not None else _over()

    @property
    def id(self) -> str:
        """The job's id, as `Job.id`."""
        return self._job.id

    @property
    def name(self) -> str:
        """The name of the job's function."""
        return self._job.name

    @property
    def queue(self) -> str:
        """The name of the queue it runs on."""
        return self._job.queue

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._job.attempt

    @property
    def attempts(self) -> int:
        """How many attempts its `retry` policy allows in all."""
        retry = self._job._order.policies.retry
        return 1 if retry is None else retry.attempts

    @property
    def tags(self) -> tuple[str, ...]:
        """The job's tags."""
        return self._job.tags

    @property
    def cancelled(self) -> CancelToken:
        """True once this attempt was cancelled or timed out: blocking code should poll it.

        Code on the loop need not: it gets a CancelledError at its next `await`.
        """
        return self._token

    def report(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the job is: `done` of `total`, in units of its own; may be called anywhere.

        It shows in `Job.progress` and as a JobProgressed event. Raises TypeError or ValueError
        for what is no finite number, and nothing once the attempt is over.
        """
        told = _progress(done, total, message)
        home = self._job._order.home
        if isinstance(home, MemoryQueue):
            home.report(self._job, told)

    def transaction(self) -> JobTransaction:
        """A transaction for rows of the job's own, in the store's database: they are committed with
        the job's end, exactly if it succeeds. `async with ... as connection`, in a thread `with`.

        Raises RuntimeError for a job that is not stored, or is over.
        """
        return JobTransaction(self._job)

    def __repr__(self) -> str:
        return f"<CurrentJob {self.name} {self.id}, attempt {self.attempt} of {self.attempts}>"


class _InChild(CurrentJob):
    """The same in a child process, where its parent knows what there is to know.

    Who it is, is asked once, when first wanted, and costs a journey to the parent and back.
    """

    __slots__ = ("_facts", "_number", "_serving")

    def __init__(self, serving: Any) -> None:
        self._serving = serving
        self._number: int = serving.current()
        self._facts: dict[str, Any] | None = None
        self._token = _TokenInChild(serving, self._number)

    def _fact(self, name: str) -> Any:
        if self._facts is None:
            if self._serving.current() != self._number:
                raise RuntimeError("nobody had asked which job this was before it was over")
            self._facts = self._serving.ask("who")
        return cast("dict[str, Any]", self._facts)[name]

    @property
    def id(self) -> str:
        """The job's id, as `Job.id`."""
        return cast("str", self._fact("id"))

    @property
    def name(self) -> str:
        """The name of the job's function."""
        return cast("str", self._fact("name"))

    @property
    def queue(self) -> str:
        """The name of the queue it runs on."""
        return cast("str", self._fact("queue"))

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return cast("int", self._fact("attempt"))

    @property
    def attempts(self) -> int:
        """How many attempts its `retry` policy allows in all."""
        return cast("int", self._fact("attempts"))

    @property
    def tags(self) -> tuple[str, ...]:
        """The job's tags."""
        return cast("tuple[str, ...]", self._fact("tags"))

    def report(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the job is, as in any other place."""
        told = _progress(done, total, message)
        if self._serving.current() == self._number:
            self._serving.note(("progress", told.done, told.total, told.message))

    def transaction(self) -> JobTransaction:
        """Refused: the transaction is in another process."""
        raise RuntimeError("a job in a process has no transaction: return what is to be written")


class _TokenInChild(CancelToken):
    """True once the parent wants the job of this number to stop, or it is over.

    Nobody in the child cancels it: the parent writes to memory that both share. So a thread looks
    there while somebody wants to be told; and if the job's own code is interrupted before the
    thread has looked, `with token.on_cancel(...)` tells at its end.
    """

    __slots__ = ("_number", "_serving", "_watching")

    def __init__(self, serving: Any, number: int) -> None:
        super().__init__()
        self._serving = serving
        self._number = number
        self._watching = False

    def __bool__(self) -> bool:
        return bool(self._serving.is_over(self._number))

    @property
    def reason(self) -> str | None:
        """Why, as far as that is known here."""
        return "its supervisor wants it to stop" if self else None

    def wait(self, seconds: float | None = None) -> bool:
        """Block the calling thread until cancelled, at most so many seconds; True if cancelled."""
        end = None if seconds is None else time.monotonic() + seconds
        while not self:
            left = EVERY if end is None else min(EVERY, end - time.monotonic())
            if left <= 0:
                return False
            time.sleep(left)
        return True

    def on_cancel(self, callback: Callable[[], object]) -> CancelCallback:
        """Have `callback()` called, once, when this is cancelled, by a thread that waits for it."""
        told = super().on_cancel(callback)
        if not self._watching:
            self._watching = True
            threading.Thread(target=self._watch, name="asyncworkers-cancel", daemon=True).start()
        return told

    def _watch(self) -> None:
        self.wait()
        self._pass_on()

    def _pass_on(self) -> None:
        if self._serving.is_unwanted(self._number):
            self.cancel("its supervisor wants it to stop")

    def _take_back(self, told: CancelCallback) -> None:
        self._pass_on()
        super()._take_back(told)


EVERY = 0.01
"""Seconds between two looks of a token in a child."""


def _progress(done: float, total: float | None, message: str | None) -> Progress:
    done = _checks.number("done", done)
    total = None if total is None else _checks.number("total", total)
    if message is not None:
        _checks.text("message", message)
    return Progress(done, total, message)


def _over() -> CancelToken:
    token = CancelToken()
    token.cancel("the attempt is over")
    return token


def current_job() -> CurrentJob:
    """The job this code belongs to, also in a subtask, a thread or a process it runs in.

    Raises RuntimeError outside a job.
    """
    job = running_job()
    if job is None:
        child = sys.modules.get("asyncworkers_child.serve")
        if child is not None and child.serving is not None and child.serving.runs_job():
            return _InChild(child.serving)
        raise RuntimeError("current_job() was called outside a job")
    runner = job._runner()
    return CurrentJob(job, runner if isinstance(runner, Attempt) else None)
