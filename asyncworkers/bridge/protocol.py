"""What a bridge is and the work it carries, and the token by which blocking code learns to stop."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import Context
from typing import Any, Self, cast

from asyncworkers import _checks
from asyncworkers._log import log
from asyncworkers.outcome import Failed, Succeeded

__all__ = ["Bridge", "BridgeBroken", "CancelCallback", "CancelToken", "Work"]


class BridgeBroken(Exception):
    """The bridge could not start what it runs calls in, so nothing has begun."""


class CancelToken:
    """Tells blocking code that nobody waits for it any more; true once that is so.

    Poll it (`if token: return`), sleep on it (`token.wait(5)`), or, where the code blocks in
    something else, be told (`token.on_cancel(connection.close)`). May be used from any thread.
    """

    __slots__ = ("_callbacks", "_event", "_reason")

    def __init__(self) -> None:
        self._callbacks: dict[CancelCallback, Callable[[], object]] = {}
        self._event = threading.Event()
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Why the attempt was cancelled, or None while it was not."""
        return self._reason

    def __bool__(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Block the calling thread until cancelled, at most so many seconds; True if cancelled.

        Raises TypeError or ValueError for what is no duration.
        """
        if seconds is not None:
            seconds = _checks.duration("seconds", seconds)
        return self._event.wait(seconds)

    def on_cancel(self, callback: Callable[[], object]) -> CancelCallback:
        """Have `callback()` called, once, when this is cancelled, or at once if it is already.

        For what blocks and cannot poll: close its connection, kill its subprocess. It is called in
        the thread that cancels, mostly the event loop's: so it must not block. What it raises is
        logged. Take it back when it has become pointless: `with token.on_cancel(child.kill): ...`
        does at the block's end. Raises TypeError for what is not callable.
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {_checks.shown(callback)}")
        told = CancelCallback(self)
        self._callbacks[told] = callback
        if self._event.is_set():  # perhaps after `cancel` had looked
            self._tell(told)
        return told

    def cancel(self, reason: str) -> None:
        """Make it true. The first reason stays."""
        if not self._event.is_set():
            self._reason = reason
            self._event.set()
            for told in tuple(self._callbacks):
                self._tell(told)

    def _take_back(self, told: CancelCallback) -> None:
        self._callbacks.pop(told, None)

    def _tell(self, told: CancelCallback) -> None:
        callback = self._callbacks.pop(told, None)  # whoever gets it calls it: nobody twice
        if callback is None:
            return
        try:
            callback()
        except BaseException as error:  # also SystemExit: it would end the loop, not the job
            log.failure(f"{_checks.shown(callback)}, told of a cancellation, raised", error)

    def __repr__(self) -> str:
        return f"<CancelToken {'cancelled: ' + str(self._reason) if self else 'not cancelled'}>"


class CancelCallback:
    """What `CancelToken.on_cancel` returns: take the callback back with `remove()` or by `with`."""

    __slots__ = ("_token",)

    def __init__(self, token: CancelToken) -> None:
        self._token = token

    def remove(self) -> None:
        """It is not called any more from now on; at this very moment it may still be running."""
        self._token._take_back(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        waits = self in self._token._callbacks
        return f"<CancelCallback {'waiting' if waits else 'called or removed'}>"


class Work:
    """One call on its way over a bridge.

    `function`, `args` and `kwargs` are what is to be called, `name` is the function's name for
    people. A bridge that stays in this process calls `run()` where the call is to run; one that
    leaves it sends `pickled()`.
    """

    __slots__ = ("_context", "abandoned", "args", "function", "kwargs", "name")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context,
        name: str,
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.name = name
        self.abandoned = False  # nobody waits for its end any more
        self._context = context

    def run(self) -> Succeeded | Failed:
        """Run the call here and now, in any thread, with the submitter's context variables, and
        return how it ended; raises nothing, whatever the call does.
        """
        try:
            return Succeeded(self._context.run(self.function, *self.args, **self.kwargs))
        except BaseException as error:
            return Failed(cast("Exception", error))  # the worker sees to what is none

    def pickled(self) -> bytes:
        """The call as one pickle of `(function, args, kwargs)`, to be loaded elsewhere.

        What is importable is named; other functions (of `__main__`, lambdas, closures) go by value,
        and need cloudpickle where they are loaded. Context variables stay behind. Raises
        NotSerializable, naming what cannot be pickled: let it through, it is the job's error.
        """
        from asyncworkers.bridge.parcel import pickled_call

        return pickled_call(self.function, self.args, self.kwargs)

    def __repr__(self) -> str:
        return f"<Work {self.name}>"


class Bridge(ABC):
    """Carries a call to a thread, a process, an interpreter or a cluster, and its end back.

    Derive from it and define `run` and `kill`; `Queue(bridge=...)` takes the class, or whatever
    else makes one when called without arguments. Each worker of the queue makes one bridge when it
    is hired, and owns it: everything is called in the event loop, and `run` for one call at a time.
    `asyncworkers.testing.check_bridge` checks that one does all this.
    """

    async def start(self) -> None:  # noqa: B027  # many have nothing to do
        """Make it ready, before the first call, in the `startup` seconds of the queue.

        If this raises, no job is lost: another bridge is made, after a pause if it goes on. When
        three in a row could not be started the jobs that wait fail with WorkerCrashed.
        """

    @abstractmethod
    async def run(self, work: Work) -> Succeeded | Failed:
        """Carry the call there, and return how it ended: `Succeeded(value)` or `Failed(error)`.

        It is cancelled if the job is cancelled or times out: then have the call stopped politely,
        and raise the CancelledError again when it has really ended. If that takes longer than the
        queue's `unwind` seconds, `kill()` is called. The bridge is used again afterwards.

        What it raises means that the bridge itself is broken: the job fails with WorkerCrashed, and
        this bridge is closed and replaced. Raise `WorkerCrashed` if there is more to be told, as
        the exit code; anything else becomes its cause. Only NotSerializable is the job's own error.
        """

    @abstractmethod
    def kill(self) -> None:
        """End what runs by force, and let go of everything that can be let go of at once.

        A `run` under way is to end soon, in whatever way: its job has been settled. This is the
        last call, and comes whatever else happened: also if nothing runs, `close()` went well,
        `start()` failed, or the event loop has been closed.
        """

    async def close(self) -> None:  # noqa: B027
        """Let go of everything in good order, in at most a second; `kill()` comes after it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"
