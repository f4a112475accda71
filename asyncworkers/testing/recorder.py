"""A listener that keeps every event, and lets a test wait for one instead of sleeping."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TypeVar, cast

from asyncworkers import events
from asyncworkers._record import fields as names_of
from asyncworkers.events import Event

__all__ = ["EventNotSeen", "EventRecorder"]

E = TypeVar("E", bound=Event)


class EventNotSeen(AssertionError):
    """The supervisor closed before the awaited event came; the message tells what did come."""


class EventRecorder:
    """Records the events of a supervisor it listens to, in order.

    Sleeping in a test for long enough is either too long or not long enough; waiting for what is
    to happen is neither:

        recorder = EventRecorder()
        async with Supervisor(listeners=[recorder]) as supervisor:
            job = await supervisor.submit(fetch, url)
            await recorder.wait_for(AttemptStarted, job_name="fetch")
            job.cancel()

    Works on any event loop. It keeps all events, so it is not for production.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._waiting: list[_Waiting] = []
        self._open = 0

    def __call__(self, event: Event) -> None:
        """Record one event; this is what makes it a listener."""
        self._events.append(event)
        for waiting in tuple(self._waiting):
            waiting.see(event)
        if isinstance(event, events.SupervisorStarted):
            self._open += 1
        elif isinstance(event, events.SupervisorClosed):
            self._open -= 1
            if self._open <= 0:
                for waiting in tuple(self._waiting):
                    waiting.fail(self._not_seen(waiting.sought))

    @property
    def all(self) -> tuple[Event, ...]:
        """Every event so far, in order."""
        return tuple(self._events)

    def of(self, kind: type[E], **fields: object) -> list[E]:
        """The events of a class whose fields have these values, in order.

        Raises TypeError for a field that the class does not have.
        """
        matches = _matcher(kind, fields)
        return [event for event in self._events if isinstance(event, kind) and matches(event)]

    async def wait_for(self, kind: type[E], *, count: int = 1, **fields: object) -> E:
        """Wait until `count` events of a class came with these field values; return the last.

        Events that came before count too. Raises EventNotSeen if the supervisor closes before, or
        is closed already, and TypeError for a field that the class does not have.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        found = self.of(kind, **fields)
        if len(found) >= count:
            return found[count - 1]
        described = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        sought = f"{count} x {kind.__name__}({described})"
        if self._open <= 0 and any(
            isinstance(event, events.SupervisorClosed) for event in self._events
        ):
            raise self._not_seen(sought)
        waiting = _Waiting(kind, _matcher(kind, fields), count - len(found), sought)
        self._waiting.append(waiting)
        try:
            return cast("E", await waiting.future)
        finally:
            self._waiting.remove(waiting)

    def _not_seen(self, sought: str) -> EventNotSeen:
        kinds = Counter(type(event).__name__ for event in self._events)
        seen = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
        latest = "".join(f"\n  {event}" for event in self._events[-10:])
        return EventNotSeen(
            f"the supervisor closed before {sought} came; seen: {seen}; at last:{latest}"
        )

    def __repr__(self) -> str:
        return f"<EventRecorder {len(self._events)} events, {len(self._waiting)} waited for>"


class _Waiting:
    """Somebody who waits for a number of matching events."""

    def __init__(
        self, kind: type[Event], matches: Callable[[Event], bool], missing: int, sought: str
    ) -> None:
        self.sought = sought
        self.future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._kind = kind
        self._matches = matches
        self._missing = missing

    def see(self, event: Event) -> None:
        if not self.future.done() and isinstance(event, self._kind) and self._matches(event):
            self._missing -= 1
            if self._missing == 0:
                self.future.set_result(event)

    def fail(self, error: EventNotSeen) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def _matcher(kind: type[Event], fields: dict[str, object]) -> Callable[[Event], bool]:
    names = names_of(kind)
    for name in fields:
        if name not in names:
            raise TypeError(f"{kind.__name__} has no field {name!r}, only {', '.join(names)}")
    return lambda event: all(getattr(event, name) == value for name, value in fields.items())
