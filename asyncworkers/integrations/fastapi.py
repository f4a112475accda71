"""For FastAPI: the supervisor as a dependency of handlers, of requests and of web sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from asyncworkers import Supervisor

try:
    from fastapi import Depends
    from starlette.requests import HTTPConnection
except ImportError as error:
    raise ImportError(
        "asyncworkers.integrations.fastapi needs FastAPI: pip install 'asyncworkers[fastapi]'"
    ) from error

__all__ = ["SupervisorDep", "supervisor_from"]


def supervisor_from(name: str = "supervisor") -> Callable[[HTTPConnection], Supervisor]:
    """A dependency: the supervisor that the application's lifespan has put into the state as `name`.

    `Mail = Annotated[Supervisor, Depends(supervisor_from("mail"))]`, where the lifespan yields
    `{"mail": mail}`. It raises RuntimeError in a request if nothing of that name is there.
    """

    def find(connection: HTTPConnection) -> Supervisor:
        found: Supervisor | None = getattr(connection.state, name, None)
        if found is None:
            raise RuntimeError(
                f"there is no supervisor in request.state.{name}: give the application its lifespan, "
                "FastAPI(lifespan=supervisor.lifespan), and in tests enter the client: "
                "with TestClient(app) as client"
            )
        return found

    return find


SupervisorDep = Annotated[Supervisor, Depends(supervisor_from())]
"""An argument of a handler that is the application's supervisor: `supervisor: SupervisorDep`."""
