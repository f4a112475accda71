"""Server-sent events: bounded for each client, few at a time, and ended in time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from conversation import Conversation
from starlette.requests import Request

from asyncworkers import Supervisor
from asyncworkers.http import EventStreams, Feed, Guard
from asyncworkers.testing import simulate

Main = Callable[[], Awaitable[Any]]


async def never(feed: Feed) -> None:
    """A source that is silent."""
    await asyncio.Event().wait()


def serve(streams: EventStreams, source: Any, talk: Conversation, ends: Any = None) -> Any:
    """Have one request answered with a stream, behind a guard, in a task of its own."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        answer = streams.answer(Request(scope), source, ends=ends)
        await answer(scope, receive, send)

    return asyncio.create_task(Guard(app)(talk.scope, talk.receive, talk.send))


def simulated(main: Main) -> Any:
    """Run this in virtual time."""
    return simulate(main, seed=1).value


def test_events_come_whole_and_in_order() -> None:
    """Each event has a number, a name and its data on one line, whatever is in it."""

    async def main() -> Conversation:
        async def source(feed: Feed) -> None:
            feed.put({"text": "a\n\nevent: forged\ndata: x\r\u2028"}, "first")
            await asyncio.sleep(1)
            feed.put([1, 2])
            feed.put("the end", "last", id="end")

        talk = Conversation()
        await serve(EventStreams(), source, talk)
        return talk

    talk = simulated(main)
    headers = dict(talk.started["headers"])
    assert headers[b"content-type"] == b"text/event-stream"
    assert headers[b"cache-control"] == b"no-store"
    assert talk.ended
    assert talk.body.startswith(b"retry: 2000\n\nid: 1\nevent: first\n")
    assert talk.body.endswith(b'id: end\nevent: last\ndata: "the end"\n\n')
    assert talk.events == [
        ("first", {"text": "a\n\nevent: forged\ndata: x\r\u2028"}),
        ("message", [1, 2]),
        ("last", "the end"),
    ]


def test_no_name_can_forge_an_event() -> None:
    """A name or an id of several lines would be several events."""
    feed = Feed(10, 0)
    for bad in ("a\nb", "a\rb", "\0", "\u2028"):
        with pytest.raises(ValueError, match="event must be printable"):
            feed.put(1, bad)
        with pytest.raises(ValueError, match="id must be printable"):
            feed.put(1, id=bad)
    assert feed.take() == b""


@pytest.mark.parametrize(
    ("seen", "first"), [("41", 42), ("", 1), ("x", 1), ("-3", 1), ("9" * 40, 1), ("\u0663", 1)]
)
def test_numbers_go_on_after_the_last_one_seen(seen: str, first: int) -> None:
    """Who comes back says which event was the last, and the next one has the next number."""

    async def main() -> Conversation:
        async def source(feed: Feed) -> None:
            feed.put(1)

        talk = Conversation(last_event_id=seen)
        await serve(EventStreams(), source, talk)
        return talk

    assert b"id: %d\n" % first in simulated(main).body


def test_fault_O06_a_slow_client_misses_the_oldest_and_is_told() -> None:
    """For a client that reads slowly no more than its buffer is kept; it hears how much it missed."""

    async def main() -> tuple[Conversation, EventStreams]:
        go_on = asyncio.Event()

        async def source(feed: Feed) -> None:
            await asyncio.sleep(0)
            talk.reads.clear()
            for number in range(100):
                feed.put(number)
                await asyncio.sleep(0.01)
            talk.reads.set()
            await go_on.wait()
            feed.put("after", "last")

        streams = EventStreams(buffer=5)
        talk = Conversation()
        task = serve(streams, source, talk)
        await talk.until(lambda: ("message", 99) in talk.events)
        go_on.set()
        await task
        return talk, streams

    talk, streams = simulated(main)
    missed = [data["dropped"] for name, data in talk.events if name == "dropped"]
    seen = [data for name, data in talk.events if name == "message"]
    assert sum(missed) + len(seen) == 100
    assert seen[-5:] == [95, 96, 97, 98, 99]
    assert len(seen) <= 7  # what was being sent, and the buffer
    assert streams.dropped == sum(missed) > 0
    assert talk.events[-1] == ("last", "after")


