"""What policies answer: delays of retries, and the judgement of outcomes."""

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworkers import (
    Cancelled,
    Failed,
    GiveUp,
    JobTimedOut,
    Outcome,
    Retry,
    RetryLater,
    Succeeded,
    TimedOut,
    Unique,
)
from asyncworkers.outcome import Cancel, Complete, Fail, RetryAfter
from asyncworkers.policies import decide

rolls = st.floats(0, 1, exclude_max=True)
seconds = st.floats(0, 86_400, allow_nan=False)
attempts = st.integers(1, 1_000)
errors = st.sampled_from([ValueError("a"), OSError("b"), KeyError("c"), TimeoutError("d")])


@st.composite
def policies(draw: st.DrawFn, **fixed: Any) -> Retry:
    """Any retry policy."""
    options: dict[str, Any] = {
        "on": draw(st.sampled_from([Exception, ValueError, (OSError, KeyError)])),
        "delay": draw(seconds | seconds.map(lambda s: timedelta(seconds=s))),
        "factor": draw(st.floats(1, 100)),
        "maximum": draw(seconds),
        "jitter": draw(st.booleans()),
        **fixed,
    }
    return Retry(draw(attempts), **options)


@given(policies(), attempts, errors, rolls)
def test_delay_is_within_its_bounds(
    retry: Retry, attempt: int, error: Exception, roll: float
) -> None:
    """Whatever the policy and the attempt, the delay is finite and between 0 and the maximum."""
    delay = retry.delay_after(attempt, error, roll)
    assert 0 <= delay <= float(retry.maximum)  # type: ignore[arg-type]
    assert math.isfinite(delay)


@given(policies(jitter=False), errors, rolls)
def test_delay_without_jitter_grows(retry: Retry, error: Exception, roll: float) -> None:
    """Without jitter the delays are the formula's, never fall, and do not depend on luck."""
    delays = [retry.delay_after(number, error, roll) for number in range(1, 30)]
    assert delays == sorted(delays)
    assert delays == [retry.delay_after(number, error, 0.0) for number in range(1, 30)]
    first = min(float(retry.delay), float(retry.maximum))  # type: ignore[arg-type]
    assert delays[0] == first


@given(policies(jitter=True), attempts, errors, rolls)
def test_jitter_draws_below_the_formula(
    retry: Retry, attempt: int, error: Exception, roll: float
) -> None:
    """Full jitter takes the roll's share of what would be waited without it."""
    whole = Retry(
        retry.attempts,
        on=retry.on,
        delay=retry.delay,
        factor=retry.factor,
        maximum=retry.maximum,
        jitter=False,
    ).delay_after(attempt, error, roll)
    assert retry.delay_after(attempt, error, roll) == whole * roll
    assert retry.delay_after(attempt, error, 0.0) == 0


