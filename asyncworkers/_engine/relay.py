"""The relay submits for other threads, on the loop, and carries the ends back to their futures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from asyncworkers._engine.hub import Hub
from asyncworkers.errors import SupervisorClosed
from asyncworkers.job import Job

__all__ = ["Relay"]

ThreadFuture = concurrent.futures.Future[Any]


class Relay:
    """Starts a task on the loop for each submission, because its queue may be full."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, submit: Callable[[], Coroutine[Any, Any, Job[Any]]]) -> ThreadFuture:
        """From any thread: have `submit()` awaited on the loop; the future gets the job's end."""
        future: ThreadFuture = concurrent.futures.Future()
        try:
            self._hub.loop.call_soon_threadsafe(self._start, submit, future)
        except RuntimeError as error:
            if not self._hub.loop.is_closed():
                raise  # the end of the stack, which is a RuntimeError too
            raise SupervisorClosed("the supervisor's event loop is closed") from error
        return future

    def close(self) -> None:
        """Whatever still waits for room gets SupervisorClosed."""
        for task in self._tasks:
            task.cancel("the supervisor closed")

    def _start(
        self, submit: Callable[[], Coroutine[Any, Any, Job[Any]]], future: ThreadFuture
    ) -> None:
        task = self._hub.loop.create_task(self._submit(submit, future))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda task: _fail_if_never_begun(task, future))

    async def _submit(
        self, submit: Callable[[], Coroutine[Any, Any, Job[Any]]], future: ThreadFuture
    ) -> None:
        if future.cancelled():
            return
        try:
            job = await submit()
        except asyncio.CancelledError:
            _fail(future, SupervisorClosed("the supervisor ended before the queue had room"))
            return
        except Exception as error:
            _fail(future, error)
            return
        if job.done():  # a stored job may have ended long ago
            _give(future, job)
            return
        job._watch(lambda ended: _give(future, ended))
        future.add_done_callback(lambda done: self._pass_on_cancel(done, job))

    def _pass_on_cancel(self, future: ThreadFuture, job: Job[Any]) -> None:
        if future.cancelled():
            with contextlib.suppress(RuntimeError):  # the loop is closed, and so the job has ended
                self._hub.loop.call_soon_threadsafe(job.cancel, "its future was cancelled")


def _fail_if_never_begun(task: asyncio.Task[None], future: ThreadFuture) -> None:
    if task.cancelled():  # before its first step, so that it could not say so itself
        _fail(future, SupervisorClosed("the supervisor ended before the job was taken"))


def _give(future: ThreadFuture, job: Job[Any]) -> None:
    try:
        value = job.result()
    except Exception as error:  # its own, or what says that a stored result cannot be read here
        _fail(future, error)
        return
    with contextlib.suppress(concurrent.futures.InvalidStateError):  # it was cancelled
        future.set_result(value)


def _fail(future: ThreadFuture, error: Exception) -> None:
    with contextlib.suppress(concurrent.futures.InvalidStateError):  # it was cancelled
        future.set_exception(error)
