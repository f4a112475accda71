"""Lists what a process holds: threads, children, open files and shared memory."""

from __future__ import annotations

import asyncio
import os
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Resources"]

PROC = Path("/proc/self")
SHM = Path("/dev/shm")  # noqa: S108  # where Linux keeps shared memory, nothing of ours is put there
_SHARED = re.compile(r"(?P<file>\d+) +(?P<name>(?:/dev/shm/|/memfd:).*)")


@dataclass(frozen=True, slots=True)
class Resources:
    """What the process holds at a moment, each thing with its description.

    Left out is what belongs to the interpreter and stays on purpose: the tracker and the fork
    server of `multiprocessing`, and the default executor of the running event loop.
    """

    threads: dict[threading.Thread, str]
    children: dict[int, str]
    files: dict[tuple[int, str], str]
    memory: dict[str, str]

    @classmethod
    def now(cls) -> Resources:
        """What there is at present."""
        return cls(_threads(), _children(), _files(), _memory())

    @classmethod
    def nothing(cls) -> Resources:
        """Nothing at all."""
        return cls({}, {}, {}, {})

    def beyond(self, before: Resources) -> Resources:
        """What is here and was not there before."""
        memory = {name: text for name, text in self.memory.items() if name not in before.memory}
        if memory:
            for name in _used_elsewhere():
                memory.pop(name, None)
        return Resources(
            {each: text for each, text in self.threads.items() if each not in before.threads},
            {each: text for each, text in self.children.items() if each not in before.children},
            {each: text for each, text in self.files.items() if each not in before.files},
            memory,
        )

    def descriptions(self) -> Iterator[str]:
        """One line for each thing."""
        for things in (self.threads, self.children, self.files, self.memory):
            yield from things.values()

    def wait(self, seconds: float) -> bool:
        """Wait for one of the threads or children to end, or for whoever removes shared memory in
        the name of a process that was killed; False if there is nothing to wait for.
        """
        for thread in self.threads:
            thread.join(seconds)
            return True
        for child in self.children:
            if not _is_zombie(child):
                return _wait_for_child(child, seconds)
        if any(Path(name).exists() for name in self.memory):
            time.sleep(seconds)
            return True
        return False


def _threads() -> dict[threading.Thread, str]:
    executors = set[threading.Thread]()
    with suppress(RuntimeError):
        executor = getattr(asyncio.get_running_loop(), "_default_executor", None)
        executors = set(getattr(executor, "_threads", ()))
    return {
        thread: f"thread {thread.name!r}" + (" (daemon)" if thread.daemon else "")
        for thread in threading.enumerate()
        if thread is not threading.current_thread()
        and thread not in executors
        and not isinstance(thread, threading._DummyThread)  # made by somebody else than Python
    }


def _children() -> dict[int, str]:
    pids: list[int] = []
    if PROC.exists():
        for task in (PROC / "task").iterdir():
            with suppress(OSError):  # that thread has just ended
                pids.extend(map(int, (task / "children").read_text().split()))
    elif "multiprocessing" in sys.modules:
        active = sys.modules["multiprocessing"].active_children()
        pids.extend(child.pid for child in active)
    kept = (
        _attribute("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
        _attribute("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    )
    return {pid: f"child {pid} ({_command(pid)})" for pid in sorted(pids) if pid not in kept}


def _attribute(module: str, owner: str, name: str) -> object:
    """What a module that may not be loaded keeps in one of its objects."""
    return getattr(getattr(sys.modules.get(module), owner, None), name, None)


def _command(pid: int) -> str:
    try:
        if _is_zombie(pid):
            return f"zombie of {Path(f'/proc/{pid}/comm').read_text().strip()}"
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()[:100]
    except OSError:
        return "unknown"


def _is_zombie(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


def _wait_for_child(pid: int, seconds: float) -> bool:
    if not hasattr(os, "pidfd_open"):
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # it has ended meanwhile
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(seconds * 1000)
    finally:
        os.close(descriptor)
    return True


def _files() -> dict[tuple[int, str], str]:
    if not PROC.exists():
        return {}
    kept = (
        _attribute("multiprocessing.resource_tracker", "_resource_tracker", "_fd"),
        _attribute("multiprocessing.forkserver", "_forkserver", "_forkserver_alive_fd"),
    )
    found: dict[tuple[int, str], str] = {}
    for name in os.listdir(PROC / "fd"):  # noqa: PTH208  # names only, and as fast as can be
        number = int(name)
        with suppress(OSError):  # the descriptor by which the directory was just read
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
            if number not in kept:
                found[number, target] = f"file {number}: {target}{_address(number, target)}"
    return found


def _address(descriptor: int, target: str) -> str:
    """The address of a socket, if it has one."""
    if not target.startswith("socket:"):
        return ""
    with suppress(OSError):
        found = socket.socket(fileno=descriptor)
        try:
            return f" at {found.getsockname()}"
        finally:
            found.detach()
    return ""


def _memory() -> dict[str, str]:
    found: dict[str, str] = {}
    with suppress(FileNotFoundError), os.scandir(SHM) as entries:
        for entry in entries:  # other programs may have left thousands: this asks nothing of each
            if entry.name.startswith("sem.mp-") and "_multiprocessing" not in sys.modules:
                continue  # a semaphore of some other program's multiprocessing
            if entry.is_file():  # a directory there is somebody's use of it as a fast disk
                found[entry.path] = f"shared memory {entry.path}"
    if PROC.exists():
        for name, file in _mapped((PROC / "maps").read_text()):
            if name.startswith("/dev/shm/"):  # noqa: S108
                found.setdefault(name, f"shared memory {name}")
                found[f"{name} mapped"] = f"shared memory {name}, still mapped"
            else:  # any number of files may go by this name, of other programs too
                found[f"{name} {file}"] = f"shared memory {name}"
    return found


def _mapped(maps: str) -> set[tuple[str, int]]:
    """The shared memory among the lines of a `maps`, each with the number of its file."""
    if "/dev/shm/" not in maps and "/memfd:" not in maps:  # noqa: S108  # as nearly always
        return set()
    return {
        (match["name"].removesuffix(" (deleted)"), int(match["file"]))
        for match in _SHARED.finditer(maps)
    }


def _used_elsewhere() -> set[str]:
    """Shared memory in /dev/shm that another process has mapped: it made it, or will remove it.

    A semaphore is mapped under a name that it had only while it was made, so that only the number
    of the file tells which one it is.
    """
    names: set[str] = set()
    files: set[int] = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with suppress(OSError):  # another user's, or ended
                for name, file in _mapped((process / "maps").read_text()):
                    if name.startswith(str(SHM)):
                        names.add(name)
                        files.add(file)
    for path in SHM.iterdir():
        with suppress(OSError):  # it has just been removed
            if path.stat().st_ino in files:
                names.add(str(path))
    return names
