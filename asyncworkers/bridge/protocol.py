"""What a worker needs of a bridge, and the token by which blocking code learns that it should stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol, Self

from asyncworkers import _checks
from asyncworkers._log import log

__all__ = ["Bridge", "BridgeBroken", "CancelCallback", "CancelToken", "Work"]


class BridgeBroken(Exception):
    """The bridge could not start what it runs calls in, so this call has not begun."""


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
    """One call on its way over a bridge: call `run()` where it is to run."""

    __slots__ = ("_args", "_context", "_function", "_kwargs", "name")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context,
        name: str,
    ) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._context = context
        self.name = name

    def run(self) -> tuple[Any, BaseException | None]:
        """Run the call in its context; its value, or what it raised, whatever that is."""
        try:
            return self._context.run(self._function, *self._args, **self._kwargs), None
        except BaseException as error:
            return None, error


class Bridge(Protocol):
    """Carries one call at a time; owned by one worker, used on the event loop only."""

    async def call(self, work: Work) -> tuple[Any, BaseException | None]:
        """Have the work run elsewhere and return what `work.run()` did.

        If this is cancelled the work is stopped where that is possible and left alone where it
        is not. Raises BridgeBroken if the work could not begin.
        """
        ...

    @property
    def abandoned(self) -> str | None:
        """What still runs here although nobody waits for it; None if the bridge is free."""
        ...

    async def wait_free(self) -> None:
        """Wait until nothing abandoned runs here any more."""
        ...

    def close(self) -> None:
        """Let go of everything that can be let go of. Nothing is called afterwards."""
        ...
