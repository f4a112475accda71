"""Shared memory through which big data crosses between a process and its child without a copy.

One anonymous file (a memfd; elsewhere a temporary file without a name) lies behind each child. It
has two halves: in one the parent writes arguments and the child looks at them in place, read-only;
in the other the child writes results and the parent looks at them in place, and may change them.
Who writes a half owns it: only the writer gives out room in it, in *blocks*, and a block is its
looker's from the moment it is told of the block until it gives it back.

    argument data | argument table | result table | result data

How a block is given back
    A table has one byte for each block that can be out at a time (`SLOTS`). The writer sets the
    byte to 1 when it gives the block out. The looker sets it to 0 when nothing looks at the block
    any more: one store, no message. The writer comes across it when it next needs room.

How a looker knows that nothing looks any more
    A view of a block is wrapped once more, `memoryview(PickleBuffer(view))`: such a memoryview
    counts as one export of `view` and lives until the last slice, cast or array made of it is dead.
    So `view.release()` raises BufferError exactly as long as somebody looks; `poll` tries that.
    Without the wrapper slices and arrays would not count: they refer to what lies below `view`.
    A weak reference would call back at once, but for garbage in a cycle it does so before
    finalizers run, which may look at the data still, or save it. And up to Python 3.12 the garbage
    collector crashes on a memoryview that has exports and is itself garbage: therefore lookers
    that have views out are reachable from this module (`_LOOKING`).

How it grows and shrinks
    The file is mapped once, as large as it may ever become, and holds no memory but what was
    written: the kernel adds it page by page and takes it back from free blocks by `trim_steps`.
    There is no second segment to open, tell of, or keep apart. Pages that hold nothing yet are
    written by `pwrite`, quicker than by faults, and with an error where a store into the mapping
    would be a signal: a full memory is a MemoryError of the one job that wanted more. A process
    that may not map as much gets a smaller one. A half that is full (its limit, or all its slots) is
    no error: `allocate` returns None and the data goes another way, see `freight`.

What a death leaves
    Nothing: the file has no name, and goes with the last process that maps it. When a child dies
    its half-written blocks go with its file; what the parent looks at stays until it looks away.

Lengthy work is done in steps, as iterators, so that an event loop may turn between two of them.

Memory order: the byte of a slot is set to 0 after the last look at the data, and the writer stores
into the block only after it saw that 0; on both sides a fence stands between.
What tells the looker of a block, a message or a ring, has to order it after the data likewise.
"""

from __future__ import annotations

import errno
import gc
import mmap
import os
import sys
from collections import deque
from collections.abc import Iterator

from .pickling import PickleBuffer
from .ring import fence
from .space import Space

__all__ = ["SLOTS", "STEP", "Block", "Looker", "Memory", "Writer"]

PAGE = mmap.PAGESIZE
STEP = 1 << 20  # bytes copied at a time: 50 to 100 µs where memory is warm
TRIMMED = 4 << 20  # bytes given back to the system at a time: about 1 ms
SLOTS = 4096
SMALL_ALIGNMENT, LARGE = 64, 64 << 10  # a cache line; from here on whole pages
LEAST, MOST = 64 << 20, 64 << 30  # a half is never made smaller, nor by default larger
POLLED = 64  # views tried at a time, so that a process that keeps thousands pays little each time

_LOOKING: set[Looker] = set()
_CLOSED: list[Looker] = []  # those of them whose children are gone


