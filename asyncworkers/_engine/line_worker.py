"""A line worker feeds a child process: it keeps its line short but never empty, and settles what comes back."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import Any, cast

from asyncworkers import _checks
from asyncworkers._engine.attempt import Attempt, failure
from asyncworkers._engine.bridged import BridgedWorker, Losses
from asyncworkers._engine.children import ChildStats
from asyncworkers._engine.employment import employ
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._log import log
from asyncworkers.bridge.child import ring, wire
from asyncworkers.bridge.child.freight import Freight, unpack
from asyncworkers.bridge.echo import levels, say
from asyncworkers.bridge.failure import crashed, rebuild, said_of, unready
from asyncworkers.bridge.freighter import Loaded
from asyncworkers.bridge.heavy import LIGHT, load_gently
from asyncworkers.bridge.parcel import Parcel
from asyncworkers.bridge.process import ProcessBridge
from asyncworkers.bridge.protocol import BridgeBroken
from asyncworkers.bridge.steps import Heavy, Step
from asyncworkers.bridge.terms import Terms
from asyncworkers.errors import NotSerializable, WorkerCrashed
from asyncworkers.events import ChildEnded, ChildStarted
from asyncworkers.job import QUEUED, RUNNING, SUCCEEDED, Job, Progress
from asyncworkers.outcome import Cancelled, Failed, Outcome, Release, Succeeded, TimedOut

__all__ = ["Children", "LineWorker"]

LINE = 0.001
"""Seconds of work that may wait in a child's line behind the job it runs."""

LONG = 0.004
"""Seconds: behind a job that takes longer nothing waits, and what does is taken back."""

LOOK = 0.002
"""Seconds between two looks at a child that is busy; they become rarer while nothing changes."""

SOON, RARELY = 0.01, 0.25
"""Seconds between two looks at most: until the child has begun its job, and afterwards."""

LOOKS = 3
"""Looks at what a job does that is to be given up while its child comes to it."""

START = 60.0
"""Seconds in which a child must begin what it was sent."""

KNOWN = 1_000
"""Functions that a child keeps; the one defined first is forgotten first."""

LEAVE = 0.5
"""Seconds that a child gets to end by itself when it is not needed any more, and when it was killed."""

FOUND = -1
"""Instead of a record's kind: the value is to be unpacked of what was found in the arena."""

MADE = -2
"""Instead of a record's kind: the value was unpacked in a thread, or there is an error."""

SAID_AT_ONCE = 50
"""Log records of one child that are logged in one turn of the loop."""

HURRY = 0.1
"""Seconds that it gets for that when the supervisor closes."""

_HOME, _DIED, _WORN = "it is not needed any more", "it died", "it has served enough"

Sent = tuple[Job[Any], Parcel, float]
"""A job in a child's line, with what was sent of it and how long it is expected to take."""


