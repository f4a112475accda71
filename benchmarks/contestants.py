"""What a contestant is, and the list of all of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any, Literal, TypeAlias

Work: TypeAlias = Callable[[int], Coroutine[Any, Any, int]]
"""The function of every job: it is given its number and returns it."""

Kind: TypeAlias = Literal["reference", "ours", "peer", "extra"]
"""An extra has no row in the table: other measurements compare with it."""

request: ContextVar[int] = ContextVar("request")
"""What web frameworks have many of: set anew before each job, where a row says so."""


@dataclass(frozen=True, slots=True)
class Pool:
    """An open contestant, its workers started.

    `burst(work, count)` runs jobs 0 to count - 1 and returns their results in order (a contestant
    without results returns nothing). `call(work, number)` submits one job and waits for it; where
    the library has no such thing it is None.
    """

    burst: Callable[[Work, int], Awaitable[Sequence[int] | None]]
    call: Callable[[Work, int], Awaitable[int]] | None = None


Open: TypeAlias = Callable[[int], AbstractAsyncContextManager[Pool]]
Batch: TypeAlias = Callable[[Work, int, int], Coroutine[Any, Any, Sequence[int] | None]]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One row of the table. `open(workers)` gives its pool, outside of the measured time."""

    name: str
    kind: Kind
    open: Open
    distribution: str | None = None

    @property
    def version(self) -> str | None:
        """The installed version of what it needs: "" if it needs nothing, None if it is missing."""
        if self.distribution is None:
            return ""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return None


_all: dict[str, Contestant] = {}


def pool(name: str, kind: Kind, distribution: str | None = None) -> Callable[[Open], Open]:
    """Enter a contestant that keeps workers between jobs."""

    def enter(open_pool: Open) -> Open:
        _all[name] = Contestant(name, kind, open_pool, distribution)
        return open_pool

    return enter


def batch(name: str, kind: Kind, distribution: str | None = None) -> Callable[[Batch], Batch]:
    """Enter a contestant that is one call: `await run(work, count, workers)`."""

    def enter(run: Batch) -> Batch:
        @asynccontextmanager
        async def open_pool(workers: int) -> AsyncGenerator[Pool, None]:
            yield Pool(lambda work, count: run(work, count, workers))

        _all[name] = Contestant(name, kind, open_pool, distribution)
        return run

    return enter


def contestants() -> dict[str, Contestant]:
    """All contestants by name, in the order of the table."""
    for module in ("references", "ours", "peers"):
        import_module(f"benchmarks.{module}")
    kinds: list[Kind] = ["ours", "reference", "peer", "extra"]
    return {one.name: one for one in sorted(_all.values(), key=lambda one: kinds.index(one.kind))}
