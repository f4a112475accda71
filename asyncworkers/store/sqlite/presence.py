"""What processes on one file know of each other without asking it: who lives, what began, who waits.

Beside the database there is a directory `<file>-workers`, for its owner only, and in it:

- `<worker>.alive`, locked by its process as long as that lives. The kernel lets go of the lock when
  a process ends, however it ends, so whoever can lock the file knows that the worker is dead. In it
  the worker keeps a list of the leases whose function has begun, in memory that survives it.
- `<worker>.bell`, a named pipe. A byte in it means: look again.
- `board`, in which each worker says whether it is waiting, so that bells are rung only for those,
  and in which a stamp changes when a worker comes, so that nobody has to look for others.

All of this may be deleted while no process has the store open. What is written to memory that is a file
cannot be refused: on a full disk the kernel kills who tries. So room is made before, with a call that can.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asyncworkers.errors import StoreUnavailable
from asyncworkers.store.protocol import Settlement

__all__ = ["ENDED", "READY", "Board", "Dead", "Presence", "directory_of", "examine"]

READY: Final = 0
"""Waits for a job to lease."""

ENDED: Final = 1
"""Waits for a job to end."""

SLOTS = 65_536
HEADER = 16
SLOT = struct.Struct("=qq")
SIZE = HEADER + SLOTS * SLOT.size
STEP = 65_536
"""For so many bytes of a worker's file room is made at a time: some 4,000 leases."""

STAMP = struct.Struct("=Q")
BOARD = 8_192
PRIVATE = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW

_here: dict[Path, Presence] = {}
"""The workers of this very process: the kernel's locks do not tell a process from itself, and
closing a second descriptor of a locked file would let go of the lock."""


