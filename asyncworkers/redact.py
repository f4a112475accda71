"""What may be shown of values that came from elsewhere: secrets masked, controls escaped, sizes bounded.

Whatever shows arguments, results or texts of jobs to people asks here: the command line, the
dashboard, the HTTP face. Errors, events and log lines are made safe where they are made, by the
same rules (`_checks.printable`).
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final, cast
from uuid import UUID

from asyncworkers import _checks
from asyncworkers.secret import MASK, Secret

__all__ = ["MASK", "arguments", "is_secret_name", "masked", "safe", "safe_url"]

SECRET_NAME: Final = re.compile(
    r"password|passwd|passphrase|secret|token|authorization|cookie|credential|api[_-]?key|private[_-]?key",
    re.IGNORECASE,
)
_PARAMETER = re.compile(r"(?P<name>[\w.-]+)=(?P<value>'(?:[^'\\]|\\.)*'|[^\s&;]*)")

_READABLE = (date, datetime, time, timedelta, Decimal, Enum, PurePath, UUID)
_LEAVES = (str, bool, int, float, type(None), bytes, bytearray, *_READABLE)
_FIELDS = ("__struct_fields__", "__dataclass_fields__", "model_fields", "_fields")


def is_secret_name(name: object) -> bool:
    """Whether what goes by this name sounds secret: `password`, `api_key`, `x-auth-token`."""
    return SECRET_NAME.search(str(name)) is not None


def safe(text: str, limit: int | None = None, keep: str = "") -> str:
    """The text as it may be shown anywhere: on a terminal, in a log, in a page.

    What is not printable is escaped (controls, marks that turn the direction of writing, characters
    without width), the passwords of URLs are masked, and of a text longer than `limit` the rest is
    left out. `keep` names characters to leave, such as a newline.
    """
    return _checks.cut(_checks.printable(text, keep), limit)


def safe_url(url: str) -> str:
    """The address of a database or a service without its secrets, whether it is written as a URL or
    as `host=... password=...`.
    """

    def one(found: re.Match[str]) -> str:
        return f"{found['name']}={MASK}" if is_secret_name(found["name"]) else found[0]

    return _PARAMETER.sub(one, _checks.printable(url))


def masked(value: Any, *, depth: int = 6, items: int = 50, limit: int | None = 200) -> Any:
    """A value as it may be shown: the same in plain numbers, texts, lists and mappings.

    Every Secret is masked, and whatever goes by a name that sounds secret. Values with fields
    (dataclasses, Structs, pydantic models, named tuples) become mappings; of other objects only the
    kind is told, for nobody knows what their `repr` says. Of what is nested deeper than `depth`, of
    more than `items` in one place and of texts longer than `limit` the rest is left out; with a
    `limit` of None texts keep their newlines too, as for JSON.
    """
    try:
        return _masked(value, depth, items, limit)
    except Exception:  # a mapping or a field that raises when it is read
        return f"<{_checks.kind_of(value)}>"


def _masked(value: Any, depth: int, items: int, limit: int | None) -> Any:
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, _LEAVES):
        return _leaf(value, limit)
    if depth <= 0:
        return "..."
    found = _parts(value)
    if found is None:
        return f"<{_checks.kind_of(value)}>"
    left = len(found) - items
    if isinstance(found, list):
        shown = [_masked(one, depth - 1, items, limit) for one in found[:items]]
        return [*shown, f"... {left} more"] if left > 0 else shown
    named = {
        safe(str(key), limit): MASK
        if is_secret_name(key)
        else _masked(one, depth - 1, items, limit)
        for key, one in itertools.islice(found.items(), items)
    }
    return {**named, "...": f"{left} more"} if left > 0 else named


def _leaf(value: Any, limit: int | None) -> Any:
    if isinstance(value, str):
        return _checks.discreet(value) if limit is None else safe(value, limit)
    if isinstance(value, (bytes, bytearray)):
        return f"<{len(value)} bytes>"
    if isinstance(value, _READABLE):
        return safe(str(value), limit or 200)
    fits = type(value) is not int or value.bit_length() <= 64
    return value if fits else _checks.shown(value, limit or 200)


def _parts(value: Any) -> Mapping[Any, Any] | list[Any] | None:
    """What a value consists of, by name if the parts have names; None if that is its own affair."""
    if isinstance(value, Mapping):
        return cast("Mapping[Any, Any]", value)
    kind = cast("Any", type(value))
    names = next((found for where in _FIELDS if (found := getattr(kind, where, None))), None)
    if names is not None:
        return {name: getattr(value, name) for name in names if hasattr(value, name)}
    return list(cast("Any", value)) if isinstance(value, (list, tuple, AbstractSet)) else None


def arguments(
    function: Callable[..., Any], args: tuple[Any, ...] | list[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by the names of the parameters, each as it may be shown.

    What has no name is numbered, as `*0`; and what a parameter with a secret name gets is masked.
    """
    try:
        bound = inspect.signature(function).bind_partial(*args, **kwargs)
    except (TypeError, ValueError):  # a stored call that does not fit any more, or nothing to read
        numbered = {f"*{n}": one for n, one in enumerate(args)}
        return cast("dict[str, Any]", masked({**numbered, **kwargs}))
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        match bound.signature.parameters[name].kind:
            case inspect.Parameter.VAR_POSITIONAL:
                named |= {f"*{n}": one for n, one in enumerate(value)}
            case inspect.Parameter.VAR_KEYWORD:
                named |= value
            case _:
                named[name] = value
    return cast("dict[str, Any]", masked(named))
