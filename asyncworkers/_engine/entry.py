"""An entry of a line is a job, or the supply of a stream: which of them waits, and where it belongs."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from asyncworkers._engine.line import rank
from asyncworkers.job import QUEUED, Job

__all__ = ["Supply", "place", "waits"]


class Supply(Protocol):
    """What stands in line for a stream: it makes jobs of the stream's items when workers ask."""

    @property
    def items(self) -> deque[Any]: ...
    @property
    def uncounted(self) -> int: ...
    @property
    def crossing(self) -> int: ...
    def refill(self) -> bool: ...
    def place(self) -> tuple[int, float]: ...


def place(entry: Any) -> tuple[int, float]:
    """Where an entry belongs in a ranked line, and since when it waits."""
    if entry.__class__ is Job:
        due = 0.0 if entry._rare is None else entry._rare.due
        return rank(entry._order.policies.priority, entry._depth()), max(entry._created, due)
    rank_and_since: tuple[int, float] = entry.place()
    return rank_and_since


def waits(entry: Any) -> bool:
    """Whether this entry of a line is a job that is to run."""
    return entry.__class__ is Job and entry._state == QUEUED
