"""What belongs to a request follows into its jobs: through a real server, to the loop, threads and processes."""

import asyncio
import json
import logging

import pytest
import uvicorn
from aiohttp import ClientSession
from request_id import request_id, with_request_id
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asyncworkers import Supervisor, job

pytestmark = pytest.mark.asyncio


async def on_the_loop() -> str:
    """The request's id, seen by a job on the loop."""
    return request_id.get()


def in_a_thread() -> str:
    """The same in a thread."""
    return request_id.get()


in_a_process = job(with_request_id, cpu=True)


async def test_a_requests_id_reaches_its_jobs_wherever_they_run() -> None:
    """Two requests at once, each with an id of its own: each job sees that of its request, when it is retried
    or awaits its turn too, and what no request has submitted sees none.
    """
    both = asyncio.Barrier(2)

    async def handle(request: Request) -> JSONResponse:
        request_id.set(request.headers["x-request-id"])
        await both.wait()  # so that neither is over when the other's jobs begin
        supervisor = request.state.supervisor
        return JSONResponse(
            [await supervisor.call(one) for one in (on_the_loop, in_a_thread, in_a_process)]
        )

    supervisor = Supervisor(workers=1, threads=1, processes=1)
    app = Starlette(routes=[Route("/", handle)], lifespan=supervisor.lifespan)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level=logging.WARNING))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(60):
        while not server.started:
            await asyncio.sleep(0.01)
        (port,) = {one.getsockname()[1] for each in server.servers for one in each.sockets}
        async with ClientSession(f"http://127.0.0.1:{port}") as session:

            async def ask(name: str) -> list[str]:
                async with session.get("/", headers={"X-Request-Id": name}) as response:
                    return json.loads(await response.text())

            answers = await asyncio.gather(ask("a"), ask("b"))
        assert answers == [["a"] * 3, ["b"] * 3]
        assert await supervisor.call(on_the_loop) == "none"
        assert await supervisor.call(in_a_process) == "none"
        server.should_exit = True
        await serving
