"""The stream of a job's progress over HTTP."""

import asyncio
from typing import Any

import pytest
from conversation import Conversation

from asyncworkers import StoreUnavailable, Supervisor, current_job
from asyncworkers.http import EventStreams, JobsApp, Refused

pytestmark = pytest.mark.asyncio


def told(talk: Conversation) -> list[tuple[str, str, Any]]:
    """Name, state and units done of each event."""
    return [
        (name, data["state"], data["progress"] and data["progress"]["done"])
        for name, data in talk.events
    ]


async def submitted(app: JobsApp, function: str) -> str:
    """The id of a job that was submitted over HTTP."""
    talk = Conversation(
        f"/submit/{function}", "POST", content_type="application/json", origin="http://localhost"
    )
    await app(talk.scope, talk.receive, talk.send)
    assert talk.status == 202, talk.body
    return dict(talk.started["headers"])[b"location"].decode().removeprefix("../")


@pytest.mark.parametrize("place", ["memory", "store"])
async def test_progress_is_sent_as_it_happens(place: str, tmp_path: Any) -> None:
    """Each step is sent while the job runs, and the end ends the stream."""
    steps: asyncio.Queue[int] = asyncio.Queue()

    async def work() -> str:
        while (done := await steps.get()) < 3:
            current_job().report(done, 3)
        return "done"

    store = (
        {} if place == "memory" else {"store": f"sqlite:///{tmp_path}/j.db", "functions": [work]}
    )
    async with Supervisor(**store) as supervisor:
        app = JobsApp(supervisor, {"work": work})
        ident = await submitted(app, "work")
        talk = Conversation(f"/{ident}/events")
        task = asyncio.create_task(app(talk.scope, talk.receive, talk.send))
        await talk.until(lambda: bool(told(talk)))
        for done in (1, 2):
            steps.put_nowait(done)
            await talk.until(lambda d=done: ("job", "running", d) in told(talk))
        steps.put_nowait(3)
        await task
        assert talk.ended
        assert told(talk)[-1][:2] == ("end", "succeeded")
        assert b"id: end\n" in talk.body
        again = Conversation(f"/{ident}/events")  # a job that has ended: its end, at once
        await app(again.scope, again.receive, again.send)
        assert [name for name, *_ in told(again)] == ["end"]
        seen = Conversation(f"/{ident}/events", last_event_id="end")
        await app(seen.scope, seen.receive, seen.send)
        assert seen.status == 204  # a browser stops asking


async def test_a_stream_ends_when_the_supervisor_drains() -> None:
    """The stream of a job that runs on ends with the drain, and the server can end."""
    gate = asyncio.Event()

    async def work() -> None:
        await gate.wait()

    async with Supervisor() as supervisor:
        app = JobsApp(supervisor, {"work": work}, streams=EventStreams(lifetime=1_000))
        talk = Conversation(f"/{await submitted(app, 'work')}/events")
        task = asyncio.create_task(app(talk.scope, talk.receive, talk.send))
        await talk.until(lambda: bool(told(talk)))
        drain = asyncio.create_task(supervisor.drain())
        await task
        assert talk.ended
        assert not drain.done()
        gate.set()
        await drain


@pytest.mark.parametrize(
    "trouble", [Refused(404, "JobNotFound", "gone"), StoreUnavailable("the disk is gone")]
)
async def test_the_stream_of_a_job_that_is_not_found_any_more_ends(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    """A stored job that is purged while it is followed, or a store in trouble, ends the stream whole."""

    async def work() -> None:
        """Nobody runs it: its queue has no workers."""

    async def not_found(ident: str) -> Any:
        raise trouble

    store = f"sqlite:///{tmp_path}/j.db"
    async with Supervisor(store=store, functions=[work], workers=0) as supervisor:
        app = JobsApp(supervisor, {"work": work})
        ident = await submitted(app, "work")
        talk = Conversation(f"/{ident}/events")
        task = asyncio.create_task(app(talk.scope, talk.receive, talk.send))
        await talk.until(lambda: bool(told(talk)))
        monkeypatch.setattr(app, "_find", not_found)
        await task
        assert talk.ended
        assert [name for name, *_ in told(talk)] == ["job"]
        await supervisor.stored.cancel(ident)


async def test_fault_V10_streams_of_jobs_are_few_at_a_time() -> None:
    """One more than the bound is 503 with `Retry-After`, and the others go on."""
    gate = asyncio.Event()

    async def work() -> None:
        await gate.wait()

    async with Supervisor() as supervisor:
        app = JobsApp(supervisor, {"work": work}, streams=EventStreams(clients=2))
        ident = await submitted(app, "work")
        talks = [Conversation(f"/{ident}/events") for _ in range(2)]
        tasks = [asyncio.create_task(app(one.scope, one.receive, one.send)) for one in talks]
        for talk in talks:
            await talk.until(lambda t=talk: bool(told(t)))
        late = Conversation(f"/{ident}/events")
        await app(late.scope, late.receive, late.send)
        assert late.status == 503
        assert b"retry-after" in dict(late.started["headers"])
        gate.set()
        await asyncio.gather(*tasks)
        assert all(told(talk)[-1][0] == "end" for talk in talks)


async def test_who_waits_for_a_result_and_leaves_is_forgotten() -> None:
    """A client that goes away while it waits leaves nothing behind; the job goes on."""
    gate = asyncio.Event()

    async def work() -> str:
        await gate.wait()
        return "done"

    async with Supervisor() as supervisor:
        app = JobsApp(supervisor, {"work": work})
        ident = await submitted(app, "work")
        talk = Conversation(f"/{ident}/result")
        talk.scope["query_string"] = b"wait=1000"
        task = asyncio.create_task(app(talk.scope, talk.receive, talk.send))
        while not app._waiting:
            await asyncio.sleep(0)
        talk.leave()
        await task
        assert app._waiting == 0
        assert supervisor.jobs()[0].state == "running"
        gate.set()


async def test_fault_V10_waits_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More waits than the bound are answered at once, that the result is not there yet."""
    monkeypatch.setattr("asyncworkers.http.jobs.MOST_WAITS", 1)
    gate = asyncio.Event()

    async def work() -> str:
        await gate.wait()
        return "done"

    async with Supervisor() as supervisor:
        app = JobsApp(supervisor, {"work": work})
        ident = await submitted(app, "work")
        talks = [Conversation(f"/{ident}/result") for _ in range(2)]
        for talk in talks:
            talk.scope["query_string"] = b"wait=1000"
        first = asyncio.create_task(app(talks[0].scope, talks[0].receive, talks[0].send))
        while not app._waiting:
            await asyncio.sleep(0)
        await app(talks[1].scope, talks[1].receive, talks[1].send)
        assert talks[1].status == 202
        gate.set()
        await first
        assert talks[0].status == 200
