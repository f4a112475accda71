"""Policies are frozen values that answer one question each; `decide` turns a fact into a judgement."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Literal, TypeAlias, assert_never, cast

from asyncworkers import _checks
from asyncworkers._record import Record
from asyncworkers.errors import GiveUp, JobTimedOut, RetryLater
from asyncworkers.outcome import (
    Cancel,
    Cancelled,
    Complete,
    Decision,
    Fail,
    Failed,
    Outcome,
    RetryAfter,
    Succeeded,
    TimedOut,
)

__all__ = ["Backoff", "Retry", "Unique", "decide"]

Backoff: TypeAlias = Callable[[int, Exception], float | timedelta | None]
"""Answers with the delay after attempt `n` failed with an error, or None for the formula's."""


class Retry(Record):
    """How often a failing job runs, on which exceptions, and how long it waits in between.

    After attempt n the wait is chosen between 0 and `min(maximum, delay * factor ** (n - 1))`
    seconds, uniformly: "full jitter", so that jobs that failed together do not come back
    together (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015). With
    the defaults the upper ends are 1, 2, 4, 8 and 16 s. `jitter=False` waits the upper end.

    - `attempts`: how often the job may run in all, 1 to 1,000; 1 means no retry.
    - `on`: the exception classes that are worth another attempt, compared with what whoever
      awaits the job would see. A timed-out attempt counts as `JobTimedOut`, which is a
      `TimeoutError` and therefore an `OSError`.
    - `backoff`: a callable given the attempt's number and error. It answers with seconds (or a
      timedelta) to wait, without jitter, or with None for the formula. If it raises or answers
      nonsense, the job fails with its last error and a note about the policy.
    """

    attempts: int
    on: tuple[type[Exception], ...]
    delay: float
    factor: float
    maximum: float
    jitter: bool
    backoff: Backoff | None

    def __init__(
        self,
        attempts: int,
        *,
        on: type[Exception] | Iterable[type[Exception]],
        delay: float | timedelta = 1.0,
        factor: float = 2.0,
        maximum: float | timedelta = 60.0,
        jitter: bool = True,
        backoff: Backoff | None = None,
    ) -> None:
        _checks.whole("Retry.attempts", attempts, 1, 1_000)
        classes = _exception_classes(on)
        delay = _checks.duration("Retry.delay", delay)
        maximum = _checks.duration("Retry.maximum", maximum)
        if _checks.number("Retry.factor", factor) < 1:
            raise ValueError(f"Retry.factor must be at least 1, not {factor}")
        _checks.flag("Retry.jitter", jitter)
        if backoff is not None and not callable(backoff):
            raise TypeError(f"Retry.backoff must be callable, not {_checks.shown(backoff)}")
        super().__init__(attempts, classes, delay, factor, maximum, jitter, backoff)

    def wants(self, error: Exception) -> bool:
        """Whether this error is one of those in `on`."""
        return isinstance(error, self.on)

    def delay_after(self, attempt: int, error: Exception, roll: float) -> float:
        """Seconds to wait after the numbered attempt failed; `roll` in [0, 1) draws the jitter.

        Raises whatever `backoff` raises, and TypeError or ValueError for a senseless answer.
        """
        if self.backoff is not None:
            answer = self.backoff(attempt, error)
            if answer is not None:
                return _checks.duration("the delay answered by Retry.backoff", answer)
        try:
            longest = min(self.maximum, self.delay * self.factor ** (attempt - 1))
        except OverflowError:
            longest = self.maximum
        return longest * roll if self.jitter else longest


