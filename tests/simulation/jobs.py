"""What the jobs of a simulated run do, and the record they keep of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from plan import Client, Plan, Spec

import asyncworkers
from asyncworkers import (
    GiveUp,
    Job,
    JobCancelled,
    JobFailed,
    JobFunction,
    JobTimedOut,
    Retry,
    RetryLater,
    Supervisor,
    SupervisorClosed,
    current_job,
)
from asyncworkers.events import Event
from asyncworkers.testing import SimLoop

TENANT: ContextVar[str | None] = ContextVar("tenant", default=None)

EPSILON = 1e-6
"""Seconds that do not matter."""


class Boom(Exception):
    """The failure that Retry(on=Boom) tries again."""


EXPECTED = (Boom, RetryLater, GiveUp, ValueError, TypeError, JobFailed, JobCancelled, JobTimedOut)


@dataclass(frozen=True, slots=True)
class Mark:
    """Something the events do not tell, in their order: a job's code begins or ends, lends its slot
    or takes it back, runs in its thread; somebody cancels it.
    """

    at: float
    what: str
    key: int
    job_id: str | None = None


class Jobs:
    """The jobs of one run, the supervisor they are given to, and what is wrong."""

    supervisor: Supervisor

    def __init__(self, plan: Plan) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        self.loop = loop
        self.plan = plan
        self.history: list[Event | Mark] = []
        self.problems: list[str] = []
        self.jobs: dict[int, Job[Any]] = {}
        self.seen: dict[int, tuple[Any, BaseException | None]] = {}
        self.refused: set[int] = set()
        self.disturbed: set[int] = set()
        self.begun: Counter[int] = Counter()
        self.tally: Counter[str] = Counter()
        self._tenants: dict[int, str | None] = {}
        self._functions: dict[object, JobFunction[Any, Any]] = {}
        self._awaiting: list[asyncio.Task[None]] = []
        self._left_tasks: list[asyncio.Task[None]] = []
        self._events_told = 0
        self._submitting: list[tuple[Client, asyncio.Task[Any]]] = []
        self._body_task: asyncio.Task[None] | None = None
        self._stop_listening: list[Callable[[], None]] = []

        async def on_the_loop(spec: Spec) -> int:
            return await self._coroutine(spec)

        def in_a_thread(spec: Spec) -> int:
            return self._blocking(spec)

        self._plain: tuple[Callable[[Spec], Any], Callable[[Spec], Any]] = on_the_loop, in_a_thread

    def wrong(self, problem: str) -> None:
        """Note that something is wrong."""
        self.problems.append(f"t={self.loop.time():.3f}: {problem}")

    # ------------------------------------------------------------------ the jobs

    def function(self, spec: Spec) -> Any:
        """The job's function, plain if it needs no policy, else one of those of its policy."""
        plain = self._plain[spec.blocking]
        options: dict[str, Any] = {}
        for name in ("timeout", "expires", "delay", "priority"):
            if getattr(spec, name):
                options[name] = getattr(spec, name)
        if spec.attempts is not None:
            options["retry"] = Retry(spec.attempts, on=Boom, delay=spec.retry_delay, jitter=False)
        if not options:
            return plain
        policy = (spec.blocking, tuple(options.items()))
        if policy not in self._functions:
            self._functions[policy] = asyncworkers.job(plain, **options)
        return self._functions[policy]

    async def _coroutine(self, spec: Spec) -> Any:
        number = self._begin(spec)
        try:
            return await self._act(spec, number)
        finally:
            self._mark("end", spec)

    def _blocking(self, spec: Spec) -> int:
        number = self._begin(spec)
        self._mark("thread", spec)
        if spec.sets_context:
            TENANT.set(f"set by {spec.key}")
        if number <= spec.fails:
            self._go_wrong(spec)
        return spec.key

    def _begin(self, spec: Spec) -> int:
        self.begun[spec.key] += 1
        number = self.begun[spec.key]
        job_id = None
        if spec.asks_who_it_is or self.plan.told:
            me = current_job()
            job_id = me.id
            if me.attempt < number or me.attempts != (spec.attempts or 1):
                self.wrong(f"job {spec.key} runs attempt {me.attempt} of {me.attempts}")
            known = self.jobs.get(spec.key)
            if known is not None and known.id != me.id:
                self.wrong(f"job {spec.key} is {known.id} and runs as {me.id}")
            me.report(number, spec.attempts)
        if TENANT.get() != self._tenants[spec.key]:
            self.wrong(f"job {spec.key} sees the context of another: {TENANT.get()}")
        if number > (spec.attempts or 1):
            self.wrong(f"job {spec.key} runs for the {number}th time")
        self._mark("begin", spec, job_id)
        return number

    async def _act(self, spec: Spec, number: int) -> Any:
        if spec.sets_context:
            TENANT.set(f"set by {spec.key}")
        if spec.leaves_task:
            self._left_tasks.append(asyncio.create_task(asyncio.sleep(50)))
        left = spec.stubborn
        for seconds in spec.steps:
            while True:
                try:
                    await asyncio.sleep(seconds)
                    break
                except asyncio.CancelledError:
                    if not left:
                        raise
                    left -= 1
                    seconds = 0.15
        if spec.children:
            await self._have_children(spec)
        if number <= spec.fails:
            if spec.mishap == "cancels itself":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)
            if spec.mishap == "returns a coroutine":
                return asyncio.sleep(0)
            self._go_wrong(spec)
        return spec.key

    def _go_wrong(self, spec: Spec) -> None:
        match spec.mishap:
            case "boom":
                raise Boom(spec.key)
            case "later":
                raise RetryLater(spec.retry_delay)
            case "give up":
                raise GiveUp
            case "value error":
                raise ValueError(spec.key)
            case "system exit":
                raise SystemExit(spec.key)
            case "cancelled error":
                raise asyncio.CancelledError

    async def _have_children(self, spec: Spec) -> None:
        if spec.maps:
            await self._map_children(spec)
            return
        jobs: list[Job[Any]] = []
        for child in spec.children:
            try:
                with self._lending(spec):
                    jobs.append(await self._submit(child))
            except SupervisorClosed:
                self.refused.add(child.key)

        async def wait_for(job: Job[Any]) -> None:
            with self._lending(spec), contextlib.suppress(*EXPECTED):
                await job

        if spec.key % 2:
            for job in jobs:
                await wait_for(job)
        else:
            await asyncio.gather(*(wait_for(job) for job in jobs))

    async def _map_children(self, spec: Spec) -> None:
        for child in spec.children:
            self._tenants[child.key] = TENANT.get()
        function = self.function(spec.children[0])
        try:
            with self._lending(spec):
                found = await self.supervisor.map(function, spec.children, window=1)
            if found != [child.key for child in spec.children]:
                self.wrong(f"a map inside a job gave {found}")
        except EXPECTED:
            self.disturbed.update(child.key for child in spec.children)
        except SupervisorClosed:
            self.refused.update(child.key for child in spec.children)
        except asyncio.CancelledError:
            self.disturbed.update(child.key for child in spec.children)
            raise

    @contextlib.contextmanager
    def _lending(self, spec: Spec) -> Iterator[None]:
        self._mark("lend", spec)
        try:
            yield
        finally:
            self._mark("back", spec)

    def _mark(self, what: str, spec: Spec, job_id: str | None = None) -> None:
        self.history.append(Mark(self.loop.time(), what, spec.key, job_id))

    async def _submit(self, spec: Spec) -> Job[Any]:
        self._tenants[spec.key] = TENANT.get()
        job = await self.supervisor.submit(self.function(spec), spec)
        self._know(spec, job)
        return job

    def _know(self, spec: Spec, job: Job[Any]) -> None:
        if spec.key in self.jobs and self.jobs[spec.key] is not job:
            self.wrong(f"two Jobs for job {spec.key}")
        self.jobs[spec.key] = job
