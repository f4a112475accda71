"""A call worker has its bridge carry one call at a time, and settles what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

from asyncworkers import _checks
from asyncworkers._engine.attempt import UNFINISHED, Attempt, failure, unfinished
from asyncworkers._engine.bridged import BridgedWorker, Losses
from asyncworkers._engine.drive import own_context
from asyncworkers._engine.employment import employ
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._log import log
from asyncworkers.bridge import AbandoningBridge, Bridge, BridgeBroken
from asyncworkers.bridge.abandoning import forget_value
from asyncworkers.bridge.protocol import Work
from asyncworkers.errors import NotSerializable, WorkerCrashed
from asyncworkers.job import Job, running
from asyncworkers.outcome import Cancelled, Failed, Outcome, Succeeded, TimedOut
from asyncworkers.units import lasting

__all__ = ["Bridges", "CallWorker"]

BACK_OFF = 0.5
"""Seconds until a thread that could not be started is tried again."""

CLOSE = 1.0
"""Seconds that a bridge gets to close in good order."""

LEAVE = 0.5
"""Seconds in which a call must end whose bridge was killed."""

_EMPTY = Context()


class Bridges(Losses):
    """The bridges of a queue: `make(number)` makes one for the worker of that number."""

    def __init__(self, make: Callable[[int], Bridge], startup: float) -> None:
        super().__init__("bridge", "bridges")
        self.make = make
        self.startup = startup  # seconds in which a bridge must be ready

    def hire(self, queue: MemoryQueue, number: int) -> Attempt:
        """Start a worker for the queue, and with it a bridge."""
        worker = CallWorker(queue, number, self)
        employ(queue, worker, worker.work())
        return worker


class CallWorker(BridgedWorker):
    """A bridge and the one job it carries; as an attempt, the execution of that job.

    - `run` of the bridge has a task of its own for each job, in the job's context. That is what is
      cancelled, never the worker's own. When it has ended the job is settled, and the bridge is good
      for the next. If it does not end in time the bridge is killed, the job settled there and then,
      and this worker goes, as it does when the bridge breaks by itself: the next has a new bridge.
    - A bridge that can stop nothing has no such task. A job that is to end is settled at once, its
      call is left to run to its end, and only then does this worker go, and its slot with it.
    - So when the call has ended at last, its job may have been settled already: `job` is None then.
    """

    __slots__ = (
        "_at_rest",
        "_bridge",
        "_bridges",
        "_call",
        "_cause",
        "_ended",
        "_left",
        "_since",
        "_work",
    )

    def __init__(self, queue: MemoryQueue, number: int, bridges: Bridges) -> None:
        super().__init__(queue, number, bridges)
        self._bridges = bridges
        self._bridge: Bridge | None = None
        self._cause: str | None = None  # why the bridge is of no use any more
        self._call: asyncio.Future[Any] | None = None  # under way
        self._ended: asyncio.Future[None] | None = None  # told when it has ended
        self._work: Work | None = None
        self._left: Work | None = None  # what is carried although nobody waits for it
        self._at_rest = False  # it ends by itself when it is not needed
        self._since = queue.now()  # when the bridge was being made

    # ---- its life

    async def work(self) -> None:
        """Serve until nobody needs this worker, or its bridge is of no use; leave nothing behind."""
        if self.task is None:  # an eager task factory began us inside `submit`: not there
            await asyncio.sleep(0)
            if self.task is None:
                return  # to hire us failed half-way, for want of stack or memory
        self.home.crew.arrive(self)
        try:
            if await self._start():
                await self._serve()
                self._retire()
                if self._bridge is not None:
                    await self._close()
        finally:
            self._retire()
            self._hold(False)
            self.drop()
        if self._cause is not None and not self.retired:
            await self._mourn(self._cause)

    async def _start(self) -> bool:
        """Make the bridge; whether it can be used."""
        self._hold(True)
        patience = asyncio.timeout(self._bridges.startup)
        try:
            self._bridge = self._bridges.make(self.number)
            async with patience:
                await self._bridge.start()
        except BridgeBroken as error:
            if not self._abandons:
                self._cause = f"it could not be started: {_checks.summary(error)}"
                return False
            self._hold(False)  # there is no thread to be had, but there will be
            self._bridge = None
            self._lack = _checks.printable(str(error))
            await asyncio.sleep(BACK_OFF)
            return False
        except BaseException as error:
            if self._must_go(error):
                raise
            self._cause = f"it could not be started: {_checks.summary(error)}"
            if patience.expired():
                self._cause = f"it was not ready after {self._bridges.startup:g} s"
            return False
        self._hold(False)
        self._losses.ready[self] = None
        return True

    async def _serve(self) -> None:
        """Carry jobs, as long as there are any and the bridge is good."""
        queue = self.home
        while self._cause is None and self._left is None:
            job = self._take()
            if job is not None:
                await self._carry(job)
                del job  # it must not live as long as we wait
                continue
            self._at_rest = True
            if queue.excuse(self) or not await queue.crew.wait_ready(self):
                return
            self._at_rest = False

    async def _close(self) -> None:
        """Let the bridge close in good order."""
        assert self._bridge is not None
        self._at_rest = True
        try:
            async with asyncio.timeout(CLOSE):
                await self._bridge.close()
        except BaseException as error:
            if self._must_go(error):
                raise
            log.failure(f"bridge {self.number} of queue {self.home.name!r} did not close", error)
        finally:
            self._at_rest = False

    def drop(self) -> None:
        """Let go of the bridge at once, by force."""
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            try:
                bridge.kill()
            except BaseException as error:  # also SystemExit: it would end the loop
                log.failure(f"bridge {self.number} of queue {self.home.name!r} in kill()", error)

    def leave(self) -> float:
        """The supervisor closes: end, if nothing else tells this worker to."""
        self._end_rest()
        if not self._at_rest and self.worker is not None:
            self.worker.cancel("the supervisor closed")
        return CLOSE + LEAVE

    def _retire(self) -> None:
        self._losses.ready.pop(self, None)

    def _must_go(self, error: BaseException) -> bool:
        """Whether this error is meant for our own task, rather than an error of the bridge."""
        assert self.worker is not None
        return isinstance(error, GeneratorExit) or bool(self.worker.cancelling())

    @property
    def delay(self) -> str | None:
        """Its bridge is being started, cannot be, or must not be so soon after others have died."""
        if self._rest is not None:
            return f"no bridge is started for a while, because {self._cause}"
        if self._lack is not None:
            return self._lack
        if self not in self._losses.ready and self._cause is None:
            return f"its bridge is starting, for {lasting(self.home.now() - self._since)}"
        return None

    # ---- carrying a job

    async def _carry(self, job: Job[Any]) -> None:
        """Have the bridge carry the job, and settle it if nobody has meanwhile."""
        queue, order = self.home, job._order
        work = Work(order.function, job._args, job._kwargs or {}, _EMPTY, job.name)
        job._value = self
        self._work = work
        if not self._abandons:
            self.task = None  # there is no call yet that could be cancelled
        self._begin(job, queue.now())
        if self.job is not job:  # a listener cancelled it
            self._work = self._left = None
            return
        work._context = context = own_context(job)
        context.run(running.set, job)
        if order.timeout is not None:
            queue.timeouts.add(job._started + order.timeout, self, self.serial)
        self._hold(True)
        self._call = call = self._send(work, context)
        if self.verdict is not None and not self._abandons:
            call.cancel()  # a listener cancelled it
        await self._wait(call, work)
        self._call = self._ended = self._work = None
        self._hold(False)
        end: Any = asyncio.CancelledError() if call.cancelled() else call.result()
        if self.job is job:
            outcome = self._outcome(end, job)
            queue.conclude(job, self, outcome, queue.now())
        else:
            forget_value(end)
        if self._cause is None:
            self._losses.deaths = 0

    def _send(self, work: Work, context: Context) -> asyncio.Future[Any]:
        """Begin to carry the work; the future gets its end, or what the bridge raised."""
        bridge = self._bridge
        assert bridge is not None
        if isinstance(bridge, AbandoningBridge):
            return bridge.begin(work)
        self.task = None
        steps = _guarded(bridge, work)
        self.task = self.home.hub.loop.create_task(steps, context=context.copy())
        return self.task

    async def _wait(self, call: asyncio.Future[Any], work: Work) -> None:
        """Wait for the end of the call, which goes on if we are cancelled."""
        while not call.done() or self._ended is None:
            self._ended = ended = self.home.hub.loop.create_future()
            call.add_done_callback(self._wake, context=_EMPTY)
            try:
                await ended
            except asyncio.CancelledError as error:  # by a stranger, or at the supervisor's end
                if not self._abandons or self.home.hub.stopping is not None:
                    call.cancel()
                    raise
                if self.job is not None:
                    self._let_end(work, failure(error))

    def _wake(self, _call: object) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _outcome(self, end: Any, job: Job[Any]) -> Outcome:
        """What the end of a call means: a reason to cancel counts for more than how it ended."""
        verdict = self.verdict
        outcome: Outcome
        match end:
            case Succeeded(value):
                outcome = end
                if type(value) in UNFINISHED:
                    forget_value(end)
                    outcome = unfinished(value, job.name)
            case Failed(error) if isinstance(error, BaseException):
                outcome = failure(error)
            case NotSerializable():
                outcome = failure(end)
            case asyncio.CancelledError() if verdict is not None:
                return verdict
            case _:
                outcome = self._broken(end, job)
        return outcome if verdict is None else verdict

    def _broken(self, end: Any, job: Job[Any]) -> Failed:
        """The bridge has raised, or returned, something that is no end of a call."""
        if isinstance(end, BaseException):
            self._cause = f"its run() raised {_checks.summary(end)}"
            failure(end)  # its traceback is to begin with the bridge's code
        else:
            self._cause = f"its run() returned {_checks.shown(end)}, not Succeeded or Failed"
        if isinstance(end, WorkerCrashed):
            return Failed(end)
        crashed = WorkerCrashed(f"the bridge that carried {job.name} is broken: {self._cause}")
        crashed.__cause__ = end if isinstance(end, BaseException) else None
        return Failed(crashed)

    def _unready(self, job: Job[Any]) -> WorkerCrashed:
        return WorkerCrashed(f"no bridge could be made ready to run {job.name}: {self._cause}")

    # ---- ending it early

    @property
    def _abandons(self) -> bool:
        return isinstance(self._bridge, AbandoningBridge)

    @property
    def left(self) -> str | None:
        """The name of a call that runs on although nobody waits for it."""
        return None if self._left is None or self._call is None else self._left.name

    def cancel(self, verdict: Cancelled | TimedOut) -> bool:
        """Have the call stopped, or, where that cannot be, its job settled without it."""
        if not self._abandons:
            if self.task is None and self.job is not None and self.verdict is None:
                self.verdict = verdict  # it is only being begun: `_carry` cancels the call
                self.tell_token(verdict)
                return True
            return super().cancel(verdict)
        if self.job is None or self._work is None or self.verdict is not None:
            return False
        self.verdict = verdict  # first: what is told of it may cancel again, or ask only now
        self.tell_token(verdict)
        self._let_end(self._work, verdict)
        return True

    def _let_end(self, work: Work, outcome: Outcome) -> None:
        """Settle the job now; its call, which cannot be stopped, may notice, and end."""
        job = self.job
        assert job is not None
        token = self._token
        self._hold(False)
        self._left = work
        work.abandoned = True
        self.home.conclude(job, self, outcome, self.home.now())
        if token is not None:
            token.cancel("nobody waits for it any more")  # unless it was told why already
        if self._call is not None and not self._call.done():
            self.home.unwinding.let_end(self, job)

    def kill(self) -> bool:
        """End the job by force: it is settled at once, and its bridge is no more."""
        job, verdict = self.job, self.verdict
        if job is None or verdict is None:
            return False
        self._cause = "it was killed, because a job did not end when cancelled"
        number = job.attempt
        self.drop()
        self._hold(False)
        self.home.conclude(job, self, verdict, self.home.now())
        self.home.hub.loop.call_later(LEAVE, self._give_up, self._call, job, number)
        return True

    def _give_up(self, call: asyncio.Future[Any] | None, job: Job[Any], number: int) -> None:
        """The bridge was killed and is still carrying: let another worker take our place."""
        if call is not None and call is self._call and not call.done():
            what = "its bridge was killed and does not let go of it"
            self.home.unwinding.retire(self, job, number, what)
            call.cancel()


async def _guarded(bridge: Bridge, work: Work) -> Any:
    """How the call ended, or what the bridge raised: a SystemExit in a task would stop the loop."""
    try:
        return await bridge.run(work)
    except BaseException as error:
        return error
