"""The ring of results and the control page, with both ends in one process."""

import os
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworkers.bridge.child import ring
from asyncworkers.bridge.process import _memory


@pytest.fixture
def shared():
    """The shared memory as parent and child have it mapped."""
    descriptor = _memory(ring.SIZE)
    parent, child = ring.Shared(descriptor), ring.Shared(descriptor)
    os.close(descriptor)
    yield parent, child
    parent.close()
    child.close()


def never() -> None:
    """Room was wanted where there must be some."""
    raise AssertionError("the ring is full")


def test_records_come_as_they_went(shared):
    """Kind, number, times and payload of a record arrive; a record read is not read again."""
    parent, child = shared
    reader, writer = ring.RingReader(parent), ring.RingWriter(child, never)
    writer.put(ring.VALUE, 1, 10, 20, b"value")
    writer.put(ring.ERROR, 2**40, 30, 2**62, b"")
    assert reader.read() == [(ring.VALUE, 1, 10, 20, b"value"), (ring.ERROR, 2**40, 30, 2**62, b"")]
    assert reader.read() == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1 << 18), st.booleans(), st.integers(0, 255)),
        min_size=1,
        max_size=60,
    )
)
def test_any_lengths_in_any_rhythm(lengths):
    """Records of all lengths, read at any moment, come in order and whole, around the ring's end too."""
    descriptor = _memory(ring.SIZE)
    memory = ring.Shared(descriptor)
    os.close(descriptor)
    try:
        reader = ring.RingReader(memory)
        expected: deque[tuple[int, int, bytes]] = deque()

        def read() -> None:
            for kind, number, _, _, payload in reader.read():
                assert (kind, number, payload) == expected.popleft()

        writer = ring.RingWriter(memory, read)  # a full ring is read then, as by the parent
        for number, (length, read_now, byte) in enumerate(lengths):
            payload = bytes([byte]) * min(length, ring.LARGEST)
            expected.append((ring.VALUE, number, payload))
            writer.put(ring.VALUE, number, 0, 0, payload)
            if read_now:
                read()
        read()
        assert not expected
    finally:
        memory.close()


@pytest.mark.parametrize("tail", [3, 8 * 1001, 2**60, -8 & (2**64 - 1)])
def test_a_spoiled_ring_is_refused(shared, tail):
    """A tail that makes no sense, or records that do not, are an error and no endless loop."""
    parent, child = shared
    reader = ring.RingReader(parent)
    child.bytes[:] = b"\xff" * len(child.bytes)
    child.words[ring.TAIL] = tail
    with pytest.raises(ValueError):
        reader.read()


def test_a_full_ring_waits(shared):
    """A child whose ring is full asks for room until there is some, and overwrites nothing."""
    parent, child = shared
    reader = ring.RingReader(parent)
    asked = 0
    found = []

    def room_wanted() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            found.extend(record[4] for record in reader.read())

    writer = ring.RingWriter(child, room_wanted)
    payloads = [bytes([number]) * ring.LARGEST for number in range(5)]
    for number, payload in enumerate(payloads):
        writer.put(ring.VALUE, number, 0, 0, payload)
    found.extend(record[4] for record in reader.read())
    assert found == payloads
    assert asked >= 3


def test_places_are_apart_from_words_and_ring(shared):
    """Nothing on the page lies over anything else."""
    parent, child = shared
    for word in range(64):
        child.words[word] = 2**64 - 1
    assert not any(parent.places)
    assert not any(parent.bytes[:4096])
    for place in range(ring.PLACES):
        parent.places[place] = 1
    assert not any(child.bytes[:4096])
    assert child.words[64] == 0
    assert len({ring.TAIL, ring.CURRENT, ring.STARTED, ring.HEAD, ring.INTERRUPT, ring.SLEEPS}) == 6
