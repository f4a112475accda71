"""A chunk: several calls of one function that cross together, run one after the other, and come back as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from time import monotonic_ns
from typing import Any, TypeAlias

from .trouble import describe

__all__ = ["CHUNKED", "Chunk", "ChunkEnd"]

CHUNKED = 0
"""Stands before the definition of a function that is to be called for each item of a chunk."""

ChunkEnd: TypeAlias = tuple[list[Any], int, bytes | None]
"""The values of the items up to the first that raised, nanoseconds, and what that one raised."""


class Chunk:
    """Calls the function for each item, each in the context as the chunk found it."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, items: Sequence[Any]) -> ChunkEnd:
        """The values of all items, or of those before the first that raises, and its error."""
        began = monotonic_ns()
        values: list[Any] = []
        untouched, trouble = copy_context(), None
        while len(values) < len(items) and trouble is None:
            trouble = untouched.copy().run(self._run, items, values, len(untouched))
        return values, monotonic_ns() - began, trouble

    def _run(self, items: Sequence[Any], values: list[Any], variables: int) -> bytes | None:
        """Go on until one raises, all are done, or one has left a context variable behind."""
        function, append = self.function, values.append
        for at in range(len(values), len(items)):
            try:
                append(function(items[at]))
            except (Exception, SystemExit, KeyboardInterrupt) as error:
                return describe(error)
            if len(copy_context()) != variables:
                break
        return None

