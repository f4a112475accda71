"""The file of a SQLite store: opening it safely, knowing that it is still there, telling what is wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
import stat
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from asyncworkers import _checks
from asyncworkers._log import log
from asyncworkers.errors import (
    StoreBusy,
    StoreChanged,
    StoreDamaged,
    StoreFull,
    StoreUnavailable,
)

__all__ = ["Durability", "Place"]

Durability: TypeAlias = Literal["power", "process"]

MAGIC = b"SQLite format 3\x00"

ASK_AGAIN = 0.01
"""Seconds until a file that another program has for itself is asked for again."""

MOUNTS = Path("/proc/self/mountinfo")
"""Where the kernel says which file systems there are; elsewhere than on Linux nobody tells."""

NETWORK = {
    *("afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"),
    *("smb3", "smbfs", "fuse.glusterfs", "fuse.gcsfuse", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
}
"""File systems on which another machine could have the file open, behind the back of locks and memory
that the processes of this one share."""

DOUBTFUL = frozenset(("9p", "drvfs", "fuse.osxfs", "fuse.grpcfuse"))
"""Those of virtual machines, whose locks may or may not be real."""

CAUSES = {
    errno.EACCES: "permission denied",
    errno.EISDIR: "it is a directory",
    errno.ELOOP: "too many symbolic links",
    errno.ENOENT: "its directory does not exist",
    errno.ENOSPC: "the disk is full",
    errno.ENOTDIR: "a part of the path is no directory",
    errno.EROFS: "the file system is read-only",
}

START_AGAIN = "start every process again that has it open"
"""What to do about a file that is not the one that was opened."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a call says for which there is no room on the disk."""


