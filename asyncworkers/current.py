"""What the code of a running job may ask and say about itself."""

from __future__ import annotations

from typing import Any

from asyncworkers import _checks
from asyncworkers._engine.attempt import Attempt
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers.bridge import CancelToken
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
        done = _checks.number("done", done)
        total = None if total is None else _checks.number("total", total)
        if message is not None:
            _checks.text("message", message)
        home = self._job._order.home
        if isinstance(home, MemoryQueue):
            home.report(self._job, Progress(done, total, message))

    def __repr__(self) -> str:
        return f"<CurrentJob {self.name} {self.id}, attempt {self.attempt} of {self.attempts}>"


def _over() -> CancelToken:
    token = CancelToken()
    token.cancel("the attempt is over")
    return token


def current_job() -> CurrentJob:
    """The job this code belongs to, also in a subtask or a thread it runs in.

    Raises RuntimeError outside a job.
    """
    job = running_job()
    if job is None:
        raise RuntimeError("current_job() was called outside a job")
    runner = job._runner()
    return CurrentJob(job, runner if isinstance(runner, Attempt) else None)
