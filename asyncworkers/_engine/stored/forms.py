"""Forms: what a supervisor knows of each function whose jobs it stores, and how it writes a call down."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from datetime import datetime
from typing import Any, cast

from asyncworkers import _checks
from asyncworkers.function import JobFunction, Policies
from asyncworkers.job import Home, Order
from asyncworkers.signed import SignedPickle
from asyncworkers.store.clock import Ids
from asyncworkers.store.codec import FunctionCodec
from asyncworkers.store.protocol import CODEC, Submission, Unique

__all__ = ["Form", "Forms", "Listed", "listed", "written_for"]


class Listed:
    """A function that was listed: what its jobs run as here, under the name they have in the store.

    `runs` holds the order of its leased jobs by queue.
    """

    __slots__ = ("codec", "function", "known", "name", "policies", "runs")

    def __init__(self, function: JobFunction[..., Any]) -> None:
        self.function = function.function
        self.policies = function.policies
        self.name = function.name
        self.codec = FunctionCodec(self.function, self.name)
        retry = self.policies.retry
        self.known: tuple[type[Exception], ...] = () if retry is None else retry.on
        self.runs: dict[str, Order] = {}


def written_for(known: Listed, signed: SignedPickle, queue: str, ident: str) -> Listed:
    """The same function, for one job of a queue whose jobs are pickled."""
    from asyncworkers.store.pickled import PickledCodec

    one = copy(known)
    one.codec = PickledCodec(known.codec, signed, queue, ident)
    return one


def _check_context(where: str, function: JobFunction[..., Any]) -> None:
    """Raise ValueError if the function's jobs are to see context variables of who submits them."""
    if function.policies.context not in ("submitter", "none"):
        raise ValueError(
            f"{where}context= of {function.name} names context variables, "
            "which are not stored: pass what the job needs as arguments"
        )


def listed(functions: Iterable[Any]) -> dict[str, Listed]:
    """The listed functions by name.

    Raises TypeError for what is no function, ValueError for two of one name, and for options that no
    store can keep.
    """
    found: dict[str, Listed] = {}
    for one in _checks.iterable("functions", functions):
        function = cast(
            "JobFunction[..., Any]", one if isinstance(one, JobFunction) else JobFunction(one, {})
        )
        _checks.function_name("the name of a stored function", function.name)
        _check_context("functions: ", function)
        there = found.get(function.name)
        if there is not None:
            raise ValueError(
                f"functions hold two of the name {function.name!r}: "
                'give one of them another, @job(name="...")'
            )
        found[function.name] = Listed(function)
    return found


class Form:
    """What the submissions of one JobFunction have in common."""

    __slots__ = ("listed", "order", "ordinary", "policies", "queue", "signed")

    def __init__(
        self, known: Listed, policies: Policies, home: Home, signed: SignedPickle | None
    ) -> None:
        self.listed = known
        self.signed = signed
        self.policies = policies
        self.queue = home.name
        self.order = Order(home, policies, known.function)
        self.ordinary = policies.simple and policies.for_stores is None and signed is None

    def fill(
        self,
        ident: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        wall: Callable[[], float],
    ) -> Submission:
        """A call, written down.

        Raises TypeError if the function does not take these arguments, NotSerializable if one of
        them cannot be stored, and what a function given as `unique` raises.
        """
        policies, known, codec = self.policies, self.listed, CODEC
        if self.ordinary:
            text = known.codec.encode_arguments(args, kwargs)
            return Submission(ident, self.queue, known.name, text, tags=policies.tags)
        if self.signed is not None:
            known, codec = written_for(known, self.signed, self.queue, ident), "pickle/1"
        text = known.codec.encode_arguments(args, kwargs)
        delay, due = 0.0, None
        if isinstance(policies.delay, datetime):
            due = max(policies.delay.timestamp(), wall())
        elif policies.delay is not None:
            delay = policies.delay
        unique = policies.unique
        return Submission(
            ident,
            self.queue,
            self.listed.name,
            text,
            codec,
            priority=policies.priority,
            delay=delay,
            due=due,
            expires=policies.expires,
            once=policies.once,
            unique=None
            if unique is None
            else Unique(
                f"{self.listed.name}:{unique.key_of(args, dict(kwargs))}",
                unique.until,
                unique.on_duplicate,
            ),
            keep=policies.keep,
            tags=policies.tags,
        )


class Forms:
    """Finds the form of whatever is submitted."""

    def __init__(
        self,
        functions: dict[str, Listed],
        home_for: Callable[[Policies], Home],
        wall: Callable[[], float],
        dice: Any,
        signed: Mapping[str, SignedPickle],
    ) -> None:
        self._functions = functions
        self._signed = signed
        self._home_for = home_for
        self._wall = wall
        self._ids = Ids(wall, dice)
        self._last: tuple[object, Form | None] = (object(), None)
        self._forms: weakref.WeakKeyDictionary[JobFunction[..., Any], Form]
        self._forms = weakref.WeakKeyDictionary()
        self._plain: dict[Any, Form] = {}

    def __contains__(self, function: Any) -> bool:
        """Whether calls of this function were written before."""
        return function is self._last[0] or (
            type(function) is JobFunction and function in self._forms
        )

    def write(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], ident: str | None
    ) -> tuple[Form, Submission]:
        """The form of a call, and the call written down, under a new id if it has none."""
        last, form = self._last
        if form is None or last is not function:
            form = self.form(function)
            self._last = function, form
        return form, form.fill(ident or self._ids.new(), args, kwargs, self._wall)

    def form(self, function: Any) -> Form:
        """The form of a function. Raises ValueError for one that is not listed, or was given options
        that its stored jobs cannot have.
        """
        if not isinstance(function, JobFunction):
            form = self._plain.get(function)
            if form is None:
                form = self._plain[function] = self._make(JobFunction(function, {}))
            return form
        known = cast("JobFunction[..., Any]", function)
        form = self._forms.get(known)
        if form is None:
            form = self._forms[known] = self._make(known)
        return form

    def _make(self, function: JobFunction[..., Any]) -> Form:
        known = self._functions.get(function.name)
        if known is None or known.function != function.function:
            names = _checks.nearest(function.name, self._functions) if self._functions else ""
            raise ValueError(
                f"{function.name} is not among the functions of this supervisor, so nobody who has "
                f"only its store could run it: Supervisor(functions=[...]); {names or 'it has none'}"
            )
        mine, theirs = function.policies, known.policies
        for option in ("retry", "timeout"):
            if getattr(mine, option) != getattr(theirs, option):
                raise ValueError(
                    f"{option}= of a stored job is that of the listed function, whoever runs it: "
                    f"list {function.name} with it, or a variant of another name"
                )
        _check_context("", function)
        home = self._home_for(mine)
        return Form(known, mine, home, self._signed.get(home.name))
