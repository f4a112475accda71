"""What all queues of one supervisor share: its loop, its clock, its listeners and its unfinished jobs."""

from __future__ import annotations

import asyncio
import itertools
import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from asyncworkers import _checks
from asyncworkers._engine.aside import Aside
from asyncworkers._engine.attempt import Attempt
from asyncworkers._engine.clock import Clock
from asyncworkers._engine.escorting import Escorting
from asyncworkers._log import log
from asyncworkers.errors import SupervisorClosed, WrongLoop, WrongProcess
from asyncworkers.events import Listeners, LoopStalled
from asyncworkers.function import JobFunction, NoOrder
from asyncworkers.job import ENDED, Failure, Job, running_job

__all__ = ["Hub", "Witness"]


class Reader(Protocol):
    """What the hub needs of a stream that is being read."""

    @property
    def queue(self) -> object: ...
    def busy(self) -> bool: ...
    def abort(self, reason: str) -> None: ...


Witness: TypeAlias = Callable[[Job[Any], Exception], object]
"""Is shown a job and the error that an attempt of it has just ended with; it must keep neither."""


class ServedQueue(Protocol):
    """What the hub needs of its queues."""

    name: str
    told: bool
    crew: Any
    unwinding: Any

    def unfinished(self) -> list[Job[Any]]: ...
    def close(self) -> None: ...


class Depot(Protocol):
    """What ends of a store with its supervisor; `trouble` says what keeps it from it, if anything."""

    @property
    def trouble(self) -> str | None: ...
    def drain(self) -> None: ...
    async def close(self) -> None: ...
    def forget(self) -> None: ...