class Presence:
    """This worker, as others see it."""

    def __init__(self, directory: Path, worker: int) -> None:
        self.worker = worker
        self._alive = directory / f"{worker}.alive"
        self._bell = directory / f"{worker}.bell"
        self._slots: dict[tuple[int, int], int] = {}
        self._free: list[int] = []
        self._used = self._room = self._end = 0
        for path in (self._alive, self._bell):  # of a store that was here before
            path.unlink(missing_ok=True)
        self._file = os.open(self._alive, PRIVATE | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(self._file, SIZE)
            self._make_more()
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.mkfifo(self._bell, 0o600)
            self.bell = os.open(self._bell, PRIVATE | os.O_NONBLOCK)
        except BaseException:
            os.close(self._file)
            for path in (self._alive, self._bell):
                path.unlink(missing_ok=True)
            raise
        self._map = mmap.mmap(self._file, SIZE)
        _here[self._alive] = self

    def begin(self, seq: int, token: int) -> None:
        """Note that this lease's function begins."""
        if self._free:
            slot = self._free.pop()
        elif self._used < self._room or self._find_more():
            slot, self._used = self._used, self._used + 1
        else:
            self._map[0] = 1  # there are more: count everything as begun
            return
        self._slots[seq, token] = slot
        SLOT.pack_into(self._map, HEADER + slot * SLOT.size, seq, token)

    def _find_more(self) -> bool:
        """Make room for further slots, and say whether there is any."""
        if self._end < SIZE:
            with contextlib.suppress(OSError):
                self._make_more()
        return self._used < self._room

    def _make_more(self) -> None:
        end = min(self._end + STEP, SIZE)
        _make_room(self._file, self._end, end - self._end)
        self._end, self._room = end, (end - HEADER) // SLOT.size

    def end(self, settled: Iterable[Settlement]) -> None:
        """Forget these leases: they are settled, and that is committed."""
        for one in settled:
            slot = self._slots.pop((one.seq, one.token), None)
            if slot is not None:
                SLOT.pack_into(self._map, HEADER + slot * SLOT.size, 0, 0)
                self._free.append(slot)

    def begun(self) -> set[tuple[int, int]] | None:
        """The leases whose function has begun; None if that cannot be told."""
        return None if self._map[0] else set(self._slots)

    def heard(self) -> None:
        """Empty the bell."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self.bell, 4096)) == 4096:
                pass

    def leave(self) -> None:
        """Take everything away; the lock is let go last."""
        _here.pop(self._alive, None)
        self._bell.unlink(missing_ok=True)
        self._alive.unlink(missing_ok=True)
        self._map.close()
        os.close(self.bell)
        os.close(self._file)


@dataclass(slots=True)
class Dead:
    """A worker that has ended, or only says nothing (`certain` is False then).

    `begun` holds the leases whose function has begun, None if that cannot be told.
    """

    begun: set[tuple[int, int]] | None
    certain: bool
    _paths: tuple[Path, Path]
    _file: int | None = None

    def bury(self) -> None:
        """Remove what it left behind, once its jobs are brought back."""
        if self.certain:
            for path in self._paths:
                path.unlink(missing_ok=True)
        self.let_go()

    def let_go(self) -> None:
        """Let go of its lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def examine(directory: Path, worker: int, *, overdue: bool, restarted: bool) -> Dead | None:
    """Find out whether a worker is dead; None if it lives and is not overdue.

    `restarted`: it was of another start of the machine, so what its file says may never have
    reached the disk.
    """
    alive = directory / f"{worker}.alive"
    paths = directory / f"{worker}.bell", alive  # the one that says who died goes last
    if restarted:
        return Dead(None, certain=True, _paths=paths)
    mine = _here.get(alive)
    if mine is not None:
        return Dead(mine.begun(), certain=False, _paths=paths) if overdue else None
    try:
        file = os.open(alive, PRIVATE)
    except OSError:
        return Dead(None, certain=False, _paths=paths) if overdue else None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        certain = True
    except OSError:
        certain = False
    if not certain and not overdue:
        os.close(file)
        return None
    return Dead(_read(file), certain=certain, _paths=paths, _file=file)


def _read(file: int) -> set[tuple[int, int]] | None:
    """The leases that a worker's file names."""
    if os.fstat(file).st_size != SIZE:
        return None
    found = os.pread(file, SIZE, 0)
    if len(found) != SIZE or found[0]:
        return None
    begun: set[tuple[int, int]] = set()
    # Slots are taken from the front, and a page that was never written to is full of zeros.
    for start in range(HEADER, SIZE, 4096):
        page = found[start : start + 4096]
        if page.count(0) != len(page):
            begun.update(SLOT.iter_unpack(page))
    begun.discard((0, 0))
    return begun


class Board:
    """Who waits for what, and the bells to wake them with."""

    def __init__(self, database: Path) -> None:
        self.directory = directory_of(database)
        _make_private(self.directory)
        file = os.open(self.directory / "board", PRIVATE | os.O_CREAT, 0o600)
        try:
            if os.fstat(file).st_size < BOARD:
                os.ftruncate(file, BOARD)
            _make_room(file, 0, BOARD)
            self._map = mmap.mmap(file, BOARD)
        finally:
            os.close(file)
        self._seen = 0
        self._bells: dict[int, int] = {}

    def newest(self) -> int:
        """The greatest number of a worker that has a file here, 0 if none has."""
        return max(self._numbers(), default=0)

    def clear_up(self, known: Collection[int]) -> None:
        """Remove what those left behind who were killed while they came or went, and are not known.

        To be called inside a transaction that may write: nobody else comes meanwhile.
        """
        for worker in self._numbers():
            if worker not in known:
                dead = examine(self.directory, worker, overdue=False, restarted=False)
                if dead is not None:
                    dead.bury()

    def _numbers(self) -> list[int]:
        names = (path.stem for path in self.directory.glob("*.alive"))
        return [int(name) for name in names if name.isdecimal()]

    def announce(self) -> None:
        """Let the others know that somebody came."""
        STAMP.pack_into(self._map, 0, time.monotonic_ns())

    def wait(self, worker: int, what: int, waiting: bool) -> None:
        """Say that a worker waits, or does not any more."""
        self._map[_flag(worker, what)] = waiting

    def ring(self, me: int, what: int) -> None:
        """Wake all other workers that wait for this."""
        (stamp,) = STAMP.unpack_from(self._map)
        if stamp != self._seen:
            self._seen = stamp
            self._find_bells(me)
        for worker, bell in list(self._bells.items()):
            flag = _flag(worker, what)
            if self._map[flag]:
                self._map[flag] = 0  # before the ring: whoever wakes says anew that it waits
                try:
                    os.write(bell, b"!")
                except BlockingIOError:
                    pass  # it has been rung often enough
                except OSError:
                    os.close(self._bells.pop(worker))

    def _find_bells(self, me: int) -> None:
        bells = self.directory.glob("*.bell")
        there = {int(path.stem): path for path in bells if path.stem.isdecimal()}
        for gone in self._bells.keys() - there.keys():
            os.close(self._bells.pop(gone))
        for worker in there.keys() - self._bells.keys() - {me}:
            with contextlib.suppress(OSError):  # nobody listens: it is dead
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
                self._bells[worker] = os.open(there[worker], flags)

    def close(self) -> None:
        """Let go of everything."""
        for bell in self._bells.values():
            os.close(bell)
        self._bells.clear()
        self._map.close()


def directory_of(database: Path) -> Path:
    """The directory beside the file, however the path to it is spelled: two spellings must not make
    two directories, nor strangers of two workers of one process.
    """
    return Path(f"{os.path.realpath(database)}-workers")


def _make_room(file: int, start: int, length: int) -> None:
    """Have the disk keep room for this part of a file, and what is there already as it is.

    Raises OSError if there is none. A file system that cannot promise it, or a system that has no such
    call, is taken as it is.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, start, length)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):
                raise


def _flag(worker: int, what: int) -> int:
    """Where on the board; workers far apart may share a place, and are woken in vain then."""
    return STAMP.size + (worker * 2 + what) % (BOARD - STAMP.size)


def _make_private(directory: Path) -> None:
    """Make the directory, or check that it is one and ours."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(0o700)
    about = directory.lstat()
    if not stat.S_ISDIR(about.st_mode):
        raise StoreUnavailable(f"{directory} is in the way: it must be a directory")
    if about.st_mode & 0o022:
        raise StoreUnavailable(f"{directory} may be written to by others: chmod go-w {directory}")
