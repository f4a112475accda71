"""A line keeps waiting jobs in the order they are to run: by priority, deeper first, then as they came."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

__all__ = ["Line", "RankedLine", "rank"]

DEEPEST = 1 << 20


def rank(priority: int, depth: int) -> int:
    """One number for a job's place: priority decides, then how deep in a fan-out it was submitted.

    Children go before their parents' peers, so that a tree of jobs is worked off branch by
    branch and holds few jobs at a time, instead of level by level.
    """
    return priority * DEEPEST + min(depth, DEEPEST - 1)


class Line(Protocol):
    """What a queue needs of a line; a plain `deque` is one, for jobs that are all equal."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def append(self, entry: Any, /) -> None: ...
    def appendleft(self, entry: Any, /) -> None: ...
    def popleft(self) -> Any: ...


class RankedLine:
    """A line of several ranks: a `deque` each, the highest one first.

    With `ageing`, an entry that has waited that many seconds goes first whatever its rank, so
    that a steady stream of urgent jobs cannot keep the others waiting for ever.
    """

    def __init__(
        self,
        entries: Iterable[Any],
        place: Callable[[Any], tuple[int, float]],
        now: Callable[[], float],
        ageing: float | None,
    ) -> None:
        self._place = place
        self._now = now
        self._ageing = ageing
        self._ranks: list[int] = []  # of the deques that are not empty, ascending
        self._deques: dict[int, deque[Any]] = {}
        self._length = 0
        for entry in entries:
            self.append(entry)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        for rank in reversed(self._ranks):
            yield from self._deques[rank]

    def lines(self) -> Iterator[deque[Any]]:
        """The line of each rank."""
        return iter(self._deques.values())

    def append(self, entry: Any) -> None:
        self._deque_of(entry).append(entry)
        self._length += 1

    def appendleft(self, entry: Any) -> None:
        self._deque_of(entry).appendleft(entry)
        self._length += 1

    def popleft(self) -> Any:
        rank = self._ranks[-1]
        if self._ageing is not None and len(self._ranks) > 1:
            rank = self._aged_rank(rank, self._ageing)
        line = self._deques[rank]
        entry = line.popleft()
        if not line:
            del self._deques[rank]
            self._ranks.remove(rank)
        self._length -= 1
        return entry

    def _deque_of(self, entry: Any) -> deque[Any]:
        rank, _ = self._place(entry)
        line = self._deques.get(rank)
        if line is None:
            line = self._deques[rank] = deque()
            insort(self._ranks, rank)
        return line

    def _aged_rank(self, highest: int, ageing: float) -> int:
        overdue = self._now() - ageing
        waiting = [(self._place(self._deques[rank][0])[1], rank) for rank in self._ranks]
        since, rank = min(waiting)
        return rank if since <= overdue else highest