class Memory:
    """The shared memory of one child: its file, and how both sides get at it.

    The parent makes it by `create`, hands `fd` down, and uses `writer` for arguments and `looker`
    for results. The child makes it by `attach` and uses them the other way around.
    """

    def __init__(self, fd: int, writer: Writer, looker: Looker) -> None:
        self.fd = fd
        self.writer = writer
        self.looker = looker

    @classmethod
    def create(cls, limit: int | None = None) -> Memory:
        """Make a memory of `limit` bytes in each direction; by default half of the machine's.

        Raises OSError if there is none to be had, no descriptor for instance.
        """
        size = -(-(limit or _half_the_machine()) // PAGE) * PAGE
        fd = _anonymous_file()
        try:
            while True:
                try:
                    os.ftruncate(fd, 2 * (size + PAGE))
                    whole = _map(fd, 2 * (size + PAGE), 0)
                    break
                except OSError:  # limits of the address space or of the size of files
                    size = size // 2 // PAGE * PAGE
                    if size < min(LEAST, limit or LEAST):
                        raise
        except BaseException:
            os.close(fd)
            raise
        results = size + 2 * PAGE
        table = memoryview(whole)[size:][:SLOTS]
        writer = Writer(_Half(fd, 0, size, whole, 0, table), "the arguments")
        table = memoryview(whole)[size + PAGE :][:SLOTS]
        looker = Looker(_Half(fd, results, size, whole, results, table))
        return cls(fd, writer, looker)

    @classmethod
    def attach(cls, fd: int) -> Memory:
        """Map in the child what the parent made. Raises OSError if it cannot be mapped."""
        size = os.fstat(fd).st_size // 2 - PAGE
        arguments = _map(fd, size, 0, read_only=True)
        rest = _map(fd, size + 2 * PAGE, size)
        table = memoryview(rest)[:SLOTS]
        looker = Looker(_Half(fd, 0, size, arguments, 0, table))
        table = memoryview(rest)[PAGE:][:SLOTS]
        writer = Writer(_Half(fd, size + 2 * PAGE, size, rest, 2 * PAGE, table), "the result")
        return cls(fd, writer, looker)

    @property
    def resident(self) -> int:
        """How many bytes of memory the file holds now, in both directions."""
        return 0 if self.fd < 0 else os.fstat(self.fd).st_blocks * 512

    def close_steps(self) -> Iterator[None]:
        """Let go of everything, now that the child is dead; what is looked at stays for its looker.

        The memory is given back in steps: unmapping a gigabyte at once takes a quarter of a second.
        """
        self.looker.poll(everything=True)
        yield from self.writer.trim_steps(everything=True)
        yield from self.looker.trim_steps()
        self.close()

    def close(self) -> None:
        """Let go of everything at once; what is looked at stays for its looker."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self.writer.close()
            self.looker.close()


class _Half:
    """One half of the memory as this process sees it: `size` bytes, from `start` on in the file.

    In `mapping` they begin at `offset`.
    """

    __slots__ = ("_fd", "_mapping", "_offset", "_start", "data", "size", "table")

    def __init__(
        self, fd: int, start: int, size: int, mapping: mmap.mmap, offset: int, table: memoryview
    ) -> None:
        self._fd = fd
        self._start = start
        self._mapping: mmap.mmap | None = mapping
        self._offset = offset
        self.size = size
        self.data = memoryview(mapping)[offset : offset + size]
        self.table = table

    def pwrite(self, piece: memoryview, at: int) -> None:
        """Write into the file, not through the mapping."""
        done = 0
        while done < len(piece):
            done += os.pwrite(self._fd, piece[done:], self._start + at + done)

    def next_present(self, at: int) -> int:
        """Where from `at` on there is memory, in whole pages; the end of the half if nowhere."""
        try:
            found = os.lseek(self._fd, self._start + at, os.SEEK_DATA) - self._start
        except OSError:  # nothing until the end of the file
            return self.size
        return min(found // PAGE * PAGE, self.size)

    def punch(self, start: int, end: int) -> bool:
        """Take the memory from these pages, which then read as zeros; False where that cannot be."""
        if self._mapping is None or not hasattr(mmap, "MADV_REMOVE"):
            return False
        try:
            self._mapping.madvise(mmap.MADV_REMOVE, self._offset + start, end - start)
        except OSError:  # not every file system can
            return False
        return True

    def close(self) -> None:
        """Let go of the mapping, which stays for those who look at it."""
        self._mapping = None
        self.size = 0
        self.data = self.table = memoryview(b"")


class Block:
    """Room that a writer has given out: `nbytes` at `at` in its half, known by its slot."""

    __slots__ = ("at", "nbytes", "room", "slot")

    def __init__(self, slot: int, at: int, nbytes: int, room: int) -> None:
        self.slot = slot
        self.at = at
        self.nbytes = nbytes
        self.room = room  # what it occupies: nbytes, rounded up to its alignment

    def __repr__(self) -> str:
        return f"<Block {self.slot}: {self.nbytes} bytes at {self.at}>"


class Writer:
    """Gives out blocks in its half of the memory and copies data into them."""

    def __init__(self, half: _Half, what: str) -> None:
        self._half = half
        self._what = what
        self._space = Space(half.size)
        self._slots = list(range(SLOTS - 1, -1, -1))
        self._out: dict[int, Block] = {}
        self._present = bytearray()  # a byte for each page up to the last one written: 1 if present

    @property
    def out(self) -> int:
        """How many blocks are given out and not yet known to be back."""
        return len(self._out)

    @property
    def warm(self) -> int:
        """How many bytes of the half have memory."""
        return self._present.count(1) * PAGE

    @property
    def room(self) -> int:
        """How many bytes are not given out."""
        return self._space.free

    def allocate(self, nbytes: int) -> Block | None:
        """Give out a block of `nbytes`; None if there is no room for it within the limit."""
        self.collect()
        alignment = SMALL_ALIGNMENT if nbytes < LARGE else PAGE
        room = -(-max(nbytes, 1) // alignment) * alignment
        if not self._slots or (at := self._space.take(room, alignment)) is None:
            return None
        slot = self._slots.pop()
        self._half.table[slot] = 1
        block = self._out[slot] = Block(slot, at, nbytes, room)
        return block

    def collect(self) -> None:
        """Take back every block whose looker has given it back."""
        table = self._half.table
        back = [block for slot, block in self._out.items() if not table[slot]]
        if back:
            fence()
            for block in back:
                self.take_back(block)

    def take_back(self, block: Block) -> None:
        """Take back a block that no looker was told of, or that its looker has given back."""
        del self._out[block.slot]
        self._half.table[block.slot] = 0
        self._slots.append(block.slot)
        self._space.give(block.at, block.room)

    def copy_steps(self, block: Block, source: memoryview) -> Iterator[None]:
        """Copy `source`, contiguous bytes, into the block, at most `STEP` bytes at a time.

        Raises MemoryError if the system has no memory for it.
        """
        for done in range(0, block.nbytes, STEP):
            self._write(block.at + done, source[done : done + STEP])
            yield

    def trim_steps(self, *, everything: bool = False) -> Iterator[None]:
        """Give the memory of free room back to the system, of all room if `everything`, in steps.

        Nothing may be allocated between two steps; stop stepping first, if need be for good. Where
        the system cannot do it (only Linux can) the memory is kept for the next blocks.
        """
        self.collect()
        holes = [(0, self._half.size)] if everything else self._space.holes()
        for start, end in holes:
            first, last = -(-start // PAGE), min(end // PAGE, len(self._present))
            while (first := self._present.find(1, first, last)) >= 0:
                final = self._present.find(0, first, last)
                final = min(last if final < 0 else final, first + TRIMMED // PAGE)
                if not self._half.punch(first * PAGE, final * PAGE):
                    return
                self._present[first:final] = bytes(final - first)
                first = final
                yield

    def close(self) -> None:
        """Give out nothing any more."""
        self._half.close()
        self._space = Space(0)
        self._out.clear()

    def _write(self, at: int, piece: memoryview) -> None:
        first, last = at // PAGE, -(-(at + len(piece)) // PAGE)
        if len(self._present) < last:
            self._present.extend(bytes(last - len(self._present)))
        if self._present.find(0, first, last) < 0:
            self._half.data[at : at + len(piece)] = piece
            return
        try:
            self._half.pwrite(piece, at)
        except OSError as error:
            raise MemoryError(
                f"there is no shared memory for {self._what}: {error.strerror}"
                f" ({errno.errorcode.get(error.errno or 0, error.errno)})"
            ) from error
        self._present[first:last] = b"\1" * (last - first)


class Looker:
    """Shows blocks in place, and gives each back when nothing looks at it any more."""

    def __init__(self, half: _Half) -> None:
        self._half = half
        self._views: dict[int, tuple[memoryview, int, int]] = {}  # by slot, with start and end
        self._turn: deque[int] = deque()  # the slots of `_views`, the next to be polled first

    @property
    def looked_at(self) -> int:
        """How many blocks are looked at, as far as the last polls know."""
        return len(self._views)

    def look(self, slot: int, at: int, nbytes: int) -> memoryview:
        """Show a block that the writer has told of. Raises ValueError if there cannot be such a one."""
        end = at + nbytes
        if not (0 <= slot < SLOTS and 0 <= at <= end <= self._half.size) or slot in self._views:
            raise ValueError(f"there is no block {slot} of {nbytes} bytes at {at} to look at")
        view = self._half.data[at:end]
        self._views[slot] = (view, at, end)
        self._turn.append(slot)
        _LOOKING.add(self)
        return memoryview(PickleBuffer(view))

    def give_back(self, slot: int) -> None:
        """Give back a block that was told of and is not going to be looked at."""
        fence()
        if self._half.size:
            self._half.table[slot] = 0

    def poll(self, *, everything: bool = False) -> int:
        """Give back what nothing looks at any more; returns how many blocks are looked at still.

        To be called when a job has ended and before the other side needs room; it is quick, because
        it tries a limited number of views at a time, each in turn, unless `everything` is asked for.
        """
        turn = self._turn
        for _ in range(len(turn) if everything else min(len(turn), POLLED)):
            slot = turn.popleft()
            try:
                self._views[slot][0].release()
            except BufferError:
                turn.append(slot)
            else:
                del self._views[slot]
                self.give_back(slot)
        if not turn:
            _LOOKING.discard(self)
        return len(turn)

    def trim_steps(self) -> Iterator[None]:
        """Give the memory of all that is not looked at back to the system, in steps.

        Only when the writer is dead: to a living one the room may be in use already.
        """
        at = 0
        looked_at = sorted((start, end) for _, start, end in self._views.values())
        for start, end in [*looked_at, (self._half.size, self._half.size)]:
            while (at := self._half.next_present(at)) < start // PAGE * PAGE:
                until = min(at + TRIMMED, start // PAGE * PAGE)
                if not self._half.punch(at, until):
                    return
                at = until
                yield
            at = -(-end // PAGE) * PAGE

    def close(self) -> None:
        """Show nothing any more; what is looked at stays until it is looked away from."""
        self._half.close()
        if self.poll(everything=True):
            _CLOSED.append(self)
            if _poll_closed not in gc.callbacks:
                gc.callbacks.append(_poll_closed)


def _poll_closed(phase: str, _: dict[str, int]) -> None:
    """After each garbage collection see whether closed lookers may let go of their memory.

    Nobody else calls them: their children are dead, perhaps the supervisor has ended.
    """
    if phase == "stop":
        _CLOSED[:] = [looker for looker in _CLOSED if looker.poll()]
        if not _CLOSED and _poll_closed in gc.callbacks:
            gc.callbacks.remove(_poll_closed)


def _half_the_machine() -> int:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(LEAST, min(memory // 2, MOST))


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("asyncworkers", os.MFD_CLOEXEC)
    from tempfile import TemporaryFile  # a large import, and never one of the child's

    with TemporaryFile(prefix="asyncworkers-") as file:  # it has no name, or loses it at once
        return os.dup(file.fileno())


def _map(fd: int, size: int, start: int, *, read_only: bool = False) -> mmap.mmap:
    protection = mmap.PROT_READ if read_only else mmap.PROT_READ | mmap.PROT_WRITE
    if sys.version_info >= (3, 13):  # without a descriptor of its own
        return mmap.mmap(fd, size, mmap.MAP_SHARED, protection, offset=start, trackfd=False)
    else:
        return mmap.mmap(fd, size, mmap.MAP_SHARED, protection, offset=start)
