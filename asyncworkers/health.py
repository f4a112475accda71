"""Health: whether a supervisor is alive and ready, as a value and for whoever probes it over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

from asyncworkers import _checks
from asyncworkers._record import Record

__all__ = ["Health", "HealthApp"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Health(Record):
    """How a supervisor is at this moment.

    `alive`: its event loop turns and it has not failed; if this is false, restart the process.
    `ready`: it accepts jobs and can run them; if this is false, send it no requests for now.
    `reasons` says what is wrong, for people who may know, one sentence each.
    """

    alive: bool
    ready: bool
    reasons: tuple[str, ...] = ()


class Healthy(Protocol):
    """What is needed of a supervisor."""

    def health(self) -> Health: ...


class HealthApp:
    """Answers probes: an ASGI application to mount, or to put around another one.

    `live` and `ready` are the paths; the answer is 200 and `{"status":"up"}`, or 503 and
    `{"status":"degraded"}`, and never tells why: whoever can reach the port may ask. With an `app`,
    everything else is that one's; without, it is not found.
    """

    def __init__(
        self,
        supervisor: Healthy,
        app: Callable[[Scope, Receive, Send], Awaitable[None]] | None = None,
        *,
        live: str = "/healthz",
        ready: str = "/readyz",
    ) -> None:
        self._supervisor = supervisor
        self._app = app
        self._paths = {_path("live", live): "alive", _path("ready", ready): "ready"}
        if len(self._paths) < 2:
            raise ValueError(f"live and ready must differ, both are {_checks.shown(live)}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a probe, or have the application answer."""
        asked = self._paths.get(_asked(scope)) if scope["type"] == "http" else None
        if asked is not None and scope["method"] in ("GET", "HEAD"):
            well = getattr(self._supervisor.health(), asked)
            await _answer(send, 200 if well else 503, b"up" if well else b"degraded")
        elif self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _answer(send, 405 if asked else 404, b"refused")
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    def __repr__(self) -> str:
        return f"<HealthApp {' '.join(self._paths)}>"


def _path(argument: str, value: str) -> str:
    if not _checks.text(argument, value).startswith("/"):
        raise ValueError(
            f'{argument} must be a path such as "/healthz", not {_checks.shown(value)}'
        )
    return value


def _asked(scope: Scope) -> str:
    """The path below where this is mounted; servers differ in whether it holds the mount too."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


async def _answer(send: Send, status: int, word: bytes) -> None:
    body = b'{"status":"%s"}' % word
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _live(receive: Receive, send: Send) -> None:
    """There is nothing to start and nothing to stop."""
    for stage in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{stage}.complete"})