def test_fault_V10_a_client_that_takes_nothing_is_dropped() -> None:
    """Who does not read within ten seconds loses the place; so does nobody else."""

    async def main() -> tuple[EventStreams, float, Conversation]:
        async def source(feed: Feed) -> None:
            feed.put("much")
            await asyncio.Event().wait()

        streams = EventStreams(lifetime=1_000)
        talk, other = Conversation(), Conversation()
        ends = asyncio.Event()
        task = serve(streams, source, talk, ends.wait)
        reader = serve(streams, never, other, ends.wait)
        await talk.until(lambda: bool(talk.body))
        talk.reads.clear()
        loop = asyncio.get_running_loop()
        started = loop.time()
        await task
        seconds = loop.time() - started
        assert streams.open == 1
        ends.set()
        await reader
        return streams, seconds, other

    streams, seconds, other = simulated(main)
    assert streams.slow == 1
    assert 10 <= seconds <= 20  # it was let wait from its next event or heartbeat on
    assert other.ended


def test_fault_V10_streams_are_few_at_a_time() -> None:
    """The seventeenth is answered 503 with `Retry-After`; when one ends there is room again."""

    async def main() -> None:
        streams = EventStreams()
        talks = [Conversation() for _ in range(16)]
        tasks = [serve(streams, never, talk) for talk in talks]
        for talk in talks:
            await talk.until(lambda t=talk: bool(t.body))
        late = Conversation()
        await serve(streams, never, late)
        assert late.status == 503
        assert (b"retry-after", b"5") in late.started["headers"]
        assert (streams.open, streams.refused) == (16, 1)
        talks[0].leave()
        await tasks[0]
        later = Conversation()
        tasks.append(serve(streams, never, later))
        await later.until(lambda: bool(later.body))
        assert later.status == 200
        for talk in (*talks, later):
            talk.leave()
        await asyncio.gather(*tasks)
        assert streams.open == 0

    simulated(main)


@pytest.mark.parametrize(("observed", "seconds"), [(True, 60.0), (False, 15.0)])
def test_fault_V10_a_stream_has_a_lifetime(observed: bool, seconds: float) -> None:
    """A stream ends by itself, the sooner if it cannot know that its server wants to end."""

    async def main() -> tuple[Conversation, float]:
        talk = Conversation()
        await serve(EventStreams(), never, talk, asyncio.Event().wait if observed else None)
        return talk, asyncio.get_running_loop().time()

    talk, took = simulated(main)
    assert talk.ended
    assert took == seconds
    assert talk.body.count(b":\n\n") in (took // 10 - 1, took // 10)  # heartbeats


def test_a_stream_ends_with_the_drain() -> None:
    """As soon as the supervisor drains the stream ends, and what was put before is still sent."""

    async def main() -> Conversation:
        talk = Conversation()

        async def source(feed: Feed) -> None:
            feed.put("open")
            await asyncio.Event().wait()

        async with Supervisor() as supervisor:
            task = serve(EventStreams(), source, talk, supervisor.wait_draining)
            await talk.until(lambda: bool(talk.events))
            await supervisor.drain()
            await task
        return talk

    talk = simulated(main)
    assert talk.ended
    assert talk.events == [("message", "open")]


def test_a_source_is_stopped_with_its_stream() -> None:
    """Whatever ends the stream, its source is cancelled and can clear up."""
    ended: list[str] = []

    async def main() -> None:
        async def source(feed: Feed) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("source")

        talk = Conversation()
        task = serve(EventStreams(), source, talk)
        await talk.until(lambda: bool(talk.body))
        talk.leave()
        await task
        assert ended == ["source"]
        talk = Conversation()
        task = serve(EventStreams(), source, talk)
        await talk.until(lambda: bool(talk.body))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["source"] * 2

    simulated(main)


def test_a_source_that_fails_ends_its_stream_and_is_reported() -> None:
    """The client's stream ends whole; the error goes to the server, as of any other app."""

    async def main() -> Conversation:
        async def source(feed: Feed) -> None:
            feed.put("before")
            raise RuntimeError("broken source")

        talk = Conversation()
        streams = EventStreams()
        with pytest.raises(RuntimeError, match="broken source"):
            await serve(streams, source, talk)
        assert streams.open == 0
        return talk

    talk = simulated(main)
    assert talk.ended
    assert talk.events == [("message", "before")]


def test_a_client_that_goes_while_it_is_sent_to_is_no_error() -> None:
    """Some servers raise OSError from `send` when the client is gone."""

    async def main() -> None:
        talk = Conversation()

        async def send(message: Any) -> None:
            raise OSError("gone")

        talk.send = send  # type: ignore[method-assign]
        streams = EventStreams()
        await serve(streams, never, talk)
        assert streams.open == 0

    simulated(main)


@pytest.mark.parametrize(
    "options",
    [{"clients": -1}, {"lifetime": 0}, {"buffer": 0}, {"patience": -1}, {"heartbeat": 0}],
)
def test_senseless_bounds_are_refused(options: dict[str, Any]) -> None:
    """Each bound is looked at when the streams are made."""
    with pytest.raises(ValueError, match=next(iter(options))):
        EventStreams(**options)
