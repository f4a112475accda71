"""Parcels: what is taken apart, what comes back, and that a message tells of everything."""

import gc
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworkers.bridge.child.arena import STEP, Memory
from asyncworkers.bridge.child.freight import (
    BIG,
    discard,
    finish,
    open_steps,
    pack,
    pack_call,
    ship_steps,
    unpack,
)


@pytest.fixture
def sides():
    """A memory as both sides have it."""
    ours = Memory.create(64 << 20)
    theirs = Memory.attach(ours.fd)
    yield ours, theirs
    theirs.writer.close()
    theirs.looker.close()
    ours.close()


def across(value: Any, sides: Any = (None, None)) -> Any:
    """The value as it arrives."""
    ours, theirs = sides
    parts = finish(ship_steps(pack(value), ours and ours.writer))
    message = memoryview(bytearray(b"".join(parts)))
    return unpack(*finish(open_steps(message, theirs and theirs.looker)))


def steps_of(steps: Any) -> tuple[int, Any]:
    """How many times it stopped on its way, and its result."""
    taken = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return taken, end.value
        taken += 1


SIZES = [0, 1, BIG - 1, BIG, BIG + 1, STEP, STEP + 1, 3 * STEP + 17]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("arena", [True, False])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_owners_of_bytes_come_back_as_what_they_were(sides, size, arena, kind) -> None:
    """Bytes, bytearrays and memoryviews of any size keep their type, through the arena or without."""
    data = np.random.default_rng(size).bytes(size)
    for value in (kind(data), (kind(data), 1), (kind(data), kind(data))):
        got = across(value, sides if arena else (None, None))
        assert type(got) is type(value)
        assert got == value
        if isinstance(value, tuple):
            assert [type(x) for x in got] == [type(x) for x in value]


def test_a_bytearray_belongs_to_whom_it_arrives_at(sides) -> None:
    """A bytearray can be changed and can grow, although arguments in the arena cannot be changed."""
    got = across(bytearray(BIG), sides)
    got += b"more"
    got[0] = 1
    assert len(got) == BIG + 4


def test_what_occurs_twice_is_one_thing_there_too(sides) -> None:
    """A bytearray that is two items of a tuple is the same two items afterwards, as in any pickle."""
    array = bytearray(BIG)
    first, second = across((array, array), sides)
    assert first is second


