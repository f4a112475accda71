"""What jobs said to `logging`, in this process and its children: the last records, in bounded memory."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from typing import Final

from asyncworkers import redact
from asyncworkers._overheard import overheard
from asyncworkers._record import Record
from asyncworkers.job import running_job

__all__ = ["JobLog", "LogLine", "Saying"]

OF_A_JOB: Final = 200
"""Records that are kept of one job."""

LONGEST: Final = 2_000
"""Characters of a message that are kept."""

LONGEST_TRACEBACK: Final = 8_000
"""Characters of a traceback that are kept, the last ones."""

USUAL: Final = 500
"""Characters that a record takes on the average, at the most."""

_formatter = logging.Formatter()


class LogLine(Record):
    """One log record of a job. `number` counts those of the job from 1, `at` is in Unix seconds.

    The message is as it may be shown: cut at 2,000 characters, with control characters escaped, but
    for newlines and tabs, and the passwords of URLs masked. `attempt` is None where it is not known.
    """

    number: int
    at: float
    level: str
    logger: str
    message: str
    traceback: str | None
    attempt: int | None


class JobLog(Record):
    """What one job said, as far as it is kept: the last records, and how many before them are not."""

    lines: tuple[LogLine, ...]
    dropped: int


class _Said:
    """The records of one job."""

    __slots__ = ("count", "lines")

    def __init__(self) -> None:
        self.lines: deque[tuple[LogLine, int]] = deque()
        self.count = 0


class Saying:
    """Keeps so many log records of jobs: of too many those of the job that has been silent longest go.

    Records come in whichever thread they are made.
    """

    def __init__(self, most: int) -> None:
        self.dropped = 0
        self._most = most
        self._lock = threading.Lock()
        self._late: deque[tuple[str, float, str, str, str, str | None, int | None]] = deque()
        self._jobs: OrderedDict[str, _Said] = OrderedDict()
        self._count = self._size = 0
        self._hears = False

    def hear(self) -> None:
        """Begin to listen, if it does not."""
        if not self._hears and self._most:
            self._hears = True
            overheard.hear(self.keep)

    def rest(self) -> None:
        """Listen no more."""
        if self._hears:
            self._hears = False
            overheard.leave(self.keep)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._jobs.clear()
            self._count = self._size = self.dropped = 0

    def keep(self, record: logging.LogRecord) -> None:
        """Keep a record, if it is of a job. Never raises: it is told in the middle of somebody's code."""
        try:
            # A record of a child names its job already; so does one that another factory has marked.
            job_id, attempt = getattr(record, "job_id", None), getattr(record, "attempt", None)
            if job_id is None:
                job = running_job()
                if job is None:
                    return
                job_id, attempt = job.id, job.attempt
            self._add(str(job_id), record, attempt if type(attempt) is int else None)
        except Exception:  # noqa: S110  # a message that cannot be written: the log says so itself
            pass

    def _add(self, job_id: str, record: logging.LogRecord, attempt: int | None) -> None:
        message = redact.safe(record.getMessage(), LONGEST, "\n\t")
        trace = _traceback(record)
        level, logger = redact.safe(record.levelname, 50), redact.safe(record.name, 200)
        self._late.append((job_id, record.created, level, logger, message, trace, attempt))
        self._take_in()

    def _take_in(self) -> None:
        """Put what came in its place; unless somebody is at it, who does this too when that is done.

        Nobody waits here: a finalizer may log wherever memory is asked for, and so in the midst of this.
        """
        while self._late and self._lock.acquire(blocking=False):
            try:
                while self._late:
                    self._put(*self._late.popleft())
            finally:
                self._lock.release()

    def _put(
        self,
        job_id: str,
        created: float,
        level: str,
        logger: str,
        message: str,
        trace: str | None,
        attempt: int | None,
    ) -> None:
        size = len(message) + len(trace or "")
        said = self._jobs.get(job_id)
        if said is None:
            said = self._jobs[job_id] = _Said()
        said.count += 1
        line = LogLine(said.count, created, level, logger, message, trace, attempt)
        said.lines.append((line, size))
        self._count += 1
        self._size += size
        self._jobs.move_to_end(job_id)
        if len(said.lines) > OF_A_JOB:
            self._drop_first(said)
        while self._count > self._most or self._size > USUAL * self._most:
            oldest = next(iter(self._jobs))
            silent = self._jobs[oldest]
            self._drop_first(silent)
            if not silent.lines:
                del self._jobs[oldest]

    def _drop_first(self, said: _Said) -> None:
        _, size = said.lines.popleft()
        self._count -= 1
        self._size -= size
        self.dropped += 1

    def of(self, job_id: str) -> JobLog:
        """The records of a job."""
        self._take_in()
        with self._lock:
            said = self._jobs.get(job_id)
            if said is None:
                return JobLog((), 0)
            lines = tuple([line for line, _ in said.lines])
            return JobLog(lines, said.count - len(lines))


def _traceback(record: logging.LogRecord) -> str | None:
    """The traceback of a record's exception, if it has one."""
    text = record.exc_text
    if not text and record.exc_info and record.exc_info[0] is not None:
        text = _formatter.formatException(record.exc_info)
    return redact.safe(text[-LONGEST_TRACEBACK:], None, "\n\t") if text else None
