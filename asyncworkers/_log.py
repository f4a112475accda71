"""What is said to the log: lines that cannot be forged or flooded, and never raise."""

from __future__ import annotations

import contextlib
import logging
import sys
import textwrap
import traceback

from asyncworkers import _checks

__all__ = ["Log", "log"]

LONGEST = 32_768
"""Characters of a traceback that are logged; of more, the beginning and the end."""

DEEPEST = 50
"""Frames of a traceback that are logged."""


class Log:
    """The logger "asyncworkers" as the rooms use it.

    Control characters in what is logged are escaped, for it may come from anywhere. A handler that
    raises is the log's own trouble: it must not end the worker that had something to say.
    """

    def __init__(self) -> None:
        self._logger = logging.getLogger("asyncworkers")

    def info(self, message: str, *args: object) -> None:
        """Something that went as it should."""
        self._say(logging.INFO, message, args)

    def warning(self, message: str, *args: object) -> None:
        """Something to look at, which is dealt with already."""
        self._say(logging.WARNING, message, args)

    def error(self, message: str, *args: object) -> None:
        """Something went wrong."""
        self._say(logging.ERROR, message, args)

    def critical(self, message: str, *args: object) -> None:
        """It cannot go on."""
        self._say(logging.CRITICAL, message, args)

    def failure(self, message: str, error: BaseException | None) -> None:
        """Something went wrong, with the error's traceback, indented so that it forges no line.

        An error too hostile to be shown is named at least.
        """
        if error is None:
            self._say(logging.ERROR, "%s", (message,))
        else:
            self._say(logging.ERROR, "%s\n%s", (message, _shown(error)))

    def _say(self, level: int, message: str, args: tuple[object, ...]) -> None:
        safe = tuple(_checks.printable(a, "\n\t") if isinstance(a, str) else a for a in args)
        try:
            self._logger.log(level, message, *safe, stacklevel=3)
        except Exception as trouble:
            with contextlib.suppress(Exception):
                kind = type(trouble).__name__
                sys.stderr.write(f"a log handler raised {kind}; unsaid: {message % safe}\n")


def _shown(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error, limit=DEEPEST)).rstrip()
    except BaseException as trouble:  # also RecursionError, in a repr of its own
        kinds = _checks.kind_of(error), _checks.kind_of(trouble)
        text = "{}, which could not be shown: {}".format(*kinds)
    if len(text) > LONGEST:
        half, left = LONGEST // 2, len(text) - LONGEST
        text = f"{text[:half]}\n... {left} characters left out ...\n{text[-half:]}"
    return textwrap.indent(text.replace("\r", "\\r"), "  ")


log = Log()
