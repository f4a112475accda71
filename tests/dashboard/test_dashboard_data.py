"""What a dashboard is told: figures of a supervisor and of a store, at little cost, safe to show."""

import asyncio
import json
import logging
import time
from types import SimpleNamespace

import pytest
from conversation import Conversation

from asyncworkers import JobState, Queue, Retry, Supervisor, job
from asyncworkers.dashboard import Dashboard, LiveSource, StoreSource, diary
from asyncworkers.dashboard.data import SCAN, Action, Refusal, Wanted, clean, percentiles
from asyncworkers.dashboard.rates import BARS, Rates
from asyncworkers.dashboard.recent import WAITING, Recent
from asyncworkers.events import AttemptStarted, JobSettled, JobSubmitted
from asyncworkers.secret import Secret
from asyncworkers.store.protocol import Submission
from asyncworkers.store.sqlite import SqliteStore


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
    recent = Recent(lambda at: at)
    for number in range(2 * WAITING):
        recent(JobSubmitted(float(number), f"far-{number}", "far", "stored", ()))
    assert len(recent._submitted) <= WAITING
    recent(JobSubmitted(50_000.0, "here", "add", "default", ()))
    recent(JobSettled(50_001.0, "here", "add", "default", (), 1, "succeeded"))
    (ended,) = recent.ended()
    assert ended["submitted"] == 50_000.0


def test_a_delay_is_no_wait():
    """How long jobs waited is how long they could have run and did not, in every attempt."""
    recent = Recent(lambda at: at)
    recent(JobSubmitted(0.0, "one", "add", "default", ()))
    recent(AttemptStarted(60.5, "one", "add", "default", (), 1, 1, 0.5))
    recent(AttemptStarted(99.0, "one", "add", "default", (), 2, 1, 0.25))
    assert recent.times("default")["wait"] == {"p50": 0.25, "p95": 0.5, "p99": 0.5}


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
async def test_rates_of_a_store(tmp_path):
    """How many jobs end in a second follows from totals; what is unknown here is told."""
    store = SqliteStore(tmp_path / "jobs.db")
    await store.open({"send"})
    try:
        source = StoreSource(store, "jobs.db")
        await store.submit([Submission("one", "mail", "send", "[[],{}]")])
        await store.submit([Submission("two", "mail", "elsewhere", "[[],{}]")])
        (mail,) = (await source.overview())["queues"]
        assert (mail["waiting"], mail["unknown"]) == (2, {"elsewhere": 1})
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


LOG = logging.getLogger("tests.dashboard.shop")


@job
async def tell(text: str, times: int = 1) -> None:
    """Log it, so many times."""
    for _ in range(times):
        LOG.warning("on the loop: %s", text)
    try:
        raise ValueError("postgresql://ada:hunter2@db/x")
    except ValueError:
        LOG.exception("it went wrong")


@job
def tell_in_thread(text: str) -> None:
    """Log it from a thread."""
    LOG.warning("in a thread: %s", text)


@job(cpu=True)
def tell_in_process(text: str) -> None:
    """Log it from a process."""
    logging.getLogger("tests.dashboard.shop").warning("in a process: %s", text)


async def logged(board, one):
    """Return what the page of a job shows of its log."""
    return (await ask(board, "/api/job", f"id={one.id}")).json["logs"]


@pytest.mark.asyncio
@pytest.mark.parametrize("function", [tell, tell_in_thread, tell_in_process], ids=lambda f: f.name)
async def test_what_a_job_logs_is_shown_with_it(function, caplog):
    """Of the loop, of threads, of processes; each record with the job that said it, and no other."""
    async with Supervisor(2, processes=1) as supervisor:
        before = await supervisor.submit(function, "before anybody looks")
        await before
        board = supervisor.dashboard(auth=None)
        ones = [await supervisor.submit(function, text) for text in ("first", "<b>second</b>")]
        for one in ones:
            await one
        LOG.warning("outside of jobs")
        lines = [(await logged(board, one))["lines"] for one in ones]
        for said, text in zip(lines, ("first", "<b>second</b>"), strict=True):
            assert said[0]["text"].endswith(f": {text}")
            assert (said[0]["level"], said[0]["logger"]) == ("WARNING", "tests.dashboard.shop")
            assert abs(said[0]["at"] - time.time()) < 600
        if function is tell:
            assert lines[0][1]["text"] == "it went wrong\nValueError: postgresql://ada:***@db/x"
            assert lines[0][1]["level"] == "ERROR"
        assert (await ask(board, "/api/job", f"id={before.id}")).status == 404
    assert "first" in caplog.text  # and wherever else it is to be shown


@pytest.mark.asyncio
async def test_of_a_job_that_logs_much_the_last_lines_are_kept(monkeypatch, caplog):
    """And of many jobs those that logged last: what is kept is bounded."""
    monkeypatch.setattr(diary, "ALL_LINES", 500)
    async with Supervisor(2) as supervisor:
        board = supervisor.dashboard(auth=None)
        ones = [await supervisor.submit(tell, str(number), 250) for number in range(4)]
        for one in ones:
            await one
        assert await logged(board, ones[0]) == {"lines": [], "more": 0}
        last = await logged(board, ones[3])
        assert (len(last["lines"]), last["more"]) == (200, 51)
        assert last["lines"][-1]["level"] == "ERROR"


@pytest.mark.asyncio
async def test_listening_leaves_the_log_as_it_was(caplog):
    """The handlers are the program's; two who listen hear of a record once each, one who is gone not at
    all, and what cannot be written is the log's trouble.
    """
    handlers = logging.root.handlers[:]
    async with Supervisor(1) as supervisor:
        one, other = diary.Diary(), diary.Diary()
        await supervisor.call(tell, "heard")
        assert logging.root.handlers == handlers
        assert [len(found._jobs) for found in (one, other)] == [1, 1]
        assert [len(pages.lines) for pages in one._jobs.values()] == [2]
        other.close()
        before = logging.getLogRecordFactory()
        logging.setLogRecordFactory(lambda *args, **kwargs: before(*args, **kwargs))
        try:
            third = diary.Diary()  # which does not know that the program's own leads to the first
            await supervisor.call(tell, "heard again")
        finally:
            logging.setLogRecordFactory(before)
        assert [len(found._jobs) for found in (one, other, third)] == [2, 1, 1]
        assert [len(pages.lines) for pages in third._jobs.values()] == [2]
        for found in (one, third):
            found.close()
        await supervisor.call(tell, "not heard")
        assert [len(found._jobs) for found in (one, other, third)] == [2, 1, 1]
