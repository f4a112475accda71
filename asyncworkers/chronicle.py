"""The chronicle of a run: a listener that keeps, in bounded memory, what its events told of it.

Counts and times are kept in full, as sums and histograms; of single attempts, jobs, stalls and
the like only the last so many, or the worst. What had to be left out is counted (`dropped`).
It learns from events alone, so it can be filled by any supervisor, or in a test by hand.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import islice
from math import ceil, frexp, inf
from typing import Any, cast

from asyncworkers import _checks
from asyncworkers._record import Record
from asyncworkers.events import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptStarted,
    ChildEnded,
    ChildStarted,
    Event,
    JobSettled,
    JobSubmitted,
    LeaseLost,
    ListenerDropped,
    LoopStalled,
    QueueExhausted,
    QueuePaused,
    QueueResized,
    QueueResumed,
    StoreFound,
    StoreMissed,
    SupervisorClosed,
    SupervisorDraining,
    SupervisorStarted,
    TasksLeaked,
    WorkerReplaced,
)

__all__ = [
    "ACCURACY",
    "OTHERS",
    "Chronicle",
    "Errors",
    "Figures",
    "FinishedJob",
    "Histogram",
    "Span",
    "Stalls",
    "Throughput",
]

OTHERS = "(others)"
"""Where what has no room for a name of its own is counted together."""

ACCURACY = 1 / 128
"""How far a percentile may be off, relative to itself: 0.8 %."""

_STEPS = 64  # buckets for each doubling of the time
_LEAST = 1e-9  # seconds; nothing shorter is told apart
_FRESH = 256  # times that are kept until they are put into their buckets

SUBMITTED, SUCCEEDED, FAILED, CANCELLED, RETRIED = range(5)
_STATES = {"succeeded": SUCCEEDED, "failed": FAILED, "cancelled": CANCELLED}


class Histogram:
    """How long things took, in seconds: how many, their sum, least and most, and percentiles.

    Each doubling of the time has 64 buckets of equal width, so that a percentile is off by 0.8 % at
    most (`ACCURACY`), or by a nanosecond, wherever it lies; the least and the most are exact.
    """

    __slots__ = ("_buckets", "_fresh", "_least", "_most", "_total")

    def __init__(self) -> None:
        self._buckets: defaultdict[int, int] = defaultdict(int)
        self._fresh: list[float] = []  # not in their buckets yet
        self._total = 0.0
        self._least = inf
        self._most = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self._fresh.append(seconds)
        if len(self._fresh) == _FRESH:
            self._sort()

    def _sort(self) -> defaultdict[int, int]:
        """Put what came into its buckets: many at a time, which costs a third of one by one."""
        buckets, fresh = self._buckets, self._fresh
        if fresh:
            self._total += sum(fresh)
            self._least = min(self._least, *fresh)
            self._most = max(self._most, *fresh)
            for seconds in fresh:
                mantissa, exponent = frexp(seconds if seconds > _LEAST else _LEAST)  # noqa: FURB136
                buckets[_STEPS * exponent + int(mantissa * (2 * _STEPS))] += 1
            fresh.clear()
        return buckets

    def include(self, other: Histogram) -> None:
        """Count all that another one counted."""
        buckets = self._sort()
        for bucket, count in other._sort().items():
            buckets[bucket] += count
        self._total += other._total
        self._least = min(self._least, other._least)
        self._most = max(self._most, other._most)

    @property
    def total(self) -> float:
        """Their sum."""
        self._sort()
        return self._total

    @property
    def least(self) -> float:
        """The shortest; infinite if there were none."""
        self._sort()
        return self._least

    @property
    def most(self) -> float:
        """The longest; 0 if there were none."""
        self._sort()
        return self._most

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._sort().values())

    @property
    def mean(self) -> float | None:
        """Their mean; None if there were none."""
        return self.total / self.count if self._sort() else None

    def percentile(self, share: float) -> float | None:
        """The time that this share of them, such as 0.99, did not exceed; None if there were none."""
        if not 0 <= _checks.number("share", share) <= 1:
            raise ValueError(f"share must be between 0 and 1, not {_checks.shown(share)}")
        buckets, count = self._sort(), self.count
        rank = max(1, ceil(share * count))
        if rank == 1 and count:
            return self._least
        if rank == count:
            return self._most
        passed = 0
        for bucket in sorted(buckets):
            passed += buckets[bucket]
            if passed >= rank:
                return min(max(_middle(bucket), self._least), self._most)
        return None

    def buckets(self) -> list[tuple[float, float, int]]:
        """The buckets that are not empty, in order: from, to, and how many."""
        return [(*_edges(bucket), count) for bucket, count in sorted(self._sort().items())]

    def to_dict(self) -> dict[str, float | int | None]:
        """Count, sum, mean, least, most and the usual percentiles."""
        some = bool(self._sort())
        return {
            "count": self.count,
            "total": self.total,
            "mean": self.mean,
            "least": self.least if some else None,
            "p50": self.percentile(0.5),
            "p90": self.percentile(0.9),
            "p95": self.percentile(0.95),
            "p99": self.percentile(0.99),
            "most": self.most if some else None,
        }

    def __repr__(self) -> str:
        if not self._sort():
            return "<Histogram: none>"
        half, most = self.percentile(0.5), self.percentile(0.99)
        return f"<Histogram of {self.count}: median {half:.3g} s, p99 {most:.3g} s>"


def _edges(bucket: int) -> tuple[float, float]:
    exponent, step = divmod(bucket - _STEPS, _STEPS)
    scale = 2.0**exponent / (2 * _STEPS)
    return (step + _STEPS) * scale, (step + _STEPS + 1) * scale


def _middle(bucket: int) -> float:
    low, high = _edges(bucket)
    return (low + high) / 2


class Figures(Record):
    """What became of some jobs, and how long they took.

    `submitted`, `succeeded`, `failed` and `cancelled` count jobs; `attempts` those that have
    ended, `retried` those that will be or were repeated, `timed_out` and `abandoned` attempts too.
    `waiting` is the time from being submitted to the start of the first attempt, a job's delay
    included; an item of a `map` waits from when it was taken from the iterable. `running` is the
    time of each attempt that has ended; its `total` is the time workers were busy.
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