class Unique(Record):
    """At most one stored job of a function may hold a key at a time.

    - `key`: a text, or a function that makes one of the job's arguments:
      `Unique(lambda order: str(order.number))`. At most 256 characters. Keys of two functions never meet.
    - `until`: how long the key is held: "started", while the job waits for its first attempt; "done",
      until it has ended; or so many seconds after it was submitted, whatever becomes of it. A dead
      job that is retried holds it as if it had never ended, and stays dead if another job holds it.
    - `on_duplicate`: what a second `submit` does meanwhile: "existing" answers with the job there is;
      "replace" cancels that one if it has not started, and otherwise answers with it; "reject"
      raises DuplicateJob.
    """

    key: str | Callable[..., str]
    until: Literal["started", "done"] | float
    on_duplicate: Literal["existing", "replace", "reject"]

    def __init__(
        self,
        key: str | Callable[..., str],
        *,
        until: Literal["started", "done"] | float | timedelta = "done",
        on_duplicate: Literal["existing", "replace", "reject"] = "existing",
    ) -> None:
        if not callable(key):
            _unique_key("the key of unique", key, "a str or a function that makes one")
        if isinstance(until, str):
            _checks.one_of("Unique.until", until, ("started", "done"))
        else:
            until = _checks.duration("Unique.until", until, zero=False)
        _checks.one_of("Unique.on_duplicate", on_duplicate, ("existing", "replace", "reject"))
        super().__init__(key, until, on_duplicate)

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The key of a call. Raises TypeError or ValueError if the function makes none of it."""
        if isinstance(self.key, str):
            return self.key
        key = self.key(*args, **kwargs)
        return _unique_key("what the function given as unique answers", key, "a str")


def _unique_key(argument: str, value: object, wanted: str) -> str:
    if type(value) is not str:
        raise TypeError(f"{argument} must be {wanted}, not {_checks.shown(value)}")
    unfit = any(one == "\0" or "\ud800" <= one <= "\udfff" for one in value[:256])
    if unfit or not 1 <= len(value) <= 256:
        raise ValueError(
            f"{argument} must be of between 1 and 256 characters, none of them NUL or a lone "
            f"surrogate, not {_checks.shown(value)}"
        )
    return value


def _exception_classes(on: object) -> tuple[type[Exception], ...]:
    found: list[object] = [on]
    if isinstance(on, Iterable) and not isinstance(on, (str, bytes, type)):
        found = list(cast("Iterable[object]", on))
    if not found:
        raise ValueError("Retry.on must name at least one exception class")
    for one in found:
        if not isinstance(one, type) or not issubclass(one, Exception):
            raise TypeError(
                "Retry.on must name exception classes that derive from Exception, "
                f"not {_checks.shown(cast('object', one))}"
            )
    return tuple(cast("list[type[Exception]]", found))


def decide(outcome: Outcome, retry: Retry | None, attempt: int, roll: float) -> Decision:
    """Judge how the numbered attempt ended. Pure: no clock, no I/O; `roll` in [0, 1) is the luck.

    Without a `retry` policy a failure is final.
    """
    match outcome:
        case Succeeded(value):
            return Complete(value)
        case Cancelled(reason, expired):
            return Cancel(reason, expired)
        case Failed(error):
            return _after_failure(error, retry, attempt, roll)
        case TimedOut(timeout):
            error = JobTimedOut(f"attempt {attempt} ran longer than {timeout:g} s", timeout)
            return _after_failure(error, retry, attempt, roll)
        case _:
            assert_never(outcome)


def _after_failure(error: Exception, retry: Retry | None, attempt: int, roll: float) -> Decision:
    if retry is None or isinstance(error, GiveUp):
        return Fail(error)
    if attempt >= retry.attempts:
        return Fail(error)
    try:
        if isinstance(error, RetryLater):
            return RetryAfter(_checks.duration("RetryLater.seconds", error.seconds), error)
        if retry.wants(error):
            return RetryAfter(retry.delay_after(attempt, error, roll), error)
    except BaseException as trouble:  # also SystemExit: a policy must not end a worker
        _checks.note(
            error, f"not retried, because the retry policy failed: {_checks.shown(trouble, 200)}"
        )
    return Fail(error)
