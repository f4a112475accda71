"""Log records that name the job they belong to: for `logging`, and for structlog.

Nothing is installed by importing this. Records of jobs in processes have these fields by
themselves: they are logged here with the job that said them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any

from asyncworkers.job import running_job

__all__ = ["FIELDS", "JobFilter", "add_job", "job_fields", "record_factory"]

FIELDS = ("job_id", "job_name", "queue", "attempt")
"""The fields that a log record of a job has."""


def job_fields() -> dict[str, Any]:
    """The fields of the job whose code is asking, also in its threads and subtasks; empty outside."""
    job = running_job()
    if job is None:
        return {}
    return dict(zip(FIELDS, (job.id, job.name, job.queue, job.attempt), strict=True))


class JobFilter(logging.Filter):
    """Gives each record the fields of its job, None outside of jobs; lets every record pass.

    Add it to a handler, `handler.addFilter(JobFilter())`, so that it sees the records of all
    loggers. The handler must be called in the job's own thread: put a QueueHandler behind it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Note the job, unless the record names one already."""
        _note(record)
        return True


def record_factory(
    previous: Callable[..., logging.LogRecord] | None = None,
) -> Callable[..., logging.LogRecord]:
    """A record factory that does the same for all handlers there are:
    `logging.setLogRecordFactory(record_factory())`. It asks the `previous` one for the record, the
    one that is set now if None.
    """
    make = logging.getLogRecordFactory() if previous is None else previous

    def with_job(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        _note(record)
        return record

    return with_job


def add_job(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A processor for structlog: adds the fields of the job, outside of jobs nothing."""
    for name, value in job_fields().items():
        event.setdefault(name, value)
    return event


def _note(record: logging.LogRecord) -> None:
    there = record.__dict__
    if there.get("job_id") is None:  # that of a child's record is known better there
        there.update(dict.fromkeys(FIELDS), **job_fields())
