"""Items of a map that share a job on their way to a process: nothing of that is to be seen."""

import asyncio
import gc
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import bridge_jobs
import chunk_jobs
import pytest
import pytest_asyncio

from asyncworkers import Job, JobFailed, NotSerializable, Retry, Supervisor, WorkerCrashed, job
from asyncworkers._engine import sent
from asyncworkers._engine.chunks import Chunks

pytestmark = pytest.mark.asyncio

MANY = 5_000


@pytest_asyncio.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    """A supervisor of two processes."""
    async with Supervisor(processes=2) as supervisor:
        yield supervisor


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each chunk held."""
    found: list[int] = []
    next_job = Chunks.next_job

    def noted(self: Chunks) -> Any:
        made = next_job(self)
        found.append(len(made.args[0]))
        return made

    monkeypatch.setattr(Chunks, "next_job", noted)
    return found


async def test_a_list_in_order(supervisor: Supervisor, sizes: list[int]) -> None:
    """Quick items come back each in its place, having crossed many at a time."""
    assert await supervisor.map(chunk_jobs.double, range(MANY), cpu=True) == list(
        range(0, 2 * MANY, 2)
    )
    assert sum(sizes) == MANY
    assert max(sizes) > 8
    stats = supervisor.stats().queues["processes"]
    assert (stats.succeeded, stats.failed, stats.queued, stats.running) == (MANY, 0, 0, 0)


async def test_one_by_one(supervisor: Supervisor, sizes: list[int]) -> None:
    """The loop sees values one by one, in the order of the items or as they come."""
    seen = [value async for value in supervisor.map(chunk_jobs.double, range(MANY), cpu=True)]
    assert seen == list(range(0, 2 * MANY, 2))
    stream = supervisor.map(chunk_jobs.double, range(MANY), ordered=False, cpu=True)
    assert sorted([value async for value in stream]) == seen
    assert max(sizes) > 8


async def test_items_count_while_they_cross(sizes: list[int]) -> None:
    """Every item that was taken is counted, those of a chunk under way one by one."""
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(MANY):
            taken += 1
            yield item

    async with Supervisor(processes=2) as supervisor:
        async for _ in supervisor.map(chunk_jobs.double, items(), cpu=True):
            assert supervisor.stats().queues["processes"].submitted == taken
    assert taken == MANY
    assert max(sizes) > 8


async def test_items_from_an_asynchronous_iterable(supervisor: Supervisor) -> None:
    """Items that come one by one cross as they come."""

    async def items() -> AsyncIterator[int]:
        for item in range(500):
            yield item

    assert await supervisor.map(chunk_jobs.double, items(), cpu=True) == list(range(0, 1000, 2))


async def test_an_infinite_iterable(supervisor: Supervisor) -> None:
    """No more is taken from the iterable than is on its way, and leaving early ends it."""
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    async with supervisor.map(chunk_jobs.double, items(), cpu=True) as stream:
        async for value in stream:
            if value >= 2 * MANY:
                break
    assert taken < MANY + 100_000
    assert await supervisor.map(chunk_jobs.double, [1], cpu=True) == [2]


async def test_a_given_window_holds(supervisor: Supervisor, sizes: list[int]) -> None:
    """A window that was asked for bounds chunks as well."""
    stream = supervisor.map(chunk_jobs.double, range(MANY), window=10, cpu=True)
    assert [value async for value in stream] == list(range(0, 2 * MANY, 2))
    assert max(sizes) <= 10


async def test_an_item_that_fails(supervisor: Supervisor) -> None:
    """What precedes it is seen, its error is raised and says which it was, and nothing after it is seen."""
    seen: list[int] = []
    with pytest.raises(ValueError, match="777") as caught:
        async for value in supervisor.map(chunk_jobs.double_but_not, range(MANY), cpu=True):
            seen.append(value)
    assert seen == list(range(0, 2 * 777, 2))
    assert "double_but_not" in str(caught.value.__cause__)
    with pytest.raises(ValueError, match="777") as caught:
        await supervisor.map(chunk_jobs.double_but_not, range(MANY), cpu=True)
    assert caught.value.__notes__ == ["item 777 of its map, counted from 0"]
    stats = supervisor.stats().queues["processes"]
    assert stats.submitted == stats.succeeded + stats.failed + stats.cancelled
    assert stats.failed == 2


@pytest.mark.parametrize(
    "function", [chunk_jobs.odd_error, chunk_jobs.exits, chunk_jobs.cancels, chunk_jobs.closes]
)
async def test_an_error_that_must_not_come_back_as_itself(
    supervisor: Supervisor, function: Any
) -> None:
    """It is a JobFailed, as it is for a job of its own, and that of its item alone."""
    with pytest.raises(JobFailed) as caught:
        await supervisor.map(function, range(MANY), cpu=True)
    assert re.fullmatch(r"item [35]00 of its map, counted from 0", caught.value.__notes__[-1])
    assert await supervisor.map(chunk_jobs.double, [4], cpu=True) == [8]


async def test_a_crash_in_a_chunk(supervisor: Supervisor) -> None:
    """The map fails with WorkerCrashed, which says between which items the culprit is, and the next one
    runs in a new child.
    """
    with pytest.raises(WorkerCrashed) as caught:
        await supervisor.map(chunk_jobs.dies, range(MANY), cpu=True)
    note = caught.value.__notes__[-1]
    numbers = re.search(r"items? (\d+)(?: to (\d+))? of its map, counted from 0", note)
    assert numbers is not None, note
    first, last = int(numbers[1]), int(numbers[2] or numbers[1])
    assert first <= 400 <= last
    assert await supervisor.map(chunk_jobs.double, range(100), cpu=True) == list(range(0, 200, 2))


async def test_items_leave_nothing_to_each_other(supervisor: Supervisor) -> None:
    """A context variable that one item sets is not seen by the next in its chunk."""
    assert await supervisor.map(chunk_jobs.leaves_context, range(MANY), cpu=True) == [0] * MANY


async def test_items_leave_nothing_to_each_other_in_what_came_along(
    supervisor: Supervisor, sizes: list[int]
) -> None:
    """Nor is what an item makes of a variable that whoever submits the map has set."""
    before = chunk_jobs.number.set(-1)
    seen = await supervisor.map(chunk_jobs.leaves_context, range(MANY), cpu=True)
    chunk_jobs.number.reset(before)
    assert seen == [-1] * MANY
    assert max(sizes) > 8


async def test_long_items_stay_alone(supervisor: Supervisor, sizes: list[int]) -> None:
    """What takes longer than a chunk should crosses by itself, and both processes have their share."""
    crew = supervisor._entered().queues["processes"].crew
    for each in await supervisor.submit_many(job(chunk_jobs.double, cpu=True), range(2)):
        await each
    while len(crew.idle) < 2:  # both are ready
        await asyncio.sleep(0)
    ends = await supervisor.map(chunk_jobs.slow, range(40), cpu=True)
    assert [value for value, _ in ends] == list(range(40))
    assert set(sizes) == {1}
    assert len({process for _, process in ends}) == 2


async def test_what_cannot_cross(supervisor: Supervisor) -> None:
    """An item that cannot be pickled fails the map and names the function."""
    items = [1, (each for each in ())]
    with pytest.raises(NotSerializable, match="double"):
        await supervisor.map(chunk_jobs.double, items, cpu=True)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("bad", [(each for each in ()), chunk_jobs.OnlyThere(1)])
async def test_an_item_that_cannot_cross_among_many(
    supervisor: Supervisor, sizes: list[int], bad: Any, ordered: bool
) -> None:
    """Whether it cannot be packed or cannot be unpacked, it fails alone: the items before it give
    their values, none is called twice, and the figures are those of the items.
    """
    await supervisor.map(chunk_jobs.double, range(MANY), cpu=True)
    items = [*range(777), bad, *range(778, MANY)]
    seen: list[Any] = []
    with pytest.raises((NotSerializable, OSError), match=r"count_calls|not here: 1"):
        async for value in supervisor.map(chunk_jobs.count_calls, items, ordered=ordered, cpu=True):
            seen.append(value)
    if ordered:
        assert [value for value, _ in seen] == list(range(777))
    assert {times for _, times in seen} == {1}
    assert max(sizes) > 8
    stats = supervisor.stats().queues["processes"]
    assert stats.submitted == stats.succeeded + stats.failed + stats.cancelled
    assert stats.failed == 1
    assert await supervisor.map(chunk_jobs.double, [4], cpu=True) == [8]


async def test_a_value_that_cannot_come_back_among_many(
    supervisor: Supervisor, sizes: list[int]
) -> None:
    """It fails alone, and the values before it are seen."""
    seen: list[Any] = []
    with pytest.raises(NotSerializable, match="a generator"):
        async for value in supervisor.map(chunk_jobs.double_but_one, range(MANY), cpu=True):
            seen.append(value)
    assert seen == list(range(0, 2 * 777, 2))
    assert max(sizes) > 8
    stats = supervisor.stats().queues["processes"]
    assert (stats.failed, stats.running, stats.queued) == (1, 0, 0)


async def test_nothing_of_an_item_that_was_split_off_is_logged(
    supervisor: Supervisor, sizes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """The error of the chunk that could not be sent is nobody's, and is not told of."""
    await supervisor.map(chunk_jobs.double, range(MANY), cpu=True)
    items = [*range(777), (each for each in ()), *range(778, MANY)]
    with pytest.raises(NotSerializable):
        await supervisor.map(chunk_jobs.double, items, cpu=True)
    assert max(sizes) > 8
    gc.collect()
    assert [record for record in caplog.records if "nobody awaited" in record.getMessage()] == []


