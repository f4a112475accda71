"""`asyncworkers jobs`: each command's table and JSON, on a store filled through its protocol."""

import asyncio
import os
import pty
import re
import subprocess
import sys

import pytest

from asyncworkers.cli import documents
from asyncworkers.cli import jobs as jobs_module
from asyncworkers.store.address import make_store
from asyncworkers.store.protocol import StoredJob, Submission, Where

ALL = ["gone", "later", "waits", "runs", "dead", "done"]


def states(url):
    """Return what has become of each job."""

    async def look():
        store = make_store(url)
        await store.open()
        try:
            return {job.id: str(job.state) for job in (await store.find(Where())).records}
        finally:
            await store.close()

    return asyncio.run(look())


# ---- list


def test_the_list_is_a_table(run, url):
    """Newest first, one line a job, and what is worth knowing of each; never its arguments."""
    told = run("jobs", "list", "--store", url)
    assert told.code == 0
    assert told.err == ""
    assert told.lines[0].split() == ["ID", "NAME", "QUEUE", "STATE", "ATTEMPT", "AGE", "WHAT"]
    rows = {line.split()[0]: line for line in told.lines[1:]}
    assert list(rows) == ALL
    assert re.search(r"later +fetch +web +scheduled +0 +[\d.]+s +due in 59m", rows["later"])
    assert rows["runs"].endswith("3 of 9, page")
    assert "ValueError: no such host" in rows["dead"]
    assert "Ada" not in told.out
    assert "hunter2" not in told.out


def test_the_list_as_json(run, url):
    """An object a line, with dates in UTC, without arguments and result."""
    told = run("jobs", "list", "--store", url, "--json")
    assert told.ids() == ALL
    by_id = {one["id"]: one for one in told.documents()}
    assert by_id["dead"]["error"]["type"] == "ValueError"
    assert by_id["dead"]["tags"] == ["red"]
    assert by_id["waits"]["priority"] == 5
    assert by_id["runs"]["progress"] == "3 of 9, page"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", by_id["done"]["ended"])
    assert not {"args", "kwargs", "result"} & set(by_id["done"])
    assert "hunter2" not in told.out


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--state", "failed"], ["dead"]),
        (["--state", "failed", "--state", "running"], ["runs", "dead"]),
        (["--queue", "mail"], ["dead", "done"]),
        (["--name", "send", "--name", "fetch"], ALL),
        (["--tag", "red"], ["waits", "dead"]),
        (["--tag", "red", "--tag", "new"], ["waits"]),
        (["--queue", "web", "--state", "queued"], ["waits"]),
        (["--after", "1h"], ALL),
        (["--before", "2100-01-01"], ALL),
        (["--after", "2026-01-01T00:00+01:00", "--before", "2100-01-01"], ALL),
        (["--limit", "2"], ["gone", "later"]),
    ],
)
def test_filters_narrow_each_other(run, url, filters, found):
    """All that are given must hold; the same one again is an alternative, but for tags."""
    assert run("jobs", "list", "--store", url, "--json", *filters).ids() == found


@pytest.mark.parametrize(
    "filters",
    [
        ["--queue", "none"],
        ["--after", "2100-01-01"],
        ["--before", "1h"],
        ["--name", "'; DROP TABLE asyncworkers_jobs; --"],
        ["--tag", "%"],
        ["--queue", "mail", "--queue", "' OR true --", "--state", "running"],
    ],
)
def test_nothing_found_is_an_exit_code(run, url, filters):
    """1, as with grep; what is searched for is never taken for SQL."""
    told = run("jobs", "list", "--store", url, *filters)
    assert (told.code, told.out, told.err) == (1, "", "No jobs.\n")
    assert set(states(url)) == set(ALL)


def test_a_list_that_is_cut_says_so(run, url, monkeypatch):
    """On standard error, so that a table stays one; pages are put together until the limit."""
    monkeypatch.setattr(jobs_module, "PAGE", 2)
    told = run("jobs", "list", "--store", url, "--limit", "5")
    assert len(told.lines) == 6
    assert "more than these 5" in told.err
    assert run("jobs", "list", "--store", url, "--limit", "6").err == ""


