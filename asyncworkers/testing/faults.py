"""Makes the n-th call fail, before or after it took effect, for one n or for every n in turn.

The question is SQLite's: what if this very call fails? `FaultInjector` counts the calls of
everything it wraps and fails one of them. `sweep` asks the question for the first call, then the
second and so on, both ways, until a run meets no fault any more. So every call is tried once.

- `"before"`: the call fails and had no effect; the wrapped function was not called at all.
- `"after"`: the call took effect and its answer was lost, as when a connection breaks between a
  commit and its acknowledgment. Whoever called cannot tell the difference.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar, cast

__all__ = ["FaultInjector", "InjectedFault", "sweep", "sweep_async"]

P = ParamSpec("P")
T = TypeVar("T")
Object = TypeVar("Object")

When: TypeAlias = Literal["before", "after"]
SWEEP_LIMIT = 10_000


class InjectedFault(Exception):
    """The fault that a FaultInjector injects unless it is told another."""


class FaultInjector:
    """Counts the calls of what it wraps and fails one of them.

    - `fail_at`: the number of the call to fail, from 1, counted over everything wrapped; None
      fails none and only counts.
    - `when`: `"before"` the call or `"after"` it, see above. A call that raises by itself has no
      "after".
    - `error`: what to raise: an exception class, which is called with a message that names the
      call, or an exception.

    May be used from several threads. One injector is good for one run.
    """

    def __init__(
        self,
        fail_at: int | None = None,
        *,
        when: When = "before",
        error: BaseException | type[BaseException] = InjectedFault,
    ) -> None:
        if fail_at is not None and fail_at < 1:
            raise ValueError(f"fail_at counts calls from 1, so it cannot be {fail_at!r}")
        if when not in ("before", "after"):
            raise ValueError(f"when must be 'before' or 'after', not {when!r}")
        self.fail_at = fail_at
        self.when: When = when
        self._error = error
        self._lock = threading.Lock()
        self._calls = 0
        self._failed: str | None = None

    @property
    def calls(self) -> int:
        """How many calls there were so far, the failed one included."""
        return self._calls

    @property
    def failed(self) -> str | None:
        """The name of the call that was failed, or None if none was."""
        return self._failed

    def wrap(self, function: Callable[P, T], name: str | None = None) -> Callable[P, T]:
        """Return the function, synchronous or not, with its calls counted and one of them failed.

        A call of an `async def` function counts when its coroutine begins to run. `name` is for
        messages; without it the function's own is used.
        """
        label = name or getattr(function, "__qualname__", None) or repr(function)
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, T]", self._wrap_async(function, label))

        @functools.wraps(function)
        def faulty(*args: P.args, **kwargs: P.kwargs) -> T:
            number = self._count()
            self._fail(number, "before", label)
            value = function(*args, **kwargs)
            self._fail(number, "after", label)
            return value

        return faulty

    def _wrap_async(
        self, function: Callable[..., Awaitable[Any]], label: str
    ) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(function)
        async def faulty(*args: Any, **kwargs: Any) -> Any:
            number = self._count()
            self._fail(number, "before", label)
            value = await function(*args, **kwargs)
            self._fail(number, "after", label)
            return value

        return faulty

    def wrap_object(self, target: Object, methods: Iterable[str]) -> Object:
        """Return a stand-in for the object whose named methods are wrapped.

        Everything else is the object's own. `isinstance` holds for the stand-in too, but what
        the object's own methods call on `self` is not wrapped: for that there is `planted`.
        Raises AttributeError if there is no such method.
        """
        kind = type(target).__name__
        wrapped = {name: self.wrap(getattr(target, name), f"{kind}.{name}") for name in methods}
        return cast("Object", _StandIn(target, wrapped))

    @contextlib.contextmanager
    def planted(self, owner: Any, *names: str) -> Generator[None]:
        """Wrap attributes of an object, a class or a module in place, as long as the block lasts.

            with FaultInjector(fail_at=2).planted(os, "fsync"): ...

        Raises AttributeError if there is no such attribute.
        """
        with contextlib.ExitStack() as stack:
            for name in names:
                found: Any = inspect.getattr_static(owner, name)
                if not inspect.isclass(owner):
                    function = getattr(owner, name)
                elif isinstance(found, (staticmethod, classmethod, property)):
                    raise TypeError(f"cannot plant a fault in {name!r}, which is no plain function")
                else:
                    function = found
                if name in getattr(owner, "__dict__", {}):
                    stack.callback(setattr, owner, name, found)
                else:  # inherited, or of the instance's class
                    stack.callback(delattr, owner, name)
                setattr(owner, name, self.wrap(function))
            yield

    def _count(self) -> int:
        with self._lock:
            self._calls += 1
            return self._calls

    def _fail(self, number: int, when: When, label: str) -> None:
        if number != self.fail_at or when != self.when:
            return
        self._failed = label
        if isinstance(self._error, type):
            raise self._error(f"injected fault: call {number}, {label}, {when} it took effect")
        raise self._error

    def __repr__(self) -> str:
        plan = "counts only" if self.fail_at is None else f"fails call {self.fail_at} {self.when}"
        fact = f", failed {self._failed}" if self._failed else ""
        return f"<FaultInjector {plan}: {self._calls} calls{fact}>"


class _StandIn:
    """Answers for another object, but for a few methods."""

    def __init__(self, target: object, methods: dict[str, Callable[..., Any]]) -> None:
        self.__dict__.update(methods)
        self.__dict__["_target"] = target

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.__dict__["_target"].__class__

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_target"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_target"], name, value)

    def __repr__(self) -> str:
        return f"<{self.__dict__['_target']!r} with injected faults>"


def sweep(
    run: Callable[[FaultInjector], object],
    *,
    error: BaseException | type[BaseException] = InjectedFault,
) -> int:
    """Call `run(faults)` with an injector for each call in turn, until a run meets no fault.

    `run` wraps with the injector what is to fail, does its work, and raises if something is wrong
    afterwards; that is raised here, with a note on which call had failed. The last run meets no
    fault and must be right as well. Returns how many faults were injected.

    Raises ValueError if no run called anything wrapped, for then nothing was tried, and
    RuntimeError if there is no end after 10,000 calls.

        def run(faults):
            store = faults.wrap_object(Store(), ["put", "get"])
            ...
            assert store.is_consistent()

        assert sweep(run) > 0
    """
    injected = 0
    for faults in _injectors(error):
        try:
            answer = run(faults)
        except BaseException as raised:
            raised.add_note(f"in the run with {faults!r}")
            raise
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise TypeError("run is asynchronous: await sweep_async(run)")
        injected += faults.failed is not None
    return injected


async def sweep_async(
    run: Callable[[FaultInjector], Awaitable[object]],
    *,
    error: BaseException | type[BaseException] = InjectedFault,
) -> int:
    """As `sweep`, for a `run` that is awaited."""
    injected = 0
    for faults in _injectors(error):
        try:
            await run(faults)
        except BaseException as raised:
            raised.add_note(f"in the run with {faults!r}")
            raise
        injected += faults.failed is not None
    return injected


def _injectors(error: BaseException | type[BaseException]) -> Iterator[FaultInjector]:
    for number in range(1, SWEEP_LIMIT + 1):
        for when in ("before", "after"):
            faults = FaultInjector(number, when=when, error=error)
            yield faults
            if when == "before" and faults.failed is None:
                if number == 1:
                    raise ValueError("the run called nothing that the injector had wrapped")
                return
    raise RuntimeError(f"the sweep did not end: a run makes more than {SWEEP_LIMIT} calls")
