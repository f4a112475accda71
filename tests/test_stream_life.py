"""Streams among others: paused, drained, closed, retried, side by side, fed slowly, shown."""

import asyncio
import gc
import itertools
import re
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from ways import (
    WAYS,
    awaited,
    counted,
    double,
    double_in_thread,
    double_later,
    iterated,
    numbers,
    supervisor_of,
    turns,
)

from asyncworkers import (
    JobCancelled,
    JobFailed,
    JobTimedOut,
    Queue,
    Retry,
    Supervisor,
    SupervisorClosed,
    current_job,
    job,
)

pytestmark = pytest.mark.asyncio

tenant: ContextVar[str] = ContextVar("tenant")

USES = {"await": awaited, "iterate": iterated}


async def forever(_: Any = None) -> None:
    """Never end by itself."""
    await asyncio.Event().wait()


def readers(supervisor: Supervisor) -> int:
    """How many streams the supervisor believes are being read."""
    assert supervisor._intake is not None
    count = len(supervisor._intake.hub.readers)
    assert count == sum(len(queue.supplies) for queue in supervisor._intake.queues.values())
    return count


# ---- async iterables that are slow, deaf or broken


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("way", WAYS)
async def test_failure_does_not_wait_for_the_next_item(way: str, use: str) -> None:
    """A job fails while the async iterable waits for its next item: the iterable is cancelled,
    may clean up, and the failure is raised.
    """
    cleaned: list[str] = []

    async def source() -> AsyncIterator[int]:
        yield 1
        try:
            await forever()
        finally:
            await turns(3)
            cleaned.append("source")

    async def fails(number: int) -> None:
        await turns(3)
        raise ValueError(number)

    async with supervisor_of(way) as supervisor:
        with pytest.raises(ValueError, match="1"):
            await USES[use](supervisor.map(fails, source()))
        assert cleaned == ["source"]
        assert readers(supervisor) == 0


@pytest.mark.parametrize("way", WAYS)
async def test_source_may_clean_up(way: str) -> None:
    """However many jobs fail, the async iterable is cancelled once, and what it does then is not
    disturbed.
    """
    gates = [asyncio.Event() for _ in range(3)]
    cleaned: list[str] = []

    async def source() -> AsyncIterator[int]:
        for number in range(3):
            yield number
        try:
            await forever()
        finally:
            for gate in reversed(gates):
                gate.set()
                await turns(5)
            cleaned.append("source")

    async def fails(number: int) -> None:
        if number < 2:
            await gates[number].wait()
        raise ValueError(number)

    async with supervisor_of(way) as supervisor:
        with pytest.raises(ValueError, match="0"):
            async for _ in supervisor.map(fails, source()):
                pass
        assert cleaned == ["source"]


@pytest.mark.parametrize("way", WAYS)
async def test_async_iterable_that_ignores_its_cancellation(way: str) -> None:
    """What an async iterable gives after it was told to stop is not run."""
    ran: list[int] = []

    async def deaf() -> AsyncIterator[int]:
        yield 0
        try:
            await forever()
        except asyncio.CancelledError:
            yield 1
            yield 2

    async def fails(number: int) -> None:
        ran.append(number)
        await turns(3)
        raise ValueError(number)

    async with supervisor_of(way) as supervisor:
        with pytest.raises(ValueError, match="0"):
            await supervisor.map(fails, deaf())
        await turns(5)
        assert ran == [0]
        assert counted(supervisor) == (0, 1, 0)


@pytest.mark.parametrize("use", USES)
async def test_iterables_that_cannot_begin(use: str) -> None:
    """An iterable whose `iter` or `aiter` raises ends the map with that, and leaves nothing."""

    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise LookupError("no iterator")

    class AsyncBroken:
        def __aiter__(self) -> AsyncIterator[int]:
            raise LookupError("no iterator")

    async with Supervisor() as supervisor:
        for items in (Broken(), AsyncBroken()):
            with pytest.raises(LookupError, match="no iterator"):
                await USES[use](supervisor.map(double, items))  # type: ignore[call-overload]
            assert readers(supervisor) == 0
        assert counted(supervisor) == (0, 0, 0)


