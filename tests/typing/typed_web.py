"""How the web integrations are typed, as their users see them: checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import assert_type

from aiohttp import web
from fastapi import FastAPI
from litestar import Litestar, get
from litestar.params import FromPath
from starlette.applications import Starlette
from starlette.middleware import Middleware

from asyncworkers import Supervisor
from asyncworkers.host import first_on_host
from asyncworkers.integrations import aiohttp, fastapi, litestar
from asyncworkers.integrations.asgi import SupervisorMiddleware, WithLifespan
from asyncworkers.integrations.refusal import refusal

supervisor = Supervisor()


async def double(number: int) -> int:
    """A function that was never decorated."""
    return 2 * number


async def with_fastapi(number: int, supervisor: fastapi.SupervisorDep) -> int:
    """A handler of FastAPI."""
    assert_type(supervisor, Supervisor)
    return await supervisor.call(double, number)


@get("/{number:int}")
async def with_litestar(number: FromPath[int], supervisor: litestar.SupervisorDep) -> int:
    """A handler of Litestar."""
    assert_type(supervisor, Supervisor)
    return await supervisor.call(double, number)


async def with_aiohttp(request: web.Request) -> web.Response:
    """A handler of aiohttp."""
    assert_type(request.app[aiohttp.SUPERVISOR], Supervisor)
    assert_type(request.config_dict[aiohttp.SUPERVISOR], Supervisor)
    return web.Response()


def applications() -> None:
    """What each framework's application accepts."""
    app = FastAPI(lifespan=supervisor.lifespan)
    app.add_middleware(SupervisorMiddleware, supervisor=supervisor, retry_after=3)
    Starlette(
        middleware=[Middleware(SupervisorMiddleware, supervisor=supervisor)],
        lifespan=supervisor.lifespan,
    )
    Litestar([with_litestar], plugins=[litestar.SupervisorPlugin(supervisor)])
    served = web.Application()
    aiohttp.setup(served, supervisor)
    served.middlewares.append(aiohttp.refusals())
    served.cleanup_ctx.append(supervisor.cleanup_ctx)

    async def plain(scope: object, receive: object, send: object) -> None: ...

    WithLifespan(plain, supervisor.lifespan, Supervisor().lifespan)
    body, status, headers = refusal(ValueError())
    assert_type((body, status, headers), tuple[str, int, dict[str, str]])
    with first_on_host("warm-up") as first:
        assert_type(first, bool)
