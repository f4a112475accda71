"""Remembers what jobs have logged, in bounded memory, while there is a dashboard to show it."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from asyncworkers import redact
from asyncworkers.bridge import echo
from asyncworkers.job import running_job

__all__ = ["Diary"]

LINES: Final = 200
"""Records that are remembered of one job: the last ones."""

ALL_LINES: Final = 10_000
"""Records that are remembered of all; of more, all those of the job that logged longest ago go."""

LONGEST: Final = 1_000
"""Characters of one record."""


Line: TypeAlias = tuple[float, str, str, str]
"""When it was logged, as what, by which logger, and what."""


class _Pages:
    __slots__ = ("lines", "more")

    def __init__(self) -> None:
        self.lines: deque[Line] = deque(maxlen=LINES)
        self.more = 0  # older ones, which were forgotten


class Diary:
    """What was logged by the jobs of this process, and by those in its children: by whichever logger,
    if its level lets it through, whether or not any handler shows it anywhere.

    It looks at each record as it is made
    (`logging.setLogRecordFactory`), for a handler of its own would keep `logging.basicConfig` from
    setting up the program's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # jobs log in threads, too
        self._jobs: OrderedDict[str, _Pages] = OrderedDict()
        self._count = 0
        _listen(self)

    def close(self) -> None:
        """Listen no more."""
        _listen(self, False)

    def of(self, ident: str) -> dict[str, Any]:
        """The records of a job, the oldest first, and how many more there were."""
        with self._lock:
            pages = self._jobs.get(ident)
            lines, more = ([], 0) if pages is None else ([*pages.lines], pages.more)
        names = ("at", "level", "logger", "text")
        return {"lines": [dict(zip(names, line, strict=True)) for line in lines], "more": more}

    def note(self, ident: str, line: Line) -> None:
        """A job has logged this."""
        with self._lock:
            pages = self._jobs.get(ident)
            if pages is None:
                pages = self._jobs[ident] = _Pages()
            self._jobs.move_to_end(ident)
            if pages.lines and pages.lines[-1] == line:
                return  # somebody's factory stands between two listeners: it is the same record
            if len(pages.lines) == LINES:
                pages.more += 1
            else:
                self._count += 1
            pages.lines.append(line)
            while self._count > ALL_LINES:
                _, forgotten = self._jobs.popitem(last=False)
                self._count -= len(forgotten.lines)


# ---- listening: there is one listener for all diaries, in the place where records are made

_diaries: tuple[weakref.ref[Diary], ...] = ()
_lock = threading.Lock()


def _listen(diary: Diary, wanted: bool = True) -> None:
    """Tell this diary, too, or no more; whoever makes records has the listener put in once."""
    global _diaries  # noqa: PLW0603  # replaced as a whole: threads go through it meanwhile
    with _lock:
        others = tuple(known for known in _diaries if known() not in (None, diary))
        _diaries = (*others, weakref.ref(diary)) if wanted else others
        if wanted and not isinstance(logging.getLogRecordFactory(), _Listener):
            logging.setLogRecordFactory(_Listener(logging.getLogRecordFactory()))
        if wanted and _from_child not in echo.told:
            echo.told.append(_from_child)


class _Listener:
    """Makes records as before, and notes those of jobs."""

    def __init__(self, before: Callable[..., logging.LogRecord]) -> None:
        self._before = before

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._before(*args, **kwargs)
        # One that is to be filled in, by `logging.makeLogRecord`, has no name yet.
        if _diaries and record.name:
            job = running_job()
            if job is not None:
                _note(job.id, record)
        return record


def _from_child(record: logging.LogRecord) -> None:
    ident = record.__dict__.get("job_id")
    if isinstance(ident, str):
        _note(ident, record)


def _note(ident: str, record: logging.LogRecord) -> None:
    line = (record.created, record.levelname, record.name, _text(record))
    for known in _diaries:
        diary = known()
        if diary is not None:
            diary.note(ident, line)


def _text(record: logging.LogRecord) -> str:
    """What it says, and of an error the class and message: the traceback is shown of the job's own."""
    try:
        text = record.getMessage()
        error = record.exc_info and record.exc_info[1]
        if error:
            text = f"{text}\n{type(error).__qualname__}: {error}"
    except Exception:  # its arguments do not fit: `logging` says so where it is shown
        text = str(record.msg)
    return redact.safe(text, LONGEST, keep="\n")
