"""The intake makes jobs of calls and puts them in their queues, or says why it does not."""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from asyncio import _get_running_loop
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from datetime import datetime
from typing import Any, cast

from asyncworkers import _checks
from asyncworkers._arity import arity_of
from asyncworkers._engine.crew import AT_ONCE
from asyncworkers._engine.hub import Hub
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.supply import Plan
from asyncworkers.bridge.steps import Heavy, Unwanted
from asyncworkers.bridge.terms import has_gil, kind_for_cpu
from asyncworkers.errors import SupervisorClosed
from asyncworkers.function import Call, JobFunction, Policies, policies_of
from asyncworkers.job import Job, Order, running, running_job

__all__ = ["Intake", "here"]

if sys.version_info < (3, 12):
    import threading

    here: Callable[[], object] = threading.get_ident
else:
    here: Callable[[], object] = _get_running_loop
"""Where we are, to be compared with where the supervisor is; never raises, unlike asyncio's
`get_running_loop`. On Python 3.11 asking for the running loop makes a system call; the thread
tells as much as long as the supervisor's loop runs, for a thread may run two loops in turn."""

BY_THREAD = sys.version_info < (3, 12)

_intakes: weakref.WeakSet[Intake] = weakref.WeakSet()
"""All there are, to be shut in a forked child."""


class Intake:
    """What a supervisor that was entered takes in, and where it puts it.

    `accepting` is true while it takes everything; `refusal` makes the error for what it does not
    take. `gate` is then the one that the orders of ordinary jobs carry, so that one look tells
    that a job is ordinary and is accepted. While draining it still takes what its own jobs
    submit (`from_jobs`): that belongs to what is being finished.
    """

    def __init__(self, hub: Hub, queues: dict[str, MemoryQueue]) -> None:
        self.hub = hub
        self.queues = queues
        self.here = here()
        self.is_running = hub.loop.is_running
        self.accepting = True
        self.gate = object()
        self.from_jobs = False
        self.refusal: Callable[[], Exception] = lambda: SupervisorClosed("nothing is accepted")
        _intakes.add(self)

    def shut(self, refusal: Callable[[], Exception], *, from_jobs: bool = False) -> None:
        """Accept nothing more, but perhaps what running jobs submit; `refusal` makes the error."""
        self.accepting, self.from_jobs, self.refusal = False, from_jobs, refusal
        self.gate = object()  # which no order carries

    def check(self) -> None:
        """Raise what there is to say against a job that is submitted here and now."""
        if self.accepting and _get_running_loop() is self.hub.loop:
            return
        self.hub.check_loop()
        parent = running_job() if self.from_jobs and self.hub.stopping is None else None
        if parent is None or parent._runner() is None or _hub_of(parent) is not self.hub:
            raise self.refusal()

    def take_ordinary(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Job[Any] | None:
        """Make and put the ordinary job of a function that was submitted here before.

        The path of each job: it asks only what could make the job another than an ordinary one,
        and answers None then, for `make` and `put` to do it all, or to say what is wrong.
        """
        if type(function) is not JobFunction:
            return None
        order: Order = function.last_order
        if order.gate is not self.gate or here() != self.here:
            return None
        if BY_THREAD and not self.is_running():
            return None
        queue = cast("MemoryQueue", order.home)
        room, line = queue.room, queue.line
        if room.waiters or len(line) + room.promised >= room.limit:
            return None
        if kwargs or not order.fewest <= len(args) <= order.most:
            order.arity.check(order.name, args, kwargs)
        context = copy_context()
        if context and running in context:
            return None  # a job submits it, and that is to be known
        job: Job[Any] = Job(order, args, kwargs or None, context or None, queue.now())
        crew = queue.crew
        if crew.calls < AT_ONCE and (crew.idle or crew.spare > 0):
            crew.staff(1)
        queue.line.append(job)  # which may be another now: to hire may run the code of others
        if queue.told:
            queue.teller.submitted(job)
        return job

    def take_packed(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], light: bool = False
    ) -> Job[Any] | None:
        """As `take_ordinary`, for a function whose calls are packed for another process.

        Raises NotSerializable if this one cannot be; and Heavy if it must be `light` and is not.
        """
        if type(function) is not JobFunction or function.last_hub is not self.hub:
            return None
        order: Order = function.last_order
        if order.pack is None or not order.policies.simple or not self.accepting:
            return None
        queue = cast("MemoryQueue", order.home)
        if here() != self.here or queue.ending or queue.is_full() or copy_context():
            return None
        if kwargs or not order.fewest <= len(args) <= order.most:
            order.arity.check(order.name, args, kwargs)
        job: Job[Any] = Job(order, args, kwargs or None, None, queue.now())
        job._value = order.pack(args, kwargs, None, light)
        queue.line.append(job)  # which may be another now: an argument's own code was run
        queue.crew.staff(1)
        if queue.told:
            queue.teller.submitted(job)
        return job

    def make(
        self,
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        light: bool = False,
        heavy: Heavy | None = None,
    ) -> Job[Any]:
        """The job of a call, not yet in its queue: all that can be refused is refused here.

        Raises Heavy if it must be `light` and is not. If it was `heavy` it is packed later.
        """
        self.check()
        if type(function) is Call:
            if args or kwargs:
                raise TypeError("a bound call has its arguments: submit(f.bind(x)), nothing more")
            call = cast("Call[Any]", function)
            if call.job_id is not None:
                raise ValueError(
                    f"with_id is for jobs in a store: {call!r} goes to a queue in memory, "
                    "where the supervisor gives ids"
                )
            args, kwargs, function = call.args, call.kwargs, call.function
        order = self.order(function)
        if kwargs or not order.fewest <= len(args) <= order.most:
            order.arity.check(order.name, args, kwargs)
        context, parent = _surroundings()
        if not order.plain:
            context = _chosen(context, order.policies)
        job: Job[Any] = Job(order, args, kwargs or None, context, self.hub.clock.now())
        if parent is not None:
            rare = job._uncommon()
            rare.parent, rare.depth = parent, parent._depth() + 1
        if order.pack is not None and heavy is None:
            job._value = order.pack(args, job._kwargs, context, light)
        return job

    async def make_aside(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], heavy: Heavy
    ) -> Job[Any]:
        """As `make`, for a call so heavy that it is packed in a thread."""
        job = self.make(function, args, kwargs, heavy=heavy)
        with contextlib.suppress(Unwanted):  # the supervisor has closed, as `check` says
            job._value = heavy.version, await self.hub.aside.do(heavy.pack)
        self.check()
        return job

    def put(self, job: Job[Any]) -> None:
        """Put a job that was made here in its queue."""
        order = job._order
        queue = cast("MemoryQueue", order.home)
        if order.policies.simple and job._rare is None:
            queue.put(job)
        else:
            queue.put_special(job, self._delay(order.policies), order.policies.expires)

    def plan(self, function: Any) -> Plan:
        """What a stream that starts here and now needs to know."""
        self.check()
        order = self.order(function)
        context, parent = _surroundings()
        queue = cast("MemoryQueue", order.home)
        if queue.ending is not None:
            raise SupervisorClosed(f"nothing is mapped any more: {queue.ending}")
        delay = self._delay(order.policies)
        return Plan(queue, order, _chosen(context, order.policies), delay, parent)

    def check_mapped(self, function: Any) -> None:
        """Raise what there is to say against jobs of this function and one argument each."""
        order = self.order(function)
        if not order.fewest <= 1 <= order.most:
            order.arity.check(order.name, (None,), {})

    def order(self, function: Any) -> Order:
        """What the jobs of this function have in common here; remembered by a JobFunction."""
        if not isinstance(function, JobFunction):
            policies = policies_of(function)
            return _order(self.queue_for(policies), policies, function)
        known = cast("JobFunction[..., Any]", function)
        if known.last_hub is not self.hub:
            queue = self.queue_for(known.policies)
            order = _order(queue, known.policies, known.function)
            if order.plain and self.accepting and not queue.stored:
                order.gate = self.gate
            known.last_order, known.last_hub = order, self.hub
            self.hub.functions.add(known)
        return cast("Order", known.last_order)

    def queue(self, name: str) -> MemoryQueue:
        """The queue of this name; raises ValueError if there is none."""
        found = self.queues.get(_checks.queue_name("queue", name))
        if found is None:
            raise ValueError(f"there is no queue {name!r}: {_checks.nearest(name, self.queues)}")
        return found

    def queue_for(self, policies: Policies) -> MemoryQueue:
        """The queue of these policies; raises ValueError if there is none or of another kind."""
        queue = self.queue(policies.queue)
        form, kinds = "async def", ["loop"]
        if policies.cpu:
            form, kinds = "def and cpu=True", ["processes", "interpreters", "bridge"]
            if kind_for_cpu(gil=has_gil()) == "threads":
                kinds.append("threads")
        elif policies.blocking:
            form, kinds = "def", ["threads", "processes", "interpreters", "bridge"]
        if queue.kind not in kinds:
            raise ValueError(
                f"queue {queue.name!r} is of kind {queue.kind!r}; "
                f"a function made with {form} runs on a queue of kind {' or '.join(kinds)}"
            )
        return queue

    def _delay(self, policies: Policies) -> float:
        delay = policies.delay
        return self.hub.clock.until(delay) if isinstance(delay, datetime) else delay or 0.0