def test_only_what_is_big_and_whole_leaves_the_pickle() -> None:
    """Small buffers and those with gaps stay in the pickle; big ones leave next to nothing there."""
    small, big = np.zeros(BIG // 8 - 1), np.zeros(BIG // 4)
    assert pack(small).pieces == []
    assert len(pack(big).pieces) == 1
    assert len(pack([big, {"a": big[1:], "b": big * 2}]).stream) < 1000
    gaps = np.zeros((BIG, 2))[:, 0]
    assert pack(gaps).pieces == []
    assert (across(gaps) == gaps).all()


def test_arguments_by_name_are_arguments() -> None:
    """Big bytes leave the pickle as positional and as named arguments alike."""
    packed = pack_call((bytes(BIG), 1), {"name": bytearray(BIG), "other": memoryview(bytes(BIG))})
    assert len(packed.pieces) == 3
    args, kwargs = unpack(
        *finish(open_steps(memoryview(b"".join(finish(ship_steps(packed, None)))), None))
    )
    assert args == (bytes(BIG), 1)
    assert [type(x) for x in kwargs.values()] == [bytearray, memoryview]


@pytest.mark.parametrize(
    "view",
    [
        memoryview(np.arange(BIG, dtype="f4").reshape(256, -1)),
        memoryview(np.arange(6, dtype="i2").reshape(2, 3)),
        memoryview(np.asfortranarray(np.arange(BIG, dtype="f8").reshape(256, -1))),
        memoryview(np.arange(BIG, dtype="u1"))[::2],
        memoryview(b""),
    ],
)
def test_memoryviews_keep_their_shape_and_format(sides, view) -> None:
    """A memoryview of any layout comes back with the same items in the same shape."""
    got = across(view, sides)
    assert (got.format, got.shape) == (view.format, view.shape)
    assert got.tolist() == view.tolist()


def test_a_memoryview_that_cannot_be_made_again_is_an_error_when_packed() -> None:
    """A format only others understand is refused where the value is, not where it would arrive."""
    with pytest.raises(ValueError, match="format"):
        pack(memoryview(np.zeros(BIG, dtype="f4,i4")))


def test_arrays_of_any_kind_arrive_equal(sides) -> None:
    """Orders, strides, structures, objects, subclasses and masks survive the crossing."""
    rng = np.random.default_rng(1)
    cube = rng.random((40, 50, 60))
    for value in (
        cube,
        np.asfortranarray(cube),
        cube[::2, :, 1:],
        cube.astype(">f4"),
        np.zeros(BIG, dtype="f8,i2"),
        np.array([{"a": 1}, None] * 10, dtype=object),
        np.ma.masked_less(cube, 0.5),
        np.zeros(0),
        np.float64(1.5),
        np.array("2020-01-01", dtype="M8[D]").repeat(BIG),
    ):
        got = across(value, sides)
        assert type(got) is type(value)
        assert got.dtype == value.dtype
        assert np.array_equal(got, value)


class Frame:
    """What libraries do that know protocol 5: columns and a table of them, not numpy's own."""

    def __init__(self, *columns: Any) -> None:
        self.columns = columns

    def __reduce_ex__(self, protocol: int) -> Any:
        return Frame, tuple(pickle.PickleBuffer(column) for column in self.columns)


@pytest.mark.parametrize("kind", [bytearray, memoryview, np.frombuffer])
def test_packing_lets_go_at_once(kind) -> None:
    """What was packed can be freed as soon as it is shipped, without the garbage collector."""
    source = bytearray(BIG)
    gc.disable()
    try:
        finish(ship_steps(pack((kind(source), 1)), None))
        source.append(1)
        value = bytearray(source)
        finish(ship_steps(pack(value), None))
        value.append(1)
    finally:
        gc.enable()


def test_any_type_that_knows_protocol_5_crosses_in_place(sides) -> None:
    """A type that hands out PickleBuffers gets views of the arena, whatever it is."""
    got = across(Frame(bytes(BIG), bytearray(b"x" * BIG), b"small"), sides)
    assert [bytes(column) for column in got.columns] == [bytes(BIG), b"x" * BIG, b"small"]
    assert [type(column) for column in got.columns[:2]] == [memoryview] * 2


def test_discarded_messages_give_everything_back(sides) -> None:
    """What nobody is going to look at is free again, in the arena or in the message."""
    ours, theirs = sides
    for _ in range(3):
        parts = finish(ship_steps(pack((np.zeros(BIG), bytes(BIG))), ours.writer))
        discard(memoryview(parts[0]), theirs.looker)
        ours.writer.collect()
        assert ours.writer.out == 0


@pytest.mark.parametrize("steps", range(7))
def test_shipping_that_is_broken_off_leaves_nothing(sides, steps) -> None:
    """A parcel given up after any number of steps has given back its blocks."""
    ours, _ = sides
    shipping = ship_steps(pack((np.zeros(3 * STEP // 8), bytes(3 * STEP))), ours.writer)
    for _ in range(steps):
        next(shipping)
    shipping.close()
    assert ours.writer.out == 0
    assert ours.writer.room == 64 << 20


@pytest.mark.parametrize("steps", range(4))
def test_opening_that_is_broken_off_leaves_nothing(sides, steps) -> None:
    """A message given up after any number of steps has given back its blocks, opened or not."""
    ours, theirs = sides
    value = (np.zeros(BIG), bytes(3 * STEP), bytearray(3 * STEP), np.zeros(BIG))
    message = b"".join(finish(ship_steps(pack(value), ours.writer)))
    opening = open_steps(memoryview(message), theirs.looker)
    for _ in range(steps):
        next(opening)
    if not steps:
        discard(memoryview(message), theirs.looker)  # it never began
    opening.close()
    del opening
    theirs.looker.poll()
    ours.writer.collect()
    assert ours.writer.out == 0


def test_no_step_is_long(sides) -> None:
    """Ten megabytes take a step for each, going in and coming out, so that a loop turns in between."""
    ours, theirs = sides
    for value, copies in (
        (np.ones(10 * STEP, "u1"), 0),
        (b"1" * (10 * STEP), 9),
        (bytearray(10 * STEP), 9),
    ):
        taken, parts = steps_of(ship_steps(pack(value), ours.writer))
        assert taken == 10
        taken, found = steps_of(open_steps(memoryview(b"".join(parts)), theirs.looker))
        assert taken == copies
        assert np.array_equal(np.frombuffer(unpack(*found), "u1"), np.frombuffer(value, "u1"))
        del found


@given(st.binary(max_size=200), st.integers(0, 3))
def test_garbage_is_no_message(data: bytes, cut: int) -> None:
    """Bytes that no parcel made, or one cut short, are refused before anything is done with them."""
    good = finish(ship_steps(pack((bytes(BIG), np.zeros(BIG))), None))
    with pytest.raises(ValueError):
        finish(open_steps(memoryview(b"\xff" + data), None))
    with pytest.raises(ValueError):
        finish(open_steps(memoryview(b"".join(good))[: -1 - cut], None))


def test_places_outside_of_the_arena_are_refused(sides) -> None:
    """A message that tells of a block which cannot be is a ValueError, not a look at other memory."""
    ours, theirs = sides
    (message,) = finish(ship_steps(pack(np.zeros(BIG)), ours.writer))
    far = message.replace((8 * BIG).to_bytes(8, "little"), (1 << 40).to_bytes(8, "little"))
    with pytest.raises(ValueError, match="there is no block"):
        finish(open_steps(memoryview(far), theirs.looker))
    finish(open_steps(memoryview(message), theirs.looker))
    with pytest.raises(ValueError, match="there is none"):
        finish(open_steps(memoryview(message), None))