@pytest.mark.parametrize("way", WAYS)
async def test_source_breaks_after_a_job_has_failed(way: str) -> None:
    """Of a job that fails and an iterable that raises thereupon, the first in time is raised."""

    async def source() -> AsyncIterator[int]:
        yield 1
        try:
            await forever()
        finally:
            raise LookupError("too late")

    async def fails(number: int) -> None:
        raise ValueError(number)

    async with supervisor_of(way) as supervisor:
        with pytest.raises(ValueError, match="1"):
            await supervisor.map(fails, source())


@pytest.mark.parametrize("way", WAYS)
async def test_source_breaks_while_jobs_run(way: str) -> None:
    """An iterable that raises cancels what runs, if awaited, and lets it end, if iterated."""
    ends: list[str] = []
    gate = asyncio.Event()
    begun = asyncio.Semaphore(0)

    async def source() -> AsyncIterator[int]:
        yield 1
        await begun.acquire()
        raise LookupError("of the items")

    async def waits(number: int) -> int:
        begun.release()
        try:
            await gate.wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        ends.append("ended")
        return number

    async with supervisor_of(way) as supervisor:
        with pytest.raises(LookupError):
            await supervisor.map(waits, source())
        assert ends == ["cancelled"]
        got: list[int] = []

        async def read() -> None:
            async for number in supervisor.map(waits, source()):
                got.append(number)

        reading = asyncio.create_task(read())
        await turns(20)
        assert not reading.done()
        gate.set()
        with pytest.raises(LookupError):
            await reading
        assert got == [1]
        assert ends == ["cancelled", "ended"]


@pytest.mark.parametrize("way", WAYS)
async def test_breaking_off_ends_the_source(way: str) -> None:
    """Leaving early cancels an async iterable that is about to give its next item."""
    cleaned: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await forever()
        finally:
            cleaned.append("source")

    async with supervisor_of(way) as supervisor:
        async with supervisor.map(double, source()) as stream:
            async for value in stream:
                assert value == 2
                break
        assert cleaned == ["source"]
        async for value in supervisor.map(double, source()):
            assert value == 2
            break
        await turns(3)
        assert cleaned == ["source", "source"]


# ---- leaving


@pytest.mark.parametrize("way", WAYS)
async def test_iterator_can_be_closed(way: str) -> None:
    """`aclose` of the iterator waits until what the map has started has ended; it can be repeated."""
    running: set[int] = set()

    async def work(number: int) -> int:
        if number:
            running.add(number)
            try:
                await forever()
            finally:
                await turns(2)
                running.discard(number)
        return number

    async with supervisor_of(way) as supervisor:
        iterator: Any = aiter(supervisor.map(work, itertools.count()))
        assert await anext(iterator) == 0
        while len(running) < 4:
            await asyncio.sleep(0)
        await iterator.aclose()
        assert not running
        await iterator.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)
        assert readers(supervisor) == 0
        assert counted(supervisor) == (1, 0, 4)


