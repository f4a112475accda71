"""Carries out a plan with the real Supervisor on a SimLoop, and keeps a record of what happened.

The record holds the supervisor's own events and, in between, marks that the jobs themselves make,
so that what is claimed can be compared with what was done.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from clients import Clients
from jobs import EPSILON, TENANT
from plan import MAPS, Disturbance, Plan, Spec

from asyncworkers import JobState, Queue, QueueFull, Supervisor
from asyncworkers.events import AttemptStarted, Event, JobSettled, JobSubmitted

STOP = 1.0
"""A stop is bounded: so many seconds after the grace it is over, whatever jobs do."""


class Planned(Exception):
    """Raised in the body of the supervisor's block, to leave it by an exception."""


class World(Clients):
    """One run: the supervisor, those who use it, those who disturb it, and what is wrong."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.supervisor = self._make_supervisor()

    def _make_supervisor(self) -> Supervisor:
        plan = self.plan
        default = Queue(
            "default",
            plan.workers,
            maxsize=plan.maxsize,
            isolation=plan.isolation,  # type: ignore[arg-type]
            unwind=plan.unwind,
            ageing=plan.ageing,
        )
        threads = Queue("threads", plan.threads, kind="threads", unwind=plan.unwind)
        listeners: list[Callable[[Event], object]] = []
        if plan.told:
            listeners.append(self.history.append)
            if plan.bad_listener_at is not None:
                listeners.append(self._bad_listener)
            if plan.meddler_at is not None:
                listeners.append(self._meddler)
        return Supervisor(queues=[default, threads], listeners=listeners, grace=plan.grace)

    # ------------------------------------------------------------------ disturbances

    def _bad_listener(self, _event: Event) -> None:
        self._events_told += 1
        if self._events_told > (self.plan.bad_listener_at or 0):
            self.tally["bad listener"] += 1
            raise RuntimeError("a bad listener")

    def _meddler(self, event: Event) -> None:
        """A listener that cancels a job, or who gives jobs, in the middle of what it is told."""
        if not isinstance(event, AttemptStarted) or self.plan.meddler_at != event.worker:
            return
        if self.plan.meddles_with == "client":
            number = event.attempt % len(self.plan.clients)
            self._give_up(self.plan.clients[number], self._awaiting[number])
            return
        for key, job in self.jobs.items():
            if job.id == event.job_id and job.cancel("meddled with"):
                self.disturbed.add(key)

    async def _disturb(self) -> None:
        for disturbance in sorted(self.plan.disturbances, key=lambda each: each.at):
            await asyncio.sleep(max(0.0, disturbance.at - self.loop.time()))
            self._do(disturbance)
            self.check_accounts()

    def _do(self, disturbance: Disturbance) -> None:
        supervisor = self.supervisor
        match disturbance.what:
            case "pause":
                supervisor.pause(disturbance.queue)
            case "resume":
                supervisor.resume(disturbance.queue)
            case "resize":
                supervisor.resize(disturbance.queue, disturbance.number)
            case "cancel" if self.jobs:
                key = list(self.jobs)[disturbance.number % len(self.jobs)]
                spec = next(spec for spec in self.plan.specs() if spec.key == key)
                self._cancel(spec, self.jobs[key])
            case "outbid":
                self._outbid()
            case "strangle":
                self._strangle(disturbance.number)
            case "ambush" if disturbance.spec is not None:
                self._ambush(disturbance.spec)
                self._strangle(disturbance.number)
            case "look":
                supervisor.explain()
                supervisor.stats()
                for job in supervisor.jobs():
                    if supervisor.get(job.id) is not job or not job.why:
                        self.wrong(f"get and jobs differ about {job!r}")
            case "listen":
                self._stop_listening.append(supervisor.listen(_listener))
            case "deafen" if self._stop_listening:
                self._stop_listening.pop()()

    def _strangle(self, number: int) -> None:
        """Cancel a task of the supervisor behind its back, as a job does that cancels all tasks."""
        ours = {*self._awaiting, *self._left_tasks, asyncio.current_task(), self._body_task}
        theirs = [task for task in asyncio.all_tasks() if task not in ours and is_worker(task)]
        if theirs:
            theirs[number % len(theirs)].cancel()
            self.tally["strangled"] += 1

    def _outbid(self) -> None:
        """Make room in the line, and take away at once whoever has waited longest for it."""
        queued = (key for key, job in self.jobs.items() if job.state is JobState.QUEUED)
        key = next(queued, None)
        if key is None or not self._submitting:
            return
        spec = next(spec for spec in self.plan.specs() if spec.key == key)
        self._cancel(spec, self.jobs[key])
        client, task = self._submitting[0]
        self._give_up(client, task)
        self.tally["outbid"] += 1

    def _ambush(self, spec: Spec) -> None:
        """Give the supervisor a job, for which it wakes or hires somebody."""
        self._tenants[spec.key] = TENANT.get()
        try:
            self._know(spec, self.supervisor.submit_nowait(self.function(spec), spec))
        except QueueFull:
            self.tally["queue full"] += 1

    def _restore(self) -> None:
        """Let everything run again, or nothing would ever end."""
        for queue in self.supervisor.queues:
            self.supervisor.resume(queue.name)
            if self.supervisor.stats().queues[queue.name].workers == 0:
                self.supervisor.resize(queue.name, 1)

    def check_accounts(self) -> None:
        """Every accepted job is somewhere, and only there; the figures are those of the events."""
        told: Counter[tuple[str, str]] = Counter()
        for entry in self.history:
            if isinstance(entry, JobSubmitted):
                told[entry.queue, "submitted"] += 1
            elif isinstance(entry, JobSettled):
                told[entry.queue, entry.state] += 1
        maps = any(client.how in MAPS for client in self.plan.clients)
        maps = maps or any(spec.maps for spec in self.plan.specs())
        for name, queue in self.supervisor.stats().queues.items():
            ended = queue.succeeded + queue.failed + queue.cancelled
            there = queue.running + queue.queued + queue.scheduled
            if queue.submitted != ended + there:
                self.wrong(f"the accounts of {name} do not agree: {queue}")
            if min(queue.queued, queue.scheduled, queue.running, queue.lent) < 0:
                self.wrong(f"a figure of {name} is negative: {queue}")
            if not self.plan.told:
                continue
            for figure in ("succeeded", "failed", "cancelled"):
                if getattr(queue, figure) != told[name, figure]:
                    self.wrong(f"{told[name, figure]} jobs of {name} were {figure}: {queue}")
            # Items that a map has taken from its iterable wait in line, and are no jobs yet.
            if told[name, "submitted"] != queue.submitted and not (maps and there):
                self.wrong(f"{told[name, 'submitted']} jobs were given to {name}: {queue}")

    # ------------------------------------------------------------------ the whole run

    async def run(self) -> None:
        """Open the supervisor, let everything happen, close it, and wait until dust has settled."""
        body = self._body_task = asyncio.create_task(self._body(), name="body")
        if self.plan.ending == "cancel":
            self.loop.call_later(self.plan.ends_at, body.cancel)
        try:
            await body
        except (Planned, asyncio.CancelledError):
            if self.plan.ending not in ("raise", "cancel"):
                self.wrong("the supervisor's block was left by an exception")
        if self.supervisor.state != "closed":
            self.wrong(f"the supervisor is {self.supervisor.state} after its end")
        for number, ended in enumerate(
            await asyncio.gather(*self._awaiting, return_exceptions=True)
        ):
            if isinstance(ended, Exception):
                self.wrong(f"client {number} got {ended!r}")
        self.check_accounts()
        begun = self._begun_on_the_loop()
        await asyncio.sleep(20)  # longer than any stubborn job
        if self._begun_on_the_loop() != begun:
            self.wrong("a job began after the supervisor had ended")
        left = asyncio.all_tasks() - {asyncio.current_task()} - set(self._left_tasks)  # type: ignore[arg-type]
        if left:
            self.wrong(f"tasks were left: {left}")
        if self.plan.enters_again:
            await self._enter_again()

    def _begun_on_the_loop(self) -> int:
        """How many attempts have begun; blocking calls may begin late, nobody can stop a thread."""
        blocking = {spec.key for spec in self.plan.specs() if spec.blocking}
        return sum(count for key, count in self.begun.items() if key not in blocking)

    async def _body(self) -> None:
        plan, supervisor = self.plan, self.supervisor
        left_at = None
        try:
            async with supervisor:
                disturbing = asyncio.create_task(self._disturb(), name="disturbing")
                self._awaiting += [
                    asyncio.create_task(self._be_client(number, client), name=f"client {number}")
                    for number, client in enumerate(plan.clients)
                ]
                try:
                    await asyncio.sleep(1000 if plan.ending == "cancel" else plan.ends_at)
                finally:
                    disturbing.cancel()
                    left_at = self.loop.time()
                    await self._settle_disturbing(disturbing)
                await self._leave()
        finally:
            bounded = plan.ending in ("raise", "cancel", "cancel all", "drain")
            limit = STOP + (plan.grace + STOP if plan.ending == "drain" else 0)
            if bounded and left_at is not None and self.loop.time() - left_at > limit + EPSILON:
                self.wrong(f"stopping took {self.loop.time() - left_at:.3f} s")

    async def _settle_disturbing(self, disturbing: asyncio.Task[None]) -> None:
        try:
            await disturbing
        except asyncio.CancelledError:
            return
        except Exception as error:
            self.wrong(f"steering raised {error!r}")

    async def _leave(self) -> None:
        plan, supervisor = self.plan, self.supervisor
        if plan.ending == "raise":
            raise Planned
        self._restore()
        if plan.ending == "normal" and plan.patient:
            await asyncio.wait(self._awaiting)
        if plan.ending == "cancel all":
            supervisor.cancel_all("the plan ends so")
        if plan.ending == "drain":
            await self._drain()

    async def _drain(self) -> None:
        began = self.loop.time()
        there = {job.id for job in self.jobs.values() if not job.done()}
        report = await self.supervisor.drain(self.plan.grace)
        took = self.loop.time() - began
        if took > self.plan.grace + STOP + EPSILON:
            self.wrong(f"a drain with {self.plan.grace} s of grace took {took:.3f} s")
        named: list[str] = []
        for name in ("done", "cancelled", "not_started", "abandoned"):
            self.tally[f"drain: {name}"] += len(getattr(report, name))
            named.extend(getattr(report, name))
        if len(set(named)) != len(named) or not there <= set(named):
            self.wrong(f"{report} does not name each of {there} once")

    async def _enter_again(self) -> None:
        async with self.supervisor as supervisor:
            spec = Spec(0, (0.1,))
            self._tenants[0] = TENANT.get()
            job = await supervisor.submit(self.function(spec), spec)
            if await job != 0:
                self.wrong("entered again, it gives wrong results")


def is_worker(task: asyncio.Task[Any]) -> bool:
    """Whether this is the task of one of the supervisor's workers."""
    coroutine: Any = task.get_coro()
    return getattr(coroutine, "__qualname__", "") == "work"


def _listener(_event: Event) -> None:
    """A listener that is there, and no more: with it every job is told of."""


def quiet_logging() -> None:
    """Turn the package's own log off: thousands of planned failures are no news."""
    logging.getLogger("asyncworkers").setLevel(logging.CRITICAL + 1)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
