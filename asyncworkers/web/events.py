"""Server-sent events: what happens is sent as it happens, in bounded memory, to few at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, TypeAlias

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from asyncworkers import _checks
from asyncworkers.web.answers import Refused
from asyncworkers.web.first import first_of

__all__ = ["EventStreams", "Feed", "Source"]

UNOBSERVED: Final = 15.0
"""Seconds that a stream may last whose server's end cannot be seen coming."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Feed:
    """What is to be sent to one client: `put` never waits, and of too much the oldest is dropped.

    What was dropped is counted, and told to the client as an event "dropped", `{"dropped": 3}`.
    """

    def __init__(self, size: int, last_id: int) -> None:
        self.dropped = 0
        self._events: deque[bytes] = deque()
        self._size = size
        self._last_id = last_id
        self._untold = 0
        self._wake = asyncio.Event()
        self.closed = False

    def put(self, data: Any, event: str = "message", id: str | None = None) -> None:  # noqa: A002
        """Have this sent as JSON, under a name; its id is a number that grows, unless given.

        Raises ValueError for a name or an id of more than one line: it would be another event.
        """
        self._last_id += 1
        ident = str(self._last_id) if id is None else id
        for word, text in (("event", event), ("id", ident)):
            if not text.isprintable():
                raise ValueError(f"{word} must be printable, not {_checks.shown(text)}")
        # JSON has no line breaks of its own: one line is the whole of it.
        self._events.append(
            b"id: %b\nevent: %b\ndata: %b\n\n" % (ident.encode(), event.encode(), _encode(data))
        )
        if len(self._events) > self._size:
            self._events.popleft()
            self.dropped += 1
            self._untold += 1
        self._wake.set()

    def take(self) -> bytes:
        """All that is to be sent now, empty if there is nothing."""
        told = b""
        if self._untold:
            told = b'event: dropped\ndata: {"dropped":%d}\n\n' % self._untold
            self._untold = 0
        told += b"".join(self._events)
        self._events.clear()
        self._wake.clear()
        return told

    async def wait(self, seconds: float) -> None:
        """Wait until there is something, or the end, but no longer than this."""
        if not self.closed:
            with anyio.move_on_after(seconds):
                await self._wake.wait()

    def close(self) -> None:
        """There will be nothing more."""
        self.closed = True
        self._wake.set()


Source: TypeAlias = Callable[[Feed], Awaitable[None]]
"""Puts events into a feed until it returns, which ends the stream, or is cancelled, when it has ended."""