def test_the_store_is_found_in_the_environment(run, url, monkeypatch):
    """ASYNCWORKERS_STORE stands for --store."""
    monkeypatch.setenv("ASYNCWORKERS_STORE", url)
    assert run("jobs", "list", "--json", "--limit", 1).ids() == ["gone"]


# ---- show


def test_show_tells_all_there_is(run, url):
    """Arguments, result, error and traceback; what has no value is left out."""
    told = run("jobs", "show", "done", "dead", "--store", url)
    assert told.code == 0
    assert re.search(r"^args: +\['Ada'\]$", told.out, re.MULTILINE)
    assert re.search(r"^kwargs: +\{'password': '\*\*\*', 'size': 3\}$", told.out, re.MULTILINE)
    assert re.search(r"^result: +\{'sent': 2, 'token': '\*\*\*'\}$", told.out, re.MULTILINE)
    assert "  Traceback (most recent call last):" in told.lines
    assert "expires" not in told.out


def test_what_sounds_secret_is_shown_on_request(run, url):
    """Passwords and tokens are masked unless `--reveal` is given."""
    (hidden,) = run("jobs", "show", "done", "--store", url, "--json").documents()
    (revealed,) = run("jobs", "show", "done", "--store", url, "--json", "--reveal").documents()
    assert hidden["kwargs"] == {"password": "***", "size": 3}
    assert revealed["kwargs"] == {"password": "hunter2", "size": 3}
    assert revealed["args"] == ["Ada"]
    assert revealed["result"] == {"sent": 2, "token": "t0k3n"}


def test_fault_V12_nothing_stored_can_repaint_the_terminal(run, url):
    """Control characters in a stored error are escaped, in tables and in what is shown."""
    for command in (["list"], ["show", "dead"], ["show", "dead", "\x1b[2J"]):
        told = run("jobs", *command, "--store", url)
        assert "\x1b" not in told.out + told.err
        assert "\x07" not in told.out + told.err
        assert r"\x1b]0;pwned\x07" in told.out


def test_a_job_that_is_not_there(run, url):
    """The others are shown, and the exit code is 1."""
    told = run("jobs", "show", "nobody", "done", "--store", url, "--json")
    assert told.code == 1
    assert told.err == "There is no job nobody.\n"
    assert told.ids() == ["done"]


# ---- steering


def test_cancel_by_id(run, url):
    """What waits is cancelled, what runs is asked to stop; nothing needs to be confirmed."""
    told = run("jobs", "cancel", "waits", "runs", "--store", url, "--reason", "enough")
    assert told.code == 0
    assert told.lines == ["1 job cancelled.", "1 running job asked to stop."]
    (waits,) = run("jobs", "show", "waits", "--store", url, "--json").documents()
    assert (waits["state"], waits["error"]["message"]) == ("cancelled", "enough")
    (runs,) = run("jobs", "show", "runs", "--store", url, "--json").documents()
    assert (runs["state"], runs["cancelling"]) == ("running", True)


def test_cancel_by_filter(run, url):
    """By filter it asks, or is told that it need not; ended jobs are left alone."""
    told = run("jobs", "cancel", "--queue", "web", "--state", "scheduled", "--yes", "--store", url)
    assert (told.code, told.lines) == (0, ["1 job cancelled."])
    told = run("jobs", "cancel", "--all", "--yes", "--store", url, "--json")
    assert told.documents() == [{"id": "runs", "running": True}, {"id": "waits", "running": False}]
    assert states(url)["done"] == "succeeded"


