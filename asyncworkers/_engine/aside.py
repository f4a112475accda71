"""Does aside, in a thread, what takes long with the interpreter: pickling and unpickling what is heavy."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, TypeAlias, TypeVar

from asyncworkers._engine.clock import Clock
from asyncworkers.bridge.steps import Step

__all__ = ["Aside"]

T = TypeVar("T")
Then: TypeAlias = Callable[[Any, BaseException | None], object]


class Aside:
    """Does one thing after the other, for all queues of a supervisor: two at a time would not be
    faster, but the loop would wait for both.

    There is a thread as long as there is anything to do. Its work calls a `Step` now and then, by
    which the loop has its turn, and the work its end if nobody wants it any more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._waiting: deque[tuple[Step, Callable[[Step], Any], Then, Context]] = deque()
        self._under_way: Step | None = None

    def begin(self, work: Callable[[Step], T], then: Then) -> Step:
        """Have `work(step)` called in a thread, with the context variables of here and now, and
        `then(value, error)` on the loop: always, and never before this returns.
        """
        step = Step()
        self._clock.hold()
        self._waiting.append((step, work, then, copy_context()))
        self._go_on()
        return step

    async def do(self, work: Callable[[Step], T]) -> T:
        """The value of `work(step)`, or what it raised. If this is cancelled, so is the work."""
        future: asyncio.Future[T] = self._loop.create_future()
        step = self.begin(work, lambda value, error: _settle(future, value, error))
        try:
            return await future
        finally:
            step.unwanted = True

    def close(self) -> None:
        """Nothing of it is wanted any more."""
        for step in (self._under_way, *(one[0] for one in self._waiting)):
            if step is not None:
                step.unwanted = True

    def _go_on(self) -> None:
        if self._under_way is not None or not self._waiting:
            return
        step, work, then, context = self._waiting.popleft()
        self._under_way = step
        run = partial(self._run, step, work, then, context)
        try:
            threading.Thread(target=run, name="asyncworkers-aside", daemon=True).start()
        except (RuntimeError, MemoryError):  # there is no thread to be had
            self._loop.call_soon(run, context=Context())

    def _run(self, step: Step, work: Callable[[Step], Any], then: Then, context: Context) -> None:
        value, error = None, None
        try:
            value = context.run(work, step)
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._ended, then, value, error, context=Context())

    def _ended(self, then: Then, value: Any, error: BaseException | None) -> None:
        self._under_way = None
        self._clock.release()
        self._go_on()
        then(value, error)


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
