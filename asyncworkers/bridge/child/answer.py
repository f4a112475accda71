"""The other end of a bridge that carries one call at a time as bytes, and its end back the same way."""

from __future__ import annotations

from collections.abc import Callable

from . import pickling as pickle
from .trouble import describe, dumps_freely, unpicklable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["answer"]


def answer(call: bytes) -> bytes:
    """Run a pickled `(function, args, kwargs)`; whether it succeeded and its value, or its error.

    Raises nothing, whatever the call does.
    """
    function: Callable[..., Any]
    try:
        function, args, kwargs = pickle.loads(call)  # from whoever started us
        del call
        value = function(*args, **kwargs)
    except BaseException as error:
        return pickle.dumps((False, describe(error)), 5)
    try:
        return dumps_freely((True, value))
    except BaseException as error:
        return pickle.dumps((False, unpicklable(value, error)), 5)
