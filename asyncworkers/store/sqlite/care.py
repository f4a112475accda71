"""Looking after the file of a SQLite store from outside, as an administrator does; nothing is opened
as a worker here, and everything blocks.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from asyncworkers.errors import StoreBusy, StoreUnavailable, StoreVersion
from asyncworkers.store.sqlite import schema
from asyncworkers.store.sqlite.place import Place
from asyncworkers.store.sqlite.presence import directory_of, examine
from asyncworkers.store.sqlite.records import STATES, checksum

__all__ = ["Health", "check", "migrate", "vacuum", "version"]

BUSY = 5.0
"""Seconds to wait for another program that writes to the file."""

PORTION = 2_000
"""Rows that are checked at a time: a longer look would keep SQLite from emptying its log."""

MOST_FAULTS = 100
"""Faults that are named; of more, there being more is said."""


class Health(NamedTuple):
    """What a check found. `size` and `log` are bytes of the file and of its write-ahead log; `jobs`
    counts them by state; `alive` and `dead` are workers, the dead ones not yet noticed by another.
    """

    schema: int
    size: int
    log: int
    alive: int
    dead: int
    jobs: dict[str, int]
    faults: list[str]


def version(path: Path) -> int:
    """The version of the schema in the file; 0 if there is no file, or no store in it.

    Raises StoreDamaged if it is no database, StoreUnavailable if it cannot be read.
    """
    if not path.exists():
        return 0
    with _looking(path) as connection:
        return schema.version_of(connection)


def check(path: Path, *, quick: bool = False) -> Health:
    """Look for damage: in the database's structure, and in each job by its checksum.

    `quick` leaves out what takes long: checksums, and whether indexes fit their tables. Nothing is
    changed, and workers may go on meanwhile. Raises StoreUnavailable, or one of its kinds, if the
    file cannot be looked at at all.
    """
    faults: list[str] = []
    found, jobs, alive, dead = 0, dict[str, int](), 0, 0
    with _looking(path) as connection:
        try:
            found = schema.version_of(connection)
            faults += _structure(connection, quick)
            if found == schema.VERSION:
                if not quick:
                    faults += _rows(connection)
                jobs = _jobs(connection)
                alive, dead = _workers(connection, path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            faults.append(str(error))
    if not found and not faults:
        raise StoreUnavailable(f"there is no store in {path}")
    if found > schema.VERSION:
        raise _newer(path, found)
    log = Path(f"{os.path.realpath(path)}-wal")
    if len(faults) > MOST_FAULTS:
        faults[MOST_FAULTS:] = ["and there are more"]
    return Health(
        found,
        path.stat().st_size,
        log.stat().st_size if log.exists() else 0,
        alive,
        dead,
        jobs,
        faults,
    )


def migrate(path: Path) -> int:
    """Bring the tables to the version of this code; returns which version they were of.

    Raises StoreVersion if they are newer than this code.
    """
    place = _place(path)
    with place.translated(), contextlib.closing(place.connect()) as connection:
        before = schema.version_of(connection)
        schema.migrate(connection, place.name)
        return before


def vacuum(path: Path, *, force: bool = False) -> None:
    """Write the file anew without the room that forgotten jobs left, and empty its log.

    Others cannot write meanwhile. Raises StoreBusy if a worker lives, unless `force` says that it
    may wait, and StoreFull if there is no room for a second copy.
    """
    place = _place(path)
    with place.translated(), contextlib.closing(place.connect()) as connection:
        alive, _ = _workers(connection, path)
        if alive and not force:
            workers = "worker has" if alive == 1 else "workers have"
            raise StoreBusy(f"{alive} {workers} {place.name} open")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


# ---- how


def _place(path: Path) -> Place:
    place = Place(path, "power", BUSY)
    place.prepare()
    return place


@contextlib.contextmanager
def _looking(path: Path) -> Generator[sqlite3.Connection]:
    """A connection that changes nothing, not even how the file is kept."""
    place = Place(path, "power", BUSY)
    if not path.exists():
        raise StoreUnavailable(f"there is no file {place.name}")
    if path.stat().st_size:  # SQLite makes an empty file with its first statement
        place.prepare()
    with place.translated():
        address = f"file:{quote(str(path))}?mode=ro"
        connection = sqlite3.connect(address, uri=True, timeout=BUSY, isolation_level=None)
        with contextlib.closing(connection):
            connection.text_factory = bytes
            connection.execute("PRAGMA trusted_schema = OFF")
            yield connection


def _newer(path: Path, found: int) -> StoreVersion:
    return StoreVersion(
        f"{path} was written by a newer asyncworkers (schema {found}, "
        f"this one knows {schema.VERSION}): upgrade"
    )


def _structure(connection: sqlite3.Connection, quick: bool) -> list[str]:
    """What SQLite itself finds wrong."""
    pragma = "quick_check" if quick else "integrity_check"
    rows = connection.execute(f"PRAGMA {pragma}({MOST_FAULTS + 1})").fetchall()
    lines = [line for (text,) in rows for line in _text(text).splitlines()]
    return [] if lines == ["ok"] else lines


def _rows(connection: sqlite3.Connection) -> Iterator[str]:
    """What does not fit its checksum, and whatever else makes a job unreadable."""
    last = 0
    while True:
        rows = connection.execute(
            "SELECT seq, crc, id, queue, name, codec, once, tags, extra, args, state,"
            " json_valid(tags), EXISTS (SELECT 1 FROM asyncworkers_kinds AS k WHERE k.kind = j.kind)"
            " FROM asyncworkers_jobs AS j LEFT JOIN asyncworkers_kinds USING (kind)"
            " WHERE seq > ? ORDER BY seq LIMIT ?",
            (last, PORTION),
        ).fetchall()
        if not rows:
            return
        for seq, crc, *covered, state, valid, known in rows:
            trouble = _trouble(crc, covered, state, valid, known)
            if trouble:
                yield f"job {seq}: {trouble}"
        last = rows[-1][0]


def _trouble(crc: int, covered: list[Any], state: int, valid: int, known: int) -> str:
    if not known:
        return "the kind it names is not there"
    if not 0 <= state < len(STATES):
        return f"it is in no state there is ({state})"
    ident, queue, name, codec, once, tags, extra, args = covered
    try:
        texts = [str(one, "utf-8") for one in (ident, queue, name, codec, tags, extra, args)]
    except UnicodeDecodeError:
        return "its text is damaged"
    ident, queue, name, codec, tags, extra, args = texts
    if crc != checksum(ident, queue, name, codec, once, tags, extra, args) or not valid:
        return "its checksum is wrong"
    return ""


def _jobs(connection: sqlite3.Connection) -> dict[str, int]:
    rows = connection.execute("SELECT state, count(*) FROM asyncworkers_jobs GROUP BY state")
    counted = dict(rows.fetchall())
    return {str(state): counted.get(number, 0) for number, state in enumerate(STATES)}


def _workers(connection: sqlite3.Connection, path: Path) -> tuple[int, int]:
    """How many workers live, and how many are dead and not yet struck off."""
    if not schema.version_of(connection):
        return 0, 0
    listed = connection.execute("SELECT json_group_array(worker) FROM asyncworkers_workers")
    alive = dead = 0
    directory = directory_of(path)
    for worker in json.loads(listed.fetchone()[0]):
        found = examine(directory, worker, overdue=False, restarted=False)
        if found is None and (directory / f"{worker}.alive").exists():
            alive += 1
        else:
            dead += 1
        if found is not None:
            found.let_go()
    return alive, dead


def _text(raw: Any) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
