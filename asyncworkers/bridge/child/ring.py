"""The memory that parent and child share: a control page, and a ring of results that outlives the child.

The page is made of words of 64 bits, each written by one side only, and a byte for each place in
the child's line. The order of reads and writes is what makes it work without locks, so here it is.

*Results.* The child writes a record, then the new `TAIL`, and only then moves `CURRENT` on. So
whatever kills it, the parent finds in the ring what was done, and `CURRENT` tells the rest: a job
with a record is done, the one that is current and has none was running, later ones never began.

*Waking.* The child writes `TAIL`, then reads `SLEEPS`; the parent writes `SLEEPS`, then reads
`TAIL`. If neither write could be delayed past the read that follows it, one of the two would
see the other's. Processors do delay writes, so between the two each side makes a full fence:
`fence()` lets go of a lock and takes it again, which is an atomic operation of release and one of
acquire in this order; nothing moves past the pair. On top of that the parent reads `TAIL` once
more in the next turn of its loop, after a system call, by when no processor still holds a write.

*Taking jobs back.* The child writes `CURRENT`, makes a fence, then reads the job's byte; the parent
writes the byte, makes a fence, then reads `CURRENT`. So if the parent finds that the child has not
come to the job, the child will find the byte set when it does, and skip it.

*Order of writes.* x86 keeps writes, and reads, in order. Elsewhere a fence stands between the
record and `TAIL`, and between `TAIL` and the record. A word is written by one instruction: it is
aligned, and `memoryview` copies it as one.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Callable

__all__ = [
    "ASK",
    "BELOW",
    "CURRENT",
    "DROPPED",
    "ELSEWHERE",
    "ERROR",
    "FREIGHT",
    "INTERRUPT",
    "LARGEST",
    "MASK",
    "NOTE",
    "PLACES",
    "SAID",
    "SIZE",
    "SKIPPED",
    "SLEEPS",
    "STARTED",
    "UNFIT",
    "VALUE",
    "WORN",
    "RingReader",
    "RingWriter",
    "Shared",
    "fence",
]

# Words of the control page. Each side writes in cache lines of its own.
TAIL = 0
"""Bytes of records the child has ever written."""
CURRENT = 1
"""The number of the job it runs, or ran last."""
STARTED = 2
"""When that began, in nanoseconds of the monotonic clock."""
DROPPED = 3
"""How many log records there was no room for."""
HEAD = 16
"""Bytes of records the parent has ever read."""
INTERRUPT = 17
"""The number of the job that is to be interrupted."""
SLEEPS = 32
"""Not 0 if the parent must be woken when there is a record; the child clears it as it wakes it."""

PLACES = 1024
"""Places in a child's line. The job number n has the byte n % PLACES: not 0 says to skip it."""
MASK = PLACES - 1

CONTROL = 4096
"""Bytes before the ring: 2,048 for words, then the places."""
FIRST_PLACE = 2048

RING = 1 << 20
SIZE = CONTROL + RING
LARGEST = RING // 4
"""Bytes of a record's payload; larger ones go through the pipe."""

# Kinds of records. Those below BELOW are the end of a job.
VALUE = 0
"""The pickled value."""
ERROR = 1
"""What was raised, as data."""
SKIPPED = 2
"""The job was taken back before it began."""
ELSEWHERE = 3
"""The end came in a frame through the pipe, before this record."""
FREIGHT = 4
"""The value as a message of `freight`."""
BELOW = 8
NOTE = 8
"""Something the running job says: a pickled (kind, details)."""
ASK = 9
"""The running job wants to know something, and waits for an ANSWER."""
SAID = 10
"""A log record, as plain data; of the running job, if one runs."""
WORN = 11
"""The child has served enough and begins no other job: why, as text."""
UNFIT = 12
"""The child could not be made ready: what its initializer raised, as data."""
PAD = 15
"""Nothing: the next record begins at the ring's beginning."""

TOP = 32
"""Bytes of a record before its payload: length and kind, job, when it started and ended."""

