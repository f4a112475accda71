"""Whether a function takes the arguments of a call: asked when a job is made of it, before it is accepted."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, cast

__all__ = ["ANY", "Arity", "arity_of"]

SHAPES = 256
"""Shapes of calls that are remembered of a function; then it is begun anew."""

OF_JOBS: set[str] = set()
"""Options of jobs, which are easily taken for arguments of `submit`; told by those who define them."""

DEEPEST = 10
"""How far it is followed what a callable calls."""


class Arity:
    """What a function takes. `fewest` and `most` are how many arguments without names it takes if there
    are no others; nothing fits between them if it needs some by name.
    """

    __slots__ = ("_fits", "_signature", "fewest", "most")

    def __init__(self, signature: inspect.Signature | None) -> None:
        self._signature = signature
        self._fits: set[tuple[object, ...]] = set()
        self.fewest, self.most = 0, sys.maxsize
        if signature is None:
            return
        self.most = 0
        for parameter in signature.parameters.values():
            required = parameter.default is parameter.empty
            match parameter.kind:
                case parameter.VAR_POSITIONAL:
                    self.most = sys.maxsize
                case parameter.KEYWORD_ONLY:
                    self.fewest = sys.maxsize if required else self.fewest
                case parameter.VAR_KEYWORD:
                    pass
                case _:
                    self.most += self.most < sys.maxsize
                    self.fewest += required and self.fewest < sys.maxsize

    def check(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError, naming the function, if it does not take these. Of calls that are alike, as
        many without names and the same names, only the first is looked at closely.
        """
        if self._signature is None:
            return
        shape = (len(args), *kwargs)
        if shape in self._fits:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            why = f"{error}{self._misplaced(kwargs)}"
            raise TypeError(f"{name}{self._shown()} cannot be called so: {why}") from None
        if len(self._fits) >= SHAPES:
            self._fits.clear()
        self._fits.add(shape)

    def _misplaced(self, kwargs: Mapping[str, Any]) -> str:
        """What to do about an option of the job among the arguments of the function."""
        assert self._signature is not None
        for key in kwargs:
            if key in OF_JOBS and key not in self._signature.parameters:
                return f"; {key} is an option of jobs: give it to @job(...) or .options(...)"
        return ""

    def _shown(self) -> str:
        """The parameters by name: a default may be secret, or break when it is shown."""
        assert self._signature is not None
        empty = inspect.Parameter.empty
        return str(
            inspect.Signature(
                [
                    one.replace(
                        annotation=empty, default=one.default if one.default is empty else DOTS
                    )
                    for one in self._signature.parameters.values()
                ]
            )
        )


class _Dots:
    """Stands for a default."""

    def __repr__(self) -> str:
        return "..."


DOTS = _Dots()

ANY = Arity(None)
"""That of a function which does not tell what it takes."""

_known: weakref.WeakKeyDictionary[Any, Arity] = weakref.WeakKeyDictionary()
_known_bound: weakref.WeakKeyDictionary[Any, Arity] = weakref.WeakKeyDictionary()
"""What methods take, by their functions, which take one more."""


def arity_of(function: Callable[..., Any]) -> Arity:
    """What a function takes itself, whatever it wraps; ANY if that cannot be told.

    Never raises: to ask an object anything may run code of its own.
    """
    known, table = function, _known
    if isinstance(function, MethodType):  # made anew each time it is named
        known, table = function.__func__, _known_bound
    with contextlib.suppress(Exception):
        return table[known]
    arity = ANY
    with contextlib.suppress(Exception):  # some that are built in do not tell
        if not _says_otherwise(function):
            arity = Arity(inspect.signature(function, follow_wrapped=False))
    with contextlib.suppress(Exception):  # it cannot be remembered
        table[known] = arity
    return arity


def _says_otherwise(function: Any) -> bool:
    """Whether somebody has written down a signature for it, or for what it calls: that may be the one
    of something else.
    """
    for _ in range(DEEPEST):
        if hasattr(function, "__signature__"):
            return True
        if isinstance(function, functools.partial):
            function = cast("Any", function).func
        elif isinstance(function, MethodType):
            function = function.__func__
        elif isinstance(function, (FunctionType, BuiltinFunctionType, type)):
            return False
        else:
            function = type(function).__call__
    return True
