"""Values come back as what they were, or are refused by name before anything is stored."""

import dataclasses
import datetime as dt
import enum
import json
import math
import subprocess
import sys
import types
from collections import OrderedDict
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworkers.errors import ArgumentsMismatch, JobFailed, JobTimedOut, NotSerializable
from asyncworkers.secret import Secret
from asyncworkers.store import codec
from asyncworkers.store.codec import (
    FunctionCodec,
    encode_error,
    rebuild_error,
    stored_error,
    to_json,
    too_deep,
)


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: int
    at: dt.datetime | None = None


class Frame(msgspec.Struct):
    points: list[Point]
    raw: bytes = b""


class Options(TypedDict, total=False):
    size: int
    ids: set[UUID]


class Pair(NamedTuple):
    left: str
    right: Decimal


def codec_of(annotation):
    """Return the codec of a function that takes and returns one such value."""

    def function(value):
        return value

    function.__annotations__ = {"value": annotation, "return": annotation}
    return FunctionCodec(function, "function")


UTC = dt.UTC
SOUND = [
    (Any, None),
    (Any, [1, "é\0\u2028", 1.5, True, None, {"a": [[], {}]}]),
    (int, 2**63 - 1),
    (int, -(2**63)),
    (int, 2**63 + 2**70),
    (set, {True}),
    (float, -0.0),
    (str | None, None),
    (bytes, b"\x00\xff"),
    (bytearray, bytearray(b"\x01")),
    (dt.datetime, dt.datetime(2026, 10, 25, 2, 30, 1, 2, tzinfo=UTC)),
    (dt.datetime, dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3)))),
    (dt.datetime, dt.datetime(2026, 1, 1, 0, 0, 0, 5)),  # noqa: DTZ001
    (dt.datetime, dt.datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC"))),
    (dt.date, dt.date(2026, 2, 28)),
    (dt.time, dt.time(1, 2, 3, 4)),
    (dt.timedelta, dt.timedelta(days=-1, microseconds=3)),
    (UUID, UUID(int=7)),
    (Decimal, Decimal("1.50")),
    (tuple[int, ...], (1, 2)),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (Color, Color.RED),
    (Level, Level.LOW),
    (Literal["a", "b"], "b"),
    (dict[int, bytes], {1: b"a", -2: b""}),
    (Point, Point(1, dt.datetime(2026, 1, 1, tzinfo=UTC))),
    (Frame, Frame([Point(1), Point(2)], b"\xff")),
    (Options, {"size": 3, "ids": {UUID(int=1)}}),
    (Pair, Pair("a", Decimal("0.10"))),
    (list[Point] | None, [Point(3)]),
    (Annotated[int, msgspec.Meta(ge=0)], 5),
]


@pytest.mark.parametrize(("annotation", "value"), SOUND, ids=str)
def test_values_come_back_as_they_were(annotation, value):
    """An argument and a result are equal to what was given, and of the same type throughout."""
    one = codec_of(annotation)
    (back,), named = one.decode_arguments(one.encode_arguments((value,), {}))
    assert codec._same(value, back), back
    assert named == {}
    assert codec._same(value, one.decode_result(one.encode_result(value)))
    assert math.copysign(1, back) == math.copysign(1, value) if annotation is float else True


class Text(str):
    __slots__ = ()


NOT_SOUND = [
    (Any, math.nan),
    (Any, math.inf),
    (float, math.nan),
    (list[float], [math.inf]),
    (Any, b"bytes"),
    (Any, (1, 2)),
    (Any, {1, 2}),
    (Any, {1: "a", "1": "b"}),
    (Any, {1: "a"}),
    (Any, dt.datetime(2026, 1, 1, tzinfo=UTC)),
    (Any, UUID(int=7)),
    (Any, Decimal("1.5")),
    (Any, Color.RED),
    (Any, Level.LOW),
    (Any, Point(1)),
    (Any, "\ud800"),
    (Any, Text("a")),
    (str, Text("a")),
    (Any, object()),
    (Any, print),
    (Any, 1j),
    (int, 1.0),
    (int, True),
    (str, 1),
    (list[int], (1, 2)),
    (list[int], [True]),
    (tuple[int, ...], [1, 2]),
    (dict[str, int], OrderedDict(a=1)),
    (Point, {"x": 1}),
    (Point, Point("not an int")),
    (Annotated[int, msgspec.Meta(ge=0)], -5),
    (dt.datetime, dt.datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))),
    (dt.datetime, dt.datetime(2026, 10, 25, 2, 30, fold=1)),  # noqa: DTZ001
    (Literal["a"], "b"),
    (object, Point(1)),
]


