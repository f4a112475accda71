"""Runs an async main function to its end: uvloop where it is installed, signals drain."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, NoReturn, ParamSpec, TypeVar, cast

from asyncworkers import _checks
from asyncworkers.errors import JobCancelled, SupervisorClosed
from asyncworkers.signals import SignalChain, home, residents
from asyncworkers.supervisor import Supervisor

__all__ = ["run", "serve"]

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("asyncworkers")

WIND_UP = 2.0
"""Seconds for whatever tasks are left when main has ended."""

HURRY = 0.25
"""The same after a second signal."""

DEAD_LOOP = 1.5
"""Seconds a loop that should have ended may be stuck before the process is ended."""

LATE = 1.75
"""Seconds after its grace at which a process that only serves a supervisor is ended."""


def run(
    main: Callable[P, Coroutine[Any, Any, T]],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run `main(*args, **kwargs)` in a new event loop and return its value.

    Like `asyncio.run`, but on uvloop where it is installed (set ASYNCWORKERS_LOOP=asyncio for
    the stock loop), bounded at its end (tasks that refuse to end are left behind, with a
    warning), and with signals that drain. The first SIGINT or SIGTERM drains every supervisor
    entered in `main`, while `main` goes on; when they are done, `main` is cancelled if it has
    not ended. The second cancels all jobs and `main` at once. The third ends the process on the
    spot. If a signal ended `main` (it was cancelled, or met with the SupervisorClosed or
    JobCancelled that came of it), SystemExit is raised: with 0 if every job came to its end,
    with 128 + the signal's number if jobs had to be cancelled. What was drained is logged, and of
    a supervisor that records a summary of its run. A loop that is still stuck 1.5 s
    after the second signal ends the process with that same code; or with 1, and a traceback, if
    it is stuck in a call that holds the GIL.

    Raises TypeError if `main` is no coroutine function, ValueError if ASYNCWORKERS_LOOP is no
    known loop, RuntimeError inside a running loop (there, enter the supervisor directly), and
    whatever `main` raises.
    """
    given: Any = main
    if inspect.iscoroutine(given):
        given.close()
        raise TypeError(
            "run takes the function, not its coroutine: write run(main), not run(main())"
        )
    if not callable(given):
        raise TypeError(f"main must be a coroutine function, not {_checks.shown(main)}")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError(
            "run() was called inside a running event loop: use `async with Supervisor()` there"
        )
    new_loop = _loop_factory(os.environ.get("ASYNCWORKERS_LOOP", ""))
    coroutine: Any = main(*args, **kwargs)
    if not asyncio.iscoroutine(coroutine):
        raise TypeError(f"main must be a coroutine function, not {_checks.shown(main)}")
    return cast("T", _Run(new_loop()).run(coroutine))


def serve(supervisor: Supervisor, *, grace: float | timedelta) -> None:
    """Run a supervisor in a new event loop, for nothing else, until a signal ends it.

    This is what `asyncworkers run` does. Signals do what they do in `run`, with this `grace` in
    place of the supervisor's own, and SystemExit is raised in the same way; but here the process
    is the supervisor's alone, so the first signal already sees to its end: should it not have
    ended about two seconds after the grace, stuck as it may be in a job or in a thread that
    Python waits for, it ends on the spot with 128 + the signal's number, or with 1 if it is stuck
    in a call that holds the GIL.

    Raises TypeError or ValueError for a senseless grace, and otherwise what entering the
    supervisor raises, SupervisorFailed, and what `run` raises.
    """
    seconds = _checks.duration("grace", grace)
    if not isinstance(supervisor, Supervisor):
        raise TypeError(f"supervisor must be a Supervisor, not {_checks.shown(supervisor)}")

    async def main() -> None:
        async with supervisor:
            await asyncio.get_running_loop().create_future()

    new_loop = _loop_factory(os.environ.get("ASYNCWORKERS_LOOP", ""))
    bounded = _Run(new_loop(), seconds)
    bounded.see_to_the_end(seconds + LATE)
    bounded.run(main())


