"""A thread that notices when a step blocks the event loop, and says which job and line it is at."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

from asyncworkers._engine.hub import Hub
from asyncworkers._engine.origin import origin_of
from asyncworkers._log import log
from asyncworkers.events import LoopStalled
from asyncworkers.job import Job

__all__ = ["Watchdog"]

EVERY = 0.05
"""Seconds between two looks, while there are jobs, at the most: twice in what counts as a stall."""


class Place:
    """Where the loop's thread was seen, and the job it was at, if it was one of ours."""

    def __init__(
        self, file: str, line: int, function: str, job_id: str | None, job_name: str | None
    ) -> None:
        self.file = file
        self.line = line
        self.function = function
        self.job_id = job_id
        self.job_name = job_name

    def __str__(self) -> str:
        job = (
            f"job {self.job_name} ({self.job_id or 'of a map'})"
            if self.job_name
            else "no job of ours"
        )
        return f"{job} at {self.file}:{self.line} in {self.function}"


class Watchdog:
    """Pings the loop from a thread, and looks at the loop's frames when the answer is late.

    A call that holds the GIL stops this thread as well. It notices by its own lateness, if the
    loop's thread used processor time meanwhile (a suspended machine is nobody's stall), and finds
    the place because the loop's thread has hardly moved on by the time this one runs again.

    `of_jobs` has it tell of jobs alone: a notebook's cell may keep its kernel's loop as it likes.
    """

    def __init__(self, hub: Hub, stall: float, *, of_jobs: bool = False) -> None:
        self._hub = hub
        self._of_jobs = of_jobs
        self._stall = stall  # seconds a step may take before it counts as one
        self._every = min(EVERY, stall / 2)
        self._loop_thread = threading.get_ident()
        self._over = threading.Event()
        self._answered = threading.Event()
        name = f"asyncworkers-{hub.name}-watchdog"
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    def start(self) -> None:
        """Begin to watch the loop of the calling thread."""
        try:
            self._thread.start()
        except RuntimeError:
            log.warning("no thread for the watchdog: stalls of the loop will not be reported")

    def stop(self) -> None:
        """Stop watching; returns when the thread has ended."""
        self._over.set()
        self._answered.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=1.0)

    def _watch(self) -> None:
        cpu, looked = _cpu_seconds(self._loop_thread), time.monotonic()
        while not self._over.wait(self._every):
            now, cpu_now = time.monotonic(), _cpu_seconds(self._loop_thread)
            late = now - looked - self._every
            if late > self._stall and cpu_now - cpu > late / 2:
                self._tell(late, self._place(), held_gil=True)
            elif self._hub.at_work():
                self._ping()
            cpu, looked = _cpu_seconds(self._loop_thread), time.monotonic()

    def _ping(self) -> None:
        self._answered.clear()
        if self._over.is_set():
            return
        sent, cpu = time.monotonic(), _cpu_seconds(self._loop_thread)
        try:
            self._hub.loop.call_soon_threadsafe(self._answered.set)
        except RuntimeError:  # the loop was closed under us
            self._over.set()
            return
        answered = self._answered.wait(self._stall)
        late = time.monotonic() - sent - self._stall
        held_gil = late > self._stall and _cpu_seconds(self._loop_thread) - cpu > late / 2
        if held_gil or not answered:
            self._report(sent, late, held_gil)

    def _report(self, sent: float, late: float, held_gil: bool) -> None:
        if late > self._stall and not held_gil:
            return  # we were held up too, and not by the loop's thread: the machine was asleep
        place = self._place()
        if held_gil or place is None:
            self._answered.wait()
            self._tell(time.monotonic() - sent, place, held_gil)
            return
        self._report_while_it_lasts(sent, place)

    def _report_while_it_lasts(self, sent: float, place: Place) -> None:
        say_again = self._stall
        while True:
            lasted = time.monotonic() - sent
            if lasted >= say_again:
                log.warning("the event loop has been stalled for %.2f s: %s", lasted, place)
                say_again = max(1.0, 2 * lasted)
            if self._answered.wait(self._every):
                break
            place = self._place() or place
        self._tell(time.monotonic() - sent, place, held_gil=False)

    def _tell(self, seconds: float, place: Place | None, held_gil: bool) -> None:
        if place is None or self._over.is_set():
            return
        how = ", holding the GIL" if held_gil else ""
        log.warning("the event loop was stalled for %.2f s%s: %s", seconds, how, place)
        details = (
            seconds,
            place.job_id,
            place.job_name,
            place.file,
            place.line,
            place.function,
            held_gil,
        )
        try:
            self._hub.loop.call_soon_threadsafe(self._emit, details)
        except RuntimeError:
            self._over.set()

    def _emit(self, details: tuple[Any, ...]) -> None:
        stall = LoopStalled(self._hub.clock.now(), *details)
        count, seconds, worst = self._hub.stalls
        if worst is None or stall.seconds > worst.seconds:
            worst = stall
        self._hub.stalls = count + 1, seconds + stall.seconds, worst
        self._hub.listeners.emit(stall)

    def _place(self) -> Place | None:
        """Where the loop's thread is; None if it only waits for something to happen, or is elsewhere
        than where it is looked for.
        """
        frame = sys._current_frames().get(self._loop_thread)
        task = asyncio.current_task(self._hub.loop)
        if frame is None or task is None:
            return None
        code = frame.f_code
        job_id, job_name = self._job_of(task)
        if self._of_jobs and job_name is None:
            return None
        return Place(code.co_filename, frame.f_lineno, code.co_qualname, job_id, job_name)

    def _job_of(self, task: asyncio.Task[Any]) -> tuple[str | None, str | None]:
        try:
            attempts = [
                attempt for queue in self._hub.queues for attempt in tuple(queue.crew.members)
            ]
        except RuntimeError:  # a set changed while we looked, so the loop is moving again
            return None, None
        for attempt in attempts:
            if attempt.task is task:
                job: Job[Any] | None = attempt.job
                if job is not None:
                    return job.id, job.name
                if attempt.supply is not None:
                    return None, attempt.supply.name
        origin = origin_of(task)
        return (None, None) if origin is None else (origin.job_id, origin.name)


def _cpu_seconds(thread: int) -> float:
    """Processor time a thread has used; where that cannot be had, a stall is believed as it comes."""
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(thread))
    except (AttributeError, OSError):
        return time.monotonic()
