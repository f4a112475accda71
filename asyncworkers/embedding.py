"""Embedding: a supervisor that lives as long as the web application around it, and drains with it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Protocol

from asyncworkers._log import log
from asyncworkers.signals import SignalChain

__all__ = ["living"]

NAMED = 10
"""So many of the jobs that did not come to their end are named in the log; listeners hear of each."""


class Embedded(Protocol):
    """What is needed of the supervisor."""

    async def __aenter__(self) -> object: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    async def drain(self) -> Any: ...
    def cancel_all(self, reason: str = ...) -> None: ...


@asynccontextmanager
async def living(supervisor: Embedded) -> AsyncGenerator[None]:
    """The supervisor is entered here and drained at the end, or as soon as a signal comes.

    Facts this follows:
    - Servers await the end of their lifespan and none of them bounds it. So the drain does: it
      ends a second after the supervisor's grace at the latest.
    - Servers first wait for their connections, and a stream of events may never end by itself.
      So the drain begins with the signal and not with the end of the lifespan, or the grace
      would begin after whatever the service manager allows.
    - A handler that replaces the server's keeps it from stopping. So the server's is called too.
    - A signal that nobody handles ends the process at once, and with ours in its place it never
      would. So it does after the drain.
    - A server passes signals on to its worker processes, which a terminal or a service manager may
      have told already. So the same wish to stop comes twice, as SIGTERM the second time. Only a
      SIGINT after another signal means that somebody is in a hurry; servers see it so, too.
    """
    async with supervisor:
        ending = _Ending(supervisor)
        with ending.chain:
            yield
            await ending.drained()


class _Ending:
    """Drains once, whoever asks first: a signal, or the end of the lifespan."""

    def __init__(self, supervisor: Embedded) -> None:
        self._supervisor = supervisor
        self._loop = asyncio.get_running_loop()
        self._drain: asyncio.Task[None] | None = None
        self._signals = 0
        self.chain = SignalChain(self._heard, call_previous=True)

    def _heard(self, number: int) -> None:
        """In the signal handler: any bytecode may be interrupted, so only pass it on."""
        self._signals += 1
        if self._signals == 1:
            self._loop.call_soon_threadsafe(self._begin, signal.Signals(number).name, number)
        elif number == signal.SIGINT:
            self._loop.call_soon_threadsafe(self._cancel)

    async def drained(self) -> None:
        """Wait until the supervisor is drained."""
        self._begin("the application ends")
        assert self._drain is not None
        await self._drain

    def _begin(self, cause: str, number: int | None = None) -> None:
        if self._drain is None:
            self._drain = self._loop.create_task(self._drain_and_tell(cause, number))

    async def _drain_and_tell(self, cause: str, number: int | None) -> None:
        report = await self._supervisor.drain()
        undone = (*report.cancelled, *report.not_started, *report.abandoned)
        if undone:
            back = set(report.returned)  # which the report names itself
            lost = [job for job in undone if job not in back]
            more = ", ..." if lost[NAMED:] else ""
            named = f"; not done: {', '.join(lost[:NAMED])}{more}" if lost else ""
            log.warning("%s: %s%s", cause, report, named)
        else:
            log.info("%s: %s", cause, report)
        if number is not None:
            self.chain.do_default(number)

    def _cancel(self) -> None:
        self._supervisor.cancel_all("SIGINT came after another signal")
