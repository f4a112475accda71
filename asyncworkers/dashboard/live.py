"""Looks at a supervisor: what runs and waits in this process, and what is in its store."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

from asyncworkers import redact
from asyncworkers._engine.report import QueueStats, Stats, WorkerStats
from asyncworkers.chronicle import Chronicle
from asyncworkers.dashboard.data import ENDED, LONGEST_TEXT, SCAN, Action, Refusal, Wanted
from asyncworkers.dashboard.history import tell_history
from asyncworkers.dashboard.recent import Recent, new_chronicle
from asyncworkers.dashboard.stored import StoreSource
from asyncworkers.errors import JobNotFound
from asyncworkers.events import Listener
from asyncworkers.function import JobFunction
from asyncworkers.job import Job, JobState
from asyncworkers.queue import Queue
from asyncworkers.store.protocol import Store
from asyncworkers.units import counted

__all__ = ["LiveSource"]

WORKERS: Final = 200
"""Workers that are shown."""

HERE: Final = "here-"
"""How the `after` of a page of jobs begins if the next one is of this process, not of the store."""


class _HasStore(Protocol):
    """What `supervisor.stored` is to a dashboard."""

    @property
    def store(self) -> Store: ...


class _Watched(Protocol):
    """What a dashboard needs of a supervisor, and all it knows of it."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def queues(self) -> Sequence[Queue]: ...
    @property
    def functions(self) -> Sequence[JobFunction[..., Any]]: ...
    @property
    def stored(self) -> _HasStore: ...
    def stats(self) -> Stats: ...
    def workers(self, most: int) -> Sequence[WorkerStats]: ...
    def get(self, job_id: str, /) -> Job[Any]: ...
    def iter_jobs(self, queue: str | None) -> Iterator[Job[Any]]: ...
    @property
    def chronicle(self) -> Chronicle | None: ...
    def listen(self, listener: Listener) -> Callable[[], None]: ...
    def on_error(self, witness: Callable[[Job[Any], Exception], object]) -> Callable[[], None]: ...
    def pause(self, queue: str) -> None: ...
    def resume(self, queue: str) -> None: ...
    def resize(self, queue: str, workers: int) -> None: ...


