"""What the process pools are asked to run: plain functions that every library can send by name."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

MEGABYTE = 1_000_000
PAGE = 512
"""Doubles in a page of memory."""

LONG = 60.0
"""Seconds after which a job that should have been stopped ends by itself."""

_held: dict[int, Any] = {}


def tiny(number: int) -> int:
    return number


def burn(seconds: float) -> float:
    """Use so much CPU: time in which the process had to wait for a core does not count."""
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        pass
    return seconds


def array_of(megabytes: int) -> Any:
    """An array of doubles of that size."""
    return import_module("numpy").ones(megabytes * MEGABYTE // 8)


def seen(array: Any) -> tuple[float, float]:
    """The first number of an array, and the sum of one number of each of its pages."""
    return float(array[0]), float(array[::PAGE].sum())


def held(megabytes: int, stamp: float) -> Any:
    """An array that this process keeps from one call to the next, stamped with a number."""
    if megabytes not in _held:
        _held[megabytes] = array_of(megabytes)
    if megabytes:
        _held[megabytes][0] = stamp
    return _held[megabytes]


def made(megabytes: int) -> None:
    """Make that array now."""
    held(megabytes, 0.0)
    time.sleep(0.01)  # so that the other child gets the next of these


def blob(size: int) -> bytearray:
    """So many bytes, the last of which is a one."""
    data = bytearray(size)
    data[-1] = 1
    return data


def note(folder: str, name: str) -> None:
    """Leave word in a file that this process runs a job of that name."""
    with (Path(folder) / name).open("a") as file:
        file.write(f"{os.getpid()}\n")


def noted(folder: str, name: str) -> int:
    """Leave word and be done."""
    note(folder, name)
    return 1


def wait_for(folder: str, name: str) -> int:
    """Leave word under `name`, then wait until the file `name`-go exists."""
    note(folder, name)
    ends = time.monotonic() + LONG
    while not (Path(folder) / f"{name}-go").exists() and time.monotonic() < ends:
        time.sleep(0.005)
    return 1


def crash(folder: str, name: str, how: str) -> NoReturn:
    """Wait for the word, then end this process as no job should."""
    wait_for(folder, name)
    if how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        ctypes.string_at(0)
    os._exit(0)


def spin(folder: str, name: str) -> None:
    """Burn CPU in Python code; leave word if `finally` is run before the job's own end."""
    ends = time.monotonic() + LONG
    try:
        note(folder, name)
        while time.monotonic() < ends:
            pass
    finally:
        if time.monotonic() < ends:
            note(folder, f"{name}-finally")


def spin_in_c(folder: str, name: str) -> int:
    """Burn CPU in a single call that never comes back to Python code."""
    note(folder, name)
    return sum(itertools.repeat(1, 20_000_000_000))


class OddError(Exception):
    """Cannot be made again from its `args`, which is how pickle does it."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{reason} at {place}")


def fail_oddly() -> NoReturn:
    raise OddError("here", "odd")


def unpicklable() -> Any:
    return lambda: None


async def in_coroutine(function: Any, *args: Any) -> Any:
    """For the library that runs nothing but coroutine functions."""
    return function(*args)
