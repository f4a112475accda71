"""The depot is all that one supervisor has of its store: opened with it, drained with it, closed last."""

from __future__ import annotations

import contextlib
import json
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias, cast

from asyncworkers import _checks
from asyncworkers._engine.attempt import Attempt
from asyncworkers._engine.hub import Hub
from asyncworkers._engine.stored.feeder import Feeder
from asyncworkers._engine.stored.forms import Form, Forms, Listed, written_for
from asyncworkers._engine.stored.keeper import Keeper
from asyncworkers._engine.stored.last_waits import end_waits
from asyncworkers._engine.stored.link import EMPTY, Link
from asyncworkers._engine.stored.queue import Held, StoredQueue, held_of
from asyncworkers._engine.stored.settler import Settler
from asyncworkers._engine.stored.views import Seen, Views
from asyncworkers._log import log
from asyncworkers.errors import ArgumentsMismatch, DuplicateJob, JobCancelled, StoreUnavailable
from asyncworkers.escort import packed
from asyncworkers.events import JobSubmitted
from asyncworkers.function import Call, JobFunction, Policies, policies_of
from asyncworkers.job import CANCELLED, ENDED, QUEUED, RUNNING, Job, Order, Progress, running_job
from asyncworkers.outcome import Cancelled
from asyncworkers.signed import SignedPickle
from asyncworkers.store.codec import encode_error, rebuild_error, stored_summary
from asyncworkers.store.protocol import (
    CODEC,
    LIMIT,
    Lease,
    Mark,
    Receipt,
    Settlement,
    Store,
    Submission,
    Transactional,
    Where,
)
from asyncworkers.units import agreed, counted

__all__ = ["Depot"]

DRAIN_WRITES = 1.0
"""Seconds that a drain waits for the store to take what has ended."""

LAST_WRITES = 5.0
"""Seconds in which the last settlements must be written when the supervisor closes."""

FIRST_LOOK, LAST_LOOK = 0.005, 0.25
"""Seconds between two looks at whether a transaction of the application has ended: doubled each time."""

LAST_TRIES = 3
"""How often the store is asked to close."""

UNDONE = "what it was to be committed with was undone"
TAKEN = "another job holds its unique key"
"""Why a job was not stored with what it was to be committed with."""

Unbound: TypeAlias = tuple[Any, tuple[Any, ...], dict[str, Any], str | None]
"""A call as function, arguments and the id it was given, if it was."""


