"""What a dashboard is told: figures of a supervisor and of a store, at little cost, safe to show."""

import asyncio
import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conversation import Conversation

sys.path.insert(0, str(Path(__file__).parents[1] / "bridge"))
import life_jobs

from asyncworkers import JobState, Queue, Retry, Supervisor, current_job, job
from asyncworkers.chronicle import Chronicle
from asyncworkers.dashboard import Dashboard, LiveSource, StoreSource
from asyncworkers.dashboard.data import SCAN, Action, Refusal, Wanted, clean, percentiles
from asyncworkers.dashboard.history import tell_history
from asyncworkers.dashboard.rates import BARS, Rates
from asyncworkers.dashboard.recent import Recent, new_chronicle
from asyncworkers.events import AttemptStarted, JobSettled, JobSubmitted
from asyncworkers.secret import Secret
from asyncworkers.store.protocol import Submission
from asyncworkers.store.sqlite import SqliteStore

LOG = logging.getLogger("tests.dashboard")


@job(tags=("red",))
async def hold(gate: asyncio.Event) -> None:
    """Wait."""
    await gate.wait()


@job(retry=Retry(attempts=2, on=ValueError, delay=0))
async def fail(password: str, dsn: str, secret: Secret[str]) -> None:
    """Fail twice."""
    raise ValueError("no such user at postgresql://ada:hunter2@db/x")


@job(queue="default")
async def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


async def ask(board, path, query="", body=None):
    """Ask a dashboard something, as a page of this machine does."""
    talk = Conversation(path, "GET" if body is None else "POST")
    talk.scope["query_string"] = query.encode()
    if body is not None:
        talk.scope["headers"] += [
            (b"sec-fetch-site", b"same-origin"),
            (b"origin", b"http://localhost"),
            (b"content-type", b"application/json"),
        ]
        sent = json.dumps(body).encode()

        async def receive():
            return {"type": "http.request", "body": sent, "more_body": False}

        talk.receive = receive
    await board(talk.scope, talk.receive, talk.send)
    return SimpleNamespace(status=talk.status, json=json.loads(talk.body) if talk.body else None)


@pytest.mark.asyncio
async def test_figures_of_a_supervisor():
    """Queues, workers and what they run, what waits longest, what ended and how long it took."""
    gate = asyncio.Event()
    async with Supervisor(1, queues=[Queue("mail", 2, kind="threads")], name="shop") as supervisor:
        source = LiveSource(supervisor)
        done = await supervisor.submit(add, 1)
        await done
        await source.overview()
        first = supervisor.submit_nowait(hold, gate)
        supervisor.submit_nowait(hold, gate)
        supervisor.submit_nowait(hold.options(delay=60), gate)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen = await source.overview()
        queues = {one["name"]: one for one in seen["queues"]}
        assert list(queues) == ["default", "threads", "processes", "mail"]
        default = queues["default"]
        wanted = {"workers": 1, "running": 1, "waiting": 1, "scheduled": 1, "succeeded": 1}
        assert {name: default[name] for name in wanted} == wanted
        assert default["kind"] == "loop"
        assert default["oldest"] >= 0
        assert default["run"]["p50"] >= 0
        assert queues["mail"]["oldest"] is queues["mail"]["wait"] is None
        (worker,) = seen["workers"]
        assert (worker["job_id"], worker["job_name"], worker["attempt"]) == (first.id, "hold", 1)
        listed = (await source.jobs(Wanted()))["jobs"]
        assert [one["state"] for one in listed] == ["running", "queued", "scheduled", "succeeded"]
        assert listed[2]["due"] > listed[2]["submitted"] + 59
        supervisor.cancel_all("enough")
        source.close()
        assert not supervisor.stats().queues["default"].running or gate.set() is None


