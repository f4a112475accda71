"""The report of a run: what became of its jobs, where the time went, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

from asyncworkers import _html
from asyncworkers._engine.report import QueueStats, Stats, Totals
from asyncworkers._record import Record
from asyncworkers.chronicle import (
    Chronicle,
    Errors,
    Figures,
    Histogram,
    Span,
    Stalls,
    Throughput,
)
from asyncworkers.events import LoopStalled
from asyncworkers.units import counted, seconds

__all__ = ["QueueReport", "Report", "make_report", "place_of"]

LISTED = 10
"""How many names of jobs and types of errors are printed."""

WORST = 5
"""How many of the slowest attempts and most retried jobs are."""

UNRECORDED = (
    "Not recorded: Supervisor(record=True) adds waiting and running times, the slowest and most\n"
    "retried jobs, errors by type, and a timeline."
)


class QueueReport(Record):
    """What became of one queue's jobs. `waiting` and `running` are None without `record`.

    `unfinished` are the jobs that wait or run now; other counts are those of `QueueStats`, and
    times those of `Figures`.
    """

    name: str
    workers: int
    submitted: int
    succeeded: int
    failed: int
    cancelled: int
    unfinished: int
    retried: int
    timed_out: int
    abandoned: int
    waiting: Histogram | None
    running: Histogram | None

    @property
    def ended(self) -> int:
        """Jobs that have ended."""
        return self.succeeded + self.failed + self.cancelled

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        times = {"waiting": self.waiting, "running": self.running}
        return self.as_dict() | {
            name: None if time is None else time.to_dict() for name, time in times.items()
        }


class Report(Totals):
    """What a supervisor has done in `seconds`; `str()` of it is a page of plain text.

    Counts, stalls and throughput are always there. If the supervisor recorded (`recorded`), so are
    the figures by the names of jobs, the slowest attempts and the most retried jobs (each the span of
    an attempt), errors by type, and throughput over time; else these are empty. `dropped` tells
    what the chronicle had no room for.
    """

    name: str
    state: str
    seconds: float
    recorded: bool
    queues: tuple[QueueReport, ...]
    jobs: dict[str, Figures]
    slowest: tuple[Span, ...]
    most_retried: tuple[Span, ...]
    errors: tuple[Errors, ...]
    stalls: Stalls
    throughput: Throughput | None
    dropped: dict[str, int]

    def _each(self) -> Iterable[QueueReport]:
        return self.queues

    @property
    def unfinished(self) -> int:
        """Jobs that wait or run now."""
        return self._sum("unfinished")

    @property
    def per_second(self) -> float:
        """Jobs that ended in a second, on the average."""
        return self._sum("ended") / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, such as JSON can hold."""
        sums = ("submitted", "succeeded", "failed", "cancelled", "retried", "unfinished")
        return {
            "name": self.name,
            "state": self.state,
            "seconds": self.seconds,
            "recorded": self.recorded,
            **{figure: self._sum(figure) for figure in sums},
            "per_second": self.per_second,
            "queues": {queue.name: queue.to_dict() for queue in self.queues},
            "jobs": {name: figures.to_dict() for name, figures in self.jobs.items()},
            "slowest": [span.as_dict() for span in self.slowest],
            "most_retried": [span.as_dict() for span in self.most_retried],
            "errors": [
                {"error_type": one.error_type, "count": one.count, "last": one.last.as_dict()}
                for one in self.errors
            ],
            "stalls": {
                "count": self.stalls.count,
                "seconds": self.stalls.seconds,
                "worst": None if self.stalls.worst is None else self.stalls.worst.as_dict(),
            },
            "throughput": None if self.throughput is None else self.throughput.as_dict(),
            "dropped": dict(self.dropped),
        }

    def __str__(self) -> str:
        tables = [_queues(self.queues)]
        if self.jobs:
            tables.append(_jobs(self.jobs))
        if self.slowest:
            tables.append(_slowest(self.slowest))
        if self.most_retried:
            tables.append(_retried(self.most_retried))
        if self.errors:
            tables.append(_errors(self.errors))
        parts = [self.headline, *tables, _stalls(self.stalls)]
        if not self.recorded:
            parts.append(UNRECORDED)
        if self.dropped:
            left = ", ".join(f"{count:,} of {bound}" for bound, count in self.dropped.items())
            parts.append(f"For want of room the chronicle left out: {left}.")
        return "\n\n".join(part for part in parts if part)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """As IPython's prompt shows it: what `print` does, for the repr is one line of thousands."""
        printer.text(str(self))

    def _repr_html_(self) -> str:
        """As notebooks show it: the same figures as tables."""
        used = [queue for queue in self.queues if queue.submitted or queue.ended]
        heads = ("queue", *_COUNTS, *_TIMES)
        queues = [(one.name, *_counts(one), *_times(one.waiting, one.running)) for one in used]
        jobs = [
            (name, *_counts(one), *_times(one.waiting, one.running))
            for name, one in _heaviest(self.jobs)[:LISTED]
        ]
        slow = [(_whose(one), seconds(one.seconds or 0.0), _how(one)) for one in self.slowest]
        again = [(_whose(one), one.attempt, _how(one)) for one in self.most_retried]
        errors = [(one.error_type, one.count, one.last.error or "") for one in self.errors]
        return _html.block(
            self.headline,
            _html.rows(heads, queues),
            _html.rows(("job", *heads[1:]), jobs),
            _html.rows(("slowest attempts", "ran", "ended"), slow[:WORST]),
            _html.rows(("most retried jobs", "attempts", "ended"), again[:WORST]),
            _html.rows(("errors of attempts", "how many", "last"), errors[:LISTED]),
            _html.words(_stalls(self.stalls)),
            "" if self.recorded else _html.words(UNRECORDED),
        )

    @property
    def headline(self) -> str:
        """The whole run in one line."""
        jobs = [f"{self.succeeded:,} succeeded"]
        jobs += [
            f"{count:,} {word}"
            for word, count in (
                ("failed", self.failed),
                ("cancelled", self.cancelled),
                ("unfinished", self.unfinished),
            )
            if count
        ]
        again = f"; {counted(self.retried, 'attempt')} repeated" if self.retried else ""
        return (
            f"{self.name}, {self.state} after {seconds(self.seconds)}: "
            f"{counted(self.submitted, 'job')}, {', '.join(jobs)}{again}; "
            f"{_rate(self.per_second)}"
        )

    @property
    def summary(self) -> str:
        """The run in a few lines: what became of it, the slowest attempt, errors by type, stalls."""
        lines = [self.headline]
        if self.errors:
            errors = [f"{one.count:,} × {one.error_type}" for one in self.errors[:WORST]]
            lines.append(f"errors of attempts: {', '.join(errors)}")
        if self.slowest:
            worst = self.slowest[0]
            how = f": {_how(worst)}" if _how(worst) else ""
            lines.append(f"slowest attempt: {seconds(worst.seconds or 0.0)}, {_whose(worst)}{how}")
        if self.stalls.count:
            lines.append(_stalls(self.stalls))
        return "\n  ".join(lines)


