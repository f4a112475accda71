"""What one transaction does to the tables: submit, settle, lease, recover, and the steering verbs.

Nothing here waits and nothing here knows of threads or loops: each method is called between BEGIN
and COMMIT on the writer's connection. Few statements do much: see `records` for why.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import msgspec

from asyncworkers._log import log
from asyncworkers.errors import StoreDamaged
from asyncworkers.store.clock import StoreClock
from asyncworkers.store.protocol import (
    LIMIT,
    Cancelled,
    Lease,
    Maintained,
    Mark,
    Receipt,
    Settlement,
    Submission,
    Want,
    Where,
    error_text,
)
from asyncworkers.store.sqlite.presence import Dead, examine
from asyncworkers.store.sqlite.records import (
    CANCELLED,
    ENDED,
    FAILED,
    LEASED,
    QUEUED,
    RUNNING,
    SCHEDULED,
    SUCCEEDED,
    checksum,
    condition,
    leases_type,
    milliseconds,
)
from asyncworkers.units import counted

__all__ = ["Settings", "Tables"]

CHUNK = 2048
"""Rows of one statement: enough to make its cost a row's, and few enough for SQLite's limits."""

TERMS = 250
"""Selects that are put together at a time: SQLite takes 500 of them, in each parenthesis anew."""

NEVER = 2**62
"""A date after all others."""

OWN = "id, crc, args"
SHARED = "kind, state, rank, due, submitted, expires, keep, once, tags, extra"

HELD = (
    f"iif(k.date IS NULL, h.state < {ENDED}"
    f" AND (k.until = 'done' OR (h.state < {RUNNING} AND h.attempt = 0)), k.date > :now)"
)
"""Whether a key, `k`, is held now; its holder is `h`, if that is not forgotten."""

CLAIMS = (
    "CASE json_extract(claim, '$[1]') WHEN 'done' THEN true WHEN 'started' THEN attempt = 0"
    " ELSE json_extract(claim, '$[2]') > :now END"
)
"""Whether a dead job is to hold its key again when it waits again."""

KEYS = "INSERT OR REPLACE INTO asyncworkers_keys (key, id, until, date, seq)"


@dataclass(frozen=True)
class Settings:
    """What the store was told about keeping jobs; see SqliteStore."""

    losses: int
    keep: int
    keep_dead: int
    history: int


@dataclass
class News:
    """What a transaction did that somebody may be waiting for: `ready` says that jobs of any queue may be
    there to lease, `queues` of which ones there are.
    """

    ready: bool = False
    queues: set[str] = field(default_factory=set[str])
    ended: bool = False
    settled: list[Settlement] = field(default_factory=list[Settlement])


class Tables:
    """The tables, as seen from inside a transaction."""

    def __init__(
        self, connection: sqlite3.Connection, clock: StoreClock, settings: Settings
    ) -> None:
        self._execute = connection.execute
        self._connection = connection
        self._clock = clock
        self._settings = settings
        self._kinds: dict[tuple[str, str, str], int] = {}
        self._newest_kind = -1
        self._pruned_keys = ""  # up to this one they have been looked at
        self.news = News()
        self.now = 0
        self._decode = msgspec.json.Decoder(leases_type, strict=False).decode

    def begin(self) -> None:
        """Start a transaction that may write."""
        self._execute("BEGIN IMMEDIATE")
        self.news = News()
        self.now = milliseconds(self._clock.wall())

    def commit(self) -> None:
        """Make it last."""
        self._execute("COMMIT")

    def rollback(self) -> None:
        """Undo it, whatever is left of it."""
        self._kinds.clear()
        self._newest_kind = -1
        if self._connection.in_transaction:
            self._execute("ROLLBACK")

    def _value(self, sql: str, *values: Any) -> Any:
        """The one value that a statement answers with, None without a row."""
        row = self._execute(sql, values).fetchone()
        return None if row is None else row[0]

    def _listed(self, sql: str, *values: Any, **named: Any) -> list[Any]:
        """The rows of a statement that makes one JSON array of them all."""
        found: list[Any] = json.loads(self._execute(sql, named or values).fetchone()[0])
        return found

    # ---- kinds

    def _load_kinds(self) -> None:
        rows = self._listed(
            "SELECT json_group_array(json_array(kind, queue, name, codec)) FROM asyncworkers_kinds"
        )
        self._kinds = {(queue, name, codec): kind for kind, queue, name, codec in rows}
        self._newest_kind = max(self._kinds.values(), default=0)

    def _kind(self, queue: str, name: str, codec: str) -> int:
        """The number of a kind of job, made if it is new."""
        kind = self._kinds.get((queue, name, codec))
        if kind is None:
            self._execute(
                "INSERT INTO asyncworkers_kinds (queue, name, codec) VALUES (?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                (queue, name, codec),
            )
            self._load_kinds()
            kind = self._kinds[queue, name, codec]
        return kind

    # ---- submit

    def submit(self, batch: Sequence[Submission]) -> list[Receipt]:
        """Store jobs, those first that hold no key."""
        if all(one.unique is None for one in batch):
            receipts = [Receipt(one.id, "created") for one in batch]
            return self._told(batch, receipts, self._insert(batch))
        receipts, chosen, claims, replaced = self._choose(batch)
        created = self._insert(chosen)
        self._hold(claims)
        for old, new in replaced.items():
            error = error_text("JobCancelled", f"replaced by {new}")
            self._end(f"id = ? AND state < {RUNNING}", [old], CANCELLED, error)
        return self._told(batch, receipts, created)

    @staticmethod
    def _told(
        batch: Sequence[Submission], receipts: list[Receipt], created: set[str] | None
    ) -> list[Receipt]:
        """The receipts, once it is known which ids were there already; None: none was."""
        if created is None:
            return receipts
        told: list[Receipt] = []
        for one, receipt in zip(batch, receipts, strict=True):
            stored = receipt.outcome in ("created", "replaced")
            if stored and one.id not in created:
                told.append(Receipt(one.id, "existing"))
            else:
                told.append(receipt)
            if stored:
                created.discard(one.id)
        return told

    def _insert(self, batch: Sequence[Submission]) -> set[str] | None:
        """Store jobs whose ids are not there yet; the ids of those, None if that is all of them.

        What all have in common is bound but once.
        """
        if not batch:
            return None
        first = batch[0]
        where, rest = first[1:3], first[4:]
        alike = all(one[1:3] == where and one[4:] == rest for one in batch)
        if alike:
            shared = self._shared(first)
            rows = [self._own(one, shared) for one in batch]
        else:
            shared = ()
            rows = [
                (*self._own(one, fields), *fields)
                for one, fields in [(one, self._shared(one)) for one in batch]
            ]
        before = self._connection.total_changes
        self._many(
            f"WITH s AS (VALUES {{}}) INSERT INTO asyncworkers_jobs ({OWN}, {SHARED})"
            f" SELECT *{', ?' * len(shared)} FROM s WHERE column1 IS NOT NULL"
            " ON CONFLICT (id) DO NOTHING",
            rows,
            len(rows[0]),
            *shared,
        )
        self.news.queues.update([first.queue] if alike else [one.queue for one in batch])
        created = self._connection.total_changes - before
        if created == len(batch):
            return None
        # `seq` only grows, so of these jobs those that are new have the greatest.
        return set(
            self._listed(
                "SELECT json_group_array(id) FROM (SELECT id FROM asyncworkers_jobs"
                " WHERE id IN (SELECT value FROM json_each(?)) ORDER BY seq DESC LIMIT ?)",
                json.dumps([one.id for one in batch]),
                created,
            )
        )

    @staticmethod
    def _own(one: Submission, shared: tuple[Any, ...]) -> tuple[Any, ...]:
        """What distinguishes a job from others like it: the columns in `OWN`."""
        ident, queue, name, args, codec = one[:5]
        tags, extra = shared[-2:]
        crc = checksum(ident, queue, name, codec, one.once, tags, extra, args)
        return ident, crc, args

    def _shared(self, one: Submission) -> tuple[Any, ...]:
        """The columns in `SHARED`."""
        now = self.now
        due = now + milliseconds(one.delay)
        if one.due is not None:
            due = max(due, milliseconds(one.due))
        return (
            self._kind(one.queue, one.name, one.codec),
            QUEUED if due <= now else SCHEDULED,
            -one.priority,
            due,
            now,
            None if one.expires is None else now + milliseconds(one.expires),
            None if one.keep is None else milliseconds(one.keep),
            int(one.once),
            json.dumps(one.tags) if one.tags else "[]",
            one.extra,
        )

    def _many(self, sql: str, rows: Sequence[tuple[Any, ...]], width: int, *after: Any) -> None:
        """Run a statement over many rows; filled up with NULLs, so that it has few forms."""
        place = f"({', '.join('?' * width)})"
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            size = 1 << (len(part) - 1).bit_length()
            missing = repeat(None, (size - len(part)) * width)
            values = [*chain.from_iterable(part), *missing, *after]
            self._execute(sql.format(", ".join([place] * size)), values)

    def _choose(
        self, batch: Sequence[Submission]
    ) -> tuple[list[Receipt], list[Submission], list[tuple[Any, ...]], dict[str, str]]:
        """Let keys decide, one submission after the other: what each is answered, which are to be
        stored, what these claim, and who replaces whom.
        """
        keyed = [one for one in batch if one.unique is not None]
        keys = json.dumps([one.unique.key for one in keyed if one.unique])
        holders: dict[str, list[Any]] = {
            key: [ident, held, untouched]
            for key, ident, held, untouched in self._listed(
                f"SELECT json_group_array(json_array(k.key, k.id, {HELD},"
                f" ifnull(h.state < {RUNNING} AND h.attempt = 0, 0)))"
                " FROM asyncworkers_keys AS k LEFT JOIN asyncworkers_jobs AS h ON h.seq = k.seq"
                " WHERE k.key IN (SELECT value FROM json_each(:keys))",
                now=self.now,
                keys=keys,
            )
        }
        there = set(
            self._listed(
                "SELECT json_group_array(id) FROM asyncworkers_jobs"
                " WHERE id IN (SELECT value FROM json_each(?))",
                json.dumps([one.id for one in keyed]),
            )
        )
        receipts: list[Receipt] = []
        chosen: list[Submission] = []
        claims: list[tuple[Any, ...]] = []
        replaced: dict[str, str] = {}
        for one in batch:
            unique = one.unique
            if one.id in there or unique is None:
                receipts.append(Receipt(one.id, "created"))
                chosen.append(one)
                there.add(one.id)
                continue
            holder, held, untouched = holders.get(unique.key, ("", 0, 0))
            if held and (unique.on_duplicate != "replace" or not untouched):
                rejected = unique.on_duplicate == "reject"
                receipts.append(Receipt(holder, "rejected" if rejected else "existing"))
                continue
            if held:
                replaced[holder] = one.id
            receipts.append(Receipt(one.id, "replaced" if held else "created"))
            chosen.append(one)
            there.add(one.id)
            until, date = "", None
            if isinstance(unique.until, str):
                until = unique.until
            else:
                date = self.now + milliseconds(unique.until)
            claims.append((one.id, unique.key, until, date))
            holders[unique.key] = [one.id, date is None or date > self.now, True]
        return receipts, chosen, claims, replaced

    def _hold(self, claims: list[tuple[Any, ...]]) -> None:
        """Let jobs hold keys; of several that claim the same one the last does."""
        self._many(
            "WITH s (id, key, until, date) AS (VALUES {})"
            " UPDATE asyncworkers_jobs SET claim = json_array(s.key, s.until, s.date)"
            " FROM s WHERE asyncworkers_jobs.id = s.id",
            claims,
            4,
        )
        last = {claim[1]: claim for claim in claims}
        self._many(
            f"WITH s (id, key, until, date) AS (VALUES {{}}) {KEYS}"
            " SELECT s.key, s.id, s.until, s.date, j.seq"
            " FROM s CROSS JOIN asyncworkers_jobs AS j ON j.id = s.id",
            list(last.values()),
            4,
        )

    def _end(self, which: str, values: list[Any], state: int, error: str) -> int:
        """End jobs without a worker having said so; how many."""
        before = self._connection.total_changes
        self._execute(
            f"UPDATE asyncworkers_jobs SET state = {state}, worker = NULL, error = ?, ended = ?,"
            f" until = ?, cancelling = NULL, result = NULL WHERE {which}",
            [error, self.now, self.now + self._settings.keep_dead, *values],
        )
        ended = self._connection.total_changes - before
        self.news.ended = self.news.ended or ended > 0
        return ended

    # ---- settle

    def settle(self, worker: int, batch: Sequence[Settlement]) -> list[bool]:
        """End leases of a worker; for each whether it was this lease that held the job.

        A token names one lease, unless the file was put back to what it was an hour ago: then the
        worker tells apart who holds the job from who once did.
        """
        leading = self._held(worker, [one for one in batch if one.follow])
        before = self._connection.total_changes
        verbs: dict[str, list[Settlement]] = {}
        for one in batch:
            verbs.setdefault(one.verb, []).append(one)
        for verb, settlements in verbs.items():
            if verb == "complete":
                self._complete(worker, [(one.seq, one.token, one.data) for one in settlements])
            else:
                self._settle_otherwise(worker, verb, settlements)
        self.news.ended = True
        self.news.ready = self.news.ready or len(verbs) > ("complete" in verbs)
        self.news.settled += batch
        if self._connection.total_changes - before == len(batch):
            accepted = [True] * len(batch)
        else:
            accepted = self._accepted(batch)
        if leading:
            self.submit([new for one in leading for new in one.follow])
        return accepted

    def _held(self, worker: int, batch: Sequence[Settlement]) -> list[Settlement]:
        """Those whose lease holds its job now: what follows them is submitted, and only once."""
        if not batch:
            return []
        rows = self._listed(
            "SELECT json_group_array(json_array(seq, token)) FROM asyncworkers_jobs"
            f" WHERE state = {RUNNING} AND worker = ? AND seq IN (SELECT value FROM json_each(?))",
            worker,
            json.dumps([one.seq for one in batch]),
        )
        held = {(seq, token) for seq, token in rows}
        answer: list[Settlement] = []
        for one in batch:
            if (one.seq, one.token) in held:
                held.discard((one.seq, one.token))
                answer.append(one)
        return answer

    def _complete(self, worker: int, rows: list[tuple[Any, ...]]) -> None:
        self._many(
            "WITH s (seq, token, data) AS (VALUES {})"
            f" UPDATE asyncworkers_jobs SET state = {SUCCEEDED}, worker = NULL, ended = ?,"
            " until = ? + ifnull(keep, ?), result = s.data, error = NULL, cancelling = NULL"
            " FROM s WHERE asyncworkers_jobs.seq = s.seq AND asyncworkers_jobs.token = s.token"
            f" AND state = {RUNNING} AND asyncworkers_jobs.worker = ?",
            rows,
            3,
            self.now,
            self.now,
            self._settings.keep,
            worker,
        )

    def _settle_otherwise(self, worker: int, verb: str, batch: list[Settlement]) -> None:
        """The same for every other verb; what a job becomes is decided where it stands."""
        back = verb in ("retry", "release", "interrupt")
        state = {"fail": str(FAILED), "cancel": str(CANCELLED)}.get(verb, str(QUEUED))
        if verb == "retry":
            state = f"iif(s.delay > 0, {SCHEDULED}, {QUEUED})"
        if back:
            state = f"iif(cancelling IS NOT NULL, {CANCELLED}, {state})"
        if verb in ("retry", "interrupt"):
            state = f"iif(once, {FAILED}, {state})"
        final = f"{state} >= {ENDED}"
        failed = f"({state}) IN ({QUEUED}, {SCHEDULED})" if verb == "retry" else "0"
        error = "error" if verb in ("release", "interrupt") else "s.data"
        if back:
            by_once = "once" if verb != "release" else "0"
            error = (
                f"CASE WHEN {by_once} THEN s.data WHEN cancelling IS NOT NULL THEN cancelling"
                f" ELSE {error} END"
            )
        self._many(
            "WITH s (seq, token, data, delay) AS (VALUES {})"
            f" UPDATE asyncworkers_jobs SET state = {state}, worker = NULL, error = {error},"
            f" attempt = attempt - {int(verb == 'release')}, failures = failures + ({failed}),"
            f" due = iif({failed}, ? + s.delay, due),"
            f" progress = iif({final}, progress, NULL), ended = iif({final}, ?, NULL),"
            f" until = iif({final}, ? + ?, NULL), result = NULL, cancelling = NULL"
            " FROM s WHERE asyncworkers_jobs.seq = s.seq AND asyncworkers_jobs.token = s.token"
            f" AND asyncworkers_jobs.state = {RUNNING} AND asyncworkers_jobs.worker = ?",
            [(one.seq, one.token, one.data, milliseconds(one.delay)) for one in batch],
            4,
            self.now,
            self.now,
            self.now,
            self._settings.keep_dead,
            worker,
        )

    def _accepted(self, batch: Sequence[Settlement]) -> list[bool]:
        """Whose token is still its job's newest: those were settled now or when asked before."""
        seqs = json.dumps([one.seq for one in batch])
        rows = self._listed(
            "SELECT json_group_array(json_array(seq, token, state)) FROM asyncworkers_jobs"
            " WHERE seq IN (SELECT value FROM json_each(?))",
            seqs,
        )
        newest = {(seq, token) for seq, token, state in rows if state != RUNNING}
        return [(one.seq, one.token) in newest for one in batch]

    # ---- lease

    def lease(
        self, worker: int, wants: Sequence[Want], names: Collection[str], codecs: Collection[str]
    ) -> list[Lease]:
        """Take waiting jobs for a worker."""
        return [
            lease
            for want in wants
            if want.free + want.ahead > 0
            for lease in self._lease(worker, want, names, codecs)
        ]

    def _lease(
        self, worker: int, want: Want, names: Collection[str], codecs: Collection[str]
    ) -> list[Lease]:
        if self._newest_kind < 0:
            self._load_kinds()
        limit = min(want.free + want.ahead, LIMIT)
        while True:
            kinds = self.kinds_of(want.queue, names, codecs)
            values = {"limit": limit, "queue": want.queue, "worker": worker}
            try:
                text = self._execute(self._lease_sql(kinds), values).fetchone()[0]
                crcs, leases, next_due, next_expiry, newest, paused, alive = self._decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError, sqlite3.OperationalError) as error:
                if not self._quarantine_unreadable(kinds, limit):
                    raise StoreDamaged(f"jobs of queue {want.queue!r} cannot be read") from error
                continue
            if newest != self._newest_kind:
                self._load_kinds()
            elif next_due is not None and next_due <= self.now:
                self._promote()
            elif next_expiry is not None and next_expiry <= self.now:
                self.expire()
            else:
                break
        if paused or not alive or not leases:
            return []
        sound = self._sound(crcs, leases)
        free = want.free
        taken = [one for place, one in enumerate(sound) if place < free or not one.once]
        if taken:
            self._execute(
                f"UPDATE asyncworkers_jobs SET state = {RUNNING}, token = token + 1,"
                " attempt = attempt + 1, worker = ?, started = ?"
                " WHERE seq IN (SELECT value FROM json_each(?))",
                (worker, self.now, json.dumps([one.seq for one in taken])),
            )
        return taken

    def holding(self, worker: int) -> list[Lease]:
        """The leases that a worker has now."""
        held = LEASED.replace("token + 1", "token").replace("attempt + 1", "attempt")
        text = self._value(
            f"SELECT json_group_array({held}) FROM asyncworkers_jobs"
            f" JOIN asyncworkers_kinds USING (kind) WHERE worker = ? AND state = {RUNNING}",
            worker,
        )
        return msgspec.json.decode(text, type=list[Lease], strict=False)

    def kinds_of(
        self, queue: str, names: Collection[str], codecs: Collection[str]
    ) -> tuple[int, ...]:
        """The kinds of job of a queue that can be run here."""
        return tuple(
            kind
            for (where, name, codec), kind in self._kinds.items()
            if where == queue and name in names and codec in codecs
        )

    @staticmethod
    def _lease_sql(kinds: tuple[int, ...]) -> str:
        """The statement that finds what comes first among some kinds, each in its own order."""
        parts = [
            f"SELECT * FROM (SELECT seq, rank, due FROM asyncworkers_jobs WHERE state = {QUEUED}"
            f" AND kind = {kind} ORDER BY rank, due, seq LIMIT :limit)"
            for kind in kinds
        ]
        while len(parts) > TERMS:
            parts = [
                f"SELECT * FROM ({' UNION ALL '.join(parts[start : start + TERMS])}"
                " ORDER BY rank, due, seq LIMIT :limit)"
                for start in range(0, len(parts), TERMS)
            ]
        each = " UNION ALL ".join(parts)
        each = each or "SELECT NULL AS seq, NULL AS rank, NULL AS due WHERE :limit < 0"
        return (
            f"SELECT json_array(json_group_array(crc), json_group_array({LEASED}),"
            f" (SELECT min(due) FROM asyncworkers_jobs WHERE state = {SCHEDULED}),"
            f" (SELECT min(expires) FROM asyncworkers_jobs"
            f" WHERE state < {RUNNING} AND expires IS NOT NULL),"
            " (SELECT ifnull(max(kind), 0) FROM asyncworkers_kinds),"
            " iif((SELECT paused FROM asyncworkers_queues WHERE queue = :queue), 1, 0),"
            " EXISTS (SELECT 1 FROM asyncworkers_workers WHERE worker = :worker))"
            # CROSS JOIN keeps the order of what stands on its left.
            f" FROM (SELECT seq AS first FROM ({each}) ORDER BY rank, due, seq LIMIT :limit)"
            " CROSS JOIN asyncworkers_jobs AS j ON j.seq = first"
            " CROSS JOIN asyncworkers_kinds AS k ON k.kind = j.kind"
        )

    def _sound(self, crcs: list[int], leases: list[Lease]) -> list[Lease]:
        """Those whose checksum is right; the others fail where they stand."""
        bad: list[int] = []
        for crc, one in zip(crcs, leases, strict=True):
            tags = json.dumps(one.tags) if one.tags else "[]"
            if crc != checksum(
                one.id, one.queue, one.name, one.codec, one.once, tags, one.extra, one.args
            ):
                bad.append(one.seq)
        if not bad:
            return leases
        self._quarantine(bad)
        return [one for one in leases if one.seq not in bad]

    def _quarantine_unreadable(self, kinds: tuple[int, ...], limit: int) -> int:
        """Find the rows that are no text any more, one by one; how many."""
        found = 0
        for kind in kinds:
            rows = self._execute(
                "SELECT seq, CAST(id || tags || extra || args AS BLOB), json_valid(tags)"
                f" FROM asyncworkers_jobs WHERE state = {QUEUED} AND kind = ?"
                " ORDER BY rank, due, seq LIMIT ?",
                (kind, limit),
            ).fetchall()
            bad = [seq for seq, raw, valid in rows if not (valid and _is_text(raw))]
            self._quarantine(bad)
            found += len(bad)
        return found

    def _quarantine(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            log.error("stored job %d is damaged and was set aside: its checksum is wrong", seq)
            self._end(
                "seq = ?",
                [seq],
                FAILED,
                error_text("StoreDamaged", "the stored job is damaged: its checksum is wrong"),
            )

    def _promote(self) -> None:
        """Let what has come due stand in line."""
        self._execute(
            f"UPDATE asyncworkers_jobs SET state = {QUEUED} WHERE seq IN"
            f" (SELECT seq FROM asyncworkers_jobs WHERE state = {SCHEDULED} AND due <= ?)",
            (self.now,),
        )

    def expire(self) -> int:
        """End what waited too long."""
        return self._end(
            f"state < {RUNNING} AND expires IS NOT NULL AND expires <= ?",
            [self.now],
            CANCELLED,
            error_text("JobExpired", "its time had run out"),
        )

    # ---- workers

    def workers(self) -> frozenset[int]:
        """The numbers of all workers."""
        return frozenset(self._listed("SELECT json_group_array(worker) FROM asyncworkers_workers"))

    def enlist(self, pid: int, boot: str, expires: int, beyond: int) -> int:
        """Take a worker in; its number is greater than `beyond` and never used twice."""
        newest = "ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'asyncworkers_workers'), 0)"
        done = self._execute(
            "INSERT INTO asyncworkers_workers (worker, pid, boot, expires)"
            f" VALUES (1 + max(?, {newest}), ?, ?, ?)",
            (beyond, pid, boot, expires),
        )
        assert done.lastrowid is not None
        return done.lastrowid

    def renew(self, worker: int, expires: int, progress: Sequence[tuple[Lease, str]]) -> bool:
        """Prolong a worker's time; False if it was given up."""
        before = self._connection.total_changes
        self._execute(
            "UPDATE asyncworkers_workers SET expires = ? WHERE worker = ?", (expires, worker)
        )
        if self._connection.total_changes == before:
            return False
        if progress:
            self._many(
                "WITH s (seq, token, said) AS (VALUES {})"
                " UPDATE asyncworkers_jobs SET progress = s.said FROM s"
                " WHERE asyncworkers_jobs.seq = s.seq AND asyncworkers_jobs.token = s.token"
                f" AND state = {RUNNING}",
                [(lease.seq, lease.token, said) for lease, said in progress],
                3,
            )
        return True

    def marks(self, worker: int) -> tuple[Mark, ...]:
        """The running jobs of a worker that somebody wants cancelled."""
        rows = self._listed(
            "SELECT json_group_array(json_array(seq, token, id, cancelling))"
            f" FROM asyncworkers_jobs WHERE worker = ? AND state = {RUNNING}"
            " AND cancelling IS NOT NULL",
            worker,
        )
        return tuple(Mark(*row) for row in rows)

    def bring_back(
        self, worker: int, begun: set[tuple[int, int]] | None, *, certain: bool
    ) -> Counter[str]:
        """Take the jobs of a worker back, and strike it off. `begun` is None if nobody knows."""
        rows = self._listed(
            "SELECT json_group_array(json_array(seq, token, losses, once, cancelling))"
            f" FROM asyncworkers_jobs WHERE worker = ? AND state = {RUNNING}",
            worker,
        )
        done = Counter[str]({"recovered": len(rows)})
        waiting: list[tuple[int, int]] = []
        for seq, token, losses, once, cancelling in rows:
            charged = begun is None or (seq, token) in begun or (once and not certain)
            if charged and (once or losses + 1 >= self._settings.losses):
                done["lost"] += 1
                message = f"its worker ended {counted(losses + 1, 'time')} while it ran"
                error = error_text("JobLost", message)
                self._end("seq = ?", [seq], FAILED, error)
            elif cancelling is not None:
                self._end("seq = ?", [seq], CANCELLED, cancelling)
            waiting.append((seq, int(charged)))
        self._many(
            "WITH s (seq, charged) AS (VALUES {}) UPDATE asyncworkers_jobs SET"
            f" state = iif(state = {RUNNING}, {QUEUED}, state), worker = NULL,"
            f" progress = iif(state = {RUNNING}, NULL, progress), token = token + 1,"
            " losses = losses + s.charged, attempt = attempt - 1 + s.charged"
            " FROM s WHERE asyncworkers_jobs.seq = s.seq",
            waiting,
            2,
        )
        self._execute("DELETE FROM asyncworkers_workers WHERE worker = ?", (worker,))
        self.news.ready = self.news.ready or bool(rows)
        return done

    # ---- maintenance

    def maintain(
        self, directory: Path, me: int, surplus: int | None
    ) -> tuple[Maintained, list[Dead], int | None]:
        """Bring back the jobs of dead workers, expire, prune.

        `surplus`: how many ended jobs there are too many; None on most rounds, for it takes long
        to count them. Answers also with whom to bury once this is committed, and with the `surplus`
        of the next round, if this one could not forget all.
        """
        done = Counter[str]()
        buried: list[Dead] = []
        try:
            for worker, boot, expires in self._listed(
                "SELECT json_group_array(json_array(worker, boot, expires))"
                " FROM asyncworkers_workers WHERE worker <> ?",
                me,
            ):
                overdue = expires <= milliseconds(self._clock.uptime())
                restarted = boot != self._clock.boot()
                dead = examine(directory, worker, overdue=overdue, restarted=restarted)
                if dead is not None:
                    buried.append(dead)
                    done += self.bring_back(worker, dead.begun, certain=dead.certain)
        except BaseException:
            for dead in buried:
                dead.let_go()
            raise
        done["expired"] = self.expire()
        done["pruned"], left = self._prune(surplus)
        return Maintained(**done), buried, left

    def _prune(self, surplus: int | None) -> tuple[int, int | None]:
        """How many jobs were forgotten, and the surplus that is left; None if there is no more to do."""
        before = self._connection.total_changes
        delete = (
            "DELETE FROM asyncworkers_jobs WHERE seq IN (SELECT seq FROM asyncworkers_jobs"
            f" WHERE state >= {ENDED} AND until <= ? ORDER BY until, seq LIMIT ?)"
        )
        self._execute(delete, (self.now, LIMIT))
        pruned = self._connection.total_changes - before
        if surplus is None:
            return pruned, None
        if surplus > pruned:
            self._execute(delete, (NEVER, min(surplus - pruned, LIMIT)))
            pruned = self._connection.total_changes - before
        left = max(0, surplus - pruned)
        return pruned, left if self._prune_keys() or left else None

    def _prune_keys(self) -> bool:
        """Drop keys that nobody will hold again, as many as a call may look at; whether there are more.

        The key of a job that waited to start is kept while it is leased: it may come back untouched.
        """
        keys = self._listed(
            "SELECT json_group_array(json_array(key, needed)) FROM (SELECT k.key,"
            f" iif(k.date IS NULL, h.state < {ENDED}, k.date > :now) AS needed"
            " FROM asyncworkers_keys AS k LEFT JOIN asyncworkers_jobs AS h ON h.seq = k.seq"
            " WHERE k.key > :after ORDER BY k.key LIMIT :limit)",
            now=self.now,
            after=self._pruned_keys,
            limit=LIMIT,
        )
        self._execute(
            "DELETE FROM asyncworkers_keys WHERE key IN (SELECT value FROM json_each(?))",
            (json.dumps([key for key, needed in keys if not needed]),),
        )
        more = len(keys) == LIMIT
        self._pruned_keys = keys[-1][0] if more else ""
        return more

    # ---- steering

    def _portion(self, where: Where, states: str) -> list[list[Any]]:
        sql, values = condition(where, self.now)
        return self._listed(
            "SELECT json_group_array(json_array(seq, id, state)) FROM (SELECT seq, id, state"
            " FROM asyncworkers_jobs JOIN asyncworkers_kinds USING (kind)"
            f" WHERE {sql} AND {states} ORDER BY seq LIMIT {LIMIT})",
            *values,
        )

    def cancel(self, where: Where, error: str) -> list[Cancelled]:
        """Cancel what waits, mark what runs."""
        rows = self._portion(where, f"state < {ENDED}")
        seqs = "seq IN (SELECT value FROM json_each(?))"
        waiting = json.dumps([seq for seq, _, state in rows if state < RUNNING])
        running = json.dumps([seq for seq, _, state in rows if state == RUNNING])
        self._end(seqs, [waiting], CANCELLED, error)
        self._execute(
            f"UPDATE asyncworkers_jobs SET cancelling = ifnull(cancelling, ?) WHERE {seqs}",
            (error, running),
        )
        return [Cancelled(ident, state == RUNNING) for _, ident, state in rows]

    def retry(self, where: Where) -> list[str]:
        """Put dead jobs back in line."""
        refused = (
            f"claim IS NOT NULL AND ({CLAIMS}) AND EXISTS (SELECT 1 FROM asyncworkers_keys AS k"
            " LEFT JOIN asyncworkers_jobs AS h ON h.seq = k.seq"
            " WHERE k.key = json_extract(asyncworkers_jobs.claim, '$[0]')"
            f" AND k.seq IS NOT asyncworkers_jobs.seq AND {HELD})"
        ).replace(":now", str(self.now))
        rows = self._portion(where, f"state IN ({FAILED}, {CANCELLED}) AND NOT ({refused})")
        rows = self._hold_again(rows)
        self._execute(
            f"UPDATE asyncworkers_jobs SET state = {QUEUED}, due = ?, token = token + 1,"
            " failures = 0, losses = 0, ended = NULL, until = NULL, expires = NULL, error = NULL,"
            " cancelling = NULL WHERE seq IN (SELECT value FROM json_each(?))",
            (self.now, json.dumps([seq for seq, _, _ in rows])),
        )
        self.news.ready = self.news.ready or bool(rows)
        return [ident for _, ident, _ in rows]

    def _hold_again(self, rows: list[list[Any]]) -> list[list[Any]]:
        """Let dead jobs hold their keys; those that can: of several with one key the first."""
        claims = self._listed(
            "SELECT json_group_array(json_array(seq, json_extract(claim, '$[0]')))"
            " FROM asyncworkers_jobs WHERE seq IN (SELECT value FROM json_each(:seqs))"
            f" AND claim IS NOT NULL AND {CLAIMS}",
            now=self.now,
            seqs=json.dumps([seq for seq, _, _ in rows]),
        )
        first: dict[str, int] = {}
        for seq, key in sorted(claims):
            first.setdefault(key, seq)
        self._execute(
            f"{KEYS} SELECT json_extract(claim, '$[0]'), id, json_extract(claim, '$[1]'),"
            " json_extract(claim, '$[2]'), seq FROM asyncworkers_jobs"
            " WHERE seq IN (SELECT value FROM json_each(?))",
            (json.dumps([*first.values()]),),
        )
        refused = {seq for seq, key in claims if first[key] != seq}
        return [row for row in rows if row[0] not in refused]

    def purge(self, where: Where) -> int:
        """Forget ended jobs."""
        rows = self._portion(where, f"state >= {ENDED}")
        self._execute(
            "DELETE FROM asyncworkers_jobs WHERE seq IN (SELECT value FROM json_each(?))",
            (json.dumps([seq for seq, _, _ in rows]),),
        )
        return len(rows)

    def say_ready(self) -> None:
        """There may be something to lease that did not come through here."""
        self.news.ready = True

    def pause(self, queue: str, paused: bool) -> None:
        """Set or clear a queue's flag."""
        self._execute(
            "INSERT OR REPLACE INTO asyncworkers_queues VALUES (?, ?)", (queue, int(paused))
        )
        self.news.ready = self.news.ready or not paused


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