class Chronicle:
    """Keeps what happened in a run, from its start on, in bounded memory.

    `Supervisor(record=True)` makes one and listens with it; give one to set its bounds:
    `Supervisor(record=Chronicle(attempts=500_000))`. It is one supervisor's at a time, and begins
    anew whenever that is entered.

    - `attempts`: how many attempts it keeps, the last ones, as spans for a timeline.
    - `jobs`: how many finished jobs it keeps, the last ones.
    - `open_jobs`: how many unfinished jobs it follows. Of more it does not know when they came.
    - `names`: for how many job names, counting each queue's, there are separate figures. What comes
      later is counted under "(others)", and so are types of errors.
    - `slowest`, `retried`: how many of the slowest attempts and most retried jobs it keeps.
    - `stalls`, `moments`: how many stalls of the loop, and other moments of the supervisor's life, such
      as children that start, it keeps: the last ones.
    - `width`, `buckets`: throughput is counted in so many intervals of `width` seconds, the last ones;
      of the whole run in as many, whose width doubles as often as needed.
    """

    def __init__(
        self,
        *,
        attempts: int = 20_000,
        jobs: int = 1_000,
        open_jobs: int = 100_000,
        names: int = 200,
        slowest: int = 10,
        retried: int = 10,
        stalls: int = 100,
        moments: int = 1_000,
        width: float | timedelta = 0.25,
        buckets: int = 1_200,
    ) -> None:
        bound = _checks.whole
        self._spans: deque[AttemptEnded] = deque(maxlen=bound("attempts", attempts, 0, 10**8))
        self._jobs: deque[_Settled] = deque(maxlen=bound("jobs", jobs, 0, 10**8))
        self._most_open = bound("open_jobs", open_jobs, 1, 10**8)
        self._most_names = bound("names", names, 1, 10**6)
        self._most_slow = bound("slowest", slowest, 0, 10_000)
        self._most_retried = bound("retried", retried, 0, 10_000)
        self._stalls: deque[LoopStalled] = deque(maxlen=bound("stalls", stalls, 0, 10**6))
        self._moments: deque[Event] = deque(maxlen=bound("moments", moments, 0, 10**7))
        self._width = _checks.duration("width", width, zero=False)
        self._buckets = bound("buckets", buckets, 2, 10**6)
        self._notes: dict[type[Event], Callable[[Any], None]] = {
            JobSubmitted: self._submitted,
            AttemptStarted: self._started,
            AttemptEnded: self._ended,
            JobSettled: self._settled,
            AttemptAbandoned: self._abandoned,
            LeaseLost: self._lost,
            LoopStalled: self._stalled,
            SupervisorStarted: self._opened,
            SupervisorClosed: self._closed,
        }
        self._notes |= dict.fromkeys(_MOMENTS, self._passed)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._began: float | None = None
        self._end: float | None = None
        self._books: dict[str, _Book] = {}
        self._came: dict[str, float] = {}  # of unfinished jobs: when they were submitted
        self._now: dict[str, AttemptStarted | AttemptEnded] = {}  # and their latest attempt
        self._released: set[str] = set()  # whose attempt will start again
        self._slow: list[tuple[float, int, AttemptEnded]] = []
        self._slow_enough = 0.0 if self._most_slow else inf
        self._stubborn: dict[str, AttemptEnded] = {}
        self._error_types: dict[str, list[Any]] = {}
        self._series_count = self._left_out = self._unfollowed = 0
        self._span_count = self._job_count = self._stall_count = self._moment_count = 0
        self._stall_seconds = 0.0
        self._worst_stall: LoopStalled | None = None
        for kept in (self._spans, self._jobs, self._stalls, self._moments):
            kept.clear()

    # ---- listening

    def __call__(self, event: Event) -> None:
        """Take note of an event; this is what makes it a listener."""
        note = self._notes.get(event.__class__)
        if note is not None:
            note(event)

    def _submitted(self, event: JobSubmitted) -> None:
        at, job_id, name, queue, _ = event._values
        try:
            series = self._books[queue].series[name]
        except KeyError:
            series = self._series(queue, name, at)
        series.submitted += 1
        book = series.book
        if at >= book.until:
            book.turn(at)
        book.present[SUBMITTED] += 1
        came = self._came
        if len(came) >= self._most_open:
            self._unfollow(came)
        came[job_id] = at

    def _started(self, event: AttemptStarted) -> None:
        at, job_id, name, queue, _, attempt, *_ = event._values
        now = self._now
        if len(now) >= self._most_open:
            self._unfollow(now)
        now[job_id] = event
        if attempt == 1:
            if self._released and job_id in self._released:
                self._released.discard(job_id)
                return
            came = self._came.get(job_id)
            if came is not None:
                try:
                    series = self._books[queue].series[name]
                except KeyError:
                    series = self._series(queue, name, at)
                series.waiting.add(at - came if at > came else 0.0)

    def _ended(self, event: AttemptEnded) -> None:
        at, job_id, name, queue, _, attempt, _, seconds, outcome, decision, kind, _ = event._values
        if decision == "Release":
            self._now.pop(job_id, None)
            if attempt == 1 and len(self._released) < self._most_open:
                self._released.add(job_id)
            return
        try:
            series = self._books[queue].series[name]
        except KeyError:
            series = self._series(queue, name, at)
        series.running.add(seconds)
        now = self._now
        if len(now) >= self._most_open and job_id not in now:  # its start was let go of
            self._unfollow(now)
        now[job_id] = event
        self._spans.append(event)
        self._span_count += 1
        if seconds > self._slow_enough:
            self._note_slow(seconds, event)
        if outcome != "Succeeded":
            if outcome == "TimedOut":
                series.timed_out += 1
            if decision == "RetryAfter":
                series.retried += 1
                series.book.turn(at)
                series.book.present[RETRIED] += 1
            if kind is not None:
                self._note_error(kind, event)
        if attempt > 1:
            self._note_stubborn(job_id, attempt, event)

    def _settled(self, event: JobSettled) -> None:
        at, job_id, name, queue, _, _, state = event._values
        try:
            series = self._books[queue].series[name]
        except KeyError:
            series = self._series(queue, name, at)
        end = _STATES[state]
        series.ends[end] += 1
        book = series.book
        if at >= book.until:
            book.turn(at)
        book.present[end] += 1
        self._jobs.append((event, self._came.pop(job_id, None), self._now.pop(job_id, None)))
        self._job_count += 1

    def _abandoned(self, event: AttemptAbandoned) -> None:
        self._series(event.queue, event.job_name, event.at).abandoned += 1
        self._passed(event)

    def _lost(self, event: LeaseLost) -> None:
        self._came.pop(event.job_id, None)
        self._now.pop(event.job_id, None)
        self._passed(event)

    def _stalled(self, event: LoopStalled) -> None:
        self._stalls.append(event)
        self._stall_count += 1
        self._stall_seconds += event.seconds
        if self._worst_stall is None or event.seconds > self._worst_stall.seconds:
            self._worst_stall = event

    def _passed(self, event: Event) -> None:
        self._moments.append(event)
        self._moment_count += 1

    def _opened(self, event: SupervisorStarted) -> None:
        if self._end is not None:
            self.clear()
        if self._began is None:
            self._began = event.at
        self._passed(event)

    def _closed(self, event: SupervisorClosed) -> None:
        self._end = event.at
        self._came.clear()
        self._now.clear()
        self._released.clear()
        self._passed(event)

    # ---- what comes less often

    def _series(self, queue: str, name: str, at: float) -> _Series:
        """The figures of one job name in one queue, made when it is first heard of."""
        book = self._books.get(queue)
        if book is None:
            if self._began is None:
                self._began = at
            book = self._books[queue] = _Book(self._began, self._width, self._buckets)
        series = book.series.get(name)
        if series is not None:
            return series
        if self._series_count >= self._most_names:
            self._left_out += 1
            series = book.others = book.others or _Series(book)
            return series
        self._series_count += 1
        series = book.series[name] = _Series(book)
        return series

    def _unfollow(self, followed: dict[str, Any]) -> None:
        """Make room, for many at a time: a dict finds its oldest key slowly if each is removed."""
        for job_id in tuple(islice(followed, max(1, self._most_open // 8))):
            del followed[job_id]
            self._unfollowed += 1

    def _note_slow(self, seconds: float, event: AttemptEnded) -> None:
        entry = seconds, -self._span_count, event
        if len(self._slow) < self._most_slow:
            heapq.heappush(self._slow, entry)
        else:
            heapq.heapreplace(self._slow, entry)
        if len(self._slow) == self._most_slow:
            self._slow_enough = self._slow[0][0]

    def _note_stubborn(self, job_id: str, attempt: int, event: AttemptEnded) -> None:
        found = self._stubborn
        if job_id not in found and len(found) >= self._most_retried:
            if not found:
                return
            least = min(found, key=lambda one: found[one].attempt)
            if found[least].attempt >= attempt:
                return
            del found[least]
        found[job_id] = event

    def _note_error(self, kind: str, event: AttemptEnded) -> None:
        if kind not in self._error_types and len(self._error_types) >= self._most_names:
            kind = OTHERS
        noted = self._error_types.setdefault(kind, [0, event])
        noted[0] += 1
        noted[1] = event

    # ---- reading

    @property
    def began(self) -> float | None:
        """When the run began, on the supervisor's clock; None if nothing was heard yet."""
        return self._began

    @property
    def ended(self) -> float | None:
        """When the supervisor closed, in seconds since the run began; None if it has not."""
        return None if self._end is None else self._since(self._end)

    @property
    def total(self) -> Figures:
        """The figures of all jobs together."""
        return _sum(series for _, _, series in self._all())

    @property
    def queues(self) -> dict[str, Figures]:
        """The figures of each queue that had jobs."""
        return {
            queue: _sum(series for _, series in book.all()) for queue, book in self._books.items()
        }

    @property
    def names(self) -> dict[str, Figures]:
        """The figures by the names of jobs, those of all queues together."""
        by_name: dict[str, list[_Series]] = {}
        for _, name, series in self._all():
            by_name.setdefault(name, []).append(series)
        return {name: _sum(series) for name, series in by_name.items()}

    def throughput(self, queue: str | None = None, *, recent: bool = False) -> Throughput:
        """How many jobs came and ended over time, of one queue or of all.

        Of the whole run, in intervals that get wider as it gets longer; or, with `recent`, of its
        last `width * buckets` seconds. Raises ValueError for a queue that had no jobs.
        """
        if queue is None:
            books = list(self._books.values())
        elif _checks.text("queue", queue) in self._books:
            books = [self._books[queue]]
        else:
            raise ValueError(
                f"no jobs of a queue {_checks.shown(queue)} were seen; "
                f"{_checks.nearest(queue, self._books)}"
            )
        return _throughput(books, self._width, recent=recent)

    def attempts(self, *, running: bool = True) -> list[Span]:
        """The last attempts, in the order they ended; those that run now after them, if wanted."""
        spans = [self._span(event) for event in self._spans]
        if running:
            spans += [
                self._span(event) for event in self._now.values() if type(event) is AttemptStarted
            ]
        return spans

    def jobs(self) -> list[FinishedJob]:
        """The last finished jobs, in the order they ended."""
        return [self._finished(*kept) for kept in self._jobs]

    @property
    def slowest(self) -> list[Span]:
        """The attempts that took longest, the slowest first."""
        return [self._span(event) for _, _, event in sorted(self._slow, reverse=True)]

    @property
    def most_retried(self) -> list[Span]:
        """The last attempts of the jobs with the most attempts, the most retried first."""
        events = sorted(self._stubborn.values(), key=lambda event: (-event.attempt, event.at))
        return [self._span(event) for event in events]

    @property
    def stalls(self) -> Stalls:
        """What is known of stalls of the event loop. The times of `LoopStalled` are as they came."""
        return Stalls(
            self._stall_count, self._stall_seconds, self._worst_stall, tuple(self._stalls)
        )

    @property
    def errors(self) -> list[Errors]:
        """The types of errors that attempts ended with, the most frequent first."""
        found = [
            Errors(kind, count, self._span(last))
            for kind, (count, last) in self._error_types.items()
        ]
        return sorted(found, key=lambda one: (-one.count, one.error_type))

    @property
    def moments(self) -> tuple[Event, ...]:
        """The last events that concern no single attempt: of children, queues, the supervisor."""
        return tuple(self._moments)

    @property
    def dropped(self) -> dict[str, int]:
        """How much was left out by each bound, zeros not shown: of `attempts`, `jobs`, `stalls` and
        `moments` those not kept; of `open_jobs` those no longer followed; of `names` how often
        something was counted under "(others)" for want of room.
        """
        found = {
            "attempts": self._span_count - len(self._spans),
            "jobs": self._job_count - len(self._jobs),
            "stalls": self._stall_count - len(self._stalls),
            "moments": self._moment_count - len(self._moments),
            "open_jobs": self._unfollowed,
            "names": self._left_out,
        }
        return {bound: count for bound, count in found.items() if count}

    def _all(self) -> Iterator[tuple[str, str, _Series]]:
        for queue, book in self._books.items():
            for name, series in book.all():
                yield queue, name, series

    def _since(self, at: float) -> float:
        return at - (self._began or 0.0)

    def _span(self, event: AttemptStarted | AttemptEnded) -> Span:
        whose = event.job_id, event.job_name, event.queue, event.worker, event.attempt
        end = self._since(event.at)
        if isinstance(event, AttemptStarted):
            return Span(*whose, end, None, None, None, None, None)
        told = event.outcome, event.decision, event.error_type, event.error
        return Span(*whose, end - event.seconds, end, *told)

    def _finished(
        self, event: JobSettled, came: float | None, last: AttemptStarted | AttemptEnded | None
    ) -> FinishedJob:
        span = None if last is None else self._span(last)
        return FinishedJob(
            event.job_id,
            event.job_name,
            event.queue,
            event.state,
            event.attempt,
            None if came is None else self._since(came),
            None if span is None else span.start,
            self._since(event.at),
            None if span is None else span.worker,
            None if span is None else span.outcome,
            None if span is None else span.error_type,
            None if span is None else span.error,
        )

    def __repr__(self) -> str:
        total = self.total
        return f"<Chronicle of {total.submitted} jobs, {total.attempts} attempts>"


_MOMENTS = (
    *(ChildStarted, ChildEnded, WorkerReplaced, QueueExhausted, QueuePaused, QueueResumed),
    *(QueueResized, StoreMissed, StoreFound, TasksLeaked, ListenerDropped, SupervisorDraining),
)

_Settled = tuple[JobSettled, float | None, AttemptStarted | AttemptEnded | None]


class _Series:
    """The figures of one job name in one queue."""

    __slots__ = (
        *("abandoned", "book", "ends", "retried", "running", "submitted", "timed_out", "waiting"),
    )

    def __init__(self, book: _Book) -> None:
        self.book = book
        self.submitted = self.retried = self.timed_out = self.abandoned = 0
        self.ends = [0, 0, 0, 0]  # by state, at the places of SUCCEEDED, FAILED and CANCELLED
        self.waiting, self.running = Histogram(), Histogram()


class _Book:
    """What is known of one queue: the figures of its jobs by name, and its throughput over time.

    Counts go to the present interval. When that is over it is kept among the recent ones, and
    added to the interval of the whole run in which it lies.
    """

    __slots__ = (
        *("_began", "_cells", "_number", "_width", "others", "present", "recent"),
        *("series", "stretch", "until", "whole"),
    )

    def __init__(self, began: float, width: float, cells: int) -> None:
        self.series: dict[str, _Series] = {}
        self.others: _Series | None = None
        self.recent: deque[tuple[int, list[int]]] = deque(maxlen=cells)
        self.whole: dict[int, list[int]] = {}
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

    def all(self) -> Iterator[tuple[str, _Series]]:
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


def _throughput(books: list[_Book], width: float, *, recent: bool) -> Throughput:
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


def _sum(several: Iterable[_Series]) -> Figures:
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
