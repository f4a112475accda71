"""Facts about how an attempt ended, and the judgements that can follow from them."""

from __future__ import annotations

from typing import Any, TypeAlias

from asyncworkers._record import Record

__all__ = [
    "Cancel",
    "Cancelled",
    "Complete",
    "Decision",
    "Fail",
    "Failed",
    "Outcome",
    "Release",
    "RetryAfter",
    "Succeeded",
    "TimedOut",
]


class Succeeded(Record):
    """The function returned `value`."""

    value: Any


class Failed(Record):
    """The function raised `error`, as whoever awaits the job would see it."""

    error: Exception


class TimedOut(Record):
    """The attempt ran longer than `timeout` seconds and was cancelled."""

    timeout: float


class Cancelled(Record):
    """The job was cancelled; `reason` says why. `expired` is true if its time had run out."""

    reason: str
    expired: bool = False


Outcome: TypeAlias = Succeeded | Failed | TimedOut | Cancelled
"""The fact: how an attempt ended. After the last attempt it is how the job ended."""


class Complete(Record):
    """The job has succeeded with `value`."""

    value: Any


class RetryAfter(Record):
    """The job runs again after `delay` seconds, because of `error`."""

    delay: float
    error: Exception


class Fail(Record):
    """The job has failed with `error`."""

    error: Exception


class Cancel(Record):
    """The job is cancelled for `reason`."""

    reason: str
    expired: bool = False


class Release(Record):
    """The attempt never began: the job goes back to its queue, no attempt spent."""


Decision: TypeAlias = Complete | RetryAfter | Fail | Cancel | Release
"""The judgement: what is done about an outcome."""
