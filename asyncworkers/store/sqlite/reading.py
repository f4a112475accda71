"""What the reader's connection is asked: the verbs that look and change nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from asyncworkers.store.clock import StoreClock
from asyncworkers.store.protocol import Page, QueueCounts, StoredJob, Tally, Where
from asyncworkers.store.sqlite.records import (
    ENDED,
    FAILED,
    QUEUED,
    RECORD,
    RUNNING,
    SCHEDULED,
    condition,
    milliseconds,
    records_type,
)

__all__ = ["Outlook", "Reading"]


class Outlook(NamedTuple):
    """What a queue has to give: something now, or seconds until the first is due, if any."""

    ready: bool
    seconds: float | None


class Reading:
    """Answers, each from one look at the tables: no read outlives its statement."""

    def __init__(self, connection: sqlite3.Connection, clock: StoreClock) -> None:
        self._execute = connection.execute
        self._clock = clock
        self._decode = msgspec.json.Decoder(records_type).decode

    @property
    def _now(self) -> int:
        return milliseconds(self._clock.wall())

    def _listed(self, sql: str, *values: Any) -> list[Any]:
        found: list[Any] = json.loads(self._execute(sql, values).fetchone()[0] or "[]")
        return found

    def get(self, ids: Sequence[str]) -> list[StoredJob | None]:
        """The jobs with these ids."""
        found = self._records(
            "id IN (SELECT value FROM json_each(?))", [json.dumps(list(ids))], len(ids)
        )
        by_id = {record.id: record for _, record in found}
        return [by_id.get(one) for one in ids]

    def find(self, where: Where, limit: int, after: int | None) -> Page:
        """A page of jobs, newest first."""
        sql, values = condition(where, self._now)
        if after is not None:
            sql, values = f"{sql} AND seq < ?", [*values, after]
        found = self._records(sql, values, limit + 1)
        more = found[limit - 1][0] if len(found) > limit else None
        return Page([record for _, record in found[:limit]], more)

    def _records(self, where: str, values: list[Any], limit: int) -> list[tuple[int, StoredJob]]:
        sql = (
            "FROM (SELECT * FROM asyncworkers_jobs JOIN asyncworkers_kinds USING (kind)"
            f" WHERE {where} ORDER BY seq DESC LIMIT ?)"
        )
        listed = f"SELECT json_group_array(json_array(seq, {RECORD})) {sql}"
        try:
            text = self._execute(listed, [self._now, *values, limit]).fetchone()[0]
            return list(self._decode(text))
        except (msgspec.DecodeError, UnicodeDecodeError, sqlite3.OperationalError):
            pass  # one of them is damaged
        seqs = [row[0] for row in self._execute(f"SELECT seq {sql}", [*values, limit]).fetchall()]
        return [self._damaged(seq) for seq in seqs]

    def _damaged(self, seq: int) -> tuple[int, StoredJob]:
        """A job that may be damaged, with its raw bytes as far as they can be shown."""
        mended = RECORD.replace("json(tags)", "json(iif(json_valid(tags), tags, '[]'))")
        text = self._execute(
            f"SELECT json_array(seq, {mended})"
            " FROM asyncworkers_jobs JOIN asyncworkers_kinds USING (kind) WHERE seq = ?",
            [self._now, seq],
        ).fetchone()[0]
        shown = text.decode("utf-8", "replace").encode()
        return msgspec.json.decode(shown, type=tuple[int, StoredJob])

    def any_ended(self, ids: Collection[str]) -> bool:
        """Whether one of these jobs has ended, or is not there."""
        there = self._execute(
            f"SELECT count(*) FROM asyncworkers_jobs WHERE state < {ENDED}"
            " AND id IN (SELECT value FROM json_each(?))",
            [json.dumps(list(ids))],
        ).fetchone()[0]
        return bool(there < len(set(ids)))

    def outlook(
        self, queues: Collection[str], names: Collection[str], codecs: Collection[str]
    ) -> Outlook:
        """Whether a lease of one of these queues would find something."""
        kinds = (
            "kind IN (SELECT kind FROM asyncworkers_kinds"
            " WHERE queue IN (SELECT value FROM json_each(?))"
            " AND name IN (SELECT value FROM json_each(?))"
            " AND codec IN (SELECT value FROM json_each(?))"
            " AND queue NOT IN (SELECT queue FROM asyncworkers_queues WHERE paused))"
        )
        values = [json.dumps(list(some)) for some in (queues, names, codecs)]
        ready, due = self._execute(
            f"SELECT EXISTS (SELECT 1 FROM asyncworkers_jobs WHERE state = {QUEUED} AND {kinds}),"
            f" (SELECT due FROM asyncworkers_jobs WHERE state = {SCHEDULED} AND {kinds}"
            " ORDER BY due LIMIT 1)",
            values * 2,
        ).fetchone()
        left = None if due is None else (due - self._now) / 1000.0
        return Outlook(bool(ready) or (left is not None and left <= 0), left)

    def counts(self, names: Collection[str], codecs: Collection[str]) -> list[QueueCounts]:
        """How every queue stands."""
        now = self._now
        queues: dict[str, list[Any]] = {}
        for queue, paused in self._listed(
            "SELECT json_group_array(json_array(queue, paused)) FROM asyncworkers_queues"
        ):
            queues[queue] = [bool(paused), 0, 0, 0, 0, None, {}]
        sql = (
            "SELECT json_group_array(json_array(queue, name, codec,"
            " (SELECT count(*) FROM asyncworkers_jobs AS j WHERE j.kind = k.kind AND state = 0),"
            f" (SELECT count(*) FROM asyncworkers_jobs AS j WHERE state = {SCHEDULED}"
            " AND j.kind = k.kind AND due <= ?),"
            f" (SELECT count(*) FROM asyncworkers_jobs AS j WHERE state = {SCHEDULED}"
            " AND j.kind = k.kind AND due > ?),"
            f" (SELECT count(*) FROM asyncworkers_jobs AS j WHERE state = {RUNNING}"
            " AND j.kind = k.kind),"
            f" (SELECT count(*) FROM asyncworkers_jobs AS j WHERE state = {FAILED}"
            " AND j.kind = k.kind),"
            " (SELECT min(due) FROM asyncworkers_jobs AS j WHERE state = 0 AND j.kind = k.kind),"
            f" (SELECT min(due) FROM asyncworkers_jobs AS j WHERE state = {SCHEDULED}"
            " AND j.kind = k.kind AND due <= ?))) FROM asyncworkers_kinds AS k"
        )
        for queue, name, codec, ready, due, later, running, failed, *dates in self._listed(
            sql, now, now, now
        ):
            counts = queues.setdefault(queue, [False, 0, 0, 0, 0, None, {}])
            for place, number in enumerate((ready + due, later, running, failed), start=1):
                counts[place] += number
            oldest = [date for date in (counts[5], *dates) if date is not None]
            counts[5] = min(oldest, default=None)
            if ready + due + later and not (name in names and codec in codecs):
                counts[6][name] = counts[6].get(name, 0) + ready + due + later
        return [
            QueueCounts(
                queue,
                *(paused, ready, later, running, failed),
                oldest=None if date is None else max(0.0, (now - date) / 1000.0),
                unknown=unknown,
            )
            for queue, (paused, ready, later, running, failed, date, unknown) in sorted(
                queues.items()
            )
            if paused or ready or later or running or failed
        ]

    def tally(self, where: Where, since: int | None) -> Tally:
        """How many jobs there are by queue, of all or of what came after a mark."""
        sql, values = condition(where, self._now)
        if since is not None:
            sql, values = f"{sql} AND seq > ?", [*values, since]
        # CROSS JOIN has SQLite begin with the jobs, and so with the newest of them.
        counted, mark = json.loads(
            self._execute(
                "SELECT json_array((SELECT json_group_object(queue, n) FROM (SELECT queue,"
                " count(*) AS n FROM asyncworkers_jobs CROSS JOIN asyncworkers_kinds"
                f" USING (kind) WHERE {sql} GROUP BY queue)),"
                " (SELECT ifnull(max(seq), 0) FROM asyncworkers_jobs))",
                values,
            ).fetchone()[0]
        )
        return Tally(counted, mark)

    def surplus(self, history: int) -> int:
        """How many ended jobs there are too many."""
        count = f"SELECT count(*) FROM asyncworkers_jobs WHERE state >= {ENDED}"
        return max(0, int(self._execute(count).fetchone()[0]) - history)