@pytest.mark.parametrize(("annotation", "value"), NOT_SOUND, ids=ascii)
def test_what_would_change_is_refused(annotation, value):
    """Whatever would come back different raises, naming function and argument, as a TypeError."""
    one = codec_of(annotation)
    with pytest.raises(NotSerializable, match="argument 'value' of job 'function'") as refused:
        one.encode_arguments((value,), {})
    assert isinstance(refused.value, TypeError)
    with pytest.raises(NotSerializable, match="the result of job 'function'"):
        one.encode_result(value)


class Mute:
    """Cannot be written down, or made anew, and does not say why."""

    def model_dump(self, mode):
        raise Hostile

    @classmethod
    def model_validate(cls, plain):
        raise Hostile


def test_what_has_no_words_is_refused_all_the_same():
    """An error whose str raises, of a class of the user's, is told as well as can be."""
    one = codec_of(Mute)
    with pytest.raises(NotSerializable, match=r"argument 'value' .*: <its message raised"):
        one.encode_arguments((Mute(),), {})
    with pytest.raises(ArgumentsMismatch, match=r"argument 'value' .*: <its message raised"):
        one.decode_arguments('[["x"],{}]')


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(plain)
def test_plain_values_need_no_annotation(value):
    """What JSON has a word for comes back as it was."""
    one = codec_of(Any)
    (back,), _ = one.decode_arguments(one.encode_arguments((value,), {}))
    assert codec._same(value, back)


anything = st.recursive(
    plain
    | st.binary()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.decimals()
    | st.uuids()
    | st.timedeltas()
    | st.floats()
    | st.integers()
    | st.sampled_from([*Color, *Level]),
    lambda inner: (
        st.lists(inner) | st.tuples(inner) | st.dictionaries(st.integers() | st.text(), inner)
    ),
    max_leaves=8,
)
annotations = st.sampled_from([annotation for annotation, _ in SOUND])


@settings(deadline=None)
@given(annotations, anything)
def test_nothing_changes_in_silence(annotation, value):
    """Any value at all, under any annotation: it comes back equal, or it is refused."""
    one = codec_of(annotation)
    try:
        text = one.encode_arguments((value,), {})
    except NotSerializable:
        return
    (back,), _ = one.decode_arguments(text)
    assert type(back) is type(value) or (type(value) is int and type(back) is float)
    assert back == value


def test_an_int_for_a_float_is_the_one_promotion():
    """An int given where a float is annotated arrives as the equal float."""
    one = codec_of(float)
    (back,), _ = one.decode_arguments(one.encode_arguments((3,), {}))
    assert (type(back), back) == (float, 3.0)
    with pytest.raises(NotSerializable):
        one.encode_arguments((2**53 + 1,), {})


def test_every_kind_of_parameter():
    """Positional, named, variadic: each is read by its own annotation."""

    def function(
        a: int, /, b: bytes, *rest: Color, c: UUID, d: set[int] = frozenset(), **more: bytes
    ):
        pass

    one = FunctionCodec(function, "function")
    args = (1, b"2", Color.RED, Color.RED)
    named = {"c": UUID(int=1), "d": {5}, "e": b"6"}
    text = one.encode_arguments(args, named)
    assert one.decode_arguments(text) == (args, named)
    with pytest.raises(NotSerializable, match="argument 'rest'"):
        one.encode_arguments((1, b"2", "red"), {"c": UUID(int=1)})
    with pytest.raises(NotSerializable, match="argument 'more'"):
        one.encode_arguments((1, b"2"), {"c": UUID(int=1), "e": 5})


