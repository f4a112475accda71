"""What is known of one queue: the figures of its jobs by name, and how many came and ended over time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from asyncworkers._record import Record
from asyncworkers.chronicle.histogram import Histogram

__all__ = [
    "CANCELLED",
    "FAILED",
    "OTHERS",
    "RETRIED",
    "SUBMITTED",
    "SUCCEEDED",
    "Book",
    "Series",
    "Throughput",
    "throughput_of",
]

LATEST = 500
"""How many of the last times of each queue are kept one by one."""

OTHERS = "(others)"
"""Where what has no room for a name of its own is counted together."""

SUBMITTED, SUCCEEDED, FAILED, CANCELLED, RETRIED = range(5)


class Throughput(Record):
    """How many jobs came and ended in each of a row of equal intervals of `width` seconds.

    The first interval starts at `start`, in seconds since the run began. The last one may not be
    over yet.
    """

    width: float
    start: float
    submitted: tuple[int, ...]
    succeeded: tuple[int, ...]
    failed: tuple[int, ...]
    cancelled: tuple[int, ...]
    retried: tuple[int, ...]

    @property
    def ended(self) -> tuple[int, ...]:
        """How many ended, in whichever way, in each interval."""
        ends = zip(self.succeeded, self.failed, self.cancelled, strict=True)
        return tuple([sum(end) for end in ends])


class Series:
    """The figures of one job name in one queue."""

    __slots__ = (
        *("abandoned", "book", "ends", "retried", "running", "submitted", "timed_out", "waiting"),
    )

    def __init__(self, book: Book) -> None:
        self.book = book
        self.submitted = self.retried = self.timed_out = self.abandoned = 0
        self.ends = [0, 0, 0, 0]  # by state, at the places of SUCCEEDED, FAILED and CANCELLED
        self.waiting, self.running = Histogram(), Histogram()


class Book:
    """What is known of one queue: the figures of its jobs by name, and its throughput over time.

    `waits` and `runs` are the times of its last attempts. Counts go to the present interval. When
    that is over it is kept among the recent ones, and added to the interval of the whole run in
    which it lies.
    """

    __slots__ = (
        *("_began", "_cells", "_number", "_width", "others", "present", "recent"),
        *("runs", "series", "stretch", "until", "waits", "whole"),
    )

    def __init__(self, began: float, width: float, cells: int) -> None:
        self.series: dict[str, Series] = {}
        self.others: Series | None = None
        self.recent: deque[tuple[int, list[int]]] = deque(maxlen=cells)
        self.whole: dict[int, list[int]] = {}
        self.waits: deque[float] = deque(maxlen=LATEST)
        self.runs: deque[float] = deque(maxlen=LATEST)
        self.stretch = 1  # how many intervals are one of the whole run's
        self.present = [0] * 5
        self._began, self._width, self._cells = began, width, cells
        self._number = 0
        self.until = began + width

    def turn(self, at: float) -> None:
        """Have what is counted next belong to the interval of this moment, if the present is over."""
        if at < self.until:
            return
        if any(self.present):
            self.recent.append((self._number, self.present))
            self._pour(self.whole, self._number, self.present)
            self.present = [0] * 5
        self._number = int((at - self._began) / self._width)
        self.until = self._began + (self._number + 1) * self._width
        while self._number // self.stretch >= self._cells:
            self.stretch *= 2
            merged: dict[int, list[int]] = {}
            for number, counts in self.whole.items():
                _add(merged, number // 2, counts)
            self.whole = merged

    def _pour(self, cells: dict[int, list[int]], number: int, counts: list[int]) -> None:
        _add(cells, number // self.stretch, counts)

    def over_time(self, *, recent: bool) -> dict[int, list[int]]:
        """The counts by the number of their interval."""
        found: dict[int, list[int]] = {}
        if recent:
            oldest = self._number - self._cells
            for number, counts in self.recent:
                if number > oldest:
                    _add(found, number, counts)
            _add(found, self._number, self.present)
        else:
            for number, counts in self.whole.items():
                _add(found, number, counts)
            self._pour(found, self._number, self.present)
        return found

    def ended_lately(self, at: float, cells: int) -> list[int]:
        """How many jobs ended in each of so many intervals before that of this moment."""
        self.turn(at)
        found = [0] * cells
        for number, counts in reversed(self.recent):
            back = self._number - number
            if back > cells:
                break
            found[-back] += sum(counts[SUCCEEDED : CANCELLED + 1])
        return found

    def all(self) -> Iterator[tuple[str, Series]]:
        """The figures of each name, and of all others."""
        yield from self.series.items()
        if self.others is not None:
            yield OTHERS, self.others


def _add(cells: dict[int, list[int]], number: int, counts: list[int]) -> None:
    found = cells.get(number)
    if found is None:
        cells[number] = list(counts)
    else:
        found[:] = map(int.__add__, found, counts)


def throughput_of(books: list[Book], width: float, *, recent: bool) -> Throughput:
    """The throughput of several queues together."""
    # Each queue's intervals have doubled as often as it needed: the widest suit all of them.
    stretch = 1 if recent else max((book.stretch for book in books), default=1)
    cells: dict[int, list[int]] = {}
    for book in books:
        finer = 1 if recent else stretch // book.stretch
        for number, counts in book.over_time(recent=recent).items():
            _add(cells, number // finer, counts)
    first, last = min(cells, default=0), max(cells, default=-1)
    if recent and books:
        first = max(first, last - books[0]._cells + 1)
    elif cells:
        first = 0
    nothing = [0] * 5
    rows = [cells.get(number, nothing) for number in range(first, last + 1)]
    columns = [tuple([row[what] for row in rows]) for what in range(5)]
    wide = width * stretch
    return Throughput(wide, first * wide, *columns)
