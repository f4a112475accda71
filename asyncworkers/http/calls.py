"""Calls: which functions may be called by name, and how a body becomes the arguments of one."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import msgspec

from asyncworkers import Job, JobFunction, Secret, Supervisor, _checks
from asyncworkers.errors import SupervisorClosed
from asyncworkers.function import Call
from asyncworkers.store.codec import DEEPEST, FunctionCodec, Parameter, too_deep
from asyncworkers.web.answers import Refused

__all__ = ["Exposed", "exposed", "is_ours", "is_secret"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_read_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Exposed:
    """A function that may be called by `name`; `stored` tells where its jobs live."""

    def __init__(self, name: str, function: JobFunction[..., Any], *, stored: bool) -> None:
        self.name = name
        self.function = function
        self.stored = stored
        self.codec = FunctionCodec(function.function, name)
        self.parameters = {one.name: one for one in self.codec.parameters}
        for one in self.codec.parameters:
            if one.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                raise TypeError(
                    f"expose: {name} takes any number of arguments ({one.name}); a function "
                    "that is called by a name says which it takes"
                )
            trouble = one.trouble or _unreadable(one.annotation)
            if trouble:
                raise TypeError(f"expose: argument {one.name!r} of {name} cannot be read{trouble}")

    def call(self, body: bytes) -> Call[Any]:
        """The call with the arguments that a JSON object names; an empty body names none.

        Raises Refused: 400 for what is no JSON, 422, naming it, for an argument that is not of its
        type, missing, or unknown.
        """
        given = self._read(body)
        for name in given:
            if name not in self.parameters:
                known = _checks.nearest(name, self.parameters) if self.parameters else "none"
                raise _invalid(
                    name, f"{self.name} takes no argument {_checks.shown(name)}; {known}"
                )
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if name in given:
                value = self._decode(parameter, given[name])
            elif parameter.default is not inspect.Parameter.empty:
                value = parameter.default
            else:
                raise _invalid(name, f"argument {name!r} of {self.name} is missing")
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                kwargs[name] = value
            else:
                args.append(value)
        return self.function.bind(*args, **kwargs)

    def _read(self, body: bytes) -> Mapping[str, msgspec.Raw]:
        if too_deep(body):
            raise Refused(400, "BadRequest", f"the body is nested deeper than {DEEPEST} levels")
        try:
            return _read_object(body or b"{}")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            cause = _checks.printable(str(error))[:200]
            raise Refused(
                400, "BadRequest", f"the body must be a JSON object of arguments: {cause}"
            ) from None

    def _decode(self, parameter: Parameter, raw: msgspec.Raw) -> Any:
        try:
            return parameter.decode(raw)
        except Exception as error:  # also what a class of the user's raises
            cause = "it is secret" if parameter.secret else _checks.message(error, 500)
            raise _invalid(
                parameter.name, f"argument {parameter.name!r} of {self.name}: {cause}"
            ) from None


def _unreadable(annotation: Any) -> str:
    """Why no JSON can become what this annotation asks for; empty if it can."""

    def hook(kind: Any) -> dict[str, Any]:
        if hasattr(kind, "model_validate") or is_secret(kind):  # a pydantic model
            return {"title": "readable"}
        raise TypeError(f"no JSON becomes a {kind!r}")

    try:
        msgspec.json.schema_components([annotation], schema_hook=hook)
    except TypeError as error:
        return f": {error}"
    return ""


def _invalid(name: str, message: str) -> Refused:
    return Refused(422, "ValidationError", message, argument=_checks.printable(name)[:128])


def exposed(
    supervisor: Supervisor,
    functions: Mapping[str, Callable[..., Any]] | Iterable[Callable[..., Any]],
) -> dict[str, Exposed]:
    """The functions by the names under which they may be called.

    Raises TypeError or ValueError for what is no function, a name that fits in no address or is given
    twice, a function that takes what has no name or no type that JSON can be read by, and one whose
    jobs this supervisor could not take.
    """
    found: dict[str, Exposed] = {}
    for name, given in _named(functions):
        function = _job_function(given)
        word = function.name if name is None else _checks.text("a name in expose", name)
        if not _NAME.fullmatch(word):
            raise ValueError(
                f"expose: a function is called by a name that matches {_NAME.pattern}, not "
                f"{_checks.shown(word)}: expose={{'name': function}}"
            )
        if word in found:
            raise ValueError(f"expose holds two functions of the name {word!r}")
        found[word] = Exposed(word, function, stored=_is_stored(supervisor, function))
    if not found:
        raise ValueError("expose must hold a function at least: nothing could be submitted")
    return found


def _named(functions: Any) -> Iterable[tuple[str | None, Any]]:
    if isinstance(functions, Mapping):
        return cast("Mapping[str, Any]", functions).items()
    accepted = "an iterable of functions, or a mapping of names to functions"
    return [(None, one) for one in _checks.iterable("expose", functions, accepted)]


def _job_function(given: Any) -> JobFunction[..., Any]:
    if isinstance(given, JobFunction):
        return cast("JobFunction[..., Any]", given)
    try:
        return JobFunction(given, {})
    except TypeError as error:
        shown = _checks.shown(given)
        raise TypeError(f"expose must hold functions, not {shown}: {error}") from None


def _is_stored(supervisor: Supervisor, function: JobFunction[..., Any]) -> bool:
    queues = {queue.name: queue for queue in supervisor.queues}
    queue = queues.get(function.policies.queue)
    if queue is None:
        hint = _checks.nearest(function.policies.queue, queues)
        raise ValueError(
            f"expose: the supervisor has no queue {function.policies.queue!r} "
            f"for {function.name}: {hint}"
        )
    if queue.stored is False or not _has_store(supervisor):
        return False
    if all(one.function is not function.function for one in supervisor.functions):
        raise ValueError(
            f"expose: jobs of {function.name} would be stored, and it is not among the "
            "functions of the supervisor: Supervisor(functions=[...])"
        )
    return True


def _has_store(supervisor: Supervisor) -> bool:
    try:
        return bool(supervisor.stored)
    except ValueError:
        return False
    except SupervisorClosed:  # it has one, and was not entered yet
        return True


def is_secret(annotation: Any) -> bool:
    """Whether this is the annotation of a secret."""
    return annotation is Secret or typing.get_origin(annotation) is Secret


def is_ours(job: Job[Any], function: Exposed) -> bool:
    """Whether a job in a store is one of this function."""
    return job.name == function.function.name
