"""The reference store: the whole protocol over a dict, to read, to test with, and to compare with.

Several stores over one `MemoryData` are like several processes over one file. Nothing outlives the
process. The clock is given, so that time can be virtual.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from asyncworkers.errors import StoreUnavailable
from asyncworkers.job import JobState
from asyncworkers.store.clock import StoreClock, SystemClock
from asyncworkers.store.protocol import (
    CODEC,
    HISTORY,
    KEEP,
    KEEP_DEAD,
    LIMIT,
    LOSSES,
    TTL,
    Cancelled,
    Lease,
    Maintained,
    Mark,
    Page,
    QueueCounts,
    Receipt,
    Renewal,
    Settlement,
    StoredJob,
    Submission,
    Tally,
    Unique,
    Want,
    Where,
    error_text,
)
from asyncworkers.units import counted

__all__ = ["MemoryData", "MemoryStore"]

T = TypeVar("T")

SCHEDULED, QUEUED, RUNNING = JobState.SCHEDULED, JobState.QUEUED, JobState.RUNNING
WAITING = (SCHEDULED, QUEUED)


class _Job:
    """A stored job."""

    __slots__ = (
        "attempt",
        "cancelling",
        "due",
        "ended",
        "error",
        "expires",
        "failures",
        "losses",
        "progress",
        "result",
        "seq",
        "started",
        "state",
        "submission",
        "submitted",
        "token",
        "until",
        "worker",
    )

    def __init__(self, seq: int, submission: Submission, now: float) -> None:
        self.seq = seq
        self.submission = submission
        self.submitted = now
        self.due = max(now + submission.delay, submission.due or 0.0)
        self.expires = None if submission.expires is None else now + submission.expires
        self.state: JobState = SCHEDULED
        self.token = self.attempt = self.failures = self.losses = 0
        self.worker: _Worker | None = None
        self.started: float | None = None
        self.ended: float | None = None
        self.until: float | None = None
        self.result: str | None = None
        self.error: str | None = None
        self.cancelling: str | None = None
        self.progress: str | None = None

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    @property
    def over(self) -> bool:
        return self.state not in (*WAITING, RUNNING)

    @property
    def untouched(self) -> bool:
        """Whether it waits for its first attempt."""
        return self.waits and self.attempt == 0

    def order(self) -> tuple[int, float, int]:
        return (-self.submission.priority, self.due, self.seq)

    def shown(self, now: float) -> JobState:
        """Its state; what has once come due stays so, whatever becomes of the clock."""
        if self.state == SCHEDULED and self.due <= now:
            self.state = QUEUED
        return self.state


class _Worker:
    """A store that was opened: who may run what, until when, and what began."""

    def __init__(self, expires: float, boot: str) -> None:
        self.expires = expires
        self.boot = boot
        self.started: set[tuple[int, int]] = set()


class _Held(NamedTuple):
    """Who holds a unique key: until a date, or else until the job has "started" or is "done"."""

    job: _Job
    until: str
    date: float | None


class MemoryData:
    """What several MemoryStores share. The settings are the same as those of other stores:

    - `losses`: how often a job may lose its worker before it fails as `JobLost`.
    - `keep`, `keep_dead`: seconds for which successes, and other ended jobs, can be read.
    - `history`: how many ended jobs are kept at most.
    """

    def __init__(
        self,
        clock: StoreClock | None = None,
        *,
        losses: int = LOSSES,
        keep: float = KEEP,
        keep_dead: float = KEEP_DEAD,
        history: int = HISTORY,
    ) -> None:
        self.clock = clock or SystemClock()
        self.losses = losses
        self.keep = keep
        self.keep_dead = keep_dead
        self.history = history
        self.jobs: dict[int, _Job] = {}
        self.by_id: dict[str, _Job] = {}
        self.keys: dict[str, _Held] = {}
        self.paused: set[str] = set()
        self.workers: set[_Worker] = set()
        self.last = 0
        self.lock = threading.RLock()  # renewals come from other threads
        self._waiters: set[asyncio.Future[None]] = set()

    def changed(self) -> None:
        """Wake whoever waits for a change."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait_for_change(self, seconds: float) -> None:
        """Wait until something changed, at most so long."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, self.changed)
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)


class MemoryStore:
    """A store in memory; see `Store` for what its verbs mean."""

    def __init__(self, data: MemoryData | None = None, *, ttl: float = TTL) -> None:
        self._data = MemoryData() if data is None else data
        self._ttl = ttl
        self._names: frozenset[str] = frozenset()
        self._codecs: frozenset[str] = frozenset()
        self._worker: _Worker | None = None

    @property
    def ttl(self) -> float:
        """Seconds that this worker counts as alive after a renewal."""
        return self._ttl

    # ---- running

    async def open(self, names: Collection[str] = (), codecs: Collection[str] = (CODEC,)) -> None:
        """Come in as a worker."""
        self._names, self._codecs = frozenset(names), frozenset(codecs)
        self._worker = self._new_worker()

    async def close(self) -> None:
        """Leave; what is still leased goes back."""
        if self._worker is not None:
            worker, self._worker = self._worker, None
            with self._data.lock:
                self._bring_back(worker, certain=True)
            self._data.changed()

    def submit(self, batch: Sequence[Submission]) -> Awaitable[list[Receipt]]:
        """Store jobs."""
        return self._do(lambda: [self._submit(one) for one in batch])

    def lease(self, wants: Sequence[Want]) -> Awaitable[list[Lease]]:
        """Take waiting jobs."""
        wanted = [want for want in wants if want.free + want.ahead > 0]
        return self._do(lambda: [lease for want in wanted for lease in self._lease(want)])

    def holding(self) -> Awaitable[list[Lease]]:
        """The leases that this worker has now."""
        return self._do(
            lambda: [
                self._lease_of(job)
                for job in self._data.jobs.values()
                if job.state == RUNNING and job.worker is self._worker
            ]
        )

    def started(self, lease: Lease) -> None:
        """Note that the job begins now."""
        self._me.started.add((lease.seq, lease.token))

    def settle(self, batch: Sequence[Settlement]) -> Awaitable[list[bool]]:
        """End leases."""
        return self._do(lambda: [self._settle(one) for one in batch])

    def renew(self, progress: Sequence[tuple[Lease, str]] = ()) -> Renewal:
        """Count as alive for another `ttl` seconds."""
        data = self._data
        with data.lock:
            me = self._me
            if me not in data.workers:
                self._worker = self._new_worker()
                return Renewal(lost=True)
            me.expires = data.clock.uptime() + self._ttl
            mine = [job for job in data.jobs.values() if job.worker is me]
            said = {(lease.seq, lease.token): text for lease, text in progress}
            for job in mine:
                job.progress = said.get((job.seq, job.token), job.progress)
            return Renewal(
                cancel=tuple(
                    Mark(job.seq, job.token, job.submission.id, job.cancelling)
                    for job in mine
                    if job.cancelling is not None
                )
            )

    async def wait_ready(self, queues: Collection[str], timeout: float) -> bool:
        """Wait until there is something to lease."""
        data, loop = self._data, asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            now = data.clock.wall()
            jobs = [job for queue in queues for job in self._leasable(queue)]
            if any(job.shown(now) is QUEUED for job in jobs):
                return True
            soonest = min((job.due for job in jobs), default=None)
            left = deadline - loop.time()
            if left <= 0:
                return False
            await data.wait_for_change(left if soonest is None else min(left, soonest - now))

    async def maintain(self) -> Maintained:
        """Do what is due."""
        data, done = self._data, Counter[str]()
        uptime, now, boot = data.clock.uptime(), data.clock.wall(), data.clock.boot()
        for worker in data.workers - {self._me}:
            if worker.expires <= uptime or worker.boot != boot:
                known = worker.boot == boot
                done += self._bring_back(worker, certain=False, known=known)
        done["expired"] = self._expire()
        ended = sorted(
            (job for job in data.jobs.values() if job.over), key=lambda job: (job.until, job.seq)
        )
        surplus = len(ended) - data.history
        for number, job in enumerate(ended):
            if number < surplus or (job.until is not None and job.until <= now):
                self._forget(job)
                done["pruned"] += 1
        # The key of a job that waited to start is kept while it is leased: it may come back untouched.
        data.keys = {
            key: held
            for key, held in data.keys.items()
            if (now < held.date if held.date is not None else self._is_unfinished(held.job))
        }
        data.changed()
        return Maintained(**done)

    # ---- looking and steering

    async def get(self, ids: Sequence[str]) -> list[StoredJob | None]:
        """The jobs with these ids."""
        found = [self._data.by_id.get(one) for one in ids]
        return [None if job is None else self._record(job) for job in found]

    async def find(self, where: Where, *, limit: int = 100, after: int | None = None) -> Page:
        """A page of jobs, newest first."""
        found = sorted(self._matching(where), key=lambda job: -job.seq)
        rest = [job for job in found if after is None or job.seq < after]
        more = rest[limit - 1].seq if len(rest) > limit else None
        return Page([self._record(job) for job in rest[:limit]], more)

    async def wait_ended(self, ids: Collection[str], timeout: float) -> bool:
        """Wait until one of these jobs has ended."""
        data, loop = self._data, asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            found = [data.by_id.get(one) for one in ids]
            if any(job is None or job.over for job in found):
                return True
            left = deadline - loop.time()
            if left <= 0:
                return False
            await data.wait_for_change(left)

    async def counts(self) -> list[QueueCounts]:
        """How every queue stands."""
        data, now = self._data, self._data.clock.wall()
        queues = {
            job.submission.queue
            for job in data.jobs.values()
            if not job.over or job.state is JobState.FAILED
        }
        answer: list[QueueCounts] = []
        for queue in sorted(queues | data.paused):
            jobs = [job for job in data.jobs.values() if job.submission.queue == queue]
            states = Counter(job.shown(now) for job in jobs)
            dates = [job.due for job in jobs if job.shown(now) is JobState.QUEUED]
            unknown = Counter(
                job.submission.name for job in jobs if job.waits and not self._knows(job.submission)
            )
            answer.append(
                QueueCounts(
                    queue,
                    queue in data.paused,
                    states[JobState.QUEUED],
                    states[JobState.SCHEDULED],
                    states[JobState.RUNNING],
                    states[JobState.FAILED],
                    max(0.0, now - min(dates)) if dates else None,
                    dict(unknown),
                )
            )
        return answer

    async def tally(self, where: Where, *, since: int | None = None) -> Tally:
        """Count jobs."""
        found = [job for job in self._matching(where) if since is None or job.seq > since]
        return Tally(Counter(job.submission.queue for job in found), self._data.last)

    def cancel(self, where: Where, error: str) -> Awaitable[list[Cancelled]]:
        """Cancel waiting jobs, mark running ones."""

        def work() -> list[Cancelled]:
            reached: list[Cancelled] = []
            for job in self._portion(where):
                if job.over:
                    continue
                running = job.state == RUNNING
                if running:
                    job.cancelling = job.cancelling or error
                else:
                    self._end(job, JobState.CANCELLED, error)
                reached.append(Cancelled(job.submission.id, running))
            return reached

        return self._do(work)

    def retry(self, where: Where) -> Awaitable[list[str]]:
        """Put dead jobs back in line."""

        def work() -> list[str]:
            again: list[_Job] = []
            dead = (JobState.FAILED, JobState.CANCELLED)
            for job in self._matching(where):
                if job.state not in dead or not self._takes_again(job):
                    continue
                again.append(job)
                job.state, job.due = QUEUED, self._data.clock.wall()
                job.token += 1
                job.failures = job.losses = 0
                job.ended = job.until = job.expires = job.error = job.cancelling = None
                if len(again) == LIMIT:
                    break
            return [job.submission.id for job in again]

        return self._do(work)

    def purge(self, where: Where) -> Awaitable[int]:
        """Forget ended jobs."""

        def work() -> int:
            over = [job for job in self._portion(where) if job.over]
            for job in over:
                self._forget(job)
            return len(over)

        return self._do(work)

    def pause(self, queue: str, paused: bool) -> Awaitable[None]:
        """Give out no jobs of the queue, or go on."""
        change = self._data.paused.add if paused else self._data.paused.discard
        return self._do(lambda: change(queue))

    # ---- how

    @property
    def _me(self) -> _Worker:
        if self._worker is None:
            raise StoreUnavailable("the store is not open")
        return self._worker

    def _do(self, work: Callable[[], T]) -> Awaitable[T]:
        """Do it now, in one piece, and answer with a future as a real store would."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._data.lock:
            _ = self._me
            future.set_result(work())
        self._data.changed()
        return future

    def _new_worker(self) -> _Worker:
        clock = self._data.clock
        worker = _Worker(clock.uptime() + self._ttl, clock.boot())
        self._data.workers.add(worker)
        return worker

    def _knows(self, submission: Submission) -> bool:
        return submission.name in self._names and submission.codec in self._codecs

    def _submit(self, new: Submission) -> Receipt:
        data, now, unique = self._data, self._data.clock.wall(), new.unique
        if new.id in data.by_id:
            return Receipt(new.id, "existing")
        old = None if unique is None else self._holder(unique.key)
        if unique is not None and old is not None:
            holder = old.submission.id
            if unique.on_duplicate == "reject":
                return Receipt(holder, "rejected")
            if unique.on_duplicate == "existing" or not (self._is_there(old) and old.untouched):
                return Receipt(holder, "existing")
            self._end(old, JobState.CANCELLED, error_text("JobCancelled", f"replaced by {new.id}"))
        data.last += 1
        data.jobs[data.last] = data.by_id[new.id] = job = _Job(data.last, new, now)
        if unique is not None:
            data.keys[unique.key] = self._claim(job, unique)
        return Receipt(new.id, "created" if old is None else "replaced")

    @staticmethod
    def _claim(job: _Job, unique: Unique) -> _Held:
        """How a job holds its key, if nobody else does."""
        if isinstance(unique.until, str):
            return _Held(job, unique.until, None)
        return _Held(job, "", job.submitted + unique.until)

    def _is_there(self, job: _Job) -> bool:
        return self._data.jobs.get(job.seq) is job

    def _is_unfinished(self, job: _Job) -> bool:
        return self._is_there(job) and not job.over

    def _holder(self, key: str) -> _Job | None:
        """The job that holds the key now; it may be forgotten already if it does so until a date."""
        held = self._data.keys.get(key)
        if held is None:
            return None
        job = held.job
        if held.date is not None:
            return job if self._data.clock.wall() < held.date else None
        if not self._is_unfinished(job) or (held.until == "started" and not job.untouched):
            return None
        return job

    def _takes_again(self, job: _Job) -> bool:
        """Let a dead job hold its key again, if it is to hold it when it waits; False if it cannot."""
        unique = job.submission.unique
        if unique is None:
            return True
        held = self._claim(job, unique)
        if held.date is not None and held.date <= self._data.clock.wall():
            return True
        if held.until == "started" and job.attempt > 0:
            return True
        if self._holder(unique.key) not in (None, job):
            return False
        self._data.keys[unique.key] = held
        return True

    def _leasable(self, queue: str) -> Iterator[_Job]:
        """The waiting jobs of the queue that could be leased here once they are due."""
        if queue not in self._data.paused:
            for job in self._data.jobs.values():
                if job.waits and job.submission.queue == queue and self._knows(job.submission):
                    yield job

    def _lease(self, want: Want) -> Iterator[Lease]:
        me, now = self._me, self._data.clock.wall()
        self._expire()
        if me not in self._data.workers:
            return  # its time has run out: the next renewal says so
        due = [job for job in self._leasable(want.queue) if job.shown(now) is QUEUED]
        wanted = min(want.free + want.ahead, LIMIT)
        for place, job in enumerate(heapq.nsmallest(wanted, due, key=_Job.order)):
            new = job.submission
            if new.once and place >= want.free:
                continue
            job.state, job.worker, job.started = RUNNING, me, now
            job.token += 1
            job.attempt += 1
            yield self._lease_of(job)

    @staticmethod
    def _lease_of(job: _Job) -> Lease:
        new = job.submission
        return Lease(
            job.seq,
            job.token,
            new.id,
            new.queue,
            new.name,
            new.args,
            new.codec,
            job.attempt,
            job.failures,
            job.losses,
            new.priority,
            job.submitted,
            job.due,
            job.expires,
            new.once,
            new.tags,
            new.extra,
        )

    def _settle(self, settlement: Settlement) -> bool:
        job = self._data.jobs.get(settlement.seq)
        if job is None or job.token != settlement.token:
            return False
        if job.state != RUNNING:
            return True  # asked again
        if job.worker is not None:
            job.worker.started.discard((job.seq, job.token))
        verb, data = settlement.verb, settlement.data
        if verb == "release":
            job.attempt -= 1
        if job.submission.once and verb in ("retry", "interrupt"):
            verb = "fail"
        if job.cancelling is not None and verb in ("retry", "release", "interrupt"):
            verb, data = "cancel", job.cancelling
        if verb == "complete":
            self._end(job, JobState.SUCCEEDED, None, data)
        elif verb == "fail":
            self._end(job, JobState.FAILED, data)
        elif verb == "cancel":
            self._end(job, JobState.CANCELLED, data)
        else:
            self._wait_again(job)
            if verb == "retry":
                job.failures += 1
                job.error = data
                job.due = self._data.clock.wall() + settlement.delay
                job.state = SCHEDULED
        for follow in settlement.follow:
            self._submit(follow)
        return True

    def _bring_back(self, worker: _Worker, *, certain: bool, known: bool = True) -> Counter[str]:
        """Take its jobs from a worker. `certain`: it is known to be at an end, not only silent.
        `known`: what it said had begun can be relied on; after a power cut it cannot.
        """
        done = Counter[str]()
        self._data.workers.discard(worker)
        for job in [job for job in self._data.jobs.values() if job.worker is worker]:
            began = (job.seq, job.token) in worker.started
            once = job.submission.once
            job.token += 1
            done["recovered"] += 1
            if began or not known or (once and not certain):
                job.losses += 1
                if once or job.losses >= self._data.losses:
                    done["lost"] += 1
                    message = f"its worker ended {counted(job.losses, 'time')} while it ran"
                    self._end(job, JobState.FAILED, error_text("JobLost", message))
                    continue
            else:
                job.attempt -= 1
            if job.cancelling is not None:
                self._end(job, JobState.CANCELLED, job.cancelling)
            else:
                self._wait_again(job)
        return done

    def _wait_again(self, job: _Job) -> None:
        job.state, job.worker, job.progress = QUEUED, None, None

    def _end(
        self, job: _Job, state: JobState, error: str | None, result: str | None = None
    ) -> None:
        data, now = self._data, self._data.clock.wall()
        keep = data.keep_dead
        if state is JobState.SUCCEEDED:
            keep = data.keep if job.submission.keep is None else job.submission.keep
        job.state, job.worker, job.error, job.result = state, None, error, result
        job.ended, job.until, job.cancelling = now, now + keep, None

    def _expire(self) -> int:
        now, late = self._data.clock.wall(), 0
        for job in self._data.jobs.values():
            if job.waits and job.expires is not None and job.expires <= now:
                self._end(job, JobState.CANCELLED, error_text("JobExpired", "its time had run out"))
                late += 1
        return late

    def _forget(self, job: _Job) -> None:
        del self._data.jobs[job.seq]
        del self._data.by_id[job.submission.id]

    def _portion(self, where: Where) -> list[_Job]:
        return sorted(self._matching(where), key=lambda job: job.seq)[:LIMIT]

    def _matching(self, where: Where) -> Iterator[_Job]:
        now = self._data.clock.wall()

        def among(value: Any, wanted: tuple[Any, ...] | None) -> bool:
            return wanted is None or value in wanted

        for job in self._data.jobs.values():
            new, sent = job.submission, job.submitted
            if (
                among(new.id, where.ids)
                and among(new.queue, where.queues)
                and among(new.name, where.names)
                and among(job.shown(now), where.states)
                and set(where.tags) <= set(new.tags)
                and (where.submitted_before is None or sent < where.submitted_before)
                and (where.submitted_after is None or sent > where.submitted_after)
            ):
                yield job

    def _record(self, job: _Job) -> StoredJob:
        new = job.submission
        return StoredJob(
            new.id,
            new.queue,
            new.name,
            job.shown(self._data.clock.wall()),
            new.priority,
            job.attempt,
            job.failures,
            job.losses,
            job.submitted,
            job.due,
            job.expires,
            job.started,
            job.ended,
            job.until,
            new.once,
            new.tags,
            new.extra,
            new.codec,
            new.args,
            job.result,
            job.error,
            job.cancelling,
            job.progress,
        )
