"""Every store of ours does what every store must do."""

import functools

import pytest

from asyncworkers.store.memory import MemoryData, MemoryStore
from asyncworkers.store.sqlite import SqliteStore
from asyncworkers.testing import no_leaks
from asyncworkers.testing.check_store import check_name, check_store, store_checks

OTHERS = ("shared memory *",)
"""Stores make none: what comes and goes there meanwhile is of other programs."""


def memory(tmp_path):
    """Return what makes stores in memory."""
    return lambda clock: functools.partial(MemoryStore, MemoryData(clock))


def sqlite(tmp_path):
    """Return what makes stores in a SQLite file."""
    return lambda clock: functools.partial(SqliteStore, tmp_path / "jobs.db", clock=clock)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [memory, sqlite], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("check", store_checks(), ids=check_name)
async def test_store_does_what_a_store_must(check, kind, tmp_path):
    """The store passes the check and leaves no task, thread or file behind."""
    async with no_leaks(ignore=OTHERS):
        await check(kind(tmp_path))


@pytest.mark.asyncio
async def test_all_checks_run_at_once(tmp_path):
    """`check_store` runs every check, and names the one that fails."""
    await check_store(memory(tmp_path))

    class Forgetful(MemoryStore):
        async def get(self, ids):
            return [None for _ in ids]

    with pytest.raises(AssertionError) as failed:
        await check_store(lambda clock: functools.partial(Forgetful, MemoryData(clock)))
    assert "a_job_is_stored_leased_settled_and_read" in failed.value.__notes__[-1]
