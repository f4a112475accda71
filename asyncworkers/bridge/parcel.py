"""Packs calls for another process: a function and its arguments, as the caller left them."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, ContextVar
from functools import partial
from typing import Any, TypeAlias, cast

from asyncworkers import _checks
from asyncworkers.bridge.child.chunk import CHUNKED
from asyncworkers.bridge.child.freight import Freight, pack, pack_call, pack_small
from asyncworkers.bridge.child.trouble import AT_ONCE, Way, dumps_freely
from asyncworkers.bridge.heavy import LIGHT, LIGHTLY, Gently, TooMuch, dumps_light
from asyncworkers.bridge.steps import Heavy, Step
from asyncworkers.errors import NotSerializable
from asyncworkers.function import name_of
from asyncworkers.job import running

__all__ = [
    "UNKNOWN",
    "Cargo",
    "ChunkCargo",
    "Parcel",
    "Unsent",
    "Version",
    "cargo_of",
    "find_function",
    "pickled_call",
]

UNKNOWN = 1.0
"""Seconds that a job is taken to last while nobody knows."""

SHORT = 4096
"""Characters or bytes of a text that may travel unpickled."""

NUMBERS = frozenset({int, float, bool, complex, type(None)})
TEXTS = frozenset({str, bytes})


class Version:
    """A function as it was at some time: its number, how a child finds it, how long its jobs take."""

    __slots__ = ("definition", "facts", "number", "took")

    def __init__(self, number: int, definition: Any, took: float = UNKNOWN) -> None:
        self.number = number
        self.definition = definition
        self.took = took  # seconds, as the last jobs did

    def learn(self, seconds: float) -> None:
        """A job of it took so long."""
        if self.took == UNKNOWN:
            self.took = seconds
        else:
            self.took += (seconds - self.took) * 0.25


Parcel: TypeAlias = tuple[Version, Any]
"""A call: its function's version and the arguments, plain ones as a tuple, others pickled with what
goes with them, and as Freight if there is big data in them or the pickle is long."""

_numbers = itertools.count(1)


class Cargo:
    """A function whose jobs run in processes.

    - What a child can import under its name is sent as its name.
    - Other functions are pickled by value, once: functions of `__main__`, lambdas, closures. They
      are pickled anew, under a new number, when something they refer to by name has been replaced
      since: a notebook cell was run again. What was changed in place is not noticed.
    - Anything else that can be called (a bound method, a partial, an object) may hold anything, so
      it travels with each job.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._carried = False
        self._references: list[tuple[Any, Any, Any]] = []  # namespace, name, what it meant
        found = _reference(function)
        if found is not None:
            self._version = Version(next(_numbers), found)
        elif isinstance(function, types.FunctionType):
            self._version = Version(next(_numbers), None)
        else:
            self._carried = True
            self._version = Version(0, None)

    def pack(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        context: Context | None,
        light: bool = False,
    ) -> Parcel:
        """Pack a call. Raises NotSerializable, naming the function and the argument.

        With `light` it takes a few milliseconds at most, and raises Heavy if that is not enough.
        """
        version = self._version
        if version.definition is None or self._references:
            version = self._present_version()
        if not kwargs and context is None and not self._carried:
            for arg in args:
                kind = arg.__class__
                if kind not in NUMBERS and (kind not in TEXTS or len(arg) > SHORT):
                    break
            else:
                return version, args
        return version, self._pickle(version, args, kwargs or {}, context, light)

    @property
    def travels_alone(self) -> bool:
        """Whether the function is sent once, apart from the arguments of its jobs."""
        return not self._carried

    def pack_anything(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        context: Context | None,
        light: bool = False,
    ) -> Parcel:
        """As `pack`, without looking for arguments that need not be pickled."""
        version = self.present_version()
        return version, self._pickle(version, args, kwargs or {}, context, light)

    def present_version(self) -> Version:
        """The function as it is now. Raises NotSerializable if it cannot be pickled."""
        if self._version.definition is None or self._references:
            return self._present_version()
        return self._version

    def _present_version(self) -> Version:
        if self._carried:
            return self._version
        if self._version.definition is None or any(
            _meaning(space, name) is not value for space, name, value in self._references
        ):
            try:
                definition = dumps_freely(self.function)
            except Exception as error:
                raise NotSerializable(
                    f"function {name_of(self.function)} cannot be pickled: {_said(error)}"
                ) from error
            self._references = list(_references(self.function))
            self._version = Version(next(_numbers), definition, self._version.took)
        return self._version

    def _pickle(
        self,
        version: Version,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None,
        light: bool,
    ) -> bytes | Freight:
        if self._carried:
            args = (self.function, *args)
        variables = () if context is None else _variables(context)
        try:
            dumps = dumps_light if light else None
            given = (*args, *kwargs.values()) if kwargs else args
            small = pack_small((args, kwargs, variables), given, dumps)
            if small is not None and b"__main__" not in small:
                return small if len(small) <= LIGHT else Freight(small, [])
            return self._pack_call(args, kwargs, variables, LIGHTLY if light else AT_ONCE)
        except TooMuch:
            raise Heavy(version, partial(self._pack_gently, args, kwargs, variables)) from None

    def _pack_gently(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], variables: Any, step: Step
    ) -> bytes | Freight:
        return self._pack_call(args, kwargs, variables, Gently(step))

    def _pack_call(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], variables: Any, way: Way
    ) -> bytes | Freight:
        try:
            freight = pack_call(args, kwargs, variables, way=way)
        except Exception as error:
            named: list[tuple[Any, Any]] = [
                *enumerate(args, 0 if self._carried else 1),
                *kwargs.items(),
            ]
            raise _refusal(name_of(self.function), named, error, way) from error
        return freight if freight.pieces or len(freight.stream) > LIGHT else freight.stream


