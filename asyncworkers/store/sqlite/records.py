"""Rows and values: the SQL that reads jobs, and what covers them against damage."""

from __future__ import annotations

import json
import zlib
from typing import Any, TypeAlias

from asyncworkers.job import JobState
from asyncworkers.store.protocol import Lease, StoredJob, Where

__all__ = [
    "CANCELLED",
    "ENDED",
    "FAILED",
    "LEASED",
    "QUEUED",
    "RECORD",
    "RUNNING",
    "SCHEDULED",
    "STATES",
    "SUCCEEDED",
    "checksum",
    "condition",
    "leases_type",
    "milliseconds",
    "records_type",
]

QUEUED, SCHEDULED, RUNNING, SUCCEEDED, FAILED, CANCELLED = range(6)
ENDED = SUCCEEDED
STATES = (
    JobState.QUEUED,
    JobState.SCHEDULED,
    JobState.RUNNING,
    JobState.SUCCEEDED,
    JobState.FAILED,
    JobState.CANCELLED,
)

Values: TypeAlias = list[Any]

leases_type: Any = tuple[list[int], list[Lease], int | None, int | None, int, bool, bool]
records_type: Any = list[tuple[int, StoredJob]]


def milliseconds(seconds: float) -> int:
    """Seconds as the tables count them; what is too far away is as far as can be."""
    return round(max(-4e15, min(seconds * 1000, 4e15)))


def checksum(
    ident: str, queue: str, name: str, codec: str, once: bool, tags: str, extra: str, args: str
) -> int:
    """The CRC-32 of what never changes in a job."""
    text = f"{ident}\n{queue}\n{name}\n{codec}\n{'1' if once else '0'}\n{tags}\n{extra}\n{args}"
    return zlib.crc32(text.encode() if text.isascii() else text.encode("utf-8", "surrogatepass"))


# One row of JSON holds them all: each step of a statement lets go of the interpreter's lock and has
# to wait for it again, behind a busy loop up to 5 ms; so one statement takes one step.
LEASED = (
    "json_array(seq, token + 1, id, queue, name, args, codec, attempt + 1, failures, losses, -rank,"
    " submitted || 'e-3', due || 'e-3', expires || 'e-3', iif(once, 1, 0), json(tags), extra)"
)
"""A job as the Lease it is about to become; decode it with `strict=False`. Texts are made into floats
much faster there than floats are into texts here. A damaged `once` is a truth all the same: the checksum
sets that one job aside, where what cannot be decoded would stop its queue.
"""

RECORD = (
    "json_array(id, queue, name, CASE state WHEN 0 THEN 'queued'"
    " WHEN 1 THEN iif(due <= ?, 'queued', 'scheduled') WHEN 2 THEN 'running'"
    " WHEN 3 THEN 'succeeded' WHEN 4 THEN 'failed' ELSE 'cancelled' END,"
    " -rank, attempt, failures, losses, submitted / 1000.0, due / 1000.0, expires / 1000.0,"
    " started / 1000.0, ended / 1000.0, until / 1000.0, json(iif(once, 'true', 'false')),"
    " json(tags), extra, codec, args, result, error, cancelling, progress)"
)
"""A job as a StoredJob; its one parameter is the time."""


def condition(where: Where, now: int) -> tuple[str, Values]:
    """A condition over jobs and their kinds, and its parameters."""
    parts: list[str] = ["true"]
    values: Values = []

    def among(column: str, wanted: tuple[Any, ...] | None) -> None:
        if wanted is not None:
            parts.append(f"{column} IN (SELECT value FROM json_each(?))")  # however many there are
            values.append(_texts(wanted))

    among("id", where.ids)
    among("queue", where.queues)
    among("name", where.names)
    if where.states is not None:
        parts.append(_in_states(where.states, now))
    for tag in where.tags:
        parts.append(  # a job whose tags are damaged must not hide all others
            "EXISTS (SELECT 1 FROM json_each(iif(json_valid(tags), tags, '[]')) AS t"
            " WHERE t.value IN (SELECT value FROM json_each(?)))"
        )
        values.append(_texts((tag,)))
    if where.submitted_before is not None:
        parts.append("submitted < ?")
        values.append(milliseconds(where.submitted_before))
    if where.submitted_after is not None:
        parts.append("submitted > ?")
        values.append(milliseconds(where.submitted_after))
    return " AND ".join(parts), values


def _texts(wanted: tuple[str, ...]) -> str:
    """What to look for, as JSON, which takes lone surrogates. SQLite would cut a text at its NUL."""
    return json.dumps([text for text in wanted if "\0" not in text])


def _in_states(states: tuple[JobState, ...], now: int) -> str:
    """The states as SQL; what came due but was not looked at yet counts as queued."""
    parts = ["false"]
    for state in states:
        if state is JobState.QUEUED:
            parts.append(f"state = {QUEUED} OR (state = {SCHEDULED} AND due <= {now})")
        elif state is JobState.SCHEDULED:
            parts.append(f"(state = {SCHEDULED} AND due > {now})")
        else:
            parts.append(f"state = {STATES.index(state)}")
    return f"({' OR '.join(parts)})"
