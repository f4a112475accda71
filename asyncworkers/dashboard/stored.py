"""Looks at a store: all of its jobs, whichever process submitted or runs them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from asyncworkers.dashboard.data import (
    DEAD,
    ENDED,
    Action,
    Refusal,
    Wanted,
    brief_of_record,
    full_of_record,
    percentiles,
)
from asyncworkers.dashboard.history import tell_history
from asyncworkers.dashboard.rates import Rates
from asyncworkers.job import JobState
from asyncworkers.store.protocol import QueueCounts, Store, StoredJob, Where, error_text
from asyncworkers.units import agreed, counted, lasting

__all__ = ["StoreSource"]

SAMPLE: Final = 500
"""Jobs that ended last, of whose times the percentiles are taken."""

RESAMPLE: Final = 5.0
"""Seconds after which they are read anew."""

RUNNING: Final = 200
"""Running jobs that are shown."""

_NOW: Final = 2**62
"""A mark after all others: nothing needs to be counted for the first."""


class StoreSource:
    """A store as a dashboard shows it. It must be open, and is closed by whoever opened it.

    `alive` has it renew its worker now and then, as a store wants it of whoever has it open; what runs
    jobs there does so by itself. `functions` are those that are known here, by the names that their
    jobs have in the store: only they tell which argument has a secret's name, if it was given by place,
    and which jobs nobody here can run. None if nothing is run here, so that this says nothing.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        alive: bool = True,
        functions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self.store = store
        self._name = name
        self._alive = alive
        self._functions: Mapping[str, Callable[..., Any]] = functions or {}
        self._runs = functions is not None
        self._rates = Rates()
        self._mark: int | None = None
        self._before: Mapping[str, int] = {}
        self._renewed = self._sampled = float("-inf")
        self._times: dict[str, dict[str, Any]] = {}
        self._failures: list[dict[str, Any]] = []

    def is_open(self) -> bool:
        """It is: whoever opened the store closes it last."""
        return True

    async def overview(self) -> dict[str, Any]:
        """How everything stands at this moment."""
        now = time.monotonic()
        counts = await self._count(now)
        if now - self._sampled >= RESAMPLE:
            self._sampled = now
            await self._sample()
        running = await self.store.find(Where(states=(JobState.RUNNING,)), limit=RUNNING)
        if self._alive and now - self._renewed > self.store.ttl / 3:
            self._renewed = now
            await asyncio.to_thread(self.store.renew)
        return {
            "at": time.time(),
            "name": self._name,
            "state": "open",
            "queues": [self.queue(one) for one in counts],
            "workers": [_worker(job) for job in sorted(running.records, key=_began)],
            "more_workers": running.after is not None,
            "children": [],
            "stalls": [],
            "failures": self._failures,
        }

    def queue(self, counts: QueueCounts) -> dict[str, Any]:
        """How a queue stands in the store."""
        return {
            "name": counts.queue,
            "kind": "stored",
            "stored": True,
            "paused": counts.paused,
            "workers": None,
            "running": counts.running,
            "waiting": counts.queued,
            "scheduled": counts.scheduled,
            "oldest": counts.oldest,
            "dead": counts.failed,
            "unknown": dict(counts.unknown) if self._runs else {},
            **self._rates.of(counts.queue),
            **self._times.get(counts.queue, {"wait": None, "run": None}),
        }

    async def look(self) -> list[QueueCounts]:
        """How the queues stand, for who shows the rest by itself; also what `queue` shows is renewed."""
        now = time.monotonic()
        counts = await self._count(now)
        if now - self._sampled >= RESAMPLE:
            self._sampled = now
            await self._sample()
        return counts

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The jobs that failed last, in brief."""
        return self._failures

    async def _count(self, now: float) -> list[QueueCounts]:
        """How the queues stand, and with it how many jobs have ended: what was unfinished before, and
        what was submitted since, is either unfinished still or has ended.
        """
        tally = await self.store.tally(Where(), since=_NOW if self._mark is None else self._mark)
        counts = await self.store.counts()
        still = {one.queue: one.queued + one.scheduled + one.running for one in counts}
        if self._mark is not None:
            was = self._before
            self._rates.add(
                {
                    queue: was.get(queue, 0) + tally.queues.get(queue, 0) - still.get(queue, 0)
                    for queue in {*was, *still, *tally.queues}
                },
                now,
            )
        else:
            self._rates.add({}, now)
        self._mark, self._before = tally.mark, still
        listed = {one.queue for one in counts}
        idle = [queue for queue in self._times if queue not in listed]
        return [*counts, *(QueueCounts(one, False, 0, 0, 0, 0, None, {}) for one in idle)]

    async def _sample(self) -> None:
        """Read the jobs that ended last."""
        ended = (await self.store.find(Where(states=ENDED), limit=SAMPLE)).records
        queues: dict[str, list[StoredJob]] = {}
        for job in ended:
            if job.started is not None:
                queues.setdefault(job.queue, []).append(job)
        self._times = {
            queue: {
                "wait": percentiles(_waits(jobs)),
                "run": percentiles(_runs(jobs)),
            }
            for queue, jobs in queues.items()
        }
        failed = await self.store.find(Where(states=(JobState.FAILED,)), limit=10)
        self._failures = [brief_of_record(job) for job in failed.records]

    async def jobs(self, wanted: Wanted) -> dict[str, Any]:
        """A page of jobs, newest first."""
        where = Where(
            states=None if wanted.state is None else (wanted.state,),
            queues=None if wanted.queue is None else (wanted.queue,),
            names=None if wanted.name is None else (wanted.name,),
            tags=() if wanted.tag is None else (wanted.tag,),
        )
        after = None if wanted.after is None else int(wanted.after)
        page = await self.store.find(where, limit=wanted.limit, after=after)
        return {
            "jobs": [brief_of_record(job) for job in page.records],
            "after": None if page.after is None else str(page.after),
            "note": None,
        }

    async def job(self, ident: str) -> dict[str, Any] | None:
        """All that is stored of a job, and why it waits as far as that can be told from here."""
        (record,) = await self.store.get([ident])
        if record is None:
            return None
        counts = {one.queue: one for one in await self.store.counts()}
        document = full_of_record(record, self._functions.get(record.name))
        document["why"] = _why(record, counts.get(record.queue))
        return tell_history(document, [], None)

    async def act(self, action: Action) -> str:
        """Do it and say what was done."""
        if action.verb in ("pause", "resume"):
            await self.store.pause(action.target, action.verb == "pause")
            return f"Queue {action.target} {'is paused' if action.verb == 'pause' else 'goes on'}."
        if action.verb == "resize":
            raise Refusal(
                "How many workers a queue has is decided where they run, not in the store."
            )
        where = Where(ids=(action.target,))
        (record,) = await self.store.get([action.target])
        if record is None:
            raise Refusal(f"There is no job {action.target} (any more).", missing=True)
        if action.verb == "retry":
            if record.state not in DEAD:
                raise Refusal(f"Job {action.target} is {record.state}: it cannot be retried.")
            if not await self.store.retry(where):
                raise Refusal(f"Job {action.target} stays: another job holds its unique key.")
            return f"Job {action.target} is back in line."
        reached = await self.store.cancel(
            where, error_text("JobCancelled", "asked on the dashboard")
        )
        if not reached:
            raise Refusal(f"Job {action.target} is {record.state} already.")
        running = reached[0].running
        return f"Job {action.target} {'was told to stop' if running else 'is cancelled'}."


def _worker(job: StoredJob) -> dict[str, Any]:
    brief = brief_of_record(job)
    return {
        "queue": job.queue,
        "worker": None,
        "job_id": job.id,
        "job_name": job.name,
        "attempt": job.attempt,
        "seconds": max(0.0, time.time() - _began(job)),
        "waits_for": [],
        "pid": None,
        "progress": brief["progress"],
    }


def _began(job: StoredJob) -> float:
    return job.started or job.submitted


def _waits(jobs: Iterable[StoredJob]) -> list[float]:
    """How long jobs waited that needed no second attempt: of others it is not known any more."""
    firsts = (job for job in jobs if job.attempt == 1)
    return [max(0.0, (job.started or 0.0) - max(job.submitted, job.due)) for job in firsts]


def _runs(jobs: Iterable[StoredJob]) -> list[float]:
    return [
        max(0.0, job.ended - job.started)
        for job in jobs
        if job.started is not None and job.ended is not None
    ]


def _why(job: StoredJob, counts: QueueCounts | None) -> str:
    """One sentence: what the job is waiting for, what it is doing, or how it ended."""
    now = time.time()
    if job.state in ENDED:
        said = brief_of_record(job)["error"]
        return f"{job.state}{f': {said}' if said else ''}"
    if job.cancelling is not None:
        return "running: its worker was asked to stop it"
    if job.state is JobState.RUNNING:
        return f"running: attempt {job.attempt}, for {lasting(now - _began(job))}"
    if counts is not None and counts.paused:
        return f"{job.state}: queue {job.queue!r} is paused"
    if counts is not None and counts.unknown.get(job.name) and not counts.running:
        return (
            f"{job.state}: it waits for a worker that has the function {job.name!r}; "
            f"nothing runs on queue {job.queue!r} at the moment"
        )
    if job.due > now:
        cause = f", because attempt {job.attempt} failed" if job.error else ": its delay"
        return f"scheduled: due in {lasting(job.due - now)}{cause}"
    ahead, running = (0, 0) if counts is None else (counts.queued, counts.running)
    wait, run = agreed(ahead, "waits", "wait"), agreed(running, "runs", "run")
    return f"queued: {counted(ahead, 'job')} {wait} on queue {job.queue!r}, {running:,} {run}"