def _refusal(
    name: str, named: Iterable[tuple[Any, Any]], error: Exception, way: Way = AT_ONCE
) -> NotSerializable:
    """The error that says which part of a call cannot be pickled; the function itself is part 0."""
    for place, value in named:
        try:
            pack(value, way)
        except Exception as trouble:
            what = f"argument {place!r}" if place else "the function itself"
            return NotSerializable(
                f"{what} of {name} cannot be pickled, a {_checks.printable(type(value).__name__)}: "
                f"{_said(trouble)}"
            )
    return NotSerializable(f"the arguments of {name} cannot be pickled: {_said(error)}")


class Unsent(NotSerializable):
    """Not all items of a chunk can be pickled, so none was sent."""


class ChunkCargo:
    """A function whose jobs are chunks: it is called for each of the items that one job carries,
    and its values may be reduced to one before they come back.
    """

    def __init__(
        self, function: Callable[..., Any], reducer: Callable[[Any, Any], Any] | None = None
    ) -> None:
        self._cargo = cargo_of(function)
        self._reducer = None if reducer is None else cargo_of(reducer)
        self._version = Version(0, None)
        self._of: tuple[Version | None, Version | None] = None, None  # what it stands for

    def pack(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        context: Context | None,
        light: bool = False,
    ) -> Parcel:
        """Pack a chunk. Raises what `Cargo.pack` does, or Unsent if there are several items."""
        several = len(args[0]) > 1
        try:
            version, packed = self._cargo.pack_anything(args, kwargs, context, light)
        except Heavy as heavy:
            heavy.version = self._present_version(heavy.version)
            if several:
                heavy.pack = partial(_pack_several, heavy.pack)
            raise
        except NotSerializable as error:
            raise (Unsent(str(error)) if several else error) from error.__cause__
        return self._present_version(version), packed

    def _present_version(self, version: Version) -> Version:
        reducer = None if self._reducer is None else self._reducer.present_version()
        if (version, reducer) != self._of:
            self._of = version, reducer
            parts = (version,) if reducer is None else (version, reducer)
            definition = (CHUNKED, *(part.definition for part in parts))
            self._version = Version(next(_numbers), definition, self._version.took)
        return self._version


def _pack_several(pack: Callable[[Step], Any], step: Step) -> Any:
    try:
        return pack(step)
    except NotSerializable as error:
        raise Unsent(str(error)) from error.__cause__


