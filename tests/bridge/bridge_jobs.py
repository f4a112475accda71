"""Jobs for child processes: a light module, because each child imports it."""

import os
import sys
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

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
