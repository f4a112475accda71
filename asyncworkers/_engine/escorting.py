"""The queues' way to the supervisor's escort: one that raises is dropped, once and loudly, and no job suffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, TypeVar

from asyncworkers import _checks
from asyncworkers._log import log
from asyncworkers.escort import Escort, Luggage
from asyncworkers.job import Job

__all__ = ["Escorting"]

T = TypeVar("T")

_NONE: Mapping[str, str] = {}


class Escorting:
    """Asks the escort; `drop` is called if it raises."""

    __slots__ = ("_drop", "_escort")

    def __init__(self, escort: Escort, drop: Callable[[], object]) -> None:
        self._escort = escort
        self._drop = drop

    def headers(self, job_id: str, job_name: str, queue: str) -> Mapping[str, str]:
        """The headers of a job that is submitted here and now."""
        return self._ask(lambda: self._escort.submitted(job_id, job_name, queue)) or _NONE

    def submitted(self, job: Job[Any]) -> None:
        """Give the job its headers, in the context of whoever submits it; a stream may do that later
        for them, elsewhere.
        """
        rare, context = job._uncommon(), job._context
        about = job.id, job.name, job.queue
        ask = self.headers if context is None else _within(context, self.headers)
        rare.headers = ask(*about)

    def sent(self, job: Job[Any]) -> Luggage | None:
        """What goes along to the child that the job is sent to."""
        return self._ask(lambda: self._escort.sent(job, _headers_of(job)))

    def begun(self, job: Job[Any]) -> None:
        """Give the attempt that begins a context of its own, to which the escort may add something."""
        context = Context() if job._context is None else job._context.copy()
        job._context = context
        self._ask(lambda: self._escort.begun(job, _headers_of(job), context))

    def ended(
        self, job: Job[Any], outcome: str, decision: str, kind: str | None, said: str | None
    ) -> None:
        """The attempt has ended."""
        error = None if kind is None else (kind, said or kind)
        self._ask(lambda: self._escort.ended(job, outcome, decision, error))

    def _ask(self, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except BaseException as error:  # also SystemExit: an escort must not end the loop
            self._drop()
            log.failure(f"dropped escort {_checks.shown(self._escort)}, which raised", error)
            return None


def _headers_of(job: Job[Any]) -> Mapping[str, str]:
    return _NONE if job._rare is None else job._rare.headers or _NONE


def _within(context: Context, function: Callable[..., T]) -> Callable[..., T]:
    return lambda *args: context.copy().run(function, *args)
