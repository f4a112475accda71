"""The stored queue: an in-memory queue that is the small local buffer of what a store holds."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from asyncworkers import _checks, events
from asyncworkers._engine.attempt import Attempt
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.stored.forms import Listed
from asyncworkers._engine.stored.link import Link
from asyncworkers._log import log
from asyncworkers.errors import ArgumentsMismatch, JobCancelled, JobExpired, JobLost
from asyncworkers.escort import unpacked
from asyncworkers.job import (
    CANCELLED,
    ENDED,
    FAILED,
    QUEUED,
    RUNNING,
    STATES,
    SUCCEEDED,
    Job,
    Order,
    Progress,
    Rare,
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
    Succeeded,
)
from asyncworkers.policies import decide
from asyncworkers.store.codec import encode_error
from asyncworkers.store.protocol import CODEC, Lease, Settlement, Submission, Transaction

__all__ = ["Held", "StoredQueue", "held_of"]

LOOK_AHEAD = 0.05
"""Seconds of work that is leased ahead of what free workers take, by what was done lately."""

MOST_AHEAD = 4_000
"""Jobs leased ahead at the most."""

LEAST_STRETCH = 0.01
"""Seconds over which the rate of work is measured at the least."""

TURN = 0.001
"""Seconds of `Crew.turn` where the store works in a thread, which waits for the loop's turn to end."""

STALE = 1.0
"""Seconds after which what was leased ahead and has not begun goes back: others may be idle."""


class Held(Rare):
    """What a leased job is beside an ordinary one.

    - `view`: the user's Job for it, as long as anybody holds that.
    - `asked`: why somebody wants it cancelled. `lost`: it belongs to somebody else now.
    - `begun`: the store was told that it begins. `text`: its result as it is stored. `again`: it has
      failed, and its policy has it tried again.
    - `transaction`: what its settle commits, if it has one. `follow`: what is submitted with that, and
      `followers`: the users' Jobs for these.
    """

    __slots__ = (
        *("again", "asked", "begun", "fed", "follow", "followers", "lease", "listed", "lost"),
        *("text", "transaction", "view"),
    )

    def __init__(
        self, lease: Lease, listed: Listed, fed: float, view: weakref.ref[Job[Any]] | None
    ) -> None:
        super().__init__(lease.attempt - 1)
        self.id = lease.id
        self.lease = lease
        self.listed = listed
        self.fed = fed
        self.again = self.begun = self.lost = False
        self.asked: str | None = None
        self.text = ""
        self.view = view
        self.transaction: Transaction | None = None
        if lease.extra:
            self.headers = unpacked(lease.extra)
        self.follow: tuple[Submission, ...] = ()
        self.followers: tuple[Job[Any], ...] = ()


class Desk(Protocol):
    """What a stored queue needs of its supervisor's depot."""

    link: Link
    functions: dict[str, Listed]
    here: Mapping[str, weakref.ref[Job[Any]]]
    """The views that users hold, by id."""

    def trusts(self) -> bool: ...
    def listed_for(self, known: Listed, queue: str, ident: str, codec: str) -> Listed: ...
    def write(self, settlement: Settlement, job: Job[Any], queue: Any) -> None: ...
    def say(self, lease: Lease, progress: Progress) -> None: ...
    def ended(
        self, job: Job[Any], held: Held, settlement: Settlement, state: int | None
    ) -> None: ...