class Place:
    """Where the store's file is, and which file that was when it was opened."""

    def __init__(self, path: Path, durability: Durability, busy: float) -> None:
        self.path = path
        self.name = _checks.printable(str(path))
        self._durability: Durability = durability
        self.busy = busy
        self._identity: tuple[int, int] | None = None

    def prepare(self) -> None:
        """Make the file if there is none, for its owner only, and check that it can be a store.

        Raises StoreUnavailable naming the path and the cause.
        """
        kind = file_system(self.path.parent)
        if kind in NETWORK:
            raise self._unavailable(
                f"it is on a network file system ({kind}), where SQLite's locks cannot be relied on; "
                "a store is for the processes of one machine: put it on a local disk"
            )
        if kind in DOUBTFUL:
            log.warning(
                "%s is on a file system (%s) whose locks may not hold between processes: "
                "put it on a local disk",
                self.name,
                kind,
            )
        with self.translated():
            try:
                found = self._open_file()
            except OSError as error:
                cause = CAUSES.get(error.errno or 0) or error.strerror or str(error)
                raise self._unavailable(cause) from error
            try:
                self._look_at(found)
            finally:
                os.close(found)

    def _open_file(self) -> int:
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
        # A stranger's link in a directory open to all could lead to anything of ours.
        if self._public() and self.path.is_symlink() and self._owner(follow=False) != _me():
            raise self._unavailable("it is a symbolic link of another user in a public directory")
        with contextlib.suppress(FileExistsError):
            return os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        return os.open(self.path, flags)

    def _look_at(self, found: int) -> None:
        about = os.fstat(found)
        if not stat.S_ISREG(about.st_mode):
            raise self._unavailable("it is no ordinary file")
        if self._public() and about.st_uid != _me():
            raise self._unavailable("it belongs to another user, in a public directory")
        head = os.pread(found, 100, 0)
        if head and head[:16] != MAGIC:
            raise StoreDamaged(f"{self.name} is no SQLite database; it was left as it is")
        # Pages are brought over from the log to the file from the first to the last. A process that is
        # killed at that, or a disk that is full, leaves the file short and the rest in the log; and the
        # log goes when all is there, so whoever finds none looks once more.
        if _missing(found) and not self.wal_size() and (missing := _missing(found)):
            size, whole = missing
            raise StoreDamaged(
                f"{self.name} is cut off: {size} bytes of {whole}; it was left as it is"
            )
        self._identity = (about.st_dev, about.st_ino)

    def _public(self) -> bool:
        return bool(self.path.parent.stat().st_mode & stat.S_IWOTH)

    def _owner(self, *, follow: bool) -> int:
        return self.path.stat(follow_symlinks=follow).st_uid

    def connect(self, *, reading: bool = False) -> sqlite3.Connection:
        """A connection of one thread's own. Text comes as bytes, as it may be damaged."""
        with self.translated():
            connection = sqlite3.connect(
                self.path,
                timeout=self.busy,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            try:
                self._set_up(connection, reading)
                self.check_identity()
            except BaseException:
                connection.close()
                raise
        return connection

    def _set_up(self, connection: sqlite3.Connection, reading: bool) -> None:
        connection.text_factory = bytes
        execute = connection.execute
        mode = self._to_wal(connection)
        if mode != b"wal":
            raise self._unavailable("SQLite cannot keep a write-ahead log there")
        execute(f"PRAGMA synchronous = {'FULL' if self._durability == 'power' else 'NORMAL'}")
        execute("PRAGMA cache_size = -32768")  # 32 MiB
        execute("PRAGMA wal_autocheckpoint = 4000")  # pages: about 16 MB
        execute("PRAGMA trusted_schema = OFF")
        if reading:
            execute("PRAGMA query_only = ON")

    def _to_wal(self, connection: sqlite3.Connection) -> bytes:
        """Have the file keep a write-ahead log. Of several that do so to a new file at once, all but
        one are refused at once: SQLite does not wait here, whatever its time-out. So ask again.
        """
        ends = time.monotonic() + self.busy
        while True:
            try:
                mode: bytes = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                return mode
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= ends:
                    raise
            time.sleep(ASK_AGAIN)  # in a thread of the store's

    def check_identity(self) -> None:
        """Raise StoreChanged if the path no longer leads to the file that was opened."""
        try:
            about = self.path.stat()
        except OSError as error:
            raise StoreChanged(
                f"{self.name} was deleted while it was open ({error.strerror}): {START_AGAIN}"
            ) from error
        if (about.st_dev, about.st_ino) != self._identity:
            raise StoreChanged(
                f"{self.name} was replaced by another file while it was open: {START_AGAIN}"
            )

    def wal_size(self) -> int:
        """Bytes of the write-ahead log."""
        try:
            return Path(f"{os.path.realpath(self.path)}-wal").stat().st_size
        except OSError:
            return 0

    @contextlib.contextmanager
    def translated(self) -> Generator[None]:
        """Turn SQLite's errors into ours, with the path and the cause; and that of a full disk."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            ours = self.translate(error)
            if ours is error:
                raise
            raise ours from error

    def translate(self, error: BaseException) -> BaseException:
        """One of our errors for one of SQLite's, or for a full disk; any other as it is."""
        if isinstance(error, OSError) and error.errno in FULL:
            return StoreFull(f"there is no room to write to {self.name}")
        if not isinstance(error, sqlite3.Error):
            return error
        code: Any = getattr(error, "sqlite_errorcode", None) or 0
        cause = f"{self.name}: {error}"
        match code & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return StoreBusy(
                    f"{self.name} is locked: another program has been writing to it "
                    f"for more than {self.busy:g} s"
                )
            case sqlite3.SQLITE_FULL:
                return StoreFull(f"there is no room to write to {self.name}")
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return StoreDamaged(f"{cause}; it was left as it is")
            case sqlite3.SQLITE_READONLY if code == sqlite3.SQLITE_READONLY_DBMOVED:
                return StoreChanged(
                    f"{self.name} was moved or deleted while it was open: {START_AGAIN}"
                )
            case sqlite3.SQLITE_READONLY:
                return self._unavailable("it, or its directory, is read-only")
            case _:
                return StoreUnavailable(f"{self.name} cannot be used: {error}")

    def _unavailable(self, cause: str) -> StoreUnavailable:
        return StoreUnavailable(f"{self.name} cannot be used as a store: {cause}")


def _missing(found: int) -> tuple[int, int] | None:
    """How many bytes the open file has and should have by its own head, if it has too few."""
    head = os.pread(found, 100, 0)
    page = int.from_bytes(head[16:18], "big")
    whole = (65_536 if page == 1 else page) * int.from_bytes(head[28:32], "big")
    size = os.fstat(found).st_size  # after the head: somebody may be making the file now
    return (size, whole) if 0 < len(head) < 100 or size < whole else None


def _me() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def file_system(folder: Path) -> str | None:
    """The kind of file system that a folder is on, as the kernel names it; None if nobody tells."""
    try:
        lines = MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
        place = folder.resolve()
    except OSError:
        return None
    best, kind = -1, None
    for line in lines:
        about, _, rest = line.partition(" - ")
        mounted = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), about.split(" ")[4])
        # The last of several on one place is the one that is seen.
        if place.is_relative_to(mounted) and len(mounted) >= best:
            best, kind = len(mounted), rest.split(" ")[0]
    return kind
