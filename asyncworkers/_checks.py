"""Checks of arguments: each returns the clean value or raises, naming argument and value."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Awaitable, Iterable
from datetime import datetime, timedelta
from typing import Any, cast

__all__ = [
    "cut",
    "discreet",
    "duration",
    "flag",
    "function_name",
    "iterable",
    "job_id",
    "kind_of",
    "message",
    "moment_or_duration",
    "nearest",
    "note",
    "number",
    "one_of",
    "printable",
    "queue_name",
    "shown",
    "summary",
    "tags",
    "text",
    "whole",
]

LONGEST = 10 * 366 * 86_400.0
"""No duration may exceed ten years, in seconds: longer ones are nearly always a wrong unit."""

LONGEST_PASSWORD = 1_024
"""Characters that are looked at to find the end of a password."""

_FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:<>-]{0,127}")
_QUEUE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")

# What follows the colon in the first part of a URL, up to the last @, is a password; or up to the end,
# for the text may have been cut there. A number is a port if the path or the end follows.
_PASSWORD = re.compile(
    r"""(://[^\s/?#@:"\[]{0,256}:)(?!\d{1,5}(?:[/?#,;)\s'"<>]|$))"""
    r"""(?:[^\s"]{1,1024}@|[^\s"]{1,1024}$)"""
)


def shown(value: object, limit: int = 80) -> str:
    """Show a value in an error message: short, on one line, and safe if its repr raises."""
    try:
        text = ascii(value)
    except BaseException as error:  # a hostile repr must not replace the error being reported
        kind = printable(type(value).__name__)
        text = f"<{kind} whose repr raised {kind_of(error)}>"
    return cut(discreet(text), limit)


def cut(text: str, limit: int | None) -> str:
    """The text, or as much of it as the limit allows."""
    return text if limit is None or len(text) <= limit else text[: limit - 3] + "..."


def discreet(text: str) -> str:
    """The text with the passwords of URLs masked, as in `postgresql://user:***@host/db`."""
    return _PASSWORD.sub(_without_password, text) if "://" in text else text


def _without_password(found: re.Match[str]) -> str:
    return f"{found[1]}***{'@' if found[0].endswith('@') else ''}"