def _shut_in_child() -> None:
    """A forked child has a copy of the queues and nobody who serves them. What was accepted there
    would be lost, so nothing is: `check` finds the other process, and says so.
    """
    for intake in tuple(_intakes):
        intake.accepting, intake.gate = False, object()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_shut_in_child)


def _surroundings() -> tuple[Context | None, Job[Any] | None]:
    """What a job keeps of where it is submitted: a snapshot of the context variables, if there
    are any but our own, and the job whose code submits it.
    """
    context = copy_context()
    if not context:
        return None, None
    if len(context) == 1 and running in context:
        return None, running_job()
    return context, running_job()


def _chosen(context: Context | None, policies: Policies) -> Context | None:
    """The part of the submitter's context that the function wants."""
    if policies.context == "none":
        context = None
    elif policies.context != "submitter":
        chosen = Context()
        for var in cast("tuple[ContextVar[Any], ...]", policies.context):
            if context is not None and var in context:
                chosen.run(var.set, context[var])
        context = chosen or None
    return Context() if context is None and policies.sets_context else context


def _order(queue: MemoryQueue, policies: Policies, function: Callable[..., Any]) -> Order:
    if policies.for_stores and not queue.stored:
        raise ValueError(
            f"{policies.for_stores}= is for jobs in a store, and queue {queue.name!r} is in memory"
        )
    order = Order(queue, policies, function)
    order.takes(arity_of(function))
    if queue.kind == "processes" and not queue.clock.simulated:
        from asyncworkers.bridge.parcel import cargo_of

        order.pack = cargo_of(function).pack
    return order


def _hub_of(job: Job[Any]) -> object:
    return getattr(job._order.home, "hub", None)
