"""What is in a supervisor's store: looked at and steered, whichever process submitted or runs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from asyncworkers import _checks
from asyncworkers.current import CurrentJob
from asyncworkers.errors import JobNotFound
from asyncworkers.function import Call
from asyncworkers.job import Job, JobState

if TYPE_CHECKING:
    from asyncworkers._engine.stored.depot import Depot
    from asyncworkers.store.protocol import QueueCounts, Store, Where

__all__ = ["Stored", "Using"]

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")

PAGE = 500
"""Jobs that are read at a time."""


class Using:
    """What `supervisor.using(...)` returns: its jobs are stored exactly if something else is committed."""

    def __init__(self, depot: Depot, what: object, check: Callable[[], None]) -> None:
        self._depot = depot
        self._what = what
        self._check = check  # whether anything is accepted
        self._leader = what._job if isinstance(what, CurrentJob) else None

    @overload
    async def submit(self, function: Call[Coroutine[Any, Any, T]], /) -> Job[T]: ...
    @overload
    async def submit(
        self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...
    @overload
    async def submit(self, function: Call[T], /) -> Job[T]: ...
    @overload
    async def submit(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...
    async def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """As `Supervisor.submit`; the job is stored with the commit, and cancelled without it."""
        (job,) = await self._submit([(function, args, kwargs)])
        return job

    @overload
    async def submit_many(
        self, function: Callable[[Item], Coroutine[Any, Any, T]], items: Iterable[Item], /
    ) -> list[Job[T]]: ...
    @overload
    async def submit_many(
        self, function: Callable[[Item], T], items: Iterable[Item], /
    ) -> list[Job[T]]: ...
    async def submit_many(self, function: Any, items: Iterable[Any], /) -> list[Job[Any]]:
        """As `Supervisor.submit_many`, likewise."""
        return await self._submit(
            [(function, (item,), {}) for item in _checks.iterable("items", items)]
        )

    async def _submit(
        self, calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]
    ) -> list[Job[Any]]:
        self._check()
        for function, _, _ in calls:
            if not self._depot.takes(function):
                raise ValueError(
                    "using(...) is for stored jobs, and this one's queue is in memory: "
                    f"{_checks.shown(function)}"
                )
        return await self._depot.submit_with(self._what, calls, self._leader)


class Stored:
    """The jobs in the store, all of them: `supervisor.stored`.

    Each verb asks the store, so each is awaited, and raises StoreUnavailable if it cannot be asked.
    Where several jobs can be meant, they are named by themselves or their ids, or by `queue`, `name`
    and `tag`, of which all that are given must hold.
    """

    def __init__(self, depot: Depot) -> None:
        self._depot = depot

    @property
    def store(self) -> Store:
        """The store itself, as this supervisor has opened it: for what shows records as they are."""
        return self._depot.store

    async def get(self, job_id: str, /) -> Job[Any]:
        """The job with this id, as it stands now; raises JobNotFound if there is none (any more)."""
        _checks.job_id("job_id", job_id)
        (record,) = await self._depot.store.get([job_id])
        if record is None:
            raise JobNotFound(f"no job in the store has the id {_checks.shown(job_id)}")
        return self._depot.views.of(record)

    async def jobs(
        self,
        *,
        state: JobState | str | None = None,
        queue: str | None = None,
        name: str | None = None,
        tag: str | None = None,
    ) -> AsyncGenerator[Job[Any]]:
        """The jobs that match everything given, newest first: `async for job in stored.jobs()`."""
        where = self._where((), queue, name, tag)
        if state is not None:
            text = state if isinstance(state, JobState) else _checks.one_of("state", state, _STATES)
            where = where._replace(states=(JobState(text),))
        after: int | None = None
        while True:
            page = await self._depot.store.find(where, limit=PAGE, after=after)
            for record in page.records:
                yield self._depot.views.of(record)
            after = page.after
            if after is None:
                return

    async def cancel(
        self,
        *jobs: Job[Any] | str,
        queue: str | None = None,
        name: str | None = None,
        tag: str | None = None,
        reason: str = "cancel() was called",
    ) -> int:
        """Cancel jobs: those that wait at once, those that run as soon as their process hears of it.
        How many that were; those that have ended are left alone, and of a great many, 10,000 are taken.
        """
        _checks.text("reason", reason)
        return await self._depot.cancel_in_store(self._some(jobs, queue, name, tag), reason)

    async def retry(
        self,
        *jobs: Job[Any] | str,
        queue: str | None = None,
        name: str | None = None,
        tag: str | None = None,
    ) -> int:
        """Run failed and cancelled jobs once more, as if they were new; how many there were.

        Each holds its `unique` key again, as if it had never ended; one whose key another job holds
        meanwhile stays as it is.
        """
        return len(await self._depot.store.retry(self._some(jobs, queue, name, tag)))

    async def purge(
        self,
        *jobs: Job[Any] | str,
        queue: str | None = None,
        name: str | None = None,
        tag: str | None = None,
    ) -> int:
        """Forget jobs that have ended; how many there were."""
        return await self._depot.store.purge(self._some(jobs, queue, name, tag))

    async def pause(self, queue: str) -> None:
        """Have no process start jobs of this queue, until `resume`; what runs runs on."""
        await self._depot.store.pause(_checks.queue_name("queue", queue), paused=True)

    async def resume(self, queue: str) -> None:
        """Let all processes start jobs of this queue again."""
        await self._depot.store.pause(_checks.queue_name("queue", queue), paused=False)

    async def counts(self) -> list[QueueCounts]:
        """How every queue stands that is paused or has unfinished or dead jobs, by name. `unknown`
        counts the waiting jobs of functions that this supervisor does not list.
        """
        return await self._depot.store.counts()

    def _some(
        self, jobs: Iterable[Any], queue: str | None, name: str | None, tag: str | None
    ) -> Where:
        if not jobs and queue is None and name is None and tag is None:
            raise ValueError("say which jobs: themselves, their ids, or queue=, name= or tag=")
        return self._where(jobs, queue, name, tag)

    def _where(
        self, jobs: Iterable[Any], queue: str | None, name: str | None, tag: str | None
    ) -> Where:
        from asyncworkers.store.protocol import Where

        ids: list[str] = []
        for one in jobs:
            if not isinstance(one, (Job, str)):
                raise TypeError(f"jobs must be Jobs or ids, not {_checks.shown(one)}")
            ids.append(one if isinstance(one, str) else one.id)
        for argument, text in (("name", name), ("tag", tag)):
            if text is not None:
                _checks.text(argument, text)
        return Where(
            ids=tuple(ids) if ids else None,
            queues=None if queue is None else (_checks.queue_name("queue", queue),),
            names=None if name is None else (name,),
            tags=() if tag is None else (tag,),
        )


_STATES = tuple(JobState)
