"""Lets who wants to overhear what is said to `logging`: each record, where it is made.

No handler is added for it: one of the root logger would keep `logging.basicConfig` from doing anything,
and warnings from stderr where nobody has set up a log. The record factory is wrapped instead, while
anybody listens, and only then.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["Overheard", "Witness", "overheard"]

Witness: TypeAlias = Callable[[logging.LogRecord], None]
"""Is given each record, in the thread in which it is made. It must not raise, nor log."""


class Overheard:
    """Who listens, and the record factory that tells them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._witnesses: tuple[weakref.WeakMethod[Witness], ...] = ()
        self._factory: _Factory | None = None

    def hear(self, witness: Witness) -> None:
        """Have this method told of each record from now on; it is not kept alive by that."""
        with self._lock:
            current = logging.getLogRecordFactory()
            if current is not self._factory:  # it is the first, or somebody has set another one
                self._factory = _Factory(self, current)
                logging.setLogRecordFactory(self._factory)
            self._witnesses = (*self._living(), weakref.WeakMethod(witness))

    def leave(self, witness: Witness) -> None:
        """Tell it nothing more."""
        with self._lock:
            self._witnesses = tuple([one for one in self._living() if one() != witness])
            if self._witnesses or self._factory is None:
                return
            if logging.getLogRecordFactory() is self._factory:
                logging.setLogRecordFactory(self._factory.previous)
            self._factory = None  # who has wrapped it meanwhile keeps it, and it tells nobody

    def tell(self, record: logging.LogRecord) -> None:
        """Tell of a record; those that come from elsewhere are told of by whoever brings them."""
        for one in self._witnesses:
            witness = one()
            if witness is not None:
                witness(record)

    def made_by(self, factory: _Factory, record: logging.LogRecord) -> None:
        """Tell of a record that was made here, once, however many factories there are by now."""
        if factory is self._factory:
            self.tell(record)

    def _living(self) -> list[weakref.WeakMethod[Witness]]:
        return [one for one in self._witnesses if one() is not None]


class _Factory:
    """Makes records as the one before did, and tells of them."""

    def __init__(self, whose: Overheard, previous: Callable[..., logging.LogRecord]) -> None:
        self.previous = previous
        self._whose = whose

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self.previous(*args, **kwargs)
        if (
            record.name
        ):  # `makeLogRecord` asks for one without, to be filled in: it is told of elsewhere
            self._whose.made_by(self, record)
        return record


overheard = Overheard()
