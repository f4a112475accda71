"""The free room of a stretch of memory: taken where it first fits, given back, never in pieces.

Offsets and sizes only; the memory itself is the caller's business.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

__all__ = ["Space"]


class Space:
    """Knows which parts of `size` bytes are free."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, size: int) -> None:
        # Free range number i is [_starts[i], _ends[i]): in order, and never two that touch.
        self._starts = [0]
        self._ends = [size]

    @property
    def free(self) -> int:
        """How many bytes are free, in one piece or in many."""
        return sum(self._ends) - sum(self._starts)

    def holes(self) -> Iterator[tuple[int, int]]:
        """The start and the end of each free range, in order."""
        return zip(tuple(self._starts), tuple(self._ends), strict=True)

    def take(self, size: int, alignment: int) -> int | None:
        """Take the first free `size` bytes that start at a multiple of `alignment`; None if there are none.

        First fit keeps to low offsets, where the memory has been used before and is warm.
        """
        for i, (start, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            at = -(-start // alignment) * alignment
            if at + size <= end:
                left = [(start, at), (at + size, end)]
                self._put(i, i + 1, [(a, b) for a, b in left if a < b])
                return at
        return None

    def give(self, at: int, size: int) -> None:
        """Take back `size` bytes at `at`; they join the free ranges that they touch."""
        end = at + size
        i = bisect_left(self._starts, at)
        first, last = i, i
        if i > 0 and self._ends[i - 1] == at:
            first, at = i - 1, self._starts[i - 1]
        if i < len(self._starts) and self._starts[i] == end:
            last, end = i + 1, self._ends[i]
        self._put(first, last, [(at, end)])

    def _put(self, first: int, last: int, ranges: list[tuple[int, int]]) -> None:
        """Let `ranges` stand where numbers `first` to `last` stood."""
        self._starts[first:last] = [start for start, _ in ranges]
        self._ends[first:last] = [end for _, end in ranges]
