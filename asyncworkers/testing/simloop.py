"""A deterministic event loop with a seed and virtual time.

What a program does on a `SimLoop` depends on its code and on the seed alone: the same seed gives
the same run, in every process and on every machine, so that a failure found once can be looked at
as often as needed. Time is virtual, so an hour of retries takes no time at all.

How chance comes in:

- Whenever several tasks could go on, the seed chooses which one does. A task's step may overtake
  whatever is ready beside it, while plain callbacks keep their order among each other, as asyncio
  documents it. Timers due at the same instant fire in any order, as asyncio documents as well.
- Overtaking is stricter than asyncio, which runs tasks in the order in which they were woken. It
  stands for all the small delays that a real program meets and a simulated one would not. With
  `shuffle=0` the order is asyncio's own.
- The program's own dice are `loop.random`, seeded apart, so that one draw more does not change
  the order of everything else.

What makes it deterministic: tasks and futures hash by the order of their making, so that sets of
them iterate alike in every run; the cyclic garbage collector rests during `simulate`, because
finalizers would run at unforeseeable moments; real threads are refused. What it cannot change:
sets of strings iterate by `PYTHONHASHSEED`, and tasks made by `asyncio.Task(...)` rather than by
the loop hash by their address, so that a set of those has no order to rely on.
"""

from __future__ import annotations

import array
import asyncio
import contextvars
import hashlib
import heapq
import math
import random
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, NoReturn, TypeVar, TypeVarTuple, Unpack

from asyncworkers.testing import _tasks

__all__ = ["SimDeadlock", "SimLoop", "SimStepLimit", "SimUnsupported"]

