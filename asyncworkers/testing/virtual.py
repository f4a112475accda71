"""A real event loop with virtual time: threads and sockets work, and idle waiting takes no time.

`VirtualLoop` is asyncio's selector loop with another clock. Time stands still while code runs.
When nothing is ready it jumps to the next timer, so that a test of an hour of retries takes
milliseconds and sees exact times. It does not jump while there is real work to wait for:

- While a `hold()` is outstanding, time passes as real time does, until `release()`. The bridges
  of asyncworkers hold the loop while a thread works, and so does `run_in_executor`. Hold the loop
  yourself around other work that it cannot see.
- Bytes on their way between two sockets of this process cannot be seen either. So while any
  socket, pipe or child process is watched, the loop first listens for `settle` real seconds of
  silence. Raise it if the other end is another process that needs longer to answer.

Where nothing can ever happen again the loop raises `VirtualDeadlock` instead of hanging. Run a
program on it with `asyncio.Runner(loop_factory=VirtualLoop)`, or mark a test `virtual_time`.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack

from asyncworkers.testing import _tasks

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["VirtualDeadlock", "VirtualLoop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Ready = list[tuple[selectors.SelectorKey, int]]


class VirtualDeadlock(RuntimeError):
    """Nothing is ready, due, held or watched, so the tasks named in the message wait for ever."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A selector loop whose time jumps over idle waiting.

    - `seed`: seeds `random`, the dice of the program, so that its jitter is the same every time.
    - `settle`: real seconds of silence to wait for before a jump while a socket, pipe or child
      process is watched.
    - `patience`: real seconds to wait for another thread to speak up when nothing else is left
      to wait for, before `VirtualDeadlock` is raised. Without other threads it is raised at once.

    Time begins at 0.
    """

    simulated = False
    """False: threads, sockets and processes are real here."""

    random: random.Random
    """The program's dice, seeded by `seed`."""

    # What the base class has: the timers of its `call_later`, as a heap, its executor, its pipe.
    _scheduled: list[asyncio.TimerHandle]
    _default_executor: ThreadPoolExecutor | None
    _check_default_executor: Callable[[], None]
    _write_to_self: Callable[[], None]

    def __init__(self, seed: int = 0, *, settle: float = 0.005, patience: float = 5.0) -> None:
        self._now = 0.0
        self._holds = 0
        self._lock = threading.Lock()
        self._began = time.time()
        self.settle = settle
        self.patience = patience
        self.random = random.Random(seed)
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def wall(self) -> float:
        """Virtual Unix seconds: the real time when the loop was made + `time()`."""
        return self._began + self._now

    @property
    def held(self) -> bool:
        """Whether real work is under way, so that time passes as real time does."""
        return self._holds > 0

    def hold(self) -> None:
        """Begin real work outside the loop: no jumps until `release()`. From any thread."""
        with self._lock:
            self._holds += 1

    def release(self) -> None:
        """End one `hold()`; raises RuntimeError if there is none. From any thread.

        Tell the loop of the work's result first (`call_soon_threadsafe`), or time may jump past
        it.
        """
        with self._lock:
            if self._holds == 0:
                raise RuntimeError("release() without a hold()")
            self._holds -= 1
            last = self._holds == 0
        if last:
            self._write_to_self()  # it sleeps until the next timer's real time, and may now jump

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a blocking call in an executor; time does not jump until it has ended."""
        work = (executor or self._executor()).submit(func, *args)
        self.hold()
        # Callbacks run in the order they were added: the loop is told the result first.
        future = asyncio.wrap_future(work, loop=self)
        work.add_done_callback(self._executor_ended)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads of the default executor to end, at most so many real seconds."""
        self.hold()  # `asyncio.run` allows five minutes, over which virtual time would jump
        try:
            if sys.version_info >= (3, 12):
                await super().shutdown_default_executor(timeout)
            else:
                await super().shutdown_default_executor()
        finally:
            self.release()

    def _executor(self) -> ThreadPoolExecutor:
        self._check_default_executor()
        executor = self._default_executor
        if executor is None:
            executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
            self.set_default_executor(executor)
        return executor

    def _executor_ended(self, _work: Future[Any]) -> None:
        self.release()

    def _jump(self) -> None:
        """Go to the time of the next timer; there is one."""
        self._now = max(self._now, self._scheduled[0].when())

    def _may_be_called(self) -> bool:
        """Whether another thread or a signal might still give the loop something to do."""
        return threading.active_count() > 1 or bool(getattr(self, "_signal_handlers", None))

    def _deadlock(self) -> VirtualDeadlock:
        tasks = _tasks.describe_all(asyncio.all_tasks(self))
        return VirtualDeadlock(
            f"nothing is ready, due, held or watched at virtual time {self._now:.3f} s; "
            f"{len(tasks)} unfinished tasks:" + "".join(f"\n  {task}" for task in tasks)
        )


class _JumpingSelector(selectors.BaseSelector):
    """Listens as the real selector does, but turns idle waiting into a jump of the loop's time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> Ready:
        """Return what is ready, after passing `timeout` seconds of the loop's time at most."""
        loop = self._loop
        # Read before listening: whoever has released since then has told the loop before.
        held = loop.held
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if held:
            return self._pass_time(timeout)
        watching = len(self._real.get_map()) > 1  # beside the loop's own pipe
        if timeout is None:
            return self._wait(watching)
        if watching:
            ready = self._real.select(loop.settle)
        if not ready:
            loop._jump()
        return ready

    def _pass_time(self, timeout: float | None) -> Ready:
        """Let real time pass, and virtual time with it."""
        began = time.monotonic()
        ready = self._real.select(timeout)
        self._loop._now += time.monotonic() - began
        return ready

    def _wait(self, watching: bool) -> Ready:
        """Wait for something that no timer will bring."""
        if watching:
            return self._real.select(None)
        ready = self._real.select(self._loop.patience) if self._loop._may_be_called() else []
        if not ready:
            raise self._loop._deadlock()
        return ready

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        """Watch a file; as the real selector does."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        """Watch it no more."""
        return self._real.unregister(fileobj)

    def modify(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        """Watch it for something else."""
        return self._real.modify(fileobj, events, data)

    def get_key(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        """What is known of a watched file; KeyError if it is not watched."""
        return self._real.get_key(fileobj)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        """Everything that is watched."""
        return self._real.get_map()

    def close(self) -> None:
        """Close the real selector."""
        self._real.close()
