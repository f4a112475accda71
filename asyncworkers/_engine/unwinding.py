"""Unwinding is how an attempt is ended early: it is told to stop, given some seconds, and left behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from asyncworkers import events
from asyncworkers._engine.agenda import Agenda
from asyncworkers._engine.attempt import Attempt
from asyncworkers._engine.crew import Crew
from asyncworkers._engine.hub import Hub
from asyncworkers._engine.teller import Teller
from asyncworkers._log import log
from asyncworkers.job import Job
from asyncworkers.outcome import Cancelled, Outcome, TimedOut

__all__ = ["Unwinding"]


class Unwound(Protocol):
    """What is needed of the queue whose attempts they are."""

    hub: Hub
    teller: Teller
    told: bool
    crew: Crew

    def conclude(
        self, job: Job[Any], attempt: Attempt, outcome: Outcome, moment: float
    ) -> None: ...
    def dismiss(self, attempt: Attempt) -> None: ...


class Unwinding:
    """Ends the attempts of one queue: for a timeout, for whoever cancels, for the end of all.

    - `timeouts` is where workers enter the moment at which an attempt has run too long.
    - `calls` are those whose job is settled already, because its function cannot be stopped: it may
      notice, and end in time. Only after that it counts as abandoned. Its slot stays taken until
      it has ended.
    """

    __slots__ = ("_deadlines", "_now", "_queue", "abandoned", "calls", "seconds", "timeouts")

    def __init__(self, queue: Unwound, seconds: float) -> None:
        loop, now = queue.hub.loop, queue.hub.clock.now
        self._queue = queue
        self._now = now
        self.seconds = seconds  # that code gets to end when it was told to
        self.abandoned = 0
        self.calls: dict[Attempt, tuple[Job[Any], int]] = {}
        self.timeouts: Agenda[Attempt] = Agenda(loop, now, self._time_out, _is_running)
        self._deadlines: Agenda[Attempt] = Agenda(loop, now, self._abandon, self._may_be_abandoned)

    def cancel(self, attempt: Attempt, verdict: Cancelled | TimedOut) -> None:
        """Cancel a running attempt; if its code has not ended in time, abandon it."""
        if attempt.cancel(verdict):
            self._set_deadline(attempt)

    def let_end(self, attempt: Attempt, job: Job[Any]) -> None:
        """This call's job is over, but its function cannot be stopped."""
        self.calls[attempt] = job, job.attempt
        self._set_deadline(attempt)

    def ended(self, attempt: Attempt) -> bool:
        """This worker has ended; whether a call of its was still waited for."""
        return self.calls.pop(attempt, None) is not None

    def retire(self, attempt: Attempt, job: Job[Any], number: int, what: str) -> None:
        """This worker cannot get away from its job's code: another one takes its place."""
        attempt.retired = True
        self._queue.crew.zombies[attempt] = None
        self._count_abandoned(job, number, what)
        self._queue.dismiss(attempt)

    def abandon_all(self) -> None:
        """Abandon every attempt that still runs."""
        for attempt in tuple(self._queue.crew.members):
            self._abandon(attempt)

    def close(self) -> None:
        """No timer stays behind."""
        self.timeouts.close()
        self._deadlines.close()

    @property
    def held_threads(self) -> list[str]:
        """The names of abandoned calls that still hold a thread of the queue."""
        return [name for attempt, name in self._calls_left() if attempt not in self.calls]

    @property
    def ending_threads(self) -> list[str]:
        """The names of calls that were told to stop, and may still end in time."""
        return [name for attempt, name in self._calls_left() if attempt in self.calls]

    def _calls_left(self) -> Iterator[tuple[Attempt, str]]:
        for attempt in self._queue.crew.members:
            if attempt.left is not None:
                yield attempt, attempt.left

    def _set_deadline(self, attempt: Attempt) -> None:
        self._deadlines.add(self._now() + self.seconds, attempt, attempt.serial)

    def _may_be_abandoned(self, attempt: Attempt, serial: float) -> bool:
        return _is_running(attempt, serial) or attempt in self.calls

    def _time_out(self, attempt: Attempt, _serial: float) -> None:
        if attempt.job is not None and attempt.job._order.timeout is not None:
            self.cancel(attempt, TimedOut(attempt.job._order.timeout))

    def _abandon(self, attempt: Attempt, _serial: float = 0) -> None:
        """Settle the job although its code runs on; that worker is retired and replaced."""
        if attempt in self.calls:
            self._abandon_call(attempt)
            return
        job, verdict = attempt.job, attempt.verdict
        if job is None or verdict is None or attempt.task is None or attempt.kill():
            return
        self.retire(attempt, job, job.attempt, "it did not end when cancelled")
        self._queue.conclude(job, attempt, verdict, self._now())
        attempt.verdict = verdict  # so that nothing its code does later counts
        attempt.task.cancel("abandoned")  # once more: the first may have been swallowed by accident

    def _abandon_call(self, attempt: Attempt) -> None:
        job, number = self.calls.pop(attempt)
        hub = self._queue.hub
        if attempt.left is not None:
            left = "it did not end when cancelled, and keeps its thread until it does"
            self._count_abandoned(job, number, left)
            held = self.held_threads
            if hub.stopping is None and len(held) >= self._queue.crew.workers:
                self._queue.teller.exhausted(held)
        hub.check_quiet()

    def _count_abandoned(self, job: Job[Any], number: int, what: str) -> None:
        """An attempt was left behind: say so."""
        self.abandoned += 1
        for finishing in self._queue.hub.finishing:
            finishing[job] = None
        log.warning("abandoned attempt %d of %r: %s", number, job, what)
        if self._queue.told:
            self._queue.teller.of_job(events.AttemptAbandoned, job, number)


def _is_running(attempt: Attempt, serial: float) -> bool:
    return attempt.serial == serial and attempt.job is not None