def test_the_first_delays() -> None:
    """The delays that the docstring promises: 1, 2, 4, 8 and 16 s at most, later 60 s."""
    retry = Retry(10, on=OSError, jitter=False)
    delays = [retry.delay_after(number, OSError(), 0.5) for number in range(1, 9)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert retry.delay_after(1_000, OSError(), 0.5) == 60  # 2.0 ** 999 and beyond


@given(policies(), attempts, errors, rolls, seconds)
def test_backoff_answers(
    retry: Retry, attempt: int, error: Exception, roll: float, answer: float
) -> None:
    """A backoff is asked with the attempt and its error; its answer holds as it is."""
    asked: list[tuple[int, Exception]] = []

    def backoff(attempt: int, error: Exception) -> timedelta | float | None:
        asked.append((attempt, error))
        return answer

    own = Retry(5, on=Exception, maximum=0, backoff=backoff)
    assert own.delay_after(attempt, error, roll) == answer
    assert asked == [(attempt, error)]
    none = Retry(5, on=Exception, delay=3, jitter=False, backoff=lambda *_: None)
    assert none.delay_after(1, error, roll) == 3
    minute = Retry(5, on=Exception, backoff=lambda *_: timedelta(minutes=1))
    assert minute.delay_after(1, error, roll) == 60


@given(policies(), attempts, errors, rolls)
def test_decide_about_a_failure(retry: Retry, attempt: int, error: Exception, roll: float) -> None:
    """A failure is tried again exactly if attempts are left and the error is one of `on`."""
    decision = decide(Failed(error), retry, attempt, roll)
    assert isinstance(retry.on, tuple)
    if attempt < retry.attempts and isinstance(error, retry.on):
        assert decision == RetryAfter(retry.delay_after(attempt, error, roll), error)
    else:
        assert decision == Fail(error)
    assert decide(Failed(error), None, attempt, roll) == Fail(error)


@given(st.none() | policies(), attempts, rolls, st.text(), st.booleans())
def test_decide_about_other_ends(
    retry: Retry | None, attempt: int, roll: float, reason: str, expired: bool
) -> None:
    """Success completes and cancellation cancels, whatever the policy and the attempt."""
    value = object()
    assert decide(Succeeded(value), retry, attempt, roll) == Complete(value)
    assert decide(Cancelled(reason, expired), retry, attempt, roll) == Cancel(reason, expired)


@given(policies(), attempts, rolls, st.floats(0.001, 3_600))
def test_decide_about_a_timeout(retry: Retry, attempt: int, roll: float, timeout: float) -> None:
    """A timeout is a failure with JobTimedOut, which is a TimeoutError and so an OSError."""
    decision = decide(TimedOut(timeout), retry, attempt, roll)
    assert isinstance(decision, (Fail, RetryAfter))
    assert isinstance(decision.error, JobTimedOut)
    assert isinstance(decision.error, OSError)
    assert decision.error.timeout == timeout
    wanted = attempt < retry.attempts and retry.wants(decision.error)
    assert isinstance(decision, RetryAfter) is wanted


@given(policies(on=BufferError), attempts, rolls, seconds)
def test_what_jobs_may_ask_for(retry: Retry, attempt: int, roll: float, later: float) -> None:
    """RetryLater needs no match, only attempts; GiveUp fails at once, even if `on` matches it."""
    error = RetryLater(later)
    if attempt < retry.attempts:
        assert decide(Failed(error), retry, attempt, roll) == RetryAfter(later, error)
    else:
        assert decide(Failed(error), retry, attempt, roll) == Fail(error)
    given_up = GiveUp("no use")
    everything = Retry(1_000, on=Exception)
    assert decide(Failed(given_up), everything, attempt, roll) == Fail(given_up)


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, "soon", None, True])
def test_nonsense_asked_for_by_a_job(seconds: Any) -> None:
    """RetryLater with a senseless delay fails the job, with a note about it."""
    error = RetryLater(seconds)
    assert decide(Failed(error), Retry(5, on=BufferError), 1, 0.5) == Fail(error)
    (note,) = error.__notes__
    assert "the retry policy failed" in note


class Metaclass(type):
    """Of a class for which `isinstance` raises."""

    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError("hostile")


class HostileBase(Exception, metaclass=Metaclass):
    """Cannot be asked whether anything is one of it."""


def test_hostile_on() -> None:
    """An exception class that cannot be compared with is no way to take a worker down."""
    error = ValueError("mine")
    outcome: Outcome = Failed(error)
    assert decide(outcome, Retry(5, on=HostileBase), 1, 0.5) == Fail(error)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"attempts": 0}, "Retry.attempts"),
        ({"attempts": 1_001}, "Retry.attempts"),
        ({"attempts": True}, "Retry.attempts"),
        ({"attempts": 2.0}, "Retry.attempts"),
        ({"on": ()}, "Retry.on"),
        ({"on": BaseException}, "Retry.on"),
        ({"on": (ValueError, SystemExit)}, "Retry.on"),
        ({"on": ValueError("an instance")}, "Retry.on"),
        ({"on": "ValueError"}, "Retry.on"),
        ({"delay": -1}, "Retry.delay"),
        ({"delay": math.nan}, "Retry.delay"),
        ({"maximum": math.inf}, "Retry.maximum"),
        ({"maximum": "60"}, "Retry.maximum"),
        ({"factor": 0.5}, "Retry.factor"),
        ({"factor": math.nan}, "Retry.factor"),
        ({"jitter": 1}, "Retry.jitter"),
        ({"backoff": 3}, "Retry.backoff"),
    ],
)
def test_senseless_policies_are_refused(options: dict[str, Any], argument: str) -> None:
    """A wrong option is refused when the policy is made, by its name."""
    good: dict[str, Any] = {"attempts": 3, "on": ValueError}
    with pytest.raises((TypeError, ValueError), match=argument):
        Retry(**{**good, **options})


def test_on_is_required() -> None:
    """What is worth another attempt has no default."""
    with pytest.raises(TypeError, match="on"):
        Retry(3)  # type: ignore[call-arg]


def test_what_makes_a_key_must_make_a_text() -> None:
    """The error says what was to come of the function, not what might have been given in its place."""
    with pytest.raises(TypeError, match=r"given as unique answers must be a str, not 7$"):
        Unique(lambda number: number).key_of((7,), {})
    with pytest.raises(TypeError, match=r"must be a str or a function that makes one, not 7$"):
        Unique(7)  # type: ignore[arg-type]
