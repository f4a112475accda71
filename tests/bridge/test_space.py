"""The free room of an arena against a model that remembers each byte taken."""

from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from asyncworkers.bridge.child.space import Space

SIZE = 4096


class SpaceModel(RuleBasedStateMachine):
    """Takes and gives back in any order, and always knows what must be free."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.space = Space(SIZE)
        self.used = bytearray(SIZE)

    def fits(self, at: int, size: int) -> bool:
        return at + size <= SIZE and not any(self.used[at : at + size])

    @rule(target=taken, size=st.integers(1, SIZE), alignment=st.sampled_from([1, 64, 1024]))
    def take(self, size: int, alignment: int):
        """What is taken is aligned, was free, and is the first place where it fits."""
        at = self.space.take(size, alignment)
        first = next((a for a in range(0, SIZE, alignment) if self.fits(a, size)), None)
        assert at == first
        if at is None:
            return multiple()
        self.used[at : at + size] = b"\1" * size
        return at, size

    @rule(one=consumes(taken))
    def give(self, one: tuple[int, int]) -> None:
        """What is given back can be taken again."""
        at, size = one
        self.space.give(at, size)
        self.used[at : at + size] = bytes(size)

    @invariant()
    def the_holes_are_what_is_not_taken(self) -> None:
        """No byte is free and taken, none is lost, and no two holes touch."""
        holes = list(self.space.holes())
        free = bytearray(b"\1" * SIZE)
        for start, end in holes:
            assert start < end
            free[start:end] = bytes(end - start)
        assert free == self.used
        assert self.space.free == SIZE - sum(self.used)
        assert all(end < start for (_, end), (start, _) in pairwise(holes))


SpaceModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSpace = SpaceModel.TestCase


def test_what_is_all_given_back_is_one_piece() -> None:
    """However the pieces lay, given back in any order they are one free range again."""
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [0, 2, 1, 3]):
        space = Space(256)
        pieces = [space.take(64, 64) for _ in range(4)]
        assert pieces == [0, 64, 128, 192]
        assert space.take(1, 1) is None
        for i in order:
            space.give(i * 64, 64)
        assert list(space.holes()) == [(0, 256)]
