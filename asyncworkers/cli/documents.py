"""Stored jobs as programs get to read them, and as little of their arguments as will do.

Lists name no arguments and no results: lists are pasted into chats and kept in logs, arguments hold
what users typed. They are told of one job at a time, and there values whose names sound secret are
masked unless they are asked for.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

from asyncworkers import redact
from asyncworkers.store.codec import StoredError, stored_error
from asyncworkers.store.protocol import CODEC, StoredJob

__all__ = ["brief", "full", "moment", "progress", "trouble"]

NO_LIMIT = 2**31


def moment(seconds: float | None) -> str | float | None:
    """A date in UTC as ISO 8601 has it; the bare number if it is beyond the calendar."""
    if seconds is None:
        return None
    try:
        date = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return seconds
    return date.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def trouble(job: StoredJob) -> str:
    """What went wrong with a job in a line, "" if nothing did."""
    if job.error is None:
        return ""
    error = _error(job.error)
    return f"{error.type}: {error.message}" if error.message else error.type


def progress(job: StoredJob) -> str:
    """How far a job says it is, as in `12 of 40, page 12`; "" if it says nothing."""
    said = _plain(job.progress)
    match said:
        case [int() | float() as done, int() | float() | None as total, message]:
            far = f"{done:,g}" if total is None else f"{done:,g} of {total:,g}"
            return f"{far}, {message}" if message else far
        case None:
            return ""
        case _:
            return str(said)


def brief(job: StoredJob) -> dict[str, Any]:
    """A job without its arguments and without its result."""
    error = None if job.error is None else _error(job.error)
    return {
        "id": job.id,
        "name": job.name,
        "queue": job.queue,
        "state": str(job.state),
        "priority": job.priority,
        "attempt": job.attempt,
        "failures": job.failures,
        "losses": job.losses,
        "once": job.once,
        "tags": list(job.tags),
        "submitted": moment(job.submitted),
        "due": moment(job.due),
        "expires": moment(job.expires),
        "started": moment(job.started),
        "ended": moment(job.ended),
        "kept_until": moment(job.until),
        "cancelling": job.cancelling is not None,
        "progress": progress(job) or None,
        "error": None if error is None else {"type": error.type, "message": error.message},
    }


def full(job: StoredJob, *, reveal: bool) -> dict[str, Any]:
    """All there is to know of a job; `reveal` shows also what sounds secret."""
    document = brief(job)
    arguments, result = _plain(job.args), _plain(job.result)
    if not reveal:
        arguments, result = (
            redact.masked(one, depth=100, items=NO_LIMIT, limit=None) for one in (arguments, result)
        )
    document |= {"codec": job.codec, "args": arguments, "result": result}
    if job.codec == CODEC and isinstance(arguments, list) and len(cast("Any", arguments)) == 2:
        document["args"], document["kwargs"] = arguments
    if job.error is not None:
        error = _error(job.error)
        document["error"] |= {"notes": list(error.notes), "traceback": error.traceback}
    return document


def _error(text: str) -> StoredError:
    """An error as it may be shown: passwords of URLs in it are masked."""
    error = stored_error(text)._asdict()
    return StoredError(**redact.masked(error | {"args": None}, items=NO_LIMIT, limit=None))


def _plain(text: str | None) -> Any:
    """What a text of JSON holds; the text itself if it is none."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
