"""What went wrong in another process, made an exception again in this one."""

from __future__ import annotations

import linecache
import pickle
import re
import signal
from typing import Any

from asyncworkers import _checks
from asyncworkers.errors import JobFailed, NotSerializable, WorkerCrashed

__all__ = ["ChildTraceback", "crashed", "rebuild", "said_of", "unready"]


PLACE = re.compile(r'  File "(.+)", line (\d+), in ')


class ChildTraceback(Exception):
    """The cause of an error that a job raised in another process: its traceback there, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}" if self.args else ""


def rebuild(described: Any) -> BaseException:
    """The exception a child described, with its traceback there as the cause.

    What could not be made anew comes as a JobFailed that tells its class and text.
    """
    pickled, name, message, text = pickle.loads(described)  # noqa: S301  # of our child
    error: BaseException
    if pickled is not None:
        error = pickle.loads(pickled)  # noqa: S301  # the child has tried it
        if not isinstance(error, BaseException):
            raise TypeError(f"a child raised a {type(error).__name__}")
    elif name == f"{NotSerializable.__module__}.{NotSerializable.__qualname__}":
        error = NotSerializable(f"the value it returned cannot be pickled, a {message}")
    else:
        kind = _checks.printable(name)
        error = JobFailed(f"{kind}: {_checks.printable(message)}")
        _checks.note(
            error,
            f"pickle cannot make this {kind} anew: let its args be what its __init__ takes, or "
            "give it a __reduce__",
        )
    if text:
        error.__cause__ = ChildTraceback(_with_lines(text))
    return error


def _with_lines(text: str) -> str:
    """The traceback with the lines of code that only this process knows: those of a notebook's cells."""
    lines = text.split("\n")
    for at in range(len(lines) - 1, 0, -1):
        place = PLACE.match(lines[at - 1])
        if place and not lines[at].startswith("    ") and place[1] in linecache.cache:
            code = linecache.getline(place[1], int(place[2])).strip()
            lines.insert(at, f"    {code}")
    return "\n".join(lines)


def said_of(exit_code: int | None) -> str:
    """How a process ended, in words."""
    if exit_code is None:
        return "it ended in an unknown way"
    if exit_code >= 0:
        return f"it ended by itself with exit code {exit_code}"
    try:
        return f"it was ended by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"it was ended by signal {-exit_code}"


def unready(name: str, how: str, exit_code: int | None, last_words: str) -> WorkerCrashed:
    """The error of a job for which no process could be made ready."""
    text = f"no process could be made ready to run {name}: {how}"
    return WorkerCrashed(text, exit_code, last_words)


def crashed(
    name: str, exit_code: int | None, last_words: str, cause: str | None = None
) -> WorkerCrashed:
    """The error of a job whose process is gone."""
    how = cause or said_of(exit_code)
    text = f"the process that ran {name} is gone: {how}"
    return WorkerCrashed(text, None if cause else exit_code, last_words)
