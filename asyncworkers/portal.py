"""A portal lets code without `await` use a supervisor, which runs in the event loop of a thread.

    with Portal() as portal:
        pages = portal.map(fetch, urls).all()

Facts this follows:
- A prompt, an ordinary script and a cell that must not await have no loop of their own to run jobs
  in, or have one that stands still while they wait. So the loop is that of a thread.
- SIGINT interrupts whoever waits, in the main thread. So each wait cancels what it waited for, and
  nothing else: the thread and its supervisor know nothing of the signal. It can come at any moment,
  so from the first moment of a call there is something to cancel, and no lock is shared: see `_End`.
- An iterator may block, and may be bound to the thread that made it, as a cursor of a database is.
  So the thread that reads the results of a `map` also takes its items, whenever it waits.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import inspect
import logging
import os
import queue
import threading
import time
import warnings
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sized,
)
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast, overload

from asyncworkers import (
    Call,
    DrainReport,
    Job,
    Outcome,
    Stream,
    Supervisor,
    SupervisorClosed,
    WrongLoop,
    WrongProcess,
    _checks,
    run,
)
from asyncworkers.units import agreed, counted

__all__ = ["Portal", "PortalStream"]

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")

logger = logging.getLogger("asyncworkers")

AT_ONCE = 256
"""Items, or values, that cross to or from the loop's thread together at most."""

SLICE = 0.2
"""Seconds of a wait after which it begins anew: a signal that comes just before a wait begins does
not end it, and on Windows none does.
"""

PULLING = 0.001
"""Seconds for which items are taken from an iterator before those there are cross."""

LAST_MOMENT = 5.0
"""Seconds for a portal that nobody has closed when the process ends."""


