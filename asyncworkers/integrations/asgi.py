"""For any ASGI application: refusals become 503, event streams end with the drain, and a lifespan."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeAlias

from asyncworkers import Supervisor
from asyncworkers.integrations.refusal import (
    REFUSALS,
    RETRY_AFTER,
    checked_retry_after,
    refusal,
)

__all__ = ["SupervisorMiddleware", "WithLifespan"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]

TRY_AGAIN_LATER = 1013
"""The code with which a web socket is closed instead."""


class SupervisorMiddleware:
    """Answers for a supervisor that takes no more jobs: `app.add_middleware(SupervisorMiddleware, supervisor=...)`.

    - A request that meets with QueueFull, or with SupervisorClosed because the drain has begun, is
      answered with 503, `Retry-After: <retry_after>` and a JSON body, if it was not answered yet.
      A web socket is refused in the same way, or closed with code 1013.
    - A stream of events (`text/event-stream`) ends when the drain begins, in good order for the client,
      and for its handler as if the client had gone: by a cancellation. Servers wait for their connections, so one
      that stayed open would keep the server from ending.

    With several supervisors, give the one whose end is the end of the application. Applications
    that are mounted into another one and answer their errors themselves need one of their own.
    """

    def __init__(
        self, app: Application, supervisor: Supervisor, *, retry_after: int = RETRY_AFTER
    ) -> None:
        if not isinstance(supervisor, Supervisor):
            raise TypeError(f"supervisor must be a Supervisor, not {supervisor!r:.80}")
        self.app = app
        self.supervisor = supervisor
        self.retry_after = checked_retry_after(retry_after)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI says."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._talk(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        end = _End(self.supervisor)

        async def sending(message: Message) -> None:
            end.note(message)
            await send(message)

        try:
            async with end.limit:
                try:
                    await self.app(scope, receive, sending)
                finally:
                    end.settle()
        except TimeoutError:
            if not end.limit.expired():
                raise
            if not end.sent:
                await send({"type": "http.response.body", "body": b""})
        except REFUSALS as error:
            if end.started:
                raise
            await _send_refusal("http", error, self.retry_after, send)

    async def _talk(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = False

        async def sending(message: Message) -> None:
            nonlocal accepted
            accepted = accepted or message["type"] == "websocket.accept"
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except REFUSALS as error:
            if not accepted and "websocket.http.response" in scope.get("extensions", {}):
                await _send_refusal("websocket.http", error, self.retry_after, send)
            else:
                refusal(error)  # raises it if it is none
                await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})


class _End:
    """Notes how far an answer is, and ends a stream of events, by its `limit`, when the drain begins.

    Only until its last message is sent: what its handler does then holds up no connection.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.started = False
        self.sent = False
        self.limit = asyncio.timeout(None)
        self._supervisor = supervisor
        self._watch: asyncio.Task[None] | None = None

    def note(self, message: Message) -> None:
        """This is about to be sent."""
        if message["type"] == "http.response.start":
            self.started = True
            if _is_event_stream(message) and self._supervisor.state != "new":
                self._watch = asyncio.create_task(self._come())
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.sent = True
            self.settle()

    def settle(self) -> None:
        """It need not be ended any more."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
            if not self.limit.expired():
                self.limit.reschedule(None)

    async def _come(self) -> None:
        await self._supervisor.wait_draining()
        self.limit.reschedule(asyncio.get_running_loop().time())


def _is_event_stream(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in start.get("headers", ())
    )


async def _send_refusal(kind: str, error: BaseException, retry_after: int, send: Send) -> None:
    answer = refusal(error, retry_after=retry_after)
    body = answer.body.encode()
    headers = [(k.lower().encode(), v.encode()) for k, v in answer.headers.items()]
    headers.append((b"content-length", str(len(body)).encode()))
    start = {"type": f"{kind}.response.start", "status": answer.status, "headers": headers}
    await send(start)
    await send({"type": f"{kind}.response.body", "body": body})


class WithLifespan:
    """Gives an ASGI application that has no lifespan, as Django's, one or several.

    `application = WithLifespan(get_asgi_application(), supervisor.lifespan)`. Each lifespan is a
    function of the application that returns an async context manager. They are entered in order
    when the server starts and left in reverse when it stops. What they yield, `supervisor` for
    ours, is in `scope["state"]` of each request, if the server supports that.
    """

    def __init__(self, app: Application, *lifespans: Lifespan) -> None:
        self.app = app
        self.lifespans = lifespans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or live, as ASGI says."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # that it starts
        failed = "lifespan.startup.failed"
        try:
            async with AsyncExitStack() as stack:
                for lifespan in self.lifespans:
                    state = await stack.enter_async_context(lifespan(self.app))
                    if "state" in scope:
                        scope["state"].update(state or {})
                await send({"type": "lifespan.startup.complete"})
                failed = "lifespan.shutdown.failed"
                await receive()  # that it stops
        except Exception:
            await send({"type": failed, "message": traceback.format_exc()})
            raise
        await send({"type": "lifespan.shutdown.complete"})
