"""What a chronicle answers with: records of attempts, finished jobs, stalls and errors."""

from __future__ import annotations

from asyncworkers._record import Record
from asyncworkers.events import LoopStalled

__all__ = ["Errors", "FinishedJob", "Span", "Stalls"]


class Span(Record):
    """One attempt, from `start` to `end`, in seconds since the run began.

    While it runs, `end`, `outcome` and `decision` are None. The other fields are as in
    `AttemptEnded`.
    """

    job_id: str
    job_name: str
    queue: str
    worker: int
    attempt: int
    start: float
    end: float | None
    outcome: str | None
    decision: str | None
    error_type: str | None
    error: str | None

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        return None if self.end is None else self.end - self.start


class FinishedJob(Record):
    """A job that has ended, after `attempt` attempts; times are in seconds since the run began.

    `submitted` is None if that was not seen: in another process, or too long ago. `started`, `worker`
    and what is told of an error are those of the last attempt, None if there was none.
    """

    job_id: str
    job_name: str
    queue: str
    state: str
    attempt: int
    submitted: float | None
    started: float | None
    finished: float
    worker: int | None
    outcome: str | None
    error_type: str | None
    error: str | None
    tags: tuple[str, ...] = ()


class Stalls(Record):
    """How often and how long the event loop was blocked in all; the last ones, and the worst."""

    count: int
    seconds: float
    worst: LoopStalled | None
    last: tuple[LoopStalled, ...]


class Errors(Record):
    """Attempts that ended with an exception of one type: how many, and the last one."""

    error_type: str
    count: int
    last: Span
