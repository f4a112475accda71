"""The recorder of a run: a listener that keeps, in bounded memory, what events told of it."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from math import inf
from typing import Any

from asyncworkers import _checks
from asyncworkers.chronicle.answers import Errors, FinishedJob, Span, Stalls
from asyncworkers.chronicle.book import (
    CANCELLED,
    FAILED,
    OTHERS,
    RETRIED,
    SUBMITTED,
    SUCCEEDED,
    Book,
    Series,
    Throughput,
    throughput_of,
)
from asyncworkers.chronicle.figures import Figures, summed
from asyncworkers.chronicle.saying import JobLog, Saying
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
from asyncworkers.units import counted

__all__ = ["Chronicle"]

_STATES = {"succeeded": SUCCEEDED, "failed": FAILED, "cancelled": CANCELLED}


class Chronicle:
    """Keeps what happened in a run, from its start on, in bounded memory.

    `Supervisor(record=True)` makes one and listens with it; give one to set its bounds:
    `Supervisor(record=Chronicle(attempts=500_000))`. It is one supervisor's at a time, and begins
    anew whenever that is entered.

    - `attempts`: how many attempts it keeps, the last ones, as spans for a timeline.
    - `jobs`: how many finished jobs it keeps, the last ones; and as many that did not succeed, however
      many have succeeded since.
    - `log`: how many records it keeps of what jobs said to `logging`, the last ones: of one job 200 at the
      most, and no more than 500 characters each on the average.
    - `open_jobs`: how many unfinished jobs it follows, the latest. Of others it does not know when
      they came.
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
        log: int = 5_000,
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
        self._ill: deque[_Settled] = deque(maxlen=jobs)  # those that did not succeed once more
        self._saying = Saying(bound("log", log, 0, 10**7))
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
        self._books: dict[str, Book] = {}
        self._came: dict[str, float] = {}  # of unfinished jobs: when they were submitted
        self._now: dict[str, AttemptStarted | AttemptEnded] = {}  # and their latest attempt
        self._slow: list[tuple[float, int, AttemptEnded]] = []
        self._slow_enough = 0.0 if self._most_slow else inf
        self._stubborn: dict[str, AttemptEnded] = {}
        self._error_types: dict[str, list[Any]] = {}
        self._series_count = self._left_out = self._unfollowed = 0
        self._span_count = self._job_count = self._stall_count = self._moment_count = 0
        self._stall_seconds = 0.0
        self._worst_stall: LoopStalled | None = None
        for kept in (self._spans, self._jobs, self._ill, self._stalls, self._moments):
            kept.clear()
        self._saying.clear()

    # ---- listening

    def __call__(self, event: Event) -> None:
        """Take note of an event; this is what makes it a listener."""
        note = self._notes.get(event.__class__)
        if note is not None:
            note(event)

    def _submitted(self, event: JobSubmitted) -> None:
        at, job_id, name, queue = event._values[:4]
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
        at, job_id, name, queue, _, _, _, waited = event._values[:8]
        try:
            series = self._books[queue].series[name]
        except KeyError:
            series = self._series(queue, name, at)
        series.waiting.add(waited)
        series.book.waits.append(waited)
        now = self._now
        if len(now) >= self._most_open:
            self._unfollow(now)
        now[job_id] = event

    def _ended(self, event: AttemptEnded) -> None:
        # Of all fields but the last: others may come to follow them.
        at, job_id, name, queue, _, attempt, _, seconds, outcome, decision, kind = event._values[
            :11
        ]
        if decision == "Release":
            self._now.pop(job_id, None)
            return
        try:
            series = self._books[queue].series[name]
        except KeyError:
            series = self._series(queue, name, at)
        series.running.add(seconds)
        series.book.runs.append(seconds)
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
        at, job_id, name, queue, _, _, state = event._values[:7]
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
        kept = event, self._came.pop(job_id, None), self._now.pop(job_id, None)
        self._jobs.append(kept)
        self._job_count += 1
        if end != SUCCEEDED:
            self._ill.append(kept)

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
        self.hear_log()
        self._passed(event)

    def _closed(self, event: SupervisorClosed) -> None:
        self._end = event.at
        self._saying.rest()
        self._came.clear()
        self._now.clear()
        self._passed(event)

    def hear_log(self) -> None:
        """Keep what jobs say to `logging`, until the supervisor closes or `rest` is called.

        It begins by itself when the supervisor starts; who begins to listen later calls this.
        """
        self._saying.hear()

    def rest(self) -> None:
        """Hear no more of the log. What was kept stays."""
        self._saying.rest()

    # ---- what comes less often

    def _series(self, queue: str, name: str, at: float) -> Series:
        """The figures of one job name in one queue, made when it is first heard of."""
        book = self._books.get(queue)
        if book is None:
            if self._began is None:
                self._began = at
            book = self._books[queue] = Book(self._began, self._width, self._buckets)
        series = book.series.get(name)
        if series is not None:
            return series
        if self._series_count >= self._most_names:
            self._left_out += 1
            series = book.others = book.others or Series(book)
            return series
        self._series_count += 1
        series = book.series[name] = Series(book)
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
        return summed(series for _, _, series in self._all())

    @property
    def queues(self) -> dict[str, Figures]:
        """The figures of each queue that had jobs."""
        return {
            queue: summed(series for _, series in book.all()) for queue, book in self._books.items()
        }

    @property
    def names(self) -> dict[str, Figures]:
        """The figures by the names of jobs, those of all queues together."""
        by_name: dict[str, list[Series]] = {}
        for _, name, series in self._all():
            by_name.setdefault(name, []).append(series)
        return {name: summed(series) for name, series in by_name.items()}

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
        return throughput_of(books, self._width, recent=recent)

    def attempts(self, *, running: bool = True) -> list[Span]:
        """The last attempts, in the order they ended; those that run now after them, if wanted."""
        spans = [self._span(event) for event in self._spans]
        if running:
            spans += [
                self._span(event) for event in self._now.values() if type(event) is AttemptStarted
            ]
        return spans

    def attempts_of(self, job_id: str) -> list[Span]:
        """The attempts of one job that have ended, as far as they are kept."""
        return [self._span(event) for event in self._spans if event.job_id == job_id]

    def log_of(self, job_id: str) -> JobLog:
        """What a job said to `logging` in this process and its children, as far as it is kept."""
        return self._saying.of(job_id)

    def jobs(self) -> list[FinishedJob]:
        """The last finished jobs, in the order they ended."""
        return [self._finished(*kept) for kept in self._jobs]

    def latest_jobs(self) -> Iterator[FinishedJob]:
        """The same, the last one first, and after them those before that did not succeed."""
        ill = 0
        for kept in tuple(reversed(self._jobs)):
            ill += kept[0].state != "succeeded"
            yield self._finished(*kept)
        for kept in islice(tuple(reversed(self._ill)), ill, None):
            yield self._finished(*kept)

    def failures(self) -> Iterator[FinishedJob]:
        """The jobs that failed, the last one first."""
        for kept in tuple(reversed(self._ill)):
            if kept[0].state == "failed":
                yield self._finished(*kept)

    def finished_job(self, job_id: str) -> FinishedJob | None:
        """How a job ended; None if it has not, or that is not kept."""
        for some in (self._ill, self._jobs):
            for kept in reversed(some):
                if kept[0].job_id == job_id:
                    return self._finished(*kept)
        return None

    def latest_times(self, queue: str) -> tuple[list[float], list[float]]:
        """How long the last 500 attempts of a queue waited, and how long they ran; empty if there were none."""
        book = self._books.get(queue)
        return ([], []) if book is None else (list(book.waits), list(book.runs))

    def ends_per_second(self, queue: str, at: float, bars: int) -> list[float]:
        """How many jobs of a queue ended in a second, in each of the last intervals of a second or, if that
        is more, of `width`; not in the one that is not over at this moment of the supervisor's clock.
        """
        book = self._books.get(queue)
        cells = max(1, round(1 / self._width))  # that make a bar
        wanted = min(bars, self._buckets // cells)
        if book is None or not wanted:
            return []
        ended = book.ended_lately(at, wanted * cells)
        wide = cells * self._width
        return [sum(ended[n : n + cells]) / wide for n in range(0, len(ended), cells)]

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
        """How much was left out by each bound, zeros not shown: of `attempts`, `jobs`, `log`, `stalls`
        and `moments` those not kept; of `open_jobs` those no longer followed; of `names` how often
        something was counted under "(others)" for want of room.
        """
        found = {
            "attempts": self._span_count - len(self._spans),
            "jobs": self._job_count - len(self._jobs),
            "log": self._saying.dropped,
            "stalls": self._stall_count - len(self._stalls),
            "moments": self._moment_count - len(self._moments),
            "open_jobs": self._unfollowed,
            "names": self._left_out,
        }
        return {bound: count for bound, count in found.items() if count}

    def _all(self) -> Iterator[tuple[str, str, Series]]:
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
            event.tags,
        )

    def __repr__(self) -> str:
        total = self.total
        jobs, attempts = counted(total.submitted, "job"), counted(total.attempts, "attempt")
        return f"<Chronicle of {jobs}, {attempts}>"


_MOMENTS = (
    *(ChildStarted, ChildEnded, WorkerReplaced, QueueExhausted, QueuePaused, QueueResumed),
    *(QueueResized, StoreMissed, StoreFound, TasksLeaked, ListenerDropped, SupervisorDraining),
)

_Settled = tuple[JobSettled, float | None, AttemptStarted | AttemptEnded | None]
