"""Pickling of what may be heavy: a little of it at once, much of it in a thread that lets the loop go on.

Nobody knows how large a value is before it is pickled, and pickle never lets go of the interpreter
by itself. But it hands what it has made to a file, some 64 KiB at a time, and that file may be ours:
- `dumps_light` and `LIGHTLY` give up after `LIGHT` bytes, which takes a few milliseconds at most;
- `Gently` makes a pause now and then, in which other threads have the interpreter;
- `load_gently` does so while it unpickles, which reads from a file as it writes to one.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from asyncworkers.bridge.child.freight import Buffer, is_small
from asyncworkers.bridge.child.trouble import Way
from asyncworkers.bridge.steps import Step

__all__ = ["LIGHT", "LIGHTLY", "Gently", "TooMuch", "dumps_light", "load_gently"]

LIGHT = 256 << 10
"""Bytes that are pickled, or unpickled, at once on the loop."""

ONE = 192 << 10
"""Bytes of a pickle from which they are one long value, in which no name stands."""

SMALL = 512
"""Bytes up to which what a pickler remembers is forgotten in no time."""

SPARES = 4
"""Picklers kept for later."""


class TooMuch(BaseException):
    """The pickle is longer than `LIGHT`. This is no Exception: nothing is wrong with the value."""


class Gently(Way):
    """In parts, with a step between two of them."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._names_main = False

    def dumps(
        self, module: Any, value: object, apart: Callable[[pickle.PickleBuffer], Any] | None = None
    ) -> bytes:
        """Pickle the value."""
        parts: list[bytes] = []
        self._names_main = False
        module.Pickler(_Writer(self._take, parts), 5, buffer_callback=apart).dump(value)
        return b"".join(parts)

    def names_main(self, data: bytes) -> bool:  # noqa: ARG002  # it was looked at in parts
        """Whether the pickle that was made last names anything of `__main__`."""
        return self._names_main

    def _take(self, parts: list[bytes], data: bytes) -> None:
        parts.append(bytes(data))  # a copy, if it is somebody's bytearray
        if len(data) < ONE and b"__main__" in data:
            self._names_main = True
        self._step()


class _Lightly(Way):
    """At once, unless that is too much. Raises TooMuch then."""

    def dumps(
        self, module: Any, value: object, apart: Callable[[pickle.PickleBuffer], Any] | None = None
    ) -> bytes:
        """Pickle the value."""
        parts: list[bytes] = []
        module.Pickler(_Writer(_take_few, parts), 5, buffer_callback=apart).dump(value)
        return b"".join(parts)


LIGHTLY = _Lightly()


class _Writer:
    """The file of a pickler. There is no cycle in it, so what was pickled is let go of at once."""

    __slots__ = ("_parts", "_take")

    def __init__(self, take: Callable[[list[bytes], bytes], None], parts: list[bytes]) -> None:
        self._take = take
        self._parts = parts

    def write(self, data: bytes) -> None:
        """What pickle calls."""
        self._take(self._parts, data)


def _take_few(parts: list[bytes], data: bytes) -> None:
    parts.append(data)
    if sum(map(len, parts)) > LIGHT:
        raise TooMuch


class _Page:
    """The file of a pickler that is used again."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        if len(self.data) + len(data) > LIGHT:
            raise TooMuch
        self.data = self.data + data if self.data else data


_spare: list[tuple[_Page, Callable[[object], None], Callable[[], None]]] = []


def dumps_light(value: object) -> bytes:
    """Pickle a value that has no big data in it. Raises TooMuch if it is long, BufferError if it has.

    To use a pickler again takes a quarter of what it takes to make one, and little more than
    `pickle.dumps`, which cannot be told to give up.
    """
    try:
        page, dump, forget = _spare.pop()  # nobody else has it now: no thread, no code of the value
    except IndexError:
        page = _Page()
        pickler = pickle.Pickler(page, 5, buffer_callback=is_small)
        dump, forget = pickler.dump, pickler.clear_memo
    dump(value)
    forget()
    data = page.data
    if len(data) <= SMALL and len(_spare) < SPARES:
        page.data = b""
        _spare.append((page, dump, forget))
    return data


class _Reader:
    """The file of an unpickler, over what has come."""

    def __init__(self, data: memoryview, step: Step) -> None:
        self._data = data
        self._step = step
        self._at = 0

    def read(self, count: int) -> bytes:
        part = bytes(self._data[self._at : self._at + count])
        self._at += len(part)
        if count > SMALL:  # a whole part of the pickle, and not what stands before it
            self._step()
        return part

    def readline(self) -> bytes:  # what unpicklers ask for, and no pickle of today makes them use
        raise EOFError


def load_gently(stream: Buffer, buffers: list[Buffer], step: Step) -> Any:
    """As `freight.unpack`, in parts, with a step between two of them."""
    file: Any = _Reader(memoryview(stream), step)
    return pickle.Unpickler(file, buffers=buffers).load()  # noqa: S301  # from our own other side
