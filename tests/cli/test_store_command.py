"""`asyncworkers queues` and `asyncworkers store`: how a store stands, and looking after its file."""

import sqlite3
import stat
from contextlib import closing

import pytest

from asyncworkers.store.sqlite import care, schema


def change(url, sql, *values):
    """Change a store's file behind its back."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(sql, values)


# ---- queues


def test_queues_are_a_table(run, url):
    """One line a queue, with numbers by state; `queues` alone lists."""
    for command in (["queues"], ["queues", "list"]):
        told = run(*command, "--store", url)
        assert told.code == 0
        heads = ["QUEUE", "STATE", "QUEUED", "SCHEDULED", "RUNNING", "FAILED", "OLDEST"]
        assert told.lines[0].split() == heads
        assert told.lines[1].split() == ["mail", "open", "0", "0", "0", "1", "-"]
        assert told.lines[2].split()[:6] == ["web", "open", "1", "1", "1", "0"]


def test_queues_as_json(run, url):
    """The same for programs; `oldest` is in seconds."""
    mail, web = run("queues", "--json", "--store", url).documents()
    assert mail["oldest"] is None
    assert web["oldest"] >= 0
    assert (web["queued"], web["scheduled"], web["running"], web["failed"]) == (1, 1, 1, 0)


def test_queues_are_paused_and_resumed(run, url):
    """By name, several at once, also one that has no jobs yet, which is said; and it is seen."""
    told = run("queues", "pause", "mail", "new", "--store", url)
    assert (told.code, told.lines) == (0, ["Queue mail is paused.", "Queue new is paused."])
    assert told.err == "No unfinished or failed job is on queue new.\n"
    found = {
        one["queue"]: one["paused"] for one in run("queues", "--json", "--store", url).documents()
    }
    assert found == {"mail": True, "new": True, "web": False}
    told = run("queues", "resume", "mail", "--json", "--store", url)
    assert told.documents() == [{"queue": "mail", "paused": False}]
    assert run("queues", "--json", "--store", url).documents()[0]["paused"] is False


def test_no_queues(run, tmp_path):
    """A store at rest is no failure."""
    url = f"sqlite:///{tmp_path}/new.db"
    run("store", "init", "--store", url)
    told = run("queues", "--store", url)
    assert (told.code, told.out) == (0, "")
    assert told.err == "No queue has unfinished or failed jobs.\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["pause"], "Missing argument 'QUEUE...'"),
        (["pause", "No Queue"], "name must match"),
        (["pasue", "mail"], "No such command 'pasue'"),
    ],
)
def test_wrong_usage_of_queues(run, url, arguments, complaint):
    """The argument, the value and what is accepted; exit code 2."""
    told = run("queues", *arguments, "--store", url)
    assert told.code == 2
    assert complaint in told.err


# ---- store


def test_init_makes_a_store_once(run, tmp_path):
    """For its owner only; the second time it is there already, and left as it is."""
    path = tmp_path / "jobs.db"
    url = f"sqlite:///{path}"
    told = run("store", "init", "--store", url)
    assert (told.code, told.out) == (0, f"{path} is made, with schema {schema.VERSION}.\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    told = run("store", "init", "--store", url)
    assert (told.code, told.out) == (
        0,
        f"{path} was there already, with schema {schema.VERSION}.\n",
    )
    (document,) = run("store", "init", "--store", url, "--json").documents()
    assert document == {"path": str(path), "made": False, "schema": schema.VERSION}


def test_init_says_why_not(run, tmp_path):
    """The path and the cause, in a line."""
    told = run("store", "init", "--store", f"sqlite:///{tmp_path}/none/jobs.db")
    assert told.code == 1
    assert "none/jobs.db cannot be used as a store: its directory does not exist" in told.err


def test_check_of_a_sound_store(run, url):
    """Sizes, schema, who has it open, and what there is; nothing is changed by it."""
    told = run("store", "check", "--store", url)
    assert told.code == 0
    assert told.lines[-1] == "It is sound."
    assert f"schema   {schema.VERSION}, this asyncworkers has {schema.VERSION}" in told.lines
    assert "workers  1 alive" in told.lines
    assert (
        "jobs     1 queued, 1 scheduled, 1 running, 1 succeeded, 1 failed, 1 cancelled"
        in told.lines
    )
    (document,) = run("store", "check", "--quick", "--json", "--store", url).documents()
    assert document["sound"] is True
    assert document["faults"] == []
    assert document["jobs"]["failed"] == 1


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ("args = '[[0],{}]'", "its checksum is wrong"),
        ("args = CAST(x'ff5b' AS TEXT)", "its text is damaged"),
        ("tags = '[\"red\"'", "its checksum is wrong"),
        ("state = 77", "it is in no state there is (77)"),
        ("kind = 77", "the kind it names is not there"),
    ],
)
def test_check_finds_damaged_jobs(run, url, damage, fault):
    """Each by its number, whatever it is; the quick look leaves them out."""
    change(url, f"UPDATE asyncworkers_jobs SET {damage} WHERE id = 'done'")
    told = run("store", "check", "--store", url)
    assert told.code == 1
    assert f"damage   job 1: {fault}" in told.lines
    (document,) = run("store", "check", "--store", url, "--json").documents()
    assert document["sound"] is False
    assert document["faults"] == [f"job 1: {fault}"]
    assert run("store", "check", "--quick", "--store", url).code == 0


def test_check_finds_a_damaged_structure(run, url):
    """What SQLite finds wrong is told as well."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'state = 4', 'state = 3')"
            " WHERE name = 'asyncworkers_failed'"
        )
    told = run("store", "check", "--store", url)
    assert told.code == 1
    assert "asyncworkers_failed" in told.out


