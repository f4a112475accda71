"""An exception as data, so that it reaches the parent whatever pickle makes of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from io import BytesIO
from types import CodeType, SimpleNamespace

from . import pickling as pickle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["AT_ONCE", "Described", "Way", "describe", "dumps_freely", "freely", "unpicklable"]

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep

PLAIN = (str, bytes, int, float, bool, type(None))

LONGEST = 32_768
"""Characters of a traceback that travel."""

Described = tuple[bytes | None, str, str, str]
"""The pickled exception if it survives the journey, the name of its class, its text, its traceback."""


def describe(error: BaseException) -> bytes:
    """The exception as pickled data, with its traceback but for the frames that are ours."""
    import traceback

    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}"
    message = _text(error)
    try:
        lines = traceback.format_exception(kind, error, trace)
        text = "".join(lines)[-LONGEST:]
    except BaseException:
        text = f"{name}: {message}\n"
    described: Described = (_pickled(error), name, message, text)
    return pickle.dumps(described, 5)


def unpicklable(value: object, error: BaseException) -> bytes:
    """What to say of a value that cannot be pickled, and of why, as `describe` would."""
    text = f"{type(value).__name__}: {type(error).__name__}: {_text(error)}"
    return pickle.dumps((None, _UNPICKLABLE, text, ""), 5)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # a hostile __str__ must not hide the error
        return "<its text cannot be had>"


_UNPICKLABLE = "asyncworkers.errors.NotSerializable"


class Way:
    """How to pickle: at once. Others may do it in other ways."""

    def dumps(
        self, module: Any, value: object, apart: Callable[[pickle.PickleBuffer], Any] | None = None
    ) -> bytes:
        """Pickle the value by this module, pickle or cloudpickle; `apart` is asked of each buffer."""
        return bytes(module.dumps(value, protocol=5, buffer_callback=apart))

    def names_main(self, data: bytes) -> bool:
        """Whether the pickle that was made last, which is this, names anything of `__main__`."""
        return b"__main__" in data


AT_ONCE = Way()


def dumps_freely(value: object) -> bytes:
    """Pickle a value; by cloudpickle if pickle cannot name what it is made of."""
    return freely(lambda module: AT_ONCE.dumps(module, value))


def freely(dump: Callable[[Any], bytes], way: Way = AT_ONCE) -> bytes:
    """Have `dump` pickle by the module it is given: pickle, or cloudpickle if that one fails."""
    try:
        data = dump(pickle)
        if not way.names_main(data):
            return data
    except Exception:  # cloudpickle may know better, and says it better if not
        data = b""
    try:
        by_value = _by_value()
    except ImportError:
        return dump(pickle)
    return dump(by_value)


@cache
def _by_value() -> Any:
    """What pickles as cloudpickle does, except that code keeps the name of its file, for tracebacks."""
    cloudpickle: Any = __import__("cloudpickle")
    table = cloudpickle.Pickler.dispatch_table
    reduce_code = table[CodeType]

    def reduce(code: CodeType) -> tuple[Any, ...]:
        make, parts = reduce_code(code)
        return make, tuple(code.co_filename if part == _NO_FILE else part for part in parts)

    names = {"dispatch_table": table.new_child({CodeType: reduce})}
    pickler: Any = type("Pickler", (cloudpickle.Pickler,), names)

    def dumps(value: object, **options: Any) -> bytes:
        file = BytesIO()
        pickler(file, **options).dump(value)
        return file.getvalue()

    return SimpleNamespace(Pickler=pickler, dumps=dumps)


_NO_FILE = "<dynamic-code>"
"""What cloudpickle says of code instead of the name of its file."""


def _pickled(error: BaseException) -> bytes | None:
    """The pickled exception, if making it anew gives the same one."""
    try:
        data = dumps_freely(error)
        again: Any = pickle.loads(data)  # our own, to see whether it can be done
        if type(again) is type(error) and _same(again.args, error.args):
            return data
    except BaseException:  # whatever it is, it would hit the parent as well
        return None
    return None


def _same(some: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    """Whether two tuples of arguments agree as far as that is easily said."""
    return len(some) == len(others) and all(
        type(one) is type(other) and (one == other or type(one) not in PLAIN)
        for one, other in zip(some, others, strict=True)
    )
