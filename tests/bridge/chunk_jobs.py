"""Functions for the tests of chunks, in a module that a child can import."""

import asyncio
import os
import sys
import time
from contextvars import ContextVar
from typing import Any

number: ContextVar[int] = ContextVar("number", default=0)


class Twelve(Exception):
    """An error whose class takes two arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one}, {two}")


def double(value: int) -> int:
    """Quick, so that many make a chunk."""
    return value * 2


def double_but_not(value: int) -> int:
    """Fails for one item in the middle."""
    if value == 777:
        raise ValueError(value)
    return value * 2


def odd_error(value: int) -> int:
    """Fails with what cannot be made anew."""
    if value == 500:
        raise Twelve(1, 2)
    return value


def exits(value: int) -> int:
    """Wants to end its process."""
    if value == 300:
        raise SystemExit(3)
    return value


def cancels(value: int) -> int:
    """Raises what only a cancelled task should."""
    if value == 300:
        raise asyncio.CancelledError
    return value


def closes(value: int) -> int:
    """Raises what only a closed generator should."""
    if value == 300:
        raise GeneratorExit
    return value


def dies(value: int) -> int:
    """Ends its process, in the middle of a chunk."""
    if value == 400:
        os._exit(7)
    return value


def leaves_context(value: int) -> int:
    """Sees what the item before it may have left behind."""
    seen = number.get()
    number.set(value + 1)
    return seen


def slow(value: int) -> tuple[int, int]:
    """Takes longer than a chunk should."""
    time.sleep(0.01)  # what counts is that it takes long, not when it ends
    return value, os.getpid()


def text(value: int) -> str:
    """Something whose joining is associative and not commutative."""
    return f"{value},"


def join(one: str, other: str) -> str:
    """Joins two texts."""
    return one + other


def trips(one: str, other: str) -> str:
    """A reducer that fails."""
    raise ZeroDivisionError(one + other)


class OnlyThere:
    """Can be unpickled in the parent, which has asyncworkers, but in no child."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return _unless_in_a_child, (self.value,)


def _unless_in_a_child(value: int) -> int:
    if "asyncworkers" not in sys.modules:
        raise OSError(f"not here: {value}")
    return value


def double_but_one(value: int) -> Any:
    """One of its values cannot be pickled."""
    return (each for each in ()) if value == 777 else value * 2


calls: list[int] = []


def count_calls(value: int) -> tuple[int, int]:
    """How often this process has called it with this value."""
    calls.append(value)
    return value, calls.count(value)