def make_report(
    name: str,
    state: str,
    lasted: float,
    stats: Stats,
    stalls: tuple[int, float, LoopStalled | None],
    chronicle: Chronicle | None,
) -> Report:
    """Put together what a supervisor counts by itself, and what its chronicle knows beside."""
    by_queue = {} if chronicle is None else chronicle.queues
    queues = tuple(
        _queue_report(queue, by_queue.get(queue.name)) for queue in stats.queues.values()
    )
    if chronicle is None:
        nothing = Stalls(*stalls, () if stalls[2] is None else (stalls[2],))
        return Report(name, state, lasted, False, queues, {}, (), (), (), nothing, None, {})
    return Report(
        name,
        state,
        lasted,
        True,
        queues,
        chronicle.names,
        tuple(chronicle.slowest),
        tuple(chronicle.most_retried),
        tuple(chronicle.errors),
        chronicle.stalls,
        chronicle.throughput(),
        chronicle.dropped,
    )


def place_of(stall: LoopStalled) -> str:
    """Whose stall it was, and the file, line and function, as short as one can find them by."""
    culprit = f"in job {stall.job_name}" if stall.job_name else "in no job"
    return f"{culprit}, at {PurePath(stall.file).name}:{stall.line} in {stall.function}"


def _queue_report(queue: QueueStats, figures: Figures | None) -> QueueReport:
    return QueueReport(
        queue.name,
        queue.workers,
        queue.submitted,
        queue.succeeded,
        queue.failed,
        queue.cancelled,
        queue.running + queue.queued + queue.scheduled,
        queue.retried,
        queue.timed_out,
        queue.abandoned,
        None if figures is None else figures.waiting,
        None if figures is None else figures.running,
    )


