"""The ledger knows the jobs in memory that were submitted over HTTP, and for a while those that ended."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from asyncworkers import Job

__all__ = ["Entry", "Ledger", "new_id"]


def new_id() -> str:
    """An id of 128 bits that nobody can guess, whatever other ids they have seen."""
    return secrets.token_hex(16)


class Entry(NamedTuple):
    """A job that was submitted over HTTP: its id there, the name it was called by, and, if it has a
    key, the digest of what it was called with.
    """

    id: str
    job: Job[Any]
    function: str
    key: str | None
    digest: bytes


class Ledger:
    """Holds the jobs by id: all that are unfinished, and those that have ended for `seconds`, of
    which no more than `keep` and a tenth; what ended first goes first.
    """

    def __init__(self, keep: int, seconds: float) -> None:
        self._keep = keep
        self._life = timedelta(seconds=seconds)
        self._entries: dict[str, Entry] = {}
        self._keys: dict[tuple[str, str], Entry] = {}
        self._full = self._margin()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, job: Job[Any], function: str, key: str | None, digest: bytes) -> Entry:
        """Hold a job, under an id of its own."""
        if len(self._entries) >= self._full:
            self._tidy()
        entry = Entry(new_id(), job, function, key, digest)
        self._entries[entry.id] = entry
        if key is not None:
            self._keys[function, key] = entry
        return entry

    def find(self, ident: str) -> Entry | None:
        """The job of this id, if there is one (still)."""
        return self._unless_old(self._entries.get(ident))

    def of_key(self, function: str, key: str) -> Entry | None:
        """The job that was submitted with this key, if there is one (still)."""
        return self._unless_old(self._keys.get((function, key)))

    def newest_first(self) -> Iterator[Entry]:
        """All there are, as they are now."""
        entries = list(self._entries.values())
        return (entry for entry in reversed(entries) if not self._is_old(entry))

    def _unless_old(self, entry: Entry | None) -> Entry | None:
        if entry is not None and self._is_old(entry):
            self._drop(entry)
            return None
        return entry

    def _is_old(self, entry: Entry) -> bool:
        ended = entry.job.finished
        return ended is not None and datetime.now(UTC) - ended > self._life

    def _tidy(self) -> None:
        """Drop what is old, and of the rest that has ended what is too much.

        To look at each for each that comes would be too dear, so it is done for a tenth at a time.
        """
        for entry in [one for one in self._entries.values() if self._is_old(one)]:
            self._drop(entry)
        ended = [(one.job.finished, one.id, one) for one in self._entries.values()]
        known = sorted((at, ident, one) for at, ident, one in ended if at is not None)
        for _, _, entry in known[: max(0, len(known) - self._keep)]:
            self._drop(entry)
        self._full = len(self._entries) + self._margin()

    def _margin(self) -> int:
        return max(1, self._keep // 10)

    def _drop(self, entry: Entry) -> None:
        self._entries.pop(entry.id, None)
        if entry.key is not None and self._keys.get((entry.function, entry.key)) is entry:
            del self._keys[entry.function, entry.key]