class EventStreams:
    """The streams of events of one app: make one for the app, and answer requests with it.

        streams = EventStreams()

        async def figures(feed: Feed) -> None:
            while True:
                feed.put(supervisor.stats().as_dict(), "stats")
                await asyncio.sleep(1)

        return streams.answer(request, figures, ends=supervisor.wait_draining)

    - `clients`: streams that may be open at once; one more is answered 503, with `Retry-After`.
    - `lifetime`: seconds after which a stream is ended, for the client to ask again; browsers do so by
      themselves. It is 15 at the most for a stream without `ends`, for it would hold up the end of
      its server.
    - `heartbeat`: seconds after which something is sent in any case, so that it is noticed who is gone.
    - `patience`: seconds that one client may take to accept what is sent; a slower one is dropped.
    - `buffer`: events that wait for a client; of more the oldest is dropped, and the client told.
    - `retry`: seconds after which a browser is to ask again.

    `open` is how many streams there are, `refused` how many there was no room for, `slow` how many
    clients were dropped, `dropped` how many events.
    """

    def __init__(
        self,
        *,
        clients: int = 16,
        lifetime: float | timedelta = 60.0,
        heartbeat: float | timedelta = 10.0,
        patience: float | timedelta = 10.0,
        buffer: int = 256,
        retry: float | timedelta = 2.0,
    ) -> None:
        self._clients = _checks.whole("clients", clients, 0, 10_000)
        self._lifetime = _checks.duration("lifetime", lifetime, zero=False)
        self._heartbeat = _checks.duration("heartbeat", heartbeat, zero=False)
        self._patience = _checks.duration("patience", patience, zero=False)
        self._buffer = _checks.whole("buffer", buffer, 1, 1_000_000)
        self._retry = _checks.duration("retry", retry)
        self.open = 0
        self.refused = 0
        self.slow = 0
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<EventStreams {self.open} of {self._clients} open>"

    def answer(
        self,
        request: Request,
        source: Source,
        *,
        ends: Callable[[], Awaitable[object]] | None = None,
    ) -> Response:
        """The answer that sends what `source` puts into its feed.

        It ends when `source` returns, when the client is gone or too slow, when its lifetime is over,
        and as soon as what `ends` returns has been awaited: give `supervisor.wait_draining`. To send
        it raises Refused if there is no room. Numbers of events go on where a client says that it
        has seen the last one (`Last-Event-ID`).
        """
        seen = request.headers.get("last-event-id", "")
        last_id = int(seen) if seen.isascii() and seen.isdecimal() and len(seen) <= 15 else 0
        return _Stream(self, source, ends, last_id)

    async def stream(
        self,
        source: Source,
        ends: Callable[[], Awaitable[object]] | None,
        last_id: int,
        receive: Receive,
        send: Send,
    ) -> None:
        """Send a whole stream; raises Refused, before anything is sent, if there is no room."""
        if self.open >= self._clients:
            self.refused += 1
            raise Refused(
                503,
                "TooManyStreams",
                f"{self._clients} streams are open, there may be no more: ask again later",
                {"Retry-After": "5"},
            )
        self.open += 1
        feed = Feed(self._buffer, last_id)
        lifetime = self._lifetime if ends is not None else min(self._lifetime, UNOBSERVED)
        timer = asyncio.get_running_loop().call_later(lifetime, feed.close)
        raised: list[Exception] = []
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_fill, feed, source, ends, raised)
                group.start_soon(_notice_the_end, feed, receive)
                await self._send(feed, send)
                group.cancel_scope.cancel()
        finally:
            timer.cancel()
            self.open -= 1
            self.dropped += feed.dropped
        if raised:
            raise raised[0]

    async def _send(self, feed: Feed, send: Send) -> None:
        """Send what there is until the feed is closed, or the client takes it too slowly."""
        headers = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            told = b"retry: %d\n\n" % int(self._retry * 1000)
            while True:
                closed = feed.closed
                with anyio.fail_after(self._patience):
                    await send(
                        {"type": "http.response.body", "body": told, "more_body": not closed}
                    )
                if closed:
                    return
                await feed.wait(self._heartbeat)
                told = feed.take() or (b"" if feed.closed else b":\n\n")
        except TimeoutError:
            self.slow += 1  # the server closes what is left half sent
        except OSError:
            pass  # gone while it was sent to


class _Stream(Response):
    """An answer that goes on until its stream ends."""

    def __init__(
        self,
        streams: EventStreams,
        source: Source,
        ends: Callable[[], Awaitable[object]] | None,
        last_id: int,
    ) -> None:
        super().__init__(media_type="text/event-stream")
        self._streams = streams
        self._source = source
        self._ends = ends
        self._last_id = last_id

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; raises Refused if there is no room."""
        await self._streams.stream(self._source, self._ends, self._last_id, receive, send)


async def _fill(
    feed: Feed,
    source: Source,
    ends: Callable[[], Awaitable[object]] | None,
    raised: list[Exception],
) -> None:
    try:
        await first_of(lambda: source(feed), *([] if ends is None else [ends]))
    except Exception as error:
        raised.append(error)
    finally:
        feed.close()


async def _notice_the_end(feed: Feed, receive: Receive) -> None:
    """Close the feed once the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    feed.close()