# ---- on paper


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f} jobs/s" if per_second >= 100 else f"{per_second:.3g} jobs/s"


def _queues(queues: Iterable[QueueReport]) -> str:
    used = [queue for queue in queues if queue.submitted or queue.ended]
    if not used:
        return ""
    rows = [[queue.name, *_counts(queue), *_times(queue.waiting, queue.running)] for queue in used]
    return _table(["queue", *_COUNTS, *_TIMES], rows)


def _jobs(jobs: dict[str, Figures]) -> str:
    heaviest = _heaviest(jobs)
    rows = [
        [name, *_counts(figures), *_times(figures.waiting, figures.running)]
        for name, figures in heaviest[:LISTED]
    ]
    more = len(heaviest) - LISTED
    table = _table(["job", *_COUNTS, *_TIMES], rows)
    return f"{table}\n  and {counted(more, 'name')} more" if more > 0 else table


def _heaviest(jobs: dict[str, Figures]) -> list[tuple[str, Figures]]:
    return sorted(jobs.items(), key=lambda job: (-job[1].running.total, job[0]))


_COUNTS = ["jobs", "failed", "cancelled", "retried"]
_TIMES = ["busy", "waited p50", "p99", "ran p50", "p99", "most"]


def _counts(figures: QueueReport | Figures) -> list[str]:
    counts = figures.submitted, figures.failed, figures.cancelled, figures.retried
    return [f"{count:,}" if count else "-" for count in counts]


def _times(waiting: Histogram | None, running: Histogram | None) -> list[str]:
    if waiting is None or running is None:
        return [""] * len(_TIMES)
    most = running.most if running.count else None
    figures = [
        running.total or None,
        *(waiting.percentile(0.5), waiting.percentile(0.99)),
        *(running.percentile(0.5), running.percentile(0.99), most),
    ]
    return ["-" if figure is None else seconds(figure) for figure in figures]


def _slowest(spans: Sequence[Span]) -> str:
    rows = [[seconds(span.seconds or 0.0), _whose(span), _how(span)] for span in spans[:WORST]]
    return _list("slowest attempts", rows)


def _retried(spans: Sequence[Span]) -> str:
    rows = [[counted(span.attempt, "attempt"), _whose(span), _how(span)] for span in spans[:WORST]]
    return _list("most retried jobs", rows)


def _errors(errors: Sequence[Errors]) -> str:
    rows = [
        [f"{one.count:,} ×", one.error_type, f"last in {one.last.job_name}: {one.last.error}"]
        for one in errors[:LISTED]
    ]
    return _list("errors of attempts", rows)


def _stalls(stalls: Stalls) -> str:
    if not stalls.count or stalls.worst is None:
        return "The event loop never stalled."
    return (
        f"The event loop stalled {counted(stalls.count, 'time')}, {seconds(stalls.seconds)} in all; "
        f"worst {seconds(stalls.worst.seconds)} {place_of(stalls.worst)}."
    )


def _whose(span: Span) -> str:
    return f"{span.job_name} {span.job_id}"


def _how(span: Span) -> str:
    if span.error is not None:
        return span.error
    return {"Succeeded": "", "TimedOut": "timed out"}.get(span.outcome or "", "cancelled")


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Columns under their heads, the first one to the left; without those that are empty."""
    kept = [place for place in range(len(head)) if any(row[place] for row in rows)]
    lines = [[row[place] for place in kept] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _list(heading: str, rows: list[list[str]]) -> str:
    first, second = (max(len(row[place]) for row in rows) for place in (0, 1))
    lines = [
        f"  {amount.rjust(first)}  {what.ljust(second)}  {text}".rstrip()
        for amount, what, text in rows
    ]
    return "\n".join([heading, *lines])
