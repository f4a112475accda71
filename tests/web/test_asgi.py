"""The ASGI middleware, the refusals, and a lifespan for applications that have none."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgi_client import Answer, Client, living
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from asyncworkers import (
    AsyncworkersError,
    Queue,
    QueueFull,
    Supervisor,
    SupervisorClosed,
    SupervisorFailed,
    job,
)
from asyncworkers.integrations.asgi import SupervisorMiddleware, WithLifespan
from asyncworkers.integrations.refusal import refusal

pytestmark = pytest.mark.asyncio


async def for_ever() -> None:
    """End only if cancelled."""
    await asyncio.Event().wait()


async def echo(value: Any) -> Any:
    """Return the value."""
    return value


async def submit(request: Request) -> PlainTextResponse:
    """Submit a job that never ends to a queue with room for one."""
    request.state.supervisor.submit_nowait(job(for_ever, queue="small"))
    return PlainTextResponse("accepted", 202)


async def endless(request: Request) -> StreamingResponse:
    """Answer with events that never end; the path says of which type."""

    async def stream() -> AsyncIterator[str]:
        yield "data: 1\n\n"
        await asyncio.Event().wait()

    return StreamingResponse(stream(), media_type=f"text/{request.path_params['kind']}")


async def talk(socket: WebSocket) -> None:
    """Accept, or not, and submit."""
    if socket.path_params["accept"] == "yes":
        await socket.accept()
    socket.state.supervisor.submit_nowait(job(for_ever, queue="small"))
    await socket.close()


async def late(request: Request) -> StreamingResponse:
    """Fail with a refusal when the answer has begun."""

    async def stream() -> AsyncIterator[str]:
        yield "some"
        raise QueueFull("too late")

    return StreamingResponse(stream())


ROUTES = [
    Route("/submit", submit),
    Route("/endless/{kind}", endless),
    Route("/late", late),
    WebSocketRoute("/talk/{accept}", talk),
]


def application(supervisor: Supervisor, **options: Any) -> Starlette:
    """An application of which everything can be asked."""
    middleware = [Middleware(SupervisorMiddleware, supervisor=supervisor, **options)]
    return Starlette(routes=ROUTES, middleware=middleware, lifespan=supervisor.lifespan)


def small() -> Supervisor:
    """A supervisor with a queue that is full with one job."""
    return Supervisor(grace=0, queues=[Queue("small", 0, maxsize=1)])


@pytest.mark.parametrize("inner", [False, True])
async def test_a_full_queue_is_a_503(inner: bool) -> None:
    """QueueFull becomes 503 with Retry-After and a body that tells nothing of what is inside; in an
    application that is mounted too, which reaches the supervisor in the same way.
    """
    supervisor = small()
    app = application(supervisor, retry_after=7)
    prefix = "/inner" if inner else ""
    if inner:
        app = Starlette(
            routes=[Mount("/inner", Starlette(routes=ROUTES))],
            middleware=[Middleware(SupervisorMiddleware, supervisor=supervisor, retry_after=7)],
            lifespan=supervisor.lifespan,
        )
        app.routes[0].app.add_middleware(SupervisorMiddleware, supervisor=supervisor, retry_after=7)
    async with living(app) as client:
        assert (await client.get(f"{prefix}/submit")).status == 202
        refused = await client.get(f"{prefix}/submit")
    assert (refused.status, refused.headers["retry-after"]) == (503, "7")
    assert refused.headers["content-type"] == "application/json"
    assert int(refused.headers["content-length"]) == len(refused.body)
    assert refused.json["error"]["type"] == "QueueFull"
    assert "small" not in refused.body


async def test_a_drain_is_a_503() -> None:
    """So does SupervisorClosed, once the drain has begun."""
    supervisor = small()
    async with living(application(supervisor)) as client:
        await supervisor.drain()
        refused = await client.get("/submit")
    assert (refused.status, refused.headers["retry-after"]) == (503, "5")
    assert refused.json["error"]["type"] == "SupervisorClosed"


async def test_what_was_never_entered_is_a_mistake_and_no_503() -> None:
    """An application that forgot the lifespan fails as any other mistake does."""
    supervisor = Supervisor()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await supervisor.submit(for_ever)

    answer = Answer()
    with pytest.raises(SupervisorClosed, match="was not entered"):
        await SupervisorMiddleware(app, supervisor)({"type": "http"}, None, answer.send)
    assert answer.sent == []


async def test_an_answer_that_has_begun_is_not_answered_again() -> None:
    """A refusal in the middle of a stream is an error as any other: the server cuts the answer off."""
    async with living(application(small())) as client:
        answer = Answer()
        with pytest.raises(QueueFull, match="too late"):
            await client.start("/late", answer)
    assert answer.status == 200


async def test_web_sockets_are_refused_too() -> None:
    """Before it is accepted, by a 503 where the server can, else closed with 1013; after, closed."""
    supervisor = small()
    async with living(application(supervisor)) as client:
        await client.get("/submit")
        page = await client.connect("/talk/no", answers=True)
        closed = await client.connect("/talk/no")
        accepted = await client.connect("/talk/yes", answers=True)
    assert (page.status, page.json["error"]["type"]) == (503, "QueueFull")
    assert page.sent[0]["type"] == "websocket.http.response.start"
    assert closed.sent == [{"type": "websocket.close", "code": 1013}]
    assert [message["type"] for message in accepted.sent] == ["websocket.accept", "websocket.close"]


async def test_event_streams_end_with_the_drain() -> None:
    """A stream of events that knows nothing of it ends when the drain begins, its last message says
    so; one that is opened afterwards ends too, and nothing is cancelled that is no such stream.
    """
    supervisor = Supervisor()
    async with living(application(supervisor)) as client:
        events, other = Answer(), Answer()
        streams = [
            asyncio.create_task(client.start("/endless/event-stream", events)),
            asyncio.create_task(client.start("/endless/plain", other)),
        ]
        await events.until(2)
        await other.until(2)
        assert events.sent[-1]["more_body"]
        await supervisor.drain()
        await streams[0]
        assert events.body == "data: 1\n\n"
        assert not streams[1].done()
        again = await client.get("/endless/event-stream")
        assert again.status == 200
        streams[1].cancel()
        await asyncio.wait(streams)
    assert other.sent[-1]["more_body"]


async def test_whoever_cancels_a_stream_is_heard() -> None:
    """A cancellation from outside, as by a server that gives up, goes through the middleware; so
    does a TimeoutError of the application's own.
    """
    supervisor = Supervisor()

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise TimeoutError("mine")

    async with living(application(supervisor)) as client:
        events = Answer()
        stream = asyncio.create_task(client.start("/endless/event-stream", events))
        await events.until(2)
        stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stream
        with pytest.raises(TimeoutError, match="mine"):
            await SupervisorMiddleware(fails, supervisor)({"type": "http"}, None, events.send)


async def test_a_stream_that_ends_by_itself_leaves_nothing_behind() -> None:
    """Nobody goes on waiting for the drain for its sake."""
    supervisor = Supervisor()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n"})

    async with supervisor:
        before = asyncio.all_tasks()
        await SupervisorMiddleware(app, supervisor)({"type": "http"}, None, Answer().send)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before


async def test_what_a_handler_does_after_its_stream_is_not_cut_off() -> None:
    """A stream that has ended when the drain begins is answered: what its handler still has to do,
    background tasks say, is done, and nothing more is sent, which servers take for an error.
    """
    supervisor = Supervisor()
    done: list[str] = []

    async def afterwards() -> None:
        await supervisor.drain()
        for _ in range(10):  # turns of the loop, in which it would be cancelled
            await asyncio.sleep(0)
        done.append("afterwards")

    async def stream(request: Request) -> StreamingResponse:
        async def one() -> AsyncIterator[str]:
            yield "data: 1\n\n"

        return StreamingResponse(
            one(), media_type="text/event-stream", background=BackgroundTask(afterwards)
        )

    app = Starlette(
        routes=[Route("/", stream)],
        middleware=[Middleware(SupervisorMiddleware, supervisor=supervisor)],
        lifespan=supervisor.lifespan,
    )
    async with living(app) as client:
        answer = await client.get("/")
        assert done == ["afterwards"]
        assert [message.get("more_body", False) for message in answer.sent[1:]] == [True, False]


async def test_a_stream_that_ends_while_it_is_told_to_ends_once() -> None:
    """The last message that a handler sends when it is cancelled is the last there is."""
    supervisor = Supervisor()
    answer = Answer()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            await asyncio.Event().wait()
        finally:
            await send({"type": "http.response.body", "body": b"data: end\n\n"})

    async with supervisor:
        serving = asyncio.create_task(
            SupervisorMiddleware(app, supervisor)({"type": "http"}, None, answer.send)
        )
        await answer.until(1)
        await supervisor.drain()
        await serving
    assert answer.body == "data: end\n\n"
    assert len(answer.sent) == 2


async def test_a_lifespan_for_those_that_have_none() -> None:
    """Several lifespans of ours and others are entered in order and left in reverse, and what they
    yield is in the state of each request.
    """
    said: list[str] = []
    first, second = Supervisor(name="first"), Supervisor(name="second")

    @asynccontextmanager
    async def own(app: Any) -> AsyncIterator[None]:
        said.append(f"own begins, {first.state}, {second.state}")
        yield
        said.append(f"own ends, {first.state}, {second.state}")

    @asynccontextmanager
    async def named(app: Any) -> AsyncIterator[dict[str, Supervisor]]:
        async with second.lifespan(app) as state:
            yield {"second": state["supervisor"]}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        supervisors = scope["state"]["supervisor"], scope["state"]["second"]
        values = [await each.call(echo, each.name) for each in supervisors]
        await JSONResponse(values)(scope, receive, send)

    async with living(WithLifespan(app, first.lifespan, own, named)) as client:
        assert (await client.get("/")).json == ["first", "second"]
    assert said == ["own begins, open, new", "own ends, open, closed"]
    assert first.state == "closed"


@pytest.mark.parametrize("when", ["startup", "shutdown"])
async def test_a_lifespan_that_fails_is_told_to_the_server(when: str) -> None:
    """The server hears which half failed and why, and what was entered before is left."""
    supervisor = Supervisor()
    received: list[dict[str, str]] = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}]

    @asynccontextmanager
    async def fails(app: Any) -> AsyncIterator[None]:
        if when == "startup":
            raise ValueError("no database")
        yield
        raise ValueError("no database")

    async def receive() -> dict[str, str]:
        return received.pop()

    answer = Answer()
    with pytest.raises(ValueError, match="no database"):
        await WithLifespan(lambda: None, supervisor.lifespan, fails)(
            {"type": "lifespan"}, receive, answer.send
        )
    assert answer.sent[-1]["type"] == f"lifespan.{when}.failed"
    assert "no database" in answer.sent[-1]["message"]
    assert supervisor.state == "closed"


async def test_a_supervisor_that_fails_is_told_to_server_and_clients() -> None:
    """The application's lifespan ends with the error, event streams end, and whoever asks from then on
    is answered with 503, as long as the server goes on.
    """
    supervisor = Supervisor(restarts=0, queues=[Queue("small", 0, maxsize=1)])
    app, life, state = application(supervisor), Answer(), {}
    received: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    received.put_nowait({"type": "lifespan.startup"})
    lifespan = asyncio.create_task(
        app({"type": "lifespan", "state": state}, received.get, life.send)
    )
    await life.until(1)
    client, events = Client(app, state), Answer()
    stream = asyncio.create_task(client.start("/endless/event-stream", events))
    await events.until(2)
    supervisor._worker_crashed("default", ZeroDivisionError("ours"))
    with pytest.raises(SupervisorFailed, match="ours"):
        await lifespan
    assert life.sent[1]["type"] == "lifespan.shutdown.failed"
    await stream
    assert events.body == "data: 1\n\n"
    refused = await client.get("/submit")
    assert (refused.status, refused.json["error"]["type"]) == (503, "SupervisorFailed")


@pytest.mark.parametrize(
    "error",
    [
        QueueFull("queue 'secret' holds 3"),
        SupervisorClosed("secret is draining", "draining"),
        SupervisorFailed("secret crashed"),
    ],
)
async def test_refusals_are_answers(error: AsyncworkersError) -> None:
    """Each refusal has a word for programs, is a 503, and says nothing of what is inside."""
    body, status, headers = answer = refusal(error, retry_after=0)
    assert (status, headers) == (503, {"Content-Type": "application/json", "Retry-After": "0"})
    assert json.loads(body)["error"]["type"] == type(error).__name__
    assert "secret" not in repr(answer)


async def test_other_errors_are_no_refusals() -> None:
    """What is none of these is raised again, the very object."""
    for error in (ValueError("x"), SupervisorClosed("x", "new")):
        with pytest.raises(type(error)) as caught:
            refusal(error)
        assert caught.value is error


@pytest.mark.parametrize("wrong", [-1, 86_401, 1.5, True, "5"])
async def test_senseless_times_to_ask_again_are_refused(wrong: Any) -> None:
    """`retry_after` is a whole number of seconds within a day; whoever gives another hears so at once."""
    with pytest.raises((TypeError, ValueError), match="retry_after must be"):
        refusal(QueueFull(), retry_after=wrong)
    with pytest.raises((TypeError, ValueError), match="retry_after must be"):
        SupervisorMiddleware(lambda: None, Supervisor(), retry_after=wrong)
    with pytest.raises(TypeError, match="supervisor must be a Supervisor, not 5"):
        SupervisorMiddleware(lambda: None, 5)