class StoredQueue(MemoryQueue):
    """Runs what was leased. A job that was leased has a `Held`; others here are those of streams.

    The worker knows nothing of leases. It takes jobs from `next_entry`, which begins them, and what
    it does about their end comes to `settle` or, in the ordinary case, to `tell_completed`.
    """

    stored = True

    __slots__ = ("_desk", "_done", "_measured", "_rate")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._desk: Desk | None = None
        self._rate = 0.0  # jobs a second, lately
        self._done = 0
        self._measured = self.now()
        self._open()

    def belong_to(self, desk: Desk) -> None:
        """The depot is there."""
        self._desk = desk
        breathe: Callable[[], None] | None = getattr(desk.link.store, "breathe", None)
        if breathe is not None:
            self.crew.turn, self.crew.breathe = TURN, breathe

    @property
    def desk(self) -> Desk:
        """The depot."""
        assert self._desk is not None
        return self._desk

    def is_full(self) -> bool:
        """It is, for whoever would put a job in it: they are put in the store."""
        return True

    # ---- what the feeder asks

    def capacity(self, coming: int = 0) -> tuple[int, int]:
        """How many jobs free workers could take now, and how many more to have at hand, beyond those
        that are about to be fed.
        """
        crew = self.crew
        if crew.held or self.ending is not None:
            return 0, 0
        takers = crew.spare + len(crew.idle) + crew.calls
        free = takers - self._to_take() - coming
        ahead = min(int(self._measure() * LOOK_AHEAD + 0.5), MOST_AHEAD)
        # By halves, so that the store finds the next while these are run; but not one by one.
        half = (ahead + 1) // 2
        if free >= 0:
            return free, half
        left = min(ahead + free, half)
        return 0, left if left > ahead // 8 else 0

    def _measure(self) -> float:
        now = self.now()
        stretch = now - self._measured
        if stretch > LEAST_STRETCH:
            self._rate = (self._rate + self._done / stretch) / 2
            self._done, self._measured = 0, now
        return self._rate

    def feed(self, leases: list[Lease]) -> None:
        """Put leased jobs of listed functions in line."""
        assert self._desk is not None
        desk, line = self._desk, self.line
        functions, here, runs = desk.functions, desk.here, desk.link.runs
        now, wall = self.now(), self.clock.wall()
        offset, fed = now - wall, 0
        for lease in leases:
            listed = functions[lease.name]
            held = Held(lease, listed, now, here.get(lease.id))
            order = listed.runs.get(self.name)
            if order is None:
                order = listed.runs[self.name] = self._order(listed)
            error: Exception | None = None
            args: tuple[Any, ...] = ()
            kwargs: dict[str, Any] | None = None
            try:
                if lease.codec != CODEC:
                    held.listed = listed = desk.listed_for(
                        listed, lease.queue, lease.id, lease.codec
                    )
                args, named = listed.codec.decode_arguments(lease.args)
                kwargs = named or None
            except Exception as trouble:
                error = trouble
            job: Job[Any] = Job(order, args, kwargs, None, lease.submitted + offset)
            job._rare = held
            held.due = lease.due + offset
            runs[held.id] = job
            if self.told:
                self.hub.job_came()
            if error is not None:
                self._refuse(job, held, error)
                continue
            fed += 1
            line.append(job)
            if lease.expires is not None:
                self.timetable.expire_at(now + max(0.0, lease.expires - wall), job)
        if fed:
            self.crew.staff(fed)

    def _order(self, listed: Listed) -> Order:
        order = Order(self, listed.policies, listed.function)
        if self.kind == "processes" and not self.clock.simulated:
            from asyncworkers.bridge.parcel import cargo_of

            order.pack = cargo_of(listed.function).pack
        return order

    def _refuse(self, job: Job[Any], held: Held, error: Exception) -> None:
        """What is stored cannot be called: the job fails without having run."""
        if not isinstance(error, ArgumentsMismatch):
            mismatch = ArgumentsMismatch(f"the stored arguments of {job.name!r} cannot be read")
            mismatch.__cause__ = error
            error = mismatch
        held.tries += 1
        job._state = RUNNING
        job._started = self.now()
        self.settle(job, Fail(error), self.now())

    def _open(self) -> None:
        """As for any queue; but what is taken from the line here begins, and the store is told."""
        super()._open()
        if not self.shut:
            self.next_entry = self._take

    def _take(self) -> Any:
        """The next entry of the line; a leased job's attempt is charged from here on."""
        desk = self._desk
        try:
            entry = self.line.popleft()
        except IndexError:
            if desk is not None:
                desk.link.stir()  # a worker has nothing to do
            raise
        held: Any = entry._rare if entry._state == QUEUED else None
        if held.__class__ is Held and desk is not None:
            if not held.begun:
                try:
                    if not desk.trusts():
                        raise IndexError  # the keeper will see to what is here
                    desk.link.store.started(held.lease)
                except Exception as error:
                    self.line.appendleft(entry)
                    if not isinstance(error, IndexError):
                        desk.link.missed("maintain", error)
                    raise IndexError from error
                held.begun = True
            view = None if held.view is None else held.view()
            if view is not None and view._state < ENDED:
                view._state = RUNNING
                view._started = self.now()
                view._uncommon().tries = held.lease.attempt
        return entry

    def lend_slot(self) -> None:
        """A job waits for another one: its slot may serve somebody else meanwhile."""
        super().lend_slot()
        self._stir()

    def resize(self, workers: int) -> None:
        """Change the capacity; what runs goes on to its end."""
        super().resize(workers)
        self._stir()

    def hold(self, held: bool) -> None:
        """Start no job while held; what has not begun goes back."""
        super().hold(held)
        if held:
            self.give_back("the queue was paused here")
        self._stir()

    def dismiss(self, attempt: Attempt) -> None:
        super().dismiss(attempt)
        self._stir()

    def _stir(self) -> None:
        if self._desk is not None:
            self._desk.link.stir()

    def give_back(self, reason: str, *, older_than: float | None = None) -> None:
        """Leased jobs that have not begun go back to the store."""
        ahead = [job for attempt in self.crew.members for job in attempt.ahead]
        for job in (*ahead, *self.census.in_line()):
            held = job._rare
            if isinstance(held, Held) and (
                older_than is None or (not held.begun and held.fed < older_than)
            ):
                self._end_waiting(job, Cancelled(reason))  # what has begun meanwhile runs on

    def give_back_stale(self) -> None:
        """What was leased ahead and does not get its turn goes back, for others may be idle."""
        self.give_back("another process may be free for it", older_than=self.now() - STALE)

    # ---- steering

    def cancel_run(self, job: Job[Any], reason: str) -> bool:
        """Somebody wants this leased job cancelled, not only stopped here."""
        held = job._rare
        if isinstance(held, Held) and held.asked is None:
            held.asked = reason
        return self.cancel(job, reason)

    def lose(self, job: Job[Any], reason: str) -> None:
        """This leased job may belong to somebody else: stop it. What it settles is refused, if so."""
        held = job._rare
        if isinstance(held, Held) and not held.lost:
            held.lost = True
            self.cancel(job, reason)

    # ---- settling

    def judge(self, job: Job[Any], outcome: Outcome) -> Decision:
        """What is to be done; a stored job is tried again elsewhere, if not here."""
        held = job._rare
        if not isinstance(held, Held):
            return super().judge(job, outcome)
        retry, failures = job._order.policies.retry, held.lease.failures
        decision = decide(outcome, retry, failures + 1, self.clock.random.random())
        if held.asked is not None and isinstance(decision, RetryAfter):
            return Cancel(held.asked)  # it timed out, say, before it was told
        return decision

    def conclude(self, job: Job[Any], attempt: Attempt, outcome: Outcome, moment: float) -> None:
        """Judge how the attempt ended, tell of it, and settle."""
        held = job._rare
        if isinstance(held, Held) and isinstance(outcome, Succeeded):
            try:
                held.text = held.listed.codec.encode_result(outcome.value)
            except Exception as error:
                outcome = Failed(error)
        super().conclude(job, attempt, outcome, moment)

    def tell_completed(self, job: Job[Any], attempt: Attempt) -> None:
        """A worker has settled the ordinary case by itself: its job returned a value."""
        held = job._rare
        if not isinstance(held, Held):
            super().tell_completed(job, attempt)
            return
        self.completed -= 1
        try:
            held.text = held.listed.codec.encode_result(job._value)
        except Exception as error:
            job._state, job._value, attempt.job = RUNNING, attempt, job
            self.conclude(job, attempt, Failed(error), job._finished)
            return
        if self.told:
            self.teller.succeeded(job, attempt)
        self._let_run_go(job, SUCCEEDED, self._completed(held))

    def settle(self, job: Job[Any], decision: Decision, moment: float) -> None:
        """Have what was decided written to the store, and let go of the job here."""
        held = job._rare
        if not isinstance(held, Held) or isinstance(decision, Release):
            super().settle(job, decision, moment)
            return
        job._finished = moment
        self._let_run_go(job, *self._settlement(job, held, decision))

    def _settlement(
        self, job: Job[Any], held: Held, decision: Complete | RetryAfter | Fail | Cancel
    ) -> tuple[int, Settlement]:
        """A decision as it is written to the store, and what it makes of the job here."""
        lease = held.lease
        match decision:
            case Complete():
                return SUCCEEDED, self._completed(held)
            case RetryAfter(delay, error):
                self.retried += 1
                held.again = True
                return FAILED, Settlement.retry(lease, encode_error(error), delay)
            case Fail(error):
                if lease.attempt > 1:
                    _checks.note(error, f"attempt {lease.attempt}")
                return FAILED, Settlement.fail(lease, encode_error(error))
            case Cancel(reason, expired):
                return CANCELLED, self._stopped(job, held, reason, expired)

    @staticmethod
    def _completed(held: Held) -> Settlement:
        lease = held.lease
        return Settlement(lease.seq, lease.token, lease.id, "complete", held.text, 0.0, held.follow)

    def uncommitted(self, job: Job[Any], error: Exception) -> None:
        """The job's own transaction could not be committed with its success: it has failed instead."""
        held = job._rare
        assert isinstance(held, Held)
        decision = self.judge(job, Failed(error))
        assert not isinstance(decision, Release)
        job._state, settlement = self._settlement(job, held, decision)
        self.desk.write(settlement, job, self)

    def _stopped(self, job: Job[Any], held: Held, reason: str, expired: bool) -> Settlement:
        """What to settle of a job that was stopped: cancelled for good, or given back."""
        if held.asked is not None or expired:
            kind = JobExpired if expired else JobCancelled
            reason = held.asked or reason
            text = f"job {job.name} was cancelled: {_checks.printable(reason)}"
            return Settlement.cancel(held.lease, encode_error(kind(text, reason)))
        if job._state != RUNNING:
            return Settlement.release(held.lease)
        stopped = JobLost(
            f"it was stopped while it ran, and may run only once: {_checks.printable(reason)}"
        )
        return Settlement.interrupt(held.lease, encode_error(stopped))

    def _let_run_go(self, job: Job[Any], state: int, settlement: Settlement) -> None:
        """The job is over here, however it goes on in the store."""
        assert self._desk is not None
        job._state = state
        job._value = None
        job._args, job._kwargs, job._context = (), None, None
        if settlement.verb != "release":
            self._done += 1
        self._desk.write(settlement, job, self)
        if self.told:
            self.hub.job_ended()

    def settled(self, job: Job[Any], settlement: Settlement, accepted: bool) -> None:
        """The store has answered: this is committed, or it was somebody else's already."""
        held = job._rare
        assert isinstance(held, Held)
        assert self._desk is not None
        runs = self._desk.link.runs
        if runs.get(held.id) is job:
            del runs[held.id]
        state: int | None = None
        if not accepted:
            log.warning(
                "job %s (%s) belongs to another process now: what attempt %d came to here counts "
                "for nothing",
                job.name,
                held.id,
                held.lease.attempt,
            )
            if self.hub.listeners:
                self.teller.of_job(events.LeaseLost, job, held.lease.attempt)
        else:
            state = _END_OF.get(settlement.verb)
        if state is not None:
            if state == SUCCEEDED:
                self.completed += 1
            elif state == FAILED:
                self.failed += 1
            else:
                self.cancelled += 1
            if self.hub.listeners:
                ended = held.lease.attempt, STATES[state].value
                self.teller.of_job(events.JobSettled, job, *ended)
        self._desk.ended(job, held, settlement, state)

    def report(self, job: Job[Any], progress: Progress) -> None:
        """A running job says how far it is, perhaps from a thread."""
        held = job._rare
        if isinstance(held, Held) and self._desk is not None:
            self._desk.say(held.lease, progress)
            view = None if held.view is None else held.view()
            if view is not None:
                view._uncommon().progress = progress
        super().report(job, progress)


def held_of(job: Job[Any], what: str) -> Held:
    """The lease of a running stored job. Raises RuntimeError for any other."""
    held: Any = job._rare
    if held.__class__ is not Held:
        raise RuntimeError(f"{what} is for stored jobs: {job.name} lives in memory")
    if job._state != RUNNING:
        raise RuntimeError(f"{what} is for a running job: this attempt of {job.name} is over")
    return cast("Held", held)


_END_OF = {"complete": SUCCEEDED, "fail": FAILED, "cancel": CANCELLED}
