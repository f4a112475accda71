"""A record is a frozen value with named fields: quick to define and quick to make."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, NoReturn, Self, dataclass_transform

__all__ = ["Record", "fields"]


class _RecordType(type):
    """Makes the fields of a record class of its annotations.

    A frozen dataclass does the same, but it compiles six methods for each class, which is what an
    import would mostly consist of, and sets each field of each instance by a call.
    """

    _fields: tuple[str, ...]
    _defaults: dict[str, Any]

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> _RecordType:
        body.setdefault("__slots__", ())
        cls = super().__new__(mcs, name, bases, body)
        names: tuple[str, ...] = getattr(cls, "_fields", ())
        defaults: dict[str, Any] = dict(getattr(cls, "_defaults", {}))
        if bases:  # what Record itself annotates is no field
            for field in inspect.get_annotations(cls):
                if field in body:
                    defaults[field] = body[field]
                if field not in names:
                    names += (field,)
                setattr(cls, field, _reader(names.index(field)))
        cls._fields, cls._defaults = names, defaults
        return cls

    @property
    def __match_args__(cls) -> tuple[str, ...]:
        return cls._fields

    @property
    def __signature__(cls) -> inspect.Signature:
        """How the class is called, for `help` and for what is wrong with a call."""
        if "__init__" in vars(cls):
            raise AttributeError("__init__ tells")  # so that `inspect` asks there
        default, none, either = cls._defaults.get, inspect.Parameter.empty, _EITHER
        return inspect.Signature(
            [inspect.Parameter(name, either, default=default(name, none)) for name in cls._fields]
        )


_EITHER = inspect.Parameter.POSITIONAL_OR_KEYWORD


def _reader(place: int) -> property:
    return property(lambda record: record._values[place])


@dataclass_transform(frozen_default=True)
class Record(metaclass=_RecordType):
    """The base of frozen values: a subclass annotates its fields, in order, and may give defaults.

    Its instances are made with the fields' values in that order, or by name. They are equal if
    they are of one class and their fields are, hashable if their fields are, can be matched by
    position, copied and pickled. All values of an instance stand in one tuple.

    A subclass that has to look at the values first defines an `__init__` with a parameter for each
    field, and hands all of them on in order.
    """

    __slots__ = ("_values",)
    _fields: ClassVar[tuple[str, ...]]
    _values: tuple[Any, ...]

    def __init__(self, *values: Any, **named: Any) -> None:
        if named or len(values) != len(self._fields):
            values = _in_order(type(self), values, named)
        _keep(self, values)

    def as_dict(self) -> dict[str, Any]:
        """The fields and their values, as to be logged or made JSON of."""
        return dict(zip(self._fields, self._values, strict=True))

    def replace(self, **changes: Any) -> Self:
        """The same with some fields changed. Raises TypeError for a field that does not exist."""
        return type(self)(**{**self.as_dict(), **changes})

    __replace__ = replace  # what `copy.replace` calls from Python 3.13 on

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Record) and other.__class__ is self.__class__:
            return self._values == other._values
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self.__class__, self._values))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.as_dict().items())
        return f"{type(self).__qualname__}({shown})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: {name!r} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: {name!r} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self._values)


_keep = vars(Record)["_values"].__set__


def _restored(kind: type[Record], values: tuple[Any, ...]) -> Record:
    """A record as it was, without asking its constructor again."""
    record = object.__new__(kind)
    _keep(record, values)
    return record


def fields(kind: type[Record]) -> tuple[str, ...]:
    """The names of a record class's fields, in order."""
    return kind._fields


def _in_order(
    kind: type[Record], values: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Any, ...]:
    """Put values given by name in their places and defaults in the others; raises TypeError."""
    names = kind._fields
    placed = names[: len(values)]
    given = {**kind._defaults, **dict(zip(placed, values, strict=False)), **named}
    if len(values) > len(names) or named.keys() & set(placed) or given.keys() != set(names):
        kind.__signature__.bind(*values, **named)  # says what is wrong
    return tuple([given[name] for name in names])
