"""The version of the tables, and the steps from one version to the next."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib import resources

from asyncworkers.errors import StoreVersion

__all__ = ["VERSION", "migrate", "version_of"]

VERSION = 2
"""The version of the schema that this code reads and writes: its newest file in `sql/`."""


def version_of(connection: sqlite3.Connection) -> int:
    """The version of what is there, 0 if nothing is."""
    table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'asyncworkers_meta'"
    if connection.execute(table).fetchone() is None:
        return 0
    found = connection.execute("SELECT value FROM asyncworkers_meta WHERE name = 'version'")
    row = found.fetchone()
    return int(row[0]) if row else 0


def migrate(connection: sqlite3.Connection, name: str) -> None:
    """Bring the tables to this version, in one transaction, whoever else tries at the same time.

    Raises StoreVersion, and changes nothing, if they are newer than this code.
    """
    if version_of(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = version_of(connection)  # another process may have been faster
        if version > VERSION:
            raise StoreVersion(
                f"{name} was written by a newer asyncworkers (schema {version}, "
                f"this one knows {VERSION}): upgrade"
            )
        for number in range(version + 1, VERSION + 1):
            for statement in _statements(number):
                connection.execute(statement)
        connection.execute(
            "INSERT OR REPLACE INTO asyncworkers_meta VALUES ('version', ?)", (str(VERSION),)
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(number: int) -> Iterator[str]:
    """The statements of one step; `executescript` would commit in between."""
    script = (
        resources.files("asyncworkers.store.sqlite")
        .joinpath(f"sql/{number:04}.sql")
        .read_text("utf-8")
    )
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
