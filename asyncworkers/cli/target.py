"""Finds what `module:name` names: a Supervisor in a module that is imported for it."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import TracebackType

import click

from asyncworkers import Supervisor

__all__ = ["find"]


def find(target: str, directory: str) -> Supervisor:
    """Import the module, with `directory` first on the path, and return its supervisor.

    Raises a usage error that says which part of it is wrong. If the module raises, its traceback
    is printed first.
    """
    module_name, colon, name = target.partition(":")
    parts = [*module_name.split("."), *name.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise _wrong(f"{target!r} is not of the form module:supervisor.")
    sys.path.insert(0, str(Path(directory).resolve()))
    found: object = _imported(module_name, directory)
    module = vars(found)
    for part in name.split("."):
        if not hasattr(found, part):
            others = [key for key, value in module.items() if isinstance(value, Supervisor)]
            known = f" It has {', '.join(map(repr, others))}." if others else ""
            raise _wrong(f"{module_name!r} has no supervisor {name!r}.{known}")
        found = getattr(found, part)
    if not isinstance(found, Supervisor):
        kind = type(found).__name__
        raise _wrong(f"{target!r} is no Supervisor but of type {kind!r}.")
    return found


def _imported(name: str, directory: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise _wrong(
                f"there is no module {missing!r} in {directory!r}, nor is it installed."
            ) from None
        _show(error)
        raise _wrong(f"{name!r} cannot be imported: it needs {missing!r}.") from None
    except Exception as error:
        _show(error)
        raise _wrong(f"{name!r} cannot be imported: it raised {type(error).__name__}.") from None


def _show(error: Exception) -> None:
    """Print the traceback of what a module raised, from where its own code begins."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


def _is_machinery(file: str) -> bool:
    return file in (__file__, importlib.__file__) or file.startswith("<frozen importlib")


def _wrong(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="MODULE:SUPERVISOR")
