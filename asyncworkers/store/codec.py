"""How arguments, results and errors are written as text, and read back as exactly what they were.

Everything is JSON, typed by the function's annotations: what JSON has no word for (bytes, datetime,
UUID, Decimal, tuples, sets, enums, dataclasses, Structs, TypedDicts, pydantic models) is read back by
the annotation of its parameter. Nothing is ever changed in silence: what would come back different
is refused when it is submitted, with the name of the argument. One promotion is allowed, as Python's
own type checkers allow it: an int given for a `float` comes back as the equal float.

Nothing that is read decides what is called: there is no pickle here and no import by name. Sizes
and depth are checked before anything is decoded.
"""

from __future__ import annotations

import builtins
import contextlib
import enum
import inspect
import re
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from operator import contains
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import msgspec

from asyncworkers import _checks, errors
from asyncworkers._arity import Arity
from asyncworkers.errors import ArgumentsMismatch, JobFailed, NotSerializable
from asyncworkers.secret import MASK, Secret
from asyncworkers.store.protocol import CODEC

__all__ = [
    "DEEPEST",
    "LARGEST_ARGUMENTS",
    "LARGEST_RESULT",
    "FunctionCodec",
    "Parameter",
    "StoredError",
    "encode_error",
    "rebuild_error",
    "stored_error",
    "stored_summary",
    "to_json",
    "too_deep",
]

LARGEST_ARGUMENTS: Final = 256 * 1024
"""Bytes that the arguments of one job may take."""

LARGEST_RESULT: Final = 1024 * 1024
"""Bytes that one result may take."""

DEEPEST: Final = 64
"""How deep lists and mappings may be nested in each other."""

LONGEST_MESSAGE: Final = 4_096
LONGEST_TRACEBACK: Final = 32_768
MOST_FRAMES: Final = 50

_ATOMS = frozenset({str, int, bool, type(None)})
# A text that does not end is taken to the end of all: to look for one again behind each of its
# quotes would take time by the square of its length, and whoever wrote it may have meant that.
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


class _Slot:
    """A parameter or the result: what its annotation makes of JSON."""

    __slots__ = ("annotation", "decode", "exact", "label", "secret", "trouble")

    def __init__(self, label: str, annotation: Any) -> None:
        self.label = label
        self.annotation = annotation
        self.exact: frozenset[Any] = _exact(annotation)
        self.secret = _mentions_secret(annotation)
        self.trouble = ""
        try:
            self.decode = msgspec.json.Decoder(annotation, dec_hook=_from_plain).decode
        except (TypeError, ValueError) as error:
            # Not an annotation that can be read by: as if there were none.
            self.trouble = f" (its annotation is of no help: {error})"
            self.exact = _ATOMS
            self.decode = msgspec.json.Decoder(Any).decode


class Parameter(NamedTuple):
    """A parameter of a function, for those who call it from outside: `decode` reads a value of its
    type from JSON, and raises if it is none; `trouble` says why its annotation cannot be read by.
    What is wrong with a `secret` one must not be told.
    """

    name: str
    kind: Any
    default: Any
    annotation: Any
    decode: Callable[[bytes | msgspec.Raw], Any]
    trouble: str
    secret: bool


class _NoNames(msgspec.Struct, forbid_unknown_fields=True):
    """An empty object."""