@pytest.mark.parametrize("way", WAYS)
async def test_error_while_leaving_is_nobodys(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """A job that fails because its map was left did what it was told: its error replaces nothing."""
    started = asyncio.Event()

    async def stubborn(number: int) -> int:
        if not number:
            await started.wait()
            return number
        started.set()
        try:
            await forever()
        except asyncio.CancelledError:
            raise ValueError("while it was cancelled") from None
        return number

    async with supervisor_of(way) as supervisor:
        async with supervisor.map(stubborn, range(2)) as stream:
            async for _ in stream:
                break
        assert counted(supervisor) == (1, 0, 1)
    assert not caplog.records


# ---- paused, drained, closed


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("way", WAYS)
async def test_paused_queue(way: str, use: str) -> None:
    """On a paused queue a map takes its first items and starts none; it goes on when resumed, also
    in its midst.
    """
    begun = 0

    async def counts(number: int) -> int:
        nonlocal begun
        begun += 1
        if number == 30:
            supervisor.pause("default")
        await asyncio.sleep(0)
        return number

    async with supervisor_of(way) as supervisor:
        supervisor.pause("default")
        pulled: list[int] = []
        items = (pulled.append(number) or number for number in range(200))
        reading = asyncio.create_task(USES[use](supervisor.map(counts, items, window=8)))
        await turns(20)
        assert begun == 0
        assert 0 < len(pulled) <= 8
        supervisor.resume("default")
        while begun < 31:
            await asyncio.sleep(0)
        await turns(50)
        assert 31 <= begun <= 31 + 4  # what other workers had begun meanwhile
        assert not reading.done()
        supervisor.resume("default")
        assert await reading == list(range(200))
    assert counted(supervisor) == (200, 0, 0)


@pytest.mark.parametrize("way", WAYS)
async def test_leaving_on_a_paused_queue(way: str) -> None:
    """A map of which nothing could start can be left, and a supervisor with one too."""
    async with supervisor_of(way) as supervisor:
        supervisor.pause("default")
        reading = asyncio.create_task(iterated(supervisor.map(double, range(9))))
        await turns(3)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        del reading
        await turns(3)
        assert supervisor.stats().queued == 0
        assert readers(supervisor) == 0
        waiting = [
            asyncio.create_task(use(supervisor.map(double, range(9)))) for use in USES.values()
        ]
        await turns(3)
    for one in waiting:
        with pytest.raises(JobCancelled, match="was paused when the supervisor ended"):
            await one


@pytest.mark.parametrize("way", WAYS)
async def test_resized_to_nothing_and_back(way: str) -> None:
    """A map stands still while its queue has no workers, and goes on when it has some."""
    async with supervisor_of(way) as supervisor:
        reading = asyncio.create_task(awaited(supervisor.map(double_later, range(300), window=5)))
        await turns(3)
        supervisor.resize("default", 0)
        await turns(30)
        assert not reading.done()
        supervisor.resize("default", 2)
        assert await reading == [2 * number for number in range(300)]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", ["iterable", "async iterable"])
@pytest.mark.parametrize("way", WAYS)
async def test_drain_finishes_what_is_read(way: str, kind: str, use: str) -> None:
    """While draining a map that is read goes on to its end; a new one is refused, but not to jobs."""
    gate = asyncio.Event()
    got: list[Any] = []

    async def maps() -> list[int]:
        await gate.wait()
        return await supervisor.map(double, range(5))

    async with supervisor_of(way) as supervisor:
        mapping = await supervisor.submit(maps)
        items: Any = range(500) if kind == "iterable" else numbers(500)
        reading = asyncio.create_task(USES[use](supervisor.map(double_later, items, window=10)))
        reading.add_done_callback(lambda _: gate.set())
        late = supervisor.map(double, range(3))
        await turns(3)
        report = await supervisor.drain()
        got = await reading
        assert got == [2 * number for number in range(500)]
        assert await mapping == [0, 2, 4, 6, 8]
        assert mapping.id in report.done
        assert (report.cancelled, report.not_started, report.abandoned) == ((), (), ())
        with pytest.raises(SupervisorClosed, match="draining"):
            await late
    assert counted(supervisor) == (506, 0, 0)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("way", WAYS)
async def test_drain_without_grace_ends_a_map(way: str, use: str) -> None:
    """When the grace is over, what runs of a map is cancelled, nothing more is taken from its
    iterable, and whoever reads it is told why.
    """
    pulled: list[int] = []
    items = (pulled.append(number) or number for number in itertools.count())
    async with supervisor_of(way) as supervisor:
        reading = asyncio.create_task(USES[use](supervisor.map(forever, items, window=10)))
        while supervisor.stats().running < 4:
            await asyncio.sleep(0)
        before = len(pulled)
        report = await supervisor.drain(0)
        assert len(report.cancelled) == 4
        assert (report.done, report.abandoned) == ((), ())
        with pytest.raises(JobCancelled, match="the grace of the drain was over"):
            await reading
        assert len(pulled) == before
        assert counted(supervisor) == (0, 0, 4)


@pytest.mark.parametrize("window", [4, None])
@pytest.mark.parametrize("function", [double, double_later, double_in_thread])
@pytest.mark.parametrize("way", WAYS)
async def test_unread_map_does_not_keep_a_supervisor(
    way: str, function: Any, window: int | None
) -> None:
    """A map whose reader does something else for good does not keep the supervisor from ending."""
    async with supervisor_of(way) as supervisor:
        iterator = aiter(supervisor.map(function, itertools.count(), window=window))
        assert await anext(iterator) == 0
    with pytest.raises(JobCancelled, match="the supervisor closed"):
        while True:
            await anext(iterator)
    assert counted(supervisor)[1:] == (0, 0)


@pytest.mark.parametrize("way", WAYS)
async def test_unread_map_whose_items_run(way: str) -> None:
    """Leaving a supervisor waits for what runs of a map that nobody reads on, and no longer."""
    gate = asyncio.Event()
    running: set[int] = set()

    async def work(number: int) -> int:
        if number:
            running.add(number)
            await gate.wait()
            running.discard(number)
        return number

    async def open_gate() -> None:
        await turns(10)
        gate.set()

    async with supervisor_of(way, workers=2) as supervisor:
        iterator = aiter(supervisor.map(work, itertools.count(), window=2))
        assert await anext(iterator) == 0
        while len(running) < 2:
            await asyncio.sleep(0)
        opening = asyncio.create_task(open_gate())
    assert not running
    await opening
    assert counted(supervisor) == (3, 0, 0)
    assert [await anext(iterator) for _ in range(2)] == [1, 2]


async def test_map_made_before_and_read_in_another_life() -> None:
    """A map belongs to the life of the supervisor in which it was made."""
    supervisor = Supervisor()
    async with supervisor:
        stream = supervisor.map(double, range(3))
    async with supervisor:
        with pytest.raises(SupervisorClosed):
            await stream
        assert await supervisor.map(double, range(3)) == [0, 2, 4]


# ---- policies


@pytest.mark.virtual_time
@pytest.mark.parametrize("way", WAYS)
async def test_waiting_retry_holds_no_slot(way: str) -> None:
    """While one item waits for its next attempt, the others go on, on one worker; the values come
    in the items' order all the same, and unordered as they come.
    """
    tries: dict[int, int] = {}

    @job(retry=Retry(3, on=OSError, delay=60, jitter=False))
    async def first_fails(number: int) -> int:
        tries[number] = tries.get(number, 0) + 1
        assert current_job().attempt == tries[number]
        if number == 0 and tries[number] < 3:
            raise OSError(number)
        return number

    async with supervisor_of(way, workers=1) as supervisor:
        assert await supervisor.map(first_fails, range(20)) == list(range(20))
        tries.clear()
        came = [one async for one in supervisor.map(first_fails, range(20), ordered=False)]
        assert came == [*range(1, 20), 0]
    assert supervisor.stats().retried == 4


@pytest.mark.virtual_time
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("way", WAYS)
async def test_exhausted_retries_end_a_map(way: str, use: str) -> None:
    """Only the last attempt's failure ends a map; those that wait for a retry then are cancelled."""
    tries: list[int] = []

    @job(retry=Retry(2, on=OSError, backoff=lambda _, error: 1.0 if error.args[0] else 5.0))
    async def fails(number: int) -> None:
        tries.append(number)
        raise OSError(number)

    async with supervisor_of(way) as supervisor:
        with pytest.raises(OSError, match="1") as caught:
            await USES[use](supervisor.map(fails, [0, 1], ordered=False))
        assert caught.value.__notes__ == ["attempt 2 of 2", "item 1 of its map, counted from 0"]
        assert sorted(tries) == [0, 1, 1]
        assert counted(supervisor) == (0, 1, 1)


@pytest.mark.virtual_time
@pytest.mark.parametrize("way", WAYS)
async def test_timeout_of_some_items(way: str) -> None:
    """A timeout holds for each item by itself: those in time have values, the others timed out."""
    loop = asyncio.get_running_loop()

    async with supervisor_of(way, workers=3) as supervisor:
        slow = job(asyncio.sleep, timeout=10)
        ends = await supervisor.map(slow, [20, 1, 9, 11, 9.5]).outcomes()
        assert loop.time() == pytest.approx(18.5)  # 9.5 s after the third had ended
        kinds = [type(one.exception()) for one in ends]
        nothing = type(None)
        assert kinds == [JobTimedOut, nothing, nothing, JobTimedOut, nothing]
        assert supervisor.stats().queues["default"].timed_out == 2


# ---- side by side


@pytest.mark.virtual_time
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("way", WAYS)
async def test_slow_maps_share_workers(way: str, workers: int) -> None:
    """Maps whose items take long, and jobs beside them, have their turn item by item, so that none
    of them waits for another to end.
    """
    order: list[str] = []

    async def work(name: str) -> None:
        await asyncio.sleep(1)
        order.append(name)

    async def endless() -> None:
        async for _ in supervisor.map(work, itertools.repeat("endless")):
            pass

    async with supervisor_of(way, workers=workers) as supervisor:
        first = asyncio.create_task(endless())
        await asyncio.sleep(100)
        order.clear()
        second = asyncio.create_task(awaited(supervisor.map(work, ["second"] * 20)))
        third = asyncio.create_task(awaited(supervisor.map(work, ["third"] * 20)))
        single = await supervisor.submit(work, "job")
        await single
        assert len(order) <= 8 + 4 * workers
        await asyncio.gather(second, third)
        for end in range(len(order)):
            so_far = order[: end + 1]
            difference = so_far.count("second") - so_far.count("third")
            assert abs(difference) <= 1 + workers
        assert order.count("endless") in range(12, 30)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first


@pytest.mark.virtual_time
@pytest.mark.parametrize("way", WAYS)
async def test_slow_map_smaller_than_its_workers(way: str) -> None:
    """A map that keeps fewer workers busy than there are gives way like any other."""
    async with supervisor_of(way, workers=3) as supervisor:
        endless = supervisor.map(asyncio.sleep, itertools.repeat(1), window=2)
        first = asyncio.create_task(awaited(endless))
        await asyncio.sleep(10.5)  # in the midst of an item
        blocking = [await supervisor.submit(forever) for _ in range(2)]
        await asyncio.sleep(5)
        for one in blocking:
            assert one.state == "running"
            one.cancel()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first


@pytest.mark.parametrize("way", WAYS)
async def test_endless_map_does_not_block_the_loop(way: str) -> None:
    """A map whose items never suspend gives way to the loop all the same."""
    async with supervisor_of(way) as supervisor:
        endless = asyncio.create_task(awaited(supervisor.map(double, itertools.count())))
        await turns(100)
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless


@pytest.mark.parametrize("way", WAYS[:-1])
async def test_item_that_cancels_its_own_task(way: str) -> None:
    """An item that leaves its task cancelled hands nothing of it to the next one."""

    async def cancels(number: int) -> int:
        if number == 3:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        else:
            await asyncio.sleep(0)
        return number

    async with supervisor_of(way, workers=1) as supervisor:
        assert await supervisor.map(cancels, range(10)) == list(range(10))


@pytest.mark.parametrize("way", WAYS)
async def test_iterable_that_looks_around(way: str) -> None:
    """The iterable's own code may look at the supervisor, and sees no item that has ended."""
    ended: set[int] = set()

    def items() -> Iterator[int]:
        for number in range(200):
            assert not ended & {one.args[0] for one in supervisor.jobs()}
            assert supervisor.stats().running == 0
            yield number

    async def work(number: int) -> int:
        await asyncio.sleep(0)
        ended.add(number)
        return number

    async with supervisor_of(way, workers=1) as supervisor:
        assert await supervisor.map(work, items(), window=7) == list(range(200))
    assert counted(supervisor) == (200, 0, 0)


@pytest.mark.parametrize("way", WAYS)
async def test_many_maps_at_once(way: str) -> None:
    """A hundred maps on four workers: each gets its own values."""

    async def tagged(pair: tuple[int, int]) -> tuple[int, int]:
        await asyncio.sleep(0)
        return pair

    async with supervisor_of(way) as supervisor:
        uses = itertools.cycle(USES.values())
        wanted = [[(one, number) for number in range(30)] for one in range(100)]
        streams = [
            next(uses)(supervisor.map(tagged, pairs, window=1 + one % 40))
            for one, pairs in enumerate(wanted)
        ]
        assert await asyncio.gather(*streams) == wanted
    assert counted(supervisor) == (3_000, 0, 0)


@pytest.mark.parametrize("window", [1, 5, None])
async def test_map_feeds_map(window: int | None) -> None:
    """Streams chained on one queue, through threads and back, lose nothing and stand in nobody's way."""

    def in_thread(number: int) -> int:
        return number + 1

    async with Supervisor(1, threads=1) as supervisor:
        first = supervisor.map(double_later, range(300), window=window)
        second = supervisor.map(in_thread, first, ordered=False, window=window)
        third = supervisor.map(double, second, window=window)
        assert sorted(await third) == [2 * (2 * number + 1) for number in range(300)]
    assert counted(supervisor) == (900, 0, 0)


# ---- threads


@pytest.mark.parametrize("use", USES)
async def test_failure_in_a_thread(use: str) -> None:
    """In threads too the first failure ends a map; the function's own BaseExceptions harm nobody."""
    ran: list[int] = []

    def fails(number: int) -> int:
        ran.append(number)
        if number == 3:
            raise SystemExit(number)
        return number

    async with Supervisor(threads=2) as supervisor:
        with pytest.raises(JobFailed, match="SystemExit"):
            await USES[use](supervisor.map(fails, itertools.count(), window=4))
        assert max(ran) <= 3 + 4
        assert await supervisor.map(double, range(3)) == [0, 2, 4]


async def test_leaving_a_map_in_threads() -> None:
    """Leaving tells each running thread by its token, and none of the waiting items is begun."""
    told = threading.Semaphore(0)
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number:
            current_job().cancelled.wait()
            told.release()
        return number

    async with Supervisor(threads=3) as supervisor:
        async for number in supervisor.map(work, itertools.count()):
            assert number == 0
            while len(begun) < 4:
                await asyncio.sleep(0)
            break
        assert sorted(begun) == [0, 1, 2, 3]
        for _ in range(3):
            await asyncio.to_thread(told.acquire)
        assert await supervisor.map(abs, [-1]) == [1]
    assert sorted(begun) == [0, 1, 2, 3]


# ---- shown


@pytest.mark.parametrize("use", USES)
async def test_progress_in_a_log(use: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Piped, `progress` writes a line at the beginning and one at the end, with the total if known."""
    async with Supervisor() as supervisor:
        stream = supervisor.map(double, range(40)).progress("doubling")
        assert await USES[use](stream) == [2 * number for number in range(40)]
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == f"doubling: [{'.' * 20}] 0/40"
        assert lines[-1].startswith(f"doubling: [{'#' * 20}] 40/40, in ")
        await USES[use](supervisor.map(double, numbers(3)).progress())
        first, last = capsys.readouterr().err.splitlines()
        assert (first, last[: len("jobs: 3, in ")]) == ("jobs: 0", "jobs: 3, in ")
        await USES[use](supervisor.map(double, []).progress().outcomes())
        assert capsys.readouterr().err.splitlines() == ["jobs: 0/0", "jobs: 0/0, in 0.0 s"]


@pytest.mark.virtual_time
async def test_progress_says_so_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """Piped, there is a line every five seconds, with the rate and the time left, and none once the
    map is over.
    """
    async with Supervisor(1) as supervisor:
        await supervisor.map(asyncio.sleep, [6] * 4).progress()
        said = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
        assert said == [
            "0/4",
            "0/4",
            "1/4, 0.1/s, 30 s left",
            "2/4, 0.133/s, 15 s left",
            "3/4, 0.15/s, 7 s left",
            "4/4, in 24.0 s, 0.167/s",
        ]
        await asyncio.sleep(60)
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize("leaving", ["break", "failure", "cancelled"])
async def test_progress_ends_with_its_map(
    leaving: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the map ends, on a terminal the bar's last line is ended."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "rich.console", None)  # as if it were not installed

    async def work(number: int) -> int:
        if leaving == "failure" and number == 3:
            raise ValueError(number)
        if leaving == "cancelled" and number == 3:
            await forever()
        await asyncio.sleep(0)
        return number

    async def read() -> None:
        async for number in supervisor.map(work, range(10), window=1).progress("reading"):
            if leaving == "break" and number == 3:
                break

    async with Supervisor() as supervisor:
        reading = asyncio.create_task(read())
        while supervisor.stats().succeeded < 3:
            await asyncio.sleep(0)
        if leaving == "cancelled":
            reading.cancel()
        await asyncio.wait([reading])
        assert (type(reading.exception()) is ValueError) if leaving == "failure" else True
    text = capsys.readouterr().err
    assert text.startswith("\rreading: ")
    assert re.search(r"/10[^\n]*, in \d+\.\d s(, [\d.,]+/s)?\x1b\[K\n\Z", text)
    assert ("1 failed" in text) is (leaving == "failure")
    assert text.count("\n") == 1


@pytest.mark.parametrize("way", WAYS)
async def test_progress_and_outcomes_together(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`progress` and `outcomes` go together in either order, and what ended is counted, well or not."""

    async def odd_fails(number: int) -> int:
        if number % 2:
            raise ValueError(number)
        return number

    async with supervisor_of(way) as supervisor:
        for stream in (
            supervisor.map(odd_fails, range(6)).progress("odd").outcomes(),
            supervisor.map(odd_fails, range(6)).outcomes().progress("odd"),
        ):
            kinds = [one.exception() is None async for one in stream]
            assert kinds == [True, False] * 3
            assert "] 3/6 done, 3 failed, in " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("way", WAYS)
async def test_progress_tells_what_was_cancelled(
    way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Items that a drain cancels are not counted as done."""

    async def first_only(number: int) -> int:
        if number:
            await asyncio.Event().wait()
        return number

    async with supervisor_of(way) as supervisor:
        stream = supervisor.map(first_only, range(4), window=4).progress("first").outcomes()
        jobs = []

        async def read() -> None:
            async for one in stream:
                jobs.append(one)

        reading = asyncio.create_task(read())
        while supervisor.stats().succeeded < 1 or supervisor.stats().running < 3:
            await asyncio.sleep(0)
        await supervisor.drain(0)
        await asyncio.wait([reading])
        reading.exception()
        for one in jobs:
            one.exception()
    assert "] 1/4 done, 3 cancelled, in " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("way", WAYS)
async def test_items_are_let_go(way: str) -> None:
    """No item is kept alive by the worker that ran it, whatever that does next."""

    class Item:
        pass

    async def work(_: Item) -> None:
        await asyncio.sleep(0)

    async with supervisor_of(way, workers=1) as supervisor:
        items = [Item() for _ in range(10)]
        references = [weakref.ref(one) for one in items]
        reading = asyncio.create_task(awaited(supervisor.map(work, items)))
        await turns(3)
        token = tenant.set("somebody")  # so that the next job gets a context of its own
        blocking = await supervisor.submit(job(forever, priority=-1))
        tenant.reset(token)
        await reading
        await turns(3)
        assert blocking.state == "running"
        del items, reading
        assert [one() for one in references] == [None] * 10
        blocking.cancel()


async def test_map_on_a_queue_of_its_own() -> None:
    """A map runs where its function is declared to, and does not need the default queue."""
    async with Supervisor(0, queues=[Queue("mine", 2)]) as supervisor:
        assert await supervisor.map(job(double, queue="mine"), range(100)) == list(range(0, 200, 2))
        assert supervisor.stats().queues["mine"].succeeded == 100
        assert supervisor.stats().queues["default"].submitted == 0


@pytest.mark.asyncio
async def test_items_that_fail_to_close_when_left(caplog: pytest.LogCaptureFixture) -> None:
    """What closing an asynchronous generator raises is logged if nobody reads the map any more."""

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            raise KeyError("the file is gone")

    async def same(value: int) -> int:
        return value

    async with Supervisor() as supervisor:
        async with supervisor.map(same, items()) as stream:
            async for value in stream:
                assert value == 1
                break
    assert "the file is gone" in caplog.text


async def test_map_that_is_collected_in_another_thread() -> None:
    """Where a forgotten iterator is part of a cycle, any thread may be the one to find that nobody
    reads: what it had started is cancelled all the same, in the loop.
    """
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    threads: list[int] = []

    async def hold(_: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            threads.append(threading.get_ident())
            over.set()

    class Owner:
        def __init__(self, values: AsyncIterator[None]) -> None:
            self.values = values
            self.myself = self

    gc.disable()
    try:
        async with Supervisor(1) as supervisor:
            owner = Owner(aiter(supervisor.map(hold, itertools.count())))
            while not supervisor.stats().running:
                await asyncio.sleep(0)
            del owner
            await loop.run_in_executor(None, gc.collect)
            await over.wait()
        assert threads == [threading.get_ident()]
    finally:
        gc.enable()


@pytest.mark.parametrize("way", WAYS)
async def test_iterable_that_ends_everything(way: str) -> None:
    """Once the iterable's own code has cancelled everything, none of its items begins."""
    begun: list[int] = []

    async def work(number: int) -> None:
        begun.append(number)

    def items() -> Iterator[int]:
        for number in range(100):
            if number == 5:
                supervisor.cancel_all("enough")
            yield number

    async with supervisor_of(way) as supervisor:
        with pytest.raises(JobCancelled, match="enough"):
            await supervisor.map(work, items())
    assert not begun
    assert readers(supervisor) == 0


@pytest.mark.parametrize("way", WAYS)
async def test_values_that_hide_what_they_are(way: str) -> None:
    """Values are handed on untouched: that their `__class__` raises is nobody's concern."""

    class Proxy:
        @property  # type: ignore[misc]
        def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
            raise RuntimeError("bound to nothing")

    async def makes(_: int) -> object:
        return value

    value = Proxy()
    async with supervisor_of(way) as supervisor:
        assert all(one is value for one in await supervisor.map(makes, range(3)))


async def test_generator_that_ends_the_program_when_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A SystemExit out of the `finally` of the items does not end the loop: it is logged."""

    async def items() -> AsyncIterator[int]:
        try:
            for number in itertools.count():
                yield number
        finally:
            raise SystemExit("at the end")

    async with Supervisor() as supervisor:
        async with supervisor.map(double, items()) as stream:
            async for _ in stream:
                break
        assert await supervisor.call(double, 2) == 4
    assert "SystemExit: at the end" in caplog.text


@pytest.mark.parametrize("end", [GeneratorExit, KeyboardInterrupt])
@pytest.mark.parametrize("use", USES)
async def test_reader_that_is_torn_away(use: str, end: type[BaseException]) -> None:
    """Whatever ends who reads, also what is no cancellation, ends the jobs that nobody waits for."""
    async with Supervisor(1) as supervisor:
        reading = USES[use](supervisor.map(forever, range(3)))
        reading.send(None)
        await turns(3)
        assert supervisor.stats().running == 1
        with pytest.raises(end):
            reading.throw(end())
        del reading
        await turns(3)
        assert readers(supervisor) == 0
        assert counted(supervisor) == (0, 0, 1)
