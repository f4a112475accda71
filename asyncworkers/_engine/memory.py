"""The in-memory queue: jobs are accepted, stand in line, are taken by workers, and settled when they end."""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Literal, assert_never

from asyncworkers import _checks, events
from asyncworkers._engine.attempt import Attempt, fault_of_ours, waits_for
from asyncworkers._engine.census import Census
from asyncworkers._engine.crew import Crew
from asyncworkers._engine.entry import Supply, place
from asyncworkers._engine.explain import explain_job, explain_queue
from asyncworkers._engine.hub import Hub
from asyncworkers._engine.line import Line, RankedLine
from asyncworkers._engine.room import Room
from asyncworkers._engine.teller import Teller
from asyncworkers._engine.timetable import Timetable
from asyncworkers._engine.unwinding import Unwinding
from asyncworkers.errors import (
    JobCancelled,
    JobExpired,
    JobFailed,
    JobTimedOut,
    WorkerCrashed,
    WouldDeadlock,
)
from asyncworkers.job import (
    CANCELLED,
    ENDED,
    FAILED,
    QUEUED,
    RUNNING,
    STATES,
    SUCCEEDED,
    Failure,
    Job,
    Progress,
)
from asyncworkers.outcome import (
    Cancel,
    Cancelled,
    Complete,
    Decision,
    Fail,
    Failed,
    Outcome,
    Release,
    RetryAfter,
    TimedOut,
)
from asyncworkers.policies import decide

__all__ = ["MemoryQueue"]