def test_retry(run, url):
    """By id also what was cancelled; by filter only what failed, unless it says otherwise."""
    told = run("jobs", "retry", "gone", "--store", url)
    assert (told.code, told.lines) == (0, ["1 job put back in line."])
    told = run("jobs", "retry", "--all", "--yes", "--store", url, "--json")
    assert told.ids() == ["dead"]
    assert states(url)["gone"] == states(url)["dead"] == "queued"
    run("jobs", "cancel", "gone", "--store", url)
    told = run("jobs", "retry", "--queue", "web", "--yes", "--store", url)
    assert (told.code, told.lines) == (1, ["0 jobs put back in line."])
    told = run("jobs", "retry", "--state", "cancelled", "--yes", "--store", url)
    assert (told.code, told.lines) == (0, ["1 job put back in line."])


def test_purge(run, url):
    """Ended jobs are forgotten, others are not."""
    told = run("jobs", "purge", "done", "--store", url)
    assert (told.code, told.lines) == (0, ["1 job purged."])
    told = run("jobs", "purge", "--all", "--yes", "--store", url, "--json")
    assert told.documents() == [{"purged": 2}]
    assert set(states(url)) == {"runs", "waits", "later"}


@pytest.mark.parametrize(
    ("verb", "left"), [("cancel", "done"), ("retry", "waits"), ("purge", "runs")]
)
def test_named_jobs_that_are_left_alone_are_named(run, url, verb, left):
    """Which one, and in what state it is; exit code 1, and the others are dealt with."""
    before = states(url)
    reached = {"cancel": "waits", "retry": "dead", "purge": "gone"}[verb]
    told = run("jobs", verb, left, reached, "nobody", "--store", url)
    assert told.code == 1
    assert told.err == f"Job {left} is {before[left]}: left as it is.\nThere is no job nobody.\n"
    after = states(url)
    assert after[left] == before[left]
    assert after.get(reached) != before[reached]


@pytest.mark.parametrize("verb", ["cancel", "retry", "purge"])
def test_many_jobs_take_many_calls(run, url, verb, monkeypatch):
    """A call of the store reaches only so many jobs: all of them are reached nevertheless."""
    monkeypatch.setattr(jobs_module, "LIMIT", 2)
    monkeypatch.setattr("asyncworkers.store.sqlite.transaction.LIMIT", 2)
    names = [f"job-{number}" for number in range(7)]

    async def prepare():
        store = make_store(url)
        await store.open()
        await store.submit([Submission(name, "bulk", "f", "[[],{}]") for name in names])
        if verb != "cancel":
            for name in names:
                await store.cancel(Where(ids=(name,)), '{"type":"JobCancelled"}')
        await store.close()

    asyncio.run(prepare())
    state = ["--state", "cancelled"] if verb == "retry" else []
    told = run("jobs", verb, "--queue", "bulk", "--yes", *state, "--store", url)
    assert told.lines[0].startswith("7 jobs ")
    assert told.code == 0
    if verb == "cancel":
        told = run("jobs", "retry", *names, "--store", url)
        assert told.lines == ["7 jobs put back in line."]


