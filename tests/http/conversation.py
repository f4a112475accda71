"""A client that speaks ASGI itself: it reads as slowly as a test wants, and goes when it wants."""

import asyncio
import json
from collections.abc import Callable
from typing import Any


class Conversation:
    """One request, and what was answered so far."""

    def __init__(self, path: str = "/", method: str = "GET", **headers: str) -> None:
        named = {"host": "localhost", **headers}
        self.scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "scheme": "http",
            "client": None,
            "headers": [
                (name.replace("_", "-").encode(), value.encode()) for name, value in named.items()
            ],
        }
        self.started: dict[str, Any] = {}
        self.body = b""
        self.ended = False
        self.reads = asyncio.Event()  # cleared, the client takes nothing more
        self.reads.set()
        self._gone = asyncio.Event()
        self._said = asyncio.Event()
        self._sent = False

    async def receive(self) -> dict[str, Any]:
        """The request, and that the client is gone once it is."""
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        """Take a part of the answer."""
        await self.reads.wait()
        if message["type"] == "http.response.start":
            self.started = message
        else:
            self.body += message["body"]
            self.ended = not message.get("more_body", False)
        self._said.set()

    async def until(self, seen: Callable[[], bool]) -> None:
        """Wait until what was answered looks like that."""
        while not seen():
            self._said.clear()
            await self._said.wait()

    def leave(self) -> None:
        """Close the connection."""
        self._gone.set()

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self.started["status"]

    @property
    def events(self) -> list[tuple[str, Any]]:
        """Name and data of the events that came whole."""
        found = []
        for block in self.body.decode().split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if "data" in fields:
                found.append((fields["event"], json.loads(fields["data"])))
        return found
