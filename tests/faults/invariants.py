"""What must hold after every fault, checked in one place.

- I1: the supervisor still accepts a fresh job and finishes it, on every queue the fault touched.
- I3: the figures agree: what was submitted has ended, runs or waits, each job exactly once.
- I4: no task, thread, child or open file is left behind.
- I5: the fault is told of once, with the job's id: `Trial.told_once`.
- I6: no argument and no result is in any event or log line, unless an exception's own message,
  which both of them show, quotes it.

(I2 concerns jobs in a store.)
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import pytest

from asyncworkers import Job, Queue, Supervisor, job
from asyncworkers.events import (
    AttemptEnded,
    AttemptStarted,
    JobSettled,
    JobSubmitted,
)
from asyncworkers.testing import EventRecorder, no_leaks

CANARY = "CANARY-5f0e7c"
"""Goes into every job as an argument, and must come out in no event and no log line."""

PLACES = ("in line", "in its own context", "in its own task", "in a thread")
"""Where the code of a job may run; a fault has to be survived in each of them."""

tenant: ContextVar[str] = ContextVar("tenant")


async def echo(value: Any) -> Any:
    """A fresh job on the loop."""
    return value


def blocking_echo(value: Any) -> Any:
    """A fresh job in a thread."""
    return value


def process_echo(value: Any) -> Any:
    """A fresh job in a process."""
    return value


class Trial:
    """A supervisor under a fault, and everything that it tells."""

    def __init__(
        self, supervisor: Supervisor, recorder: EventRecorder, log: list[logging.LogRecord]
    ):
        self.supervisor = supervisor
        self.recorder = recorder
        self.log = log

    async def submit(self, place: str, function: Callable[..., Any], *args: Any) -> Job[Any]:
        """Submit a call so that it runs in the place, as `PLACES` names them."""
        with self.going_to(place):
            return await self.supervisor.submit(function, *args)

    @contextlib.contextmanager
    def going_to(self, place: str) -> Iterator[None]:
        """Whatever is submitted in this block runs in its own context, if that is the place."""
        token = tenant.set("somebody") if place == "in its own context" else None
        try:
            yield
        finally:
            if token is not None:
                tenant.reset(token)

    async def works(self) -> None:
        """I1: fresh jobs are accepted and end well, on the loop, in a thread, and in a process if any
        job ran there before.
        """
        marker = object()
        if self.supervisor.stats().queues["processes"].submitted:
            assert await self.supervisor.call(job(process_echo, cpu=True), 5) == 5
        for function in (echo, blocking_echo):
            assert await self.supervisor.call(function, marker) is marker

    def adds_up(self, *, closed: bool = False) -> None:
        """I3: the figures, the events and the jobs at hand agree."""
        stats = self.supervisor.stats()
        ended = stats.succeeded + stats.failed + stats.cancelled
        assert stats.submitted == ended + stats.running + stats.queued + stats.scheduled
        submitted = Counter(event.job_id for event in self.recorder.of(JobSubmitted))
        settled = Counter(event.job_id for event in self.recorder.of(JobSettled))
        assert set(submitted.values()) <= {1}, "a job was accepted twice"
        assert set(settled.values()) <= {1}, "a job ended twice"
        assert stats.submitted == len(submitted), (stats, len(submitted))
        assert ended == len(settled)
        assert settled.keys() <= submitted.keys()
        if closed:
            assert (stats.running, stats.queued, stats.scheduled) == (0, 0, 0)
            assert settled.keys() == submitted.keys(), "a job never ended"
            started = Counter((e.job_id, e.attempt) for e in self.recorder.of(AttemptStarted))
            ends = self.recorder.of(AttemptEnded)
            ended_attempts = Counter((e.job_id, e.attempt) for e in ends)
            assert started == ended_attempts, "an attempt did not end once"
            # What could not begin, for want of a thread, is no attempt yet.
            started -= Counter((e.job_id, e.attempt) for e in ends if e.decision == "Release")
            assert set(started.values()) <= {1}

    def told_once(
        self,
        job: Job[Any],
        outcome: str,
        error: str | None = None,
        *,
        state: str = "failed",
        attempts: int = 1,
        logged: int = 0,
    ) -> None:
        """I5: each attempt ended once in this way, the job settled once, and the log names it so
        often.
        """
        ends = [(e.outcome, e.error_type) for e in self.recorder.of(AttemptEnded, job_id=job.id)]
        assert ends == [(outcome, error)] * attempts
        assert [e.state for e in self.recorder.of(JobSettled, job_id=job.id)] == [state]
        assert job.state == state
        lines = [record for record in self.log if job.id in record.getMessage()]
        # On a busy machine the watchdog may name the job as well, and rightly so.
        lines = [record for record in lines if "the event loop" not in record.getMessage()]
        assert len(lines) == logged, [record.getMessage() for record in lines]

    def gives_nothing_away(self) -> None:
        """I6: the payload is in no event and in no line of the log."""
        for event in self.recorder.all:
            assert CANARY not in repr(event)
        for record in self.log:
            assert CANARY not in record.getMessage()
            assert CANARY not in str(record.exc_text or "")


@contextlib.asynccontextmanager
async def trial(
    caplog: pytest.LogCaptureFixture,
    *,
    workers: int = 2,
    place: str = "in line",
    unwind: float = 10.0,
    maxsize: int | None = 10_000,
    leaks: tuple[str, ...] = (),
    expect: type[BaseException] | None = None,
    more: Sequence[Queue] = (),
    **options: Any,
) -> AsyncIterator[Trial]:
    """Run a supervisor, let the block do something to it, and check every standing invariant.

    `place` declares its queues so that jobs run there, `leaks` names what the fault itself leaves
    behind, `more` is more queues, and `expect` the error with which the supervisor is to end.
    """
    isolation: Any = "task" if place == "in its own task" else "shared"
    queues = [
        Queue("default", workers, isolation=isolation, unwind=unwind, maxsize=maxsize),
        Queue("threads", workers, kind="threads", unwind=unwind, maxsize=maxsize),
        *more,
    ]
    recorder = EventRecorder()
    async with no_leaks(ignore=leaks, grace=3.0):
        supervisor = Supervisor(queues=queues, listeners=[recorder], **options)
        under_trial = Trial(supervisor, recorder, caplog.records)
        with pytest.raises(expect) if expect is not None else contextlib.nullcontext():
            async with supervisor:
                yield under_trial
                if expect is None:
                    await under_trial.works()
                    under_trial.adds_up()
        under_trial.adds_up(closed=True)
    under_trial.gives_nothing_away()
    strange = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    assert strange == []


async def turns(count: int = 5) -> None:
    """Let the loop turn a few times, so that what is ready happens."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Turn the loop until something is so, for two minutes of real time at most."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, f"{what} never came"
        await asyncio.sleep(0)