async def test_with_policies_each_item_is_a_job(supervisor: Supervisor, sizes: list[int]) -> None:
    """Items that may be retried or timed out, or are asked for as jobs, do not share one."""
    retried = job(chunk_jobs.double, cpu=True, retry=Retry(2, on=ValueError), timeout=60)
    assert await supervisor.map(retried, range(100)) == list(range(0, 200, 2))
    outcomes = supervisor.map(chunk_jobs.double, range(100), cpu=True).outcomes()
    assert [one.result() async for one in outcomes] == list(range(0, 200, 2))
    assert sizes == []


async def test_reduce(supervisor: Supervisor, sizes: list[int]) -> None:
    """Partial results are put together in the order of the items."""
    wanted = "".join(f"{number}," for number in range(MANY))
    assert await supervisor.map(chunk_jobs.text, range(MANY), cpu=True).reduce(chunk_jobs.join) == (
        wanted
    )
    stream = supervisor.map(chunk_jobs.text, range(MANY), cpu=True)
    assert await stream.reduce(chunk_jobs.join, ">") == ">" + wanted
    assert max(sizes) > 8


async def test_reduce_anywhere(supervisor: Supervisor) -> None:
    """What does not run in processes is reduced here, with the same result."""
    reduced = await supervisor.map(chunk_jobs.text, range(100)).reduce(chunk_jobs.join)
    assert reduced == "".join(f"{number}," for number in range(100))


