"""Frames: how messages lie in the pipes between parent and child, a head and so many bytes each."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from struct import Struct

from . import pickling as pickle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "ANSWER",
    "BYE",
    "DEFINE",
    "FORGET",
    "FREIGHT",
    "HELLO",
    "JOBS",
    "RESULT",
    "SETUP",
    "TRIM",
    "WAKE",
    "WAKE_UP",
    "FrameReader",
    "ProtocolError",
    "frame",
    "head",
    "long_frame",
    "open_long",
]

# From parent to child.
SETUP = 1
"""The first frame: what the child is to know of its parent, pickled."""
DEFINE = 2
"""A function and its number, pickled."""
FORGET = 3
"""Numbers of functions that will not be used again unless they are defined again, pickled."""
JOBS = 4
"""The number of the first job, and for each job its function's number and arguments, pickled."""
ANSWER = 5
"""What the running job asked of the parent, pickled."""
FREIGHT = 6
"""One job as in JOBS, but its arguments follow as the message of `freight`."""
TRIM = 7
"""Big data have become rare: give the memory back that they took; empty."""
BYE = 8
"""There is nothing more to come, though a copy of the parent may hold the pipe open; empty."""

# From child to parent.
HELLO = 16
"""The child is ready."""
WAKE = 17
"""Look at the ring; empty."""
RESULT = 18
"""The end of a job that does not fit in the ring, as it would stand there."""

KNOWN = frozenset((SETUP, DEFINE, FORGET, JOBS, ANSWER, FREIGHT, TRIM, BYE, HELLO, WAKE, RESULT))

MAGIC = b"awb1"
LONGEST = 1 << 40
"""Bytes in a frame: more is taken for garbage."""

SCRATCH = 1 << 18
"""Bytes read at a time, and the length from which a frame gets memory of its own."""

STEP = 1 << 20
"""Bytes of a long frame read at a time, so that an event loop can turn in between."""

_head = Struct("<4sIQ")
_pack, _unpack, HEAD = _head.pack, _head.unpack_from, _head.size

WAKE_UP = _pack(MAGIC, WAKE, 0)
"""The frame that wakes, whole."""


class ProtocolError(Exception):
    """The other side sent what is no frame."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    """A frame, ready to be written."""
    return _pack(MAGIC, kind, len(payload)) + payload


def head(kind: int, length: int) -> bytes:
    """The head of a frame whose payload is written after it."""
    return _pack(MAGIC, kind, length)


def long_frame(
    kind: int, facts: object, parts: Sequence[bytes | memoryview]
) -> list[bytes | memoryview]:
    """A frame of facts about something long, pickled, and of that itself, to be written in parts."""
    beginning = pickle.dumps(facts, 5)
    length = 8 + len(beginning) + sum(map(len, parts))
    return [head(kind, length) + len(beginning).to_bytes(8, "little") + beginning, *parts]


def open_long(payload: bytes | memoryview) -> tuple[Any, memoryview]:
    """The facts and the long part of such a frame; it can be written to, for it may be somebody's data."""
    data = memoryview(bytearray(payload) if isinstance(payload, bytes) else payload)
    end = 8 + int.from_bytes(data[:8], "little")
    return pickle.loads(data[8:end]), data[end:]  # from our own other side


class FrameReader:
    """Cuts what is read into frames. Read into `room()`, then say how much came with `took()`.

    Short frames are copied out of a scratch buffer that is used again. A long one gets anonymous
    memory of its own, which costs nothing until it is written, and is read into it directly.
    """

    def __init__(self) -> None:
        self._scratch = bytearray(SCRATCH)
        self._view = memoryview(self._scratch)
        self._rest = b""  # the beginning of a frame
        self._long: memoryview | None = None  # what is still to be filled of a long frame
        self._payload: memoryview | None = None
        self._kind = 0

    def room(self) -> memoryview:
        """Where the next bytes go."""
        return self._view if self._long is None else self._long[:STEP]

    def took(self, count: int) -> list[tuple[int, bytes | memoryview]]:
        """So many bytes have come; the kinds and payloads of the frames that are complete now, but for
        those that wake: that has happened.

        Raises ProtocolError if that is no frame.
        """
        frames: list[tuple[int, bytes | memoryview]] = []
        if self._long is not None:
            self._long = self._long[count:]
            if not self._long.nbytes:
                assert self._payload is not None
                frames.append((self._kind, self._payload))
                self._long = self._payload = None
            return frames
        if count == HEAD and not self._rest and self._scratch.startswith(WAKE_UP):
            return frames  # as after most jobs that come one at a time
        data = bytes(self._view[:count])
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= HEAD:
            magic, kind, length = _unpack(data, at)
            if magic != MAGIC or kind not in KNOWN or length > LONGEST:
                raise ProtocolError(f"no frame begins with {data[at : at + HEAD]!r}")
            body = at + HEAD
            if end - body < length:
                if length > SCRATCH:
                    self._begin_long(kind, length, data[body:])
                    at = end
                break
            at = body + length
            if kind != WAKE:
                frames.append((kind, data[body:at]))
        self._rest = data[at:]
        return frames

    def _begin_long(self, kind: int, length: int, beginning: bytes) -> None:
        self._kind = kind
        self._payload = memoryview(mmap.mmap(-1, length))
        self._payload[: len(beginning)] = beginning
        self._long = self._payload[len(beginning) :]