class Depot:
    """Owns the link, the feeder, the settler, the keeper and the views."""

    def __init__(
        self,
        hub: Hub,
        store: Store,
        functions: dict[str, Listed],
        queues: Iterable[StoredQueue],
        queue_for: Callable[[Policies], Any],
        max_block: float,
        signed: Mapping[str, SignedPickle],
    ) -> None:
        self.hub = hub
        self._signed = signed
        self.store = store
        self.functions = functions
        self.queues = {queue.name: queue for queue in queues}
        self.draining = False
        self.link = Link(hub, store, self.stir)
        self.views = Views(self.link, functions, self._about_to_wait, self.listed_for)
        self.here: Mapping[str, weakref.ref[Job[Any]]] = self.views.here
        self.settler = Settler(self.link)
        self.keeper = Keeper(
            self.link,
            max_block,
            lost=self._lost,
            marked=self._marked,
            each_round=self._each_round,
        )
        self.trusts = self.keeper.trusts  # whether what was leased is ours for certain
        self.feeder = Feeder(
            self.link,
            self.queues.values(),
            functions,
            self.keeper.trusts,
            lambda: self.settler.backlog,
        )
        clock = hub.clock
        shelf_for: Callable[[Policies], Any] = lambda policies: self.views.shelf(  # noqa: E731
            queue_for(policies).name
        )
        self._queue_for = queue_for
        self._forms = Forms(functions, shelf_for, clock.wall, clock.random, signed)
        self._stirred = False
        self._open = False

    # ---- its life

    async def open(self) -> None:
        """Open the store and begin to work. Raises what the store raises."""
        try:
            codecs = (CODEC, "pickle/1") if self._signed else (CODEC,)
            await self.store.open(tuple(self.functions), codecs)
        except BaseException:
            with contextlib.suppress(Exception):  # it may have been opened all the same
                await self.store.close()
            raise
        self._open = True
        for queue in self.queues.values():
            queue.belong_to(self)
        self.hub.depot = self
        self.keeper.start()
        self.feeder.start()
        if any(queue.crew.workers for queue in self.queues.values()):
            self.link.see_to(self._say_unknown)

    def drain(self) -> None:
        """Lease nothing more; what has not begun goes back to the store, what runs runs on.

        A job that awaits one that is only stored would wait for who may never come, so it is stopped
        and goes back as well.
        """
        if self.draining:
            return
        self.draining = True
        self.feeder.stop()
        for queue in self.queues.values():
            queue.give_back("the supervisor drains")
        self._stop_waiting_for()
        self.stir()

    async def drained(self, seconds: float) -> None:
        """Nothing runs here any more: write what has ended, and give those who await what others run so
        many seconds more.
        """
        await self.settler.written(DRAIN_WRITES)
        await end_waits(self.views, seconds)

    async def close(self) -> None:
        """Write what is to be written, in bounded time, and let go of the store."""
        if not self._open:
            return
        self._open = False
        self.drain()
        try:
            await self.feeder.close()
            if not await self.settler.written(LAST_WRITES):
                number = self.settler.backlog
                jobs, they = counted(number, "job"), agreed(number, "it", "they")
                log.error(
                    "%s ended and the store could not be told: %s will be run again", jobs, they
                )
        finally:
            self.link.close()
            self.settler.close()
            self.views.close()
            await self._finish_background()
            await self.keeper.close()
            await self._close_store()

    async def _finish_background(self) -> None:
        for task in tuple(self.link.background):
            with contextlib.suppress(Exception):
                await task

    async def _close_store(self) -> None:
        for left in reversed(range(LAST_TRIES)):
            try:
                await self.store.close()
            except Exception as error:
                if not left:
                    log.failure("the store could not be closed", error)
            else:
                return

    def forget(self) -> None:
        """The loop was closed under us."""
        self.keeper.stop()

    # ---- turns

    def stir(self) -> None:
        """Settle and lease in the next turn of the loop, together."""
        if not self._stirred:
            self._stirred = True
            self.hub.loop.call_soon(self._turn, context=EMPTY)

    def _turn(self) -> None:
        self._stirred = False
        self.settler.flush()
        self.feeder.stir()

    async def _say_unknown(self) -> None:
        """Jobs of a function that was renamed wait for ever, and nothing fails: say that they do."""
        waiting: dict[str, int] = {}
        for counts in await self.store.counts():
            for name, number in counts.unknown.items():
                waiting[name] = waiting.get(name, 0) + number
        if waiting:
            names = sorted(waiting, key=lambda name: (-waiting[name], name))
            said = [f"{_checks.printable(name)} ({waiting[name]:,})" for name in names[:10]]
            log.info(
                "jobs wait in the store for functions that are not listed here: %s%s",
                ", ".join(said),
                ", ..." if len(names) > len(said) else "",
            )

    def _each_round(self) -> None:
        if not self.draining:
            for queue in self.queues.values():
                queue.give_back_stale()

    # ---- what its queues ask

    @property
    def trouble(self) -> str | None:
        """A sentence on what keeps jobs from being stored and run, if anything does."""
        if self.link.why is None and not self.keeper.trusts():
            return (
                "the store has not heard of this process for so long that its jobs are given away"
            )
        return self.link.why

    def listed_for(self, known: Listed, queue: str, ident: str, codec: str) -> Listed:
        """A listed function, as the values of this job are written.

        Raises ArgumentsMismatch if they are pickled, and the queue here is not declared so.
        """
        if codec == CODEC:
            return known
        signed = self._signed.get(queue)
        if signed is None:
            raise ArgumentsMismatch(
                f"it is written in {codec}, and queue {queue!r} is not declared with a codec here"
            )
        return written_for(known, signed, queue, ident)

    def write(self, settlement: Settlement, job: Job[Any], queue: Any) -> None:
        """Have a settlement written, and committed with what the job wrote itself."""
        held: Any = job._rare
        transaction = held.transaction
        if transaction is not None:
            held.transaction = None
            if settlement.verb == "complete":
                self.settler.commit(transaction, settlement, job, queue)
                return
            transaction.undo()
        self.settler.add(settlement, job, queue)

    def say(self, lease: Lease, progress: Progress) -> None:
        """Have the progress of a running job told."""
        text = json.dumps([progress.done, progress.total, progress.message])
        self.keeper.say(lease, text)

    def ended(self, job: Job[Any], held: Held, settlement: Settlement, state: int | None) -> None:
        """A leased job is over here; `state` is its end, None if it goes on in the store."""
        view = None if held.view is None else held.view()
        if view is None:
            view = self.views.find(held.id)
        if held.followers:
            self._decide(held, state is not None and settlement.verb == "complete")
        if state is not None:
            if view is not None:
                self.views.ended(view, state, settlement.data, job._finished)
            elif settlement.verb == "fail":
                self._say_failed(job, held, settlement.data)
        elif view is not None:
            error = settlement.data if settlement.verb == "retry" else None
            self.views.waits_again(view, settlement.delay, error)
            if self.draining:  # nobody here runs it any more: whoever awaits it must hear of that
                self._stop_waiting_for(view)

    def _say_failed(self, job: Job[Any], held: Held, error: str) -> None:
        log.error(
            "job %s (%s) failed in attempt %d and nobody here awaited it: %s; the store keeps all of "
            "its error",
            job.name,
            held.id,
            held.lease.attempt,
            stored_summary(error),
        )

    # ---- what its keeper tells

    def _lost(self, reason: str) -> None:
        for job in tuple(self.link.runs.values()):
            cast("StoredQueue", job._order.home).lose(job, reason)

    def _marked(self, marks: Iterable[Mark]) -> None:
        for mark in marks:
            job = self.link.runs.get(mark.id)
            held = None if job is None else job._rare
            if job is None or not isinstance(held, Held) or held.lease.token != mark.token:
                continue
            error = rebuild_error(mark.reason)
            reason = str(getattr(error, "reason", error))
            cast("StoredQueue", job._order.home).cancel_run(job, reason)

    # ---- waits at the end

    def _stop_waiting_for(self, job: Job[Any] | None = None) -> None:
        """Stop who awaits this job, or any, if it is only stored."""
        for queue in self.hub.queues:
            for attempt in tuple(queue.crew.members):
                for awaited in tuple(attempt.waits_for):
                    if job is None or awaited is job:
                        self._about_to_wait(attempt, awaited)

    def _about_to_wait(self, attempt: Attempt, job: Job[Any]) -> None:
        """While draining, nobody here will run what is only stored: who awaits that is stopped."""
        if self.draining and getattr(job._order.home, "run_of", None) is not None:
            self.hub.loop.call_soon(self._stop_waiting, attempt, attempt.serial, job, context=EMPTY)

    def _stop_waiting(self, attempt: Attempt, serial: int, awaited: Job[Any]) -> None:
        ours = awaited._uncommon().id in self.link.runs
        if ours or awaited.done() or attempt.serial != serial or attempt.job is None:
            return
        why = "the supervisor ends, and the job it awaits is left in the store"
        if attempt.job._state == RUNNING:
            cast("Any", attempt.job._order.home).unwinding.cancel(attempt, Cancelled(why))

    # ---- steering

    async def cancel_in_store(self, where: Where, reason: str) -> int:
        """Cancel jobs wherever they are; how many were reached."""
        text = f"the job was cancelled: {_checks.printable(reason)}"
        error = encode_error(JobCancelled(text, reason))
        reached = await self.store.cancel(where, error)
        for one in reached:
            run, view = self.link.runs.get(one.id), self.views.find(one.id)
            if one.running and run is not None:
                cast("StoredQueue", run._order.home).cancel_run(run, reason)
            elif not one.running and view is not None:
                self.views.ended(view, CANCELLED, error, self.hub.clock.now(), unread=False)
        return len(reached)

    def view_of(self, run: Job[Any]) -> Job[Any]:
        """What users see of a job that is leased here."""
        held = run._rare
        assert isinstance(held, Held)
        view = None if held.view is None else held.view()
        if view is None:
            order = Order(self.views.shelf(run.queue), run._order.policies, run._order.function)
            view = self.views.make(
                order, held.id, held.listed, run._args, run._kwargs, run._created
            )
            self.views.join(view, run)
        return view

    def find(self, ident: str) -> Job[Any] | None:
        """The job of this id, if it is leased or held here."""
        run = self.link.runs.get(ident)
        return self.views.find(ident) if run is None else self.view_of(run)

    # ---- submitting

    def takes(self, function: Any) -> bool:
        """Whether what is made of this function goes to the store.

        Raises TypeError or ValueError for what makes no job anywhere.
        """
        if type(function) is Call:
            function = cast("Call[Any]", function).function
        if function in self._forms:
            return True
        policies: Policies
        if isinstance(function, JobFunction):
            policies = cast("JobFunction[..., Any]", function).policies
        else:
            policies = policies_of(function)
        return bool(self._queue_for(policies).stored)

    async def submit(
        self, calls: Iterable[tuple[Any, tuple[Any, ...], dict[str, Any]]]
    ) -> list[Job[Any]]:
        """Store jobs, all or none; returns when that is committed.

        Raises what is wrong with a call, DuplicateJob, and StoreUnavailable: then whether they are
        stored is unknown.
        """
        unbound = [_unbound(*call) for call in calls]
        written = self._written(unbound)
        if len(written) > LIMIT:
            raise ValueError(
                f"a store takes at most {LIMIT:,} jobs at a time, not {len(written):,}"
            )
        if not written:
            return []
        job = running_job()
        if job is not None and getattr(job._rare, "transaction", None) is not None:
            raise RuntimeError(
                f"{job.name} holds the store with its transaction, and would wait for itself: "
                "supervisor.using(connection).submit(...)"
            )
        # The store may be at work on them while the views are made.
        receipts = self.store.submit([submission for _, submission in written])
        views = self._views_of(written, unbound)
        for name in {form.queue for form, _ in written}:
            self.feeder.submitted(name)
        return await self._received(written, views, await receipts)

    def _written(self, unbound: list[Unbound]) -> list[tuple[Form, Submission]]:
        """The calls written down, with the headers that the escort, if there is one, has them carry."""
        write, escort = self._forms.write, self.hub.escort
        written = [write(*call) for call in unbound]
        if escort is None:
            return written
        return [
            (form, new._replace(extra=packed(escort.headers(new.id, new.name, new.queue))))
            for form, new in written
        ]

    def _views_of(
        self,
        written: list[tuple[Form, Submission]],
        unbound: list[Unbound],
    ) -> list[Job[Any]]:
        make, now = self.views.make, self.hub.clock.now()
        return [
            make(
                form.order,
                new.id,
                form.listed
                if new.codec is CODEC
                else self.listed_for(form.listed, new.queue, new.id, new.codec),
                args,
                kwargs,
                now,
            )
            for (form, new), (_, args, kwargs, _) in zip(written, unbound, strict=True)
        ]

    async def submit_with(
        self,
        what: object,
        calls: Iterable[tuple[Any, tuple[Any, ...], dict[str, Any]]],
        leader: Job[Any] | None,
    ) -> list[Job[Any]]:
        """Store jobs together with something else: with the end of a running job, `leader`; with what
        a job's transaction writes; or with what the application has open on a connection of its own.
        """
        unbound = [_unbound(*call) for call in calls]
        written = self._written(unbound)
        batch = [submission for _, submission in written]
        views = self._views_of(written, unbound)
        if leader is not None:
            held = held_of(leader, "using(current_job())")
            held.follow += tuple(batch)
            self._follow(held, leader, views)
            return views
        transaction = getattr(what, "effect", None)
        if transaction is None:
            store = cast("Transactional", self.store)
            if not hasattr(self.store, "submit_on"):
                raise StoreUnavailable(f"{type(self.store).__name__} is not in a database of yours")
            receipts = store.submit_on(what, batch)
            for view in views:
                cast("Seen", view._rare).leader = what
            watch = partial(self._has_ended, what, views, FIRST_LOOK)
            self.hub.loop.call_later(FIRST_LOOK, watch, context=EMPTY)
        else:
            receipts = await transaction.submit(batch)
            for run in self.link.runs.values():
                if getattr(run._rare, "transaction", None) is transaction:
                    self._follow(cast("Held", run._rare), run, views)
        return await self._received(written, views, receipts)

    def _follow(self, held: Held, leader: Job[Any], views: list[Job[Any]]) -> None:
        for view in views:
            cast("Seen", view._rare).leader = leader
        held.followers += tuple(views)

    def _has_ended(self, connection: Any, views: list[Job[Any]], seconds: float) -> None:
        """Look whether the application's transaction has ended, until it has."""
        with contextlib.suppress(Exception):  # it was closed: that ends it too
            if connection.in_transaction:
                seconds = min(2 * seconds, LAST_LOOK)
                watch = partial(self._has_ended, connection, views, seconds)
                self.hub.loop.call_later(seconds, watch, context=EMPTY)
                return

        async def ask() -> None:
            found = await self.store.get([view.id for view in views])
            await cast("Transactional", self.store).committed()
            for view, record in zip(views, found, strict=True):
                self.views.decided(view, UNDONE if record is None else None)

        if not self.link.closed:
            self.link.see_to(ask)
            for view in views:
                self.feeder.submitted(view.queue)

    def _decide(self, held: Held, committed: bool) -> None:
        """The leader's end is written: its followers are in the store, unless another job holds the key
        of one that was submitted with the end itself; the others have had their answer.
        """
        keys = {new.id: new.unique.key for new in held.follow if new.unique is not None}
        keyed: list[Job[Any]] = []
        for view in held.followers:
            if committed and view.id in keys:
                keyed.append(view)
            else:
                self.views.decided(view, None if committed else UNDONE)

        async def ask() -> None:
            found = await self.store.get([view.id for view in keyed])
            for view, record in zip(keyed, found, strict=True):
                taken = record is None and view._state < ENDED
                if taken:
                    text = "job %s (%s) was not stored: %s %r"
                    log.warning(text, view.name, view.id, TAKEN, keys[view.id])
                self.views.decided(view, TAKEN if taken else None)

        if keyed and not self.link.closed:
            self.link.see_to(ask)

    async def _received(
        self,
        written: list[tuple[Form, Submission]],
        views: list[Job[Any]],
        receipts: list[Receipt],
    ) -> list[Job[Any]]:
        now = self.hub.clock.now()
        told = bool(self.hub.listeners)
        others: dict[int, str] = {}
        for place, ((form, new), receipt) in enumerate(zip(written, receipts, strict=True)):
            ident, outcome = receipt.id, receipt.outcome
            if outcome == "rejected":
                raise DuplicateJob(f"job {ident} holds the unique key of {form.listed.name}", ident)
            if outcome == "existing":
                others[place] = ident
                continue
            if form.policies.delay is not None and views[place]._state == QUEUED:
                wait = new.delay if new.due is None else new.due - self.hub.clock.wall()
                self.views.waits_again(views[place], max(0.0, wait), None)
            if told:
                details = new.id, form.listed.name, form.queue, form.policies.tags
                self.hub.listeners.emit(JobSubmitted(now, *details))
        if others:
            records = await self.store.get(list(others.values()))
            for (place, ident), record in zip(others.items(), records, strict=True):
                there = self.views.find(ident) if record is None else self.views.of(record)
                if there is not None:
                    views[place] = there
                else:
                    views[place]._uncommon().id = ident
        return views


def _unbound(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any], str | None]:
    """A call as function, arguments and the id it was given, if it was."""
    if type(function) is not Call:
        return function, args, kwargs, None
    if args or kwargs:
        raise TypeError("a bound call has its arguments: submit(f.bind(x)), nothing more")
    call = cast("Call[Any]", function)
    return call.function, call.args, call.kwargs, call.job_id