class Children(Losses):
    """What the line workers of a queue have in common: who has room, and how many died lately."""

    def __init__(self, terms: Terms) -> None:
        super().__init__("child process", "children")
        self.terms = terms
        self.workers: dict[LineWorker, None] = {}
        self._woken: list[LineWorker] = []
        self._queue: MemoryQueue | None = None
        self._scheduled = False

    def hire(self, queue: MemoryQueue, number: int) -> Attempt:
        """Start a line worker, and with it a child, for the queue."""
        self._queue = queue
        queue.crew.overflow = self.schedule
        worker = LineWorker(queue, number, self)
        self.workers[worker] = None
        employ(queue, worker, worker.work())
        return worker

    def wake(self, worker: LineWorker) -> None:
        """This idle worker is wanted. Jobs that are submitted in one turn of the loop cross together."""
        self._woken.append(worker)
        self.schedule()

    def schedule(self) -> None:
        """Hand out jobs in the loop's next turn."""
        if not self._scheduled and self._queue is not None:
            self._scheduled = True
            self._queue.hub.loop.call_soon(self._hand_out, context=_EMPTY)

    def _hand_out(self) -> None:
        """Give each idle worker its share of what waits, and the others what their lines have room for."""
        self._scheduled = False
        assert self._queue is not None
        called, self._woken = self._woken, []
        woken = [worker for worker in called if worker._ready]
        if len(woken) < len(called) and self._queue.line:
            self._queue.crew.staff(len(called) - len(woken))  # whose child has died meanwhile
        for left, worker in zip(range(len(woken), 0, -1), woken, strict=True):
            worker.fill(-(-len(self._queue.line) // left) or 1)
        if self._queue.line:
            for worker in self.workers:
                if worker.sent:
                    worker.fill(ring.PLACES)


_EMPTY = Context()


class LineWorker(BridgedWorker):
    """One child process and the line of jobs it was sent; as an attempt, the execution of the first.

    - A job becomes `running` when the child says that it has come to it, never on suspicion. Those
      behind it count as queued. All of them have this worker as their `_value`. What was taken back
      or withdrawn leaves None in its place in `sent`, until the child has passed it: the same job
      may be sent to the same child again meanwhile.
    - What is behind the running job takes about `LINE` seconds, by what jobs of these functions
      took lately, so that the child never waits for us between two short jobs, and little waits
      behind one that turns out to be long. That little is taken back then.
    - While results come we look for more in each turn of the loop, and the child need not wake us.
      When a look finds none, the child is told to, and after one look more we wait for it.
    """

    __slots__ = (
        "_cause",
        "_fills",
        "_first",
        "_idle",
        "_known",
        "_over",
        "_packing",
        "_patience",
        "_pulse",
        "_ready",
        "_records",
        "_results",
        "_scheduled",
        "_seen",
        "_skipped",
        "_started",
        "_timer",
        "_told_dropped",
        "_unfit",
        "_unpacking",
        "_waiting",
        "children",
        "process",
        "sent",
    )

    def __init__(self, queue: MemoryQueue, number: int, children: Children) -> None:
        super().__init__(queue, number, children)
        self.children = children
        self.sent: deque[Sent | None] = deque()
        self.process = ProcessBridge(queue.hub.loop, self.look, self._heard, self._ended)
        self._over: asyncio.Future[str] = queue.hub.loop.create_future()
        self._records: Iterator[tuple[int, int, int, int, Any]] = iter(())
        self._results: dict[int, tuple[int, Any]] = {}  # that came over the socket
        self._cause: str | None = None  # why the child died, if we know better than its exit code
        self._unfit: BaseException | None = None  # what its initializer raised
        self._patience = LEAVE
        self._started: float | None = None  # when the process was
        self._skipped = 0  # places of the line that were passed without running a job
        self._told_dropped = 0  # log records
        self._scheduled = False  # a look in the next turn
        self._first = 1  # the number of the first job in `sent`
        self._waiting = 0.0  # seconds that what is behind it is expected to take
        self._known: dict[int, None] = {}  # numbers of the functions the child knows
        self._ready = False
        self._idle = False  # it is one of the idle of its crew
        self._fills = False  # jobs are being taken, to be sent together
        self._packing: Step | None = None  # the last job of the line, in a thread
        # The end of the first job, in a thread: how to give it back, and what tells of it.
        self._unpacking: tuple[Step, Callable[[], None], asyncio.Future[None]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pulse = LOOK
        self._seen = 0.0  # when the job the child runs was seen first, or the line began

    # ---- its life

    async def work(self) -> None:
        """Serve until nobody needs this worker, or its child has died; leave nothing behind."""
        await asyncio.sleep(0)  # an eager task factory began us inside `submit`
        self.home.crew.arrive(self)
        bridge = self.process
        self._hold(True)
        try:
            try:
                bridge.start(self._setup(), self.children.terms.environment(self.home.crew.workers))
            except BridgeBroken as error:
                reason, self._cause = _DIED, str(error)
            else:
                self._seen = self._started = self.home.now()
                self._watch()
                reason = await self._over
                self._hold(True)
                self._retire()
                if self._unpacking is not None:  # that job has ended: its value is on the way
                    await self._unpacking[2]
                if reason is _WORN:
                    self._settle_all()  # it begins nothing any more
                    bridge.freighter.stop()
                if reason is not _DIED:
                    bridge.hang_up()
                    await self._wait_for_end(self._patience)
                bridge.kill()
                await self._wait_for_end(LEAVE)
            self._let_go()
            for _ in bridge.freighter.close_steps():
                await asyncio.sleep(0)
            if reason is _DIED:
                await self._mourn(self._cause or said_of(bridge.exit_code))
        finally:
            self._let_go()
            bridge.freighter.close()

    def leave(self) -> float:
        """The supervisor closes: end, whatever there is to be done."""
        self._patience = HURRY
        self._unpack_no_more()
        self._end(_HOME)
        self._end_rest()
        return 2 * LEAVE + self.process.freighter.seconds_to_close

    def _end(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(reason)

    async def _wait_for_end(self, seconds: float) -> None:
        pause = 0.0005
        while seconds > 0 and not self.process.has_ended():
            await asyncio.sleep(pause)
            seconds -= pause
            pause = min(pause * 2, 0.02)

    def _retire(self) -> None:
        """Take no more jobs."""
        self._ready = False
        self.children.ready.pop(self, None)
        self.children.workers.pop(self, None)
        if self._idle and self in self.home.crew.idle:
            self.home.crew.idle.remove(self)

    def _let_go(self) -> None:
        """Give every job in the line its due, and let go of the child; nothing runs afterwards."""
        self._retire()
        self._end(_DIED)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.process.has_ended():  # a stranger has cancelled our task
            self.process.kill()
            self.process.wait(LEAVE)
        self._settle_all()
        if self._packing is not None:
            self._packing.unwanted = True
        self._tell_ended()
        self.process.freighter.stop()
        self.process.close()
        self._hold(False)

    def _settle_all(self) -> None:
        """The child has ended: what has left a result is done, what was running has crashed, and
        what never began goes back to the front of the queue, no attempt spent.
        """
        while self.process.is_open and self._drain(at_once=True):
            pass
        if not self.sent:
            return
        current = self.process.current()
        back: list[Sent] = []
        for number, one in enumerate(self.sent, self._first):
            if one is None:
                continue
            job, parcel, _ = one
            if number == current or job._state == RUNNING:
                if job._state == QUEUED:
                    self._begin(job, self._moment(self.process.started()))
                self._conclude(job, parcel, Failed(self._crashed(job)))
            else:
                back.append(one)
        self.sent.clear()
        self._give_back(back)

    def _crashed(self, job: Job[Any]) -> WorkerCrashed:
        return crashed(job.name, self.process.exit_code, self.process.last_words, self._cause)

    def _unready(self, job: Job[Any]) -> WorkerCrashed:
        exit_code = self.process.exit_code
        how = self._cause or said_of(exit_code)
        error = unready(job.name, how, None if self._cause else exit_code, self.process.last_words)
        error.__cause__ = self._unfit
        return error

    # ---- waiting for jobs, as one of the idle of its crew

    def done(self) -> bool:
        """Whether it was told already; never, as one of the idle is told once."""
        return False

    def set_result(self, needed: bool) -> None:
        """It is wanted, or not needed any more."""
        self._idle = False
        if needed:
            self.home.crew.calls -= 1  # it is answered at once: a line takes many jobs, not one
            self.children.wake(self)
        else:
            self.off_duty = True
            self._end(_HOME)

    def _go_idle(self) -> None:
        self._hold(False)
        if self._idle:
            return  # the child had something to say
        self._idle = True
        if self.home.excuse(self) or not self.home.crew.rest(self):
            self.off_duty = True
            self._end(_HOME)

    # ---- sending

    def fill(self, most: int) -> None:
        """Send jobs, as many as the line has room for."""
        if not self._ready or self.process.clogged or self.process.freighter.loads:
            return
        if self._packing is not None:
            return
        if self._fills:
            return  # code of an item, or of who gave it, has made us look: that one goes on
        self._fills = True
        try:
            big = self._fill(most)
        finally:
            self._fills = False
        if big is not None:
            self._load(*big)

    def _fill(self, most: int) -> tuple[Job[Any], Parcel] | None:
        """Send them; the last one, if it has big data, is in line, but still to be sent."""
        was_empty, big = not self.sent, None
        sent, known, number = self.sent, self._known, self._first + len(self.sent)
        batch: list[tuple[Any, ...]] = []
        escort = self.home.hub.escort
        while len(batch) < most and len(sent) < ring.PLACES - 1:
            if sent and (self._waiting >= LINE or self._head_takes() > LONG):
                break
            job = self._take()
            if job is None:
                break
            parcel: Parcel = job._value
            version, arguments = parcel
            if version.number not in known:
                self._define(version.number, version.definition)
            cost = version.took
            if sent:
                self._waiting += cost
            sent.append((job, parcel, cost))
            job._value = self
            if arguments.__class__ is Freight or arguments.__class__ is Heavy:
                big = job, parcel
                break
            if escort is not None:
                tries = 0 if job._rare is None else job._rare.tries
                batch.append((version.number, arguments, tries + 1, escort.sent(job)))
            elif job._rare is None or not job._rare.tries:
                batch.append((version.number, arguments))
            else:
                batch.append((version.number, arguments, job._rare.tries + 1))
        if not sent:
            self._go_idle()
            return None
        if was_empty:
            self._hold(True)
            self._seen = self.home.now()
            self._pulse = LOOK
            self._watch()
        if batch:
            self.process.freighter.poll()
            self.process.write(wire.frame(wire.JOBS, pickle.dumps((number, batch), 5)))
        return big

    def _load(self, job: Job[Any], parcel: Parcel) -> None:
        """Send the last job in the line, which has big data: they are copied first, and in steps."""
        number = self._first + len(self.sent) - 1
        escort = self.home.hub.escort
        luggage = () if escort is None else (escort.sent(job),)
        tries = 0 if job._rare is None else job._rare.tries

        def wanted() -> bool:
            at = number - self._first
            return at < len(self.sent) and self.sent[at] is not None

        def loaded(message: Loaded) -> None:
            version = parcel[0].number
            if isinstance(message, list):
                facts = (number, version, tries + 1, *luggage)
                for part in wire.long_frame(wire.FREIGHT, facts, message):
                    self.process.write(part)
            else:  # it cannot be sent; or it was taken back, and the child will skip it
                entry = (version, () if message is None else message, tries + 1, *luggage)
                self.process.write(wire.frame(wire.JOBS, pickle.dumps((number, [entry]), 5)))
            if len(self.sent) == 1:
                self._seen = self.home.now()
            self.fill(ring.PLACES)

        def packed(arguments: Any, error: BaseException | None) -> None:
            if self._ready and error is not None and wanted():
                self.sent[number - self._first] = None
                self.process.take_back(number)
                self._refuse(job, error)  # nothing is sent meanwhile, whatever its end sets off
            self._packing = None
            if not self._ready:
                return  # whoever settles the line gives it back as it is
            if not wanted():
                loaded(None)
            else:
                self.sent[number - self._first] = job, (parcel[0], arguments), parcel[0].took
                self._ship(arguments, wanted, loaded)

        if parcel[1].__class__ is Heavy:
            self._packing = self.home.hub.aside.begin(parcel[1].pack, packed)
        else:
            self._ship(parcel[1], wanted, loaded)

    def _ship(
        self, arguments: Any, wanted: Callable[[], bool], loaded: Callable[[Loaded], None]
    ) -> None:
        """Have packed arguments copied to where the child finds them, if any part of them is big."""
        freighter = self.process.freighter
        freighter.last_used = self.home.now()
        freighter.poll()
        freight = arguments if arguments.__class__ is Freight else Freight(arguments, [])
        freighter.load(freight, wanted, loaded)

    def _refuse(self, job: Job[Any], error: BaseException) -> None:
        """A job fails that was never sent; what the child runs meanwhile is not concerned."""
        queue = self.home
        stand_in = Attempt(queue, self.number)
        stand_in.job = job
        job._value = stand_in
        job._state = RUNNING
        job._started = now = queue.now()
        if job._rare is not None:
            job._rare.tries += 1
        if queue.told:
            queue.teller.started(job, stand_in)
        queue.conclude(job, stand_in, failure(error), now)

    def _head_takes(self) -> float:
        head = self.sent[0]
        return 0.0 if head is None else head[2]

    def _take(self) -> Job[Any] | None:
        """The next job of the queue, packed; one that cannot be packed fails here."""
        queue = self.home
        while (job := queue.take_job()) is not None:
            try:
                if job._value.__class__ is tuple:
                    return job
            except AttributeError:  # it is an item's of a stream, which nobody has packed yet
                pass
            try:
                pack = cast("Any", job._order.pack)
                job._value = pack(job._args, job._kwargs, job._context, True)
            except Heavy as heavy:
                job._value = heavy.version, heavy.with_traceback(None)
            except NotSerializable as error:
                self._refuse(job, error)
                continue
            return job
        return None

    def _define(self, number: int, definition: Any) -> None:
        known = self._known
        known[number] = None
        self.process.write(wire.frame(wire.DEFINE, pickle.dumps((number, definition), 5)))
        if len(known) > KNOWN:
            oldest = next(iter(known))
            if all(one is None or one[1][0].number != oldest for one in self.sent):
                del known[oldest]
                self.process.write(wire.frame(wire.FORGET, pickle.dumps([oldest], 5)))

    # ---- settling

    def look(self) -> None:
        """Read the ring, settle, fill the line; look again soon if there was anything."""
        if not self._ready:
            if not self._over.done():
                self._drain()  # its initializer may have something to say
            return
        found = self._drain()
        if found:
            self.fill(ring.PLACES)
        self._look_again(found)

    def _look_again(self, found: bool) -> None:
        process = self.process
        if not self.sent:
            process.sleep(True)
            return
        if found:
            process.sleep(False)
        elif process.asleep:
            return  # this was the look after we said so
        else:
            process.sleep(True)
        self._look_soon()

    def _look_soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.home.hub.loop.call_soon(self._look_in_turn)

    def _look_in_turn(self) -> None:
        self._scheduled = False
        self.look()

    def _drain(self, *, at_once: bool = False) -> bool:
        """Settle what has ended; whether anything has. Big results take steps, unless `at_once`.

        This is the path of each job that comes back, so it is one function: what simply succeeded is
        settled here in line, and what few jobs need is a call away behind one check.
        """
        queue, sent = self.home, self.sent
        found = False
        said = 0
        learn: tuple[Any, int] | None = None
        now = queue.now()
        if self.process.freighter.unloads or self._unpacking is not None:
            if not at_once:
                return False
            self.process.freighter.unload_now()
            self._unpack_no_more()
        while True:
            record = next(self._records, None)
            if record is None:
                try:
                    records = self.process.ring.read()
                except ValueError as error:
                    self._garbage(str(error))
                    break
                if not records:
                    break
                self._records = iter(records)
                continue
            kind, number, started, ended, payload = record
            found = True
            if kind >= ring.BELOW:
                self._noted(kind, number, payload)
                said += 1
                if said == SAID_AT_ONCE:
                    self._look_soon()
                    break
                continue
            if number != self._first or not sent:
                self._garbage(f"an end of job {number}, when {self._first} was next")
                break
            if kind == ring.ELSEWHERE:
                kind, payload = self._from_socket(number)
            if kind == ring.FREIGHT:
                if not self._unload(number, started, ended, memoryview(payload), at_once=at_once):
                    break
                continue
            if self._is_heavy(kind, payload) and not at_once:
                self._unpack(kind, number, started, ended, payload)
                break
            one = self._step()
            if one is None:  # it was taken back, or withdrawn
                self.process.shared.places[number & ring.MASK] = 0
                self._skipped += 1
                continue
            job, parcel, _ = one
            learn = parcel[0], ended - started
            if kind == ring.VALUE and job._state == QUEUED and job._rare is None and not queue.told:
                try:
                    value = pickle.loads(payload) if payload else None  # noqa: S301  # of our child
                except BaseException as error:
                    self._begin(job, self._moment(started))
                    self._conclude(job, parcel, Failed(_unreadable(job, error)))
                    continue
                job._started = self._moment(started)
                job._finished = now
                job._value = value
                job._state = SUCCEEDED
                job._context = None
                queue.completed += 1
                if job._waiters is not None:
                    job._wake()
            else:
                self.process.shared.places[number & ring.MASK] = 0
                self._end_rarely(one, kind, started, ended, payload)
        if learn is not None:
            learn[0].learn(learn[1] * 1e-9)
            self.children.deaths = 0
            self._seen = now
            self._pulse = LOOK
        return found

    def _end_rarely(self, one: Sent, kind: int, started: int, ended: int, payload: Any) -> None:
        """Settle a job that did not simply succeed, or of whom somebody is told."""
        job, parcel, _ = one
        if job._state == QUEUED:
            if kind == ring.SKIPPED:  # it was asked for a moment late
                self._skipped += 1
                self._give_back([one])
                return
            self._begin(job, self._moment(started))
        ended_by_verdict = self.job is job and self.verdict is not None
        outcome = None if ended_by_verdict else self._outcome(job, kind, payload)
        # The loop may hear late of several ends at once: a job ended when its child says so.
        moment = max(self._moment(ended), job._started) if kind != ring.SKIPPED else None
        self._conclude(job, parcel, outcome, moment)

    def _unload(
        self, number: int, started: int, ended: int, message: memoryview, *, at_once: bool
    ) -> bool:
        """Find the big data of a result: the next record is the result then. False if that takes steps."""
        at_hand = True

        def found(result: Any) -> None:
            record = (FOUND, number, started, ended, result)
            self._records = itertools.chain([record], self._records)
            if not at_hand:
                self.look()

        freighter = self.process.freighter
        freighter.last_used = self.home.now()
        if self.sent[0] is None:  # nobody wants it
            freighter.discard(message)
            found(None)
            return True
        try:
            at_hand = freighter.unload(message, found, at_once=at_once)
        except ValueError as error:
            self._garbage(str(error))
            return False
        return at_hand

    def _is_heavy(self, kind: int, payload: Any) -> bool:
        """Whether a value that somebody wants takes long to unpickle."""
        one = self.sent[0]
        if one is None or (self.job is one[0] and self.verdict is not None):
            return False
        return (kind == ring.VALUE and len(payload) > LIGHT) or (
            kind == FOUND and payload is not None and len(payload.stream) > LIGHT
        )

    def _unpack(self, kind: int, number: int, started: int, ended: int, payload: Any) -> None:
        """Have a value unpickled in a thread: the next record is the value then."""
        stream, buffers = cast("Any", payload if kind == FOUND else (payload, []))
        over: asyncio.Future[None] = self.home.hub.loop.create_future()

        def made(value: Any, error: BaseException | None) -> None:
            if self._unpacking is not None and self._unpacking[0] is step:
                self._unpacking = None
                self._seen = self.home.now()
                _resolve(over)
                record = (MADE, number, started, ended, (value, error))
                self._records = itertools.chain([record], self._records)
                self.look()

        def as_it_came() -> None:
            record = (kind, number, started, ended, payload)
            self._records = itertools.chain([record], self._records)

        step = self.home.hub.aside.begin(lambda step: load_gently(stream, buffers, step), made)
        self._unpacking = step, as_it_came, over

    def _unpack_no_more(self) -> None:
        """Nobody can wait for the thread any more, or wants the value."""
        if self._unpacking is not None:
            (step, as_it_came, over), self._unpacking = self._unpacking, None
            step.unwanted = True
            _resolve(over)
            as_it_came()

    def _step(self) -> Sent | None:
        """The first job in the line has ended, or was skipped; what it was."""
        sent = self.sent
        one = sent.popleft()
        self._first += 1
        if sent:
            head = sent[0]
            if head is not None:
                self._waiting -= head[2]
        else:
            self._waiting = 0.0
        return one

    def _outcome(self, job: Job[Any], kind: int, payload: Any) -> Outcome | None:
        """What a record says; None if the job was skipped."""
        if kind == ring.SKIPPED:
            return None
        try:
            if kind == ring.VALUE:
                return Succeeded(pickle.loads(payload) if payload else None)  # noqa: S301
            if kind == FOUND:
                return Succeeded(unpack(*payload))
            if kind == MADE:
                value, error = payload
                return Succeeded(value) if error is None else Failed(_unreadable(job, error))
            return failure(rebuild(payload))
        except BaseException as error:
            return Failed(_unreadable(job, error))

    def _conclude(
        self,
        job: Job[Any],
        parcel: Parcel | None,
        outcome: Outcome | None,
        moment: float | None = None,
    ) -> None:
        """Settle a job that has begun, and ended now unless another moment is given; if it will run
        again, it keeps what was packed.
        """
        queue = self.home
        if moment is None:
            moment = queue.now()
        verdict = self.verdict
        if self.job is not job:
            self.job, verdict = job, None
        if verdict is not None:
            outcome = verdict
        if outcome is None:  # it was skipped, and nobody had asked for that
            self.clear()
            if queue.told:
                skipped = BridgeBroken("its child was asked to let go of it, and had not begun")
                queue.teller.ended(job, self, Failed(skipped), Release(), moment)
            queue.settle(job, Release(), moment)
        else:
            queue.conclude(job, self, outcome, moment)
        if job._state < RUNNING and parcel is not None:
            job._value = parcel

    def _moment(self, stamp: int) -> float:
        """A moment of the child's clock, which is ours, unless ours is virtual."""
        clock = self.home.clock
        return stamp * 1e-9 if clock.real else clock.now()

    def _from_socket(self, number: int) -> tuple[int, Any]:
        """The end of a job that came over the socket; it was written before its record."""
        while number not in self._results and self.process.read_on():
            pass
        return self._results.pop(number, (ring.ERROR, b""))

    # ---- taking back, cancelling

    @property
    def ahead(self) -> list[Job[Any]]:
        """The jobs in the line that have not begun."""
        return [one[0] for one in self.sent if one is not None and one[0]._state == QUEUED]

    def refresh(self) -> None:
        """Note the job that the child has come to, if it has not ended already."""
        if self.sent and self.job is None and self._ready:
            one = self.sent[0]
            if one is not None and self.process.current() == self._first:
                self._seen = self._moment(self.process.started())
                self._begin(one[0], self._seen)

    def give_up(self, job: Job[Any]) -> bool:
        """Let go of a job of the line for good; False if the child has come to it, or it has ended."""
        number = self._number_of(job)
        if number is None:
            return False
        if not self.process.take_back(number):
            for _ in range(LOOKS):  # the child may be a job further each time
                self.look()
                self.refresh()
                if job._state != QUEUED:
                    return False
                if self._number_of(job) != number:
                    return self.give_up(
                        job
                    )  # the child had skipped it, so it went back or was sent anew
            # Its end is on the way, behind something big that is still read: it counts no more.
            self.process.interrupt(number)
        place = number - self._first
        one = self.sent[place]
        if place and one is not None:
            self._waiting -= one[2]
        self.sent[place] = None
        if self._packing is not None and place == len(self.sent) - 1:
            self._packing.unwanted = True
        return True

    def _number_of(self, job: Job[Any]) -> int | None:
        """The number under which a job of the line was sent."""
        for number, one in enumerate(self.sent, self._first):
            if one is not None and one[0] is job:
                return number
        return None

    def _take_back(self) -> None:
        """Take back what is behind the running job, for others, or to be sent again later."""
        back: list[Sent] = []
        for place, one in enumerate(self.sent):
            if (
                one is not None
                and one[0]._state == QUEUED
                and self.process.take_back(self._first + place)
            ):
                back.append(one)
                self.sent[place] = None
                if place:
                    self._waiting -= one[2]
        self._give_back(back)

    def _give_back(self, back: list[Sent]) -> None:
        """These never began: they go where they came from, at the front of the queue."""
        queue = self.home
        for job, parcel, _ in reversed(back):
            job._value = parcel
            queue.line.appendleft(job)
        ending = queue.hub.stopping or queue.ending
        if ending is not None:
            for job, _, _ in back:
                queue.cancel(job, ending)
        elif back:
            queue.crew.staff(len(back))

    def cancel(self, verdict: Cancelled | TimedOut) -> bool:
        """Have the running job interrupted; what waits behind it need not wait for that."""
        if self.verdict is not None or self.job is None:
            return False
        self.verdict = verdict
        one = self.sent[0] if self.sent else None
        if one is not None and one[0] is self.job:
            self.process.interrupt(self._first)
            self._take_back()
            if self._unpacking is not None:
                self._unpack_no_more()
                self._look_soon()
        return True

    def kill(self) -> bool:
        """End the running job by force: it is settled at once, and its child is no more."""
        self._cause = "it was killed, because the job did not end when interrupted"
        self.process.kill()
        job = self.job
        if job is not None and self.verdict is not None:
            while self._drain(at_once=True):
                pass
            one = self.sent[0] if self.sent else None
            if one is not None and one[0] is job and self.job is job:
                self.sent[0] = None
                self._conclude(job, one[1], None)
        self._end(_DIED)
        return True

    # ---- what the child says

    def _heard(self, kind: int, payload: bytes | memoryview) -> None:
        if kind == wire.HELLO:
            self._ready = True
            self.children.ready[self] = None
            self._seen = now = self.home.now()
            assert self._started is not None
            details = self.number, self.process.pid, now - self._started
            self.home.teller.emit(ChildStarted, self.home.name, *details)
            self._hold(False)
            self.process.sleep(True)  # it may have woken us already
            self.children.wake(self)
        elif kind == wire.RESULT:
            (end, number), data = wire.open_long(payload)
            self._results[number] = (end, data)
        else:
            self._garbage(f"a frame of kind {kind}")

    def _noted(self, kind: int, number: int, payload: bytes) -> None:
        """The child, or the running job, says or asks something."""
        if kind == ring.SAID:
            self._say(number, payload)
            return
        if kind in (ring.WORN, ring.UNFIT):
            self._resigned(kind, payload)
            return
        one = self.sent[0] if self.sent and number == self._first else None
        if one is None:
            return
        job = one[0]
        self.refresh()
        details = pickle.loads(payload)  # noqa: S301  # of our child
        if kind == ring.NOTE:
            if details[0] == "progress":
                self.home.report(job, Progress(*details[1:]))
        elif kind == ring.ASK:
            answer = pickle.dumps((number, self._facts(job)), 5)
            self.process.write(wire.frame(wire.ANSWER, answer))

    def _facts(self, job: Job[Any]) -> dict[str, Any]:
        retry = job._order.policies.retry
        return {
            "id": job.id,
            "name": job.name,
            "queue": job.queue,
            "attempt": job.attempt,
            "attempts": 1 if retry is None else retry.attempts,
            "tags": job.tags,
        }

    def _ended(self) -> None:
        """The channel has closed: the child has ended, or is of no use any more."""
        if self.process.garbage is not None:
            self._cause = f"it broke the protocol: {self.process.garbage}"
        self._end(_DIED)

    def _garbage(self, text: str) -> None:
        self.process.garbage = text
        self._ended()

    # ---- its life, as others see it

    def _setup(self) -> dict[str, Any]:
        known = {"path": list(sys.path), "argv": list(sys.argv), "levels": levels()}
        return known | self.children.terms.setup()

    def _resigned(self, kind: int, payload: bytes) -> None:
        """The child begins no other job: it has served enough, or could not be made ready."""
        if kind == ring.WORN:
            self._ready = False
            self.children.ready.pop(self, None)
            self._cause = payload.decode()
            self._end(_WORN)
            return
        self._unfit = error = rebuild(payload)
        text = _checks.printable(str(error))[:300]
        self._cause = f"its initializer raised {_checks.kind_of(error)}: {text}"
        self._end(_DIED)

    def _say(self, number: int, record: bytes) -> None:
        """Log what was said in the child, with the job that runs there."""
        one = self.sent[0] if self.sent and number == self._first else None
        origin: dict[str, Any] = {"processName": f"{self.home.name}-{self.number}"}
        if one is not None:
            self.refresh()
            job = one[0]
            origin |= {"job_id": job.id, "job_name": job.name}
            origin |= {"queue": job.queue, "attempt": job.attempt}
        say(record, origin)
        self._count_dropped()

    def _count_dropped(self) -> None:
        """Note how many log records were lost; say so for the first, and whenever they doubled."""
        dropped = self.process.dropped
        if dropped > self._told_dropped:
            self.home.logs_dropped += dropped - self._told_dropped
            if dropped >= 2 * self._told_dropped:
                what = "child process %d of queue %r logs too much: %d log records were dropped"
                log.warning(what, self.number, self.home.name, dropped)
            self._told_dropped = dropped

    def _tell_ended(self) -> None:
        """Tell of the child's end, once."""
        if self.process.is_open:
            self._count_dropped()
            died = self._over.cancelled() or self._over.result() is _DIED
            cause = self._cause or (said_of(self.process.exit_code) if died else _HOME)
            self.home.teller.emit(ChildEnded, self.home.name, self.number, self.process.pid, cause)

    @property
    def child(self) -> ChildStats | None:
        """The process, from its start to its end."""
        if not self.process.is_open:
            return None
        self.refresh()
        self._count_dropped()
        job = self.job
        return ChildStats(
            worker=self.number,
            pid=self.process.pid,
            ready=self._ready,
            memory=self.process.memory,
            jobs=self._first - 1 - self._skipped,
            job_name=None if job is None else job.name,
            job_id=None if job is None else job.id,
            sent=len(self.ahead),
        )

    @property
    def delay(self) -> str | None:
        """It starts a child, or must not start one so soon after others have died."""
        seconds = self.home.now() - self._seen
        if self._rest is not None:
            return f"no child process is started for a while, because {self._cause or 'one died'}"
        if self.process.is_open and not self._ready and not self._over.done():
            return f"its child process {self.process.pid} is starting, for {seconds:.3g} s"
        return None

    # ---- looking after it

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = self.home.hub.loop.call_later(self._pulse, self._tick)

    def _tick(self) -> None:
        """Look after a child that is starting, or has jobs."""
        self._timer = None
        if self._over.done() or (self._ready and not self.sent):
            return
        queue = self.home
        now = queue.now()
        if self.process.has_ended():
            self._end(_DIED)
            return
        if self._ready:
            self.look()
            self.refresh()
        waited = now - self._seen
        job = self.job
        if job is None:
            patience = START if self._ready else self.children.terms.startup
            freighter = self.process.freighter
            ours = freighter.loads or freighter.unloads or self._packing or self._unpacking
            if waited > patience and not self.process.clogged and not ours:
                late = f"it was not ready after {patience:g} s"
                self._cause = "it stood still" if self._ready else late
                self._end(_DIED)
                return
        else:
            if waited > LONG and len(self.sent) > 1:
                self._take_back()
                running = self.sent[0]
                if running is not None:  # nothing is sent behind it again
                    self.sent[0] = (running[0], running[1], waited)
            timeout = job._order.timeout
            ended = self.process.freighter.unloads or self._unpacking is not None
            if timeout is not None and self.verdict is None and not ended:
                left = job._started + timeout - now
                if left <= 0:
                    queue.unwinding.cancel(self, TimedOut(timeout))
                else:
                    self._pulse = min(self._pulse, max(left, 0.0005))
        if self.process.freighter.trim(now) and self._ready:
            self.process.write(wire.frame(wire.TRIM))
        if self.sent or not self._ready:
            self._watch()
            self._pulse = min(max(self._pulse, LOOK) * 2, RARELY if job is not None else SOON)


def _unreadable(job: Job[Any], error: BaseException) -> NotSerializable:
    failed = NotSerializable(
        f"what {job.name} returned or raised could not be unpickled: "
        f"{_checks.kind_of(error)}: {_checks.printable(str(error))[:300]}"
    )
    failed.__cause__ = error
    return failed


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
