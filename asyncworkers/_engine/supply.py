"""A supply makes jobs of a stream's items when workers ask, and runs the simplest without making a Job."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from asyncworkers._engine.attempt import UNFINISHED, Attempt, failure
from asyncworkers._engine.crew import TURN
from asyncworkers._engine.line import rank
from asyncworkers._engine.memory import GIVEN_UP, MemoryQueue
from asyncworkers._engine.worker import conclude, learn_that_it_sets_context
from asyncworkers.job import QUEUED, RUNNING, SUCCEEDED, Job, Order, running

if TYPE_CHECKING:
    from asyncworkers._engine.chunks import Chunks

__all__ = ["Partial", "Plan", "Supply"]

CHUNK = 64
"""Items taken from the iterable at a time."""

PULL = 0.001
"""Seconds after which no more items are taken for now."""


class Plan:
    """What the jobs of a stream have in common."""

    __slots__ = ("context", "delay", "order", "parent", "queue")

    def __init__(
        self,
        queue: MemoryQueue,
        order: Order,
        context: Context | None,
        delay: float,
        parent: Job[Any] | None,
    ) -> None:
        self.queue = queue
        self.order = order
        self.context = context
        self.delay = delay
        self.parent = parent


class Partial:
    """What the values of so many items, one after the other, were reduced to."""

    __slots__ = ("count", "value")

    def __init__(self, value: Any, count: int) -> None:
        self.value = value
        self.count = count


class Supply:
    """The items of one `map` on their way through a queue, never more than `window` at a time.

    It stands in the queue's line as one entry. A worker that takes it runs items back to back
    until its turn is over, which spares each item the way through the line: the turn of the whole
    crew, or, with items that are suspended, the worker's own if something else is in line. As long as nothing
    but the item's value is wanted, no Job is made for it: the worker's attempt remembers which
    item it is at, and `make_running_job` makes the Job when somebody asks for it, be it in the
    middle of the run (to list it, to cancel or retry it, or because its code asks who it is).

    For a queue of processes several items may make up one job, a chunk (`chunks`); then the window
    is widened, if that is allowed, so that every process has enough of them.

    Values go to `results`, by index, or to `deliver`; ends that are not values, and all of them
    if `as_jobs` is set, go to `deliver_job`. `changed` is called when the last item has ended.
    """

    _state = -1  # never QUEUED: an entry of the line that workers must look at twice

    def __init__(
        self,
        plan: Plan,
        window: int,
        iterator: Iterator[Any] | None,
        results: list[Any] | None,
        deliver: Callable[[int, Any], None],
        deliver_job: Callable[[int, Job[Any], int], None],
        as_jobs: bool,
        broken: Callable[[BaseException], None],
        finished: Callable[[], None],
        may_widen: bool = False,
        reducer: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self.queue = plan.queue
        self.window = window
        # Items are taken a few at a time, if the window lets more of them wait than there are
        # workers to run them: taking one costs little more than looking whether there is room.
        self._least = max(1, min(CHUNK // 2, (window - plan.queue.crew.workers) // 2))
        self.items: deque[Any] = deque()
        self.pulled = self.taken = self.ended = 0  # items got, started, and done with
        self.read = 0  # items whose end the reader has taken away, if there is one
        self.with_job = 0  # of those that ended, how many had a Job, which its queue has counted
        self.skipped = 0  # of those that ended, how many a chunk that ended early did not come to
        self.exhausted = False
        self._plan = plan
        self._iterator = iterator
        self._results = results
        self._deliver = deliver
        self._deliver_job = deliver_job
        self._as_jobs = as_jobs
        self._broken = broken
        self._finished = finished
        self._jobs: dict[Job[Any], int] = {}
        self._context = copy_context()  # the iterable's code runs in its owner's context
        self._room_wanted: asyncio.Future[None] | None = None  # who adds items waits for it
        self._chunks: Chunks | None = None
        if not as_jobs and plan.order.pack is not None:
            from asyncworkers._engine.chunks import chunks_of  # what many never need

            self._chunks = chunks_of(self, plan.order, reducer)
        self._reducer = reducer
        self._may_widen = may_widen

    @property
    def name(self) -> str:
        """The name of the function, for people."""
        return self._plan.order.name

    # ---- items

    def add(self, item: Any) -> None:
        """An item has come from an asynchronous iterable, perhaps in spite of having been told to stop."""
        if self.exhausted:
            return
        self.items.append(item)
        self.pulled += 1
        if self._results is not None:
            self._results.append(None)
        self.queue.list_supply(self)

    async def wait_for_room(self) -> bool:
        """For who adds items: wait until there is room for one; False if no more are wanted."""
        while self.room() <= 0 and not self.exhausted:
            self._room_wanted = self.queue.hub.loop.create_future()
            await self._room_wanted
        return not self.exhausted

    def _offer_room(self) -> None:
        wanted = self._room_wanted
        if wanted is not None and not wanted.done() and self.room() > 0:
            wanted.set_result(None)

    def wants_more(self) -> bool:
        """Whether it stands still, or will soon, until more items are taken from the iterable."""
        return not self.items and not self.exhausted and self.room() >= self._least

    def room(self) -> int:
        """How many more items may be taken from the iterable now."""
        gone = self.ended if self._results is not None else self.read
        return self.window - (self.pulled - gone)

    def refill(self) -> bool:
        """Take items from the iterable if there are none left and there is room; are there any now?"""
        self._offer_room()
        if not self.items and not self.exhausted and self._iterator is not None:
            room = self.room()
            if room >= self._least or (room > 0 and self.taken == self.ended):
                self._context.run(self._pull, self._iterator, min(room, CHUNK))
                self.queue.crew.staff(len(self.items))
                if self.is_finished():
                    self._finished()
        return bool(self.items)

    def _pull(self, iterator: Iterator[Any], most: int) -> None:
        items, was_last, trouble, had = self.items, False, None, len(self.items)
        try:
            for _ in range(most):
                items.append(next(iterator))
        except StopIteration:
            was_last = True
        except BaseException as error:
            was_last, trouble = True, error
        if self.exhausted:  # by the iterable's own code: what it gave since is not wanted
            items.clear()
        else:
            self.exhausted = was_last
            self.pulled += len(items) - had
            if self._results is not None:
                self._results.extend([None] * (len(items) - had))
        if trouble is not None:
            self._broken(trouble)

    def top_up(self, wanted: int, window: int) -> None:
        """Take more items, so that so many wait, as far as there are any and they come quickly."""
        if self._may_widen and window > self.window:
            self.window = window
        ends = self.queue.now() + PULL
        while len(self.items) < wanted and not self.exhausted and self._iterator is not None:
            room = min(self.room(), wanted - len(self.items), CHUNK)
            if room <= 0 or self.queue.now() > ends:
                break
            self._context.run(self._pull, self._iterator, room)

    def _refill_between(self, attempt: Attempt) -> bool:
        """Refill while the attempt is between two items, so that the last one is not taken for running."""
        attempt.supply = None
        more = self.refill()
        attempt.supply = self
        if more:
            self.queue.list_supply(self)  # another worker may have found it empty, and let it go
        return more

    @property
    def uncounted(self) -> int:
        """Items that succeeded without having had a Job."""
        return self.ended - self.with_job

    @property
    def crossing(self) -> int:
        """Items on their way in chunks, but for one of each, as which the chunk itself counts."""
        chunks = () if self._chunks is None else self._chunks.under_way.values()
        return sum(len(items) - 1 for _, items in chunks)

    def is_finished(self) -> bool:
        """Whether every item there was or will be has ended."""
        return self.exhausted and not self.items and self.taken == self.ended

    def let_go(self) -> None:
        """All has ended and nobody reads: let go of the reader, so that neither waits for a collector."""
        self._deliver = self._deliver_job = self._broken = self._finished = _ignore

    def busy(self) -> bool:
        """Whether it will go on by itself, without its reader's help."""
        return self.taken > self.ended or bool(self.items)

    def stop(self, reason: str, after: int = -1) -> None:
        """Start nothing more, and cancel what runs of the items after the given index."""
        self.exhausted = True
        self.items.clear()
        for attempt in tuple(self.queue.crew.members):
            if attempt.supply is self:
                attempt.running_job()
        for job, index in tuple(self._jobs.items()):
            if index > after:
                job.cancel(reason)
        chunks = {} if self._chunks is None else self._chunks.under_way
        for job, (index, _) in tuple(chunks.items()):
            if index > after:
                job.cancel(reason)
        if self.is_finished():
            self._finished()

    # ---- running them

    def place(self) -> tuple[int, float]:
        """Where it stands in a ranked line; it never ages, for it takes turns anyway."""
        depth = 0 if self._plan.parent is None else self._plan.parent._depth() + 1
        return rank(self._plan.order.policies.priority, depth), self.queue.clock.now()

    def next_job(self) -> Job[Any] | None:
        """Make the next item's Job, for a worker that is about to run it."""
        if self._chunks is not None and self.items and not self.queue.told:
            return self._chunks.next_job()
        while self.items:
            job = self._make_job(self.items.popleft(), self.taken)
            self.taken += 1
            plan = self._plan
            if not plan.delay and plan.order.policies.expires is None:
                if not self.queue.told or self._tell_submitted(job):
                    return job
                self.refill()
                continue
            self.queue.put_special(job, plan.delay, plan.order.policies.expires)
            self.refill()
        return None

    def _tell_submitted(self, job: Job[Any]) -> bool:
        """Tell of a job that is about to be run; whether it still is: who is told may cancel it."""
        job._value = GIVEN_UP  # it is in no line from which it could be taken
        self.queue.teller.submitted(job)
        if job._state != QUEUED:
            return False
        del job._value
        return True

    def make_running_job(self, attempt: Attempt) -> Job[Any]:
        """Make the Job of the item that this attempt is running already."""
        _, index, item, _ = attempt.at
        job = self._make_job(item, index)
        attempt.serial += 1  # whoever lends for this job is told from those of the item before
        job._state = RUNNING
        job._started = attempt.since
        if job._rare is not None:
            job._rare.tries = 1
        job._value = attempt
        attempt.job = job
        return job

    def _make_job(self, item: Any, index: int) -> Job[Any]:
        plan = self._plan
        context = None if plan.context is None else plan.context.copy()
        job: Job[Any] = Job(plan.order, (item,), None, context, self.queue.clock.now())
        if plan.parent is not None:
            rare = job._uncommon()
            rare.parent, rare.depth = plan.parent, plan.parent._depth() + 1
        self._jobs[job] = index
        job._watch(self._job_ended)
        return job

    def make_chunk(self, order: Order, items: list[Any]) -> Job[Any]:
        """Make the job of several items."""
        context = None if self._plan.context is None else self._plan.context.copy()
        return Job(order, (items,), None, context, self.queue.clock.now())

    def chunk_ended(self, index: int, values: list[Any], done: int, left: int) -> None:
        """A chunk has ended: so many items are done, with these values, and so many have none."""
        self.ended += done + left
        self.with_job += left
        if left:
            self.queue.cancelled += left - 1  # but for the one that is given as a job
            self.skipped += left - 1
        if self._reducer is not None:
            if values:
                self._deliver(index, Partial(values[0], done))
        elif self._results is not None:
            self._results[index : index + len(values)] = values
        else:
            for at, value in enumerate(values, index):
                self._deliver(at, value)
        self._after_end()

    def give(self, index: int, job: Job[Any], count: int) -> None:
        """The job of an item, or of so many of which nobody knows which, whose end is no value."""
        self._deliver_job(index, job, count)

    def _job_ended(self, job: Job[Any]) -> None:
        index = self._jobs.pop(job)
        self.ended += 1
        self.with_job += 1
        if self._as_jobs or job._state != SUCCEEDED:
            self._deliver_job(index, job, 1)
        elif self._results is not None:
            self._results[index] = job._value
        else:
            self._deliver(index, job._value)
        self._after_end()

    def _after_end(self) -> None:
        if self._results is not None and not self.items and not self.exhausted:
            self.queue.list_supply(self)  # there is room for another item now
        if self.is_finished():
            self._finished()
        else:
            self.queue.hub.check_quiet()

    def _is_simple(self) -> bool:
        plan = self._plan
        policies = plan.order.policies
        return (
            plan.context is None
            and policies.timeout is None
            and policies.expires is None
            and not plan.delay
            and not policies.sets_context
            and not self._as_jobs
            and not self.queue.told
        )

    async def work(self, queue: MemoryQueue, attempt: Attempt) -> Job[Any] | None:
        """Run items back to back for a turn; or answer with a Job that the worker is to run."""
        if not self._is_simple():
            return self.next_job()
        assert attempt.task is not None
        now, cancelling, mark = queue.clock.now, attempt.task.cancelling, running.set
        items, function, results = self.items, self._plan.order.function, self._results
        attempt.since = now()
        left, crew = 1, queue.crew
        attempt.supply = self
        try:
            while (items or self._refill_between(attempt)) and not queue.shut:
                item = items.popleft()
                index = self.taken
                self.taken = index + 1
                attempt.at = at = (attempt, index, item, self)
                mark(at)
                try:
                    value = await function(item)
                except BaseException as error:
                    self._conclude(attempt, error, None)
                    if issubclass(type(error), GeneratorExit):
                        raise  # perhaps our own end: await nothing more
                    return None
                if attempt.job is not None or type(value) in UNFINISHED:
                    self._conclude(attempt, None, value)
                    return None
                self.ended += 1
                if results is not None:
                    results[index] = value
                else:
                    self._deliver(index, value)
                if cancelling():
                    return None
                if len(copy_context()) != 1:
                    learn_that_it_sets_context(self._plan.order)
                    return None
                left -= 1
                if not left:  # a look at the clock costs as much as a tenth of an item
                    left = 8
                    moment = now()
                    if moment > crew.turn_ends and crew.is_turn_over(moment):
                        break
                    if moment - attempt.since > TURN:
                        if len(queue.line) > 1:
                            break  # it is the turn of another one in line
                        attempt.since = moment
                        left = 1  # these take their time, so each is worth a look
        finally:
            attempt.supply = attempt.at = None
            mark(None)  # or the last item would live as long as the worker's next job
            if self.is_finished():
                self._finished()
            elif self.items or not self.exhausted:
                queue.list_supply(self)  # another worker may have found it empty, and let it go
        if items:
            await asyncio.sleep(0)
        return None

    def _conclude(self, attempt: Attempt, error: BaseException | None, value: Any) -> None:
        job = attempt.running_job()
        attempt.supply = None
        if job is not None:
            outcome = None if error is None else failure(error)
            conclude(self.queue, attempt, job, outcome, value, self.queue.clock.now())


def _ignore(*_: object) -> None:
    """Nobody reads this stream any more."""