def printable(text: str, keep: str = "") -> str:
    """The text with everything escaped that is not printable: controls, marks that turn the
    direction of writing, lone surrogates; `keep` names characters to leave. Passwords of URLs are
    masked.
    """
    text = discreet(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def kind_of(value: object) -> str:
    """The printable name of an error's class, or of any other value's."""
    return printable(type(value).__name__)


def message(error: BaseException, limit: int = 200) -> str:
    """What an error says: short, printable, safe if its `__str__` raises."""
    try:
        text = discreet(str(error)[: limit + LONGEST_PASSWORD])[: limit + 1]
    except BaseException as trouble:
        text = f"<its message raised {kind_of(trouble)}>"
    return cut(printable(text), limit)


def summary(error: BaseException, limit: int = 200) -> str:
    """An error's class and message, as in `ValueError: bad`: short, printable, safe if it raises."""
    said = message(error, limit)
    return cut(f"{kind_of(error)}: {said}" if said else kind_of(error), limit)


def note(error: BaseException, text: str) -> None:
    """Add a note to an error once, if it takes notes: one of a frozen class, say, does not."""
    with contextlib.suppress(Exception):
        if text not in getattr(error, "__notes__", ()):  # the same object may fail many attempts
            BaseException.add_note(error, text)


def whole(argument: str, value: Any, low: int, high: int) -> int:
    """A whole number within bounds; a bool or a float is a mistake, not a number."""
    if type(value) is not int:
        raise TypeError(f"{argument} must be an int, not {shown(value)}")
    if not low <= value <= high:
        raise ValueError(f"{argument} must be between {low} and {high}, not {shown(value)}")
    return value


def duration(argument: str, value: Any, *, zero: bool = True) -> float:
    """Seconds as a float, from a number or a timedelta: finite, not negative, at most ten years."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
    else:
        raise TypeError(f"{argument} must be seconds or a timedelta, not {shown(value)}")
    if not (0 <= seconds <= LONGEST) or (seconds == 0 and not zero):
        least = "0" if zero else "more than 0"
        raise ValueError(f"{argument} must be {least} to {LONGEST:.0f} seconds, not {shown(value)}")
    return seconds


def moment_or_duration(argument: str, value: Any) -> float | datetime:
    """Seconds from now, or an aware datetime; a naive one is refused, it names no instant."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError(f"{argument} must be an aware datetime, not {shown(value)}")
        return value
    return duration(argument, value)


def _name(argument: str, value: object, rule: re.Pattern[str]) -> str:
    name = text(argument, value)
    if not rule.fullmatch(name):
        raise ValueError(f"{argument} must match {rule.pattern}, not {shown(value)}")
    return name


def text(argument: str, value: object) -> str:
    """Any text."""
    if type(value) is not str:
        raise TypeError(f"{argument} must be a str, not {shown(value)}")
    return value


def function_name(argument: str, value: Any) -> str:
    """The name of a job function: letters, digits and `_.:<>-`, at most 128."""
    return _name(argument, value, _FUNCTION_NAME)


def queue_name(argument: str, value: Any) -> str:
    """The name of a queue: lower-case letters, digits and `_.-`, at most 64."""
    return _name(argument, value, _QUEUE_NAME)


def job_id(argument: str, value: Any) -> str:
    """The id of a job: 1 to 128 printable characters."""
    found = text(argument, value)
    if not (1 <= len(found) <= 128 and found.isprintable()):
        raise ValueError(f"{argument} must be 1 to 128 printable characters, not {shown(value)}")
    return found


def tags(argument: str, value: Any) -> tuple[str, ...]:
    """Up to 16 printable tags of 1 to 64 characters each."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(
            f"{argument} must be an iterable of str, such as ('a', 'b'), not {shown(value)}"
        )
    found = tuple(cast("Iterable[Any]", value))
    if len(found) > 16:
        raise ValueError(f"{argument} must hold at most 16 tags, not {len(found)}")
    for tag in found:
        if type(tag) is not str:
            raise TypeError(f"{argument} must hold str only, not {shown(tag)}")
        if not (1 <= len(tag) <= 64 and tag.isprintable()):
            raise ValueError(f"{argument} must hold 1 to 64 printable characters, not {shown(tag)}")
    return found


def flag(argument: str, value: Any) -> bool:
    """True or False, nothing that is merely truthy."""
    if type(value) is not bool:
        raise TypeError(f"{argument} must be a bool, not {shown(value)}")
    return value


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelled name: the nearest known ones."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"known are {', '.join(map(repr, names))}{hint}"


def one_of(argument: str, value: Any, allowed: tuple[str, ...]) -> str:
    """One of a few words."""
    if type(value) is not str:
        raise TypeError(f"{argument} must be a str, not {shown(value)}")
    if value not in allowed:
        raise ValueError(
            f"{argument} must be one of {', '.join(map(repr, allowed))}, not {shown(value)}"
        )
    return value


def number(argument: str, value: Any) -> float:
    """A finite number; bools and texts are mistakes."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{argument} must be a number, not {shown(value)}")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an int that no float can hold, and nobody can show
        finite = False
    if not finite:
        raise ValueError(f"{argument} must be finite, not {shown(value)}")
    return value


def iterable(argument: str, value: Any, accepted: str = "an iterable") -> Iterable[Any]:
    """Something to iterate that is no text, and nothing to be awaited first."""
    if isinstance(value, (str, bytes, Awaitable)) or not isinstance(value, Iterable):
        raise TypeError(f"{argument} must be {accepted}, not {shown(cast('object', value))}")
    return cast("Iterable[Any]", value)
