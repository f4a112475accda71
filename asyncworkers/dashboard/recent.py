"""Remembers what has just happened in a supervisor, in bounded memory: what its figures do not tell."""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, Final, NamedTuple

from asyncworkers import Job, events, redact
from asyncworkers.dashboard.data import failure, percentiles
from asyncworkers.store.codec import encode_error, stored_error

__all__ = ["Recent"]

JOBS: Final = 2_000
"""Jobs whose attempts are remembered, and as many that have ended."""

ATTEMPTS: Final = 50
"""Attempts of one job that are remembered, the last ones."""

SAMPLES: Final = 500
"""Durations of each queue of which the percentiles are taken."""

WAITING: Final = 10_000
"""Jobs that wait whose time of submission is remembered; of more, the waits are not measured."""

QUEUES: Final = 200
"""Queues of which durations are kept."""

STALLS: Final = 50


ERRORS: Final = 200
"""Jobs whose last error is remembered, with its traceback and the job's arguments."""

ERRORS_A_SECOND: Final = 20


class _Error(NamedTuple):
    text: str
    arguments: dict[str, Any]


class Recent:
    """A listener. `utc` makes a date, in Unix seconds, of the `at` of an event."""

    def __init__(self, utc: Callable[[float], float]) -> None:
        self._utc = utc
        self._submitted: dict[str, float] = {}
        self._attempts: OrderedDict[str, deque[dict[str, Any]]] = OrderedDict()
        # Those that failed are kept apart, or the many that went well would drive them out.
        self._well: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._ill: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._errors: OrderedDict[str, _Error] = OrderedDict()
        self._allowed: deque[float] = deque([-inf] * ERRORS_A_SECOND, ERRORS_A_SECOND)
        self._waits: dict[str, deque[float]] = {}
        self._runs: dict[str, deque[float]] = {}
        self.stalls: deque[dict[str, Any]] = deque(maxlen=STALLS)
        self._heard: dict[type, Callable[[Any], None]] = {
            events.JobSubmitted: self._job_submitted,
            events.AttemptStarted: self._attempt_started,
            events.AttemptEnded: self._attempt_ended,
            events.JobSettled: self._job_settled,
            events.LoopStalled: self._loop_stalled,
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

    def attempts(self, ident: str) -> list[dict[str, Any]]:
        """The attempts of a job that have ended, in order."""
        return list(self._attempts.get(ident, ()))

    def ended(self) -> Iterator[dict[str, Any]]:
        """Jobs that have ended, in brief, the last one first."""
        both = reversed(self._ill.values()), reversed(self._well.values())
        return heapq.merge(*both, key=_when, reverse=True)

    def failures(self) -> Iterator[dict[str, Any]]:
        """Jobs that have failed, in brief, the last one first."""
        return (one for one in reversed(self._ill.values()) if one["state"] == "failed")

    def error(self, ident: str) -> dict[str, Any] | None:
        """The error that the last attempt of a job ended with, with its traceback."""
        found = self._errors.get(ident)
        return None if found is None else failure(stored_error(found.text))

    def job(self, ident: str) -> dict[str, Any] | None:
        """What is left of a job that has ended."""
        brief = self._ill.get(ident) or self._well.get(ident)
        if brief is None:
            return None
        found = self._errors.get(ident)
        return {
            **brief,
            "args": None if found is None else found.arguments,
            "result": None,
            "failure": None,
            "why": _ENDED[brief["state"]],
        }

    # ---- what happens

    def _job_submitted(self, event: events.JobSubmitted) -> None:
        if len(self._submitted) < WAITING:
            self._submitted[event.job_id] = event.at

    def _attempt_started(self, event: events.AttemptStarted) -> None:
        submitted = self._submitted.get(event.job_id)
        if event.attempt == 1 and submitted is not None:
            self._sample(self._waits, event.queue, event.at - submitted)

    def _attempt_ended(self, event: events.AttemptEnded) -> None:
        self._sample(self._runs, event.queue, event.seconds)
        spans = self._attempts.get(event.job_id)
        if spans is None:
            spans = self._attempts[event.job_id] = deque(maxlen=ATTEMPTS)
            if len(self._attempts) > JOBS:
                self._attempts.popitem(last=False)
        ended = self._utc(event.at)
        spans.append(
            {
                "attempt": event.attempt,
                "worker": event.worker,
                "started": ended - event.seconds,
                "seconds": event.seconds,
                "outcome": event.outcome,
                "decision": event.decision,
                "error": event.error,
            }
        )

    def _job_settled(self, event: events.JobSettled) -> None:
        ended = self._utc(event.at)
        submitted = self._submitted.pop(event.job_id, None)
        spans = self._attempts.get(event.job_id)
        kept = self._well if event.state == "succeeded" else self._ill
        kept[event.job_id] = {
            "id": event.job_id,
            "name": event.job_name,
            "queue": event.queue,
            "state": event.state,
            "stored": False,
            "attempt": event.attempt,
            "priority": 0,
            "tags": list(event.tags),
            "submitted": None if submitted is None else self._utc(submitted),
            "due": None,
            "started": spans[-1]["started"] if spans else None,
            "ended": ended,
            "cancelling": False,
            "progress": None,
            "error": spans[-1]["error"] if spans and event.state != "succeeded" else None,
        }
        if len(kept) > JOBS:
            kept.popitem(last=False)
        if event.state == "succeeded":
            self._errors.pop(event.job_id, None)

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

    def _loop_stalled(self, event: events.LoopStalled) -> None:
        details = event.as_dict()
        self.stalls.appendleft({**details, "at": self._utc(event.at)})

    def _sample(self, samples: dict[str, deque[float]], queue: str, seconds: float) -> None:
        found = samples.get(queue)
        if found is None:
            if len(samples) >= QUEUES:
                return
            found = samples[queue] = deque(maxlen=SAMPLES)
        found.append(seconds)


def _when(brief: dict[str, Any]) -> float:
    ended: float = brief["ended"]
    return ended


_ENDED: Final = {
    "succeeded": "It has succeeded. A job in memory is forgotten then, with its arguments and result.",
    "failed": "It has failed. A job in memory is forgotten then; its error is kept here for a while.",
    "cancelled": "It was cancelled. A job in memory is forgotten then.",
}
