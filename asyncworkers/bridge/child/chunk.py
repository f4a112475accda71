"""A chunk: several calls of one function that cross together, run one after the other, and come back as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import reduce
from time import monotonic_ns

from .raising import Interrupted
from .trouble import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

__all__ = ["CHUNKED", "UNREAD", "Chunk", "ChunkEnd", "unread"]

CHUNKED = 0
"""Stands before the definition of a function that is to be called for each item of a chunk."""

UNREAD = -1
"""Instead of how many items are done: none was called, because not all could be unpickled."""

ChunkEnd: TypeAlias = "tuple[list[Any], int, int, bytes | None]"
"""The values of the items up to the first that raised (or the one value they were reduced to), how
many items that were, nanoseconds, and what that one raised."""


class Chunk:
    """Calls the function for each item, each in the context as the chunk found it.

    With a `reducer` the values do not come back one by one, but reduced to one.
    """

    def __init__(
        self, function: Callable[[Any], Any], reducer: Callable[[Any, Any], Any] | None = None
    ) -> None:
        self.function = function
        self.reducer = reducer

    def __call__(self, items: Sequence[Any]) -> ChunkEnd:
        """The values of all items, or of those before the first that raises, and its error."""
        began = monotonic_ns()
        values: list[Any] = []
        untouched, trouble = copy_context(), None
        while len(values) < len(items) and trouble is None:
            trouble = untouched.copy().run(self._run, items, values, bool(untouched))
        done = len(values)
        if self.reducer is not None and done:
            try:
                values = [reduce(self.reducer, values)]
            except Interrupted:
                raise
            except BaseException as error:
                values, done, trouble = [], 0, describe(error)
        return values, done, monotonic_ns() - began, trouble

    def shortened(self, end: ChunkEnd, trouble_with: Callable[[Any], bytes | None]) -> ChunkEnd:
        """As much of an end as can be pickled: up to the first value with which there is trouble."""
        values, done, nanoseconds, trouble = end
        for at, value in enumerate(values):
            found = trouble_with(value)
            if found is not None:
                return values[:at], at, nanoseconds, found
        return values, done, nanoseconds, trouble

    def _run(self, items: Sequence[Any], values: list[Any], variables: bool) -> bytes | None:
        """Go on until one raises, all are done, or one has left a context variable behind; where some
        came along, it may have changed one: so after each.
        """
        function, append = self.function, values.append
        for at in range(len(values), len(items)):
            try:
                append(function(items[at]))
            except Interrupted:  # that is meant for all of them
                raise
            except BaseException as error:
                return describe(error)
            if variables or len(copy_context()):
                break
        return None


def unread(error: BaseException) -> ChunkEnd:
    """The end of a chunk whose items could not be unpickled."""
    return [], UNREAD, 0, describe(error)
