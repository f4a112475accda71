"""Freight: a value as a short pickle and the big data in it apart, so that those need not be copied.

`pack` makes it: pickle protocol 5 hands out every contiguous buffer of `BIG` bytes and more
(arrays, data frames, tables), and bytes, bytearrays and memoryviews that are the value itself, an
item of a tuple or an argument are treated alike. `ship_steps` puts the data into the arena and
makes the message that tells of it; `open_steps` finds it there; `unpack` makes the value.

    head: how many pieces, how long the pickle | a place for each piece | pickle | data in the message

What arrives: whatever is built on a buffer lies in the arena, in place: an array, and likewise a
memoryview, is read-only if it is an argument, because it belongs to the parent, and may be written
if it is a result and could be written where it came from. Bytes and bytearrays are copied once out
of the arena, for they own their memory; an argument that is a bytearray may be changed as ever.

Data for which the arena has no room travels in the message itself, as all data does if there is no
arena. That is slower, but it neither fails nor waits: the room may be taken by what a job keeps, and
that could be for ever.

From `pack` to `ship_steps` freight refers to its data and does not hold a copy: what is changed
meanwhile arrives changed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from io import BytesIO
from operator import itemgetter, methodcaller
from struct import Struct

from . import pickling as pickle
from .arena import STEP, Block, Looker, Writer
from .pickling import PickleBuffer
from .trouble import AT_ONCE, Way, freely

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias, TypeVar

    T = TypeVar("T")

__all__ = [
    "BIG",
    "Arrived",
    "Buffer",
    "Freight",
    "Piece",
    "discard",
    "finish",
    "is_small",
    "open_steps",
    "pack",
    "pack_call",
    "pack_small",
    "ship_steps",
    "unpack",
]

Buffer: TypeAlias = "bytes | bytearray | memoryview"

BIG = 64 << 10  # bytes; below it a copy costs less than a place in the arena

JOINED = 256 << 10  # bytes of a pickle that are copied, so that the message has one part less

VIEW, BYTES, BYTEARRAY = 0, 1, 2  # what a piece becomes
OWNERS = frozenset((bytes, bytearray))
ENCLOSED = 0xFFFF  # instead of a slot: the piece is in the message

_head = Struct("<IQ")
_place = Struct("<BxHxxxxQQ")  # what it becomes, slot, where in the arena, how many bytes


Piece: TypeAlias = tuple[int, memoryview]
"""What is to become of big data, and they themselves."""


class Freight:
    """A pickled value, and the big data that is not in the pickle."""

    __slots__ = ("pieces", "stream")

    def __init__(self, stream: bytes, pieces: list[Piece]) -> None:
        self.stream = stream
        self.pieces = pieces


class Arrived:
    """A message whose data were found: what `unpack` makes the value of."""

    __slots__ = ("buffers", "stream")

    def __init__(self, stream: memoryview, buffers: list[Buffer]) -> None:
        self.stream = stream
        self.buffers = buffers

    def __iter__(self) -> Iterator[Any]:
        """What `unpack` takes, in order."""
        return iter((self.stream, self.buffers))


class _Apart:
    """Stands in a pickle for bytes, a bytearray or a memoryview; what is unpickled is that itself.

    It names nothing but builtins, so that the other side need not import anything to read it.
    """

    def __init__(self, value: Buffer, noted: list[tuple[PickleBuffer, int]]) -> None:
        self._value = value
        self._noted = noted

    def __reduce__(self) -> tuple[Any, ...]:
        value = self._value
        if isinstance(value, memoryview):
            return self._reduce_view(value)
        buffer = PickleBuffer(value)
        self._noted.append((buffer, BYTES if isinstance(value, bytes) else BYTEARRAY))
        # Pickle remembers a call, so that what occurs twice is one object there as well.
        return itemgetter(0), ((buffer,),)

    def _reduce_view(self, view: memoryview) -> tuple[Any, ...]:
        raw = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
        if view.ndim == 1 and view.format == "B":
            return memoryview, (PickleBuffer(raw),)
        cast = methodcaller("cast", view.format, view.shape)
        cast(raw)  # a format that cannot be made again is an error here, not there
        return cast, (_Apart(raw, self._noted),)


class _Packing:
    """One use of `pack`. There is no cycle in it: what was packed is let go of at once."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        # The buffers of bytes and bytearrays and what they become; held, so that none is mistaken.
        self._noted: list[tuple[PickleBuffer, int]] = []
        self._apart: dict[int, _Apart] = {}

    def item(self, value: Any) -> Any:
        """What to pickle instead of `value`."""
        kind: Any = value.__class__
        if kind is memoryview or (kind in OWNERS and len(value) >= BIG):
            known = self._apart.get(id(value))
            if known is None:
                known = self._apart[id(value)] = _Apart(value, self._noted)
            return known
        return value

    def keep_in_band(self, buffer: PickleBuffer) -> bool:
        """What pickle asks of each buffer."""
        try:
            data = buffer.raw()
        except BufferError:  # it has gaps
            return True
        if len(data) < BIG:
            return True
        becomes = next((becomes for noted, becomes in self._noted if noted is buffer), VIEW)
        self.pieces.append((becomes, data))
        return False

    def freight(self, value: Any, way: Way) -> Freight:
        def dump(module: Any) -> bytes:
            self.pieces.clear()  # of what was tried before
            return way.dumps(module, value, self.keep_in_band)

        return Freight(freely(dump, way), self.pieces)


