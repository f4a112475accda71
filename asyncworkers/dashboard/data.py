"""What a dashboard shows, as plain data: the words of its documents, and how they are made safe.

Dates are Unix seconds, durations seconds. Everything that a page gets passes through `clean`, so that
no text in it can hide or turn what stands around it; arguments and results through `redact` before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias, cast

from asyncworkers import redact
from asyncworkers.job import JobState
from asyncworkers.store.codec import StoredError, stored_error
from asyncworkers.store.protocol import CODEC, StoredJob

__all__ = [
    "DEAD",
    "ENDED",
    "SCAN",
    "Action",
    "Refusal",
    "Source",
    "Wanted",
    "brief_of_record",
    "clean",
    "failure",
    "full_of_record",
    "percentiles",
]

ENDED: Final = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
DEAD: Final = (JobState.FAILED, JobState.CANCELLED)

SCAN: Final = 20_000
"""Jobs that are looked at for one answer, whatever was asked for: the loop has other things to do."""

LONGEST_TEXT: Final = 2_000
"""Characters of one argument, result or message that are shown."""

LONGEST_TRACEBACK: Final = 32_000


class Wanted(NamedTuple):
    """Which jobs to list: all that is given must hold. `after` continues a list, as it said itself."""

    state: JobState | None = None
    queue: str | None = None
    name: str | None = None
    tag: str | None = None
    after: str | None = None
    limit: int = 50


Verb: TypeAlias = Literal["cancel", "retry", "pause", "resume", "resize"]


class Action(NamedTuple):
    """Something to do: to the job or the queue that `target` names."""

    verb: Verb
    target: str
    workers: int = 0


class Refusal(Exception):
    """Raised for what cannot be done, with a sentence for whoever asked; `missing` if there is no such thing."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


class Source(Protocol):
    """What a dashboard looks at. Its answers are documents: what JSON can say, not yet `clean`."""

    def is_open(self) -> bool:
        """Whether anything happens there that could be followed."""
        ...

    async def overview(self) -> dict[str, Any]:
        """How everything stands at this moment: queues, workers, children, stalls, recent failures."""
        ...

    async def jobs(self, wanted: Wanted) -> dict[str, Any]:
        """A page of jobs, each in brief: `jobs`, `after` to continue, and a `note` if not all were seen."""
        ...

    async def job(self, ident: str) -> dict[str, Any] | None:
        """All there is to know of a job, None if there is none (any more)."""
        ...

    async def act(self, action: Action) -> str:
        """Do it and say what was done. Raises Refusal."""
        ...


# ---- safe


def clean(value: Any, keep: str = "") -> Any:
    """The same document with every text in it fit to be shown; only what has lines keeps them:
    tracebacks, and what was logged.
    """
    if isinstance(value, str):
        return redact.safe(value, keep=keep)
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {
            redact.safe(name): clean(one, "\n\t" if name in _WITH_LINES else keep)
            for name, one in items
        }
    if isinstance(value, (list, tuple)):
        return [clean(one, keep) for one in cast("Iterable[Any]", value)]
    return value


_WITH_LINES = ("traceback", "logged")

# ---- figures


def percentiles(seconds: Iterable[float]) -> dict[str, float] | None:
    """The 50th, 95th and 99th percentile of some durations; None if there are none."""
    ranked = sorted(seconds)
    if not ranked:
        return None
    last = len(ranked) - 1
    return {name: ranked[round(last * part)] for name, part in _PARTS}


_PARTS = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


# ---- jobs as they are stored


def brief_of_record(job: StoredJob) -> dict[str, Any]:
    """A stored job without its arguments."""
    error = None if job.error is None else stored_error(job.error)
    summary = None if error is None else f"{error.type}: {error.message}".removesuffix(": ")
    return {
        "id": job.id,
        "name": job.name,
        "queue": job.queue,
        "state": str(job.state),
        "stored": True,
        "attempt": job.attempt,
        "priority": job.priority,
        "tags": list(job.tags),
        "submitted": job.submitted,
        "due": job.due,
        "started": job.started,
        "ended": job.ended,
        "cancelling": job.cancelling is not None,
        "progress": _progress(job.progress),
        "error": None if summary is None else redact.safe(summary, 300),
    }


def full_of_record(job: StoredJob, function: Callable[..., Any] | None) -> dict[str, Any]:
    """All that is stored of a job, its secrets masked. By its function, where that is known, arguments
    that were given by place have names: one of them may be a secret's.
    """
    document = brief_of_record(job)
    call = _call(job)
    args, kwargs = ([_plain(job.args)], dict[str, Any]()) if call is None else call
    known = _anything if function is None or call is None else function
    document |= {
        "args": redact.arguments(known, args, kwargs),
        "result": None if job.result is None else {"value": redact.masked(_plain(job.result))},
        "failure": None,
        "failures": job.failures,
        "losses": job.losses,
        "once": job.once,
        "expires": job.expires,
        "kept_until": job.until,
        "codec": job.codec,
    }
    if job.error is not None:
        document["failure"] = failure(stored_error(job.error))
    return document


def failure(error: StoredError) -> dict[str, Any]:
    """An error as a page shows it."""
    return {
        "type": error.type,
        "message": redact.safe(error.message, LONGEST_TEXT),
        "notes": list(error.notes),
        "traceback": error.traceback[-LONGEST_TRACEBACK:],
    }


def _anything(*_args: Any, **_kwargs: Any) -> None:
    """The signature of a function that is not known here."""


def _call(job: StoredJob) -> tuple[list[Any], Mapping[str, Any]] | None:
    """The arguments of a stored call; None if they cannot be read here, as pickled ones."""
    call = _plain(job.args)
    if job.codec == CODEC and isinstance(call, list) and len(cast("list[Any]", call)) == 2:
        args, kwargs = cast("list[Any]", call)
        if isinstance(args, list) and isinstance(kwargs, dict):
            return cast("list[Any]", args), cast("dict[str, Any]", kwargs)
    return None


def _progress(text: str | None) -> dict[str, Any] | None:
    match _plain(text):
        case [int() | float() as done, int() | float() | None as total, message]:
            return {"done": done, "total": total, "message": message}
        case None:
            return None
        case other:
            return {"done": 0, "total": None, "message": str(cast("object", other))[:200]}


def _plain(text: str | None) -> Any:
    """What a text of JSON holds; the text itself if it is none."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
