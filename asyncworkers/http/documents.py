"""Documents: what is told of a job, as plain data."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from asyncworkers import Job, JobState, _checks
from asyncworkers.store.codec import LARGEST_RESULT, encode_error, stored_error, to_json

__all__ = ["Known", "end_of", "error_of", "status_of"]

ENDED: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class Known(NamedTuple):
    """A job as it is known over HTTP: by an id, and by the name its function may be called by."""

    id: str
    function: str
    job: Job[Any]
    stored: bool


def status_of(known: Known) -> dict[str, Any]:
    """Where a job is on its way."""
    job = known.job
    return {
        "id": known.id,
        "function": known.function,
        "queue": job.queue,
        "state": str(job.state),
        "attempt": job.attempt,
        "why": _checks.printable(job.why)[:1_000],
        "progress": _progress_of(job),
        "created": _date(job.created),
        "started": _date(job.started),
        "finished": _date(job.finished),
    }


def end_of(known: Known, *, tracebacks: bool) -> dict[str, Any]:
    """The same for a job that has ended, with its `result` or its `error`."""
    document = status_of(known)
    document["result"], document["error"] = None, None
    try:
        error = known.job.exception()
        if error is None:
            document["result"] = _written(known.job.result())
    except Exception as trouble:  # its result, as it was stored, cannot be read any more
        error = trouble
    if error is not None:
        document["error"] = error_of(error, tracebacks=tracebacks)
    return document


def error_of(error: Exception, *, tracebacks: bool) -> dict[str, Any]:
    """An error as data: the name of its class, its message, and where it was raised if asked for."""
    stored = stored_error(encode_error(error))
    found = {"type": stored.type, "message": stored.message}
    if tracebacks:
        # That of a job from a store or another process came as a note.
        found["traceback"] = "\n".join([stored.traceback, *stored.notes])
    return found


def _written(value: Any) -> msgspec.Raw:
    """A result as JSON. Raises TypeError or ValueError for what cannot be told so."""
    try:
        raw = to_json(value)
    except Exception as error:
        cause = _checks.message(error)
        raise TypeError(f"the job succeeded; its result has no form in JSON: {cause}") from None
    if len(raw) > LARGEST_RESULT:
        raise ValueError(
            f"the job succeeded; its result takes {len(raw):,} bytes, more than {LARGEST_RESULT:,}"
        )
    return msgspec.Raw(raw)


def _progress_of(job: Job[Any]) -> dict[str, Any] | None:
    progress = job.progress
    if progress is None:
        return None
    message = progress.message
    told = None if message is None else _checks.printable(message[:1_000], "\n\t")
    return {"done": progress.done, "total": progress.total, "message": told}


def _date(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds")
