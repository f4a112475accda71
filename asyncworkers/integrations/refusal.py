"""What a client is told whose job was not accepted: 503, when to ask again, and why, as JSON."""

from __future__ import annotations

import json
from typing import NamedTuple

from asyncworkers.errors import QueueFull, SupervisorClosed, SupervisorFailed

__all__ = ["REFUSALS", "RETRY_AFTER", "Refusal", "refusal"]

REFUSALS = (QueueFull, SupervisorClosed, SupervisorFailed)
"""The exceptions that say that the service, not the request, is the reason."""

RETRY_AFTER = 5
"""Seconds after which clients are asked to try again, unless the application says otherwise."""


class Refusal(NamedTuple):
    """The answer: what Flask and Quart take as it is, and others take apart.

    `body` is what every face over HTTP answers with: `{"error": {"type": ..., "message": ...}}`. The
    type is a word for programs, one of `QueueFull`, `SupervisorClosed` and `SupervisorFailed`, the
    message a sentence for people. It says nothing about what is inside.
    """

    body: str
    status: int
    headers: dict[str, str]


def refusal(error: BaseException, *, retry_after: int = RETRY_AFTER) -> Refusal:
    """The answer to a request that met with this exception.

    Raises the exception itself if it is none of these three, or if it only shows that nobody has
    entered the supervisor: asking again would not help. Raises TypeError or ValueError if
    `retry_after` is no number of seconds.
    """
    checked_retry_after(retry_after)
    why = reason(error)
    if why is None:
        raise error
    headers = {"Content-Type": "application/json", "Retry-After": str(retry_after)}
    told = {"type": type(error).__name__, "message": why}
    return Refusal(json.dumps({"error": told}, separators=(",", ":")), 503, headers)


def reason(error: BaseException) -> str | None:
    """Why the service takes no job, as clients are told; None if that is not what the error says."""
    if isinstance(error, QueueFull):
        return "Too many jobs are waiting. Try again later."
    if isinstance(error, SupervisorClosed) and error.state != "new":
        return "The service is about to stop. Try again."
    if isinstance(error, SupervisorFailed):
        return "The service is out of order. Try again later."
    return None


def checked_retry_after(seconds: int) -> int:
    """Whole seconds, for the header that says when to ask again."""
    if type(seconds) is not int:
        raise TypeError(f"retry_after must be a whole number of seconds, not {seconds!r:.80}")
    if not 0 <= seconds <= 86_400:
        raise ValueError(f"retry_after must be between 0 and 86400 seconds, not {seconds}")
    return seconds
