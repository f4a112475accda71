"""Jobs of the stored queue's tests, also run by their child processes; what they do goes in a diary."""

import asyncio
import os
import signal
import time
from pathlib import Path

from asyncworkers import Retry, Unique, current_job, job


def note(diary: str, text: str) -> None:
    """Append a line, whole."""
    file = os.open(diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{text}\n".encode())
    os.close(file)


def notes(diary: Path) -> list[str]:
    """Read the lines."""
    return diary.read_text().splitlines() if diary.exists() else []


@job
async def double(number: int) -> int:
    """Work on the loop."""
    return 2 * number


@job
def thread_double(number: int) -> int:
    """Work in a thread."""
    return 2 * number


@job(cpu=True)
def cpu_double(number: int) -> int:
    """Work in a process."""
    return 2 * number


@job
async def who() -> tuple[str, int, str]:
    """Say what the job knows of itself."""
    this = current_job()
    return this.id, this.attempt, this.name


@job(retry=Retry(3, on=ValueError, delay=0.01, jitter=False))
async def third_time(diary: str) -> int:
    """Fail twice."""
    note(diary, f"attempt {current_job().attempt}")
    if current_job().attempt < 3:
        raise ValueError("not yet")
    return current_job().attempt


@job
async def fail(kind: str) -> None:
    """Raise."""
    if kind == "own":
        raise OwnError("mine")
    raise KeyError(kind)


class OwnError(Exception):
    """An error that no store rebuilds."""


@job
async def hold(diary: str) -> str:
    """Say that it began, and never end by itself."""
    note(diary, f"began {current_job().id} {current_job().attempt} {os.getpid()}")
    try:
        await asyncio.sleep(3_600)
    except asyncio.CancelledError:
        note(diary, "cancelled")
        raise
    return "never"


@job(cpu=True)
def cpu_hold(diary: str) -> str:
    """Say that it began, and never end by itself."""
    note(diary, f"began {current_job().id} {current_job().attempt} {os.getpid()}")
    time.sleep(3_600)
    return "never"


@job
def thread_hold(diary: str) -> str:
    """Say that it began, and end when it is asked to."""
    note(diary, f"began {current_job().id} {current_job().attempt} {os.getpid()}")
    current_job().cancelled.wait()
    return "stopped"


@job
async def once_held(diary: str) -> str:
    """As `hold` the first time; there is no second."""
    current_job().report(1, 2, "half")
    note(diary, f"began {current_job().id} {current_job().attempt}")
    if current_job().attempt == 1:
        await asyncio.sleep(3_600)
    return f"attempt {current_job().attempt}"


@job
async def cling(diary: str) -> str:
    """Block the loop, the first time, when it is to end."""
    note(diary, f"began {current_job().id} {current_job().attempt}")
    if current_job().attempt == 1:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            note(diary, "clings")
            time.sleep(3_600)
    return f"attempt {current_job().attempt}"


@job
async def poison(diary: str) -> None:
    """Kill the process, whichever it is."""
    note(diary, f"poisoned {current_job().attempt}")
    os.kill(os.getpid(), signal.SIGKILL)


@job(once=True)
async def at_most_once(diary: str) -> str:
    """Begin, and never end by itself."""
    note(diary, "began")
    await asyncio.sleep(3_600)
    return "never"


@job
async def block(seconds: float) -> float:
    """Block the loop."""
    time.sleep(seconds)
    return seconds


@job(unique=Unique(lambda key: key))
async def keyed(key: str) -> str:
    """One per key."""
    return key


@job(unique=Unique("only", on_duplicate="reject"), delay=3_600)
async def rejecting() -> None:
    """Only one, and later."""


@job
async def parent(number: int) -> int:
    """Await another stored job; its supervisor is known to the test."""
    supervisor = SUPERVISORS[0]
    return await supervisor.call(double, number) + 1


@job
async def surprise() -> object:
    """Return what cannot be stored."""
    return object()


SUPERVISORS: list = []

ALL = [
    double,
    thread_double,
    cpu_double,
    who,
    third_time,
    fail,
    hold,
    cling,
    poison,
    once_held,
    at_most_once,
    block,
    keyed,
    rejecting,
    parent,
    surprise,
]


def ready_second(folder: str) -> None:
    """The first process that calls this goes on at once; others when there is a file `gate`."""
    try:
        os.close(os.open(f"{folder}/first", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        while not Path(folder, "gate").exists():
            time.sleep(0.005)