class Portal:
    """Runs a supervisor in a thread of its own: `with Portal(Supervisor(workers=50)) as portal`.

    Its methods wait where those of the supervisor are awaited, and may be called from any thread
    but the loop's own. Ctrl-C, or a notebook's stop button, ends the wait: what `call`, `map` and
    `run` have begun is cancelled, a job that was submitted runs on, and the portal can be used as
    before. Leaving the block finishes every job first; leaving it with an exception cancels them.

    - `supervisor`: one that was not entered; `Supervisor()` if None.

    A portal that nobody closes warns of it when it goes away; at the end of the process its jobs are
    cancelled.
    """

    def __init__(self, supervisor: Supervisor | None = None) -> None:
        if supervisor is None:
            supervisor = Supervisor()
        if not isinstance(supervisor, Supervisor):
            raise TypeError(f"supervisor must be a Supervisor, not {supervisor!r}")
        self._supervisor = supervisor
        self._home: _Home | None = None

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor. Its methods belong into the loop: `portal.run(portal.supervisor.pause, "mail")`."""
        return self._supervisor

    # ---- its life

    def open(self) -> Self:
        """Start the thread and enter the supervisor; for where there is no block to leave.

        Raises RuntimeError if it is open already, and what entering the supervisor raises.
        """
        if self._home is not None and self._home.is_open():
            raise RuntimeError(f"{self!r} was opened already")
        home = _Home(self._supervisor)
        home.open()
        self._home = home
        return self

    def close(self, grace: float | timedelta | None = None) -> DrainReport:
        """Finish every job, or those that end in `grace` seconds, end, and report what became of them.

        An interrupt cancels the jobs, and is raised once they have ended. Closing again is
        harmless. Raises SupervisorClosed before it was opened, SupervisorFailed if the supervisor
        has failed.
        """
        return self._opened().close(grace)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        home = self._opened()
        if error is not None:
            if home.pid != os.getpid():
                return  # what ends a forked child goes on its way, and nothing is closed there
            home.cancel("the portal was left with an exception")
        home.close(None if error is None else 0.0)

    def __del__(self) -> None:
        home: _Home | None = getattr(self, "_home", None)
        if home is not None and home.is_open() and home.pid == os.getpid():
            warnings.warn(
                f"{self!r} was never closed: its jobs are cancelled", ResourceWarning, stacklevel=2
            )
            home.cancel("its portal was never closed, and is gone")
            home.leave(None)

    def __repr__(self) -> str:
        state = "new" if self._home is None else "open" if self._home.is_open() else "closed"
        return f"<Portal {state} to {self._supervisor!r}>"

    def _repr_html_(self) -> str:
        home = self._home
        shown = self._supervisor._repr_html_
        return shown() if home is None or not home.is_open() else self.run(shown)

    # ---- giving it jobs

    @overload
    def submit(self, function: Call[Coroutine[Any, Any, T]], /) -> Job[T]: ...
    @overload
    def submit(
        self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...
    @overload
    def submit(self, function: Call[T], /) -> Job[T]: ...
    @overload
    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Job[T]: ...
    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """As `await supervisor.submit(...)`: the Job can be looked at here, and given to `result`,
        `wait` and `cancel`. Raises what that raises.
        """
        run: Callable[..., Any] = self.run
        return cast("Job[Any]", run(self._supervisor.submit, function, *args, **kwargs))

    @overload
    def submit_many(
        self, function: Callable[[Item], Coroutine[Any, Any, T]], items: Iterable[Item], /
    ) -> list[Job[T]]: ...
    @overload
    def submit_many(
        self, function: Callable[[Item], T], items: Iterable[Item], /
    ) -> list[Job[T]]: ...
    def submit_many(self, function: Any, items: Iterable[Any], /) -> list[Job[Any]]:
        """As `await supervisor.submit_many(...)`. Raises what that raises."""
        given: Any = items
        if isinstance(given, Iterator):
            given = list(cast("Iterator[Any]", given))  # here, where it was made
        submit_many = cast("Any", self._supervisor).submit_many
        return cast("list[Job[Any]]", self.run(submit_many, function, given))

    @overload
    def call(self, function: Call[Coroutine[Any, Any, T]], /) -> T: ...
    @overload
    def call(
        self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    def call(self, function: Call[T], /) -> T: ...
    @overload
    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """The function's value, or its exception: `await supervisor.call(...)`."""
        return self.run(self._supervisor.call, function, *args, **kwargs)

    @overload
    def map(
        self,
        function: Callable[[Item], Coroutine[Any, Any, T]],
        items: Iterable[Item] | AsyncIterable[Item],
        /,
        *,
        ordered: bool = True,
        window: int | None = None,
        cpu: bool = False,
    ) -> PortalStream[T]: ...
    @overload
    def map(
        self,
        function: Callable[[Item], T],
        items: Iterable[Item] | AsyncIterable[Item],
        /,
        *,
        ordered: bool = True,
        window: int | None = None,
        cpu: bool = False,
    ) -> PortalStream[T]: ...
    def map(
        self,
        function: Any,
        items: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        ordered: bool = True,
        window: int | None = None,
        cpu: bool = False,
    ) -> PortalStream[Any]:
        """As `supervisor.map(...)`: `.all()` for a list, or iterate it. Raises what that raises.

        An iterator, which has no length, is read by the thread that reads the results.
        """
        inbox = _Inbox()
        source: Any = items
        if isinstance(source, Iterable) and not isinstance(source, Sized | AsyncIterable):
            source = inbox.feed(iter(cast("Iterable[Any]", source)))
        mapping = self._supervisor.map
        stream = self.run(mapping, function, source, ordered=ordered, window=window, cpu=cpu)
        return PortalStream(self._opened(), stream, inbox)

    # ---- and its ends

    def result(self, job: Job[T], /) -> T:
        """The job's value, or raise what it failed with: `await job`. An interrupt leaves it running.

        Raises TypeError for what is no job.
        """
        return self.run(_await, _job(job))

    def wait(self, job: Job[Any], /, timeout: float | None = None) -> Outcome:
        """As `await job.wait(timeout)`. Raises TimeoutError if it has not ended by then, TypeError for
        what is no job.
        """
        return self.run(_job(job).wait, timeout)

    def cancel(self, job: Job[Any] | str, reason: str = "cancel() was called") -> bool:
        """As `supervisor.cancel(job, reason)`. Raises what that raises."""
        return self.run(self._supervisor.cancel, job, reason)

    @overload
    def run(
        self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def run(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function in the portal's loop, await what it returns if that is a coroutine, and
        return the value: `portal.run(portal.supervisor.drain, 5)`.

        Raises what it raises; SupervisorClosed unless the portal is open, WrongLoop in the loop's
        own thread, where waiting would stop everything, WrongProcess in a forked child, TypeError
        for what is no function.
        """
        if not callable(function):
            raise TypeError(f"function must be callable, not {_checks.shown(function)}")
        return _Inbox().wait(self._opened(), function, *args, **kwargs)

    def _opened(self) -> _Home:
        if self._home is None:
            raise SupervisorClosed("the portal was not opened: with Portal() as portal")
        return self._home


class PortalStream(Generic[T]):
    """The results of `portal.map(function, items)`. Nothing starts before it is used, once:

    - `stream.all()` is a list of all values. The first job that fails cancels the rest.
    - `for value in stream` gives them while jobs go on. Leaving the loop early cancels the rest as
      soon as nothing refers to the iterator; `with portal.map(...) as stream` does so in any case.
    - `stream.outcomes()`, `stream.progress()` and `stream.reduce(function)` are those of `Stream`.

    An interrupt while it waits cancels its jobs.
    """

    def __init__(self, home: _Home, stream: Stream[T], inbox: _Inbox) -> None:
        self._home = home
        self._stream = stream
        self._inbox = inbox
        self._values: _Values[T] | None = None

    def outcomes(self) -> PortalStream[Job[T]]:
        """The same jobs, each given as a settled Job once it has ended, whether well or not."""
        return PortalStream(self._home, self._stream.outcomes(), self._inbox)

    def progress(self, title: str | None = None) -> PortalStream[T]:
        """The same results, shown as they come; as `Stream.progress`. Raises what that raises."""
        return PortalStream(self._home, self._stream.progress(title), self._inbox)

    def all(self) -> list[T]:
        """All values, in the order of the items. Raises what ended the map, if a job failed."""
        return cast("list[T]", self._inbox.wait(self._home, _await, self._stream))

    def reduce(self, function: Callable[[T, T], T], *initial: T) -> T:
        """All values as one, as `Stream.reduce`. Raises what that raises."""
        return cast("T", self._inbox.wait(self._home, self._stream.reduce, function, *initial))

    def __iter__(self) -> Iterator[T]:
        if self._values is not None:  # inside `with`
            return self._values
        return _Values(self._home, self._inbox, self._stream)

    def __enter__(self) -> Self:
        self._values = _Values(self._home, self._inbox, self._stream)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._values is not None
        self._values.close()

    def __repr__(self) -> str:
        return f"<Portal{repr(self._stream)[1:]}"

    def _repr_html_(self) -> str:
        return self._stream._shown("call all() for a list, or iterate it: for value in ...")


class _Home:
    """The thread, its loop, and the supervisor in it. It knows no portal, so that one that was
    forgotten can go away.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._entered: _End[None] = _End()
        self._left: _End[DrainReport] = _End()
        self._graces: list[float | timedelta | None] = []
        self._leaving = asyncio.Event()
        self._calls: set[_Call] = set()
        self._hurrying: asyncio.Future[DrainReport] | None = None
        self._thread = threading.Thread(
            target=self._serve, name=f"asyncworkers-{supervisor.name}-portal", daemon=True
        )

    # ---- in any thread

    def open(self) -> None:
        """Start the thread, and return when the supervisor is entered."""
        _open.add(self)
        self._thread.start()
        try:
            self._entered.wait()
        except BaseException:
            self.leave(None)
            self._thread.join()
            raise

    def is_open(self) -> bool:
        return not self._left.come

    def start(
        self, call: _Call, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> None:
        """Begin a call in the loop; it sees the context variables of whoever asks for it."""
        self._check_place()
        self._calls.add(call)
        self.soon(self._begin, call, function, args, kwargs)
        if self._left.come:  # it comes too late to be begun, and nobody would say so
            raise SupervisorClosed("the portal is closed: it accepts no calls")

    def give_up(self, call: _Call) -> None:
        """Nobody waits for it any more: cancel it, or see to it that it never begins."""
        call.given_up = True
        self._calls.discard(call)
        self.soon(call.cancel)

    def soon(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in the loop, if that still runs."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function, *args)

    def close(self, grace: float | timedelta | None) -> DrainReport:
        """Leave the supervisor, and wait for the thread's end."""
        self._check_place()
        self.leave(grace)
        try:
            return self._left.wait()
        except BaseException:
            self.cancel("closing the portal was interrupted")
            self.soon(self._hurry)
            raise
        finally:
            self._thread.join()

    def cancel(self, reason: str) -> None:
        """Cancel every job."""
        self.soon(self._cancel_all, reason)

    def leave(self, grace: float | timedelta | None) -> None:
        """Tell the thread to end; the first who says so says how."""
        self._graces.append(grace)
        self.soon(self._leaving.set)

    def end_with_process(self) -> None:
        """Nobody has closed the portal, and the interpreter ends."""
        self.soon(self._cancel_all, "its portal was never closed, and the process ends", True)
        self.leave(None)
        self._thread.join(LAST_MOMENT)

    def _check_place(self) -> None:
        if os.getpid() != self.pid:
            raise WrongProcess(
                f"the portal's loop runs in process {self.pid}, this is {os.getpid()}: open another one here"
            )
        if threading.current_thread() is self._thread:
            raise WrongLoop(
                "a portal is for other threads than its loop's own: await the supervisor's methods"
            )

    # ---- in the thread

    def _serve(self) -> None:
        try:
            report = run(self._live)
        except BaseException as error:
            self._entered.set_error(error)
            self._left.set_error(error)
        else:
            self._left.set_value(report)
        finally:
            _open.discard(self)
            for call in tuple(self._calls):
                call.set_error(concurrent.futures.CancelledError())

    async def _live(self) -> DrainReport:
        supervisor = await self.supervisor.open()
        self._loop = asyncio.get_running_loop()
        self._entered.set_value(None)
        try:
            while not self._graces:
                await self._leaving.wait()
        except BaseException:
            await supervisor.close(0)
            raise
        return await supervisor.close(self._graces[0])

    def _begin(
        self,
        call: _Call,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if call.given_up:  # whoever asked for it was interrupted before it could begin
            return

        def give(task: asyncio.Task[Any]) -> None:
            self._calls.discard(call)
            if task.cancelled():
                call.set_error(concurrent.futures.CancelledError())
            elif (error := task.exception()) is not None:
                call.set_error(error)
            else:
                call.set_value(task.result())

        call.task = asyncio.ensure_future(_called(function, args, kwargs))
        call.task.add_done_callback(give)

    def _cancel_all(self, reason: str, tell: bool = False) -> None:
        jobs = self.supervisor.jobs()
        if jobs and tell:
            number, are = counted(len(jobs), "job"), agreed(len(jobs), "is", "are")
            logger.warning("%r: %s; %s %s cancelled", self.supervisor, reason, number, are)
        self.supervisor.cancel_all(reason)

    def _hurry(self) -> None:
        """Wait no longer for jobs than the end of any supervisor does, whatever `close` was given."""
        self._hurrying = asyncio.ensure_future(self.supervisor.drain(0))


_open: set[_Home] = set()


@atexit.register
def _end_all() -> None:
    for home in tuple(_open):
        if home.pid == os.getpid():
            home.end_with_process()


class _End(Generic[T]):
    """How something in the loop's thread ends, for other threads that wait for it.

    Two threads that share a `concurrent.futures.Future` share its `threading.Condition`, which is
    Python: a signal that interrupts a thread inside it can leave its lock held for ever. What they
    share here changes in one step: attributes, and a queue written in C.
    """

    def __init__(self, inbox: queue.SimpleQueue[Any] | None = None) -> None:
        self.come = False
        self._inbox = queue.SimpleQueue[Any]() if inbox is None else inbox
        self._value: T | None = None
        self._error: BaseException | None = None

    def set_value(self, value: T) -> None:
        self._value = value
        self._set()

    def set_error(self, error: BaseException) -> None:
        """Only the first end counts."""
        if not self.come:
            self._error = error
            self._set()

    def _set(self) -> None:
        self.come = True
        self._inbox.put(None)

    def wait(self) -> T:
        """The value, or raise the error. Of several threads that wait one is woken at once."""
        while not self.come:
            with contextlib.suppress(queue.Empty):
                self._inbox.get(timeout=SLICE)
        return self.result()

    def result(self) -> T:
        """What has come."""
        if self._error is not None:
            raise self._error
        return cast("T", self._value)


class _Call(_End[Any]):
    """A call that the loop runs for another thread, and how that gives it up."""

    def __init__(self, inbox: queue.SimpleQueue[Any]) -> None:
        super().__init__(inbox)
        self.given_up = False
        self.task: asyncio.Task[Any] | None = None

    def cancel(self) -> None:
        """In the loop."""
        if self.task is not None:
            self.task.cancel()

    def result(self) -> Any:
        """What has come, once: the traceback of an error holds whoever waits, who holds this."""
        end, self._error = self._error, None
        if isinstance(self._value, _Raised):
            end, self._value = self._value.error, None
        if end is None:
            return self._value
        try:
            raise end
        finally:
            del end


class _Raised:
    """What a call has raised that must not be raised in a task, where it would end the loop."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


async def _called(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    try:
        value = function(*args, **kwargs)
        return await value if inspect.iscoroutine(value) else value
    except (SystemExit, KeyboardInterrupt) as error:
        return _Raised(error)


def _job(given: Job[T]) -> Job[T]:
    job: object = given
    if not isinstance(job, Job):
        raise TypeError(f"job must be a Job, not {_checks.shown(job)}")
    return given


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


# ---- streams


class _Wish:
    """The loop's side of a stream wants more items; the future gets them, and whether that was all."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.items: asyncio.Future[tuple[list[Any], BaseException | None]] = (
            self.loop.create_future()
        )

    def fulfil(self, items: list[Any], end: BaseException | None) -> None:
        """In the loop: nobody may want them any more."""
        if not self.items.done():
            self.items.set_result((items, end))


class _Inbox:
    """What a thread that waits for a call has to do meanwhile: take items of a stream, if it is asked to."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[_Wish | None] = queue.SimpleQueue()
        self._iterator: Iterator[Any] = iter(())

    async def feed(self, iterator: Iterator[Any]) -> AsyncGenerator[Any]:
        """The items of an iterator, as they come from the thread that reads."""
        self._iterator = iterator
        while True:
            wish = _Wish()
            self._messages.put(wish)
            items, end = await wish.items
            for item in items:
                yield item
            if isinstance(end, StopIteration):
                return
            if end is not None:
                raise end

    def wait(self, home: _Home, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Have a function called in the loop and wait for it, taking items meanwhile.

        The call exists before it begins: from then on an interrupt has something to give up.
        """
        call = _Call(self._messages)
        try:
            home.start(call, function, *args, **kwargs)
            while not call.come:
                try:
                    message = self._messages.get(timeout=SLICE)
                except queue.Empty:
                    continue
                if message is not None:
                    self._fulfil(message)
            return call.result()
        except BaseException:
            home.give_up(call)
            raise

    def _fulfil(self, wish: _Wish) -> None:
        items: list[Any] = []
        end: BaseException | None = None
        until = time.monotonic() + PULLING
        try:
            while len(items) < AT_ONCE:
                items.append(next(self._iterator))
                if time.monotonic() >= until:
                    break
        except StopIteration:
            end = StopIteration()
        except Exception as error:
            # Without this frame, which would hold those below it, and so whatever reads the stream.
            trace = error.__traceback__
            end = error.with_traceback(None if trace is None else trace.tb_next)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            wish.loop.call_soon_threadsafe(wish.fulfil, items, end)


class _Values(Iterator[T]):
    """What `for` holds: when it is let go, so is what the stream has started."""

    _reader: _Reader[T] | None = None
    """None also before it is made, and once the stream has ended."""

    def __init__(self, home: _Home, inbox: _Inbox, stream: Stream[T]) -> None:
        self._home = home
        self._inbox = inbox
        self._come: deque[T] = deque()
        self._reader = _Reader(stream)
        try:
            inbox.wait(home, self._reader.open)
        except BaseException:
            self._let_go()
            raise

    def __next__(self) -> T:
        if not self._come:
            if self._reader is None:
                raise StopIteration
            try:
                self._come.extend(self._inbox.wait(self._home, self._reader.take))
            except BaseException:
                self._let_go()
                raise
            if not self._come:
                self.close()
                raise StopIteration
        return self._come.popleft()

    def close(self) -> None:
        """Cancel what was started and wait until all of it has ended."""
        self._come.clear()
        if self._reader is not None and self._home.is_open():
            try:
                self._inbox.wait(self._home, self._reader.close)
            except BaseException:
                self._let_go()
                raise
        self._reader = None

    def _let_go(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            self._home.soon(reader.let_go)

    def __del__(self) -> None:
        self._let_go()


class _Reader(Generic[T]):
    """In the loop: reads a stream one value ahead, so that what is there crosses together."""

    def __init__(self, stream: Stream[T]) -> None:
        self._stream = stream
        self._results: AsyncIterator[T] | None = None
        self._next: asyncio.Task[T] | None = None
        self._closing: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Use the stream: what it does from here on, `close` ends."""
        self._results = aiter(self._stream)

    async def take(self) -> list[T]:
        """What there is, at least one value; nothing at the end. Raises what ended the stream."""
        assert self._results is not None
        values: list[T] = []
        while len(values) < AT_ONCE:
            if self._next is None:
                self._next = asyncio.ensure_future(_await(anext(self._results)))
                await asyncio.sleep(0)
            if values and (not self._next.done() or self._next.exception() is not None):
                break
            try:
                values.append(await self._next)
            except StopAsyncIteration:
                break
            self._next = None
        return values

    async def close(self) -> None:
        """Leave the stream, and wait until all it has started has ended."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        if self._results is not None:
            await cast("Any", self._results).aclose()

    def let_go(self) -> None:
        """Leave the stream; somebody was interrupted, or has forgotten it."""
        self._closing = asyncio.ensure_future(self.close())
