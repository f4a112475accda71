"""A Stream is what `map` returns: the ends of many jobs, as a list, one by one, or as they come."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Sized,
)
from contextvars import Context
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from asyncworkers import _checks, _html
from asyncworkers._engine.attempt import failure
from asyncworkers._engine.supply import Partial, Plan, Supply
from asyncworkers._log import log
from asyncworkers.errors import JobCancelled
from asyncworkers.job import Job, JobState, Lending
from asyncworkers.progress import ProgressBar

__all__ = ["Stream"]

T = TypeVar("T")

LEFT_EARLY = "its map was left before the end"


class Stream(Generic[T]):
    """The results of `supervisor.map(function, items)`. Nothing starts before it is used, once:

    - `await stream` gives a list of all values, in the order of the items. The first job that
      fails ends it: the rest is cancelled, and its exception is raised once they have ended.
    - `async for value in stream` gives values while jobs go on, in the order of the items, or,
      with `ordered=False`, as they come. Memory is bounded: at most `window` items are between
      the iterable and the loop's body at any time. A failure ends it after what precedes it.
    - `stream.outcomes()` gives the settled Jobs instead of values, so that one failure ends
      nothing: ask each job for its `result()` or `exception()`.
    - `async with supervisor.map(...) as stream` does the same and makes sure that on leaving,
      however, no job of it is left.

    Leaving the loop early, or cancelling whoever awaits, cancels the jobs it has started. An
    asynchronous generator that gave the items is closed when the map ends.
    """

    def __init__(
        self, start: Callable[[], Plan], items: object, ordered: bool, window: int | None
    ) -> None:
        self._start = start
        self._items = items
        self._ordered = ordered
        self._window = window
        self._as_jobs = False
        self._bar: ProgressBar | None = None
        self._used = False
        self._reader: _Reader | None = None

    def outcomes(self) -> Stream[Job[T]]:
        """The same jobs, each given as a settled Job once it has ended, whether well or not."""
        other = self._taken_over()
        other._as_jobs = True
        return cast("Stream[Job[T]]", other)

    def progress(self, title: str | None = None) -> Stream[T]:
        """The same results, with a progress bar on the terminal, or now and then a line if piped.

        Raises TypeError if `title` is no text.
        """
        if title is not None:
            _checks.text("title", title)
        other = self._taken_over()
        other._bar = ProgressBar(title, _length(self._items))
        return other

    async def reduce(self, function: Callable[[T, T], T], *initial: T) -> T:
        """All values as one: `function` of the first two, of that and the third, and so on.

        It must be associative, as the sum or the longer of two is: jobs that run in processes
        reduce what they have there, and only the partial results cross. Those are put together in
        the order of the items, so it need not be commutative. `initial`, if given, comes before
        the first value. Raises TypeError if there is no value at all, or what ended the stream.
        """
        if not callable(function):
            raise TypeError(f"function must be callable, not {_checks.shown(function)}")
        if len(initial) > 1:
            raise TypeError(f"reduce takes one initial value at most, not {len(initial)}")
        self._use()
        if self._as_jobs:
            raise RuntimeError("reduce is of values: leave out .outcomes()")
        self._ordered = True
        reader = _Reader(self, collect=False, reducer=function)
        try:
            return cast("T", await reader.reduce(function, list(initial)))
        except BaseException:
            reader.leave()
            raise

    def _taken_over(self) -> Stream[T]:
        self._use()
        other: Stream[T] = Stream(self._start, self._items, self._ordered, self._window)
        other._as_jobs, other._bar = self._as_jobs, self._bar
        return other

    def _use(self) -> None:
        if self._used:
            raise RuntimeError("a map can be used once: call supervisor.map(...) again")
        self._used = True

    def __await__(self) -> Generator[Any, None, list[T]]:
        self._use()
        return self._collect().__await__()

    async def _collect(self) -> list[T]:
        reader = _Reader(self, collect=not self._as_jobs)
        try:
            return await reader.all()
        except BaseException:
            reader.leave()
            raise

    def __aiter__(self) -> AsyncIterator[T]:
        if self._reader is None:
            self._use()
            return _Results(_Reader(self, collect=False))
        return _Results(self._reader)  # inside `async with`

    async def __aenter__(self) -> Self:
        self._use()
        self._reader = _Reader(self, collect=False)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._reader is not None
        await self._reader.aclose()

    def __del__(self) -> None:
        if not self._used:
            warnings.warn(
                "a map was never used: await it or iterate it", RuntimeWarning, stacklevel=2
            )

    def __repr__(self) -> str:
        return f"<Stream {self._said()}>"

    def _repr_html_(self) -> str:
        return self._shown("await it for a list, or iterate it: async for value in ...")

    def _shown(self, how: str) -> str:
        """As notebooks show it, with how to use it as long as it can be used."""
        return _html.block(f"Stream, {self._said()}", "" if self._used else _html.words(how))

    def _said(self) -> str:
        order = "ordered" if self._ordered else "unordered"
        return f"{'used' if self._used else 'not started'}, {order}"


class _Results(AsyncIterator[Any]):
    """What `async for` holds: when it is let go, so is what the reader has started.

    A class of its own and no generator, because an asynchronous generator's finalizer would run
    later and in another task.
    """

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader

    def __anext__(self) -> Coroutine[Any, Any, Any]:
        return self._reader.next()

    async def aclose(self) -> None:
        """Cancel what was started and wait until all of it has ended."""
        await self._reader.aclose()

    def __del__(self) -> None:
        self._reader.drop()


class _Reader:
    """The reading end of a stream that was started: collects ends and hands them out."""

    def __init__(
        self,
        stream: Stream[Any],
        collect: bool,
        reducer: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        items = stream._items
        plan = stream._start()
        self._queue = plan.queue
        self._ordered = stream._ordered
        self._as_jobs = stream._as_jobs
        self._bar = stream._bar
        self._missed = {JobState.FAILED: 0, JobState.CANCELLED: 0}
        self._results: list[Any] | None = [] if collect else None
        self._ready: dict[int, Any] = {}  # ends, by the number under which they are to be read
        self._come = 0  # how many have come
        self._failure: tuple[range, Job[Any] | Exception] | None = None  # of one of these items
        self._waiter: asyncio.Future[None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._closed = False
        self._left = False
        window = stream._window or max(2 * plan.queue.crew.workers, 64)
        is_async = isinstance(items, AsyncIterable)
        iterator = None if is_async else iter(cast("Iterable[Any]", items))
        self.supply = Supply(
            plan,
            window,
            iterator,
            self._results,
            self._deliver,
            self._deliver_job,
            self._as_jobs,
            self._broken,
            self._wake,
            may_widen=stream._window is None,
            reducer=reducer,
        )
        hub = plan.queue.hub
        hub.readers[self] = None
        plan.queue.supplies[self.supply] = None
        if self._bar is not None:
            self._bar.start(hub.loop, lambda: self.supply.ended, self._told_missed)
        if is_async:
            self._pump = hub.loop.create_task(self._pump_items(cast("AsyncIterable[Any]", items)))
            self._pump.add_done_callback(lambda _: self._wake())
        elif self.supply.refill():
            plan.queue.list_supply(self.supply)

    @property
    def queue(self) -> object:
        """Where its jobs run."""
        return self._queue

    # ---- what a bar is told of ends that are no values

    def _count_missed(self, job: Job[Any]) -> None:
        if job.state in self._missed:
            self._missed[job.state] += 1

    def _told_missed(self) -> dict[str, int]:
        failed, cancelled = self._missed.values()
        return {"failed": failed, "cancelled": cancelled + self.supply.skipped}

    # ---- ends that come from the workers

    def _deliver(self, index: int, value: Any) -> None:
        self._ready[index if self._ordered else self._come] = value
        self._come += 1
        if self._waiter is not None:
            self._wake()

    def _deliver_job(self, index: int, job: Job[Any], count: int) -> None:
        if self._bar is not None:
            self._count_missed(job)
        if self._as_jobs:
            self._deliver(index, job)
            return
        # The error is read when it is raised: another one that comes meanwhile is nobody's, and
        # is logged like that of any job that nobody awaits.
        if self._ordered and self._results is None:
            if self._failure is None or index < self._failure[0].start:
                self._failure = (range(index, index + count), job)
                self._stop("another job of its map failed", after=index)
        elif self._failure is None:
            self._failure = (range(index, index + count), job)
            self._stop("another job of its map failed")
        self._wake()

    def _broken(self, error: BaseException) -> None:
        """The iterable raised: that is the map's own failure, after all items it gave."""
        if self._failure is None:
            self._failure = (self._no_item(), failure(error).error)
            if self._results is not None:
                self.supply.stop("the items of its map raised")
            self._wake()

    def _no_item(self) -> range:
        return range(self.supply.pulled, self.supply.pulled)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._queue.hub.check_quiet()
        if self._closed and self.supply.is_finished():
            self.supply.let_go()

    # ---- reading

    def busy(self) -> bool:
        """Whether there is more to come without anybody reading."""
        return self.supply.busy() or self._waiter is not None

    async def all(self) -> list[Any]:
        """Everything, once all has ended."""
        if self._results is None:
            return await self._all_jobs()
        while not self._is_over():
            await self._wait()
        self._close()
        self._raise_failure()
        return self._results

    async def _all_jobs(self) -> list[Any]:
        """Settled jobs, each taken as it comes, so that one that takes long keeps no others waiting."""
        ready = self._ready
        found: dict[int, Any] = {}
        while True:
            if ready:
                count = len(ready)
                found |= ready
                ready.clear()
                self._have_read(count)
            elif self._is_over():
                self._close()
                self._raise_failure()
                return [found[place] for place in sorted(found)]
            else:
                await self._wait()

    async def next(self) -> Any:
        """The next end; raises StopAsyncIteration after the last or once left, or what ended the stream."""
        supply, ready = self.supply, self._ready
        if self._left:
            raise StopAsyncIteration
        while supply.read not in ready:
            if self._is_over():
                self._close()
                self._raise_failure()
                raise StopAsyncIteration
            await self._wait()
        end = ready.pop(supply.read)
        self._have_read(1)
        return end

    def _have_read(self, count: int) -> None:
        """So many ends were handed out, which may make room for more."""
        supply = self.supply
        supply.read += count
        if supply.wants_more() or not supply.busy():
            self._ask_for_more()

    async def reduce(self, function: Callable[[Any, Any], Any], values: list[Any]) -> Any:
        """Reduce everything, and what is in the list before it, to one value."""
        with contextlib.suppress(StopAsyncIteration):
            while True:
                end = await self.next()
                if type(end) is Partial:
                    self.supply.read += end.count - 1  # they were read as one
                    end = end.value
                values[:] = [function(values[0], end)] if values else [end]
        if not values:
            raise TypeError("there is nothing to reduce, and no initial value")
        return values[0]

    def _raise_failure(self) -> None:
        """Raise what ended the stream early, if something did; once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            items, error = failure
            if isinstance(error, Job):
                error = error._error()
                which = (
                    f"item {items[0]}"
                    if len(items) == 1
                    else f"one of items {items[0]} to {items[-1]}"
                )
                _checks.note(error, f"{which} of its map, counted from 0")
            try:
                raise error
            finally:
                del failure, error  # this frame is in the traceback: no cycle of the two

    def _is_over(self) -> bool:
        if not self.supply.is_finished():
            return False
        return self._pump is None or self._pump.done()

    def _ask_for_more(self) -> None:
        if self.supply.refill():
            self._queue.list_supply(self.supply)

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("this map is being read already: one reader at a time")
        self._waiter = self._queue.create_future()
        try:
            with Lending(self._queue.hub.lender_here()):
                await self._waiter
        finally:
            self._waiter = None
            self._queue.hub.check_quiet_soon()  # after whoever reads has had time to read on

    # ---- an asynchronous iterable

    async def _pump_items(self, items: AsyncIterable[Any]) -> None:
        iterator: object = None
        try:
            async for item in (iterator := aiter(items)):
                self.supply.add(item)
                if not await self.supply.wait_for_room():
                    break
        except BaseException as error:
            if not self.supply.exhausted:
                self._broken(error)
        finally:
            self.supply.exhausted = True
            self._queue.hub.loop.call_soon(self._wake)
            await self._end_generator(iterator)

    async def _end_generator(self, iterator: object) -> None:
        """End an asynchronous generator here and now, or its `finally` would run some time later,
        in a task of nobody's.
        """
        close = getattr(iterator, "aclose", None)
        if close is not None:
            try:
                await close()
            except (asyncio.CancelledError, GeneratorExit):
                raise
            except BaseException as error:  # also SystemExit, which would end the loop
                if self._left:  # nobody reads, so nobody would be told
                    log.failure("closing the items of a map that was left raised", error)
                self._broken(error)

    # ---- ending

    def _stop(self, reason: str, after: int = -1) -> None:
        """Pull nothing more, not even what an asynchronous iterable is about to give."""
        if self._pump is not None and not self.supply.exhausted:  # once: it may be cleaning up
            self._pump.cancel(reason)
        self.supply.stop(reason, after)

    def leave(self) -> None:
        """Cancel what was started; nothing more is read."""
        self._left = True
        self._stop(LEFT_EARLY)
        self._close()

    def abort(self, reason: str) -> None:
        """The supervisor stops: whoever reads gets a JobCancelled after what has ended."""
        if self._is_over():
            return
        if self._failure is None:
            self._failure = (
                self._no_item(),
                JobCancelled(f"the map was cancelled: {reason}", reason),
            )
        self._stop(reason)
        self._wake()

    async def aclose(self) -> None:
        """Cancel what was started and wait until all of it has ended."""
        self.leave()
        while not self._is_over():
            await self._wait()
        self._close()

    def _close(self) -> None:
        self._queue.hub.readers.pop(self, None)
        self._queue.hub.check_quiet()
        self._queue.forget_supply(self.supply)
        self._closed = True
        if self.supply.is_finished():
            self.supply.let_go()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def drop(self) -> None:
        """Nobody reads any more, perhaps in the middle of the loop's end: cancel what was started,
        and let go of what has ended and was not read. A collector notices that in any thread.
        """
        hub = self._queue.hub
        if self._closed or hub.loop.is_closed():
            return
        if hub.is_here():
            self.leave()
        else:
            with contextlib.suppress(RuntimeError):  # the loop may have been closed just now
                hub.loop.call_soon_threadsafe(self.drop, context=Context())


def _length(items: object) -> int | None:
    return len(items) if isinstance(items, Sized) else None