@pytest.mark.asyncio
async def test_pages_filters_and_the_bound_on_what_is_looked_at():
    """Lists are continued where they ended, filters hold together, and no answer looks at all jobs."""
    gate = asyncio.Event()
    async with Supervisor(1, maxsize=None) as supervisor:
        source = LiveSource(supervisor)
        jobs = [supervisor.submit_nowait(hold, gate) for _ in range(30)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen, after = [], None
        while True:
            page = await source.jobs(Wanted(after=after, limit=12))
            seen += [one["id"] for one in page["jobs"]]
            after = page["after"]
            if after is None:
                break
        assert seen == [one.id for one in jobs]
        for wanted, number in (
            (Wanted(state=JobState.RUNNING), 1),
            (Wanted(state=JobState.QUEUED, limit=200), 29),
            (Wanted(state=JobState.FAILED), 0),
            (Wanted(name="hold", tag="red", queue="default", limit=200), 30),
            (Wanted(name="hold", tag="blue"), 0),
            (Wanted(queue="nowhere"), 0),
        ):
            assert len((await source.jobs(wanted))["jobs"]) == number, wanted
        supervisor.pause("default")
        for _ in range(SCAN):
            supervisor.submit_nowait(add, 1)
        page = await source.jobs(Wanted(name="nobody"))
        assert page["jobs"] == []
        assert "first 20,000" in page["note"]
        supervisor.cancel_all("enough")


def test_jobs_that_end_elsewhere_do_not_crowd_out_the_others():
    """Of jobs that are submitted here and end in another process nothing more is heard: what is
    remembered of them is bounded, and those that come after them are known all the same.
    """
    chronicle = new_chronicle()
    recent = Recent(chronicle)
    for number in range(20_000):
        chronicle(JobSubmitted(float(number), f"far-{number}", "far", "stored", ()))
    assert len(chronicle._came) <= 10_000
    chronicle(JobSubmitted(50_000.0, "here", "add", "default", ()))
    chronicle(JobSettled(50_001.0, "here", "add", "default", (), 1, "succeeded"))
    (ended,) = recent.ended()
    assert ended["ended"] - ended["submitted"] == pytest.approx(1.0, abs=0.01)


def test_a_delay_is_no_wait():
    """How long jobs waited is how long they could have run and did not, in every attempt."""
    chronicle = new_chronicle()
    chronicle(JobSubmitted(0.0, "one", "add", "default", ()))
    chronicle(AttemptStarted(60.5, "one", "add", "default", (), 1, 1, 0.5))
    chronicle(AttemptStarted(99.0, "one", "add", "default", (), 2, 1, 0.25))
    shown = Recent(chronicle).figures("default")
    assert shown["wait"] == {"p50": 0.25, "p95": 0.5, "p99": 0.5}
    assert Recent(chronicle).figures("nowhere")["run"] is None


def test_what_went_wrong_is_remembered_for_longer():
    """However many jobs succeed after one that failed, it is listed, once, after the last of those."""
    chronicle = Chronicle(jobs=3)
    recent = Recent(chronicle)
    for number, state in enumerate(["failed", "cancelled", *["succeeded"] * 2, "failed"]):
        chronicle(JobSettled(float(number), f"job-{number}", "add", "default", (), 1, state))
    listed = [one["id"] for one in recent.ended()]
    assert listed == ["job-4", "job-3", "job-2", "job-1", "job-0"]
    assert [one["id"] for one in recent.failures()] == ["job-4", "job-0"]
    assert recent.job("job-0")["why"].startswith("It has failed")
    assert recent.job("job-9") is None


@pytest.mark.asyncio
async def test_one_chronicle_serves_report_and_dashboard():
    """Of a supervisor that records, the dashboard reads the record: nothing is listened to twice."""
    async with Supervisor(1, record=True) as supervisor:
        listeners = len(supervisor._listeners._listeners)
        source = LiveSource(supervisor)
        assert len(supervisor._listeners._listeners) == listeners
        done = await supervisor.submit(add, 1)
        await done
        (ended,) = (await source.jobs(Wanted()))["jobs"]
        assert ended["id"] == done.id
        source.close()
        await (await supervisor.submit(add, 2))
        assert len(supervisor.chronicle.jobs()) == 2  # it is the supervisor's, and goes on


# ---- what a job's page says


@job(retry=Retry(attempts=2, on=ValueError, delay=0))
async def talks() -> None:
    """Log in the job, in a task and in a thread of it, and fail once."""

    def in_thread() -> None:
        LOG.warning("in a thread, at postgresql://ada:hunter2@db/x")

    LOG.info("attempt %d with %s", current_job().attempt, Secret("hunter2"))
    await asyncio.create_task(in_task())
    await asyncio.to_thread(in_thread)
    if current_job().attempt == 1:
        try:
            raise ValueError("not yet")
        except ValueError:
            LOG.exception("two\nlines")
            raise


async def in_task() -> None:
    """Log in a task that the job has started."""
    LOG.debug("is not said at this level")
    LOG.info("in a task")


@pytest.fixture
def said(monkeypatch):
    """The log lets through what is information or more."""
    monkeypatch.setattr(LOG, "level", logging.INFO)
    LOG.manager._clear_cache()
    yield
    LOG.manager._clear_cache()


@pytest.mark.asyncio
async def test_the_log_of_a_job(said):
    """Whatever its code says in tasks, threads and both attempts, that and no more; no secret in it."""
    before = logging.getLogRecordFactory()
    async with Supervisor(1) as supervisor:
        source = LiveSource(supervisor)
        talking = await supervisor.submit(talks)
        quiet = await supervisor.submit(add, 1)
        await talking
        await quiet
        LOG.info("outside of all jobs")
        document = clean(await source.job(talking.id))
        lines = document["log"]["lines"]
        told = [(one["level"], one["logged"], one["attempt"]) for one in lines]
        url = "postgresql://ada:***@db/x"
        assert told == [
            ("INFO", "attempt 1 with Secret(***)", 1),
            ("INFO", "in a task", 1),
            ("WARNING", f"in a thread, at {url}", 1),
            ("ERROR", "two\nlines", 1),
            ("INFO", "attempt 2 with Secret(***)", 2),
            ("INFO", "in a task", 2),
            ("WARNING", f"in a thread, at {url}", 2),
        ]
        assert [one["number"] for one in lines] == list(range(1, 8))
        assert {one["logger"] for one in lines} == {LOG.name}
        assert lines[3]["traceback"].splitlines()[-1] == "ValueError: not yet"
        assert (document["log_note"], document["attempts_note"]) == (None, None)
        assert (await source.job(quiet.id))["log"] == {"lines": [], "dropped": 0}
        assert logging.getLogRecordFactory() is not before
    assert logging.getLogRecordFactory() is before


@pytest.mark.skipif(sys.platform == "win32", reason="children need socket pairs")
@pytest.mark.asyncio
async def test_the_log_of_a_job_in_a_process(said):
    """Its records come home and are kept with the job that said them, the earlier ones of many dropped."""
    async with Supervisor(processes=1, record=True) as supervisor:
        source = LiveSource(supervisor)
        one = await supervisor.submit(job(life_jobs.log, cpu=True), LOG.name, 30, "hello")
        await one
        document = await source.job(one.id)
        assert [line["logged"] for line in document["log"]["lines"]] == ["hello"]
        assert document["log"]["lines"][0]["attempt"] == 1


@pytest.mark.asyncio
async def test_attempts_and_logs_of_a_stored_job_are_told_or_said_to_be_unknown(tmp_path, said):
    """Here with worker and log, as it ran in this process; where it did not, the page says so."""
    functions = [talks]
    url = f"sqlite:///{tmp_path}/jobs.db"
    async with Supervisor(1, store=url, functions=functions) as first:
        source = LiveSource(first)
        one = await first.submit(talks)
        await one.wait()
        document = await source.job(one.id)
        assert [(a["attempt"], a["outcome"]) for a in document["attempts"]] == [
            (1, "Failed"),
            (2, "Succeeded"),
        ]
        assert len(document["log"]["lines"]) == 7
        assert (document["attempts_note"], document["log_note"]) == (None, None)
        assert (document["attempt"], document["failures"], document["losses"]) == (2, 1, 0)
    async with Supervisor(1, store=url, functions=functions) as second:
        for other in (LiveSource(second), StoreSource(second.stored.store, "jobs.db", alive=False)):
            document = await other.job(one.id)
            (last,) = document["attempts"]
            assert (last["attempt"], last["worker"], last["outcome"]) == (2, None, "Succeeded")
            assert last["seconds"] == document["ended"] - document["started"]
            assert document["attempts_note"].startswith("Attempt 1 is not known here: it ran in")
            assert document["log"]["lines"] == []
            assert "not known" in document["log_note"] or "not to the store" in document["log_note"]


@pytest.mark.asyncio
async def test_secrets_given_by_place_are_masked_in_stored_jobs_that_have_ended(tmp_path):
    """A store keeps no names of such arguments; the supervisor's functions have them."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    async with Supervisor(1, store=url, functions=[fail, add]) as supervisor:
        source = LiveSource(supervisor)
        failed = await supervisor.submit(fail, "hunter2", "dsn", Secret("hunter2"))
        await failed.wait()
        ident = failed.id
        del failed  # only the store knows of it now
        document = await source.job(ident)
        assert document["args"] == {"password": "***", "dsn": "dsn", "secret": "***"}
        store = supervisor.stored.store
        await store.pause("default", True)
        odd = Submission("odd", "default", add.name, '[["a",2,3],{"token":"t"}]')
        await store.submit([odd, odd._replace(id="cipher", args="abc", codec="pickle/1")])
        odd_args = {"*0": "a", "*1": 2, "*2": 3, "token": "***"}
        assert (await source.job("odd"))["args"] == odd_args
        assert (await source.job("cipher"))["args"] == {"*0": "abc"}


@pytest.mark.parametrize(
    ("attempt", "state", "known", "said"),
    [
        (0, "queued", [], None),
        (1, "running", [], None),
        (3, "running", [1, 2], None),
        (
            5,
            "running",
            [3],
            "Attempts 1 to 2 and 4 are not known here: they ran in another process",
        ),
        (9, "scheduled", [2, 4, 6, 8], "Attempts 1, 3, 5 and others are not known here"),
        (2, "succeeded", [], "Attempt 1 is not known here"),
    ],
)
def test_attempts_that_are_not_known(attempt, state, known, said):
    """Which ones, and why; of those that run nothing is missing yet."""
    document = {"stored": True, "state": state, "attempt": attempt, "error": None}
    document |= {"started": 1.0, "ended": 3.0}
    told = tell_history(
        document, [{"attempt": number} for number in known], {"lines": [], "dropped": 0}, here=True
    )
    assert (told["attempts_note"] or "").startswith(said or "")
    assert (told["attempts_note"] is None) is (said is None)


@pytest.mark.asyncio
async def test_what_runs_elsewhere_logs_elsewhere():
    """A stored job that runs in another process is said to, and not to have logged nothing."""
    document = {"stored": True, "state": "running", "attempt": 1, "error": None}
    document |= {"started": 1.0, "ended": None}
    nothing = {"lines": [], "dropped": 0}
    assert "in another process" in tell_history(dict(document), [], nothing)["log_note"]
    assert tell_history(dict(document), [], nothing, here=True)["log_note"] is None


@pytest.mark.asyncio
async def test_what_runs_comes_first_of_all_queues():
    """A list begins with what runs anywhere, however many wait on the first queue."""
    gate = asyncio.Event()
    async with Supervisor(1, queues=[Queue("web", 1)]) as supervisor:
        source = LiveSource(supervisor)
        for _ in range(3):
            supervisor.submit_nowait(hold, gate)
            supervisor.submit_nowait(hold.options(queue="web"), gate)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        listed = (await source.jobs(Wanted()))["jobs"]
        assert [(one["state"], one["queue"]) for one in listed] == [
            ("running", "default"),
            ("running", "web"),
            *[("queued", "default")] * 2,
            *[("queued", "web")] * 2,
        ]
        assert len((await source.jobs(Wanted(queue="web")))["jobs"]) == 3
        supervisor.cancel_all("enough")


@pytest.mark.asyncio
async def test_a_tick_looks_at_no_waiting_job():
    """What is made once a second does not ask for the jobs in line: their number changes nothing."""
    async with Supervisor(1, maxsize=None) as supervisor:
        source = LiveSource(supervisor)
        supervisor.pause("default")
        for _ in range(10_000):
            supervisor.submit_nowait(add, 1)
        line = supervisor._intake.queues["default"].line
        looked = []

        class Counted(type(line)):
            def __iter__(self):
                for one in super().__iter__():
                    looked.append(one)
                    yield one

        supervisor._intake.queues["default"].line = Counted(line)
        picture = await source.overview()
        assert picture["queues"][0]["waiting"] == 10_000
        assert len(looked) <= 1  # the one at the head, for its age
        supervisor._intake.queues["default"].line = line
        supervisor.cancel_all("enough")


@pytest.mark.asyncio
async def test_a_failure_is_told_with_its_arguments_and_none_of_its_secrets():
    """Attempts, error and traceback of a job that has ended; passwords and the like nowhere."""
    async with Supervisor(1) as supervisor:
        board = supervisor.dashboard(auth=None)
        failed = await supervisor.submit(
            fail, "hunter2", "postgresql://ada:hunter2@db/x", Secret("hunter2")
        )
        await failed.wait()
        told = await ask(board, "/api/job", f"id={failed.id}")
        assert told.status == 200
        assert told.json["args"]["password"] == told.json["args"]["secret"] == "***"
        assert told.json["args"]["dsn"] == "postgresql://ada:***@db/x"
        assert [one["decision"] for one in told.json["attempts"]] == ["RetryAfter", "Fail"]
        assert "raise ValueError" in told.json["failure"]["traceback"]
        everything = [told, await ask(board, "/api/jobs"), await ask(board, "/api/overview")]
        assert "hunter2" not in json.dumps([one.json for one in everything])


@pytest.mark.asyncio
async def test_errors_are_written_down_for_a_few_jobs_a_second_only():
    """A storm of failures costs no storm of tracebacks."""
    async with Supervisor(1) as supervisor:
        source = LiveSource(supervisor)
        jobs = [supervisor.submit_nowait(fail, "x", "y", Secret("z")) for _ in range(100)]
        for one in jobs:
            await one.wait()
        kept = [one for one in jobs if source._recent.error(one.id) is not None]
        assert 1 <= len(kept) <= 40
        assert len(list(source._recent.failures())) == 100


@pytest.mark.asyncio
async def test_before_and_after_its_life():
    """A dashboard may be made before its supervisor is entered, and outlives it: it says what it can."""
    supervisor = Supervisor(1)
    board = supervisor.dashboard(auth=None, actions=True)
    before = await ask(board, "/api/overview")
    assert (before.json["state"], before.json["queues"]) == ("new", [])
    assert (await ask(board, "/api/jobs")).json["jobs"] == []
    assert (await ask(board, "/api/job", "id=x")).status == 503
    assert (await ask(board, "/api/live")).status == 503
    async with supervisor:
        assert (await ask(board, "/api/job", "id=x")).status == 404
    await asyncio.sleep(0)
    board.ticker._made_at = None
    after = await ask(board, "/api/overview")
    assert after.json["state"] == "closed"


@pytest.mark.asyncio
async def test_actions_say_what_was_done_or_why_not():
    """Each verb, on what is there, what is not, and what cannot be; nonsense is refused by name."""
    gate = asyncio.Event()
    async with Supervisor(2) as supervisor:
        board = supervisor.dashboard(auth=None, actions=True)
        running, done = supervisor.submit_nowait(hold, gate), await supervisor.submit(add, 1)
        await done

        async def act(action, target, **more):
            return await ask(board, "/api/act", body={"action": action, "target": target, **more})

        assert (await act("pause", "default")).json == {"message": "Queue default is paused."}
        assert supervisor.stats().queues["default"].paused
        assert (await act("resume", "default")).status == 200
        assert (await act("resize", "default", workers=5)).status == 200
        assert supervisor.stats().queues["default"].workers == 5
        assert "told to stop" in (await act("cancel", running.id)).json["message"]
        await running.wait()
        assert running.state == "cancelled"
        for body, status in (
            (("pause", "nowhere"), 404),
            (("cancel", "nobody-1"), 404),
            (("retry", running.id), 409),
            (("explode", "default"), 422),
            (("pause", "No Queue"), 422),
            (("pause", "x" * 65), 422),
            (("cancel", "a\nb"), 422),
        ):
            assert (await act(*body)).status == status, body
        for body in ([], {"action": "pause"}, {"action": 1, "target": "default"}, "x"):
            assert (await ask(board, "/api/act", body=body)).status == 422
        assert (await act("resize", "default", workers=-1)).status == 422
        nothing_said = {"action": "resize", "target": "default"}  # would stop the queue
        assert (await ask(board, "/api/act", body=nothing_said)).status == 422
        assert (await act("resize", "default", workers=2, more=1)).status == 422
        assert (await ask(board, "/api/jobs", body={})).status == 404
        for query in ("state=odd", "after=x", "after=here-", "after=-1", "queue=%00", "limit=x"):
            assert (await ask(board, "/api/jobs", query)).status == 422, query
        assert len((await ask(board, "/api/jobs", "limit=999999999")).json["jobs"]) == 2


@pytest.mark.asyncio
async def test_one_picture_for_all_and_none_for_nobody():
    """Any number of clients share a picture; while nobody looks, none is made."""
    async with Supervisor(1) as supervisor:
        board = supervisor.dashboard(auth=None, every=0.05)
        assert board.ticker.looks == 0
        talks = [Conversation("/api/live") for _ in range(5)]
        tasks = [asyncio.create_task(board(one.scope, one.receive, one.send)) for one in talks]
        for one in talks:
            await one.until(lambda one=one: len(one.events) >= 3)
        most = max(len(one.events) for one in talks)
        assert board.ticker.looks <= most + 1
        for one in talks:
            one.leave()
        for task in tasks:
            await task
        looks = board.ticker.looks
        await asyncio.sleep(0.12)
        assert board.ticker.looks == looks


@pytest.mark.asyncio
async def test_streams_end_when_the_drain_begins():
    """An open dashboard does not hold up the end of its server."""
    async with Supervisor(1) as supervisor:
        board = supervisor.dashboard(auth=None, every=0.05)
        talk = Conversation("/api/live")
        task = asyncio.create_task(board(talk.scope, talk.receive, talk.send))
        await talk.until(lambda: talk.events)
        await supervisor.drain()
        await task
        assert talk.ended


@pytest.mark.asyncio
async def test_a_supervisor_with_a_store_shows_both(tmp_path):
    """Jobs of the store and of this process in one list; a pause reaches all processes; failed jobs of
    the store are retried.
    """
    gate = asyncio.Event()

    @job
    async def work(number: int) -> int:
        await gate.wait()
        if number == 1:
            raise ValueError("one")
        return number

    @job(queue="quick")
    async def quick() -> None:
        await gate.wait()

    url = f"sqlite:///{tmp_path}/jobs.db"
    queues = [Queue("quick", 1, stored=False)]
    async with Supervisor(1, store=url, functions=[work], queues=queues) as supervisor:
        source = LiveSource(supervisor)
        bad = await supervisor.submit(work, 1)
        for number in (2, 3):
            await supervisor.submit(work, number)
        here = await supervisor.submit(quick)
        while bad.state != "running" or here.state != "running":
            await asyncio.sleep(0.005)
        seen = {one["name"]: one for one in (await source.overview())["queues"]}
        assert seen["default"]["stored"]
        assert not seen["quick"]["stored"]
        assert seen["default"]["workers"] == 1
        assert seen["default"]["running"] + seen["default"]["waiting"] == 3
        listed = (await source.jobs(Wanted()))["jobs"]
        assert {one["name"].rpartition(".")[2] for one in listed} == {"work", "quick"}
        assert len(listed) == len({one["id"] for one in listed}) == 4
        document = await source.job(bad.id)
        assert document["args"] == {"number": 1}
        assert document["stored"]
        assert document["why"].startswith("running")
        await source.act(Action("pause", "default"))
        (counts,) = [one for one in await supervisor.stored.counts() if one.queue == "default"]
        assert counts.paused
        gate.set()
        await bad.wait()
        await here
        document = await source.job(bad.id)
        assert document["failure"]["message"] == "one"
        assert await source.act(Action("retry", bad.id)) == f"Job {bad.id} is back in line."
        with pytest.raises(Refusal, match="cannot be retried"):
            await source.act(Action("retry", bad.id))


@pytest.mark.asyncio
async def test_a_dead_job_whose_key_another_one_holds_is_not_retried(tmp_path):
    """The refusal says why."""

    @job(unique="only")
    async def work() -> None: ...

    async with Supervisor(0, store=f"sqlite:///{tmp_path}/jobs.db", functions=[work]) as supervisor:
        dead = await supervisor.submit(work)
        assert await supervisor.stored.cancel(dead) == 1
        await supervisor.submit(work)
        with pytest.raises(Refusal, match="another job holds its unique key"):
            await LiveSource(supervisor).act(Action("retry", dead.id))


@pytest.mark.asyncio
async def test_rates_of_a_store(tmp_path):
    """How many jobs end in a second follows from totals; what is unknown here is told."""
    store = SqliteStore(tmp_path / "jobs.db")
    await store.open({"send"})
    try:
        source = StoreSource(store, "jobs.db", functions={"send": print})
        await store.submit([Submission("one", "mail", "send", "[[],{}]")])
        await store.submit([Submission("two", "mail", "elsewhere", "[[],{}]")])
        (mail,) = (await source.overview())["queues"]
        assert (mail["waiting"], mail["unknown"]) == (2, {"elsewhere": 1})
        (mail,) = (await StoreSource(store, "jobs.db").overview())["queues"]
        assert (mail["waiting"], mail["unknown"]) == (2, {})  # it runs nothing itself
        document = await source.job("two")
        assert "'elsewhere'" in document["why"]
        with pytest.raises(Refusal, match="where they run"):
            await source.act(Action("resize", "mail", 3))
        with pytest.raises(Refusal, match="no job"):
            await source.act(Action("retry", "three"))
    finally:
        await store.close()


def test_rates_follow_totals_and_forget():
    """The mean of the last looks, a bar for each, and a queue that is gone is forgotten."""
    rates = Rates()
    rates.add({"a": 7}, 10.0)
    assert rates.of("a") == {"rate": 0.0, "history": []}
    rates.add({"a": 10}, 12.0)
    assert rates.of("a")["history"][-1] == 5.0
    assert len(rates.of("a")["history"]) == BARS
    for number in range(BARS):
        rates.add({}, 13.0 + number)
    assert rates.of("a")["history"] == []


def test_percentiles():
    """By rank; nothing of nothing."""
    assert percentiles([]) is None
    assert percentiles([3.0]) == {"p50": 3.0, "p95": 3.0, "p99": 3.0}
    assert percentiles(range(101)) == {"p50": 50, "p95": 95, "p99": 99}


def test_clean_keeps_lines_of_tracebacks_alone():
    """Everything else is on one line."""
    assert clean({"traceback": "a\nb\x1b", "x": ["a\nb"]}) == {
        "traceback": "a\nb\\x1b",
        "x": ["a\\nb"],
    }


def test_what_makes_no_dashboard():
    """Wrong arguments are refused by name, at once."""
    supervisor = Supervisor()
    with pytest.raises(TypeError, match="auth"):
        supervisor.dashboard()
    with pytest.raises(TypeError, match="auth must be"):
        supervisor.dashboard(auth="yes")
    with pytest.raises(ValueError, match="auth must be given with hosts"):
        supervisor.dashboard(auth=None, hosts=["example.com"])
    with pytest.raises(TypeError, match="actions"):
        supervisor.dashboard(auth=None, actions=1)
    with pytest.raises(ValueError, match="every"):
        supervisor.dashboard(auth=None, every=0)
    assert isinstance(supervisor.dashboard(auth=None), Dashboard)