@pytest.mark.parametrize(
    ("args", "named"), [((), {}), ((1, 2), {}), ((1,), {"a": 1}), ((1,), {"x": 1})]
)
def test_a_call_that_does_not_fit_is_refused_at_once(args, named):
    """The function's own signature is checked when the job is submitted."""
    with pytest.raises(TypeError):
        FunctionCodec(lambda a: a, "function").encode_arguments(args, named)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "[[],[]]",
        "[[1],{},{}]",
        "[[],{}]",
        "[[1,2],{}]",
        '[["a"],{}]',
        '[[1],{"a":1}]',
        '[[1],{"b":1}]',
        "\x80\x04N.",
        "[" * 10_000_000,
        '[["' + "a" * codec.LARGEST_ARGUMENTS + '"],{}]',
        "[[" + "[" * 65 + "]" * 65 + "],{}]",
        "[[1" + "0" * 1_000_000 + "],{}]",
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_what_does_not_fit_any_more_is_not_run(text):
    """Whatever is found in a store, nothing but the annotated types comes out of it."""

    def function(a: int) -> None:
        pass

    with pytest.raises(ArgumentsMismatch):
        FunctionCodec(function, "function").decode_arguments(text)


def test_limits_are_checked_when_a_job_is_submitted():
    """Arguments, results and depth have limits, and what is within them passes."""
    one = codec_of(Any)
    one.encode_arguments(("a" * (codec.LARGEST_ARGUMENTS - 10),), {})
    with pytest.raises(NotSerializable, match="262,144"):
        one.encode_arguments(("a" * codec.LARGEST_ARGUMENTS,), {})
    with pytest.raises(NotSerializable, match="1,048,576"):
        one.encode_result("a" * codec.LARGEST_RESULT)
    value: list[Any] = ["[" * 100]
    for _ in range(61):
        value = [value]
    one.encode_arguments((value,), {})
    with pytest.raises(NotSerializable, match="64"):
        one.encode_arguments(([value],), {})
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(NotSerializable):
        one.encode_arguments((cycle,), {})


class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")
        self.args = (a, b)


class Hostile(Exception):
    def __str__(self):
        raise RuntimeError("no")


class NoArgs(Exception):
    """Knows better than anybody what it was made of."""

    @property
    def args(self):
        raise RuntimeError


class Unspeakable(Exception):
    """Is named by what no encoding has."""


Unspeakable.__qualname__ = "\ud800"


def with_notes(notes):
    """Return an error to which somebody assigned these as its notes."""
    error = ValueError("a")
    error.__notes__ = notes
    return error


def raised(error):
    """Return the error as it is after it was raised."""
    try:
        raise error
    except BaseException as caught:
        return caught


def test_errors_are_data_and_come_back_by_name():
    """Builtin errors, ours and those that are known come back as themselves, others as JobFailed."""
    for error, known, kind in (
        (ValueError("bad"), (), ValueError),
        (KeyError("k"), (), KeyError),
        (OSError(2, "missing"), (), FileNotFoundError),
        (JobTimedOut("too long", 3.0), (), JobTimedOut),
        (Odd(1, 2), (Odd,), Odd),
        (Odd(1, 2), (), JobFailed),
        (SystemExit(3), (), JobFailed),
        (UnicodeDecodeError("utf-8", b"a", 0, 1, "x"), (), JobFailed),
    ):
        back = rebuild_error(encode_error(raised(error)), known)
        assert type(back) is kind
        assert "raised" in back.__notes__[-1]
        if kind is not JobFailed:
            assert str(back) == str(error)


def test_hostile_errors_are_stored_all_the_same():
    """Size, surrogates, cycles, an str that raises, and notes or args that are none do not keep an
    error from being stored.
    """
    cyclic = ValueError("a")
    cyclic.__cause__ = cyclic
    for error in (
        Hostile(),
        ValueError("x" * 10**7),
        ValueError("\ud800"),
        ValueError(object()),
        cyclic,
        ValueError(["a" * 10**6]),
        with_notes(None),
        with_notes(5),
        with_notes([Hostile()]),
        NoArgs(),
        Unspeakable("a"),
    ):
        text = encode_error(raised(error))
        assert len(text) < 4 * (codec.LONGEST_MESSAGE + codec.LONGEST_TRACEBACK)
        text.encode("utf-8")
        assert isinstance(rebuild_error(text), Exception)


