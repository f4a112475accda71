"""Listing: one page of the jobs there are, in memory and in the store, newest first."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AsyncExitStack, aclosing
from typing import NamedTuple

from asyncworkers import JobState, Supervisor
from asyncworkers.http.calls import Exposed
from asyncworkers.http.documents import Known
from asyncworkers.http.ledger import Ledger

__all__ = ["Wanted", "page"]


class Wanted(NamedTuple):
    """Which jobs are asked for; None is any."""

    function: str | None
    state: JobState | None
    tag: str | None


async def page(
    supervisor: Supervisor,
    ledger: Ledger,
    functions: Iterable[Exposed],
    wanted: Wanted,
    offset: int,
    limit: int,
) -> tuple[list[Known], bool]:
    """So many of the jobs of these functions after the first `offset`, and whether there are more."""
    sources: list[AsyncGenerator[Known]] = [
        _in_store(supervisor, one, wanted) for one in functions if one.stored
    ]
    if any(not one.stored for one in functions):
        sources.append(_in_memory(ledger, wanted))
    found: list[Known] = []
    async with AsyncExitStack() as stack:
        for source in sources:
            await stack.enter_async_context(aclosing(source))
        newest = await stack.enter_async_context(aclosing(_newest(sources)))
        async for one in newest:
            found.append(one)
            if len(found) > offset + limit:
                break
    return found[offset : offset + limit], len(found) > offset + limit


async def _newest(sources: Iterable[AsyncIterator[Known]]) -> AsyncGenerator[Known]:
    """What several sources have, each newest first, in one such order."""
    heads: list[tuple[Known, AsyncIterator[Known]]] = []
    for source in sources:
        async for one in source:
            heads.append((one, source))
            break
    while heads:
        at = max(range(len(heads)), key=lambda at: heads[at][0].job.created)
        one, source = heads.pop(at)
        yield one
        async for following in source:
            heads.append((following, source))
            break


async def _in_memory(ledger: Ledger, wanted: Wanted) -> AsyncGenerator[Known]:
    for entry in ledger.newest_first():
        job = entry.job
        if (
            wanted.function in (None, entry.function)
            and wanted.state in (None, job.state)
            and (wanted.tag is None or wanted.tag in job.tags)
        ):
            yield Known(entry.id, entry.function, job, stored=False)


async def _in_store(
    supervisor: Supervisor, function: Exposed, wanted: Wanted
) -> AsyncGenerator[Known]:
    jobs = supervisor.stored.jobs(name=function.function.name, state=wanted.state, tag=wanted.tag)
    async with aclosing(jobs):
        async for job in jobs:
            yield Known(job.id, function.name, job, stored=True)
