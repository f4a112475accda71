"""FastAPI, Litestar and aiohttp: each starts, stops and reaches a supervisor, and answers its refusals."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from asgi_client import living
from fastapi import Depends, FastAPI, WebSocket
from litestar import Litestar
from litestar import get as litestar_get
from litestar.params import FromPath

from asyncworkers import Queue, Supervisor, job
from asyncworkers.integrations import aiohttp as for_aiohttp
from asyncworkers.integrations import litestar as for_litestar
from asyncworkers.integrations.asgi import SupervisorMiddleware
from asyncworkers.integrations.fastapi import SupervisorDep, supervisor_from
from asyncworkers.integrations.litestar import SupervisorPlugin

pytestmark = pytest.mark.asyncio


async def for_ever() -> None:
    """End only if cancelled."""
    await asyncio.Event().wait()


async def echo(value: Any) -> Any:
    """Return the value."""
    return value


held = job(for_ever, queue="small")


def small() -> Supervisor:
    """A supervisor with a queue that is full with one job."""
    return Supervisor(grace=0, queues=[Queue("small", 0, maxsize=1)])


# ---- FastAPI


def fast_application(supervisor: Supervisor) -> FastAPI:
    """An application with a dependency for requests and web sockets, and a mounted one."""
    app = FastAPI(lifespan=supervisor.lifespan)
    app.add_middleware(SupervisorMiddleware, supervisor=supervisor)

    @app.get("/echo/{value}")
    async def answer(value: str, supervisor: SupervisorDep) -> str:
        return await supervisor.call(echo, value)

    @app.get("/held")
    async def hold(supervisor: SupervisorDep) -> None:
        supervisor.submit_nowait(held)

    @app.websocket("/talk")
    async def talk(socket: WebSocket, supervisor: SupervisorDep) -> None:
        await socket.accept()
        await socket.send_text(await supervisor.call(echo, "hello"))
        await socket.close()

    inner = FastAPI()
    inner.get("/echo/{value}")(answer)
    app.mount("/inner", inner)
    return app


async def test_fastapi_has_a_dependency() -> None:
    """It reaches the supervisor from requests, web sockets and mounted applications, and a refusal
    is a 503.
    """
    supervisor = small()
    async with living(fast_application(supervisor)) as client:
        assert (await client.get("/echo/a")).json == "a"
        assert (await client.get("/inner/echo/b")).json == "b"
        assert (await client.connect("/talk")).sent[1]["text"] == "hello"
        assert (await client.get("/held")).status == 200
        refused = await client.get("/held")
        assert (refused.status, refused.json["error"]["type"]) == (503, "QueueFull")
    assert supervisor.state == "closed"


async def test_fastapi_dependencies_are_not_in_its_schema() -> None:
    """The dependency is no parameter of the request."""
    paths = fast_application(Supervisor()).openapi()["paths"]
    names = [one["name"] for one in paths["/echo/{value}"]["get"]["parameters"]]
    assert names == ["value"]


async def test_fastapi_with_several_supervisors_and_a_lifespan_of_its_own() -> None:
    """The application's own lifespan opens ours and gives them names; each has its dependency."""
    mail, images = Supervisor(name="mail"), Supervisor(name="images")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with mail.lifespan(app), images.lifespan(app):
            yield {"mail": mail, "images": images, "answer": 42}

    app = FastAPI(lifespan=lifespan)
    Mail = Annotated[Supervisor, Depends(supervisor_from("mail"))]
    Images = Annotated[Supervisor, Depends(supervisor_from("images"))]

    @app.get("/")
    async def names(mail: Mail, images: Images) -> list[str]:
        return [mail.name, await images.call(echo, images.name)]

    async with living(app) as client:
        assert (await client.get("/")).json == ["mail", "images"]
        assert client.state["answer"] == 42
    assert mail.state == images.state == "closed"


async def test_fastapi_without_a_lifespan_says_what_is_missing() -> None:
    """Whoever forgot the lifespan, or to enter the test client, is told so."""
    app = FastAPI()

    @app.get("/")
    async def answer(supervisor: SupervisorDep) -> None: ...

    async with living(app) as client:
        with pytest.raises(RuntimeError, match=r"FastAPI\(lifespan=supervisor.lifespan\)"):
            await client.get("/")


# ---- Litestar