def pack_small(
    value: Any, items: Iterable[Any], dumps: Callable[[object], bytes] | None = None
) -> bytes | None:
    """Pickle a value in the quick way that suits nearly all: None if it needs `pack`, which treats
    some of these `items` of it in a way of its own.

    `dumps` is asked to, if given; it must not take what `is_small` does not.
    """
    for item in items:
        kind: Any = item.__class__
        if kind is memoryview or (kind in OWNERS and len(item) >= BIG):
            return None
    try:
        if dumps is not None:
            return dumps(value)
        return pickle.dumps(value, protocol=5, buffer_callback=is_small)
    except Exception:
        return None


def is_small(buffer: PickleBuffer) -> bool:
    """What pickle asks of each buffer where none must be big. Raises BufferError if one is."""
    if len(buffer.raw()) >= BIG:
        raise BufferError("there is big data in it")
    return True


def pack(value: Any, way: Way = AT_ONCE) -> Freight:
    """Pack a value. Raises what pickle raises if it cannot be pickled."""
    packing = _Packing()
    if value.__class__ is tuple:
        return packing.freight(tuple(map(packing.item, value)), way)
    return packing.freight(packing.item(value), way)


def pack_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], *more: Any, way: Way = AT_ONCE
) -> Freight:
    """Pack `(args, kwargs, *more)`. Raises what pickle raises if that cannot be pickled."""
    packing = _Packing()
    item = packing.item
    named = {name: item(value) for name, value in kwargs.items()}
    return packing.freight((tuple(map(item, args)), named, *more), way)


def unpack(stream: Buffer, buffers: list[Buffer]) -> Any:
    """Make the value again from what `open_steps` found."""
    return pickle.loads(stream, buffers=buffers)  # from our own other side


def ship_steps(
    freight: Freight, writer: Writer | None
) -> Generator[None, None, list[bytes | memoryview]]:
    """Put the data into the arena in steps; the result is the message, in parts to be sent.

    If this is closed before its end, or raises MemoryError, nothing stays in the arena.
    """
    blocks: list[Block] = []
    places: list[bytes] = []
    enclosed: list[memoryview] = []
    try:
        for becomes, data in freight.pieces:
            block = None if writer is None else writer.allocate(len(data))
            if writer is None or block is None:
                enclosed.append(data)
                places.append(_place.pack(becomes, ENCLOSED, 0, len(data)))
                continue
            blocks.append(block)
            yield from writer.copy_steps(block, data)
            places.append(_place.pack(becomes, block.slot, block.at, len(data)))
    except BaseException:
        if writer is not None:
            for block in blocks:
                writer.take_back(block)
        raise
    head = _head.pack(len(places), len(freight.stream))
    if len(freight.stream) > JOINED:
        return [b"".join([head, *places]), freight.stream, *enclosed]
    return [b"".join([head, *places, freight.stream]), *enclosed]


def open_steps(message: memoryview, looker: Looker | None) -> Generator[None, None, Arrived]:
    """Find the data in steps; the result is what `unpack` wants.

    What travelled in the message stays there: it must not be used for anything else. Raises
    ValueError if it is no message. If this is closed before its end, everything is given back.
    """
    places, stream, enclosed = _read(message)
    buffers: list[Buffer] = []
    try:
        while places:
            becomes, slot, at, nbytes = places[0]
            if slot == ENCLOSED:
                view, enclosed = enclosed[:nbytes], enclosed[nbytes:]
                del places[0]
            elif looker is None:
                raise ValueError("a message tells of an arena, and there is none")
            else:
                view = looker.look(slot, at, nbytes)
                del places[0]
            if becomes == VIEW:
                buffers.append(view)
            else:
                buffers.append((yield from _own_steps(view, becomes)))
                if slot != ENCLOSED:
                    view.release()
    except BaseException:
        _give_back(places, looker)
        raise
    return Arrived(stream, buffers)


def discard(message: memoryview, looker: Looker | None) -> None:
    """Give back the data that a message tells of without looking at it."""
    _give_back(_read(message)[0], looker)


def finish(steps: Generator[None, None, T]) -> T:
    """Take all steps at once; their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def _own_steps(view: memoryview, becomes: int) -> Generator[None, None, bytes | bytearray]:
    """Copy data into bytes or a bytearray, in steps if there is much."""
    if becomes == BYTEARRAY:
        array = bytearray(view[:STEP])
        for at in range(STEP, len(view), STEP):
            yield
            array += view[at : at + STEP]
        return array
    if len(view) <= STEP:
        return bytes(view)
    growing = BytesIO()  # which hands out the bytes it has grown, without a copy
    for at in range(0, len(view), STEP):
        if at:
            yield
        growing.write(view[at : at + STEP])
    return growing.getvalue()


def _read(message: memoryview) -> tuple[list[tuple[int, int, int, int]], memoryview, memoryview]:
    """Take a message apart: the places, the pickle, the data in the message."""
    if len(message) < _head.size:
        raise ValueError(f"a message of {len(message)} bytes")
    count, length = _head.unpack_from(message)
    start = _head.size + count * _place.size
    if len(message) < start + length:
        raise ValueError(f"a message of {len(message)} bytes that tells of {count} pieces")
    places = list(_places(message[_head.size : start]))
    enclosed = sum(nbytes for _, slot, _, nbytes in places if slot == ENCLOSED)
    if len(message) != start + length + enclosed:
        raise ValueError(f"a message of {len(message)} bytes, of which {enclosed} are data")
    return places, message[start : start + length], message[start + length :]


def _places(part: memoryview) -> Iterator[tuple[int, int, int, int]]:
    yield from _place.iter_unpack(part)


def _give_back(places: list[tuple[int, int, int, int]], looker: Looker | None) -> None:
    for _, slot, _, _ in places:
        if slot != ENCLOSED and looker is not None:
            looker.give_back(slot)
