"""What has just happened in a supervisor, as documents: read from its chronicle when somebody looks."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from math import inf
from typing import Any, Final, NamedTuple

from asyncworkers import redact
from asyncworkers.chronicle import Chronicle, FinishedJob, LogLine, Span
from asyncworkers.dashboard.data import failure, percentiles
from asyncworkers.dashboard.rates import rates_shown
from asyncworkers.job import Job
from asyncworkers.store.codec import encode_error, stored_error

__all__ = ["Recent", "new_chronicle"]

BARS: Final = 60
"""Bars of a sparkline: a minute, where the chronicle counts by seconds."""

ERRORS: Final = 200
"""Jobs whose last error is remembered, with its traceback and the job's arguments."""

ERRORS_A_SECOND: Final = 20


def new_chronicle() -> Chronicle:
    """What a dashboard records with if its supervisor does not: no more than it shows.

    Few open jobs, for those in a store end in other processes, too, which nobody here is told of.
    """
    return Chronicle(
        attempts=10_000,
        jobs=2_000,
        open_jobs=10_000,
        slowest=0,
        retried=0,
        stalls=50,
        moments=0,
        width=1.0,
        buckets=BARS + 1,
    )


class _Error(NamedTuple):
    text: str
    arguments: dict[str, Any]


class Recent:
    """Makes documents of what a chronicle has kept, and keeps beside it the last errors themselves."""

    def __init__(self, chronicle: Chronicle) -> None:
        self.chronicle = chronicle
        self._errors: OrderedDict[str, _Error] = OrderedDict()
        self._allowed: deque[float] = deque([-inf] * ERRORS_A_SECOND, ERRORS_A_SECOND)

    # ---- what there is to see

    def figures(self, queue: str) -> dict[str, Any]:
        """How many jobs of a queue end in a second, and how long the last ones waited and ran."""
        waits, runs = self.chronicle.latest_times(queue)
        ended = self.chronicle.ends_per_second(queue, time.monotonic(), BARS)
        return {**rates_shown(ended), "wait": percentiles(waits), "run": percentiles(runs)}

    def stalls(self) -> list[dict[str, Any]]:
        """The last stalls of the loop, the last one first."""
        shift = time.time() - time.monotonic()
        last = self.chronicle.stalls.last
        return [{**one.as_dict(), "at": shift + one.at} for one in reversed(last)]

    def attempts(self, ident: str) -> list[dict[str, Any]]:
        """The attempts of a job that have ended, in order, as far as they are remembered."""
        return [self._attempt(one) for one in self.chronicle.attempts_of(ident)]

    def log(self, ident: str) -> dict[str, Any]:
        """What a job said to the log, as far as it is remembered."""
        said = self.chronicle.log_of(ident)
        return {"lines": [_line(one) for one in said.lines], "dropped": said.dropped}

    def ended(self) -> Iterator[dict[str, Any]]:
        """Jobs that have ended, in brief, the last one first; those that did not succeed for longer."""
        return map(self._brief, self.chronicle.latest_jobs())

    def failures(self) -> Iterator[dict[str, Any]]:
        """Jobs that have failed, in brief, the last one first."""
        return map(self._brief, self.chronicle.failures())

    def error(self, ident: str) -> dict[str, Any] | None:
        """The error that the last attempt of a job ended with, with its traceback."""
        found = self._errors.get(ident)
        return None if found is None else failure(stored_error(found.text))

    def job(self, ident: str) -> dict[str, Any] | None:
        """What is left of a job that has ended."""
        ended = self.chronicle.finished_job(ident)
        if ended is None:
            return None
        found = self._errors.get(ident)
        return {
            **self._brief(ended),
            "args": None if found is None else found.arguments,
            "result": None,
            "failure": None,
            "why": _SAID[ended.state],
        }

    def _utc(self, moment: float | None) -> float | None:
        """The date of a moment of the run."""
        if moment is None:
            return None
        return time.time() - time.monotonic() + (self.chronicle.began or 0.0) + moment

    def _attempt(self, span: Span) -> dict[str, Any]:
        return {
            "attempt": span.attempt,
            "worker": span.worker,
            "started": self._utc(span.start),
            "seconds": span.seconds,
            "outcome": span.outcome,
            "decision": span.decision,
            "error": span.error,
        }

    def _brief(self, ended: FinishedJob) -> dict[str, Any]:
        return {
            "id": ended.job_id,
            "name": ended.job_name,
            "queue": ended.queue,
            "state": ended.state,
            "stored": False,
            "attempt": ended.attempt,
            "priority": 0,
            "tags": list(ended.tags),
            "submitted": self._utc(ended.submitted),
            "due": None,
            "started": self._utc(ended.started),
            "ended": self._utc(ended.finished),
            "cancelling": False,
            "progress": None,
            "error": ended.error,
        }

    # ---- what happens

    def failed(self, job: Job[Any], error: Exception) -> None:
        """Note what an attempt has just raised, and with which arguments: of not too many a second,
        for to write down a traceback takes longer than most jobs.
        """
        now = time.monotonic()
        if now - self._allowed[0] < 1.0:
            return
        self._allowed.append(now)
        arguments = redact.arguments(job.function, job.args, job.kwargs)
        self._errors[job.id] = _Error(encode_error(error), arguments)
        self._errors.move_to_end(job.id)
        if len(self._errors) > ERRORS:
            self._errors.popitem(last=False)


def _line(line: LogLine) -> dict[str, Any]:
    plain = line.as_dict()
    return {**plain, "logged": plain.pop("message")}


_SAID: Final = {
    "succeeded": "It has succeeded. A job in memory is forgotten then, with its arguments and result.",
    "failed": "It has failed. A job in memory is forgotten then; its error is kept here for a while.",
    "cancelled": "It was cancelled. A job in memory is forgotten then.",
}