class FunctionCodec:
    """Writes and reads the arguments and results of one function."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.name = name
        self._signature = inspect.signature(function)
        self.arity = Arity(self._signature)
        hints = _hints(function)
        self._parameters: list[Parameter] = []
        self._positional: list[_Slot] = []
        self._named: dict[str, _Slot] = {}
        self._rest: _Slot | None = None
        self._other: _Slot | None = None
        self._required = 0
        self._simple = True
        for parameter in self._signature.parameters.values():
            self._add(parameter, hints.get(parameter.name, Any))
        self._exact = tuple(slot.exact for slot in self._positional)
        self._result = _Slot("the result", hints.get("return", Any))
        self._whole = self._decoder_of_all()

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What the function takes, in order."""
        return tuple(self._parameters)

    @property
    def result(self) -> Any:
        """The annotation of what it returns, or Any."""
        return self._result.annotation

    def _add(self, parameter: inspect.Parameter, annotation: Any) -> None:
        slot = _Slot(f"argument {parameter.name!r}", annotation)
        self._parameters.append(
            Parameter(
                parameter.name,
                parameter.kind,
                parameter.default,
                annotation,
                slot.decode,
                slot.trouble,
                slot.secret,
            )
        )
        match parameter.kind:
            case inspect.Parameter.VAR_POSITIONAL:
                self._rest = slot
            case inspect.Parameter.VAR_KEYWORD:
                self._other = slot
            case inspect.Parameter.KEYWORD_ONLY:
                self._named[parameter.name] = slot
                self._simple = self._simple and parameter.default is not parameter.empty
            case kind:
                self._positional.append(slot)
                if kind is not inspect.Parameter.POSITIONAL_ONLY:
                    self._named[parameter.name] = slot
                self._required += parameter.default is parameter.empty

    def _decoder_of_all(self) -> Callable[[bytes | str], Any] | None:
        """What decodes the usual call at once: all of its arguments there, none of them by name."""
        slots = self._positional
        plain = self._simple and self._required == len(slots) and self._rest is None
        if not plain or any(slot.trouble for slot in slots):
            return None
        each: Any = tuple(slot.annotation for slot in slots)
        kinds: Any = types.GenericAlias(tuple, (types.GenericAlias(tuple, each), _NoNames))
        return msgspec.json.Decoder(kinds, dec_hook=_from_plain).decode

    # ---- arguments

    def encode_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """The arguments of a call as text.

        Raises TypeError if the function does not take them, NotSerializable, naming the argument,
        if they cannot be stored and come back as they are.
        """
        fits = self._simple and not kwargs and self._required <= len(args) <= len(self._positional)
        if not fits:
            self.arity.check(self.name, args, kwargs)
        elif self._rest is None and all(map(contains, self._exact, map(type, args))):
            short = _short((args, kwargs))
            if short is not None:
                return short
        slots = [*zip(self._slots(len(args)), args, strict=False)]
        slots += [(self._slot_named(name), value) for name, value in kwargs.items()]
        raw = self._encode([args, kwargs], slots, LARGEST_ARGUMENTS)
        for slot, value in slots:
            if type(value) not in slot.exact:
                self._check(slot, value)
        return raw.decode("utf-8")

    def decode_arguments(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call, of the annotated types.

        Raises ArgumentsMismatch if they are not what the function takes (now).
        """
        raw = self._bounded(text, LARGEST_ARGUMENTS)
        if self._whole is not None:
            try:
                return self._whole(raw)[0], {}
            except Exception:  # noqa: S110  what is wrong with it is found out below
                pass
        try:
            args, kwargs = _envelope(raw)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise ArgumentsMismatch(f"the stored arguments of {self.name!r} are broken") from error
        slots = zip(self._slots(len(args)), args, strict=False)
        found = tuple(self._decode(slot, one) for slot, one in slots)
        named = {name: self._decode(self._slot_named(name), one) for name, one in kwargs.items()}
        if not self._simple or named or not self._required <= len(args) <= len(self._positional):
            try:
                if len(found) < len(args):
                    raise TypeError("too many positional arguments")
                self._signature.bind(*found, **named)
            except TypeError as error:
                raise ArgumentsMismatch(
                    f"the stored arguments do not fit {self.name!r} (any more): {error}"
                ) from error
        return found, named

    def _slots(self, count: int) -> list[_Slot]:
        """The slots of so many positional arguments."""
        slots = self._positional[:count]
        if self._rest is not None:
            slots += [self._rest] * (count - len(slots))
        return slots

    def _slot_named(self, name: str) -> _Slot:
        slot = self._named.get(name) or self._other
        if slot is None:
            raise ArgumentsMismatch(f"{self.name!r} takes no argument {name!r} (any more)")
        return slot

    # ---- results

    def encode_result(self, value: Any) -> str:
        """What the function returned as text; raises NotSerializable."""
        if type(value) in self._result.exact:
            short = _short(value)
            if short is not None:
                return short
        raw = self._encode(value, [(self._result, value)], LARGEST_RESULT)
        if type(value) not in self._result.exact:
            self._check(self._result, value)
        return raw.decode("utf-8")

    def decode_result(self, text: str) -> Any:
        """What the function returned, of the annotated type; raises ArgumentsMismatch."""
        return self._decode(self._result, self._bounded(text, LARGEST_RESULT))

    # ---- how

    def _encode(self, value: Any, slots: Iterable[tuple[_Slot, Any]], largest: int) -> bytes:
        try:
            raw = _encode(value)
        except Exception as error:
            for slot, one in slots:  # which of them is it?
                try:
                    _encode(one)
                except Exception as cause:
                    raise self._refusal(slot, one, _checks.message(cause, 1_000)) from cause
            said = _checks.message(error, 1_000)
            raise NotSerializable(f"job {self.name!r} cannot be stored: {said}") from error
        if len(raw) > largest:
            what = "its arguments take" if largest == LARGEST_ARGUMENTS else "its result takes"
            raise NotSerializable(
                f"job {self.name!r} cannot be stored: {what} {len(raw):,} bytes, "
                f"at most {largest:,} are accepted; store it elsewhere and pass where it is"
            )
        if too_deep(raw):
            raise NotSerializable(
                f"job {self.name!r} cannot be stored: nested deeper than {DEEPEST} levels"
            )
        return raw

    def _check(self, slot: _Slot, value: Any) -> None:
        """Read it back, and refuse what would come back different."""
        try:
            back = slot.decode(_encode(value))
        except Exception as error:  # also what a class of the user's raises
            raise self._refusal(slot, value, _checks.message(error, 1_000)) from error
        if not _same(value, back):
            raise self._refusal(
                slot,
                value,
                f"it would come back as {_checks.shown(back)}, "
                f"{_article(back)}; annotate it with its type, or pass something plainer",
            )

    def _refusal(self, slot: _Slot, value: Any, cause: str) -> NotSerializable:
        if slot.secret or _holds_secret(value):
            return NotSerializable(
                f"{slot.label} of job {self.name!r} cannot be stored: {MASK}, {_article(value)}: what is "
                "secret must be a Secret, and be annotated Secret[...] where the job takes it"
            )
        return NotSerializable(
            f"{slot.label} of job {self.name!r} cannot be stored: {_checks.shown(value)}, "
            f"{_article(value)}: {_checks.printable(cause)}{slot.trouble}"
        )

    def _bounded(self, text: str, largest: int) -> bytes | str:
        if len(text) <= DEEPEST:  # too short to be too large or too deep
            return text
        raw = text.encode("utf-8", "surrogatepass")
        if len(raw) > largest or too_deep(raw):
            raise ArgumentsMismatch(f"what is stored for {self.name!r} is too large or too deep")
        return raw

    def _decode(self, slot: _Slot, raw: bytes | str | msgspec.Raw) -> Any:
        try:
            return slot.decode(raw)
        except Exception as error:  # also what a class of the user's raises
            cause = "it is secret" if slot.secret else _checks.message(error, 1_000)
            raise ArgumentsMismatch(
                f"{slot.label} stored for {self.name!r} is not of its type (any more): {cause}"
            ) from (None if slot.secret else error)


_read_envelope = msgspec.json.Decoder(tuple[list[msgspec.Raw], dict[str, msgspec.Raw]])


def _envelope(raw: bytes | str) -> tuple[list[msgspec.Raw], dict[str, msgspec.Raw]]:
    return _read_envelope.decode(raw)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.unwrap(function), include_extras=True)
    except Exception:  # names that exist for type checkers only: then nothing is annotated
        return {}


def _exact(annotation: Any) -> frozenset[Any]:
    """The types whose every value comes back as it is, so that nothing needs to be tried."""
    if annotation is Any:
        return _ATOMS
    if annotation is None or (isinstance(annotation, type) and annotation in _ATOMS):
        return frozenset({type(None) if annotation is None else annotation})
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        parts = typing.get_args(annotation)
        if all(part in _ATOMS for part in parts):
            return frozenset(parts)
    return frozenset()


def _mentions_secret(annotation: Any) -> bool:
    """Whether values of this annotation are secret, or hold some that are."""
    parts = typing.get_args(annotation)
    return Secret in (annotation, typing.get_origin(annotation)) or any(
        map(_mentions_secret, parts)
    )


def _holds_secret(value: Any) -> bool:
    """Whether what is written for the value shows what a Secret in it does not."""
    try:
        return _encode(value) != msgspec.json.encode(value, enc_hook=_plain_but_secrets)
    except Exception:  # it cannot be written at all, so nothing was
        return False


def _plain_but_secrets(value: Any) -> Any:
    return MASK if isinstance(value, Secret) else _plain(value)


def _plain(value: Any) -> Any:
    """What JSON is to hold for a value that msgspec does not know."""
    if isinstance(value, Secret):
        return {"secret": cast("Secret[Any]", value).reveal()}
    if hasattr(value, "model_dump"):  # a pydantic model
        return value.model_dump(mode="json")
    raise TypeError(f"{_article(value)} has no form in JSON")


def _from_plain(kind: Any, plain: Any) -> Any:
    if kind is Secret or typing.get_origin(kind) is Secret:
        return _secret_from(kind, plain)
    validate = getattr(kind, "model_validate", None)
    if validate is not None:
        return validate(plain)
    raise TypeError(f"{kind!r} cannot be made from JSON")


def _secret_from(kind: Any, plain: Any) -> Secret[Any]:
    """A secret of the annotated type; what somebody else wrote down may lack the mark."""
    match plain:
        case {"secret": value, **rest} if not rest:
            plain = value
        case _:
            pass
    for annotation in typing.get_args(kind):
        plain = msgspec.convert(plain, annotation, dec_hook=_from_plain)
    return Secret(plain)


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def _short(value: Any) -> str | None:
    """What needs no check of its types as text, if it is too short to be too large or too deep."""
    try:
        raw = _encode(value)
    except Exception:  # the long way finds out what is wrong with it
        return None
    return raw.decode() if len(raw) <= DEEPEST else None


_encode_to_show = msgspec.json.Encoder(enc_hook=_plain_but_secrets).encode


def to_json(value: Any) -> bytes:
    """A value as JSON that is for others to see, whatever it would come back as: secrets are masked.

    Raises for what JSON has no word for.
    """
    return _encode_to_show(value)


def _same(sent: Any, back: Any) -> bool:
    """Whether a value came back as it was, types included."""
    kind = cast("Any", type(sent))
    if kind is not type(back):
        return kind is int and type(back) is float and bool(sent == back)
    compare = _COMPARE.get(kind)
    if compare is not None:
        return compare(sent, back)
    return sent is back if issubclass(kind, enum.Enum) else _same_parts(kind, sent, back)


def _same_items(sent: Any, back: Any) -> bool:
    return len(sent) == len(back) and all(
        _same(one, other) for one, other in zip(sent, back, strict=True)
    )


def _same_mapping(sent: Any, back: Any) -> bool:
    return _same_items(sent, back) and _same_items(sent.values(), back.values())


def _same_set(sent: Any, back: Any) -> bool:
    return {(type(one), one) for one in sent} == {(type(one), one) for one in back}


def _same_text(sent: Any, back: Any) -> bool:
    return str(sent) == str(back)


def _same_moment(sent: Any, back: Any) -> bool:
    return bool(sent == back) and sent.fold == back.fold and _same_zone(sent.tzinfo, back.tzinfo)


def _same_secret(sent: Any, back: Any) -> bool:
    return _same(sent.reveal(), back.reveal())


def _equal(sent: Any, back: Any) -> bool:
    return bool(sent == back)


def _same_zone(sent: Any, back: Any) -> bool:
    """A zone with clock changes does not survive as an offset, whatever the hour; UTC does."""
    return sent == back or str(sent) == str(back) == "UTC"


def _same_parts(kind: Any, sent: Any, back: Any) -> bool:
    """Compare field by field what has fields; anything else says itself whether it is equal."""
    names: Any = None
    for where in ("__struct_fields__", "__dataclass_fields__", "model_fields", "_fields"):
        names = names or getattr(kind, where, None)
    if names is None:
        return bool(sent == back)
    missing = object()
    pairs = [(getattr(sent, name, missing), getattr(back, name, missing)) for name in names]
    return all(one is other or _same(one, other) for one, other in pairs)


_COMPARE: Final[dict[Any, Callable[[Any, Any], bool]]] = {
    **dict.fromkeys((str, int, bool, float, type(None), bytes, bytearray), _equal),
    **dict.fromkeys((UUID, date, timedelta), _equal),
    **dict.fromkeys((list, tuple), _same_items),
    **dict.fromkeys((set, frozenset), _same_set),
    **dict.fromkeys((datetime, time), _same_moment),
    dict: _same_mapping,
    Secret: _same_secret,
    Decimal: _same_text,
}


def too_deep(raw: bytes) -> bool:
    """Whether lists and mappings are nested deeper than `DEEPEST` in this text, JSON or not."""
    if raw.count(b"[") + raw.count(b"{") <= DEEPEST:
        return False
    depth = 0
    for found in _STRUCTURE.finditer(raw):
        match found[0]:
            case b"[" | b"{":
                depth += 1
                if depth > DEEPEST:
                    return True
            case b"]" | b"}":
                depth -= 1
            case _:
                pass
    return False


def _article(value: Any) -> str:
    """The kind of a value, with its article."""
    name = _checks.printable(type(value).__qualname__)
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


# ---- errors


class StoredError(NamedTuple):
    """An error as data: the name of its class, its message, and where it was raised."""

    type: str
    message: str = ""
    traceback: str = ""
    notes: tuple[str, ...] = ()
    args: tuple[str | int | float | bool | None, ...] | None = None


class _ErrorOnTheWire(msgspec.Struct, omit_defaults=True):
    type: str
    message: str = ""
    traceback: str = ""
    notes: tuple[str, ...] = ()
    args: tuple[str | int | float | bool | None, ...] | None = None


_read_error = msgspec.json.Decoder(_ErrorOnTheWire)

_KNOWN: dict[str, type[Exception]] = {
    name: kind
    for source in (builtins, errors)
    for name, kind in vars(source).items()
    if isinstance(kind, type) and issubclass(kind, Exception)
}


def encode_error(error: BaseException) -> str:
    """An error as text: class name, message and traceback, shortened; no locals, no objects."""
    kept = _ErrorOnTheWire(
        _clean(type(error).__qualname__, LONGEST_MESSAGE),
        _message(error),
        _lines(error),
        _notes(error),
        _args(error),
    )
    with contextlib.suppress(Exception):  # an argument may be what JSON cannot hold
        raw = _encode(kept)
        if len(raw) <= 4 * (LONGEST_MESSAGE + LONGEST_TRACEBACK):
            return raw.decode("utf-8")
    kept.args = None
    return _encode(kept).decode("utf-8")


def _clean(text: str, longest: int) -> str:
    """Text that UTF-8 can hold, its middle left out if it is too long."""
    if len(text) > longest:
        text = f"{text[: longest // 2]} ... {text[-longest // 2 :]}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _notes(error: BaseException) -> tuple[str, ...]:
    """Its notes, the first ten; none if they are not what notes should be."""
    try:
        return tuple(_clean(str(note), 1_000) for note in [*getattr(error, "__notes__", ())][:10])
    except BaseException:  # anything can be assigned there
        return ()


def _args(error: BaseException) -> tuple[Any, ...] | None:
    """What it can be made of again, if that is plain enough."""
    try:
        args: tuple[Any, ...] = tuple(error.args)
        if isinstance(error, errors.AsyncworkersError):
            made: Any = error.__reduce__()  # what it is made of, which is more than its message
            args = tuple(made[1])
    except BaseException:  # a class may make of these what it likes
        return None
    return args if all(type(one) in _ATOMS or type(one) is float for one in args) else None


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException as trouble:
        text = f"<its str raised {_checks.kind_of(trouble)}>"
    return _clean(text, LONGEST_MESSAGE)


def _lines(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(error, limit=-MOST_FRAMES)
    except BaseException as trouble:
        lines = [f"<its traceback cannot be shown: {_checks.kind_of(trouble)}>"]
    return _clean("".join(lines), LONGEST_TRACEBACK)


def stored_error(text: str | None) -> StoredError:
    """An error as it was stored; what is not readable is shown as it is."""
    try:
        found = _read_error.decode(text or "")
    except msgspec.MsgspecError:
        return StoredError("unknown", _clean(text or "", LONGEST_MESSAGE))
    return StoredError(found.type, found.message, found.traceback, found.notes, found.args)


def stored_summary(text: str | None) -> str:
    """A stored error's class and message, as in `ValueError: bad`: short and printable."""
    stored = stored_error(text)
    whole = f"{stored.type}: {stored.message}" if stored.message else stored.type
    return _checks.cut(_checks.printable(_checks.discreet(whole)), 200)


def rebuild_error(text: str | None, known: Iterable[type[Exception]] = ()) -> Exception:
    """The exception that stands for a stored error where it is awaited.

    It is of the original class if that is a builtin one, one of ours, or among `known`, and can be
    made from what was stored; JobFailed otherwise. Nothing is ever looked up by import. The
    traceback of the original, as text, is added as a note.
    """
    stored = stored_error(text)
    kinds = {**_KNOWN, **{kind.__qualname__: kind for kind in known}}
    error = _made(kinds.get(stored.type), stored)
    if error is None:
        error = JobFailed(f"{stored.type}: {stored.message}")
    for note in stored.notes:
        _checks.note(error, note)
    if stored.traceback:
        _checks.note(error, stored.traceback)
    return error


def _made(kind: type[Exception] | None, stored: StoredError) -> Exception | None:
    """An exception of this class that says what the stored one said, if it can be made."""
    if kind is None:
        return None
    for args in (stored.args, (stored.message,)):
        if args is not None:
            with contextlib.suppress(Exception):
                error = kind(*args)
                if str(error) == stored.message:
                    return error
    with contextlib.suppress(Exception):  # a class that wants more than its message: JobTimedOut
        error = kind.__new__(kind, stored.message)
        error.args = (stored.message,)
        if str(error) == stored.message:
            return error
    return None


assert CODEC == "json/1"  # what is written here: change it if this changes
