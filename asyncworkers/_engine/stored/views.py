"""Views: the Jobs that users hold of what is in the store, whoever runs it."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import Callable, Generator, Mapping
from contextvars import Context
from datetime import datetime
from typing import Any, TypeVar, cast

from asyncworkers import _checks
from asyncworkers._engine.attempt import Attempt
from asyncworkers._engine.explain import explain_job
from asyncworkers._engine.stored.forms import Listed
from asyncworkers._engine.stored.link import Link
from asyncworkers.errors import ArgumentsMismatch, JobCancelled, JobNotFound, WouldDeadlock
from asyncworkers.function import Policies
from asyncworkers.job import (
    CANCELLED,
    ENDED,
    FAILED,
    QUEUED,
    RUNNING,
    SCHEDULED,
    STATES,
    SUCCEEDED,
    Failure,
    Job,
    Order,
    Progress,
    Rare,
    outcome_of,
)
from asyncworkers.outcome import Outcome
from asyncworkers.store.codec import FunctionCodec, encode_error, rebuild_error, stored_error
from asyncworkers.store.protocol import Cancelled, StoredJob, Where
from asyncworkers.units import lasting

__all__ = ["JobView", "Seen", "Shelf", "Views"]

T_co = TypeVar("T_co", covariant=True)

SETTLES = 0.01
"""Seconds after which a job that is awaited, and was not leased here, is looked for in the store."""

WINDOW = 64
"""Jobs that are watched at once; the others have their turn, and all are looked at now and then."""

SWEEP = 1.0
"""Seconds after which all that are awaited are looked at."""

ELSEWHERE = "another process must run it, and may do so already"
"""Of a job that nobody here will run: what becomes of it is heard by who awaits it, or asks the store."""

AT_ONCE = 1_000
"""Jobs that are read at a time."""


class Seen(Rare):
    """What a view is beside an ordinary job: the text of its result, until somebody wants it.

    `leader`: whose commit decides whether it is stored at all, None once that is known.
    """

    __slots__ = ("closed", "codec", "known", "leader", "seen", "text")

    def __init__(self, ident: str, listed: Listed | None) -> None:
        super().__init__(0)
        self.id = ident
        self.codec: FunctionCodec | None = None if listed is None else listed.codec
        self.known: tuple[type[Exception], ...] = () if listed is None else listed.known
        self.text: str | None = None
        self.leader: object = None
        self.closed = False  # nothing will be heard of it any more


class JobView(Job[T_co]):
    """A Job that is in a store. What it says of itself was last heard from there, or is happening
    here; awaiting it reads the result, whichever process ran it.
    """

    __slots__ = ()

    @property
    def stored(self) -> bool:
        """Whether it lives in a store, and outlives this process."""
        return True

    def result(self) -> T_co:
        """Its value, or raise what it failed with; `asyncio.InvalidStateError` before the end."""
        self._read()
        return super().result()

    def __await__(self) -> Generator[Any, None, T_co]:
        if self._state < ENDED:
            yield from self._until_ended()
        self._read()
        return (yield from super().__await__())

    def _until_ended(self) -> Generator[Any, None, None]:
        home = cast("Shelf", self._order.home)
        home.check_open(cast("Job[Any]", self))
        yield from super()._until_ended()
        if self._state < ENDED:
            home.check_open(cast("Job[Any]", self))

    def _watch(self, waiter: asyncio.Future[None] | Callable[[Job[Any]], object]) -> None:
        super()._watch(waiter)
        cast("Shelf", self._order.home).awaited(cast("Job[Any]", self))

    def _outcome(self) -> Outcome:
        self._read()
        return super()._outcome()

    def _runner(self) -> Any:
        """The attempt that runs it here, or None."""
        run = cast("Shelf", self._order.home).run_of(cast("Job[Any]", self))
        return None if run is None else run._runner()

    def _read(self) -> None:
        """Read the result, once."""
        rare = self._rare
        if isinstance(rare, Seen) and rare.text is not None and self._state == SUCCEEDED:
            codec = rare.codec or _ANY
            self._value = codec.decode_result(rare.text)
            rare.text = None


class ViewRef(weakref.ref[Job[Any]]):
    """How a view is found by its id as long as anybody holds it. (A WeakValueDictionary does the
    same at several times the price, which each job would pay.)
    """

    __slots__ = ("ident",)
    ident: str


class Shelf:
    """The home of the views of one queue."""

    def __init__(self, views: Views, queue: str) -> None:
        self._views = views
        self.name = queue
        self.hub = views.link.hub

    def job_id(self, job: Job[Any]) -> str:
        return job._uncommon().id

    def utc(self, moment: float) -> datetime:
        return self.hub.clock.utc(moment)

    def create_future(self) -> asyncio.Future[None]:
        """A future of the supervisor's loop; raises WrongLoop anywhere else."""
        self.hub.check_loop()
        return self.hub.loop.create_future()

    def run_of(self, job: Job[Any]) -> Job[Any] | None:
        """The leased job, if it is here."""
        return self._views.link.runs.get(job._uncommon().id)

    def check_open(self, job: Job[Any]) -> None:
        """Raise SupervisorClosed if nothing more will be heard of the job."""
        rare = job._rare
        if (isinstance(rare, Seen) and rare.closed) or self._views.closed:
            raise self._views.link.closed_error(f"job {job.id} is kept there, await it elsewhere")

    def awaited(self, job: Job[Any]) -> None:
        self._views.awaited(job)

    def cancel(self, job: Job[Any], reason: str) -> bool:
        """Cancel it wherever it is; False if it is known to have ended."""
        self.hub.check_loop()
        if job._state >= ENDED:
            return False
        run = self.run_of(job)
        if run is not None and run._state < ENDED:
            return bool(cast("Any", run._order.home).cancel_run(run, reason))
        self._views.cancel(job, reason)
        return True

    def lender(self, job: Job[Any]) -> Attempt | None:
        """The attempt that is about to await the job, if a job of this supervisor is."""
        attempt = self.hub.attempt_here()
        if attempt is not None and attempt.job is not None:
            if cast("Seen", job._rare).leader is attempt.job:
                raise WouldDeadlock(
                    f"{job!r} is stored when {attempt.job!r}, which awaits it, ends"
                )
            if _leads_to(job, attempt):
                raise WouldDeadlock(f"{attempt.job!r} awaits {job!r}, which waits for it to end")
            self._views.about_to_wait(attempt, job)
        return attempt

    def explain_job(self, job: Job[Any]) -> str:
        return self._views.explain(job)