async def test_litestar_has_a_plugin() -> None:
    """It starts and stops the supervisors, provides each by its name, and answers refusals."""
    first, second = small(), Supervisor(name="second")

    @litestar_get("/echo/{value:str}")
    async def answer(
        value: FromPath[str],
        supervisor: for_litestar.SupervisorDep,
        other: for_litestar.SupervisorDep,
    ) -> list[str]:
        return [await supervisor.call(echo, value), await other.call(echo, other.name)]

    @litestar_get("/held")
    async def hold(supervisor: for_litestar.SupervisorDep) -> None:
        supervisor.submit_nowait(held)

    app = Litestar(
        [answer, hold],
        plugins=[SupervisorPlugin(first, retry_after=9), SupervisorPlugin(second, "other")],
        logging_config=None,  # its own starts a thread
    )
    async with living(app) as client:
        assert app.state.supervisor is first
        assert (await client.get("/echo/a")).json == ["a", "second"]
        assert (await client.get("/held")).status == 200
        refused = await client.get("/held")
        assert (refused.status, refused.headers["retry-after"]) == (503, "9")
        assert refused.headers["content-type"] == "application/json"
        assert refused.json["error"]["type"] == "QueueFull"
    assert first.state == second.state == "closed"


# ---- aiohttp


async def test_aiohttp_has_a_typed_key() -> None:
    """One call starts and stops the supervisor, lets handlers find it, those of a sub-application
    too, and has refusals answered.
    """
    supervisor = small()

    async def answer(request: web.Request) -> web.Response:
        found = request.config_dict[for_aiohttp.SUPERVISOR]
        return web.Response(text=await found.call(echo, request.match_info["value"]))

    async def hold(request: web.Request) -> web.Response:
        request.app[for_aiohttp.SUPERVISOR].submit_nowait(held)
        return web.Response()

    app, inner = web.Application(), web.Application()
    for_aiohttp.setup(app, supervisor, retry_after=3)
    app.router.add_get("/echo/{value}", answer)
    inner.router.add_get("/echo/{value}", answer)
    app.router.add_get("/held", hold)
    app.add_subapp("/inner", inner)
    async with TestClient(TestServer(app)) as client:
        for path, text in (("/echo/a", "a"), ("/inner/echo/b", "b")):
            async with client.get(path) as response:
                assert await response.text() == text
        async with client.get("/held") as response:
            assert response.status == 200
        async with client.get("/held") as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "3")
            assert response.content_type == "application/json"
            assert (await response.json())["error"]["type"] == "QueueFull"
    assert supervisor.state == "closed"


async def test_aiohttp_with_several_supervisors() -> None:
    """Each has a key of its own."""
    mail_key = web.AppKey("mail", Supervisor)
    mail, images = Supervisor(name="mail"), Supervisor(name="images")
    app = web.Application()
    for_aiohttp.setup(app, images)
    for_aiohttp.setup(app, mail, key=mail_key)

    async def names(request: web.Request) -> web.Response:
        found = request.app[mail_key], request.app[for_aiohttp.SUPERVISOR]
        return web.Response(text=" ".join([await one.call(echo, one.name) for one in found]))

    app.router.add_get("/", names)
    async with TestClient(TestServer(app)) as client, client.get("/") as response:
        assert await response.text() == "mail images"
    assert mail.state == images.state == "closed"


async def test_aiohttp_answers_once() -> None:
    """A refusal in the middle of an answer cuts it off, as any other error does."""

    async def late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"some")
        supervisor = request.app[for_aiohttp.SUPERVISOR]
        for _ in range(2):
            supervisor.submit_nowait(held)
        raise AssertionError

    app = web.Application()
    for_aiohttp.setup(app, small())
    app.router.add_get("/", late)
    async with TestClient(TestServer(app)) as client, client.get("/") as response:
        assert response.status == 200
        with pytest.raises(Exception, match=r"not enough data|closed|payload"):
            await response.read()


async def test_what_is_no_supervisor_is_refused() -> None:
    """Each says so when it is set up, and names what it was given."""
    with pytest.raises(TypeError, match="supervisor must be a Supervisor, not 'mine'"):
        for_aiohttp.setup(web.Application(), "mine")
    with pytest.raises(TypeError, match="supervisor must be a Supervisor, not 'mine'"):
        SupervisorPlugin("mine")
