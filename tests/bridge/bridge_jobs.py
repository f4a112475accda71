"""Jobs for child processes: a light module, because each child imports it."""

import os
import sys
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from amid import at_each_line_of_a_record

tenant: ContextVar[Any] = ContextVar("tenant", default="nobody")
unset: ContextVar[str] = ContextVar("unset")


def echo(value: Any) -> Any:
    return value


def double(number: int) -> int:
    return 2 * number


def add(one: int, *, two: int = 0) -> int:
    return one + two


def whoami(*_: Any) -> int:
    return os.getpid()


def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def which_tenant() -> Any:
    return tenant.get()


def set_tenant(value: str) -> Any:
    before = tenant.get()
    tenant.set(value)
    return before, unset.get("unset")


def wait_for_file(started: str, awaited: str) -> int:
    Path(started).write_text("here")
    while not Path(awaited).exists():
        time.sleep(0.001)
    return os.getpid()


def who() -> dict[str, Any]:
    from asyncworkers import current_job

    current = current_job()
    return {
        "id": current.id,
        "name": current.name,
        "queue": current.queue,
        "attempt": current.attempt,
        "attempts": current.attempts,
        "tags": current.tags,
    }


def fail_once(file: str) -> int:
    from asyncworkers import current_job

    if not Path(file).exists():
        Path(file).touch()
        raise OSError("the first time")
    return current_job().attempt


def report_and_wait(awaited: str) -> None:
    from asyncworkers import current_job

    current_job().report(1, 4, "a quarter")
    while not Path(awaited).exists():
        time.sleep(0.001)


def report_from_threads(count: int) -> int:
    import threading

    from asyncworkers import current_job

    current = current_job()

    def report(number: int) -> None:
        for step in range(count):
            current.report(step, count, "x" * number * 50)

    threads = [threading.Thread(target=report, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count


def ask_while_interrupted(file: str) -> None:
    """Ask who it is, with a pipe that gives five bytes at first, and be interrupted as they are there."""
    import signal

    from asyncworkers import current_job

    read, heard = os.readv, signal.getsignal(signal.SIGUSR1)
    signals: list[int] = []

    def read_a_little(descriptor: int, buffers: Any) -> int:
        count = read(descriptor, [buffers[0][:5]])
        os.readv = read
        Path(file).write_text("five bytes were read")
        while not signals:
            time.sleep(0.001)
        return count

    def hear(number: int, frame: Any) -> None:
        signals.append(number)
        signal.signal(signal.SIGUSR1, heard)
        heard(number, frame)  # type: ignore[operator]

    signal.signal(signal.SIGUSR1, hear)
    os.readv = read_a_little
    current_job().id  # noqa: B018
    Path(file).with_suffix(".answered").touch()


def report_within_reports(count: int) -> int:
    """Report, and report from within each line that writes that to what is shared with the parent, as a
    signal handler might; how often that was.
    """
    from asyncworkers import current_job

    current = current_job()
    with at_each_line_of_a_record(lambda at: current.report(at, message="inside")) as inside:
        for number in range(count):
            current.report(number, message="outside")
    return len(inside)


def ask_within_a_report() -> str:
    """Ask who it is in the middle of a report, as a signal handler might; what that raises."""
    from asyncworkers import current_job

    current = current_job()
    said: set[str] = set()

    def ask(_: int) -> None:
        try:
            current.id  # noqa: B018
        except RuntimeError as error:
            said.add(str(error))

    with at_each_line_of_a_record(ask):
        current.report(1)
    (one,) = said
    return one


class Raises:
    """Cannot be pickled, because that raises something of this class."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __reduce__(self) -> Any:
        raise self.kind("in the middle of pickling")


def raise_while_pickled(kind: type[BaseException]) -> Any:
    return Raises(kind)


def large_text_in_little_memory(length: int) -> str:
    """A text of which there cannot be a second one."""
    import resource

    text = "x" * length
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (used + length // 2, most))
    return text


def poll(file: str) -> None:
    """Wait in a way that no interrupt ends, but the token does."""
    import signal

    from asyncworkers import current_job

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    token = current_job().cancelled
    assert not token
    assert token.reason is None
    assert not token.wait(0.001)
    Path(file).write_text("waiting")
    token.wait()
    Path(file).with_suffix(".polled").write_text(str(token.reason))


def modules() -> list[str]:
    return sorted(sys.modules)


def surroundings() -> tuple[list[str], list[str], str, bool]:
    return sys.path, sys.argv, str(Path.cwd()), sys.flags.dev_mode


def retry_later(seconds: float) -> None:
    from asyncworkers import RetryLater

    raise RetryLater(seconds, "come back")


class Adder:
    """A callable whose state changes."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, other: int) -> int:
        return self.number + other

    def method(self, other: int) -> int:
        return self.number * other


def large(length: int) -> bytes:
    return b"x" * length


def memory(*_: Any) -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Unspeakable(Exception):
    """An error that cannot even be told."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Stubborn:
    """Cannot be pickled, and why cannot be told."""

    def __reduce__(self) -> Any:
        raise Unspeakable


def stubborn(_: Any) -> Stubborn:
    return Stubborn()


class Unreadable:
    """Can be pickled but not unpickled, and why cannot be told."""

    def __reduce__(self) -> Any:
        return raise_unspeakable, ()


def raise_unspeakable() -> None:
    raise Unspeakable


def unreadable() -> Unreadable:
    return Unreadable()


def interrupt_a_program() -> int:
    """Start a Python program that waits for Ctrl-C, and give it that; its exit code."""
    import signal
    import subprocess

    code = "import sys, time\ntry: print('waiting', flush=True); time.sleep(60)\n"
    code += "except KeyboardInterrupt: sys.exit(3)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.send_signal(signal.SIGINT)
        return program.wait()
