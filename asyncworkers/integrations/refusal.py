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

    `body` is a JSON object: `error` is a word for programs, one of `queue_full`, `draining` and `failed`,
    `detail` a sentence for people. It says nothing about what is inside.
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
    if isinstance(error, QueueFull):
        word, sentence = "queue_full", "Too many jobs are waiting. Try again later."
    elif isinstance(error, SupervisorClosed) and error.state != "new":
        word, sentence = "draining", "The service is about to stop. Try again."
    elif isinstance(error, SupervisorFailed):
        word, sentence = "failed", "The service is out of order. Try again later."
    else:
        raise error
    headers = {"Content-Type": "application/json", "Retry-After": str(retry_after)}
    return Refusal(json.dumps({"error": word, "detail": sentence}), 503, headers)


def checked_retry_after(seconds: int) -> int:
    """Whole seconds, for the header that says when to ask again."""
    if type(seconds) is not int:
        raise TypeError(f"retry_after must be a whole number of seconds, not {seconds!r:.80}")
    if not 0 <= seconds <= 86_400:
        raise ValueError(f"retry_after must be between 0 and 86400 seconds, not {seconds}")
    return seconds
