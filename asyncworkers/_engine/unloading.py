"""A result that is big is unloaded before it is settled: found in the arena, and unpickled in a thread."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, cast

from asyncworkers import _checks
from asyncworkers._engine.attempt import failure
from asyncworkers._engine.child_watch import ChildWatch
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.sent import SentLine
from asyncworkers.bridge.child import ring
from asyncworkers.bridge.child.freight import unpack
from asyncworkers.bridge.failure import rebuild
from asyncworkers.bridge.heavy import LIGHT, load_gently
from asyncworkers.bridge.process import ProcessBridge
from asyncworkers.bridge.steps import Step
from asyncworkers.errors import NotSerializable
from asyncworkers.job import Job
from asyncworkers.outcome import Cancelled, Failed, Outcome, Succeeded, TimedOut

__all__ = ["EndRecord", "Unloading", "outcome_of_record", "unreadable"]

FOUND = -1
"""Instead of a record's kind: the value is to be unpacked of what was found in the arena."""

MADE = -2
"""Instead of a record's kind: the value was unpacked in a thread, or there is an error."""

EndRecord: TypeAlias = tuple[int, int, int, int, Any]
"""Of the ring, or in place of one: its kind, the job's number, when that began and ended, a payload."""


class Receiver(Protocol):
    """What is needed of the line worker that reads the records."""

    home: MemoryQueue
    process: ProcessBridge
    line: SentLine
    watch: ChildWatch

    @property
    def job(self) -> Job[Any] | None: ...
    @property
    def verdict(self) -> Cancelled | TimedOut | None: ...
    def read_next(self, record: EndRecord) -> None: ...
    def look(self) -> None: ...
    def garbage(self, text: str) -> None: ...


class Unloading:
    """The results of one child that do not simply stand in its ring.

    Each record that needs some work comes again, as the next one to be read, with what was made of
    it. `unpacking` is the first job's end while it is in a thread: how to give it back as it came,
    and what tells of it.
    """

    __slots__ = ("_results", "_worker", "unpacking")

    def __init__(self, worker: Receiver) -> None:
        self._worker = worker
        self._results: dict[int, tuple[int, Any]] = {}  # that came through the pipe
        self.unpacking: tuple[Step, Callable[[], None], asyncio.Future[None]] | None = None

    # ---- through the pipe

    def keep(self, number: int, end: int, data: Any) -> None:
        """The end of a job has come through the pipe."""
        self._results[number] = end, data

    def from_pipe(self, number: int) -> tuple[int, Any]:
        """The end of a job that came through the pipe; it was written before its record."""
        while number not in self._results and self._worker.process.read_on():
            pass
        return self._results.pop(number, (ring.ERROR, b""))

    # ---- in the arena

    def unload(
        self, number: int, started: int, ended: int, message: memoryview, *, at_once: bool
    ) -> bool:
        """Find the big data of a result: the next record is the result then. False if that takes steps."""
        worker = self._worker
        at_hand = True

        def found(result: Any) -> None:
            if isinstance(result, MemoryError):
                worker.read_next((MADE, number, started, ended, (None, result)))
            else:
                worker.read_next((FOUND, number, started, ended, result))
            if not at_hand:
                worker.look()

        freighter = worker.process.freighter
        freighter.last_used = worker.home.now()
        if worker.line.jobs[0] is None:  # nobody wants it
            freighter.discard(message)
            found(None)
            return True
        try:
            at_hand = freighter.unload(message, found, at_once=at_once)
        except ValueError as error:
            worker.garbage(str(error))
            return False
        return at_hand

    # ---- in a thread

    def is_heavy(self, kind: int, payload: Any) -> bool:
        """Whether a value that somebody wants takes long to unpickle."""
        if kind == ring.VALUE:
            size = len(payload)
        elif kind == FOUND and payload is not None:
            size = len(payload.stream)
        else:
            return False
        if size <= LIGHT:
            return False
        worker = self._worker
        one = worker.line.jobs[0]
        return one is not None and not (worker.job is one[0] and worker.verdict is not None)

    def unpack(self, record: EndRecord) -> None:
        """Have a value unpickled in a thread: the next record is the value then."""
        kind, number, started, ended, payload = record
        worker = self._worker
        stream, buffers = cast("Any", payload if kind == FOUND else (payload, []))
        over: asyncio.Future[None] = worker.home.hub.loop.create_future()

        def made(value: Any, error: BaseException | None) -> None:
            if self.unpacking is not None and self.unpacking[0] is step:
                self.unpacking = None
                worker.watch.seen = worker.home.now()
                _resolve(over)
                worker.read_next((MADE, number, started, ended, (value, error)))
                worker.look()

        step = worker.home.hub.aside.begin(lambda step: load_gently(stream, buffers, step), made)
        self.unpacking = step, lambda: worker.read_next(record), over

    def unpack_no_more(self) -> None:
        """Nobody can wait for the thread any more, or wants the value."""
        if self.unpacking is not None:
            (step, as_it_came, over), self.unpacking = self.unpacking, None
            step.unwanted = True
            _resolve(over)
            as_it_came()


def outcome_of_record(job: Job[Any], kind: int, payload: Any) -> Outcome | None:
    """What a record says; None if the job was skipped."""
    if kind == ring.SKIPPED:
        return None
    try:
        if kind == ring.VALUE:
            return Succeeded(pickle.loads(payload) if payload else None)  # noqa: S301
        if kind == FOUND:
            return Succeeded(unpack(*payload))
        if kind == MADE:
            value, error = payload
            return Succeeded(value) if error is None else unreadable(job, error)
        return failure(rebuild(payload))
    except BaseException as error:
        return unreadable(job, error)


def unreadable(job: Job[Any], error: BaseException) -> Failed:
    """What a job returned or raised raises this when it is unpickled."""
    failed = NotSerializable(
        f"what {job.name} returned or raised could not be unpickled: {_checks.summary(error, 300)}"
    )
    failed.__cause__ = error
    return Failed(failed)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
