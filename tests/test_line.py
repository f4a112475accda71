"""The line: jobs stand in it by priority, deeper ones first, and else as they came."""

from collections import deque
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncworkers._engine.line import RankedLine, rank


@dataclass(eq=False)
class Entry:
    """Something that waits in line."""

    rank: int
    since: float


def place(entry: Entry) -> tuple[int, float]:
    """Where an entry belongs."""
    return entry.rank, entry.since


class LineMachine(RuleBasedStateMachine):
    """Drives a line beside a list that is sorted after each deed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.ageing: float | None = None
        self.line = RankedLine((), place, lambda: self.now, None)
        self.model: list[Entry] = []

    @rule(rank=st.integers(-3, 3))
    def append(self, rank: int) -> None:
        """Somebody comes last among their equals."""
        entry = Entry(rank, self.now)
        self.line.append(entry)
        self.model.append(entry)
        self.model.sort(key=lambda each: -each.rank)  # stable: equals stay as they came

    @rule(rank=st.integers(-3, 3))
    def appendleft(self, rank: int) -> None:
        """Somebody who was at the head of their equals before comes back there."""
        entry = Entry(rank, self.now)
        self.line.appendleft(entry)
        self.model.insert(0, entry)
        self.model.sort(key=lambda each: -each.rank)

    @precondition(lambda self: self.model)
    @rule()
    def popleft(self) -> None:
        """The head goes."""
        assert self.line.popleft() is self.model.pop(0)

    @precondition(lambda self: not self.model)
    @rule()
    def popleft_of_nothing(self) -> None:
        """From an empty line nothing is taken; a plain deque says so in the same way."""
        with pytest.raises(IndexError):
            self.line.popleft()

    @invariant()
    def agrees(self) -> None:
        """Length and order are the model's."""
        assert len(self.line) == len(self.model)
        assert list(self.line) == self.model


LineMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=40)
TestLine = LineMachine.TestCase


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.floats(0, 10)), max_size=30),
    st.floats(0, 20),
    st.floats(0.1, 10),
)
def test_ageing(entries: list[tuple[int, float]], now: float, ageing: float) -> None:
    """Whoever has waited for `ageing` seconds goes first, the longest wait before the others;
    then the ranks count again. Each goes once.
    """
    came = sorted((Entry(rank, since) for rank, since in entries), key=lambda each: each.since)
    line = RankedLine(came, place, lambda: now, ageing)
    left = list(came)
    while left:
        taken = line.popleft()
        highest = max(each.rank for each in left)
        expected = next(each for each in left if each.rank == highest)
        heads = [next(e for e in left if e.rank == rank) for rank in {e.rank for e in left}]
        oldest = min(heads, key=lambda each: (each.since, each.rank))
        if oldest.since <= now - ageing and len(heads) > 1:
            expected = oldest
        assert taken is expected
        left.remove(taken)
    assert len(line) == 0


def test_starts_with_what_was_there() -> None:
    """A plain line that becomes a ranked one keeps its order among equals."""
    entries = [Entry(0, 1.0), Entry(0, 2.0), Entry(1, 3.0), Entry(0, 4.0)]
    line = RankedLine(deque(entries), place, lambda: 5.0, None)
    assert [each.since for each in line] == [3.0, 1.0, 2.0, 4.0]


@given(
    st.integers(-100, 100),
    st.integers(-100, 100),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 40),
)
def test_priority_comes_before_depth(one: int, other: int, shallow: int, deep: int) -> None:
    """No depth outweighs a priority; among equal priorities the deeper goes first."""
    if one != other:
        assert (rank(one, shallow) < rank(other, deep)) is (one < other)
    elif shallow <= deep:
        assert rank(one, shallow) <= rank(other, deep)


def test_depth_counts_one_by_one() -> None:
    """Every level of a fan-out of reasonable depth has a rank of its own."""
    numbers = [rank(0, depth) for depth in range(1_000)]
    assert numbers == sorted(set(numbers))
    assert next(count(rank(1, 0))) > numbers[-1]
