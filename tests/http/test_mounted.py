"""The HTTP face inside other applications, and on its own."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from litestar import Litestar
from litestar.handlers import asgi
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from asyncworkers import Supervisor
from asyncworkers.http import JobsApp, Token

HERE = "http://127.0.0.1:8000"
OURS = {"Origin": HERE}
SECRET = "0123456789abcdef0123456789abcdef"


async def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def in_starlette(supervisor: Supervisor, jobs: JobsApp) -> Any:
    """Mounted in Starlette."""
    return Starlette(routes=[Mount("/api/jobs", jobs)], lifespan=supervisor.lifespan)


def in_fastapi(supervisor: Supervisor, jobs: JobsApp) -> Any:
    """Mounted in FastAPI."""
    app = FastAPI(lifespan=supervisor.lifespan)
    app.mount("/api/jobs", jobs)
    return app


def in_litestar(supervisor: Supervisor, jobs: JobsApp) -> Any:
    """Mounted in Litestar."""
    mounted = asgi("/api/jobs", is_mount=True, copy_scope=True)(jobs.__call__)
    return Litestar(
        [mounted], lifespan=[supervisor.lifespan], openapi_config=None, logging_config=None
    )


def alone(supervisor: Supervisor, jobs: JobsApp) -> Any:
    """The whole application, which enters its supervisor itself."""
    return jobs


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("place", [in_starlette, in_fastapi, in_litestar, alone])
def test_it_works_wherever_it_is_mounted(
    place: Callable[[Supervisor, JobsApp], Any], loop: str
) -> None:
    """Under any prefix a job is submitted, found where `Location` says, and its result told."""
    supervisor = Supervisor()
    app = place(supervisor, JobsApp(supervisor, [double], auth=Token(SECRET)))
    prefix = "" if place is alone else "/api/jobs"
    client = TestClient(
        app,
        base_url=HERE,
        client=("127.0.0.1", 1),
        backend_options={"use_uvloop": loop == "uvloop"},
        headers={"Authorization": f"Bearer {SECRET}"},
    )
    with client:
        assert supervisor.state == "open"
        made = client.post(f"{prefix}/submit/double", json={"number": 21})
        assert made.status_code == 202, made.text
        found = client.get(made.url.join(made.headers["location"]))
        assert found.json()["id"] == made.json()["id"]
        end = client.get(f"{prefix}/{made.json()['id']}/result?wait=30")
        assert end.json()["result"] == 42
        assert [one["id"] for one in client.get(f"{prefix}/").json()["jobs"]] == [made.json()["id"]]
        document = client.get(f"{prefix}/openapi.json").json()
        assert "/submit/double" in document["paths"]
        wrong = client.post(f"{prefix}/submit/double", json={})
        assert wrong.status_code == 422
        assert wrong.headers["x-content-type-options"] == "nosniff"
        assert client.get(f"{prefix}/", headers={"Host": "evil.example"}).status_code == 403
    assert supervisor.state == "closed"


def test_a_lifespan_that_is_passed_on_enters_the_supervisor_once() -> None:
    """An application that is around this one and passes the lifespan on may have entered it before."""
    supervisor = Supervisor()
    jobs = JobsApp(supervisor, [double])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            async with supervisor:
                await jobs(scope, receive, send)
                assert supervisor.state == "open"
        else:
            await jobs(scope, receive, send)

    with TestClient(app, base_url=HERE, client=("127.0.0.1", 1)) as client:
        assert client.post("/submit/double", json={"number": 1}, headers=OURS).status_code == 202
