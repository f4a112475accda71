"""The life of a child as its worker knows it: since when it lives, why it is to end, and how it did."""

from __future__ import annotations

import asyncio
from typing import Any, Literal, TypeAlias

from asyncworkers import _checks
from asyncworkers.bridge.failure import crashed, said_of, unready
from asyncworkers.bridge.process import ProcessBridge
from asyncworkers.errors import WorkerCrashed
from asyncworkers.job import Job

__all__ = ["LEAVE", "ChildLife", "Reason"]

LEAVE = 0.5
"""Seconds that a child gets to end by itself when it is not needed any more, and when it was killed."""

HURRY = 0.1
"""Seconds that it gets for that when the supervisor closes."""

Reason: TypeAlias = Literal["not needed", "died", "worn"]


class ChildLife:
    """Ends once, for the reason that was given first. `cause` tells why, for people, if we know better
    than by the exit code.
    """

    __slots__ = ("_over", "_patience", "_process", "_unfit", "cause", "started", "stranger")

    def __init__(self, process: ProcessBridge, loop: asyncio.AbstractEventLoop) -> None:
        self._process = process
        self._over: asyncio.Future[Reason] = loop.create_future()
        self._patience = LEAVE
        self._unfit: BaseException | None = None  # what its initializer raised
        self.cause: str | None = None
        self.started: float | None = None  # when the process was
        self.stranger: asyncio.CancelledError | None = None  # who has cancelled its worker's task

    # ---- why it is to end

    @property
    def is_over(self) -> bool:
        """Whether it is to end, or has ended."""
        return self._over.done()

    async def over(self) -> Reason:
        """Wait until it is to end, or has ended."""
        return await self._over

    def end(self, reason: Reason) -> None:
        """It is to end for this reason, unless there is one already."""
        if not self._over.done():
            self._over.set_result(reason)

    def die(self, cause: str | None = None) -> None:
        """It has died, or is of no use any more."""
        if cause is not None:
            self.cause = cause
        self.end("died")

    def wear_out(self, cause: str) -> None:
        """It has served enough, and begins no other job."""
        self.cause = cause
        self.end("worn")

    def is_unfit(self, error: BaseException) -> None:
        """It could not be made ready: its initializer raised this."""
        self._unfit = error
        self.die(f"its initializer raised {_checks.summary(error, 300)}")

    def hurry(self) -> None:
        """The supervisor closes: it is not needed, and gets little time to end."""
        self._patience = HURRY
        self.end("not needed")

    # ---- its end

    async def hang_up(self) -> None:
        """Let it end by itself, if it does in time."""
        self._process.hang_up()
        await self._wait_for_end(self._patience)

    async def kill(self) -> None:
        """End it by force."""
        self._process.kill()
        await self._wait_for_end(LEAVE)

    async def _wait_for_end(self, seconds: float) -> None:
        pause = 0.0005
        while seconds > 0 and not self._process.has_ended():
            await asyncio.sleep(pause)
            seconds -= pause
            pause = min(pause * 2, 0.02)

    def kill_at_once(self) -> None:
        """End it by force here and now, if it has not ended: a stranger has cancelled our task."""
        if not self._process.has_ended():
            self._process.kill()
            self._process.wait(LEAVE)

    # ---- what is said of it then

    def epitaph(self) -> str:
        """Why it ended."""
        if self.cause is None and not self._over.cancelled() and self._over.result() != "died":
            return "it is not needed any more"
        return self.cause_of_death()

    def cause_of_death(self) -> str:
        """Why it died."""
        return self.cause or said_of(self._process.exit_code)

    def crashed(self, job: Job[Any]) -> WorkerCrashed:
        """The error of a job that it ran when it died."""
        process = self._process
        error = crashed(job.name, process.exit_code, process.last_words, self.cause)
        error.__cause__ = self.stranger
        return error

    def unready(self, job: Job[Any]) -> WorkerCrashed:
        """The error of a job that waited for it to be ready."""
        process = self._process
        exit_code = None if self.cause else process.exit_code
        error = unready(job.name, self.cause_of_death(), exit_code, process.last_words)
        error.__cause__ = self._unfit
        return error
