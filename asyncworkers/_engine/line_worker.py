"""A line worker feeds a child process: it keeps its line short but never empty, and settles what comes back."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any, cast

from asyncworkers._engine.attempt import Attempt, failure
from asyncworkers._engine.bridged import BridgedWorker
from asyncworkers._engine.child_life import LEAVE, ChildLife, Reason
from asyncworkers._engine.child_watch import ChildWatch
from asyncworkers._engine.child_words import ChildWords
from asyncworkers._engine.children import ChildStats
from asyncworkers._engine.employment import employ
from asyncworkers._engine.loading import Load
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.nursery import Nursery
from asyncworkers._engine.sent import Sent, SentLine
from asyncworkers._engine.unloading import EndRecord, Unloading, outcome_of_record, unreadable
from asyncworkers.bridge.child import ring, wire
from asyncworkers.bridge.child.freight import Freight
from asyncworkers.bridge.echo import levels
from asyncworkers.bridge.failure import rebuild
from asyncworkers.bridge.parcel import Parcel
from asyncworkers.bridge.process import ProcessBridge
from asyncworkers.bridge.protocol import BridgeBroken
from asyncworkers.bridge.steps import Heavy, Step
from asyncworkers.bridge.terms import Terms
from asyncworkers.errors import NotSerializable, WorkerCrashed
from asyncworkers.events import ChildEnded, ChildStarted
from asyncworkers.job import QUEUED, RUNNING, SUCCEEDED, Job
from asyncworkers.outcome import Cancelled, Failed, Outcome, Release, TimedOut
from asyncworkers.units import lasting

__all__ = ["LineWorker", "hire_for"]

LOOKS = 3
"""Looks at what a job does that is to be given up while its child comes to it."""

KNOWN = 1_000
"""Functions that a child keeps; the one defined first is forgotten first."""

SAID_AT_ONCE = 50
"""Log records of one child that are logged in one turn of the loop."""


def hire_for(queue: MemoryQueue, terms: Terms) -> Callable[[MemoryQueue, int], Attempt]:
    """What hires the line workers of a queue, each with a child on these terms."""
    nursery = Nursery(queue, terms)

    def hire(queue: MemoryQueue, number: int) -> Attempt:
        worker = LineWorker(queue, number, nursery)
        nursery.workers[worker] = None
        employ(queue, worker, worker.work())
        return worker

    return hire


class LineWorker(BridgedWorker):
    """One child process and the line of jobs it was sent; as an attempt, the execution of the first.

    - A job becomes `running` when the child says that it has come to it, never on suspicion. Those
      behind it count as queued. All of them have this worker as their `_value`.
    - What is behind the running job takes about `LINE` seconds, by what jobs of these functions
      took lately, so that the child never waits for us between two short jobs, and little waits
      behind one that turns out to be long. That little is taken back then.
    - While results come we look for more in each turn of the loop, and the child need not wake us.
      When a look finds none, the child is told to, and after one look more we wait for it.

    What is in the line is in `line`; `life` knows how the child ends, `watch` that it gets on, `words`
    what it says. Big arguments go out by a `Load`, big results come in by `unloading`.
    """

    __slots__ = (
        "_fills",
        "_idle",
        "_known",
        "_records",
        "_scheduled",
        "_skipped",
        "life",
        "line",
        "nursery",
        "packing",
        "process",
        "ready",
        "unloading",
        "watch",
        "words",
    )

    def __init__(self, queue: MemoryQueue, number: int, nursery: Nursery) -> None:
        super().__init__(queue, number, nursery)
        self.nursery = nursery
        self.process = ProcessBridge(queue.hub.loop, self.look, self._heard, self._ended)
        self.line = SentLine()
        self.life = ChildLife(self.process, queue.hub.loop)
        self.watch = ChildWatch(self)
        self.words = ChildWords(self)
        self.unloading = Unloading(self)
        self.packing: Step | None = None  # the last job of the line, in a thread
        self.ready = False
        self._idle = False  # it is one of the idle of its crew
        self._fills = False  # jobs are being taken, to be sent together
        self._known: dict[int, None] = {}  # numbers of the functions the child knows
        self._records: Iterator[EndRecord] = iter(())
        self._scheduled = False  # a look in the next turn
        self._skipped = 0  # places of the line that were passed without running a job

    # ---- its life

    async def work(self) -> None:
        """Serve until nobody needs this worker, or its child has died; leave nothing behind."""
        await asyncio.sleep(0)  # an eager task factory began us inside `submit`
        self.home.crew.arrive(self)
        life, process = self.life, self.process
        self._hold(True)
        try:
            try:
                terms = self.nursery.terms
                process.start(self._setup(), terms.environment(self.home.crew.workers))
            except BridgeBroken as error:
                reason: Reason = "died"
                life.cause = str(error)
            else:
                self.watch.seen = life.started = self.home.now()
                self.watch.begin()
                reason = await life.over()
                self._hold(True)
                self._retire()
                if self.unloading.unpacking is not None:
                    await self.unloading.unpacking[2]  # that job has ended: its value is on the way
                if reason == "worn":
                    self._settle_all()  # it begins nothing any more
                    process.freighter.stop()
                if reason != "died":
                    await life.hang_up()
                await life.kill()
            self._let_go()
            for _ in process.freighter.close_steps():
                await asyncio.sleep(0)
            if reason == "died":
                await self._mourn(life.cause_of_death())
        except asyncio.CancelledError as error:
            life.stranger = error
            raise
        finally:
            self._let_go()
            process.freighter.close()

    def _setup(self) -> dict[str, Any]:
        known = {"path": list(sys.path), "argv": list(sys.argv), "levels": levels()}
        return known | self.nursery.terms.setup()

    def leave(self) -> float:
        """The supervisor closes: end, whatever there is to be done."""
        self.unloading.unpack_no_more()
        self.life.hurry()
        self._end_rest()
        return 2 * LEAVE + self.process.freighter.seconds_to_close

    def _retire(self) -> None:
        """Take no more jobs."""
        self.ready = False
        self.nursery.ready.pop(self, None)
        self.nursery.workers.pop(self, None)
        if self._idle and self in self.home.crew.idle:
            self.home.crew.idle.remove(self)

    def _let_go(self) -> None:
        """Give every job in the line its due, and let go of the child; nothing runs afterwards."""
        self._retire()
        self.life.die()
        self.watch.stop()
        self.life.kill_at_once()
        self._settle_all()
        if self.packing is not None:
            self.packing.unwanted = True
        if self.process.is_open:
            self.words.count_dropped()
            details = self.number, self.process.pid, self.life.epitaph()
            self.home.teller.emit(ChildEnded, self.home.name, *details)
        self.process.freighter.stop()
        self.process.close()
        self._hold(False)

    def _settle_all(self) -> None:
        """The child has ended: what has left a result is done, what was running has crashed, and
        what never began goes back to the front of the queue, no attempt spent.
        """
        while self.process.is_open and self._drain(at_once=True):
            pass
        if not self.line.jobs:
            return
        current = self.process.current()
        back: list[Sent] = []
        for number, one in self.line.numbered():
            job, parcel, _ = one
            if number == current or job._state == RUNNING:
                if job._state == QUEUED:
                    self._begin(job, self._moment(self.process.started()))
                self._conclude(job, parcel, Failed(self.life.crashed(job)))
            else:
                back.append(one)
        self.line.jobs.clear()
        self._give_back(back)

    def _unready(self, job: Job[Any]) -> WorkerCrashed:
        return self.life.unready(job)

    def _ended(self) -> None:
        """The channel has closed: the child has ended, or is of no use any more."""
        broken = self.process.garbage
        self.life.die(None if broken is None else f"it broke the protocol: {broken}")

    def garbage(self, text: str) -> None:
        """What the child says makes no sense."""
        self.process.garbage = text
        self._ended()

    def _heard(self, kind: int, payload: bytes | memoryview) -> None:
        """A frame has come through the pipe."""
        if kind == wire.HELLO:
            self._greet()
        elif kind == wire.RESULT:
            (end, number), data = wire.open_long(payload)
            self.unloading.keep(number, end, data)
        else:
            self.garbage(f"a frame of kind {kind}")

    def _greet(self) -> None:
        """The child is ready."""
        self.ready = True
        self.nursery.ready[self] = None
        self.watch.seen = now = self.home.now()
        assert self.life.started is not None
        details = self.number, self.process.pid, now - self.life.started
        self.home.teller.emit(ChildStarted, self.home.name, *details)
        self._hold(False)
        self.process.sleep(True)  # it may have woken us already
        self.nursery.wake(self)

    def _resigned(self, kind: int, payload: bytes) -> None:
        """The child begins no other job: it has served enough, or could not be made ready."""
        if kind == ring.WORN:
            self.ready = False
            self.nursery.ready.pop(self, None)
            self.life.wear_out(payload.decode())
        else:
            self.life.is_unfit(rebuild(payload))

    # ---- as others see it

    @property
    def child(self) -> ChildStats | None:
        """The process, from its start to its end."""
        if not self.process.is_open:
            return None
        self.refresh()
        self.words.count_dropped()
        job = self.job
        return ChildStats(
            worker=self.number,
            pid=self.process.pid,
            ready=self.ready,
            memory=self.process.memory,
            jobs=self.line.first - 1 - self._skipped,
            job_name=None if job is None else job.name,
            job_id=None if job is None else job.id,
            sent=len(self.ahead),
        )

    @property
    def delay(self) -> str | None:
        """It starts a child, or must not start one so soon after others have died."""
        if self._rest is not None:
            cause = self.life.cause or "one died"
            return f"no child process is started for a while, because {cause}"
        if self.process.is_open and not self.ready and not self.life.is_over:
            seconds = self.home.now() - self.watch.seen
            return f"its child process {self.process.pid} is starting, for {lasting(seconds)}"
        return None

    @property
    def is_carrying(self) -> bool:
        """Whether something big is on its way to the child or from it, which is not the child's fault."""
        freighter = self.process.freighter
        moving = freighter.loads or freighter.unloads
        return bool(moving or self.packing or self.unloading.unpacking)

    @property
    def has_unpacking(self) -> bool:
        """Whether the first job has ended, and its value is in a thread."""
        return self.unloading.unpacking is not None

    # ---- waiting for jobs, as one of the idle of its crew

    def done(self) -> bool:
        """Whether it was told already; never, as one of the idle is told once."""
        return False

    def set_result(self, needed: bool) -> None:
        """It is wanted, or not needed any more."""
        self._idle = False
        if needed:
            self.home.crew.calls -= 1  # it is answered at once: a line takes many jobs, not one
            self.nursery.wake(self)
        else:
            self.off_duty = True
            self.life.end("not needed")

    def _go_idle(self) -> None:
        self._hold(False)
        if self._idle:
            return  # the child had something to say
        self._idle = True
        if self.home.excuse(self) or not self.home.crew.rest(self):
            self.off_duty = True
            self.life.end("not needed")

    # ---- sending

    def fill(self, most: int) -> None:
        """Send jobs, as many as the line has room for."""
        if not self.ready or self.process.clogged or self.process.freighter.loads:
            return
        if self.packing is not None:
            return
        if self._fills:
            return  # code of an item, or of who gave it, has made us look: that one goes on
        self._fills = True
        try:
            big = self._fill(most)
        finally:
            self._fills = False
        if big is not None:
            big.begin()

    def _fill(self, most: int) -> Load | None:
        """Send them; the last one, if it has big data, is in line, but still to be sent."""
        line, known, big = self.line, self._known, None
        sent = line.jobs
        was_empty, number = not sent, line.first + len(sent)
        batch: list[tuple[Any, ...]] = []
        queue, escort = self.home, self.home.hub.escort
        asks = queue.stored  # also of an empty line: its feeder is to hear of it
        while (queue.line or asks) and len(batch) < most and len(sent) < ring.PLACES - 1:
            if sent and not line.has_room():
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
                line.waiting += cost
            sent.append((job, parcel, cost))
            job._value = self
            if arguments.__class__ is Freight or arguments.__class__ is Heavy:
                big = Load(self, job, parcel)
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
            self.watch.saw(self.home.now())
            self.watch.begin()
        if batch:
            self.process.freighter.poll()
            self.process.write(wire.frame(wire.JOBS, pickle.dumps((number, batch), 5)))
        return big

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
                self.refuse(job, error)
                continue
            return job
        return None

    def refuse(self, job: Job[Any], error: BaseException) -> None:
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

    def _define(self, number: int, definition: Any) -> None:
        known = self._known
        known[number] = None
        self.process.write(wire.frame(wire.DEFINE, pickle.dumps((number, definition), 5)))
        if len(known) > KNOWN:
            oldest = next(iter(known))
            if all(one[1][0].number != oldest for _, one in self.line.numbered()):
                del known[oldest]
                self.process.write(wire.frame(wire.FORGET, pickle.dumps([oldest], 5)))

    # ---- settling

    def look(self) -> None:
        """Read the ring, settle, fill the line; look again soon if there was anything."""
        if not self.ready:
            if not self.life.is_over:
                self._drain()  # its initializer may have something to say
            return
        found = self._drain()
        if found:
            self.fill(ring.PLACES)
        self._look_again(found)

    def _look_again(self, found: bool) -> None:
        process = self.process
        if not self.line.jobs:
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

    def read_next(self, record: EndRecord) -> None:
        """This is the next record to be read."""
        self._records = itertools.chain([record], self._records)

    def _drain(self, *, at_once: bool = False) -> bool:
        """Settle what has ended; whether anything has. Big results take steps, unless `at_once`.

        This is the path of each job that comes back, so it is one function: what simply succeeded is
        settled here in line, and what few jobs need is a call away behind one check.
        """
        queue, line, unloading = self.home, self.line, self.unloading
        sent = line.jobs
        found = False
        said = 0
        learn: tuple[Any, int] | None = None
        now, real = queue.now(), queue.clock.real
        if self.process.freighter.unloads or unloading.unpacking is not None:
            if not at_once:
                return False
            self.process.freighter.unload_now()
            unloading.unpack_no_more()
        while True:
            record = next(self._records, None)
            if record is None:
                try:
                    records = self.process.ring.read()
                except ValueError as error:
                    self.garbage(str(error))
                    break
                if not records:
                    break
                self._records = iter(records)
                continue
            kind, number, started, ended, payload = record
            found = True
            if kind >= ring.BELOW:
                if kind in (ring.WORN, ring.UNFIT):
                    self._resigned(kind, payload)
                else:
                    self.words.heard(kind, number, payload)
                said += 1
                if said == SAID_AT_ONCE:
                    self._look_soon()
                    break
                continue
            if number != line.first or not sent:
                self.garbage(f"an end of job {number}, when {line.first} was next")
                break
            if kind == ring.ELSEWHERE:
                kind, payload = unloading.from_pipe(number)
            if kind == ring.FREIGHT:
                message = memoryview(payload)
                if not unloading.unload(number, started, ended, message, at_once=at_once):
                    break
                continue
            if unloading.is_heavy(kind, payload) and not at_once:
                unloading.unpack((kind, number, started, ended, payload))
                break
            one = line.step()
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
                    self._conclude(job, parcel, unreadable(job, error))
                    continue
                job._started = started * 1e-9 if real else now
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
            self.nursery.deaths = 0
            self.watch.saw(now)
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
        outcome = None if ended_by_verdict else outcome_of_record(job, kind, payload)
        # The loop may hear late of several ends at once: a job ended when its child says so.
        moment = max(self._moment(ended), job._started) if kind != ring.SKIPPED else None
        self._conclude(job, parcel, outcome, moment)

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

    # ---- taking back, cancelling

    @property
    def ahead(self) -> list[Job[Any]]:
        """The jobs in the line that have not begun."""
        return self.line.ahead()

    def refresh(self) -> None:
        """Note the job that the child has come to, if it has not ended already."""
        line = self.line
        if line.jobs and self.job is None and self.ready:
            one = line.jobs[0]
            if one is not None and self.process.current() == line.first:
                self.watch.seen = started = self._moment(self.process.started())
                self._begin(one[0], started)

    def give_up(self, job: Job[Any]) -> bool:
        """Let go of a job of the line for good; False if the child has come to it, or it has ended."""
        number = self.line.number_of(job)
        if number is None:
            return False
        if not self.process.take_back(number):
            for _ in range(LOOKS):  # the child may be a job further each time
                self.look()
                self.refresh()
                if job._state != QUEUED:
                    return False
                if self.line.number_of(job) != number:  # skipped: it went back, or was sent anew
                    return self.give_up(job)
            # Its end is on the way, behind something big that is still read: it counts no more.
            self.process.interrupt(number)
        self.line.drop(number)
        if self.packing is not None and number == self.line.last:
            self.packing.unwanted = True
        return True

    def shorten(self) -> None:
        """Take back what is behind the running job, for others, or to be sent again later."""
        self._give_back(self.line.take_back(self.process.take_back))

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

    def time_out(self, timeout: float) -> None:
        """The running job has taken too long."""
        self.home.unwinding.cancel(self, TimedOut(timeout))

    def cancel(self, verdict: Cancelled | TimedOut) -> bool:
        """Have the running job interrupted; what waits behind it need not wait for that."""
        if self.verdict is not None or self.job is None:
            return False
        self.verdict = verdict
        one = self.line.jobs[0] if self.line.jobs else None
        if one is not None and one[0] is self.job:
            self.process.interrupt(self.line.first)
            self.shorten()
            if self.unloading.unpacking is not None:
                self.unloading.unpack_no_more()
                self._look_soon()
        return True

    def kill(self) -> bool:
        """End the running job by force: it is settled at once, and its child is no more."""
        self.life.cause = "it was killed, because the job did not end when interrupted"
        self.process.kill()
        job = self.job
        if job is not None and self.verdict is not None:
            while self._drain(at_once=True):
                pass
            one = self.line.jobs[0] if self.line.jobs else None
            if one is not None and one[0] is job and self.job is job:
                self.line.drop(self.line.first)
                self._conclude(job, one[1], None)
        self.life.die()
        return True
