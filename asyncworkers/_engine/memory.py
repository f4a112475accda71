"""The in-memory queue: an asyncio queue that also keeps due times, priorities and limits, and settles."""

from __future__ import annotations

import asyncio
import itertools
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextvars import Context
from datetime import datetime
from functools import partial
from typing import Any, Literal, Protocol, assert_never

from asyncworkers import _checks, events
from asyncworkers._engine.agenda import Agenda
from asyncworkers._engine.attempt import Attempt, failure
from asyncworkers._engine.children import ChildStats
from asyncworkers._engine.crew import Crew
from asyncworkers._engine.explain import explain_job, explain_queue
from asyncworkers._engine.hub import Hub
from asyncworkers._engine.line import Line, RankedLine, rank
from asyncworkers._engine.room import Room
from asyncworkers._log import log
from asyncworkers.errors import JobCancelled, JobExpired, JobFailed, WouldDeadlock
from asyncworkers.job import (
    CANCELLED,
    ENDED,
    FAILED,
    QUEUED,
    RUNNING,
    SCHEDULED,
    STATES,
    SUCCEEDED,
    Failure,
    Job,
    Progress,
    outcome_of,
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

__all__ = ["MemoryQueue", "Supply"]


class Supply(Protocol):
    """What stands in line for a stream: it makes jobs of the stream's items when workers ask."""

    @property
    def items(self) -> deque[Any]: ...
    @property
    def uncounted(self) -> int: ...
    @property
    def crossing(self) -> int: ...
    def refill(self) -> bool: ...
    def place(self) -> tuple[int, float]: ...


class MemoryQueue:
    """A line of jobs and the crew of workers that serve it.

    Synchronous code owns this state: no method awaits between reading it and writing it.

    What waits for room is in `room`, what workers there are in `crew`.
    """

    stored = False
    """Whether what is submitted to it lives in a store, and only comes here to be run."""

    __slots__ = (
        "_dead",
        "_due",
        "_expiries",
        "_supplies",
        "_unwinds",
        "abandoned",
        "ageing",
        "cancelled",
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
        "scheduled",
        "shut",
        "supplies",
        "timed_out",
        "timeouts",
        "told",
        "unwind",
        "unwinding",
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
        self.unwind = unwind
        self.unwinding: dict[Attempt, tuple[Job[Any], int]] = {}  # see `let_end`
        self.ageing = ageing
        self.may_chunk = True  # whether items of a stream may make up one job of a process
        self.told = False  # whether anybody wants to hear of each job
        self.paused = False
        self.ending: str | None = None  # why nothing may wait here any more
        self.completed = self.failed = self.cancelled = 0
        self.retried = self.timed_out = self.abandoned = 0
        self.logs_dropped = 0
        self.line: Line = deque[Any]()
        self.next_entry: Callable[[], Any] = self.line.popleft  # raises IndexError if there is none
        self._supplies: dict[Supply, None] = {}  # in line
        self.supplies: dict[Any, None] = {}  # whose stream is being read
        self.scheduled = 0  # jobs that wait for their time
        self._dead = 0  # entries of the line whose job is not queued any more
        self.shut = False
        self.room = Room(hub, name, maxsize, self.in_line)
        self.crew = Crew(hub.loop, workers, lambda number: hire(self, number), self._to_take)
        loop, now = hub.loop, hub.clock.now
        self.timeouts: Agenda[Attempt] = Agenda(loop, now, self._time_out, _is_running)
        self._unwinds: Agenda[Attempt] = Agenda(loop, now, self._abandon, self._may_be_abandoned)
        self._due: Agenda[Job[Any]] = Agenda(loop, now, self._come_due, _is_scheduled)
        self._expiries: Agenda[Job[Any]] = Agenda(loop, now, self._expire, _is_unfinished)

    # ---- what its jobs ask

    def job_id(self, job: Job[Any]) -> str:
        """The job's id, given when first asked for: a number after a prefix no other supervisor has."""
        rare = job._rare or job._uncommon()
        if not rare.id:
            rare.id = f"{self.hub.prefix}-{next(self.hub.numbers)}"
            if job._state < ENDED:
                self.hub.index[rare.id] = job
        return rare.id

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

    def lender(self, job: Job[Any]) -> Attempt | None:
        """The attempt that is about to await the job, if a job of this supervisor is.

        Raises WouldDeadlock if the job already waits, through others perhaps, for that attempt's.
        """
        attempt = self.hub.attempt_here()
        if attempt is not None and attempt.job is not None and _waits_for(job, attempt.job):
            raise WouldDeadlock(f"{attempt.job!r} awaits {job!r}, which waits for it to end")
        return attempt

    def cancel(self, job: Job[Any], reason: str) -> bool:
        """End a waiting job now and a running one as soon as it lets us; False if it has ended."""
        self.hub.check_loop()
        if self._end_waiting(job, Cancelled(reason)):
            return True
        if job._state >= ENDED:
            return False
        self.cancel_attempt(job._runner(), Cancelled(reason))
        return True

    # ---- accepting jobs

    def in_line(self) -> int:
        """Jobs in line, those of streams apart: what `maxsize` bounds."""
        return len(self.line) - self._dead - len(self._supplies)

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
            self.tell_submitted(job)
        if self.ending:
            self.cancel(job, self.ending)

    def put_special(self, job: Job[Any], delay: float, expires: float | None) -> None:
        """Accept a job that has a delay, an end of its time, a priority or a parent."""
        if self.told:
            self.tell_submitted(job)
        if expires is not None:
            job._uncommon().expires_at = moment = job._created + expires
            self._expiries.add(moment, job)
        if delay > 0:
            self._schedule(job, delay)
        else:
            self._line_up(job)
        if self.ending:
            self.cancel(job, self.ending)

    def put_many(self, jobs: Iterable[Job[Any]]) -> None:
        """Accept many ordinary jobs, as `put` does one."""
        jobs = tuple(jobs)
        self.crew.staff(len(jobs))
        for job in jobs:
            self.line.append(job)
            if self.told:
                self.tell_submitted(job)
        if self.ending:
            self.cancel_waiting(self.ending)

    def cancel_waiting(self, reason: str) -> None:
        """Cancel what has not started."""
        for job in self.unfinished():
            if job._state < RUNNING:
                self.cancel(job, reason)

    def list_supply(self, supply: Supply) -> None:
        """Put a stream's supply in line, if it is not there; it stays while it has items."""
        if supply not in self._supplies:
            self._supplies[supply] = None
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
            self._supplies.pop(entry, None)
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
            self.tell_started(job, attempt)

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
            self.tell_end(job, attempt, job._finished, "Succeeded", "Complete", None, None)
        self._forget(job)
        if self.told:
            self._emit(events.JobSettled, job, job.attempt, "succeeded")
            self.hub.job_ended()

    def _forget(self, job: Job[Any]) -> None:
        """The job has ended: its id finds it no more."""
        if job._rare is not None and job._rare.id:
            self.hub.index.pop(job._rare.id, None)

    def conclude(self, job: Job[Any], attempt: Attempt, outcome: Outcome, moment: float) -> None:
        """Judge how the attempt ended, tell of it, and settle."""
        if outcome.__class__ is Failed and self._is_torn_down(outcome):
            outcome = Cancelled("all tasks of the program were cancelled")
        if isinstance(outcome, TimedOut):
            self.timed_out += 1
        decision = self.judge(job, outcome)
        attempt.clear()
        job._finished = moment
        if self.told:
            self.tell_ended(job, attempt, outcome, decision, moment)
        try:
            self.settle(job, decision, moment)
        except BaseException as crash:  # a fault of ours
            attempt.job = job  # so that `worker_ended` can name it
            if job._state == RUNNING:
                self.settle(job, Fail(_crashed(crash)), moment)
            raise

    def _is_torn_down(self, outcome: Failed) -> bool:
        """Whether a CancelledError that nobody asked for is no doing of the job's: its task was cancelled
        together with the supervisor's, as when a program ends.
        """
        cause = outcome.error.__cause__
        return isinstance(cause, asyncio.CancelledError) and self.hub.is_torn_down()

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
                self._end(job, FAILED, self.failure_of(job, error), moment)
            case Cancel(reason, expired):
                kind = JobExpired if expired else JobCancelled
                failure = self.failure_of(
                    job,
                    kind(f"job {job.name} was cancelled: {_checks.printable(reason)}", reason),
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
            self._emit(events.JobSettled, job, job.attempt, STATES[state].value)
            self.hub.job_ended()
        if job._waiters is not None:
            job._wake()

    def failure_of(self, job: Job[Any], error: Exception) -> Failure:
        """What a job keeps of the error it ended with."""
        failure = Failure(error, outcome_of(error), self.job_id(job), job.name)
        self.hub.failures.add(failure)
        return failure

    def _retry(self, job: Job[Any], delay: float, error: Exception) -> None:
        self.retried += 1
        rare = job._uncommon()
        rare.last_error = _checks.kind_of(error)
        self._schedule(job, delay)
        if rare.expires_at is not None:  # the entry may have come due while the job was running
            self._expiries.add(rare.expires_at, job)

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
            self.scheduled -= 1
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

    # ---- ending attempts early

    def cancel_attempt(self, attempt: Attempt, verdict: Cancelled | TimedOut) -> None:
        """Cancel a running attempt; if its code has not ended after `unwind` seconds, abandon it."""
        if attempt.cancel(verdict):
            self._unwinds.add(self.clock.now() + self.unwind, attempt, attempt.serial)

    def _time_out(self, attempt: Attempt, _serial: float) -> None:
        if attempt.job is not None and attempt.job._order.timeout is not None:
            self.cancel_attempt(attempt, TimedOut(attempt.job._order.timeout))

    def _abandon(self, attempt: Attempt, _serial: float = 0) -> None:
        """Settle the job although its code runs on; that worker is retired and replaced."""
        if attempt in self.unwinding:
            self._abandon_call(attempt)
            return
        job, verdict = attempt.job, attempt.verdict
        if job is None or verdict is None or attempt.task is None or attempt.kill():
            return
        self.retire(attempt, job, job.attempt, "it did not end when cancelled")
        self.conclude(job, attempt, verdict, self.clock.now())
        attempt.verdict = verdict  # so that nothing its code does later counts
        attempt.task.cancel("abandoned")  # once more: the first may have been swallowed by accident

    def retire(self, attempt: Attempt, job: Job[Any], number: int, what: str) -> None:
        """This worker cannot get away from its job's code: another one takes its place."""
        attempt.retired = True
        self.crew.zombies[attempt] = None
        self._count_abandoned(job, number, what)
        self._dismiss(attempt)

    def let_end(self, attempt: Attempt, job: Job[Any]) -> None:
        """A job is over whose function cannot be stopped: it may notice, and end, within `unwind`
        seconds. Only after that it counts as abandoned. Its slot stays taken until it has ended.
        """
        self.unwinding[attempt] = job, job.attempt
        self._unwinds.add(self.clock.now() + self.unwind, attempt, attempt.serial)

    def _may_be_abandoned(self, attempt: Attempt, serial: float) -> bool:
        return _is_running(attempt, serial) or attempt in self.unwinding

    def _abandon_call(self, attempt: Attempt) -> None:
        job, number = self.unwinding.pop(attempt)
        if attempt.left is not None:
            left = "it did not end when cancelled, and keeps its thread until it does"
            self._count_abandoned(job, number, left)
            if self.hub.stopping is None:
                self._tell_if_exhausted()
        self.hub.check_quiet()

    def _count_abandoned(self, job: Job[Any], number: int, what: str) -> None:
        """An attempt was left behind: say so."""
        self.abandoned += 1
        for finishing in self.hub.finishing:
            finishing[job] = None
        log.warning("abandoned attempt %d of %r: %s", number, job, what)
        if self.told:
            self._emit(events.AttemptAbandoned, job, number)

    def abandon_all(self) -> None:
        """Abandon every attempt that still runs."""
        for attempt in tuple(self.crew.members):
            self._abandon(attempt)

    def _tell_if_exhausted(self) -> None:
        """An abandoned call holds a thread; say so if it was the last one."""
        held = self.held_threads
        if len(held) >= self.crew.workers:
            log.warning(
                "queue %r has no thread left: abandoned attempts of %s hold them",
                self.name,
                ", ".join(held),
            )
            self.emit(events.QueueExhausted, self.name, tuple(held))

    @property
    def held_threads(self) -> list[str]:
        """The names of abandoned calls that still hold a thread of this queue."""
        return [name for attempt, name in self._calls_left() if attempt not in self.unwinding]

    @property
    def ending_threads(self) -> list[str]:
        """The names of calls that were told to stop, and may still end in time."""
        return [name for attempt, name in self._calls_left() if attempt in self.unwinding]

    def _calls_left(self) -> Iterator[tuple[Attempt, str]]:
        for attempt in self.crew.members:
            if attempt.left is not None:
                yield attempt, attempt.left

    # ---- the crew

    @property
    def queued(self) -> int:
        """Jobs that wait in line, those of streams included."""
        ahead = sum(len(attempt.ahead) for attempt in self.crew.members)
        crossing: int = sum(supply.crossing for supply in self.supplies)
        items = sum(len(supply.items) for supply in self._supplies)
        return self.in_line() + items + crossing + ahead

    @property
    def oldest(self) -> float | None:
        """Seconds that the job has waited which waits longest for a worker; None if none does.

        Found where the line begins, that of each rank if there are several, so it costs little.
        """
        lines = self.line.lines() if isinstance(self.line, RankedLine) else (self.line,)
        heads = (next(filter(_waits, line), None) for line in lines)
        since = [_place(head)[1] for head in heads if head is not None]
        return self.now() - min(since) if since else None

    def _to_take(self) -> int:
        """For how many workers there is something to do at the least; the dead count as well."""
        waiting = len(self.line)
        for supply in self._supplies:
            waiting += len(supply.items)
        return waiting

    @property
    def running(self) -> int:
        """Attempts under way."""
        for attempt in self.crew.members:
            attempt.refresh()
        at_work = [
            one for one in self.crew.members if one.job is not None or one.supply is not None
        ]
        return len(at_work)

    @property
    def children(self) -> Iterator[ChildStats]:
        """The child processes of its workers."""
        found = (attempt.child for attempt in self.crew.members)
        return (child for child in found if child is not None)

    @property
    def succeeded(self) -> int:
        """Jobs that returned a value, and items of streams that did."""
        uncounted: int = sum(supply.uncounted for supply in self.supplies)
        return self.completed + uncounted

    @property
    def submitted(self) -> int:
        """Jobs accepted so far."""
        ended = self.succeeded + self.failed + self.cancelled
        return ended + self.running + self.queued + self.scheduled

    def explain(self) -> str:
        """One line: what the queue does, and what keeps its jobs waiting."""
        return explain_queue(self)

    def examples(self, most: int) -> list[Job[Any]]:
        """A few unfinished jobs of this queue, the oldest first."""
        return list(itertools.islice(self.jobs(), most))

    def jobs(self) -> Iterator[Job[Any]]:
        """The jobs that have not ended: those that run, those in line, those that wait for their time."""
        for attempt in tuple(self.crew.members):
            attempt.refresh()
            job = attempt.running_job()
            if job is not None:
                yield job
            yield from attempt.ahead
        yield from self.waiting_jobs()
        yield from self._due.live_items()

    def unfinished(self) -> list[Job[Any]]:
        """The same, as a list."""
        return list(self.jobs())

    def waiting_jobs(self) -> Iterator[Job[Any]]:
        """The jobs in line, in the order in which they are to run."""
        return filter(_waits, self.line)

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
        self.crew.staff(max(self.queued, len(self.line)))

    def hold(self, held: bool) -> None:
        """Start no job while held."""
        self.crew.held = held
        self._open()
        self.crew.staff(max(self.queued, len(self.line)))

    def _dismiss(self, attempt: Attempt) -> None:
        """This worker counts no more; another one may be hired in its place."""
        self.crew.dismiss(attempt)
        self._open()
        self.crew.staff(min(1, len(self.line)))

    def employ(self, attempt: Attempt, work: Coroutine[Any, Any, None]) -> None:
        """Have a worker begin at the loop's next turn, in an empty context."""
        task = self.hub.loop.create_task(work, context=Context())
        attempt.task = attempt.worker = task
        task.add_done_callback(partial(self.worker_ended, attempt), context=_EMPTY)

    def worker_ended(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        """A worker's task is over: for a reason of its own, by a crash, or cancelled by a stranger."""
        self.crew.zombies.pop(attempt, None)
        job = attempt.job
        crash = None if task.cancelled() else task.exception()
        was_on_duty = attempt in self.crew.members
        try:
            if job is not None and not attempt.retired:
                self._settle_for(attempt, job, crash)
        finally:
            self._dismiss(attempt)
        if self.unwinding.pop(attempt, None) is not None:
            self.hub.check_quiet()
        if was_on_duty and (crash is not None or task.cancelled()) and self.hub.stopping is None:
            self._tell_replaced(attempt, job, crash)
            if crash is not None:
                self.hub.crashed(self.name, crash)
        if crash is not None or task.cancelled():
            self.hub.recount()  # it may have ended before it told that a job had

    def _settle_for(self, attempt: Attempt, job: Job[Any], crash: BaseException | None) -> None:
        """Give a job its end whose worker has ended with it in hand."""
        if job._state >= ENDED:
            if job._waiters is not None:
                job._wake()
        elif job._state == RUNNING:
            error = failure(asyncio.CancelledError()).error if crash is None else _crashed(crash)
            self.conclude(job, attempt, Failed(error), self.clock.now())

    def close(self) -> None:
        """Send every idle worker home and stop every timer; nothing is accepted afterwards."""
        self.crew.close()
        self._open()
        for agenda in (self.timeouts, self._unwinds, self._due, self._expiries):
            agenda.close()

    # ---- the line

    def _line_up(self, job: Job[Any]) -> None:
        self.crew.staff(1)
        job._state = QUEUED
        self._stand_in_line(job)

    def _stand_in_line(self, entry: Any) -> None:
        if type(self.line) is deque and _place(entry)[0]:  # the first that is not like the others
            self.line = RankedLine(self.line, _place, self.clock.now, self.ageing)
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
            RankedLine(alive, _place, self.clock.now, self.ageing) if ranked else deque(alive)
        )
        self._dead = 0
        self._open()

    def _schedule(self, job: Job[Any], delay: float) -> None:
        due = self.clock.now() + delay
        job._uncommon().due = due
        job._state = SCHEDULED
        self.scheduled += 1
        self._due.add(due, job, due)

    def _come_due(self, job: Job[Any], _due: float) -> None:
        self.scheduled -= 1
        self._line_up(job)

    def _expire(self, job: Job[Any], _stamp: float) -> None:
        self._end_waiting(job, Cancelled("it expired before it could start", expired=True))

    def report(self, job: Job[Any], progress: Progress) -> None:
        """A running job says how far it is, perhaps from a thread."""
        job._uncommon().progress = progress
        if not self.hub.listeners:
            return
        if self.hub.is_here():
            self._emit(events.JobProgressed, job, progress.done, progress.total, progress.message)
        else:
            self.hub.loop.call_soon_threadsafe(self.report, job, progress)

    # ---- telling

    def emit(self, event: Callable[..., events.Event], *details: Any) -> None:
        """Tell of something that concerns this queue as a whole."""
        if self.hub.listeners:
            self.hub.listeners.emit(event(self.clock.now(), *details))

    def _emit(self, event: Callable[..., events.Event], job: Job[Any], *details: Any) -> None:
        self._emit_at(self.now(), event, job, *details)

    def _emit_at(
        self, moment: float, event: Callable[..., events.Event], job: Job[Any], *details: Any
    ) -> None:
        """Tell of something that happened at this moment, and perhaps is known only now."""
        listeners, order = self.hub.listeners, job._order
        if listeners:
            job_id, tags = self.job_id(job), order.policies.tags
            listeners.emit(event(moment, job_id, order.name, self.name, tags, *details))

    def tell_submitted(self, job: Job[Any]) -> None:
        """A job was accepted."""
        self.hub.job_came()
        if self.hub.escort is not None:
            self.hub.escort.submitted(job)
        self._emit(events.JobSubmitted, job)

    def tell_started(self, job: Job[Any], attempt: Attempt) -> None:
        """An attempt has begun."""
        if self.hub.escort is not None:
            self.hub.escort.begun(job)
        rare = job._rare
        since = job._created if rare is None else max(job._created, rare.due)
        waited = max(0.0, job._started - since)
        self._emit_at(job._started, events.AttemptStarted, job, job.attempt, attempt.number, waited)

    def tell_ended(
        self, job: Job[Any], attempt: Attempt, outcome: Outcome, decision: Decision, moment: float
    ) -> None:
        """An attempt has ended at this moment, and this is what is done about it."""
        kind = error = None
        if isinstance(outcome, Failed):
            kind, error = _checks.kind_of(outcome.error), _checks.summary(outcome.error)
        ended = type(outcome).__name__, type(decision).__name__, kind, error
        self.tell_end(job, attempt, moment, *ended)
        if isinstance(outcome, Failed) and self.hub.witnesses:
            self.hub.show_error(job, outcome.error)

    def tell_end(
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
        if self.hub.escort is not None:
            self.hub.escort.ended(job, outcome, decision, kind, error)
        details = job.attempt, attempt.number, moment - job._started
        ended = outcome, decision, kind, error
        self._emit_at(moment, events.AttemptEnded, job, *details, *ended)

    def tell_gone(self, attempt: Attempt, what: str, cause: str) -> None:
        """A worker's child or bridge has died."""
        log.warning("%s %d of queue %r is gone: %s", what, attempt.number, self.name, cause)
        self.emit(events.WorkerReplaced, self.name, attempt.number, cause, None)

    def _tell_replaced(
        self, attempt: Attempt, job: Job[Any] | None, crash: BaseException | None
    ) -> None:
        cause = "cancelled from outside"
        if crash is not None:
            cause = f"crashed: {_checks.kind_of(crash)}"
        culprit = None if job is None else self.job_id(job)
        log.failure(f"worker {attempt.number} of queue {self.name!r} {cause}", crash)
        self.emit(events.WorkerReplaced, self.name, attempt.number, cause, culprit)


_EMPTY = Context()

_NOTHING: deque[Any] = deque()

GIVEN_UP = object()
"""The value of a queued job that is neither in line nor in anybody's hands."""


def _place(entry: Any) -> tuple[int, float]:
    """Where an entry belongs in a ranked line, and since when it waits."""
    if entry.__class__ is Job:
        due = 0.0 if entry._rare is None else entry._rare.due
        return rank(entry._order.policies.priority, entry._depth()), max(entry._created, due)
    rank_and_since: tuple[int, float] = entry.place()
    return rank_and_since


def _waits(entry: Any) -> bool:
    """Whether this entry of a line is a job that is to run."""
    return entry.__class__ is Job and entry._state == QUEUED


def _waits_for(job: Job[Any], goal: Job[Any]) -> bool:
    """Whether the job is the goal, or awaits it through any number of others."""
    seen: set[int] = set()
    open_jobs = [job]
    while open_jobs:
        one = open_jobs.pop()
        if one is goal:
            return True
        attempt = one._runner()
        if id(one) not in seen and attempt is not None:
            seen.add(id(one))
            open_jobs.extend(attempt.waits_for)
    return False


def _crashed(crash: BaseException) -> JobFailed:
    error = JobFailed(f"a fault of asyncworkers: its worker raised {_checks.kind_of(crash)}")
    error.__cause__ = crash
    return error


def _attempts(job: Job[Any]) -> int:
    return 1 if job._order.policies.retry is None else job._order.policies.retry.attempts


def _is_running(attempt: Attempt, serial: float) -> bool:
    return attempt.serial == serial and attempt.job is not None


def _is_scheduled(job: Job[Any], due: float) -> bool:
    return job._state == SCHEDULED and job._rare is not None and job._rare.due == due


def _is_unfinished(job: Job[Any], _stamp: float) -> bool:
    return job._state < ENDED