class MemoryQueue:
    """A line of jobs and the crew of workers that serve it.

    Synchronous code owns this state: no method awaits between reading it and writing it.

    What is rare has a room of its own. What waits for room in the line is in `room`, what waits for
    its time in the `timetable`. The workers are in the `crew`; `unwinding` ends what they do early.
    The `teller` says what happens to those who listen, and the `census` what there is to who asks.
    """

    stored = False
    """Whether what is submitted to it lives in a store, and only comes here to be run."""

    __slots__ = (
        "_dead",
        "ageing",
        "cancelled",
        "census",
        "clock",
        "completed",
        "crew",
        "ending",
        "failed",
        "hub",
        "isolation",
        "kind",
        "line",
        "logs_dropped",
        "maxsize",
        "may_chunk",
        "name",
        "next_entry",
        "now",
        "paused",
        "retried",
        "room",
        "shut",
        "supplies",
        "teller",
        "timed_out",
        "timeouts",
        "timetable",
        "told",
        "unwinding",
        "waiting_supplies",
    )

    def __init__(
        self,
        hub: Hub,
        name: str,
        *,
        kind: Literal["loop", "threads", "processes", "interpreters", "bridge"],
        workers: int,
        maxsize: int | None,
        isolation: Literal["shared", "task"],
        unwind: float,
        ageing: float | None,
        hire: Callable[[MemoryQueue, int], Attempt],
    ) -> None:
        self.hub = hub
        self.clock = hub.clock
        self.now = hub.clock.now
        self.name = name
        self.kind = kind
        self.maxsize = maxsize
        self.isolation = isolation
        self.ageing = ageing
        self.may_chunk = True  # whether items of a stream may make up one job of a process
        self.told = False  # whether anybody wants to hear of each job
        self.paused = False
        self.ending: str | None = None  # why nothing may wait here any more
        self.completed = self.failed = self.cancelled = 0
        self.retried = self.timed_out = 0
        self.logs_dropped = 0
        self.line: Line = deque[Any]()
        self.next_entry: Callable[[], Any] = self.line.popleft  # raises IndexError if there is none
        self.waiting_supplies: dict[Supply, None] = {}  # in line
        self.supplies: dict[Any, None] = {}  # whose stream is being read
        self._dead = 0  # entries of the line whose job is not queued any more
        self.shut = False
        self.room = Room(hub, name, maxsize, self.in_line)
        self.crew = Crew(hub.loop, workers, lambda number: hire(self, number), self._to_take)
        self.teller = Teller(hub, name)
        self.census = Census(self)
        self.timetable = Timetable(hub.loop, self.now, self._line_up, self._end_waiting)
        self.unwinding = Unwinding(self, unwind)
        self.timeouts = self.unwinding.timeouts  # where workers find it at once

    # ---- what its jobs ask

    def job_id(self, job: Job[Any]) -> str:
        """The job's id, given when first asked for."""
        return self.hub.job_id(job)

    def utc(self, moment: float) -> datetime:
        """A moment of the loop's clock as a date."""
        return self.clock.utc(moment)

    def create_future(self) -> asyncio.Future[None]:
        """A future of the supervisor's loop; raises WrongLoop anywhere else."""
        loop = self.hub.loop
        if _get_running_loop() is not loop:
            self.hub.check_loop()
        return loop.create_future()

    def explain_job(self, job: Job[Any]) -> str:
        """One sentence on what the job is waiting for or doing."""
        for attempt in self.crew.members:
            attempt.refresh()
        return explain_job(job, self)

    def explain(self) -> str:
        """One line: what the queue does, and what keeps its jobs waiting."""
        return explain_queue(self)

    def lender(self, job: Job[Any]) -> Attempt | None:
        """The attempt that is about to await the job, if a job is.

        Raises WouldDeadlock if the job already waits, through others perhaps, for that attempt's.
        """
        attempt = self.hub.lender_here()
        if attempt is not None and attempt.job is not None and waits_for(job, attempt.job):
            raise WouldDeadlock(f"{attempt.job!r} awaits {job!r}, which waits for it to end")
        return attempt

    def cancel(self, job: Job[Any], reason: str) -> bool:
        """End a waiting job now and a running one as soon as it lets us; False if it has ended."""
        self.hub.check_loop()
        if self._end_waiting(job, Cancelled(reason)):
            return True
        if job._state >= ENDED:
            return False
        self.unwinding.cancel(job._runner(), Cancelled(reason))
        return True

    # ---- accepting jobs

    def in_line(self) -> int:
        """Jobs in line, those of streams apart: what `maxsize` bounds."""
        return len(self.line) - self._dead - len(self.waiting_supplies)

    def is_full(self) -> bool:
        """Whether a job must wait for room, be it only because others do already."""
        room = self.room
        if not room.waiters and len(self.line) + room.promised < room.limit:
            return False  # the line is never shorter than what waits, so this is the quick answer
        return not room.has(1)

    def put(self, job: Job[Any]) -> None:
        """Accept an ordinary job: a worker is told, then, if that went well, it waits in line."""
        self.crew.staff(1)
        self.line.append(job)
        if self.told:
            self.teller.submitted(job)
        if self.ending:
            self.cancel(job, self.ending)

    def put_special(self, job: Job[Any], delay: float, expires: float | None) -> None:
        """Accept a job that has a delay, an end of its time, a priority or a parent."""
        if expires is not None:
            job._uncommon().expires_at = moment = job._created + expires
            self.timetable.expire_at(moment, job)
        if delay > 0:
            self.timetable.schedule(job, delay)
        else:
            self._line_up(job)
        if self.told:
            self.teller.submitted(job)  # only now, for who is told may cancel it
        ending = self.hub.stopping or self.ending
        if ending:
            self.cancel(job, ending)

    def put_many(self, jobs: Iterable[Job[Any]]) -> None:
        """Accept many ordinary jobs, as `put` does one."""
        jobs = tuple(jobs)
        self.crew.staff(len(jobs))
        for job in jobs:
            self.line.append(job)
            if self.told:
                self.teller.submitted(job)
        ending = self.hub.stopping or self.ending  # who was told of the first may have ended all
        if ending:
            self.cancel_waiting(ending)

    def cancel_waiting(self, reason: str) -> None:
        """Cancel what has not started."""
        for job in self.unfinished():
            if job._state < RUNNING:
                self.cancel(job, reason)

    def unfinished(self) -> list[Job[Any]]:
        """The jobs that have not ended."""
        return list(self.census.jobs())

    def list_supply(self, supply: Supply) -> None:
        """Put a stream's supply in line, if it is not there; it stays while it has items."""
        if supply not in self.waiting_supplies:
            self.waiting_supplies[supply] = None
            self._stand_in_line(supply)
        self.crew.staff(max(1, len(supply.items)))

    def forget_supply(self, supply: Supply) -> None:
        """A stream has come to its end."""
        if supply in self.supplies:
            self.supplies.pop(supply, None)
            self.completed += supply.uncounted

    # ---- what its workers ask

    def admit(self, entry: Any) -> Any:
        """What a worker is to do about an entry it took from `next_entry`, which was no queued job,
        or whose place in line somebody waits for: the job or supply it may run now, or None.
        """
        if entry.__class__ is not Job:
            if entry.refill():
                self.line.append(entry)  # a stream and the jobs beside it take turns
                return entry
            self.waiting_supplies.pop(entry, None)
            return None
        queued = entry._state == QUEUED
        if not queued:
            self._dead -= 1
        if self.room.waiters:
            self.room.offer()
        return entry if queued else None

    def take_job(self) -> Job[Any] | None:
        """The next job that may run, made of a stream's item if need be; None if there is none."""
        while True:
            try:
                entry = self.next_entry()
            except IndexError:
                return None
            if entry._state == QUEUED and not self.room.waiters:
                return entry  # type: ignore[no-any-return]
            entry = self.admit(entry)
            if entry is not None and entry.__class__ is not Job:
                entry = entry.next_job()
            if entry is not None:
                return entry  # type: ignore[no-any-return]

    def begin(self, job: Job[Any], attempt: Attempt, moment: float) -> None:
        """A worker begins a job. (Those of the loop do it by themselves, in line.)"""
        attempt.job = job
        attempt.serial += 1
        job._state = RUNNING
        job._started = moment
        if job._rare is not None:
            job._rare.tries += 1
        if self.told:
            self.teller.started(job, attempt)

    def _open(self) -> None:
        """Let workers take from the line, or, while nothing may be started, from an empty one.

        Called after any change of what decides that, so that taking costs workers no question.
        """
        self.shut = self.crew.held or self.crew.spare < 0
        self.next_entry = _NOTHING.popleft if self.shut else self.line.popleft

    def excuse(self, attempt: Attempt) -> bool:
        """Whether this worker is one too many; if so it counts no more and must end."""
        excused = self.crew.excuse(attempt)
        if excused:
            self._open()
        return excused

    # ---- settling

    def tell_completed(self, job: Job[Any], attempt: Attempt) -> None:
        """A worker has settled the ordinary case by itself: its job succeeded."""
        if self.told:
            self.teller.succeeded(job, attempt)
        self._forget(job)
        if self.told:
            self.teller.settled(job, "succeeded")

    def _forget(self, job: Job[Any]) -> None:
        """The job has ended: its id finds it no more."""
        if job._rare is not None and job._rare.id:
            self.hub.index.pop(job._rare.id, None)

    def conclude(self, job: Job[Any], attempt: Attempt, outcome: Outcome, moment: float) -> None:
        """Judge how the attempt ended, tell of it, and settle."""
        if isinstance(outcome, Failed) and self._is_torn_down(outcome):
            outcome = Cancelled("all tasks of the program were cancelled")
        if isinstance(outcome, TimedOut):
            self.timed_out += 1
        decision = self.judge(job, outcome)
        attempt.clear()
        job._finished = moment
        if self.told:
            self.teller.ended(job, attempt, outcome, decision, moment)
        try:
            self.settle(job, decision, moment)
        except BaseException as crash:  # a fault of ours
            attempt.job = job  # so that whoever finds it crashed can name it
            if job._state == RUNNING:
                self.settle(job, Fail(fault_of_ours(crash)), moment)
            raise

    def _is_torn_down(self, outcome: Failed) -> bool:
        """Whether a CancelledError that nobody asked for is no doing of the job's: its task was cancelled
        together with the supervisor's, as when a program ends.
        """
        error = outcome.error
        if not isinstance(error, (JobFailed, WorkerCrashed)):
            return False  # such as the TimeoutError of a timeout, whose cause is one as well
        return isinstance(error.__cause__, asyncio.CancelledError) and self.hub.is_torn_down()

    def judge(self, job: Job[Any], outcome: Outcome) -> Decision:
        """What is to be done about how an attempt ended; nothing is tried again at the end of all."""
        retry, roll = job._order.policies.retry, self.clock.random.random()
        decision = decide(outcome, retry, job.attempt, roll)
        ending = self.hub.stopping or self.ending
        return Cancel(ending) if ending and isinstance(decision, RetryAfter) else decision

    def settle(self, job: Job[Any], decision: Decision, moment: float) -> None:
        """Do what was decided about a job that is not running any more."""
        match decision:
            case Complete(value):
                self._end(job, SUCCEEDED, value, moment)
            case RetryAfter(delay, error):
                self._retry(job, delay, error)
            case Fail(error):
                if job.attempt > 1:
                    _checks.note(error, f"attempt {job.attempt} of {_attempts(job)}")
                self._end(job, FAILED, self.failure_of(job, error, _failed_by(error)), moment)
            case Cancel(reason, expired):
                kind = JobExpired if expired else JobCancelled
                failure = self.failure_of(
                    job,
                    kind(f"job {job.name} was cancelled: {_checks.printable(reason)}", reason),
                    Cancelled(reason, expired),
                )
                failure.unread = False  # whoever cancelled it knows
                self._end(job, CANCELLED, failure, moment)
            case Release():
                job._uncommon().tries -= 1
                job._state = QUEUED
                self.line.appendleft(job)
            case _:
                assert_never(decision)

    def _end(self, job: Job[Any], state: int, value: Any, moment: float) -> None:
        job._value = value
        job._state = state
        job._finished = moment
        job._context = None
        if state == FAILED:
            self.failed += 1
        elif state == CANCELLED:
            self.cancelled += 1
        else:
            self.completed += 1
        self._forget(job)
        if self.told:
            self.teller.settled(job, STATES[state].value)
        if job._waiters is not None:
            job._wake()

    def failure_of(self, job: Job[Any], error: Exception, outcome: Outcome) -> Failure:
        """What a job keeps of the error it ended with."""
        failure = Failure(error, outcome, self.job_id(job), job.name)
        self.hub.failures.add(failure)
        return failure

    def _retry(self, job: Job[Any], delay: float, error: Exception) -> None:
        self.retried += 1
        rare = job._uncommon()
        rare.last_error = _checks.kind_of(error)
        self.timetable.schedule(job, delay)
        if rare.expires_at is not None:  # the entry may have come due while the job was running
            self.timetable.expire_at(rare.expires_at, job)

    # ---- ending what waits

    def _end_waiting(self, job: Job[Any], outcome: Cancelled) -> bool:
        """End a job unless it has begun, perhaps only just now; whether it was still waiting."""
        if job._state == QUEUED and self.kind == "processes":
            self._ask_for(job)
        if job._state >= RUNNING:
            return False
        self._withdraw(job, outcome)
        return True

    def _withdraw(self, job: Job[Any], outcome: Cancelled) -> None:
        if job._state == QUEUED and getattr(job, "_value", None) is GIVEN_UP:
            pass  # it was not in line any more
        elif job._state == QUEUED:
            self._dead += 1
            if self._dead > 64 and self._dead * 2 > len(self.line):
                self._forget_dead(job)
        else:
            self.timetable.withdraw()
        job._uncommon()  # so that it counts no attempt
        self.settle(job, Cancel(outcome.reason, outcome.expired), self.clock.now())
        self.room.offer()

    def _ask_for(self, job: Job[Any]) -> None:
        """Ask the worker that was given this queued job, if any, to let go of it; perhaps it has begun."""
        while isinstance(holder := getattr(job, "_value", None), Attempt):
            if holder.give_up(job):
                job._value = GIVEN_UP
                return
            if job._state != QUEUED or getattr(job, "_value", None) is holder:
                return
            # Meanwhile it was given to another worker, or is in line again.

    # ---- the crew

    def _to_take(self) -> int:
        """For how many workers there is something to do at the least; the dead count as well."""
        waiting = len(self.line)
        for supply in self.waiting_supplies:
            waiting += len(supply.items)
        return waiting

    def lend_slot(self) -> None:
        """A job waits for another one: its slot may serve somebody else meanwhile."""
        self.crew.lend()
        self._open()
        self.crew.staff(min(1, len(self.line)))

    def take_slot_back(self) -> None:
        """The job goes on, so nothing new starts until there are as few running as there should be."""
        self.crew.take_back()
        self._open()

    def resize(self, workers: int) -> None:
        """Change the capacity; what runs goes on to its end."""
        self.crew.resize(workers)
        self._open()
        self.crew.staff(max(self.census.queued, len(self.line)))

    def hold(self, held: bool) -> None:
        """Start no job while held."""
        self.crew.held = held
        self._open()
        self.crew.staff(max(self.census.queued, len(self.line)))

    def dismiss(self, attempt: Attempt) -> None:
        """This worker counts no more; another one may be hired in its place."""
        self.crew.dismiss(attempt)
        self._open()
        self.crew.staff(min(1, len(self.line)))

    def close(self) -> None:
        """Send every idle worker home and stop every timer; nothing is accepted afterwards."""
        self.crew.close()
        self._open()
        self.unwinding.close()
        self.timetable.close()

    # ---- the line

    def _line_up(self, job: Job[Any]) -> None:
        self.crew.staff(1)
        job._state = QUEUED
        self._stand_in_line(job)

    def _stand_in_line(self, entry: Any) -> None:
        if type(self.line) is deque and place(entry)[0]:  # the first that is not like the others
            self.line = RankedLine(self.line, place, self.clock.now, self.ageing)
            self._open()
        self.line.append(entry)

    def _forget_dead(self, last: Job[Any]) -> None:
        """Take the cancelled jobs out of the line, so that they do not pile up behind a slow head;
        and the last one, which is about to be cancelled.
        """
        alive = [
            entry
            for entry in self.line
            if entry.__class__ is not Job or (entry._state == QUEUED and entry is not last)
        ]
        ranked = not isinstance(self.line, deque)
        self.line = (
            RankedLine(alive, place, self.clock.now, self.ageing) if ranked else deque(alive)
        )
        self._dead = 0
        self._open()

    def report(self, job: Job[Any], progress: Progress) -> None:
        """A running job says how far it is, perhaps from a thread."""
        job._uncommon().progress = progress
        if not self.hub.listeners:
            return
        if self.hub.is_here():
            done = progress.done, progress.total, progress.message
            self.teller.of_job(events.JobProgressed, job, *done)
        else:
            self.hub.loop.call_soon_threadsafe(self.report, job, progress)


_NOTHING: deque[Any] = deque()

GIVEN_UP = object()
"""The value of a queued job that is neither in line nor in anybody's hands."""


def _failed_by(error: Exception) -> Outcome:
    """The outcome of a job that has failed. If its code raised a JobTimedOut, that was of another job."""
    if type(error) is JobTimedOut and error.__traceback__ is None:  # it was made, and never raised
        return TimedOut(error.timeout)
    return Failed(error)


def _attempts(job: Job[Any]) -> int:
    return 1 if job._order.policies.retry is None else job._order.policies.retry.attempts
