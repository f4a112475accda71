"""A client that calls an ASGI application in this very loop, as a server would."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

PATIENCE = 30.0


class Answer:
    """What an application has answered to a request."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.changed = asyncio.Event()

    async def send(self, message: dict[str, Any]) -> None:
        """What the application calls."""
        self.sent.append(message)
        self.changed.set()

    async def until(self, count: int) -> None:
        """Wait until the application has sent so many messages."""
        async with asyncio.timeout(PATIENCE):
            while len(self.sent) < count:
                self.changed.clear()
                await self.changed.wait()

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[str, str]:
        """Its headers, in lower case."""
        return {k.decode().lower(): v.decode() for k, v in self.sent[0]["headers"]}

    @property
    def body(self) -> str:
        """All of its body; fails if it is not complete."""
        kinds = [message["type"].rpartition("response.")[2] for message in self.sent]
        assert kinds == ["start"] + ["body"] * (len(kinds) - 1)
        assert not self.sent[-1].get("more_body", False)
        return b"".join(message.get("body", b"") for message in self.sent[1:]).decode()

    @property
    def json(self) -> Any:
        """Its body, read as JSON."""
        return json.loads(self.body)


class Client:
    """Calls an application with the state that its lifespan has left."""

    def __init__(self, app: Any, state: dict[str, Any]) -> None:
        self.app = app
        self.state = state

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        """Ask for a page and wait for the whole answer."""
        answer = Answer()
        async with asyncio.timeout(PATIENCE):
            await self.start(path, answer, headers)
        return answer

    async def start(self, path: str, answer: Answer, headers: dict[str, str] | None = None) -> None:
        """Ask for a page; what is answered is in `answer` as it comes."""
        received = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> dict[str, Any]:
            if received:
                return received.pop()
            await asyncio.Event().wait()  # this client does not go away
            raise AssertionError

        await self.app(self.scope("http", path, headers), receive, answer.send)

    async def connect(self, path: str, *, answers: bool = False) -> Answer:
        """Open a web socket; `answers`: this server lets applications answer with a page instead."""
        answer, received = Answer(), [{"type": "websocket.connect"}]

        async def receive() -> dict[str, Any]:
            return received.pop()

        scope = self.scope("websocket", path, None)
        if answers:
            scope["extensions"] = {"websocket.http.response": {}}
        await self.app(scope, receive, answer.send)
        return answer

    def scope(self, kind: str, path: str, headers: dict[str, str] | None) -> dict[str, Any]:
        """What a server says of a request."""
        given = {"host": "here", **(headers or {})}
        return {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(k.encode(), v.encode()) for k, v in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "subprotocols": [],
            "state": dict(self.state),
        }


@asynccontextmanager
async def living(app: Any) -> AsyncIterator[Client]:
    """The application between its start and its stop."""
    received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    life, state = Answer(), {}
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
    lifespan = asyncio.create_task(app(scope, received.get, life.send))
    await received.put({"type": "lifespan.startup"})
    await life.until(1)
    assert life.sent == [{"type": "lifespan.startup.complete"}]
    try:
        yield Client(app, state)
    finally:
        await received.put({"type": "lifespan.shutdown"})
        await life.until(2)
        await lifespan
        assert life.sent[1] == {"type": "lifespan.shutdown.complete"}