IN_ORDER = os.name == "nt" or os.uname().machine in ("x86_64", "AMD64", "i386", "i686")

FULL = 0.0005
"""Seconds between two looks of a child whose ring is full."""

_lock = threading.Lock()
_lock.acquire()


def fence() -> None:
    """Let nothing that is written before be delayed past what is read after."""
    _lock.release()
    _lock.acquire()


class Shared:
    """The shared memory as one side has it mapped."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE)
        whole = memoryview(self._map)
        self._views = [whole]
        self.words = self._cut(whole[:FIRST_PLACE]).cast("Q")
        self.places = self._cut(whole[FIRST_PLACE : FIRST_PLACE + PLACES])
        self.bytes = self._cut(whole[CONTROL:])
        self.ring_words = self.bytes.cast("Q")

    def _cut(self, view: memoryview) -> memoryview:
        self._views.append(view)
        return view

    def close(self) -> None:
        """Unmap it."""
        self.words.release()
        self.ring_words.release()
        for view in reversed(self._views):
            view.release()
        self._map.close()


class RingWriter:
    """The child's end of the ring. `room_wanted` is called before it waits for the parent to read."""

    def __init__(self, shared: Shared, room_wanted: Callable[[], None]) -> None:
        self._words = shared.words
        self._ring = shared.ring_words
        self._bytes = shared.bytes
        self._tail = 0
        self._room_wanted = room_wanted

    def put(self, kind: int, job: int, started: int, ended: int, payload: bytes) -> None:
        """Write a record; if there is no room, wait until the parent has read."""
        tail, length = self._tail, len(payload)
        size = (TOP + length + 7) & -8
        at = tail & (RING - 1)
        if RING - at < size:
            self._wait_for(tail + RING - at)
            self._ring[at >> 3] = PAD << 32
            tail += RING - at
            at = 0
        if tail + size - self._words[HEAD] > RING:
            self._wait_for(tail + size)
        word, ring = at >> 3, self._ring
        ring[word] = kind << 32 | length
        ring[word + 1] = job
        ring[word + 2] = started
        ring[word + 3] = ended
        if length:
            self._bytes[at + TOP : at + TOP + length] = payload
        if not IN_ORDER:
            fence()
        self._tail = self._words[TAIL] = tail + size

    def is_crowded(self, length: int) -> bool:
        """Whether a record of so many bytes would not fit into the half that is left for anything."""
        return self._tail + TOP + length - self._words[HEAD] > RING // 2

    def _wait_for(self, tail: int) -> None:
        while tail - self._words[HEAD] > RING:
            self._room_wanted()
            time.sleep(FULL)


class RingReader:
    """The parent's end of the ring."""

    def __init__(self, shared: Shared) -> None:
        self._words = shared.words
        self._ring = shared.ring_words
        self._bytes = shared.bytes
        self._head = 0

    def read(self) -> list[tuple[int, int, int, int, bytes]]:
        """All records there are: kind, job, when it started and ended, payload.

        Raises ValueError if they make no sense.
        """
        head, tail = self._head, self._words[TAIL]
        if head == tail:
            return []
        if not IN_ORDER:
            fence()
        if not 0 < tail - head <= RING or tail & 7:
            raise ValueError(f"the ring's tail is {tail}, its head {head}")
        records: list[tuple[int, int, int, int, bytes]] = []
        ring, data = self._ring, self._bytes
        while head < tail:
            at = head & (RING - 1)
            word = at >> 3
            top = ring[word]
            length, kind = top & 0xFFFFFFFF, top >> 32
            if kind == PAD:
                head += RING - at
                continue
            begin = at + TOP
            end = begin + length
            if end > RING:
                raise ValueError(f"a record of {length} bytes at {at}")
            records.append(
                (kind, ring[word + 1], ring[word + 2], ring[word + 3], data[begin:end].tobytes())
            )
            head += (TOP + length + 7) & -8
        self._head = self._words[HEAD] = head
        return records
