"""Arguments and results that take long to pickle: in a thread, while the loop goes on; others at once."""

import asyncio
import pickle
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import heavy_jobs
import pytest
import pytest_asyncio
import uvloop
from heavy_jobs import MANY, Gate, Packed

from asyncworkers import JobCancelled, NotSerializable, Supervisor, SupervisorClosed, job
from asyncworkers.bridge import heavy
from asyncworkers.bridge.child.freight import is_small
from asyncworkers.bridge.steps import Step
from asyncworkers.testing import no_leaks

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(sys.platform == "win32", reason="children need POSIX pipes and signals"),
]

last, size_and_child, heavy_result, light_result = (
    job(function, cpu=True)
    for function in (
        *(heavy_jobs.last, heavy_jobs.size_and_child),
        *(heavy_jobs.heavy, heavy_jobs.light),
    )
)


@pytest.fixture(autouse=True, scope="module")
def uvloop_is_set_up() -> None:
    """The first loop of uvloop opens files that stay as long as the process does."""
    uvloop.run(asyncio.sleep(0))


@pytest_asyncio.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    """A supervisor of one process."""
    async with Supervisor(processes=1) as supervisor:
        yield supervisor
        heavy_jobs.go.set()


@pytest.fixture(autouse=True)
def gate() -> Iterator[None]:
    """The gate is closed, and nobody has come to it. No thread, child or file is left at the end."""
    heavy_jobs.entered.clear()
    heavy_jobs.go.clear()
    with no_leaks(ignore=("shared memory /dev/shm/*",), tasks=False, grace=3.0):
        yield
        heavy_jobs.go.set()


async def until(condition: Any) -> None:
    """Turn the loop until something is so."""
    while not condition():
        await asyncio.sleep(0)


async def test_where_arguments_are_packed(supervisor: Supervisor) -> None:
    """Few at once, as the caller left them; many in a thread, whichever way they come, but for
    `submit_nowait`, which never waits.
    """
    here = threading.get_ident()
    many = [*MANY, Packed()]
    assert await supervisor.call(last, [1, Packed()]) == here
    assert await supervisor.submit_nowait(last, many) == here
    assert await supervisor.call(last, many) != here
    assert await supervisor.call(last, values=many) != here
    few, others = [await one for one in await supervisor.submit_many(last, [[Packed()], many])]
    assert few == here
    assert others != here
    async for ident in supervisor.map(last, [many, many]):
        assert ident != here


async def test_where_results_are_unpacked(supervisor: Supervisor) -> None:
    """Few at once; many in a thread, in the order of their jobs."""
    here = threading.get_ident()
    assert (await supervisor.call(light_result))[-1] == here
    ends: list[str] = []
    jobs = [
        await supervisor.submit(function, *args)
        for function, *args in (
            (heavy_result, "unpacked"),
            (light_result,),
            (heavy_result, "unpacked"),
        )
    ]
    for number, one in enumerate(jobs):
        one._watch(lambda _, number=number: ends.append(number))
    first, second, third = [await one for one in jobs]
    assert first[:-1] == third[:-1] == MANY
    assert here not in (first[-1], third[-1])
    assert second == [1, here]
    assert ends == [0, 1, 2]


async def test_jobs_keep_their_order(supervisor: Supervisor) -> None:
    """What is submitted first stands first in line, however long it took to pack."""
    supervisor.pause("processes")
    first = await supervisor.submit(last, MANY)
    second = await supervisor.submit(last, [1])
    third = await supervisor.submit(last, MANY)
    assert supervisor.jobs() == [first, second, third]
    supervisor.resume("processes")
    assert [await first, await second, await third] == [MANY[-1], 1, MANY[-1]]


async def test_a_heavy_argument_is_taken_at_submit(supervisor: Supervisor) -> None:
    """What the caller changes after submit is not seen by the job."""
    supervisor.pause("processes")
    values = [*MANY]
    waiting = await supervisor.submit(size_and_child, values)
    values.append(1)
    supervisor.resume("processes")
    assert (await waiting)[0] == len(MANY)


async def test_a_heavy_argument_that_cannot_be_pickled(supervisor: Supervisor) -> None:
    """The error is raised where it was submitted, names the argument, and follows from nothing else."""
    with pytest.raises(NotSerializable, match=r"argument 1 of last .* a list") as caught:
        await supervisor.submit(last, [*MANY, threading.Lock()])
    assert type(caught.value.__cause__) is TypeError
    assert supervisor.stats().submitted == 0
    items = [[1], [*MANY, threading.Lock()], [3]]
    values: list[Any] = []
    with pytest.raises(NotSerializable, match="argument 1 of last"):
        async for value in supervisor.map(last.options(timeout=60), items):
            values.append(value)
    assert values == [1]
    assert await supervisor.call(last, MANY) == MANY[-1]


