"""A JobFunction is a function with its policies; calling it still calls the function."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import (
    Any,
    Generic,
    Literal,
    ParamSpec,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from asyncworkers import _checks
from asyncworkers._arity import OF_JOBS, arity_of
from asyncworkers.policies import Retry, Unique

__all__ = ["Call", "JobFunction", "Options", "Policies", "job", "policies_of"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Duration: TypeAlias = float | timedelta


class Options(TypedDict, total=False):
    """What `@job(...)` and `.options(...)` accept; every one is optional.

    - `name`: shown in logs and events; the function's qualified name otherwise.
    - `queue`: the queue the job goes to: "default" for `async def`, "threads" for `def`, "processes"
      for `def` with `cpu=True`.
    - `cpu`: True for a `def` function that computes: its jobs run in processes.
    - `retry`: a `Retry`; without one a job runs once.
    - `timeout`: seconds an attempt may take, counted from its start.
    - `expires`: seconds after submission at which a job that is not running is given up.
    - `priority`: -100 to 100, higher runs sooner; 0 otherwise.
    - `delay`: seconds to wait before the first attempt, or an aware datetime to wait for.
    - `tags`: up to 16 short texts to find jobs by.
    - `once`: True: at most one attempt is ever begun, also if its process dies. For stored jobs.
    - `unique`: a text, a function of the arguments that makes one, or a `Unique`: at most one such
      job exists at a time. For stored jobs.
    - `keep`: seconds for which a result can be read; None means as long as the store says, a day
      by itself. For stored jobs.
    - `context`: "submitter" (a snapshot of the submitter's context variables), "none", or the
      context variables to take from there.
    """

    name: str | None
    queue: str | None
    cpu: bool
    retry: Retry | None
    timeout: Duration | None
    expires: Duration | None
    priority: int
    delay: Duration | datetime | None
    tags: Iterable[str]
    once: bool
    unique: str | Callable[..., str] | Unique | None
    keep: Duration | None
    context: Literal["submitter", "none"] | tuple[ContextVar[Any], ...]


class Policies:
    """All that is decided about a function's jobs before they are submitted; frozen by custom.

    `simple` folds the questions of the path into the queue into one: true if the job is like most
    others there, and starts as soon as a worker is free.
    """

    __slots__ = (
        "blocking",
        "context",
        "cpu",
        "delay",
        "expires",
        "for_stores",
        "keep",
        "name",
        "once",
        "priority",
        "queue",
        "retry",
        "sets_context",
        "simple",
        "tags",
        "timeout",
        "unique",
    )

    def __init__(self, name: str | None, blocking: bool, options: Options) -> None:
        get = options.get
        self.blocking = blocking
        given = get("name")
        self.name: str | None = name if given is None else _checks.function_name("name", given)
        queue = get("queue")
        self.cpu = _checks.flag("cpu", get("cpu", False))
        if self.cpu and not blocking:
            raise TypeError(
                f"cpu=True is for def functions: {self.name} is async def, and runs on the loop"
            )
        default = "processes" if self.cpu else "threads" if blocking else "default"
        self.queue: str = default if queue is None else _checks.queue_name("queue", queue)
        self.retry = _optional_retry(get("retry"))
        self.timeout = _optional_duration("timeout", get("timeout"))
        self.expires = _optional_duration("expires", get("expires"))
        self.priority = _checks.whole("priority", get("priority", 0), -100, 100)
        delay = get("delay")
        self.delay = None if delay is None else _checks.moment_or_duration("delay", delay)
        self.tags = _checks.tags("tags", get("tags", ()))
        self.once = _checks.flag("once", get("once", False))
        if self.once and self.retry is not None and self.retry.attempts > 1:
            raise ValueError(
                "once=True is for jobs that run at most once: they cannot have a retry"
            )
        self.unique = _unique(get("unique"))
        keep = get("keep")
        self.keep = None if keep is None else _checks.duration("keep", keep)
        # The option, if any, that only means something to a store.
        asked = {"once": self.once, "unique": self.unique is not None, "keep": keep is not None}
        self.for_stores: str | None = next((word for word, given in asked.items() if given), None)
        self.context = _context(get("context", "submitter"))
        # A hint, learned while running: the function changes context variables, so its jobs
        # had better get a context of their own at once.
        self.sets_context = False
        self.simple = self.delay is None and self.expires is None and self.priority == 0


def _optional_retry(value: Any) -> Retry | None:
    if value is not None and not isinstance(value, Retry):
        raise TypeError(f"retry must be a Retry, not {_checks.shown(value)}")
    return value


def _optional_duration(argument: str, value: Any) -> float | None:
    return None if value is None else _checks.duration(argument, value, zero=False)


def _unique(value: Any) -> Unique | None:
    return value if value is None or isinstance(value, Unique) else Unique(value)


def _context(value: Any) -> Literal["submitter", "none"] | tuple[ContextVar[Any], ...]:
    if isinstance(value, tuple):
        wanted = cast("tuple[object, ...]", value)
        if all(isinstance(var, ContextVar) for var in wanted):
            return cast("tuple[ContextVar[Any], ...]", wanted)
    elif type(value) is str and value in ("submitter", "none"):
        return "none" if value == "none" else "submitter"
    raise TypeError(
        f'context must be "submitter", "none" or a tuple of ContextVar, not {_checks.shown(cast("object", value))}'
    )


class NoOrder:
    """Stands for the order of a function that has not been submitted anywhere."""

    gate = None


class JobFunction(Generic[P, R]):
    """A function and the policies of its jobs, as made by `@job`. Immutable.

    Calling it calls the function, directly and without any policy. Hand it to `submit`, `call`
    or `map` to make jobs of it.
    """

    def __init__(self, function: Callable[P, R], options: Options) -> None:
        blocking, name = _look_at(function)
        _check_names(options)
        self.function = function
        self.policies = Policies(name, blocking, options)
        self._options = options
        # Where it was submitted last, and what its jobs there have in common: one supervisor is
        # the rule, and finding this anew would cost each job.
        self.last_hub: object = None
        self.last_order: Any = NoOrder
        functools.update_wrapper(cast("Any", self), function, updated=())

    @property
    def name(self) -> str:
        """The name its jobs have in logs, events and errors."""
        return self.policies.name or "job"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself: no job, no queue, no policy."""
        return self.function(*args, **kwargs)

    def options(self, **options: Unpack[Options]) -> JobFunction[P, R]:
        """The same function with some options changed; the original stays as it is.

        Raises TypeError or ValueError for an option that does not exist or a senseless value.
        """
        return JobFunction(self.function, cast("Options", {**self._options, **options}))

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """One call with these arguments, to hand to `submit` later. Raises TypeError at once
        if the function does not take them.
        """
        arity_of(self.function).check(self.name, args, kwargs)
        return Call(self, args, kwargs)

    def __set_name__(self, owner: type, name: str) -> None:
        raise TypeError(
            f"@job does not work on methods ({owner.__name__}.{name}): submit the bound method, "
            "as in submit(instance.method), or job(instance.method) to give it policies"
        )

    def __repr__(self) -> str:
        return f"<JobFunction {self.name} on queue {self.policies.queue!r}>"


_OPTIONS = frozenset(Options.__annotations__)
OF_JOBS.update(_OPTIONS)


def _check_names(options: Options) -> None:
    unknown = set(options) - _OPTIONS
    if unknown:
        word = min(unknown)
        raise TypeError(f"unknown option {word!r}: {_checks.nearest(word, _OPTIONS)}")


class Call(Generic[R_co]):
    """A JobFunction with the arguments of one call, made by `JobFunction.bind`."""

    __slots__ = ("args", "function", "job_id", "kwargs")

    def __init__(
        self,
        function: JobFunction[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        job_id: str | None = None,
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.job_id = job_id

    def with_id(self, job_id: str) -> Call[R_co]:
        """The same call under an id of your own, of 1 to 128 printable characters.

        To submit one id again does nothing: the job there is, is the answer. So a `submit` that
        was cancelled, or has raised StoreUnavailable, can be repeated safely. For stored jobs.
        """
        return Call(self.function, self.args, self.kwargs, _checks.job_id("job_id", job_id))

    def __repr__(self) -> str:
        named = "" if self.job_id is None else f" with id {self.job_id!r}"
        return f"<Call of {self.function.name}{named}>"


@overload
def job(function: Callable[P, R], /, **options: Unpack[Options]) -> JobFunction[P, R]: ...
@overload
def job(**options: Unpack[Options]) -> Callable[[Callable[P, R]], JobFunction[P, R]]: ...
def job(function: Any = None, /, **options: Unpack[Options]) -> Any:
    """Make a JobFunction: `@job`, `@job(timeout=30)` or `job(function, timeout=30)`.

    `async def` functions run on the event loop, `def` functions in threads, or in processes with
    `cpu=True`. `Options` lists what
    may be given. Raises TypeError or ValueError, naming the option, and for what is no function.
    """
    if function is None:
        _check_names(options)
        Policies(None, True, options)  # what is wrong with them is said here, not at the function
        return functools.partial(JobFunction[..., Any], options=options)
    return JobFunction(function, options)


if sys.version_info < (3, 12):
    _is_coroutine_function = asyncio.iscoroutinefunction
else:
    _is_coroutine_function = inspect.iscoroutinefunction
"""Whether this is an `async def`, or is marked as one, as a mock is, or a wrapper that says so."""

_COROUTINE = inspect.CO_COROUTINE
_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
PLAIN_COROUTINE = Policies(None, False, {})
PLAIN_BLOCKING = Policies(None, True, {})


def policies_of(function: Any) -> Policies:
    """The policies of a function submitted without `@job`: those of its kind, shared by all.

    Raises TypeError for what cannot be run as a job.
    """
    if type(function) is types.FunctionType:  # the common case costs one look at the flags
        flags = function.__code__.co_flags
        if flags & (_COROUTINE | _GENERATOR) == _COROUTINE:
            return PLAIN_COROUTINE
        if not flags & _GENERATOR and not function.__dict__:  # where a mark would be
            return PLAIN_BLOCKING
    blocking, _ = _look_at(function)
    return PLAIN_BLOCKING if blocking else PLAIN_COROUTINE


def name_of(function: Any) -> str:
    """A printable name for any callable; an object's is that of its class."""
    while type(function) is functools.partial:
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return _checks.printable(str(name).replace("<locals>.", ""))[:128]


def _look_at(function: Any) -> tuple[bool, str]:
    """Whether calling it blocks, and its name; raises TypeError if it makes no job."""
    if inspect.iscoroutine(function):
        function.close()
        raise TypeError(
            "a job needs the function, not its coroutine: write submit(f, x), not submit(f(x))"
        )
    if isinstance(function, (JobFunction, Call)):
        raise TypeError(
            f"expected a function, not {_checks.shown(cast('object', function))}: "
            "change it with .options(...)"
        )
    if isinstance(function, type):
        raise TypeError(f"a job must be a function, not the class {function.__qualname__}")
    if not callable(function):
        raise TypeError(f"a job must be a function, not {_checks.shown(function)}")
    inner: Any = function
    while type(inner) is functools.partial:
        inner = inner.func
    if not inspect.isroutine(inner) and not isinstance(inner, types.FunctionType):
        inner = type(inner).__call__
    if inspect.isasyncgenfunction(inner) or inspect.isgeneratorfunction(inner):
        raise TypeError(f"a job must return one value; {name_of(function)} is a generator function")
    blocking = not (_is_coroutine_function(inner) or _is_coroutine_function(function))
    return blocking, name_of(function)