class Views:
    """All views there are, found by id while anybody holds them; and the watch over those that are
    awaited and not run here.
    """

    def __init__(
        self,
        link: Link,
        functions: Mapping[str, Listed],
        about_to_wait: Callable[[Attempt, Job[Any]], None],
        listed_for: Callable[[Listed, str, str, str], Listed],
    ) -> None:
        self._listed_for = listed_for
        self.link = link
        self.closed = False
        self.about_to_wait = about_to_wait
        self._functions = functions
        self._shelves: dict[str, Shelf] = {}
        self.here: dict[str, ViewRef] = {}  # by id, while anybody holds them
        self._awaited: dict[str, Job[Any]] = {}
        self._newly: list[Job[Any]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._stirred: asyncio.Future[None] | None = None
        self._waiting: asyncio.Future[bool] | None = None
        self._window = 0

    def shelf(self, queue: str) -> Shelf:
        """The home of the views of a queue."""
        found = self._shelves.get(queue)
        if found is None:
            found = self._shelves[queue] = Shelf(self, queue)
        return found

    def find(self, ident: str) -> Job[Any] | None:
        """The view of this id, if anybody holds one."""
        known = self.here.get(ident)
        return None if known is None else known()

    def _keep(self, view: Job[Any], ident: str) -> None:
        self.here[ident] = known = ViewRef(view, self._dropped)
        known.ident = ident

    def _dropped(self, known: ViewRef) -> None:
        found = self.here.pop(known.ident, None)
        if found is not None and found is not known:  # another view has its id by now
            self.here[known.ident] = found

    def make(
        self,
        order: Order,
        ident: str,
        listed: Listed,
        args: tuple[Any, ...],
        kwargs: Any,
        now: float,
    ) -> Job[Any]:
        """The view of a job that is being submitted."""
        there = self.here.get(ident)
        if there is not None:
            known = there()
            if known is not None and known._state < ENDED:
                return known
        view: Job[Any] = JobView(order, args, kwargs or None, None, now)
        view._rare = Seen(ident, listed)
        self._keep(view, ident)
        return view

    def of(self, record: StoredJob) -> Job[Any]:
        """The view of a job as it was read."""
        view = self.find(record.id)
        if view is None:
            listed = self._functions.get(record.name)
            if listed is not None:
                try:
                    listed = self._listed_for(listed, record.queue, record.id, record.codec)
                except ArgumentsMismatch:
                    listed = None
            policies = Policies(None, True, {})
            policies.name, policies.queue = record.name, record.queue
            policies.priority, policies.tags = record.priority, tuple(record.tags)
            function = _nothing if listed is None else listed.function
            order = Order(self.shelf(record.queue), policies, function)
            made: Job[Any] = JobView(order, *_arguments(listed, record), None, 0.0)
            view = made
            view._rare = Seen(record.id, listed)
            self._keep(view, record.id)
        self.refresh(view, record)
        run = self.link.runs.get(record.id)
        if run is not None and run._state < ENDED and view._state < ENDED:
            self.join(view, run)
        return view

    def join(self, view: Job[Any], run: Job[Any]) -> None:
        """A job that is leased here is shown by this view from now on, made perhaps after it began."""
        cast("Any", run._rare).view = weakref.ref(view)
        rare = view._uncommon()
        rare.progress = run.progress or rare.progress
        if run._state == RUNNING:
            view._state, view._started, rare.tries = RUNNING, run._started, run.attempt

    # ---- what is heard of them

    def refresh(self, view: Job[Any], record: StoredJob | None) -> None:
        """The job as it was read from the store; None: it is not there (any more)."""
        rare = cast("Seen", view._uncommon())
        clock = self.link.hub.clock
        if view._state >= ENDED and (record is None or record.ended is not None):
            return
        if record is None:
            gone = JobNotFound(f"job {rare.id} is not in the store (any more)")
            self._fail(view, FAILED, gone, unread=False)
            return
        offset = clock.now() - clock.wall()
        view._created = record.submitted + offset
        if record.started is not None:
            view._started = record.started + offset
        rare.tries = record.attempt
        rare.due = record.due + offset
        rare.progress = _progress(record.progress) or rare.progress
        if record.ended is not None:
            moment = record.ended + offset
            if record.error is not None and record.state.value != "succeeded":
                self.ended(view, STATES.index(record.state), record.error, moment, unread=False)
            else:
                self.ended(view, SUCCEEDED, record.result or "null", moment)
        elif self.link.runs.get(rare.id) is None or view._state >= ENDED:
            view._state = STATES.index(record.state)
            rare.last_error = stored_error(record.error).type if record.error else None

    def ended(
        self, view: Job[Any], state: int, text: str, moment: float, *, unread: bool = True
    ) -> None:
        """The job has ended, and that is committed; `text` is its result or its error."""
        if view._state >= ENDED:
            return
        rare = cast("Seen", view._uncommon())
        if state == SUCCEEDED:
            rare.text = text
            self._end(view, SUCCEEDED, None, moment)
        else:
            error = rebuild_error(text, rare.known)
            self._fail(view, state, error, moment, unread=unread and state == FAILED)

    def _fail(
        self,
        view: Job[Any],
        state: int,
        error: Exception,
        moment: float | None = None,
        *,
        unread: bool,
    ) -> None:
        failure = Failure(error, outcome_of(error), view._uncommon().id, view.name)
        failure.unread = unread
        self.link.hub.failures.add(failure)
        self._end(view, state, failure, self.link.hub.clock.now() if moment is None else moment)

    def _end(self, view: Job[Any], state: int, value: Any, moment: float) -> None:
        view._value, view._finished = value, moment
        view._state = state
        self._awaited.pop(view._uncommon().id, None)
        if view._waiters is not None:
            view._wake()

    def waits_again(self, view: Job[Any], delay: float, error: str | None) -> None:
        """The job was put back, here, and may go on anywhere."""
        if view._state >= ENDED:
            return
        rare = view._uncommon()
        view._state = SCHEDULED if delay > 0 else QUEUED
        rare.due = self.link.hub.clock.now() + delay
        if error is not None:
            rare.last_error = stored_error(error).type
        if view._waiters is not None:
            self.awaited(view)

    def decided(self, view: Job[Any], missing: str | None) -> None:
        """It is known now whether the job was stored with what it was to be committed with: None, or
        why it was not.
        """
        rare = cast("Seen", view._uncommon())
        if rare.leader is None:
            return
        rare.leader = None
        if view._state >= ENDED:
            return  # it has run, and may be forgotten already
        if missing is not None:
            text = f"job {view.name} was not stored: {missing}"
            self._fail(view, CANCELLED, JobCancelled(text, "never stored"), unread=False)
        elif view._waiters is not None:
            self.awaited(view)

    # ---- those that are awaited

    def awaited(self, view: Job[Any]) -> None:
        """Somebody waits for the end of this job; most are leased here in a moment, or are already."""
        if self.closed or view._state >= ENDED:
            return
        self._newly.append(view)
        if self._timer is None:
            self._timer = self.link.hub.loop.call_later(SETTLES, self._take_up, context=Context())

    def _take_up(self) -> None:
        self._timer = None
        newly, self._newly = self._newly, []
        for view in newly:
            ident = view._uncommon().id
            if cast("Seen", view._rare).leader is not None:
                continue  # it is awaited anew once that is decided
            if view._state < ENDED and ident not in self.link.runs and view._waiters is not None:
                self._awaited[ident] = view
        if not self._awaited:
            return
        if self._task is None:
            self._task = self.link.hub.loop.create_task(self._watch(), context=Context())
        elif self._stirred is not None and not self._stirred.done():
            self._stirred.set_result(None)
        elif self._waiting is not None and self._window < min(WINDOW, len(self._awaited)):
            self._waiting.cancel()

    async def _watch(self) -> None:
        link, loop = self.link, self.link.hub.loop
        swept = loop.time()
        while not self.closed:
            self._prune()
            ids = [one for one in self._awaited if one not in link.runs][:WINDOW]
            if not ids:
                self._stirred = loop.create_future()
                await self._stirred
                self._stirred = None
                continue
            self._window = len(ids)
            self._waiting = waiting = link.start(lambda: link.store.wait_ended(ids, SWEEP))  # noqa: B023
            try:
                ended = await waiting
                if ended:
                    await self._look(ids)
                if loop.time() - swept >= SWEEP and len(self._awaited) > len(ids):
                    await self._look([*self._awaited])
                    swept = loop.time()
            except asyncio.CancelledError:
                if not waiting.cancelled() or self._has_closed():
                    raise
            except Exception as error:
                await link.pause(link.missed("maintain", error))
            finally:
                self._waiting = None

    def _has_closed(self) -> bool:
        return self.closed

    def _prune(self) -> None:
        for ident, view in tuple(self._awaited.items()):
            if view._state >= ENDED or view._waiters is None:
                del self._awaited[ident]

    async def _look(self, ids: list[str]) -> None:
        for start in range(0, len(ids), AT_ONCE):
            part = ids[start : start + AT_ONCE]
            for ident, record in zip(part, await self.link.store.get(part), strict=True):
                view = self._awaited.get(ident)
                if view is not None and ident not in self.link.runs:
                    self.refresh(view, record)

    # ---- steering

    def cancel(self, view: Job[Any], reason: str) -> None:
        """Have a job cancelled that is not here; nobody waits for the store's answer."""
        ident = view._uncommon().id
        text = f"job {view.name} was cancelled: {_checks.printable(reason)}"
        error = encode_error(JobCancelled(text, reason))

        async def ask() -> None:
            reached: list[Cancelled] = await self.link.store.cancel(Where(ids=(ident,)), error)
            if any(not one.running for one in reached):
                self.ended(view, CANCELLED, error, self.link.hub.clock.now(), unread=False)
            elif not reached:
                (record,) = await self.link.store.get([ident])
                self.refresh(view, record)

        self.link.see_to(ask)

    def explain(self, view: Job[Any]) -> str:
        """One sentence on what the job is waiting for or doing, as far as it is known here."""
        if view._state >= ENDED:
            return explain_job(view, cast("Any", None))
        run = self.link.runs.get(view._uncommon().id)
        if run is not None and run._state < ENDED:
            return run._order.home.explain_job(run)
        if run is not None:
            return f"{STATES[view._state]}: its end is being written to the store"
        state = STATES[view._state]
        if self.closed:
            return f"{state}: in the store, which this supervisor has closed"
        if self.link.why is not None:
            return f"{state}: {self.link.why}"
        if view._state == RUNNING:
            return f"running: attempt {view.attempt}, in another process"
        return self._why_stored(view, state)

    def _why_stored(self, view: Job[Any], state: str) -> str:
        """Of a job that waits in the store."""
        if view.name not in self._functions:
            return (
                f"{state}: no process here knows function {view.name!r}: "
                "one whose supervisor lists it must run it"
            )
        rare = view._uncommon()
        wait = rare.due - self.link.hub.clock.now()
        if view._state == SCHEDULED and wait > 0:
            why = "its delay ends" if rare.last_error is None else "it is tried again"
            because = "" if rare.last_error is None else f", because it raised {rare.last_error}"
            return f"scheduled: {why} in {lasting(wait)}{because}"
        return f"queued: in the store, {self.why_waits(view.queue)}"

    def why_waits(self, queue: str) -> str:
        """Why nobody here takes a job of this queue."""
        for one in self.link.hub.queues:
            found = cast("Any", one)
            if found.name == queue:
                if found.paused:
                    return f"and queue {queue!r} is paused here"
                if not found.crew.workers:
                    return f"and queue {queue!r} has no workers here: {ELSEWHERE}"
                if found.capacity()[0] <= 0:
                    return f"for a free worker: {found.explain().splitlines()[0]}"
                return "for a worker to take it, unless its queue is paused in the store"
        return f"and there is no queue {queue!r} here: {ELSEWHERE}"

    def close(self) -> None:
        """Nothing more is heard of them: whoever waits is told."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        known, self.here = self.here, {}
        for view in filter(None, [one() for one in known.values()]):
            rare = view._rare
            if not isinstance(rare, Seen):
                continue
            rare.closed = True
            if view._state < ENDED and view._waiters is not None:
                waiters: Any = view._waiters
                each = cast("list[Any]", waiters if type(waiters) is list else [waiters])
                for waiter in tuple(each):  # they leave the list
                    if isinstance(waiter, asyncio.Future):
                        woken = cast("asyncio.Future[None]", waiter)
                        view._unwatch(woken)
                        if not woken.done():
                            woken.set_result(None)
                    else:
                        error = self.link.closed_error(f"job {rare.id} is kept there")
                        self._fail(view, FAILED, error, unread=False)
                        break


def _leads_to(job: Job[Any], goal: Attempt) -> bool:
    """Whether the job, or one that it awaits through any number of others, is what this attempt runs."""
    seen: set[int] = set()
    open_jobs = [job]
    while open_jobs:
        one = open_jobs.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        attempt = one._runner()
        if attempt is goal:
            return True
        if attempt is not None:
            open_jobs.extend(attempt.waits_for)
    return False


def _progress(text: str | None) -> Progress | None:
    if text is None:
        return None
    try:
        done, total, message = json.loads(text)
    except ValueError:
        return None
    return Progress(done, total, message)


def _arguments(
    listed: Listed | None, record: StoredJob
) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
    if listed is None:
        return (), None
    try:
        args, kwargs = listed.codec.decode_arguments(record.args)
    except Exception:  # what is stored does not fit any more
        return (), None
    return args, kwargs or None


def _nothing(*_args: Any, **_kwargs: Any) -> Any:
    """Stands for a function that is not known here."""


_ANY = FunctionCodec(_nothing, "a function that is not known here")
