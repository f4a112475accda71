"""Say in one line what a task is and where it waits, for the reports of the testing tools."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable
from types import FrameType
from typing import Any

__all__ = ["describe", "describe_all", "in_order"]

_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep  # noqa: PTH120
_DIGITS = re.compile(r"(\d+)")


def describe(task: asyncio.Task[Any]) -> str:
    """The task's name, its coroutine, and the file, line and function it waits in."""
    coroutine = task.get_coro()
    name = getattr(coroutine, "__qualname__", type(coroutine).__name__)
    return f"{task.get_name()} ({name}){_place(coroutine)}"


def describe_all(tasks: Iterable[asyncio.Task[Any]]) -> tuple[str, ...]:
    """Every task in one line each, in an order that is the same in every run."""
    return tuple(describe(task) for task in in_order(tasks))


def in_order(tasks: Iterable[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Sort tasks by name, numbers in names by value: default names then sort by creation."""
    return sorted(tasks, key=lambda task: _natural(task.get_name()))


def _natural(name: str) -> list[tuple[bool, int, str]]:
    parts = _DIGITS.split(name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _place(coroutine: Any) -> str:
    """Where the innermost code of a chain of awaits stands, asyncio's own code left aside."""
    innermost = None
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None and not (innermost and _is_asyncio(frame)):
            innermost = frame
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    if innermost is None:
        return ""
    code = innermost.f_code
    return f" at {code.co_filename}:{innermost.f_lineno} in {code.co_name}"


def _is_asyncio(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_ASYNCIO)
