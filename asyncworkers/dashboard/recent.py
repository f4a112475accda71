"""Remembers what has just happened in a supervisor, in bounded memory: what its figures do not tell."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, Final, NamedTuple

from asyncworkers import events, redact
from asyncworkers.dashboard.data import failure, percentiles
from asyncworkers.job import Job
from asyncworkers.store.codec import encode_error, stored_error

__all__ = ["Recent"]

JOBS: Final = 2_000
"""Jobs that have succeeded which are remembered, and as many that have not."""

ATTEMPTS: Final = 10_000
"""Attempts that are remembered, of whichever jobs."""

SAMPLES: Final = 500
"""Durations of each queue of which the percentiles are taken."""

WAITING: Final = 10_000
"""Unfinished jobs whose time of submission is remembered; of more, the oldest are forgotten: those in
a store end in other processes, too, which nobody here is told of."""

QUEUES: Final = 200
"""Queues of which durations are kept."""

STALLS: Final = 50


ERRORS: Final = 200
"""Jobs whose last error is remembered, with its traceback and the job's arguments."""

ERRORS_A_SECOND: Final = 20


class _Error(NamedTuple):
    text: str
    arguments: dict[str, Any]


class _Ended(NamedTuple):
    settled: events.JobSettled
    submitted: float | None
    attempt: events.AttemptEnded | None


class Recent:
    """A listener. It hears of every job, so it only keeps what it hears, and makes documents of that
    when somebody looks. `utc` makes a date, in Unix seconds, of the `at` of an event.
    """

    def __init__(self, utc: Callable[[float], float]) -> None:
        self._utc = utc
        self._submitted: dict[str, float] = {}
        self._attempts: deque[events.AttemptEnded] = deque(maxlen=ATTEMPTS)
        # Those that failed are kept apart, or the many that went well would drive them out.
        self._well: deque[_Ended] = deque(maxlen=JOBS)
        self._ill: deque[_Ended] = deque(maxlen=JOBS)
        self._errors: OrderedDict[str, _Error] = OrderedDict()
        self._allowed: deque[float] = deque([-inf] * ERRORS_A_SECOND, ERRORS_A_SECOND)
        self._waits: dict[str, deque[float]] = {}
        self._runs: dict[str, deque[float]] = {}
        self._stalls: deque[events.LoopStalled] = deque(maxlen=STALLS)
        self._heard: dict[type, Callable[[Any], None]] = {
            events.JobSubmitted: self._job_submitted,
            events.AttemptStarted: self._attempt_started,
            events.AttemptEnded: self._attempt_ended,
            events.JobSettled: self._job_settled,
            events.LoopStalled: self._stalls.append,
        }

    def __call__(self, event: events.Event) -> None:
        """Note what happened."""
        heard = self._heard.get(type(event))
        if heard is not None:
            heard(event)

    # ---- what there is to see

    def times(self, queue: str) -> dict[str, Any]:
        """How long the last jobs of a queue waited and ran, by percentile."""
        return {
            "wait": percentiles(self._waits.get(queue, ())),
            "run": percentiles(self._runs.get(queue, ())),
        }

    def stalls(self) -> list[dict[str, Any]]:
        """The last stalls of the loop, the last one first."""
        return [{**one.as_dict(), "at": self._utc(one.at)} for one in reversed(self._stalls)]

    def attempts(self, ident: str) -> list[dict[str, Any]]:
        """The attempts of a job that have ended, in order, as far as they are remembered."""
        return [
            {
                "attempt": one.attempt,
                "worker": one.worker,
                "started": self._utc(one.at) - one.seconds,
                "seconds": one.seconds,
                "outcome": one.outcome,
                "decision": one.decision,
                "error": one.error,
            }
            for one in self._attempts
            if one.job_id == ident
        ]

    def ended(self) -> Iterator[dict[str, Any]]:
        """Jobs that have ended, in brief, the last one first."""
        both = heapq.merge(reversed(self._ill), reversed(self._well), key=_when, reverse=True)
        return map(self._brief, both)

    def failures(self) -> Iterator[dict[str, Any]]:
        """Jobs that have failed, in brief, the last one first."""
        failed = (one for one in reversed(self._ill) if one.settled.state == "failed")
        return map(self._brief, failed)

    def error(self, ident: str) -> dict[str, Any] | None:
        """The error that the last attempt of a job ended with, with its traceback."""
        found = self._errors.get(ident)
        return None if found is None else failure(stored_error(found.text))

    def job(self, ident: str) -> dict[str, Any] | None:
        """What is left of a job that has ended."""
        both = itertools.chain(reversed(self._ill), reversed(self._well))
        ended = next((one for one in both if one.settled.job_id == ident), None)
        if ended is None:
            return None
        found = self._errors.get(ident)
        return {
            **self._brief(ended),
            "args": None if found is None else found.arguments,
            "result": None,
            "failure": None,
            "why": _SAID[ended.settled.state],
        }

    def _brief(self, ended: _Ended) -> dict[str, Any]:
        settled, submitted, attempt = ended
        started = None if attempt is None else self._utc(attempt.at) - attempt.seconds
        return {
            "id": settled.job_id,
            "name": settled.job_name,
            "queue": settled.queue,
            "state": settled.state,
            "stored": False,
            "attempt": settled.attempt,
            "priority": 0,
            "tags": list(settled.tags),
            "submitted": None if submitted is None else self._utc(submitted),
            "due": None,
            "started": started,
            "ended": self._utc(settled.at),
            "cancelling": False,
            "progress": None,
            "error": None if attempt is None else attempt.error,
        }

    # ---- what happens

    def _job_submitted(self, event: events.JobSubmitted) -> None:
        submitted = self._submitted
        if len(submitted) >= WAITING:
            # Many at a time: a dict finds its oldest key slowly if each is removed.
            for ident in tuple(itertools.islice(submitted, WAITING // 8)):
                del submitted[ident]
        submitted[event.job_id] = event.at

    def _attempt_started(self, event: events.AttemptStarted) -> None:
        self._sample(self._waits, event.queue, event.waited)

    def _attempt_ended(self, event: events.AttemptEnded) -> None:
        self._attempts.append(event)
        self._sample(self._runs, event.queue, event.seconds)

    def _job_settled(self, event: events.JobSettled) -> None:
        ident = event.job_id
        submitted = self._submitted.pop(ident, None)
        attempt = self._attempts[-1] if self._attempts else None
        if attempt is not None and attempt.job_id != ident:
            attempt = None  # it waited when it was cancelled
        if event.state == "succeeded":
            self._well.append(_Ended(event, submitted, attempt))
            if self._errors:
                self._errors.pop(ident, None)
        else:
            self._ill.append(_Ended(event, submitted, attempt))

    def _sample(self, samples: dict[str, deque[float]], queue: str, seconds: float) -> None:
        found = samples.get(queue)
        if found is None:
            if len(samples) >= QUEUES:
                return
            found = samples[queue] = deque(maxlen=SAMPLES)
        found.append(seconds)

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


def _when(ended: _Ended) -> float:
    return ended.settled.at


_SAID: Final = {
    "succeeded": "It has succeeded. A job in memory is forgotten then, with its arguments and result.",
    "failed": "It has failed. A job in memory is forgotten then; its error is kept here for a while.",
    "cancelled": "It was cancelled. A job in memory is forgotten then.",
}
