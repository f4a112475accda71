"""Frames in the pipes between parent and child."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworkers.bridge.child import wire

KINDS = sorted(wire.KNOWN)


def read(reader: wire.FrameReader, data: bytes, cuts: list[int]) -> list[tuple[int, bytes]]:
    """Feed the reader in pieces whose lengths the cuts say; the frames it finds."""
    found = []
    at = 0
    cuts = [*cuts, 1 << 30]
    while at < len(data):
        room = reader.room()
        length = min(len(room), max(1, cuts[0]), len(data) - at)
        cuts = cuts[1:] or cuts
        room[:length] = data[at : at + length]
        at += length
        found += [(kind, bytes(payload)) for kind, payload in reader.took(length)]
    return found


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.binary(max_size=300)), max_size=20),
    st.lists(st.integers(1, 200), max_size=50),
)
def test_frames_come_as_they_went(frames, cuts):
    """However what was written is cut on its way, the frames are found, in order and whole; those that
    only wake are not told of.
    """
    data = b"".join(wire.frame(kind, payload) for kind, payload in frames)
    told = [(kind, payload) for kind, payload in frames if kind != wire.WAKE]
    assert read(wire.FrameReader(), data, cuts) == told


@given(st.integers(-3, 3), st.lists(st.integers(1, 100_000), max_size=9))
def test_long_frames_come_as_they_went(difference, cuts):
    """Frames around the length from which they get memory of their own, and short ones between."""
    long = bytes(range(256)) * (wire.SCRATCH // 256) + bytes(64)
    long = long[: wire.SCRATCH + difference]
    frames = [(wire.JOBS, b"before"), (wire.RESULT, long), (wire.TRIM, b""), (wire.RESULT, long)]
    data = b"".join(wire.frame(kind, payload) for kind, payload in frames)
    assert read(wire.FrameReader(), data, cuts) == frames


def test_a_very_long_frame_is_read_in_steps():
    """A frame of many megabytes is read in place, a limited part at a time."""
    payload = bytes(1000) * 5000
    reader = wire.FrameReader()
    data = wire.frame(wire.RESULT, payload)
    rooms = []
    at = 0
    while True:
        room = reader.room()
        rooms.append(len(room))
        length = min(len(room), len(data) - at)
        room[:length] = data[at : at + length]
        at += length
        frames = reader.took(length)
        if frames:
            break
    assert max(rooms) == wire.STEP
    assert [(kind, bytes(found)) for kind, found in frames] == [(wire.RESULT, payload)]


@pytest.mark.parametrize(
    "garbage",
    [
        b"x" * 16,
        wire.frame(wire.JOBS)[:4] + b"\xff" * 12,
        wire.frame(0x7FFF),
        wire._pack(wire.MAGIC, wire.JOBS, wire.LONGEST + 1),
    ],
)
def test_garbage_is_refused(garbage):
    """Bytes that begin no frame, an unknown kind, and a length beyond all reason are an error."""
    with pytest.raises(wire.ProtocolError):
        read(wire.FrameReader(), garbage, [])


@given(st.binary(min_size=16, max_size=64))
def test_noise_is_refused(noise):
    """What does not begin as frames do is refused, whatever it is."""
    if not noise.startswith(wire.MAGIC):
        with pytest.raises(wire.ProtocolError):
            read(wire.FrameReader(), noise, [])