class Hub:
    """Shared by the queues, streams and workers of one supervisor, in one event loop.

    A job that has not ended is kept alive by where it is: its queue's line, its agenda, its attempt.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Listeners,
        name: str,
        crashed: Callable[[str, BaseException], None],
    ) -> None:
        self.loop = loop
        self.clock = Clock(loop)
        self.aside = Aside(loop, self.clock)
        self.listeners = listeners
        self.name = name
        self.crashed = crashed
        self.pid = os.getpid()
        self._host: tuple[asyncio.Task[Any], int] | None = None  # and how often it was cancelled
        self.index: dict[str, Job[Any]] = {}  # unfinished jobs whose id was asked for
        self.open = 0  # unfinished jobs, counted while somebody waits for quiet
        self.queues: tuple[ServedQueue, ...] = ()
        self.readers: dict[Reader, None] = {}  # of streams that are not finished
        self.numbers = itertools.count(1)
        self.prefix = f"{self.clock.random.getrandbits(32):08x}"
        self.failures: weakref.WeakSet[Failure] = weakref.WeakSet()
        self.stopping: str | None = None  # why nothing is started or tried again any more
        self.finishing: list[dict[Job[Any], None]] = []  # for each who drains: what is abandoned
        self.functions: weakref.WeakSet[JobFunction[..., Any]] = weakref.WeakSet()
        self.depot: Depot | None = None  # what there is of a store
        self.witnesses: list[Witness] = []  # who is shown the errors of attempts
        self.stalls: tuple[int, float, LoopStalled | None] = 0, 0.0, None  # of them, seconds, worst
        self.escort: Escorting | None = None
        self._quiet: list[asyncio.Future[None]] = []

    def hosted_by(self, task: asyncio.Task[Any] | None) -> None:
        """Remember whose block the supervisor is; None if it is nobody's."""
        self._host = None if task is None else (task, task.cancelling())

    def is_torn_down(self) -> bool:
        """Whether the task that holds the supervisor was cancelled: what cancels the workers' tasks now
        cancels all of them, as `asyncio.run` and servers do at the end.
        """
        if self._host is None:
            return False
        task, before = self._host
        return task.cancelling() > before  # one that is done has perhaps only handed us on

    def job_id(self, job: Job[Any]) -> str:
        """The job's id, given when first asked for: a number after a prefix no other supervisor has."""
        rare = job._rare or job._uncommon()
        if not rare.id:
            rare.id = f"{self.prefix}-{next(self.numbers)}"
            if job._state < ENDED:
                self.index[rare.id] = job
        return rare.id

    def is_here(self) -> bool:
        """Whether this is called in the supervisor's event loop."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def attempt_here(self) -> Attempt | None:
        """The attempt whose code is asking, if it is one of this supervisor's."""
        attempt = self.lender_here()
        return attempt if attempt is not None and attempt.hub is self else None

    def lender_here(self) -> Attempt | None:
        """The attempt whose code is asking, if it is one of any supervisor in this loop: whatever it
        waits for here, it lends its slot meanwhile, or two that give jobs to each other stood still.
        """
        job = running_job()
        attempt = None if job is None else job._runner()
        return attempt if isinstance(attempt, Attempt) and attempt.hub.loop is self.loop else None

    def check_loop(self) -> None:
        """Raise WrongLoop unless called in this supervisor's event loop."""
        if not self.is_here():
            self.check_process()
            if self.loop.is_closed():
                raise SupervisorClosed(f"the event loop of supervisor {self.name!r} is closed")
            raise WrongLoop(
                f"supervisor {self.name!r} belongs to another event loop or thread: "
                "use submit_threadsafe, or call_soon_threadsafe of its loop"
            )

    def check_process(self) -> None:
        """Raise WrongProcess in a process that was forked after the supervisor was entered."""
        if os.getpid() != self.pid:
            raise WrongProcess(
                f"supervisor {self.name!r} runs in process {self.pid}, this is {os.getpid()}: "
                "make and enter another one here"
            )

    def escort_with(self, escort: Escorting | None) -> None:
        """Have every job escorted from now on, or none any more."""
        self.escort = escort
        self.refresh()

    def refresh(self) -> None:
        """Note who wants to hear of each job, where the workers look."""
        for queue in self.queues:
            queue.told = bool(self.listeners) or bool(self._quiet) or self.escort is not None

    def unfinished(self) -> list[Job[Any]]:
        """Every job that has not ended, oldest first."""
        jobs = [job for queue in self.queues for job in queue.unfinished()]
        return sorted(jobs, key=_created)

    def at_work(self) -> bool:
        """Whether there may be jobs; a quick look, from any thread."""
        return any(queue.crew.members for queue in self.queues)

    def job_came(self) -> None:
        """A job was accepted while somebody waits for quiet, or listens."""
        self.open += 1

    def job_ended(self) -> None:
        """A job ended while somebody waits for quiet, or listens."""
        self.open -= 1
        self.check_quiet()

    def recount(self) -> None:
        """Count the unfinished jobs anew, after a fault that may have left some out."""
        self.open = len(self.unfinished())
        self.check_quiet()

    def check_quiet(self) -> None:
        """Tell who waits for it if nothing goes on by itself any more."""
        if self._quiet and self._is_quiet():
            for future in self._quiet:
                if not future.done():
                    future.set_result(None)

    def check_quiet_soon(self) -> None:
        """The same at the loop's next turn."""
        if self._quiet:
            self.loop.call_soon(self.check_quiet)

    async def wait_quiet(self, seconds: float | None) -> bool:
        """Wait until nothing goes on any more, at most so many seconds; whether it came so."""
        future: asyncio.Future[None] = self.loop.create_future()
        self._quiet.append(future)
        self.refresh()
        self.recount()
        timer = None if seconds is None else self.loop.call_later(seconds, _resolve, future)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()
            self._quiet.remove(future)
            self.refresh()
        return self._is_quiet()

    def _is_quiet(self) -> bool:
        if self.open > 0 or any(queue.unwinding.calls for queue in self.queues):
            return False
        return not any(reader.busy() for reader in self.readers)

    def show_error(self, job: Job[Any], error: Exception) -> None:
        """Show an attempt's error to who wants to see it; one who raises sees no more."""
        for witness in tuple(self.witnesses):
            try:
                witness(job, error)
            except BaseException as trouble:  # also SystemExit: it must not end the loop
                self.witnesses.remove(witness)
                log.failure(f"{_checks.shown(witness)} raised and is shown no more errors", trouble)

    def let_functions_go(self) -> None:
        """No job function keeps hold of this supervisor's queues."""
        for function in self.functions:
            if function.last_hub is self:
                function.last_hub, function.last_order = None, NoOrder

    def tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks of all workers, those of abandoned attempts included."""
        attempts = (
            attempt
            for queue in self.queues
            for attempt in (*queue.crew.members, *queue.crew.zombies)
        )
        tasks = {task for attempt in attempts for task in (attempt.task, attempt.worker)}
        return [task for task in tasks if task is not None]


def _created(job: Job[Any]) -> float:
    return job._created


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
