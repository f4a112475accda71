"""Facts about how an attempt ended, and the judgements that can follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

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


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The function returned `value`."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The function raised `error`, as whoever awaits the job would see it."""

    error: Exception


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The attempt ran longer than `timeout` seconds and was cancelled."""

    timeout: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The job was cancelled; `reason` says why. `expired` is true if its time had run out."""

    reason: str
    expired: bool = False


Outcome: TypeAlias = Succeeded | Failed | TimedOut | Cancelled
"""The fact: how an attempt ended. After the last attempt it is how the job ended."""


@dataclass(frozen=True, slots=True)
class Complete:
    """The job has succeeded with `value`."""

    value: Any


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """The job runs again after `delay` seconds, because of `error`."""

    delay: float
    error: Exception


@dataclass(frozen=True, slots=True)
class Fail:
    """The job has failed with `error`."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Cancel:
    """The job is cancelled for `reason`."""

    reason: str
    expired: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """The attempt never began: the job goes back to its queue, no attempt spent."""


Decision: TypeAlias = Complete | RetryAfter | Fail | Cancel | Release
"""The judgement: what is done about an outcome."""