def test_a_flood_of_faults_is_cut(run, url, monkeypatch):
    """So many are named, and then that there are more."""
    monkeypatch.setattr(care, "MOST_FAULTS", 3)
    monkeypatch.setattr(care, "PORTION", 2)
    change(url, "UPDATE asyncworkers_jobs SET crc = crc + 1")
    (document,) = run("store", "check", "--store", url, "--json").documents()
    assert document["faults"] == [
        *(f"job {number}: its checksum is wrong" for number in (1, 2, 3)),
        "and there are more",
    ]


def test_a_store_of_a_newer_version_is_refused(run, url):
    """Neither checked nor migrated: the message says to upgrade."""
    change(url, "UPDATE asyncworkers_meta SET value = '99' WHERE name = 'version'")
    for command in (["store", "check"], ["store", "migrate"], ["jobs", "list"]):
        told = run(*command, "--store", url)
        assert told.code == 1
        assert "newer asyncworkers (schema 99" in told.err
        assert "upgrade" in told.err


def test_an_older_store_is_migrated(run, url, monkeypatch):
    """Check says that it has to be, and changes nothing; migrate does it."""
    newer = schema.VERSION + 1
    steps = schema._statements
    monkeypatch.setattr(schema, "VERSION", newer)
    monkeypatch.setattr(
        schema,
        "_statements",
        lambda number: ["CREATE TABLE asyncworkers_new (x)"] if number == newer else steps(number),
    )
    told = run("store", "check", "--store", url)
    assert told.code == 1
    assert f"schema   {newer - 1}, this asyncworkers has {newer}" in told.lines
    assert "`asyncworkers store migrate` brings it to this version." in told.lines
    told = run("store", "migrate", "--store", url)
    assert told.code == 0
    assert told.out.endswith(f" has schema {newer}; it had {newer - 1}.\n")
    (document,) = run("store", "migrate", "--store", url, "--json").documents()
    assert (document["from"], document["to"]) == (newer, newer)
    assert run("store", "check", "--store", url).code == 0


def test_vacuum_gives_room_back(run, tmp_path):
    """The file is smaller after what was in it has gone."""
    path = tmp_path / "jobs.db"
    url = f"sqlite:///{path}"
    run("store", "init", "--store", url)
    change(url, "CREATE TABLE mine AS SELECT randomblob(2000000) AS data")
    change(url, "DROP TABLE mine")
    (document,) = run("store", "vacuum", "--store", url, "--json").documents()
    assert document["before"] > 2_000_000 > document["after"] == path.stat().st_size
    assert run("store", "check", "--store", url).code == 0


def test_vacuum_waits_for_nobody(run, url):
    """While a worker has the store open it refuses, unless it is told to go on."""
    told = run("store", "vacuum", "--store", url)
    assert told.code == 1
    assert "1 worker has" in told.err
    assert run("store", "vacuum", "--force", "--store", url).code == 0
    assert run("store", "check", "--store", url).code == 0


@pytest.mark.parametrize("verb", ["check", "migrate", "vacuum"])
def test_care_makes_no_store(run, tmp_path, verb):
    """What is not there is not made."""
    told = run("store", verb, "--store", f"sqlite:///{tmp_path}/jobs.db")
    assert told.code == 1
    assert "`asyncworkers store init` makes one" in told.err
    assert list(tmp_path.iterdir()) == []
