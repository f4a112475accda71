"""What became of the jobs of one name, and of several names together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from asyncworkers._record import Record
from asyncworkers.chronicle.book import Series
from asyncworkers.chronicle.histogram import Histogram

__all__ = ["Figures", "summed"]


class Figures(Record):
    """What became of some jobs, and how long they took.

    `submitted`, `succeeded`, `failed` and `cancelled` count jobs; `attempts` those that have
    ended, `retried` those that will be or were repeated, `timed_out` and `abandoned` attempts too.
    `waiting` is how long each attempt waited for a worker, since it could have run: since its job
    was submitted, or the delay or the pause before a retry was over; an item of a `map` waits from
    when it was taken from the iterable. `running` is the time of each attempt that has ended; its
    `total` is the time workers were busy.
    """

    submitted: int
    succeeded: int
    failed: int
    cancelled: int
    attempts: int
    retried: int
    timed_out: int
    abandoned: int
    waiting: Histogram
    running: Histogram

    @property
    def ended(self) -> int:
        """Jobs that have ended."""
        return self.succeeded + self.failed + self.cancelled

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        plain = self.as_dict()
        return plain | {"waiting": self.waiting.to_dict(), "running": self.running.to_dict()}


def summed(several: Iterable[Series]) -> Figures:
    """The figures of several series together."""
    waiting, running = Histogram(), Histogram()
    submitted = retried = timed_out = abandoned = 0
    ends = [0, 0, 0, 0]
    for series in several:
        submitted += series.submitted
        retried += series.retried
        timed_out += series.timed_out
        abandoned += series.abandoned
        ends = [one + other for one, other in zip(ends, series.ends, strict=True)]
        waiting.include(series.waiting)
        running.include(series.running)
    succeeded, failed, cancelled = cast("tuple[int, int, int]", tuple(ends[1:]))
    return Figures(
        submitted,
        succeeded,
        failed,
        cancelled,
        running.count,
        retried,
        timed_out,
        abandoned,
        waiting,
        running,
    )