def test_no_local_variable_is_stored():
    """A traceback names lines, never values."""

    def fails():
        secret = f"CANARY-{1}"
        raise ValueError(len(secret))

    with pytest.raises(ValueError) as caught:
        fails()
    assert "CANARY-1" not in encode_error(caught.value)


def test_a_stored_name_is_never_imported():
    """A name that could be an import, or no error at all, is only text."""
    for name in ("os.system", "system", "exec", "print", "Exception.__init__", "SystemExit"):
        back = rebuild_error(json.dumps({"type": name, "message": "rm"}))
        assert type(back) is JobFailed
    assert stored_error("no json").type == "unknown"
    assert type(rebuild_error(None)) is JobFailed


def test_pydantic_models_are_carried_if_they_can_be():
    """A class with pydantic's two methods is dumped and validated by them."""

    class Model:
        model_fields = types.MappingProxyType({"x": None})

        def __init__(self, x):
            self.x = x

        def model_dump(self, mode):
            assert mode == "json"
            return {"x": self.x}

        @classmethod
        def model_validate(cls, plain):
            if not isinstance(plain["x"], int):
                raise ValueError("x must be an int")
            return cls(**plain)

    one = codec_of(Model)
    (back,), _ = one.decode_arguments(one.encode_arguments((Model(5),), {}))
    assert (type(back), back.x) == (Model, 5)
    with pytest.raises(NotSerializable):
        one.encode_arguments((Model("a"),), {})
    with pytest.raises(ArgumentsMismatch):
        one.decode_arguments('[[{"x":"a"}],{}]')


def test_annotations_that_cannot_be_read_are_as_good_as_none():
    """A union msgspec cannot tell apart, or a name that does not exist, leaves plain values alone."""
    one = codec_of(dt.datetime | UUID | str)
    (back,), _ = one.decode_arguments(one.encode_arguments(("text",), {}))
    assert back == "text"
    with pytest.raises(NotSerializable, match="of no help"):
        one.encode_arguments((UUID(int=1),), {})

    def function(a: "Missing"):  # noqa: F821
        pass

    assert FunctionCodec(function, "f").decode_arguments("[[1],{}]") == ((1,), {})


def test_asyncworkers_is_imported_without_msgspec_and_sqlite():
    """Who stores nothing pays for nothing."""
    code = "import asyncworkers, sys; print({'msgspec', 'sqlite3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


class Corner(NamedTuple):
    x: int
    y: int


def test_a_plain_named_tuple_is_not_a_tuple():
    """A named tuple would come back as a list without its annotation, and as itself with it."""
    with pytest.raises(NotSerializable):
        codec_of(Any).encode_arguments((Corner(1, 2),), {})
    one = codec_of(Corner)
    assert one.decode_arguments(one.encode_arguments((Corner(1, 2),), {}))[0] == (Corner(1, 2),)


@pytest.mark.parametrize("end", [b"", b"\\", b"\n"])
def test_a_text_that_does_not_end_is_looked_through_once(end):
    """Of the size that arguments may have, it would take minutes if it was begun again at each quote."""
    text = b"[" * 65 + b'"' + b'\\"' * 130_000 + end
    assert too_deep(text)
    assert not too_deep(text.replace(b"[", b"[]"))


def test_what_callers_from_outside_need_to_know():
    """Each parameter with its type, its default and what reads it; what is shown shows no secret."""

    def function(a: int, /, b: Secret[str], *, c: dt.date | None = None) -> list[int]:
        raise AssertionError

    known = FunctionCodec(function, "function")
    one, two, three = known.parameters
    assert [p.name for p in known.parameters] == ["a", "b", "c"]
    assert (one.decode(b"3"), three.decode(b'"2026-01-02"')) == (3, dt.date(2026, 1, 2))
    assert (one.secret, two.secret, three.default) == (False, True, None)
    assert known.result == list[int]
    assert two.decode(b'"x"').reveal() == "x"
    assert to_json({"a": Secret("x"), "b": (1,)}) == b'{"a":"***","b":[1]}'
