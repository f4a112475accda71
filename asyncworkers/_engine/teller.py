"""A teller says what becomes of a queue's jobs and workers: to listeners, to the escort and to the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncworkers import _checks, events
from asyncworkers._engine.attempt import Attempt
from asyncworkers._engine.hub import Hub
from asyncworkers._log import log
from asyncworkers.job import Job
from asyncworkers.outcome import Decision, Failed, Outcome

__all__ = ["Teller"]


class Teller:
    """Speaks for one queue, and decides nothing.

    What concerns each job is told only while the queue is `told` that somebody listens, so whoever
    tells looks there first.
    """

    __slots__ = ("_hub", "_name", "_now")

    def __init__(self, hub: Hub, name: str) -> None:
        self._hub = hub
        self._name = name
        self._now = hub.clock.now

    def emit(self, event: Callable[..., events.Event], *details: Any) -> None:
        """Tell of something that concerns the queue as a whole."""
        if self._hub.listeners:
            self._hub.listeners.emit(event(self._now(), *details))

    def of_job(self, event: Callable[..., events.Event], job: Job[Any], *details: Any) -> None:
        """Tell of something that happened to a job just now."""
        self._of_job_at(self._now(), event, job, *details)

    def _of_job_at(
        self, moment: float, event: Callable[..., events.Event], job: Job[Any], *details: Any
    ) -> None:
        """Tell of something that happened at this moment, and perhaps is known only now."""
        hub, order = self._hub, job._order
        if hub.listeners:
            job_id, tags = hub.job_id(job), order.policies.tags
            hub.listeners.emit(event(moment, job_id, order.name, self._name, tags, *details))

    # ---- a job's day

    def submitted(self, job: Job[Any]) -> None:
        """A job was accepted."""
        self._hub.job_came()
        if self._hub.escort is not None:
            self._hub.escort.submitted(job)
        self.of_job(events.JobSubmitted, job)

    def started(self, job: Job[Any], attempt: Attempt) -> None:
        """An attempt has begun."""
        if self._hub.escort is not None:
            self._hub.escort.begun(job)
        rare = job._rare
        since = job._created if rare is None else max(job._created, rare.due)
        began = job._started
        waited = max(0.0, began - since)
        self._of_job_at(began, events.AttemptStarted, job, job.attempt, attempt.number, waited)

    def succeeded(self, job: Job[Any], attempt: Attempt) -> None:
        """An attempt has ended in the ordinary way, when its job did."""
        self._ended(job, attempt, job._finished, "Succeeded", "Complete", None, None)

    def ended(
        self, job: Job[Any], attempt: Attempt, outcome: Outcome, decision: Decision, moment: float
    ) -> None:
        """An attempt has ended at this moment, and this is what is done about it."""
        kind = error = None
        if isinstance(outcome, Failed):
            kind, error = _checks.kind_of(outcome.error), _checks.summary(outcome.error)
        ended = type(outcome).__name__, type(decision).__name__, kind, error
        self._ended(job, attempt, moment, *ended)
        if isinstance(outcome, Failed) and self._hub.witnesses:
            self._hub.show_error(job, outcome.error)

    def _ended(
        self,
        job: Job[Any],
        attempt: Attempt,
        moment: float,
        outcome: str,
        decision: str,
        kind: str | None,
        error: str | None,
    ) -> None:
        """The same in the words of the event."""
        if self._hub.escort is not None:
            self._hub.escort.ended(job, outcome, decision, kind, error)
        details = job.attempt, attempt.number, moment - job._started
        ended = outcome, decision, kind, error
        self._of_job_at(moment, events.AttemptEnded, job, *details, *ended)

    def settled(self, job: Job[Any], state: str) -> None:
        """A job has its end."""
        self.of_job(events.JobSettled, job, job.attempt, state)
        self._hub.job_ended()

    # ---- what goes wrong with workers

    def gone(self, attempt: Attempt, what: str, cause: str) -> None:
        """A worker's child or bridge has died."""
        log.warning("%s %d of queue %r is gone: %s", what, attempt.number, self._name, cause)
        self.emit(events.WorkerReplaced, self._name, attempt.number, cause, None)

    def replaced(self, attempt: Attempt, job: Job[Any] | None, crash: BaseException | None) -> None:
        """A worker has crashed, or was cancelled by a stranger."""
        cause = "cancelled from outside"
        if crash is not None:
            cause = f"crashed: {_checks.kind_of(crash)}"
        culprit = None if job is None else self._hub.job_id(job)
        log.failure(f"worker {attempt.number} of queue {self._name!r} {cause}", crash)
        self.emit(events.WorkerReplaced, self._name, attempt.number, cause, culprit)

    def exhausted(self, held: list[str]) -> None:
        """Abandoned calls of these names hold all threads there are."""
        names = ", ".join(held)
        log.warning(
            "queue %r has no thread left: abandoned attempts of %s hold them", self._name, names
        )
        self.emit(events.QueueExhausted, self._name, tuple(held))
