"""An escort goes along with every job of a supervisor: from its submission, over bridges and stores, to its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextvars import Context
from typing import Any, NamedTuple, Protocol, cast

from asyncworkers.job import Job

__all__ = ["Escort", "Luggage", "packed", "unpacked"]


class Luggage(NamedTuple):
    """What goes to a child process with a job: there, if the module `needs` was imported by anybody,
    `module.function(data)` is called in the job's context before its code runs.
    """

    needs: str
    module: str
    function: str
    data: Any


class Escort(Protocol):
    """What `Supervisor.escort` takes. All of it is called in the event loop, and must be quick.

    `headers` are texts by name that travel with the job wherever it goes, into a store as well.
    While there is an escort every job takes the longer path, as if somebody listened.
    """

    def submitted(self, job_id: str, job_name: str, queue: str) -> Mapping[str, str]:
        """A job is submitted, in the context of whoever does it: the headers it gets."""
        ...

    def sent(self, job: Job[Any], headers: Mapping[str, str]) -> Luggage | None:
        """The job is about to be sent to a child process, where its next attempt may begin soon. It
        may also come back without having begun, and be sent again.
        """
        ...

    def begun(self, job: Job[Any], headers: Mapping[str, str], context: Context) -> None:
        """An attempt begins. What is set in `context` is seen by its code, on the loop and in threads."""
        ...

    def ended(
        self, job: Job[Any], outcome: str, decision: str, error: tuple[str, str] | None
    ) -> None:
        """The attempt has ended: the class names of outcome and decision, and of an error its class
        and its message as it may be shown.
        """
        ...


def packed(headers: Mapping[str, str]) -> str:
    """Headers as a store keeps them."""
    return json.dumps(dict(headers), separators=(",", ":")) if headers else ""


def unpacked(text: str) -> dict[str, str]:
    """Headers from a store; none if that is something else."""
    try:
        found: object = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    pairs = cast("dict[str, object]", found).items()
    return {name: value for name, value in pairs if isinstance(value, str)}