INSTANT = 1e-9
"""Seconds by which timers may differ and still be due at the same instant, as in asyncio."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

StepHook = Callable[[asyncio.Task[Any] | None, Callable[[], None]], None]


class SimDeadlock(RuntimeError):
    """Nothing is ready and no timer is set, so the tasks named in the message wait for ever."""


class SimStepLimit(RuntimeError):
    """The program took more steps than `max_steps`: it runs in circles, or the limit is too low."""


class SimUnsupported(NotImplementedError):
    """The program asked for something real: a socket, a child process, another thread."""


class _SimFuture(asyncio.Future[T]):
    """A future that hashes by the order of its making."""

    __slots__ = ("_number",)

    def __init__(self, loop: SimLoop) -> None:
        loop._made = self._number = loop._made + 1
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class _SimTask(asyncio.Task[T]):
    """A task that hashes by the order of its making and is named by it."""

    __slots__ = ("_number",)

    def __init__(
        self, coroutine: Any, *, loop: SimLoop, name: str | None = None, **options: Any
    ) -> None:
        loop._made = self._number = loop._made + 1  # before super(), which puts it into a set
        super().__init__(coroutine, loop=loop, name=name or f"Task-{self._number}", **options)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.BaseEventLoop):
    """An event loop whose order of events follows from `seed`, in virtual time.

    - `seed`: any int. It decides the order of ready tasks and feeds `random`.
    - `shuffle`: how often chance decides who goes on, from 0 (asyncio's order) to 1 (always).
    - `max_steps`: after so many callbacks and task steps the run ends with `SimStepLimit`.
    - `latency`: the least and the most virtual seconds a `run_in_executor` call takes.

    Time begins at 0 and jumps to the next timer when nothing is ready. `time()` is exact: code
    takes no time. Signals come from `raise_signal`. Sockets, pipes and child processes raise
    `SimUnsupported`, and so does a call from another thread.
    """

    simulated = True
    """True: there are no real threads here, so blocking calls are run by `run_in_executor`."""

    random: random.Random
    """The program's dice, seeded by `seed`."""

    wall_offset: float
    """What `wall()` says at time 0, in Unix seconds; change it to make the wall clock jump."""

    step_hook: StepHook | None
    """Called instead of every step, with the task (None for a plain callback) and a function that
    takes the step and must be called once. For tools such as `cancel_at_every_step`."""

    # What the base class keeps for its `run_forever`, `call_later` and `close`.
    _stopping: bool
    _thread_id: int | None
    _closed: bool = True  # a loop whose options were refused was never open

    def __init__(
        self,
        seed: int = 0,
        *,
        shuffle: float = 1.0,
        max_steps: int = 1_000_000,
        latency: tuple[float, float] = (0.0, 0.01),
    ) -> None:
        if not 0.0 <= shuffle <= 1.0:
            raise ValueError(f"shuffle must be between 0 and 1, not {shuffle!r}")
        if not 0.0 <= latency[0] <= latency[1] < math.inf:
            raise ValueError(f"latency must be two ascending numbers of seconds, not {latency!r}")
        super().__init__()
        self.seed = seed
        self.random = random.Random(seed)
        self.wall_offset = 1_700_000_000.0
        self.step_hook = None
        self.steps = 0
        self.unhandled: list[str] = []
        self._shuffle = shuffle
        self.max_steps = max_steps
        self._latency = latency
        self._dice = random.Random(~seed)  # the scheduler's own: another stream than the program's
        self._now = 0.0
        self._made = 0
        self._queue: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_made = 0
        self._signals: dict[int, asyncio.Handle] = {}
        self._hash = hashlib.blake2b(digest_size=16)
        self._trace = array.array("d")

    # ------------------------------------------------------------------ time, chance, the record

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def wall(self) -> float:
        """Virtual Unix seconds: `wall_offset` + `time()`."""
        return self.wall_offset + self._now

    def hold(self) -> None:
        """Nothing real is ever at work beside a simulation, so there is nothing to hold."""

    def release(self) -> None:
        """The end of a `hold`; likewise nothing."""

    def note(self, *values: object) -> None:
        """Fold values into the digest. Their `repr` must be the same in every run."""
        self._fold()
        self._hash.update(repr(values).encode())

    def digest(self) -> str:
        """A fingerprint of the run so far: which step was taken when, and what was noted."""
        self._fold()
        return self._hash.copy().hexdigest()

    def _fold(self) -> None:
        self._hash.update(self._trace.tobytes())
        del self._trace[:]

    # ------------------------------------------------------------------ scheduling

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future that belongs to this loop."""
        return _SimFuture(self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Start a task; options are those of `asyncio.Task`."""
        if self.get_task_factory() is not None:
            return super().create_task(coro, **options)
        task: _SimTask[Any] = _SimTask(coro, loop=self, **options)
        return task

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Have the callback called in its turn, or overtaken by the step of a task."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        handle = asyncio.Handle(callback, args, self, context)
        self._queue.append(handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Like `call_soon`; from another thread it raises SimUnsupported."""
        if self._thread_id is not None and self._thread_id != threading.get_ident():
            raise SimUnsupported(
                f"thread {threading.current_thread().name!r} called into a simulated event loop; "
                "a run with real threads cannot be repeated: use VirtualLoop"
            )
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Have the callback called at a moment of `time()`."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        if math.isnan(when):
            raise ValueError("a timer cannot be set to NaN")
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, handle))
        return handle

    def _run_once(self) -> None:
        """Take one step for everything that was ready at the beginning."""
        queue = self._queue
        if not queue and not self._stopping:
            self._jump()
        trace = self._trace
        handle: asyncio.Handle | None = None
        for _ in range(len(queue)):
            handle = self._choose()
            if handle.cancelled():
                continue
            self.steps += 1
            trace.append(self._now)
            trace.append(len(queue))
            if self.step_hook is None:
                handle._run()
            else:
                self.step_hook(_task_of(handle), handle._run)
        handle = None  # the traceback of an error may keep this frame, and the frame the task
        if self.steps > self.max_steps:
            raise SimStepLimit(
                f"{self.steps} steps at virtual time {self._now:.3f} s: the program runs in "
                f"circles, or max_steps is too low{self._waiting()}"
            )
        if len(trace) > 8192:
            self._fold()

    def _choose(self) -> asyncio.Handle:
        """Take the next handle: by chance a task's step from anywhere, else the first."""
        queue = self._queue
        if len(queue) > 1:
            chance = self._dice.random()
            if chance < self._shuffle:
                index = int(chance / self._shuffle * len(queue))
                if _task_of(queue[index]) is not None:
                    return queue.pop(index)
        return queue.pop(0)

    def _jump(self) -> None:
        """Go to the next timer's time and make ready what is due then."""
        timers = self._timers
        due: list[asyncio.TimerHandle] = []
        while timers and (not due or timers[0][0] <= self._now + INSTANT):
            when, _, handle = heapq.heappop(timers)
            if not handle.cancelled() and when < math.inf:
                if not due:
                    self._now = max(self._now, when)
                due.append(handle)
        if not due:
            raise SimDeadlock(
                f"nothing is ready and no timer is set at virtual time {self._now:.3f} s"
                f"{self._waiting()}"
            )
        if len(due) > 1 and self._dice.random() < self._shuffle:
            self._dice.shuffle(due)  # for those of the same instant; others keep their order
            due.sort(key=lambda handle: round(handle.when() / INSTANT))
        self._queue.extend(due)

    def _waiting(self) -> str:
        tasks = _tasks.describe_all(asyncio.all_tasks(self))
        return f"; {len(tasks)} unfinished tasks:" + "".join(f"\n  {task}" for task in tasks)

    # ------------------------------------------------------------------ the world outside

    def run_in_executor(
        self,
        executor: Executor | None,  # noqa: ARG002  # there is but one place to run it
        func: Callable[[Unpack[Ts]], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        """Run a blocking call here and now in virtual time: after a seeded delay, in one step.

        It runs as in a thread: in an empty context, and with no running event loop.
        """
        future: asyncio.Future[T] = self.create_future()
        delay = self.random.uniform(*self._latency)
        self.call_later(
            delay, self._run_blocking, future, func, args, context=contextvars.Context()
        )
        return future

    def _run_blocking(
        self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        if future.cancelled():  # as if no thread had been free before
            return
        asyncio._set_running_loop(None)
        try:
            result = func(*args)
        except StopIteration as error:
            future.set_exception(RuntimeError(f"the call raised {error!r}"))
        except BaseException as error:  # an executor hands on whatever was raised
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            asyncio._set_running_loop(self)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is no executor to shut down."""

    def add_signal_handler(
        self, sig: int, callback: Callable[[Unpack[Ts]], object], *args: *Ts
    ) -> None:
        """Have the callback called when `raise_signal(sig)` is."""
        self._signals[sig] = asyncio.Handle(callback, args, self, None)

    def remove_signal_handler(self, sig: int) -> bool:
        """Forget the callback; True if there was one."""
        return self._signals.pop(sig, None) is not None

    def raise_signal(self, sig: int) -> None:
        """Let the signal arrive in virtual time.

        Raises LookupError if nothing handles it: the process would have been ended by it, or
        KeyboardInterrupt raised somewhere in the program.
        """
        if sig not in self._signals:
            raise LookupError(f"no handler is set for signal {sig!r}")
        self._queue.append(self._signals[sig])

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep the message in `unhandled` and report it as every loop does."""
        error = context.get("exception")
        self.unhandled.append(f"{context.get('message')}" + (f": {error!r}" if error else ""))
        super().call_exception_handler(context)

    def close(self) -> None:
        """Close the loop and forget what was ready or due."""
        if not self.is_running():
            self._queue.clear()
            self._timers.clear()
        super().close()

    def _write_to_self(self) -> None:
        """Nothing sleeps in a selector, so nothing has to be woken."""


def _task_of(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """The task whose step or wake-up this is; None for a plain callback."""
    owner: object = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
    return owner if isinstance(owner, asyncio.Task) else None  # pyright: ignore[reportUnknownVariableType]


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(_loop: SimLoop, *_args: object, **_options: object) -> NoReturn:
        raise SimUnsupported(
            f"a simulation has no {name}; use VirtualLoop for real input and output"
        )

    refuse.__name__ = name
    return refuse


for _name in (
    "add_reader", "add_writer", "remove_reader", "remove_writer",
    "connect_read_pipe", "connect_write_pipe", "connect_accepted_socket",
    "create_connection", "create_datagram_endpoint", "create_server",
    "create_unix_connection", "create_unix_server", "getaddrinfo", "getnameinfo",
    "sendfile", "start_tls", "subprocess_exec", "subprocess_shell",
    "sock_accept", "sock_connect", "sock_recv", "sock_recv_into", "sock_recvfrom",
    "sock_recvfrom_into", "sock_sendall", "sock_sendfile", "sock_sendto",
):  # fmt: skip
    setattr(SimLoop, _name, _refusal(_name))