def _loop_factory(wish: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if wish not in ("", "asyncio", "uvloop"):
        raise ValueError(f"ASYNCWORKERS_LOOP must be asyncio or uvloop, not {_checks.shown(wish)}")
    if wish != "asyncio":
        try:
            import uvloop
        except ImportError:  # not on Windows
            if wish:
                raise
        else:
            return uvloop.new_event_loop
    return asyncio.new_event_loop


class _Run:
    """One call of `run`: its loop, and how often a signal came."""

    def __init__(self, loop: asyncio.AbstractEventLoop, grace: float | None = None) -> None:
        self._loop = loop
        self._grace = grace
        self._first: queue.SimpleQueue[int] | None = None
        self._patience = 0.0
        self._main: asyncio.Task[Any] | None = None
        self._drainer: asyncio.Task[None] | None = None
        self._context = contextvars.copy_context()
        self._signals = 0
        self._exit_code = 0
        self._pid = os.getpid()
        import faulthandler  # which sub-interpreters cannot have, while this module they must

        self._dump_later = faulthandler.dump_traceback_later
        self._dump_never = faulthandler.cancel_dump_traceback_later

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            self._main = task = loop.create_task(main)
            with home(loop), SignalChain(self._heard, call_previous=False):
                try:
                    return loop.run_until_complete(task)
                except (asyncio.CancelledError, JobCancelled, SupervisorClosed) as error:
                    if not self._signals:
                        raise
                    raise SystemExit(self._exit_code_after(error)) from None
        finally:
            if os.getpid() == self._pid:  # a forked child has a copy, and closes nothing
                self._end()

    def see_to_the_end(self, patience: float) -> None:
        """End the process if it is still there so many seconds after the first signal."""
        self._first = queue.SimpleQueue()  # which a signal handler may put into, unlike an Event
        self._patience = patience
        threading.Thread(target=self._outlive_grace, args=(self._first,), daemon=True).start()

    def _end(self) -> None:
        if self._first is not None and not self._signals:
            self._first.put(0)
        try:
            _wind_up(self._loop, self._main, WIND_UP if self._signals < 2 else HURRY)
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def _exit_code_after(self, error: BaseException) -> int:
        """The exit code of a program that a signal ended, as soon as the drain has its report."""
        if not isinstance(error, asyncio.CancelledError):
            logger.warning("a signal ended the process: %s", error)
        if self._drainer is not None:
            self._loop.run_until_complete(asyncio.wait([self._drainer], timeout=WIND_UP))
        return self._exit_code

    def _heard(self, number: int) -> None:
        """In the signal handler: any bytecode may be interrupted, so only pass it on.

        And pass it on in a context of our own: it may be a job's step that was interrupted.
        """
        self._signals += 1
        if self._signals == 1:
            self._tell_loop(self._start_to_drain, number)
            if self._first is not None:
                self._first.put(number)
                # Should a call hold the GIL, no thread can run; this one needs no GIL.
                late = self._patience + 0.5
                self._dump_later(late, exit=True, file=_stderr())
        elif self._signals == 2:
            self._tell_loop(self._cancel_everything, number)
            threading.Thread(target=self._outlive, args=(number,), daemon=True).start()
            self._dump_later(DEAD_LOOP + 0.5, exit=True, file=_stderr())
        else:
            os._exit(128 + number)

    def _tell_loop(self, tell: Callable[[int], None], number: int) -> None:
        self._loop.call_soon_threadsafe(tell, number, context=self._context)

    def _start_to_drain(self, number: int) -> None:
        self._drainer = self._loop.create_task(self._drain(number))

    async def _drain(self, number: int) -> None:
        drains = [self._loop.create_task(one.drain(self._grace)) for one in residents(self._loop)]
        await asyncio.sleep(0)
        name = signal.Signals(number).name
        logger.warning("%s: draining; once more cancels everything", name)
        recorded = [
            one
            for one in residents(self._loop)
            if isinstance(one, Supervisor) and one.chronicle is not None
        ]
        while drains:
            for report in await asyncio.gather(*drains):
                logger.warning("%s", report)
                if report.cancelled or report.not_started or report.abandoned:
                    self._exit_code = 128 + number
            opened = [one for one in residents(self._loop) if one.state == "open"]
            drains = [self._loop.create_task(one.drain(self._grace)) for one in opened]
        if self._main is not None:
            self._main.cancel("a signal ended the process")
        for supervisor in recorded:
            logger.warning("%s", supervisor.report().summary)

    def _cancel_everything(self, number: int) -> None:
        self._exit_code = 128 + number
        for supervisor in residents(self._loop):
            supervisor.cancel_all(f"{signal.Signals(number).name} came twice")
        if self._main is not None:
            self._main.cancel("a signal ended the process")

    def _outlive_grace(self, first: queue.SimpleQueue[int]) -> None:
        """In a thread, on into the end of the interpreter: after the first signal time is bounded."""
        number = first.get()
        if number:
            threading.Event().wait(self._patience)
            _end_process("the grace is over", number)

    def _outlive(self, number: int) -> None:
        """In a thread: if the loop is stuck, nothing but this can end the process."""
        turned = threading.Event()
        try:
            self._loop.call_soon_threadsafe(turned.set)
        except RuntimeError:
            turned.set()
        if not turned.wait(DEAD_LOOP):
            _end_process("the event loop is stuck", number)
        self._dump_never()


def _end_process(why: str, number: int) -> NoReturn:
    import faulthandler

    logger.critical("%s; the process ends now", why)
    faulthandler.dump_traceback(file=_stderr())
    os._exit(128 + number)


def _stderr() -> Any:
    """Where faulthandler may write: it wants a file descriptor."""
    return sys.__stderr__ or 2


def _wind_up(
    loop: asyncio.AbstractEventLoop, main: asyncio.Task[Any] | None, patience: float
) -> None:
    """End what is left in the loop; in bounded time, unlike asyncio.Runner."""
    if main is not None and not main.done():  # a callback raised SystemExit, or the like
        main.cancel("the event loop was ended from outside")  # it ends the others in their order
        loop.run_until_complete(asyncio.wait([main], timeout=patience))
    left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    for task in left:
        task.cancel("the main function has ended")
    if left:
        _, stubborn = loop.run_until_complete(asyncio.wait(left, timeout=patience))
        for task in stubborn:
            logger.warning("left behind, because it does not end when cancelled: %r", task)
    loop.run_until_complete(
        asyncio.wait([loop.create_task(loop.shutdown_asyncgens())], timeout=patience)
    )
    executor_ended = loop.create_task(loop.shutdown_default_executor())
    _, stuck = loop.run_until_complete(asyncio.wait([executor_ended], timeout=patience))
    if stuck:
        logger.warning("threads of the default executor still run: Python waits for them at exit")