class LiveSource:
    """A supervisor as a dashboard shows it. It may be made before the supervisor is entered.

    What has ended, and how long that took, it reads in the supervisor's chronicle, or, if that does not
    record, in a smaller one that listens from now on.
    """

    def __init__(self, supervisor: _Watched) -> None:
        self._supervisor = supervisor
        self._store: StoreSource | None = None
        chronicle = supervisor.chronicle
        self._recent = Recent(new_chronicle() if chronicle is None else chronicle)
        self._stops = [supervisor.on_error(self._recent.failed)]
        if chronicle is None:
            self._stops += [supervisor.listen(self._recent.chronicle), self._recent.chronicle.rest]
            if self.is_open():
                self._recent.chronicle.hear_log()

    def close(self) -> None:
        """Listen no more."""
        for stop in self._stops:
            stop()

    # ---- looking

    def is_open(self) -> bool:
        """Whether the supervisor was entered, and has not ended."""
        return self._supervisor.state in ("open", "draining")

    async def overview(self) -> dict[str, Any]:
        """How everything stands at this moment."""
        supervisor = self._supervisor
        stats = supervisor.stats().queues
        store = self._opened_store()
        queues = {name: self._queue(one) for name, one in stats.items()}
        failures = list(itertools.islice(self._recent.failures(), 10))
        if store is not None:
            for counts in await store.look():
                shown, here = store.queue(counts), queues.get(counts.queue)
                queues[counts.queue] = shown if here is None else _joined(here, shown)
            failures = store.failures
        workers = supervisor.workers(WORKERS + 1)
        return {
            "at": time.time(),
            "name": supervisor.name,
            "state": supervisor.state,
            "queues": list(queues.values()),
            "workers": [self._worker(one.as_dict()) for one in workers[:WORKERS]],
            "more_workers": len(workers) > WORKERS,
            "children": [
                {"queue": name, **child.as_dict()}
                for name, one in stats.items()
                for child in one.children
            ],
            "stalls": self._recent.stalls(),
            "failures": failures,
        }

    def _opened_store(self) -> StoreSource | None:
        """What is in the store, if there is one and the supervisor is in it."""
        if self._supervisor.state not in ("open", "draining"):
            return None
        try:
            store = self._supervisor.stored.store
        except ValueError:
            return None
        if self._store is None or self._store.store is not store:
            # Its keeper says that it is alive.
            functions = {one.name: one.function for one in self._supervisor.functions}
            name = self._supervisor.name
            self._store = StoreSource(store, name, alive=False, functions=functions)
        return self._store

    def _queue(self, stats: QueueStats) -> dict[str, Any]:
        figures = stats.as_dict()
        waiting = figures.pop("queued")
        del figures["children"]
        kinds = {queue.name: queue.kind for queue in self._supervisor.queues}
        return {
            **figures,
            "kind": kinds.get(stats.name, ""),
            "stored": False,
            "waiting": waiting,
            "dead": None,
            "unknown": {},
            **self._recent.figures(stats.name),
        }

    def _worker(self, worker: dict[str, Any]) -> dict[str, Any]:
        worker["progress"] = None
        if worker["job_id"] is not None:
            try:
                job = self._supervisor.get(worker["job_id"])
            except JobNotFound:  # it has just ended
                return worker
            worker["progress"] = None if job.progress is None else job.progress.as_dict()
        return worker

    # ---- jobs

    async def jobs(self, wanted: Wanted) -> dict[str, Any]:
        """A page of jobs: of this process those that run, wait, and have ended; then those in the store."""
        store = self._opened_store()
        if wanted.after is not None and not wanted.after.startswith(HERE):
            if store is None:
                raise Refusal("this supervisor has no store, or is not in it any more")
            return await store.jobs(wanted)
        skip = 0 if wanted.after is None else int(wanted.after.removeprefix(HERE))
        found, note = self._here(wanted, skip)
        if len(found) > wanted.limit:
            after = f"{HERE}{skip + wanted.limit}"
            return {"jobs": found[: wanted.limit], "after": after, "note": note}
        if store is None:
            return {"jobs": found, "after": None, "note": note}
        page = await store.jobs(
            wanted._replace(after=None, limit=max(1, wanted.limit - len(found)))
        )
        return {**page, "jobs": [*found, *page["jobs"]], "note": note}

    def _here(self, wanted: Wanted, skip: int) -> tuple[list[dict[str, Any]], str | None]:
        """The jobs of this process that match, but for the first few, and one more than wanted."""
        most = skip + wanted.limit + 1
        found: list[dict[str, Any]] = []
        note = None
        if wanted.state not in ENDED and self._supervisor.state in ("open", "draining", "failed"):
            for number, job in enumerate(self._unfinished(wanted.queue)):
                if number >= SCAN:
                    note = f"Only the first {SCAN:,} unfinished jobs were looked at."
                    break
                if not job.stored and _matches(wanted, job):
                    found.append(_brief(job) if len(found) >= skip else {})
                    if len(found) >= most:
                        return found[skip:], note
        if wanted.state is None or wanted.state in ENDED:
            known: set[str] = set() if self._opened_store() is None else self._stored_queues()
            for brief in self._recent.ended():
                if brief["queue"] not in known and _matches_brief(wanted, brief):
                    found.append(brief)
                    if len(found) >= most:
                        break
        return found[skip:], note

    def _unfinished(self, queue: str | None) -> Iterator[Job[Any]]:
        """First the jobs that run, of all queues; then queue by queue those that wait."""
        waiting: list[Iterator[Job[Any]]] = []
        for declared in self._supervisor.queues:
            if queue in (None, declared.name):
                jobs = self._supervisor.iter_jobs(declared.name)
                for job in jobs:
                    if job.state is not JobState.RUNNING:
                        waiting.append(itertools.chain((job,), jobs))
                        break
                    yield job
        yield from itertools.chain.from_iterable(waiting)

    def _has(self, queue: str | None) -> bool:
        return queue is None or any(one.name == queue for one in self._supervisor.queues)

    def _stored_queues(self) -> set[str]:
        """Queues whose jobs are in the store, so that what is remembered of them is there as well."""
        return {one.name for one in self._supervisor.queues if one.stored is not False}

    async def job(self, ident: str) -> dict[str, Any] | None:
        """All there is to know of a job."""
        job = self._find(ident)
        if job is None or job.stored:
            store = self._opened_store()
            document = None if store is None else await store.job(ident)
            if document is None:
                document = self._recent.job(ident)
            if document is None:
                return None
        else:
            document = _full(job)
        if job is not None:
            job = self._find(ident)  # it may have moved on while the store was asked
        if job is not None and not job.done():
            document["why"] = job.why
            document["args"] = redact.arguments(job.function, job.args, job.kwargs)
        if document["failure"] is None and document["state"] != "succeeded":
            document["failure"] = self._recent.error(ident)
        here = job is not None and job.state is JobState.RUNNING
        return tell_history(
            document, self._recent.attempts(ident), self._recent.log(ident), here=here
        )

    def _find(self, ident: str) -> Job[Any] | None:
        try:
            return self._supervisor.get(ident)
        except JobNotFound:
            return None

    # ---- steering

    async def act(self, action: Action) -> str:
        """Do it and say what was done."""
        supervisor, target = self._supervisor, action.target
        if action.verb in ("cancel", "retry"):
            return await self._act_on_job(action)
        if not self._has(target):
            raise Refusal(f"There is no queue {target} here.", missing=True)
        if action.verb == "resize":
            supervisor.resize(target, action.workers)
            return f"Queue {target} may now run {counted(action.workers, 'job')} at a time."
        store = self._opened_store()
        if store is not None and target in self._stored_queues():
            return await store.act(action)
        if action.verb == "pause":
            supervisor.pause(target)
            return f"Queue {target} is paused."
        supervisor.resume(target)
        return f"Queue {target} goes on."

    async def _act_on_job(self, action: Action) -> str:
        job, store = self._find(action.target), self._opened_store()
        if action.verb == "cancel" and job is not None:
            was = job.state
            if not job.cancel("asked on the dashboard"):
                raise Refusal(f"Job {job.id} is {job.state} already.")
            told = "was told to stop" if was is JobState.RUNNING else "is cancelled"
            return f"Job {job.id} {told}."
        if store is not None:
            return await store.act(action)
        if job is not None or self._recent.job(action.target) is not None:
            raise Refusal(
                "A job in memory is forgotten when it ends: only a stored one can be retried."
            )
        raise Refusal(f"There is no job {action.target} (any more).", missing=True)


