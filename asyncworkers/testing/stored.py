"""Stored jobs in the tests of an application: run inline or when told, in memory, and asserted on."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from asyncworkers import Call, Job, JobFunction, JobState, Supervisor, _checks
from asyncworkers._engine.clock import Clock
from asyncworkers.store.codec import FunctionCodec
from asyncworkers.store.memory import MemoryData, MemoryStore
from asyncworkers.store.protocol import CODEC, Receipt, Settlement, Submission, Where
from asyncworkers.units import counted

__all__ = ["LoopClock", "StoredJobs", "Submitted", "stored_jobs"]

OPEN = (JobState.QUEUED, JobState.RUNNING)

STEP = 3_600.0
"""Seconds of one wait for something to happen to a job, of any number."""


class LoopClock:
    """A store's clock on the time of the running loop, which may be virtual."""

    def __init__(self) -> None:
        self._clock = Clock(asyncio.get_running_loop())

    def wall(self) -> float:
        """Unix seconds, as the loop has them."""
        return self._clock.wall()

    def uptime(self) -> float:
        """The loop's time."""
        return self._clock.now()

    def boot(self) -> str:
        """There is one."""
        return "the loop's"


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that was submitted, its arguments as they will arrive; `delay` is in seconds."""

    id: str
    name: str
    queue: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    delay: float
    priority: int
    tags: tuple[str, ...]

    def __str__(self) -> str:
        args = [*map(repr, self.args), *(f"{name}={one!r}" for name, one in self.kwargs.items())]
        return f"{self.name}({', '.join(args)})"


class _Recording(MemoryStore):
    """Notes what it accepts, in order, also what is submitted with the end of another job."""

    def __init__(self, data: MemoryData, accepted: Callable[[Submission], None]) -> None:
        super().__init__(data)
        self._accepted = accepted
        self._seen: set[str] = set()

    def submit(self, batch: Sequence[Submission]) -> Awaitable[list[Receipt]]:
        async def submit(asked: Awaitable[list[Receipt]]) -> list[Receipt]:
            receipts = await asked
            for one, receipt in zip(batch, receipts, strict=True):
                if receipt.id == one.id:
                    self._note(one)
            return receipts

        return submit(super().submit(batch))

    def settle(self, batch: Sequence[Settlement]) -> Awaitable[list[bool]]:
        async def settle(asked: Awaitable[list[bool]]) -> list[bool]:
            accepted = await asked
            for one, took in zip(batch, accepted, strict=True):
                for new in one.follow if took else ():
                    self._note(new)
            return accepted

        return settle(super().settle(batch))

    def _note(self, one: Submission) -> None:
        if one.id not in self._seen:
            self._seen.add(one.id)
            self._accepted(one)


class StoredJobs:
    """What `stored_jobs` gives: what was submitted so far, and a way to have it run."""

    def __init__(self, supervisor: Supervisor, store: MemoryStore) -> None:
        self.supervisor = supervisor
        self._store = store
        self._pickled: set[str] = set()
        self._all: list[Submitted] = []

    def submitted(
        self, function: JobFunction[..., Any] | Call[Any] | None = None
    ) -> list[Submitted]:
        """What was submitted, in order: all of it, or the jobs of a function, or equal calls of it:
        `jobs.submitted(send)`, `jobs.submitted(send.bind("Ada", text="hello"))`.
        """
        if function is None:
            return list(self._all)
        if isinstance(function, Call):
            name = function.function.name
            return [one for one in self._all if one.name == name and self._equal(function, one)]
        if not isinstance(function, JobFunction):
            raise TypeError(
                "function must be a function made with @job, or a call of one: f.bind(x), not "
                f"{_checks.shown(function)}"
            )
        return [one for one in self._all if one.name == function.name]

    def assert_submitted(
        self, function: JobFunction[..., Any] | Call[Any], *, times: int | None = None
    ) -> list[Submitted]:
        """Assert that jobs of this function, or such calls of it, were submitted: at least one, or
        exactly so many; returns them. The AssertionError lists what was submitted instead.
        """
        found = self.submitted(function)
        if found if times is None else len(found) == times:
            return found
        wanted = "at least once" if times is None else counted(times, "time")
        there = "".join(f"\n  {one}" for one in self._all) or " nothing"
        raise AssertionError(
            f"{self._shown(function)} was to be submitted {wanted}, and was {counted(len(found), 'time')}; "
            f"submitted was:{there}"
        )

    def assert_nothing_submitted(self) -> None:
        """Assert that no job was submitted at all."""
        if self._all:
            there = "".join(f"\n  {one}" for one in self._all)
            raise AssertionError(f"no job was to be submitted, but there is:{there}")

    async def drain(self, queue: str | None = None, *, delayed: bool = False) -> list[Job[Any]]:
        """Run what waits, in this queue or in all, and what is submitted meanwhile, until nothing
        is left; returns the jobs that ended, in the order in which they were submitted.

        Jobs with a delay, and retries that wait, are left alone, unless `delayed`: then they are
        waited for, which takes no time where time is virtual. Jobs fail as ever, without an error here.
        """
        stored = self.supervisor.stored
        queues = [one.name for one in self.supervisor.queues if one.stored is not False]
        if queue is not None:
            if queue not in queues:
                raise ValueError(f"queue must be {_checks.nearest(queue, queues)}")
            queues = [queue]
        waiting = {one.id for one in await self._records((*OPEN, JobState.SCHEDULED), queues)}
        before = len(self._all)
        for name in queues:
            await stored.resume(name)
        wanted = (*OPEN, JobState.SCHEDULED) if delayed else OPEN
        while await self._records(wanted, queues):
            await self._store._data.wait_for_change(
                STEP
            )  # perhaps an end, or a retry that is to wait
        depot: Any = self.supervisor._depot
        await depot.settler.written(STEP)  # and heard of
        for name in queues:
            await stored.pause(name)
        jobs = [
            await stored.get(one.id)
            for number, one in enumerate(self._all)
            if one.queue in queues and (number >= before or one.id in waiting)
        ]
        return [job for job in jobs if job.done()]

    def __repr__(self) -> str:
        return f"<StoredJobs {len(self._all)} submitted>"

    # ---- how

    def _note(self, one: Submission) -> None:
        depot: Any = self.supervisor._depot
        known = depot.listed_for(depot.functions[one.name], one.queue, one.id, one.codec)
        args, kwargs = known.codec.decode_arguments(one.args)
        if one.codec != CODEC:
            self._pickled.add(one.id)
        self._all.append(
            Submitted(
                *(one.id, one.name, one.queue, args, kwargs),
                *(one.delay, one.priority, one.tags),
            )
        )

    def _equal(self, call: Call[Any], one: Submitted) -> bool:
        """Whether they are written alike, so that (1, 2) is [1, 2]; pickled arguments are compared
        themselves.
        """
        function = call.function.function
        if one.id in self._pickled:
            bind = inspect.signature(function).bind
            return bind(*call.args, **call.kwargs) == bind(*one.args, **one.kwargs)
        encode = FunctionCodec(function, one.name).encode_arguments
        return encode(call.args, call.kwargs) == encode(one.args, one.kwargs)

    def _shown(self, function: JobFunction[..., Any] | Call[Any]) -> str:
        if isinstance(function, Call):
            name, args, kwargs = function.function.name, function.args, function.kwargs
            return f"this call of {name}, {args!r} {kwargs!r},"
        return function.name

    async def _records(self, states: tuple[JobState, ...], queues: list[str]) -> list[Any]:
        where = Where(states=states, queues=tuple(queues))
        return (await self._store.find(where, limit=10_000)).records


@asynccontextmanager
async def stored_jobs(
    supervisor: Supervisor, *, run: Literal["inline", "drain"] = "inline"
) -> AsyncGenerator[StoredJobs]:
    """Enter a supervisor whose jobs are stored, with a store in memory in place of its own.

    - `run="inline"`: `submit` returns when the job has ended, however it did, its retries included;
      a job with a delay is not waited for.
    - `run="drain"`: no job runs before `await jobs.drain()`.

    Everything else is as in production: arguments are checked and written down, retries and keys
    count, jobs submit other jobs. On leaving, what is left is thrown away. Raises ValueError if the
    supervisor has no store.
    """
    _checks.one_of("run", run, ("inline", "drain"))
    own = supervisor._store
    if own is None:
        raise ValueError("supervisor has no store: its jobs run in memory already")
    notes: list[Submission] = []
    store = _Recording(MemoryData(LoopClock()), notes.append)
    supervisor._store = lambda: store
    try:
        async with supervisor:
            jobs = StoredJobs(supervisor, store)
            store._accepted = jobs._note
            for queue in supervisor.queues:
                if run == "drain" and queue.stored is not False:
                    await supervisor.stored.pause(queue.name)
            if run == "inline":
                _run_inline(supervisor)
            yield jobs
            await supervisor.drain(0)
    finally:
        supervisor._store = own


def _run_inline(supervisor: Supervisor) -> None:
    """Have whoever submits wait for the end as well; who does so in a job lends its slot."""
    depot: Any = supervisor._depot
    submit = depot.submit

    async def and_wait(calls: Any) -> list[Job[Any]]:
        jobs: list[Job[Any]] = await submit(calls)
        for job in jobs:
            if (await supervisor.stored.get(job.id)).state is not JobState.SCHEDULED:
                await job.wait()
        return jobs

    depot.submit = and_wait
