"""Jobs for child processes: a light module, because each child imports it."""

import ctypes
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class TwoArguments(Exception):
    """An error that cannot be made anew from its `args`."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


class Hostile(Exception):
    """An error that can be pickled but not unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ()


def _refuse() -> None:
    raise OSError("no")


def echo(value: Any) -> Any:
    return value


def whoami(*_: Any) -> int:
    return os.getpid()


def kill_myself(number: int, *_: Any) -> None:
    os.kill(os.getpid(), number)


def segfault(*_: Any) -> None:
    ctypes.string_at(0)


def leave(code: int, *_: Any) -> None:
    os._exit(code)


def abort(*_: Any) -> None:
    os.abort()


def speak_and_die(*_: Any) -> None:
    os.write(2, b"the last thing it said\n")
    os.kill(os.getpid(), signal.SIGKILL)


def exit_politely(*_: Any) -> None:
    sys.exit(3)


def interrupt_keyboard(*_: Any) -> None:
    raise KeyboardInterrupt


def raise_two(*_: Any) -> None:
    raise TwoArguments("one", "two")


def raise_hostile(*_: Any) -> None:
    raise Hostile


def raise_value_error(text: str) -> None:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError(text) from error


def wait_for_file(started: str, awaited: str, *_: Any) -> str:
    """Say that it runs by making a file, and wait until there is another."""
    Path(started).write_text(str(os.getpid()))
    while not Path(awaited).exists():
        time.sleep(0.001)
    return "done"


def run_on(started: str, *_: Any) -> None:
    """Run for ever; what it does when interrupted can be seen in a file."""
    path = Path(started)
    try:
        path.write_text(str(os.getpid()))
        time.sleep(600)
    finally:
        path.with_suffix(".unwound").write_text("yes")


def run_on_deaf(started: str, *_: Any) -> None:
    """Run for ever, and hear no signal that can be ignored."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    Path(started).write_text(str(os.getpid()))
    time.sleep(600)


def run_on_in_c(started: str, *_: Any) -> None:
    """Never let go of the interpreter and look at no signal, as a C extension may."""
    Path(started).write_text(str(os.getpid()))
    all(itertools.repeat(True))


def run_on_in_c_without_files(started: str, *_: Any) -> None:
    """The same in a process that closes what it has not opened, as a daemon does."""
    os.closerange(3, 100)
    run_on_in_c(started)


def send_garbage(*_: Any) -> None:
    serving = sys.modules["asyncworkers_child.serve"].serving
    serving.write(b"this is no frame, " * 10)
    time.sleep(60)


def send_half_a_frame(*_: Any) -> None:
    serving = sys.modules["asyncworkers_child.serve"].serving
    wire = sys.modules["asyncworkers_child.wire"]
    serving.write(wire.frame(wire.RESULT, b"x" * 1000)[:500])
    os._exit(0)


def spoil_the_ring(*_: Any) -> None:
    serving = sys.modules["asyncworkers_child.serve"].serving
    serving.words[0] = 2**60
    serving._wake()
    time.sleep(60)


def misbehave(folder: str, *_: Any) -> str:
    """What a job may do to its process without anybody else noticing."""
    print("a line on standard output")
    sys.stdout.flush()
    os.write(2, b"a line on standard error\n")
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    os.chdir(folder)
    return "all well"


def start_grandchild(file: str, *_: Any) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    grandchild = subprocess.Popen([sys.executable, "-c", code])
    path = Path(file)
    part = path.with_suffix(".part")
    part.write_text(str(grandchild.pid))
    part.rename(path)
    time.sleep(600)


def fork_and_die(file: str, *_: Any) -> None:
    """Leave a copy of the process behind that holds all its files, and die."""
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
    Path(file).write_text(str(pid))
    os.kill(os.getpid(), signal.SIGKILL)


def count_in(file: str, *_: Any) -> int:
    """Add a byte to a file, which is seen from everywhere."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, b".")
    finally:
        os.close(descriptor)
    return os.getpid()


def make_bytes(length: int) -> bytes:
    return bytes(length)


def length_of(data: Any) -> int:
    return len(data)


def memory(*_: Any) -> int:
    """Resident memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def exhaust_memory(*_: Any) -> None:
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
    bytearray(1 << 30)


def read_text(file: str) -> str:
    """Read a file as this process sees it."""
    return Path(file).read_text()


def append(file: str, text: str) -> str:
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)
    return text


kept: list[bytes] = []


def leak(size: int, *_: Any) -> int:
    """Keep so much memory for good."""
    kept.append(b"x" * size)
    return os.getpid()


def swell(size: int, *_: Any) -> int:
    """Use so much memory for the time of the job."""
    data = b"x" * size
    del data
    return os.getpid()


def fail_while(file: str, marker: str) -> None:
    """An initializer that raises as long as there is a file."""
    append(file, str(os.getpid()))
    if Path(marker).exists():
        raise ValueError("not yet")