def _joined(here: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """A queue of this process whose jobs are in the store: what waits there, and what works here.

    What the store does not know is known here: jobs of streams, which always run in memory.
    """
    joined = {**here, "stored": True, "paused": here["paused"] or stored["paused"]}
    for figure in ("running", "waiting", "scheduled"):
        joined[figure] = max(here[figure], stored[figure])
    ages = [one for one in (here["oldest"], stored["oldest"]) if one is not None]
    joined |= {"oldest": max(ages, default=None), "dead": stored["dead"]}
    joined["unknown"] = stored["unknown"]
    return joined


def _matches(wanted: Wanted, job: Job[Any]) -> bool:
    return (
        (wanted.state is None or job.state is wanted.state)
        and (wanted.name is None or job.name == wanted.name)
        and (wanted.tag is None or wanted.tag in job.tags)
    )


def _matches_brief(wanted: Wanted, brief: dict[str, Any]) -> bool:
    return (
        (wanted.state is None or brief["state"] == wanted.state)
        and (wanted.queue is None or brief["queue"] == wanted.queue)
        and (wanted.name is None or brief["name"] == wanted.name)
        and (wanted.tag is None or wanted.tag in brief["tags"])
    )


def _brief(job: Job[Any]) -> dict[str, Any]:
    started, finished = job.started, job.finished
    return {
        "id": job.id,
        "name": job.name,
        "queue": job.queue,
        "state": str(job.state),
        "stored": job.stored,
        "attempt": job.attempt,
        "priority": job.priority,
        "tags": list(job.tags),
        "submitted": job.created.timestamp(),
        "due": None if job.due is None else job.due.timestamp(),
        "started": None if started is None else started.timestamp(),
        "ended": None if finished is None else finished.timestamp(),
        "cancelling": False,
        "progress": None if job.progress is None else job.progress.as_dict(),
        "error": None,
    }


def _full(job: Job[Any]) -> dict[str, Any]:
    return {
        **_brief(job),
        "args": redact.arguments(job.function, job.args, job.kwargs),
        "result": None,
        "failure": None,
        "why": redact.safe(job.why, LONGEST_TEXT),
    }