def cargo_of(function: Callable[..., Any]) -> Cargo:
    """The cargo of a function, the same for all who submit it, as long as it is in use."""
    cargo = _recent.pop(id(function), None)
    if cargo is None or cargo.function is not function:
        cargo = Cargo(function)
    _recent[id(function)] = cargo
    if len(_recent) > RECENT:
        del _recent[next(iter(_recent))]
    return cargo


def pickled_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bytes:
    """A call as one pickle, for those who carry calls in ways of their own.

    Raises NotSerializable, naming the function and the argument.
    """
    place = _reference(function)
    sent: Any = function
    if place is not None and _look_up(*place) is not function:
        sent = _Named(place)
    try:
        return dumps_freely((sent, args, kwargs))
    except Exception as error:
        named: list[tuple[Any, Any]] = [*enumerate((sent, *args)), *kwargs.items()]
        raise _refusal(name_of(function), named, error) from error


class _Named:
    """Stands in a pickle for the function that is found there under the name of its JobFunction."""

    def __init__(self, place: tuple[str, str]) -> None:
        self._place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return find_function, self._place


def find_function(module: str, qualname: str) -> Any:
    """The function that `@job` has wrapped under this name."""
    importlib.import_module(module)
    return _look_up(module, qualname).function


RECENT = 256
"""Functions that are remembered, with the numbers they were sent under."""

_recent: dict[int, Cargo] = {}


def _said(error: Exception) -> str:
    return _checks.summary(error, 300)


def _reference(function: Any) -> tuple[str, str] | None:
    """Module and name by which a child will find the very function; None if it cannot."""
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not isinstance(module, str) or module == "__main__" or not isinstance(qualname, str):
        return None
    found = _look_up(module, qualname)
    unwrapped = getattr(found, "function", None) if hasattr(found, "policies") else None
    return (module, qualname) if found is function or unwrapped is function else None


def _look_up(module: str, qualname: str) -> Any:
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def _references(function: Any) -> Iterator[tuple[Any, Any, Any]]:
    """What a function pickled by value refers to: globals by name, cells, and so on through the
    functions among these that are pickled by value too.
    """
    seen: set[int] = set()
    waiting: list[Any] = [function]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        found: list[tuple[Any, Any, Any]] = [
            (one.__globals__, name, one.__globals__[name])
            for name in _names(one.__code__)
            if name in one.__globals__
        ]
        found += [(cell, None, _meaning(cell, None)) for cell in one.__closure__ or ()]
        found.append((one, "__code__", one.__code__))
        found.append((one, "__defaults__", one.__defaults__))
        found.append((one, "__kwdefaults__", one.__kwdefaults__))
        yield from found
        for _, _, value in found:
            inner = getattr(value, "function", value) if hasattr(value, "policies") else value
            if isinstance(inner, types.FunctionType) and _reference(inner) is None:
                waiting.append(inner)


def _names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


def _meaning(space: Any, name: Any) -> Any:
    """What a name means in a namespace now, or what a cell holds."""
    if type(space) is dict:
        return cast("dict[Any, Any]", space).get(name, _NOTHING)
    if isinstance(space, types.CellType):
        try:
            return space.cell_contents
        except ValueError:  # it is empty
            return _NOTHING
    return getattr(space, name, _NOTHING)


_NOTHING = object()


def _variables(context: Context) -> list[tuple[Any, Any]]:
    """The context variables that can travel, with their values; the others are left behind.

    A variable travels as the name under which its module has it.
    """
    found: list[tuple[Any, Any]] = []
    for variable, value in context.items():
        place = None if variable is running else _place_of(variable)
        if place is not None:
            with contextlib.suppress(Exception):  # it cannot be pickled
                found.append((place, dumps_freely(value)))
    return found


def _place_of(variable: ContextVar[Any]) -> tuple[str, str] | None:
    """The module and the name a variable has there, if it has any."""
    if variable not in _places:
        if len(_places) > RECENT:
            _places.clear()
        _places[variable] = next(
            (
                (module, name)
                for module, holder in tuple(sys.modules.items())
                if module != "__main__"
                for name, value in tuple(getattr(holder, "__dict__", {}).items())
                if value is variable
            ),
            None,
        )
    return _places[variable]


_places: dict[ContextVar[Any], tuple[str, str] | None] = {}
