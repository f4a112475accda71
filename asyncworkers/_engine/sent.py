"""What a child was sent and has not passed yet, in order, by the numbers under which it knows it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from asyncworkers.bridge.parcel import Parcel
from asyncworkers.job import QUEUED, Job

__all__ = ["Sent", "SentLine"]

LINE = 0.001
"""Seconds of work that may wait in a child's line behind the job it runs."""

LONG = 0.004
"""Seconds: behind a job that takes longer nothing waits, and what does is taken back."""

Sent: TypeAlias = tuple[Job[Any], Parcel, float]
"""A job in a child's line, with what was sent of it and how long it is expected to take."""


class SentLine:
    """The line of one child: the job it runs, or is to run next, and what is behind it.

    What was taken back or withdrawn leaves None in its place, until the child has passed it: the
    same job may be sent to the same child again meanwhile.
    """

    __slots__ = ("first", "jobs", "waiting")

    def __init__(self) -> None:
        self.jobs: deque[Sent | None] = deque()
        self.first = 1  # the number of the first of them
        self.waiting = 0.0  # seconds that what is behind it is expected to take

    @property
    def last(self) -> int:
        """The number of the last of them."""
        return self.first + len(self.jobs) - 1

    def has_room(self) -> bool:
        """Whether something may be sent behind what is there."""
        head = self.jobs[0]
        return self.waiting < LINE and (head is None or head[2] <= LONG)

    def step(self) -> Sent | None:
        """The first job has ended, or was skipped; what it was."""
        jobs = self.jobs
        one = jobs.popleft()
        self.first += 1
        if jobs:
            head = jobs[0]
            if head is not None:
                self.waiting -= head[2]
        else:
            self.waiting = 0.0
        return one

    def numbered(self) -> Iterator[tuple[int, Sent]]:
        """What is there, with the number under which it was sent."""
        for number, one in enumerate(self.jobs, self.first):
            if one is not None:
                yield number, one

    def ahead(self) -> list[Job[Any]]:
        """The jobs that have not begun."""
        return [one[0] for one in self.jobs if one is not None and one[0]._state == QUEUED]

    def head(self, number: int) -> Sent | None:
        """The first in line, if this is its number and it was not taken back."""
        return self.jobs[0] if self.jobs and number == self.first else None

    def number_of(self, job: Job[Any]) -> int | None:
        """The number under which a job was sent."""
        return next((number for number, one in self.numbered() if one[0] is job), None)

    def holds(self, number: int) -> bool:
        """Whether what was sent under this number is still wanted."""
        place = number - self.first
        return place < len(self.jobs) and self.jobs[place] is not None

    def drop(self, number: int) -> None:
        """The child will pass over what it was sent under this number."""
        place = number - self.first
        one = self.jobs[place]
        if place and one is not None:
            self.waiting -= one[2]
        self.jobs[place] = None

    def replace(self, number: int, one: Sent | None) -> None:
        """Note something else in this place."""
        self.jobs[number - self.first] = one

    def take_back(self, take: Callable[[int], bool]) -> list[Sent]:
        """What has not begun, as far as it can be taken back from the child by its number."""
        back: list[Sent] = []
        for number, one in self.numbered():
            if one[0]._state == QUEUED and take(number):
                back.append(one)
                self.drop(number)
        return back

    def is_long(self, seconds: float) -> bool:
        """Whether something waits behind the first job, although that takes this long."""
        return seconds > LONG and len(self.jobs) > 1

    def learn(self, seconds: float) -> None:
        """The first job takes this long at the least."""
        head = self.jobs[0]
        if head is not None:
            self.jobs[0] = head[0], head[1], seconds
