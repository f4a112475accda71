"""Keeps the diary of a run: every attempt, every stall of the loop, and the CPU time used."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from asyncworkers import Supervisor
from asyncworkers.demo.records import Attempt, Ending, Run, Stall
from asyncworkers.events import (
    AttemptEnded,
    AttemptStarted,
    Event,
    JobProgressed,
    JobSettled,
    LoopStalled,
)

__all__ = ["Diary", "ending_of"]

_RESETS = frozenset(
    {
        "ClientConnectionResetError",
        "ClientOSError",
        "ClientPayloadError",
        "ServerDisconnectedError",
    }
)


def ending_of(error: str | None) -> Ending:
    """How an attempt ended, judged by the name of the error's type."""
    if error is None:
        return Ending.SUCCEEDED
    if error == "RetryLater":
        return Ending.BUSY
    if error in {"TimeoutError", "JobTimedOut"}:
        return Ending.TIMED_OUT
    if error in _RESETS:
        return Ending.RESET
    return Ending.FAILED


class Diary:
    """Writes down what happens in a run: as a listener of its supervisor, or told by hand.

    Loops count their time on `time.monotonic`, so the supervisor's events and what is told by
    hand agree.

    This is no `Chronicle`, for a run without a supervisor has none to compare with: attempts have the
    words of the network here, and their subjects, which no event carries.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._began = time.monotonic()
        self._supervisor: Supervisor | None = None
        self._subjects: dict[str, str] = {}
        self._progress: dict[str, int] = {}

    # ---- with a supervisor

    def follow(self, supervisor: Supervisor) -> None:
        """Listen to everything that happens in the supervisor from now on."""
        self._supervisor = supervisor
        supervisor.listen(self)

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case AttemptStarted():
                self._started(event)
            case AttemptEnded():
                self._ended(event)
            case JobProgressed():
                done = int(event.done)
                self.run.stage(event.job_name).done += done - self._progress.get(event.job_id, 0)
                self._progress[event.job_id] = done
            case JobSettled(state="succeeded") if event.job_id not in self._progress:
                self.run.stage(event.job_name).done += 1
            case LoopStalled():
                place = f"{Path(event.file).name}:{event.line} in {event.function}"
                self.run.stalls.append(Stall(event.seconds, event.job_name, place))
            case _:
                pass

    def _started(self, event: AttemptStarted) -> None:
        self.run.stage(event.job_name).running += 1
        if event.job_id not in self._subjects and self._supervisor is not None:
            # Events carry no arguments, so that they hold nothing alive: ask for the job.
            self._subjects[event.job_id] = str(self._supervisor.get(event.job_id).args[0])

    def _ended(self, event: AttemptEnded) -> None:
        self.run.stage(event.job_name).running -= 1
        if event.outcome == "TimedOut":
            ending = Ending.TIMED_OUT
        elif event.outcome == "Cancelled":
            ending = Ending.CANCELLED
        else:
            ending = ending_of(event.error_type)
        end = event.at - self._began
        self.run.attempts.append(
            Attempt(
                job=event.job_name,
                subject=self._subjects.get(event.job_id, ""),
                number=event.attempt,
                queue=event.queue,
                worker=event.worker,
                start=end - event.seconds,
                end=end,
                ending=ending,
            )
        )

    # ---- by hand

    @contextmanager
    def attempt(self, job: str, subject: str, number: int = 1) -> Generator[None]:
        """Write down the body as one attempt at a job, however it ends."""
        stage = self.run.stage(job)
        stage.running += 1
        start = time.monotonic() - self._began
        error: str | None = None
        try:
            yield
        except BaseException as failure:
            error = type(failure).__name__
            raise
        finally:
            stage.running -= 1
            end = time.monotonic() - self._began
            self.run.attempts.append(
                Attempt(job, subject, number, "one at a time", 0, start, end, ending_of(error))
            )

    # ---- the clocks

    @contextmanager
    def timing(self) -> Generator[None]:
        """Measure the body: by the wall, on this thread, which is the loop's, and on others."""
        thread, process = time.thread_time(), time.process_time()
        try:
            yield
        finally:
            self.run.seconds = time.monotonic() - self._began
            self.run.cpu_loop = time.thread_time() - thread
            self.run.cpu_threads = max(0.0, time.process_time() - process - self.run.cpu_loop)

    @contextmanager
    def timing_children(self) -> Generator[None]:
        """Measure what the child processes used that ended during the body."""
        before = _children()
        try:
            yield
        finally:
            self.run.cpu_children = _children() - before


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system
