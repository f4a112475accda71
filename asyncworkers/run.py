"""Runs an async main function to its end: uvloop where it is installed, signals drain."""

from __future__ import annotations

import asyncio
import contextvars
import faulthandler
import inspect
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from asyncworkers import _checks
from asyncworkers.signals import Drainable, SignalChain, home

__all__ = ["run"]

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("asyncworkers")

WIND_UP = 2.0
"""Seconds for whatever tasks are left when main has ended."""

DEAD_LOOP = 2.0
"""Seconds a loop that should have ended may be stuck before the process is ended."""


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
    spot. If a signal ended `main`, SystemExit is raised: with 0 if every job came to its end,
    with 128 + the signal's number if jobs had to be cancelled.

    Raises TypeError if `main` is no coroutine function, RuntimeError inside a running loop
    (there, enter the supervisor directly), and whatever `main` raises.
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
    return _Run(_new_loop()).run(main(*args, **kwargs))


def _new_loop() -> asyncio.AbstractEventLoop:
    if os.environ.get("ASYNCWORKERS_LOOP", "") != "asyncio":
        try:
            import uvloop
        except ImportError:  # not on Windows
            pass
        else:
            return uvloop.new_event_loop()
    return asyncio.new_event_loop()


class _Run:
    """One call of `run`: its loop, what was entered in it, and how often a signal came."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._supervisors: list[Drainable] = []
        self._main: asyncio.Task[Any] | None = None
        self._drainer: asyncio.Task[None] | None = None
        self._signals = 0
        self._exit_code: int | None = None

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        loop = self._loop
        context = contextvars.copy_context()
        context.run(home.set, self._supervisors)
        asyncio.set_event_loop(loop)
        try:
            self._main = task = loop.create_task(main, context=context)
            with SignalChain(self._heard, call_previous=False):
                return loop.run_until_complete(task)
        except asyncio.CancelledError:
            if self._exit_code is None:
                raise
            raise SystemExit(self._exit_code) from None
        finally:
            try:
                _wind_up(loop)
            finally:
                asyncio.set_event_loop(None)
                loop.close()

    def _heard(self, number: int) -> None:
        """In the signal handler: any bytecode may be interrupted, so only pass it on."""
        self._signals += 1
        if self._signals == 1:
            self._exit_code = 0
            self._loop.call_soon_threadsafe(self._start_to_drain, number)
        elif self._signals == 2:
            self._loop.call_soon_threadsafe(self._cancel_everything, number)
            threading.Thread(target=self._outlive, args=(number,), daemon=True).start()
        else:
            os._exit(128 + number)

    def _start_to_drain(self, number: int) -> None:
        name = signal.Signals(number).name
        logger.warning("%s: draining; once more cancels everything", name)
        self._drainer = self._loop.create_task(self._drain(number))

    async def _drain(self, number: int) -> None:
        for supervisor in self._supervisors:
            if supervisor.state == "open":
                report = await supervisor.drain()
                logger.warning("%s", report)
                if report.cancelled or report.not_started or report.abandoned:
                    self._exit_code = 128 + number
        if self._main is not None:
            self._main.cancel("a signal ended the process")

    def _cancel_everything(self, number: int) -> None:
        self._exit_code = 128 + number
        for supervisor in self._supervisors:
            if supervisor.state in ("open", "draining"):
                supervisor.cancel_all(f"{signal.Signals(number).name} came twice")
        if self._main is not None:
            self._main.cancel("a signal ended the process")

    def _outlive(self, number: int) -> None:
        """In a thread: if the loop is stuck, nothing but this can end the process."""
        turned = threading.Event()
        try:
            self._loop.call_soon_threadsafe(turned.set)
        except RuntimeError:
            return
        if not turned.wait(DEAD_LOOP):
            logger.critical("the event loop is stuck; the process ends now")
            faulthandler.dump_traceback(file=sys.__stderr__ or 2)
            os._exit(128 + number)


def _wind_up(loop: asyncio.AbstractEventLoop) -> None:
    """End what is left in the loop; in bounded time, unlike asyncio.Runner."""
    left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    for task in left:
        task.cancel("the main function has ended")
    if left:
        _, stubborn = loop.run_until_complete(asyncio.wait(left, timeout=WIND_UP))
        for task in stubborn:
            logger.warning("left behind, because it does not end when cancelled: %r", task)
    loop.run_until_complete(
        asyncio.wait([loop.create_task(loop.shutdown_asyncgens())], timeout=WIND_UP)
    )
    executor_ended = loop.create_task(loop.shutdown_default_executor())
    loop.run_until_complete(asyncio.wait([executor_ended], timeout=WIND_UP))