async def test_reduce_nothing(supervisor: Supervisor) -> None:
    """Without a value there is only the initial one, and without that an error."""
    assert await supervisor.map(chunk_jobs.text, [], cpu=True).reduce(chunk_jobs.join, "") == ""
    with pytest.raises(TypeError, match="nothing to reduce"):
        await supervisor.map(chunk_jobs.text, [], cpu=True).reduce(chunk_jobs.join)


async def test_a_reducer_that_fails(supervisor: Supervisor) -> None:
    """Its error ends the map, whether it was raised in a child or here."""
    with pytest.raises(ZeroDivisionError):
        await supervisor.map(chunk_jobs.text, range(MANY), cpu=True).reduce(chunk_jobs.trips)
    assert await supervisor.map(chunk_jobs.double, [4], cpu=True) == [8]


async def test_bad_reducers(supervisor: Supervisor) -> None:
    """What is no function is refused at once, and so are two initial values."""
    stream = supervisor.map(chunk_jobs.text, [1])
    with pytest.raises(TypeError, match="function must be callable"):
        await stream.reduce("sum")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="one initial value"):
        await stream.reduce(chunk_jobs.join, "", "")
    assert await stream == ["1,"]


class Meddler:
    """Looks after the child in the middle of being packed for it, as a `cancel()` there may do."""

    def __init__(self, look: Any, go: Path, first: Job[Any]) -> None:
        self.look, self.go, self.first = look, go, first

    def __reduce__(self) -> Any:
        self.go.touch()
        while not self.first.done():
            self.look()
        return int, (21,)


async def test_items_that_end_jobs_while_they_are_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent stays in order, though code of an item finds the line shorter meanwhile."""
    monkeypatch.setattr(sent, "LONG", 1e9)  # the item goes, however long the first one takes
    monkeypatch.setattr(sent, "LINE", 1e9)
    started, go = tmp_path / "started", tmp_path / "go"
    waits = job(bridge_jobs.wait_for_file, cpu=True)
    double = job(bridge_jobs.double, cpu=True)
    async with Supervisor(processes=1) as supervisor, asyncio.timeout(60):
        go.touch()
        for _ in range(40):
            await supervisor.submit_nowait(waits, str(started), str(go))  # quick, as is known now
        await supervisor.submit_nowait(double, 0)
        started.unlink()
        go.unlink()
        first = supervisor.submit_nowait(waits, str(started), str(go))
        while not started.exists():
            await asyncio.sleep(0)
        (worker,) = supervisor._entered().queues["processes"].crew.members
        before = supervisor.submit_nowait(double, 1)
        items = [Meddler(cast("Any", worker).look, go, first)]
        async with supervisor.map(double, items) as stream:
            after = [supervisor.submit_nowait(double, number) for number in range(2, 5)]
            assert [await one for one in (before, *after)] == [2, 4, 6, 8]
            assert [value async for value in stream] == [42]
