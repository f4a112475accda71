"""A Secret carries a value that no display shows: a password goes to its job and into no log."""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar, cast

__all__ = ["MASK", "Secret"]

T_co = TypeVar("T_co", covariant=True)

MASK = "***"
"""What stands where something is not shown."""


class Secret(Generic[T_co]):
    """A value that is masked wherever it could be seen: `submit(log_in, Secret(password))`.

    The job takes it as `password: Secret[str]` and calls `password.reveal()` where it needs the
    value. Its `repr` and `str` are a mask, so that it shows in no log, error, event, dashboard or
    traceback, also as a part of something else. It goes to threads and processes as any other
    argument. In a store the value itself is kept, marked as secret, for the job must get it: who may
    read the store may read it. What the job reveals and then prints or raises is its own doing.

    Frozen. Equal to another one if their values are equal, hashable if its value is.
    """

    __slots__ = ("_value",)
    _value: T_co

    def __init__(self, value: T_co) -> None:
        object.__setattr__(self, "_value", value)

    def reveal(self) -> T_co:
        """The value."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Secret):
            return bool(self._value == cast("Secret[Any]", other)._value)
        return NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> tuple[Any, ...]:
        return Secret, (self._value,)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Secret is frozen: {name!r} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Secret is frozen: {name!r} cannot be deleted")