async def test_what_main_defines_is_sent_by_value(supervisor: Supervisor, monkeypatch: Any) -> None:
    """A class of the main module among many numbers is pickled by value, as it is among few."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("class Point:\n    x = 5", space)
    monkeypatch.setattr(sys.modules["__main__"], "Point", space["Point"], raising=False)
    for values in ([1], MANY):
        point = await supervisor.call(last, [*values, space["Point"]()])
        assert (type(point).__name__, point.x) == ("Point", 5)


async def test_cancelled_while_it_is_packed(supervisor: Supervisor) -> None:
    """Whoever is cancelled inside submit has submitted nothing, and the thread gives up."""
    submitting = asyncio.create_task(supervisor.submit(last, [*MANY, Gate(), *MANY]))
    await until(heavy_jobs.entered.is_set)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    assert supervisor.stats().submitted == 0
    heavy_jobs.go.set()
    assert await supervisor.call(last, MANY) == MANY[-1]


async def test_closed_while_it_is_packed() -> None:
    """A supervisor that closes meanwhile accepts nothing, and waits for no thread."""
    async with Supervisor(processes=1) as supervisor:
        submitting = asyncio.create_task(supervisor.submit(last, [*MANY, Gate(), *MANY]))
        await until(heavy_jobs.entered.is_set)
    heavy_jobs.go.set()
    with pytest.raises(SupervisorClosed):
        await submitting


async def test_an_item_is_cancelled_while_it_is_packed(supervisor: Supervisor) -> None:
    """A map that is left while one of its items is packed ends; the child goes on with other jobs."""
    child = (await supervisor.call(size_and_child, [1]))[1]
    async with supervisor.map(last.options(timeout=60), [[*MANY, Gate(), *MANY]]) as _:
        await until(heavy_jobs.entered.is_set)
    heavy_jobs.go.set()
    assert await supervisor.call(size_and_child, MANY) == (len(MANY), child)


async def test_a_child_dies_while_an_item_is_packed(supervisor: Supervisor) -> None:
    """The item had not begun: it runs in the next child."""
    await supervisor.call(last, [1])
    (worker,) = supervisor._entered().queues["processes"].crew.members
    items = [[*MANY, Gate()]]

    async def collect() -> list[Any]:
        return await supervisor.map(last.options(timeout=60), items)

    mapping = asyncio.create_task(collect())
    await until(heavy_jobs.entered.is_set)
    worker.process.kill()
    await until(lambda: worker not in supervisor._entered().queues["processes"].crew.members)
    heavy_jobs.go.set()
    assert await mapping == [7]


async def test_a_child_dies_while_its_result_is_unpacked(supervisor: Supervisor) -> None:
    """What has ended has ended: the value comes."""
    running = await supervisor.submit(heavy_result, "gate")
    await until(heavy_jobs.entered.is_set)
    (worker,) = supervisor._entered().queues["processes"].crew.members
    worker.process.kill()
    await until(lambda: not worker.ready)
    heavy_jobs.go.set()
    assert (await running)[:-1] == MANY
    assert await supervisor.call(last, [1]) == 1


async def test_cancelled_while_its_result_is_unpacked(supervisor: Supervisor) -> None:
    """The value is wanted no more, and nobody waits for it; the child goes on."""
    running = await supervisor.submit(heavy_result, "gate")
    await until(heavy_jobs.entered.is_set)
    running.cancel("enough")
    with pytest.raises(JobCancelled, match="enough"):
        await running
    assert await supervisor.call(last, [1]) == 1
    heavy_jobs.go.set()


async def test_no_thread_to_be_had(supervisor: Supervisor, monkeypatch: Any) -> None:
    """Where the system has no thread left it is done at once, on the loop."""

    def start(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    here = threading.get_ident()
    await supervisor.call(last, [1])
    monkeypatch.setattr(threading.Thread, "start", start)
    assert await supervisor.call(last, [*MANY, Packed()]) == here
    assert (await supervisor.call(heavy_result, "unpacked"))[-1] == here


@pytest.mark.parametrize("value", [MANY, ["x" * 300_000], [str(n) for n in MANY], b"x" * 10])
async def test_pickles_are_those_of_pickle(value: Any) -> None:
    """Whichever way it is made, a pickle says the same, and is read the same way in parts."""
    gently = heavy.Gently(Step()).dumps(pickle, value)
    assert pickle.loads(gently) == value
    assert heavy.load_gently(gently, [], Step()) == value
    assert heavy.load_gently(pickle.dumps(value, 5), [], Step()) == value
    if len(gently) > heavy.LIGHT:
        for dumps in (heavy.dumps_light, lambda value: heavy.LIGHTLY.dumps(pickle, value)):
            with pytest.raises(heavy.TooMuch):
                dumps(value)
    else:
        assert heavy.dumps_light(value) == pickle.dumps(value, 5, buffer_callback=is_small)


async def test_a_pickler_that_is_used_again(monkeypatch: Any) -> None:
    """It remembers nothing of what it pickled before, and is not used by code of what it pickles."""

    class Nested:
        def __reduce__(self) -> Any:
            return bytes, (heavy.dumps_light([1, 2]),)

    shared = [1]
    for value in (shared, [shared, shared], Nested(), shared):
        assert heavy.dumps_light(value) == pickle.dumps(value, 5)
    with pytest.raises(TypeError):
        heavy.dumps_light([shared, threading.Lock()])
    assert heavy.dumps_light(shared) == pickle.dumps(shared, 5)
