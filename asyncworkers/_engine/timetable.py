"""A timetable knows when the jobs of a queue come due that have a delay, and when those expire that may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from asyncworkers._engine.agenda import Agenda
from asyncworkers.job import ENDED, SCHEDULED, Job
from asyncworkers.outcome import Cancelled

__all__ = ["Timetable"]


class Timetable:
    """Puts jobs in line (`line_up`) at their time, and ends what has not begun in time (`end_waiting`)."""

    __slots__ = ("_due", "_end_waiting", "_expiries", "_line_up", "_now", "scheduled")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float],
        line_up: Callable[[Job[Any]], None],
        end_waiting: Callable[[Job[Any], Cancelled], bool],
    ) -> None:
        self._now = now
        self._line_up = line_up
        self._end_waiting = end_waiting
        self._due: Agenda[Job[Any]] = Agenda(loop, now, self._come_due, _is_scheduled)
        self._expiries: Agenda[Job[Any]] = Agenda(loop, now, self._expire, _is_unfinished)
        self.scheduled = 0  # jobs that wait for their time

    def schedule(self, job: Job[Any], delay: float) -> None:
        """Let the job wait for so many seconds, before it stands in line."""
        due = self._now() + delay
        job._uncommon().due = due
        job._state = SCHEDULED
        self.scheduled += 1
        self._due.add(due, job, due)

    def withdraw(self) -> None:
        """A job that waits for its time is about to be ended."""
        self.scheduled -= 1

    def expire_at(self, moment: float, job: Job[Any]) -> None:
        """End the job at this moment if it waits then."""
        self._expiries.add(moment, job)

    def jobs(self) -> Iterator[Job[Any]]:
        """The jobs that wait for their time, in no order."""
        return self._due.live_items()

    def close(self) -> None:
        """Forget everything; no timer stays behind."""
        self._due.close()
        self._expiries.close()

    def _come_due(self, job: Job[Any], _due: float) -> None:
        self.scheduled -= 1
        self._line_up(job)

    def _expire(self, job: Job[Any], _stamp: float) -> None:
        self._end_waiting(job, Cancelled("it expired before it could start", expired=True))


def _is_scheduled(job: Job[Any], due: float) -> bool:
    return job._state == SCHEDULED and job._rare is not None and job._rare.due == due


def _is_unfinished(job: Job[Any], _stamp: float) -> bool:
    return job._state < ENDED