@pytest.mark.parametrize("verb", ["cancel", "retry", "purge"])
def test_nobody_means_all_jobs_by_saying_nothing(run, url, verb):
    """Neither ids nor filters is wrong usage, and so are both; nobody there to be asked, too."""
    before = states(url)
    assert "Which jobs? Name ids, filters, or --all." in run("jobs", verb, "--store", url).err
    told = run("jobs", verb, "--all", "--queue", "mail", "--store", url)
    assert "goes with neither ids nor filters" in told.err
    told = run("jobs", verb, "--all", "--store", url)
    assert told.code == 2
    assert f"{verb.capitalize()} " in told.err
    assert "Nobody can be asked here: say --yes." in told.err
    assert states(url) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_it_asks_on_a_terminal(url, answer):
    """How many jobs are meant is told; only a yes is one."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        ran = subprocess.run(
            [sys.executable, "-m", "asyncworkers", "jobs", "purge", "--all", "--store", url],
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert "Purge 3 jobs? [y/N]" in ran.stderr
    if answer == "y":
        assert (ran.returncode, ran.stdout.strip()) == (0, "3 jobs purged.")
    else:
        assert (ran.returncode, ran.stdout.strip()) == (1, "")
        assert "Nothing was changed." in ran.stderr
    assert ("done" in states(url)) is (answer != "y")


# ---- wrong usage


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["list", "--state", "dead"], "'dead' is not one of 'scheduled', 'queued'"),
        (
            ["cancel", "--state", "failed"],
            "'failed' is not one of 'scheduled', 'queued', 'running'",
        ),
        (["retry", "--state", "queued"], "'queued' is not one of 'failed', 'cancelled'"),
        (["purge", "--state", "running"], "'running' is not one of 'succeeded', 'failed'"),
        (["list", "--before", "yesterday"], "'yesterday' is neither an age, as 90s"),
        (["list", "--after", "2026-13-01"], "'2026-13-01' is neither an age"),
        (["list", "--after", "99999-01-01"], "neither an age"),
        (["list", "--limit", "0"], "0 is not in the range"),
        (["show"], "Missing argument 'ID...'"),
        (["lsit"], "No such command 'lsit'"),
    ],
)
def test_wrong_usage_is_named(run, url, arguments, complaint):
    """The option, the value and what is accepted; exit code 2."""
    told = run("jobs", *arguments, "--store", url)
    assert told.code == 2
    assert complaint in told.err


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("jobs.db", "store 'jobs.db' must be sqlite:///jobs.db"),
        ("memory:", "jobs in memory are their process' own"),
        ("sqlite:///jobs.db?tll=3", "did you mean 'ttl'?"),
    ],
)
def test_a_store_that_is_none(run, address, complaint):
    """A wrong URL is wrong usage."""
    told = run("jobs", "list", "--store", address)
    assert told.code == 2
    assert complaint in told.err.replace("\n", " ")


def test_a_store_must_be_named(run, monkeypatch):
    """By option or in the environment; the message names both."""
    monkeypatch.delenv("ASYNCWORKERS_STORE", raising=False)
    told = run("jobs", "list")
    assert told.code == 2
    assert "--store" in told.err
    assert "ASYNCWORKERS_STORE" in told.err


def test_looking_makes_no_store(run, tmp_path):
    """No file is made by looking, and a file without a store in it is left as it is."""
    path = tmp_path / "jobs.db"
    told = run("jobs", "list", "--store", f"sqlite:///{path}")
    assert told.code == 1
    assert told.err == (
        f"asyncworkers: there is no file {path}: `asyncworkers store init` makes one\n"
    )
    path.touch()
    assert "there is no store in" in run("queues", "--store", f"sqlite:///{path}").err
    path.write_bytes(b"important" * 100)
    assert "no SQLite database" in run("jobs", "list", "--store", f"sqlite:///{path}").err
    assert path.read_bytes() == b"important" * 100
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_that_goes_away_is_no_error(url):
    """`jobs list | head -1`: no traceback, and nothing else on standard error either."""
    pipe = f"{sys.executable} -m asyncworkers jobs list --json --store {url}"
    ours, theirs = os.pipe()
    os.close(ours)
    began = subprocess.run(
        pipe.split(), stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(theirs)
    assert (began.returncode, began.stderr) == (1, "")


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (None, ""),
        ("[3,9,null]", "3 of 9"),
        ('[0.5,null,"half"]', "0.5, half"),
        ('[1200,40000,""]', "1,200 of 40,000"),
        ("not JSON", "not JSON"),
        ('{"by":"another"}', "{'by': 'another'}"),
        ('["a","b","c"]', "['a', 'b', 'c']"),
        ('[1,"many",null]', "[1, 'many', None]"),
    ],
)
def test_progress_in_words(stored, told):
    """As jobs report it; what is not of that form is shown as it is, and harms nobody."""
    job = StoredJob(*[None] * len(StoredJob._fields))._replace(progress=stored)
    assert documents.progress(job) == told
