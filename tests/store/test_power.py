"""The power is cut at any moment: what was on the disk is all there is, and it is enough.

SQLite runs on a file system of our own, which notes each write and each sync. A cut takes what was
synced, and of what was written since whatever 512-byte sectors chance lets through. From that the
store is opened again, by the ordinary SQLite.
"""

import asyncio
import os
import random
from pathlib import Path

import pytest

apsw = pytest.importorskip("apsw")

from asyncworkers.store import Settlement, Submission, Want  # noqa: E402
from asyncworkers.store.sqlite import SqliteStore  # noqa: E402
from asyncworkers.store.sqlite.place import Place  # noqa: E402

CUTS = int(os.environ.get("ASYNCWORKERS_POWER_CUTS", "60"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 + 2 * CUTS)]

SECTOR = 512
DISK = "asyncworkers-test-disk"


class Disk(apsw.VFS):
    """Passes everything on, and notes what is written and synced, file by file."""

    def __init__(self):
        self.log = []
        super().__init__(DISK, "")

    def xOpen(self, name, flags):
        return File(self, name, flags)

    def xDelete(self, name, sync):
        super().xDelete(name, sync)
        self.log.append(("delete", Path(name).name, 0, b""))

    def after_a_cut(self, moment, dice, chance):
        """Return the files as they may be after a cut at this moment of the log."""
        kept, floating = {}, {}
        for what, name, offset, data in self.log[:moment]:
            if what == "write":
                floating.setdefault(name, []).append((offset, data))
            elif what == "truncate":
                floating.setdefault(name, []).append((offset, None))
            elif what == "delete":
                kept.pop(name, None)
                floating.pop(name, None)
            else:
                image = kept.setdefault(name, bytearray())
                for start, piece in floating.pop(name, ()):
                    put(image, start, piece)
        for name, pieces in floating.items():
            image = kept.setdefault(name, bytearray())
            for start, piece in pieces:
                if piece is None:
                    if dice.random() < chance:
                        put(image, start, None)
                    continue
                for sector in range(0, len(piece), SECTOR):
                    if dice.random() < chance:
                        put(image, start + sector, piece[sector : sector + SECTOR])
        return kept


def put(image, start, piece):
    """Write a piece into an image, or cut the image there."""
    if piece is None:
        del image[start:]
        return
    image.extend(bytes(max(0, start - len(image))))
    image[start : start + len(piece)] = piece


class File(apsw.VFSFile):
    def __init__(self, disk, name, flags):
        self.disk = disk
        self.base = Path(name.filename() if isinstance(name, apsw.URIFilename) else name).name
        super().__init__("", name, flags)

    def xWrite(self, data, offset):
        super().xWrite(data, offset)
        self.disk.log.append(("write", self.base, offset, bytes(data)))

    def xTruncate(self, size):
        super().xTruncate(size)
        self.disk.log.append(("truncate", self.base, size, b""))

    def xSync(self, flags):
        super().xSync(flags)
        self.disk.log.append(("sync", self.base, 0, b""))


class Connection:
    """What the store uses of a connection, on the disk of ours."""

    def __init__(self, path):
        self.inner = apsw.Connection(str(path), vfs=DISK)
        self.inner.set_busy_timeout(5_000)

    def execute(self, sql, values=()):
        return Rows(self.inner, sql, values)

    @property
    def in_transaction(self):
        return self.inner.in_transaction

    @property
    def total_changes(self):
        return self.inner.total_changes()

    def close(self):
        self.inner.close()


class Rows:
    """The rows of a statement, text as bytes."""

    def __init__(self, connection, sql, values):
        self.rows = [
            tuple(one.encode() if isinstance(one, str) else one for one in row)
            for row in connection.execute(sql, values)
        ]
        self.lastrowid = connection.last_insert_rowid()

    def fetchone(self):
        return self.rows.pop(0) if self.rows else None

    def fetchall(self):
        return self.rows


@pytest.fixture
def disk(monkeypatch):
    """A disk that can lose its power, under every connection of a store."""
    disk = Disk()

    def connect(place, *, reading=False):
        connection = Connection(place.path)
        place._set_up(connection, reading)
        return connection

    monkeypatch.setattr(Place, "connect", connect)
    yield disk
    disk.unregister()


async def lives(path, durability, disk, acked):
    """Submit, run and settle jobs, and note the moment of the log at which each was answered."""
    store = SqliteStore(path, durability=durability)
    await store.open({"f"})
    for round_ in range(40):
        batch = [
            Submission(f"{round_}-{n}", "q", "f", "[[],{}]", extra="x" * 300) for n in range(5)
        ]
        await store.submit(batch)
        acked.extend((len(disk.log), one.id, None) for one in batch)
        leases = await store.lease([Want("q", 3)])
        await store.settle([Settlement.complete(lease, "1") for lease in leases])
        acked.extend((len(disk.log), lease.id, "succeeded") for lease in leases)
        if round_ % 10 == 9:
            await store._open.change(lambda tables: tables._value("SELECT 1"))
    # What comes now is of the closing, at which nobody was promised anything.
    end = len(disk.log)
    await store.close()
    return end


async def found_again(path, acked, moment):
    """Return which promises made before the moment do not hold in the file."""
    store = SqliteStore(path)
    await store.open({"f"})
    try:
        checked = await store._open.read(
            lambda on: on._execute("PRAGMA integrity_check").fetchall()
        )
        assert checked == [(b"ok",)]
        due = [(ident, state) for when, ident, state in acked if when <= moment]
        jobs = await store.get([ident for ident, _ in due])
        return [
            (ident, state)
            for (ident, state), job in zip(due, jobs, strict=True)
            if job is None or (state is not None and job.state != state)
        ]
    finally:
        await store.close()


def cuts(tmp_path, disk, durability, monkeypatch):
    """Cut the power at many moments of one life; return how many promises each cut broke."""
    dice = random.Random(7)
    acked = []
    life = tmp_path / "life"
    life.mkdir()
    end = asyncio.run(lives(life / "jobs.db", durability, disk, acked))
    monkeypatch.undo()  # from here on with the ordinary SQLite
    broken = []
    first = acked[0][0]
    for number in range(CUTS):
        moment = dice.randint(first, end)
        image = disk.after_a_cut(moment, dice, dice.choice((0.0, 0.5, 1.0)))
        place = tmp_path / f"cut{number}"
        place.mkdir()
        for name, content in image.items():
            (place / name).write_bytes(content)
        broken.append(len(asyncio.run(found_again(place / "jobs.db", acked, moment))))
    return broken


def test_fault_Q02_a_power_cut_breaks_no_promise(tmp_path, disk, monkeypatch):
    """With the default durability nothing that was answered is lost, and nothing is damaged."""
    assert cuts(tmp_path, disk, "power", monkeypatch) == [0] * CUTS


def test_fault_Q02_a_power_cut_may_take_the_end_of_a_faster_store(tmp_path, disk, monkeypatch):
    """With durability="process" a cut takes the last commits, which the page says, and no more."""
    broken = cuts(tmp_path, disk, "process", monkeypatch)
    assert any(broken), "then the other test proves nothing"
