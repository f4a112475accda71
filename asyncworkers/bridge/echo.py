"""Says here what was said in a child: log records and warnings, each with the job it belongs to."""

from __future__ import annotations

import logging
import marshal
from typing import Any

from asyncworkers import _checks
from asyncworkers._log import log
from asyncworkers._overheard import overheard

__all__ = ["levels", "say"]


def levels() -> dict[str, int]:
    """The levels of all loggers that have one of their own, by name, the root's as "".

    Children drop what these would drop, before anything is paid for it.
    """
    least = logging.root.manager.disable + 1
    found = {"": max(least, logging.root.level)}
    for name, logger in tuple(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and (logger.disabled or logger.level):
            found[name] = SILENT if logger.disabled else max(least, logger.level)
    return found


SILENT = 1 << 30
"""A level that no record reaches."""


def say(record: bytes, origin: dict[str, Any]) -> None:
    """Give a child's record to the logger of its name. `origin` becomes attributes of it.

    Never raises: what a handler or a filter makes of it is the log's own trouble.
    """
    try:
        made = logging.makeLogRecord(marshal.loads(record) | origin)  # noqa: S302  # plain data
        made.levelname = logging.getLevelName(made.levelno)
        logger = logging.getLogger(made.name)
        if logger.isEnabledFor(made.levelno):
            overheard.tell(made)
            logger.handle(made)
    except Exception as error:
        log.warning("a log record of a child could not be logged: %s", _checks.shown(error, 200))
