"""One process of several on this machine: the one that does what only one should do."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from asyncworkers import _checks

__all__ = ["first_on_host"]

_held: dict[tuple[int, Path], object] = {}
"""What this very process holds: the kernel's locks do not tell a process from itself, and closing a
second descriptor of a locked file would let go of the lock."""


@contextmanager
def first_on_host(name: str, directory: str | os.PathLike[str] | None = None) -> Generator[bool]:
    """Yield whether this process is the first on this machine to come here.

        with first_on_host("shop-warm-up") as first:
            if first: await supervisor.submit(warm_up)
            yield  # as long as the application lives

    A server with several worker processes starts the application in each of them. What is to be
    done once is done by the one that gets True. The others get False until that one leaves the
    block or its process ends, however it ends. They are not told of that: whoever comes next is
    the first then. So stay in the block as long as the application lives, or a worker that starts
    later does it again.

    - `name`: what is to be done, and of which application: lower-case letters, digits and `_.-`.
    - `directory`: where the file with the lock lies; it must belong to this user alone, and nobody
      may clean it up. None means `asyncworkers-<user>` among the temporary files. Processes that
      see different directories, those of two containers say, count as on two machines.

    Raises TypeError or ValueError for another name, OSError if the directory cannot be used, and
    RuntimeError on Windows, whose locks are different.
    """
    _checks.queue_name("name", name)
    if os.name != "posix":
        raise RuntimeError("first_on_host() needs the file locks of POSIX")
    path = _private(directory) / f"{name}.lock"
    key, token = (os.getpid(), path.resolve()), object()
    if _held.setdefault(key, token) is not token:
        yield False
        return
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            yield _lock(file)
        finally:
            os.close(file)  # this lets go of the lock
    finally:
        _held.pop(key, None)


def _lock(file: int) -> bool:
    import fcntl

    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows for both
        return False
    return True


def _private(given: str | os.PathLike[str] | None) -> Path:
    """The directory, made if need be; never one in which others could have put a file of ours."""
    if given is None:
        import tempfile

        directory = Path(tempfile.gettempdir()) / f"asyncworkers-{os.getuid()}"
    else:
        directory = Path(given)
    directory.mkdir(0o700, exist_ok=True)
    about = directory.lstat() if given is None else directory.stat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise PermissionError(
            f"{directory} must be a directory of this user, which nobody else may write to"
        )
    return directory
