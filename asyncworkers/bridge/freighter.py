"""The parent's way with big data to and from one child: in steps, so that the loop turns in between."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeAlias

from asyncworkers._log import log
from asyncworkers.bridge.child.arena import Memory
from asyncworkers.bridge.child.freight import (
    Freight,
    discard,
    finish,
    open_steps,
    ship_steps,
)

__all__ = ["Freighter", "Loaded"]

Loaded: TypeAlias = "list[bytes | memoryview] | BaseException | None"
"""A message in parts; or why there is none; or None, if nobody wants it any more."""

COLD = 10.0
"""Seconds without big data after which a child that goes on working gives its memory back."""


class Freighter:
    """Loads big arguments into the arena of a child and unloads big results, one at a time of each.

    Without an arena (the system has no descriptor left, for instance) everything travels in the
    messages, so that no job fails for that.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._memory: Memory | None = None
        self._loading: tuple[Generator[None, None, list[bytes | memoryview]], Any, Any] | None = (
            None
        )
        self._unloading: Generator[None, None, Any] | None = None
        self._trimming: Iterator[None] | None = None
        self.last_used: float | None = (
            None  # by whatever clock `trim` is asked by; None when trimmed
        )

    def open(self) -> int:
        """Make the arena; its descriptor, for the child, or -1 if there is none to be had."""
        try:
            self._memory = Memory.create()
        except OSError as error:
            log.warning("a child process has no arena for big data, which is slower: %s", error)
            return -1
        return self._memory.fd

    # ---- arguments

    @property
    def loads(self) -> bool:
        """Whether something is being loaded; nothing else can be then."""
        return self._loading is not None

    def load(
        self, freight: Freight, wanted: Callable[[], bool], then: Callable[[Loaded], None]
    ) -> None:
        """Copy into the arena, in steps, and tell `then` the message: at once if it is one step."""
        self._trimming = None
        writer = None if self._memory is None else self._memory.writer
        self._loading = (ship_steps(freight, writer), wanted, then)
        self._load_on()

    def _load_on(self) -> None:
        if self._loading is None:  # closed meanwhile
            return
        steps, wanted, then = self._loading
        loaded: Loaded = None
        try:
            if wanted():
                next(steps)
                self._loop.call_soon(self._load_on, context=_EMPTY)
                return
            steps.close()
        except StopIteration as end:
            loaded = end.value
        except Exception as error:
            loaded = error
        self._loading = None
        then(loaded)

    # ---- results

    @property
    def unloads(self) -> bool:
        """Whether a result is being unloaded; the ones after it wait."""
        return self._unloading is not None

    def unload(self, message: memoryview, then: Callable[[Any], None], *, at_once: bool) -> bool:
        """Find a result in the arena and tell `then` what `unpack` wants, or the MemoryError there was;
        False if that takes steps.

        Raises ValueError if it is no message.
        """
        steps = open_steps(message, None if self._memory is None else self._memory.looker)
        try:
            if not at_once:
                next(steps)
                self._unloading = steps
                self._then = then
                self._loop.call_soon(self._unload_on, False, context=_EMPTY)
                return False
            found: Any = finish(steps)
        except StopIteration as end:
            found = end.value
        except MemoryError as error:
            found = error
        then(found)
        return True

    def unload_now(self) -> None:
        """Take all steps that are left at once."""
        self._unload_on(True)

    def _unload_on(self, at_once: bool) -> None:
        steps = self._unloading
        if steps is None:  # it was taken at once, or closed
            return
        try:
            next(steps)
            while at_once:
                next(steps)
        except StopIteration as end:
            self._unloading = None
            self._then(end.value)
        except MemoryError as error:
            self._unloading = None
            self._then(error)
        else:
            self._loop.call_soon(self._unload_on, False, context=_EMPTY)

    def discard(self, message: memoryview) -> None:
        """Give back a result that nobody wants."""
        with suppress(ValueError):  # it is no message
            discard(message, None if self._memory is None else self._memory.looker)

    def poll(self) -> None:
        """Give back what nobody looks at any more, before the child needs the room."""
        if self._memory is not None:
            self._memory.looker.poll()

    # ---- memory

    def trim(self, now: float) -> bool:
        """Give back the memory that arguments took, if that was long ago; whether it was just begun."""
        if self.last_used is None or now - self.last_used < COLD or self._memory is None:
            return False
        self.last_used = None
        self._trimming = self._memory.writer.trim_steps()
        self._trim_on()
        return True

    def _trim_on(self) -> None:
        if self._trimming is not None:
            try:
                next(self._trimming)
            except StopIteration:
                self._trimming = None
            else:
                self._loop.call_soon(self._trim_on, context=_EMPTY)

    @property
    def seconds_to_close(self) -> float:
        """How long `close_steps` may take: several times what it takes usually."""
        return 0.0 if self._memory is None else self._memory.resident / (1 << 30)

    def close_steps(self) -> Iterator[None]:
        """Let go of everything in steps, now that the child is dead; what is looked at stays."""
        self.stop()
        if self._memory is not None:
            yield from self._memory.close_steps()

    def close(self) -> None:
        """Let go of everything at once; what is looked at stays."""
        self.stop()
        if self._memory is not None:
            self._memory.close()

    def stop(self) -> None:
        """Leave off loading and unloading: the child has ended."""
        if self._loading is not None:
            self._loading[0].close()
        if self._unloading is not None:
            self._unloading.close()
        self._loading = self._unloading = self._trimming = None


_EMPTY = Context()
