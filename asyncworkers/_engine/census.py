"""A census counts the jobs of a queue and finds them, wherever they are, and changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Protocol

from asyncworkers._engine.children import ChildStats
from asyncworkers._engine.clock import Clock
from asyncworkers._engine.crew import Crew
from asyncworkers._engine.entry import Supply, place, waits
from asyncworkers._engine.line import Line, RankedLine
from asyncworkers._engine.timetable import Timetable
from asyncworkers.job import Job

__all__ = ["Census"]


class Counted(Protocol):
    """What is needed of the queue whose jobs they are."""

    clock: Clock
    line: Line
    crew: Crew
    timetable: Timetable
    supplies: dict[Any, None]
    waiting_supplies: dict[Supply, None]
    completed: int
    failed: int
    cancelled: int

    def in_line(self) -> int: ...


class Census:
    """The figures of one queue, each found when it is asked for: no job pays for being counted."""

    __slots__ = ("_queue",)

    def __init__(self, queue: Counted) -> None:
        self._queue = queue

    @property
    def queued(self) -> int:
        """Jobs that wait in line, those of streams included."""
        queue = self._queue
        ahead = sum(len(attempt.ahead) for attempt in queue.crew.members)
        crossing: int = sum(supply.crossing for supply in queue.supplies)
        items = sum(len(supply.items) for supply in queue.waiting_supplies)
        return queue.in_line() + items + crossing + ahead

    @property
    def scheduled(self) -> int:
        """Jobs that wait for their time."""
        return self._queue.timetable.scheduled

    @property
    def running(self) -> int:
        """Attempts under way."""
        members = self._queue.crew.members
        for attempt in members:
            attempt.refresh()
        return len([one for one in members if one.job is not None or one.supply is not None])

    @property
    def succeeded(self) -> int:
        """Jobs that returned a value, and items of streams that did."""
        uncounted: int = sum(supply.uncounted for supply in self._queue.supplies)
        return self._queue.completed + uncounted

    @property
    def submitted(self) -> int:
        """Jobs accepted so far."""
        ended = self.succeeded + self._queue.failed + self._queue.cancelled
        return ended + self.running + self.queued + self.scheduled

    @property
    def oldest(self) -> float | None:
        """Seconds that the job has waited which waits longest for a worker; None if none does.

        Found where the line begins, that of each rank if there are several, so it costs little.
        """
        line = self._queue.line
        lines = line.lines() if isinstance(line, RankedLine) else (line,)
        heads = (next(filter(waits, line), None) for line in lines)
        since = [place(head)[1] for head in heads if head is not None]
        return self._queue.clock.now() - min(since) if since else None

    @property
    def children(self) -> Iterator[ChildStats]:
        """The child processes of its workers."""
        found = (attempt.child for attempt in self._queue.crew.members)
        return (child for child in found if child is not None)

    def jobs(self) -> Iterator[Job[Any]]:
        """The jobs that have not ended: those that run, those in line, those that wait for their time."""
        for attempt in tuple(self._queue.crew.members):
            attempt.refresh()
            job = attempt.running_job()
            if job is not None:
                yield job
            yield from attempt.ahead
        yield from self.in_line()
        yield from self._queue.timetable.jobs()

    def in_line(self) -> Iterator[Job[Any]]:
        """The jobs in line, in the order in which they are to run."""
        return filter(waits, self._queue.line)

    def examples(self, most: int) -> list[Job[Any]]:
        """A few unfinished jobs, the oldest first."""
        return list(itertools.islice(self.jobs(), most))
