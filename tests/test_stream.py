"""Streams: what `map` returns, as a list, one by one, as they come, or as settled jobs."""

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
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
    Job,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobTimedOut,
    Retry,
    Supervisor,
    SupervisorClosed,
    current_job,
    job,
)

pytestmark = pytest.mark.asyncio


# ---- values


@pytest.mark.parametrize("count", [0, 1, 7, 64, 65, 1_000])
@pytest.mark.parametrize("function", [double, double_later, double_in_thread])
@pytest.mark.parametrize("way", WAYS)
async def test_values_in_order(way: str, function: Callable[[int], Any], count: int) -> None:
    """Awaited or iterated, from iterables of both kinds: every value, in the items' order."""
    expected = [2 * number for number in range(count)]
    async with supervisor_of(way) as supervisor:
        assert await supervisor.map(function, range(count)) == expected
        assert [value async for value in supervisor.map(function, range(count))] == expected
        assert await supervisor.map(function, numbers(count)) == expected
        assert [value async for value in supervisor.map(function, numbers(count))] == expected
        assert await supervisor.map(function, iter(range(count)), ordered=False) == expected
    assert counted(supervisor) == (5 * count, 0, 0)


@pytest.mark.parametrize("window", [1, 2, 3, 10])
@pytest.mark.parametrize("way", WAYS)
async def test_small_windows(way: str, window: int) -> None:
    """However small the window, everything comes through, from iterables of both kinds."""
    expected = [2 * number for number in range(200)]
    async with supervisor_of(way) as supervisor:
        for items in (lambda: range(200), lambda: numbers(200)):
            for ordered in (True, False):
                options: dict[str, Any] = {"ordered": ordered, "window": window}
                assert await supervisor.map(double_later, items(), **options) == expected
                stream = supervisor.map(double_later, items(), **options)
                assert sorted([value async for value in stream]) == expected
    assert counted(supervisor) == (1_600, 0, 0)


@pytest.mark.parametrize("way", WAYS)
async def test_unordered_as_they_come(way: str) -> None:
    """Unordered values come in the order in which their jobs end."""
    gates = [asyncio.Event() for _ in range(4)]

    async def waits(number: int) -> int:
        await gates[number].wait()
        return number

    async with supervisor_of(way) as supervisor:
        stream = supervisor.map(waits, range(4), ordered=False)
        came = []
        order = [2, 0, 3, 1]
        gates[order[0]].set()
        async for number in stream:
            came.append(number)
            if len(came) < 4:
                gates[order[len(came)]].set()
        assert came == order


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("way", WAYS)
async def test_outcomes(way: str, ordered: bool) -> None:
    """`outcomes` gives settled jobs with input and end; one failure ends nothing."""

    async def odd_fails(number: int) -> int:
        await asyncio.sleep(0)
        if number % 2:
            raise ValueError(number)
        return number

    async with supervisor_of(way) as supervisor:
        stream = supervisor.map(odd_fails, range(100), ordered=ordered).outcomes()
        seen: dict[int, Job[int]] = {}
        async for one in stream:
            assert one.done()
            (number,) = one.args
            seen[number] = one
        if ordered:
            assert list(seen) == list(range(100))
        for number in range(100):
            error = seen[number].exception()
            if number % 2:
                assert isinstance(error, ValueError)
                assert error.args == (number,)
            else:
                assert seen[number].result() == number
        jobs = await supervisor.map(odd_fails, numbers(10)).outcomes()
        assert [one.exception() is None for one in jobs] == [True, False] * 5
    assert counted(supervisor) == (55, 55, 0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("as_jobs", [False, True])
async def test_a_list_waits_for_no_item_before_it_takes_others(way: str, as_jobs: bool) -> None:
    """Who awaits all results, or all settled jobs, has the first item keep none of 500 others waiting."""
    last = asyncio.Event()

    async def first_ends_last(number: int) -> int:
        if number == 500:
            last.set()
        elif number == 0:
            async with asyncio.timeout(30):
                await last.wait()
        return number

    async with supervisor_of(way) as supervisor:
        if as_jobs:
            jobs = await supervisor.map(first_ends_last, range(501)).outcomes()
            values = [one.result() for one in jobs]
        else:
            values = await supervisor.map(first_ends_last, range(501))
    assert values == list(range(501))


# ---- bounds


@pytest.mark.parametrize("kind", ["iterable", "async iterable"])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("way", WAYS)
async def test_bounded_at_both_ends(way: str, ordered: bool, kind: str) -> None:
    """Of an endless iterable never more than `window` items are between it and the loop's body."""
    pulled = read = most = 0

    def endless() -> Iterator[int]:
        nonlocal pulled, most
        for number in itertools.count():
            pulled += 1
            most = max(most, pulled - read)
            yield number

    async def endless_async() -> AsyncIterator[int]:
        for number in endless():
            yield number

    async with supervisor_of(way) as supervisor:
        items = endless() if kind == "iterable" else endless_async()
        async for _ in supervisor.map(double_later, items, ordered=ordered, window=10):
            read += 1
            if read == 300:
                break
            if read % 50 == 0:  # a slow reader: everything fills up
                await turns(100)
                assert pulled - read <= 10
    assert read == 300
    assert most <= 10 + 1  # the reader counts an item a moment after it was handed to it


@pytest.mark.parametrize("way", WAYS)
async def test_awaiting_is_bounded_too(way: str) -> None:
    """Awaited, a long iterable is pulled as jobs end, never more than `window` ahead."""
    pulled = ended = most = 0

    def items() -> Iterator[int]:
        nonlocal pulled, most
        for number in range(2_000):
            pulled += 1
            most = max(most, pulled - ended)
            yield number

    async def count(number: int) -> int:
        nonlocal ended
        await asyncio.sleep(0)
        ended += 1
        return number

    async with supervisor_of(way) as supervisor:
        assert len(await supervisor.map(count, items(), window=16)) == 2_000
    assert most <= 16


@pytest.mark.parametrize("kind", ["iterable", "async iterable"])
@pytest.mark.parametrize(("workers", "window"), [(4, 64), (100, 200)])
async def test_default_window(workers: int, window: int, kind: str) -> None:
    """Without a window, at most twice the workers, and at least 64, are on their way: an iterable
    is asked for a few at a time and enough to keep all workers busy, an async one for all of it.
    """
    gate = asyncio.Event()
    pulled: list[int] = []

    async def waits(_: int) -> None:
        await gate.wait()

    def items() -> Iterator[int]:
        for number in range(1_000):
            pulled.append(number)
            yield number

    async def async_items() -> AsyncIterator[int]:
        for number in items():
            yield number

    async with Supervisor(workers) as supervisor:
        given = items() if kind == "iterable" else async_items()
        reading = asyncio.create_task(iterated(supervisor.map(waits, given)))
        while supervisor.stats().running < workers:
            await asyncio.sleep(0)
        await turns(50)
        assert workers <= len(pulled) <= window
        assert len(pulled) == window or kind == "iterable"
        gate.set()
        assert len(await reading) == 1_000


# ---- failures


@pytest.mark.parametrize("way", WAYS)
async def test_first_failure_ends_an_awaited_map(way: str) -> None:
    """The first failure in time: nothing more is pulled, the rest is cancelled, all of it has
    ended before the error is raised, and a note says which item it was.
    """
    pulled: list[int] = []
    cleaned: list[int] = []
    fail_now = asyncio.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            pulled.append(number)
            yield number

    async def work(number: int) -> None:
        if number == 2:
            await fail_now.wait()
            raise ValueError(number)
        try:
            if number == 3:
                fail_now.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(number)

    async with supervisor_of(way) as supervisor:
        with pytest.raises(ValueError, match="2") as caught:
            await supervisor.map(work, items(), window=5)
        assert caught.value.__notes__ == ["item 2 of its map, counted from 0"]
        assert pulled == [0, 1, 2, 3, 4]
        assert sorted(cleaned) == [0, 1, 3]  # four at once: the fifth never began
        assert await supervisor.call(double, 1) == 2
    assert supervisor.stats().failed == 1


@pytest.mark.parametrize("way", WAYS)
async def test_ordered_iteration_yields_what_precedes_a_failure(way: str) -> None:
    """Ordered, the values before the failing item come first, though they end after it."""
    failed = asyncio.Event()
    cancelled: list[int] = []

    async def work(number: int) -> int:
        if number == 2:
            failed.set()
            raise ValueError(number)
        try:
            await failed.wait()
            await turns(5)
            if number > 2:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    async with supervisor_of(way) as supervisor:
        came = []
        with pytest.raises(ValueError, match="2"):
            async for number in supervisor.map(work, itertools.count(), window=4):
                came.append(number)
        assert came == [0, 1]
        assert cancelled in ([], [3])  # the fourth may not have begun when the third failed


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("way", WAYS)
async def test_which_of_two_failures(way: str, ordered: bool) -> None:
    """Ordered, the failure of the earliest item is raised; unordered, the first in time. A note says
    which item it was.
    """
    later_failed = asyncio.Event()

    async def work(number: int) -> int:
        if number == 3:
            later_failed.set()
            raise ValueError(number)
        await later_failed.wait()
        if number == 1:
            raise ValueError(number)
        return number

    async with supervisor_of(way) as supervisor:
        came = []
        with pytest.raises(ValueError, match="1" if ordered else "3") as caught:
            async for number in supervisor.map(work, range(4), ordered=ordered):
                came.append(number)
        assert caught.value.__notes__ == [f"item {caught.value} of its map, counted from 0"]
        assert came == ([0] if ordered else [])


@pytest.mark.parametrize("kind", ["iterable", "async iterable"])
@pytest.mark.parametrize("way", WAYS)
async def test_iterable_that_raises(way: str, kind: str) -> None:
    """What the iterable raises ends the map after everything that came before."""

    def broken() -> Iterator[int]:
        yield from range(10)
        raise LookupError("of the items")

    async def broken_async() -> AsyncIterator[int]:
        for number in broken():
            yield number

    make = broken if kind == "iterable" else broken_async
    async with supervisor_of(way) as supervisor:
        for ordered in (True, False):
            came = []
            with pytest.raises(LookupError, match="of the items"):
                async for number in supervisor.map(double_later, make(), ordered=ordered):
                    came.append(number)
            assert sorted(came) == [2 * number for number in range(10)]
        with pytest.raises(LookupError, match="of the items"):
            await supervisor.map(double_later, make())
        ends = []
        with pytest.raises(LookupError, match="of the items"):
            async for one in supervisor.map(double_later, make()).outcomes():
                ends.append(one)
        assert [one.result() for one in ends] == [2 * number for number in range(10)]


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()]
)
@pytest.mark.parametrize("way", WAYS)
async def test_what_is_no_exception(way: str, error: BaseException) -> None:
    """What jobs or the iterable raise beyond exceptions becomes a JobFailed, and harms nobody."""

    async def work(number: int) -> int:
        if number == 3:
            raise error
        return number

    def broken() -> Iterator[int]:
        yield 1
        raise error

    async with supervisor_of(way) as supervisor:
        for items in (range(10), broken()):
            with pytest.raises(JobFailed) as caught:
                await supervisor.map(work, items)
            assert caught.value.__cause__ is error
        assert await supervisor.map(double, range(10)) == [2 * number for number in range(10)]


@pytest.mark.parametrize("way", WAYS)
async def test_what_nobody_reads_is_logged(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of two failures one is raised by the map; the other is logged like that of any job."""

    async def work(number: int) -> None:
        try:
            if number == 0:
                await asyncio.sleep(0)
                raise ValueError("the first")
            await asyncio.Event().wait()
        finally:
            if number == 1:
                await supervisor.call(fail)

    async def fail() -> None:
        raise LookupError("the second")

    async with supervisor_of(way) as supervisor:
        with pytest.raises(ValueError, match="the first"):
            await supervisor.map(work, range(2))
        gc.collect()
    assert not any("the first" in record.getMessage() for record in caplog.records)


# ---- leaving early


@pytest.mark.parametrize("way", WAYS)
async def test_break_cancels_at_once(way: str) -> None:
    """Leaving the loop cancels what was started, without another word from anybody."""
    started: list[int] = []
    cancelled: list[int] = []

    async def work(number: int) -> int:
        started.append(number)
        if number == 0:
            return number
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    async with supervisor_of(way) as supervisor:
        async for _ in supervisor.map(work, itertools.count()):
            while len(started) < 5:
                await asyncio.sleep(0)
            break
        stats = supervisor.stats()
        assert stats.queued == stats.scheduled == 0
        assert all(one.why.endswith("has not ended yet") for one in supervisor.jobs())
        await turns(5)
        assert sorted(cancelled) == started[1:] == [1, 2, 3, 4]
        assert supervisor.stats().running == 0
        assert await supervisor.call(double, 1) == 2
    assert supervisor.stats().cancelled == 4


@pytest.mark.parametrize("leaving", ["break", "raise"])
@pytest.mark.parametrize("way", WAYS)
async def test_async_with_leaves_nothing(way: str, leaving: str) -> None:
    """On leaving `async with`, however, all of the map's jobs have ended."""
    begun: list[int] = []
    ended: list[int] = []

    async def work(number: int) -> int:
        begun.append(number)
        try:
            if number:
                await asyncio.Event().wait()
        finally:
            if number:
                await asyncio.sleep(0)
            ended.append(number)
        return number

    async with supervisor_of(way) as supervisor:
        try:
            async with supervisor.map(work, itertools.count()) as stream:
                async for number in stream:
                    assert number == 0
                    while len(begun) < 5:
                        await asyncio.sleep(0)
                    if leaving == "break":
                        break
                    raise LookupError
        except LookupError:
            assert leaving == "raise"
        stats = supervisor.stats()
        assert stats.running == stats.queued == 0
        assert sorted(ended) == begun == [0, 1, 2, 3, 4]
        async with supervisor.map(double, range(3)) as stream:
            assert [value async for value in stream] == [0, 2, 4]
        async with supervisor.map(double, range(3)):
            pass  # used, though nobody read


@pytest.mark.parametrize("use", ["await", "iterate"])
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_awaiter_cancels_its_jobs(way: str, use: str) -> None:
    """Cancelling whoever awaits or iterates a map cancels the map's jobs."""
    running: set[int] = set()

    async def work(number: int) -> None:
        running.add(number)
        try:
            await asyncio.Event().wait()
        finally:
            running.discard(number)

    consume = awaited if use == "await" else iterated
    async with supervisor_of(way) as supervisor:
        for items in (itertools.count(), numbers(1_000)):
            reading = asyncio.create_task(consume(supervisor.map(work, items)))
            while len(running) < 4:
                await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            del reading
            await turns(10)
            assert not running
        assert await supervisor.call(double, 1) == 2


async def test_used_once() -> None:
    """A map that was never used did nothing, and says so; one that was used is refused."""
    async with Supervisor() as supervisor:
        stream = supervisor.map(double, range(3))
        assert "not started" in repr(stream)
        with pytest.warns(RuntimeWarning, match="a map was never used"):  # noqa: PT031
            del stream
            gc.collect()
        assert supervisor.stats().submitted == 0
        stream = supervisor.map(double, range(3))
        assert await stream == [0, 2, 4]
        assert "used" in repr(stream)
        with pytest.raises(RuntimeError, match="can be used once"):
            await stream
        with pytest.raises(RuntimeError, match="can be used once"):
            stream.outcomes()
        with pytest.raises(TypeError, match="items must be an iterable"):
            supervisor.map(double, 3)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="window"):
            supervisor.map(double, range(3), window=0)
        with pytest.raises(TypeError, match="ordered"):
            supervisor.map(double, range(3), ordered=1)  # type: ignore[call-overload]
        late = supervisor.map(double, range(3))
    with pytest.raises(SupervisorClosed):
        await late


async def test_two_readers_are_refused() -> None:
    """A stream has one reader at a time: the second is told so."""
    gate = asyncio.Event()

    async def waits(number: int) -> int:
        await gate.wait()
        return number

    async with Supervisor() as supervisor:
        async with supervisor.map(waits, range(3)) as stream:
            iterator = aiter(stream)
            first = asyncio.ensure_future(anext(iterator))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="being read already"):
                await anext(iterator)
            gate.set()
            assert await first == 0
            assert [number async for number in iterator] == [1, 2]


# ---- the supervisor's end


@pytest.mark.parametrize("way", WAYS)
async def test_supervisor_ends_while_a_map_is_read(way: str) -> None:
    """Whoever reads when the supervisor stops gets what had ended, then a JobCancelled."""

    async def work(number: int) -> int:
        if number:
            await asyncio.Event().wait()
        return number

    came: list[int] = []

    async def read(supervisor: Supervisor) -> None:
        async for number in supervisor.map(work, itertools.count()):
            came.append(number)

    with pytest.raises(LookupError):
        async with supervisor_of(way) as supervisor:
            reading = asyncio.create_task(read(supervisor))
            while not came:
                await asyncio.sleep(0)
            raise LookupError
    with pytest.raises(JobCancelled, match="left with an exception"):
        await reading
    assert came == [0]
    assert counted(supervisor)[0] == 1


@pytest.mark.parametrize("way", WAYS)
async def test_normal_exit_finishes_a_map_that_is_read(way: str) -> None:
    """Leaving the supervisor normally waits for a map that somebody reads."""
    async with supervisor_of(way, workers=2) as supervisor:
        reading = asyncio.create_task(iterated(supervisor.map(double_later, range(500), window=3)))
        awaiting = asyncio.create_task(awaited(supervisor.map(double_later, numbers(500))))
        await asyncio.sleep(0)
    assert await reading == await awaiting == [2 * number for number in range(500)]


# ---- inside a job


@pytest.mark.parametrize("reading", ["await", "iterate", "async with", "outcomes"])
@pytest.mark.parametrize("way", WAYS)
async def test_map_inside_a_job_lends_its_slot(way: str, reading: str) -> None:
    """A job that reads a map on its own queue with one worker ends, three levels deep."""

    async def leaf(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def branch(depth: int) -> int:
        function: Any = branch if depth else leaf
        items = [depth - 1 if depth else number for number in range(3)]
        stream = supervisor.map(function, items)
        if reading == "await":
            return sum(await stream)
        if reading == "iterate":
            return sum([value async for value in stream])
        if reading == "outcomes":
            return sum([one.result() async for one in stream.outcomes()])
        async with stream as entered:
            return sum([value async for value in entered])

    async with supervisor_of(way, workers=1) as supervisor:
        assert await supervisor.call(branch, 2) == 9 * (0 + 1 + 2)
        stats = supervisor.stats().queues["default"]
        assert (stats.lent, stats.running) == (0, 0)


@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_job_cancels_its_map(way: str) -> None:
    """Cancelling a job that reads a map cancels the map's jobs too."""
    started = asyncio.Event()
    cancelled = asyncio.Event()

    async def leaf(_: int) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def parent() -> None:
        await supervisor.map(leaf, range(3))

    async with supervisor_of(way, workers=1) as supervisor:
        one = await supervisor.submit(parent)
        await started.wait()
        one.cancel("enough")
        with pytest.raises(JobCancelled, match="enough"):
            await one
        await cancelled.wait()


# ---- policies


@pytest.mark.virtual_time
@pytest.mark.parametrize("way", WAYS)
async def test_delay_timeout_retry_expires(way: str) -> None:
    """Every policy of the function holds for each item."""
    loop = asyncio.get_running_loop()
    tried: list[tuple[int, float]] = []

    async def flaky(number: int) -> int:
        tried.append((number, loop.time()))
        if len([one for one, _ in tried if one == number]) < 3:
            raise OSError(number)
        return number

    retry = Retry(3, on=OSError, delay=10, factor=2, jitter=False)
    async with supervisor_of(way) as supervisor:
        assert await supervisor.map(job(flaky, retry=retry), range(4)) == [0, 1, 2, 3]
        assert loop.time() == 30
        assert sorted(tried) == [(n, t) for n in range(4) for t in (0.0, 10.0, 30.0)]
        began = loop.time()
        delayed = job(double, delay=5)
        assert await supervisor.map(delayed, range(100), window=10) == [2 * n for n in range(100)]
        assert loop.time() - began == pytest.approx(50)
        with pytest.raises(JobTimedOut):
            await supervisor.map(job(asyncio.sleep, timeout=2), [1, 3])
        expired = supervisor.map(job(asyncio.sleep, expires=1), [2] * 8).outcomes()
        kinds = [type(one.exception()) async for one in expired]
        assert kinds == [type(None)] * 4 + [JobExpired] * 4


@pytest.mark.parametrize("way", WAYS)
async def test_priority(way: str) -> None:
    """The items of an urgent map go before jobs and maps that are not, though they came first."""
    order: list[str] = []

    async def note(name: str) -> None:
        order.append(name)

    async with supervisor_of(way, workers=1) as supervisor:
        supervisor.pause("default")
        jobs = [await supervisor.submit(note, "job") for _ in range(3)]
        ordinary = asyncio.create_task(awaited(supervisor.map(note, ["ordinary"] * 3)))
        await asyncio.sleep(0)
        urgent = asyncio.create_task(awaited(supervisor.map(job(note, priority=1), ["urgent"] * 3)))
        await asyncio.sleep(0)
        supervisor.resume("default")
        await asyncio.gather(urgent, ordinary, *(one.wait() for one in jobs))
        assert order[:3] == ["urgent"] * 3
        assert sorted(order[3:]) == ["job"] * 3 + ["ordinary"] * 3


@pytest.mark.parametrize("way", WAYS)
async def test_streams_and_jobs_take_turns(way: str) -> None:
    """An endless map does not keep other jobs, or another map, from their turn."""
    async with supervisor_of(way, workers=2) as supervisor:

        async def endlessly() -> None:
            async for _ in supervisor.map(double, itertools.count()):
                pass

        endless = asyncio.create_task(endlessly())
        await asyncio.sleep(0)
        for number in range(20):
            assert await supervisor.call(double, number) == 2 * number
        assert await supervisor.map(double, range(300)) == [2 * n for n in range(300)]
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless


tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@pytest.mark.parametrize("way", WAYS)
async def test_context_of_the_reader(way: str) -> None:
    """Items see the context variables of whoever reads the map, and not those of each other; the
    iterable's code runs in that context too.
    """
    seen: list[str] = []

    async def changes(number: int) -> str:
        found = tenant.get()
        tenant.set(f"item {number}")
        await asyncio.sleep(0)
        assert tenant.get() == f"item {number}"
        return found

    def items() -> Iterator[int]:
        for number in range(100):
            seen.append(tenant.get())
            yield number

    async with supervisor_of(way) as supervisor:
        assert await supervisor.map(changes, items()) == ["nobody"] * 100
        tenant.set("me")
        assert await supervisor.map(changes, items()) == ["me"] * 100
        assert seen == ["nobody"] * 100 + ["me"] * 100
        private = job(changes, context="none")
        assert await supervisor.map(private, items()) == ["nobody"] * 100
        assert tenant.get() == "me"


@pytest.mark.parametrize("way", WAYS)
async def test_current_job_in_a_map(way: str) -> None:
    """Code of an item can ask which job it is, also in a subtask and after an await; each item is
    a job of its own.
    """

    async def ask() -> str:
        return current_job().id

    async def asks(number: int) -> tuple[str, str, str, int]:
        first = current_job().id
        await asyncio.sleep(0)
        second = current_job().id
        third = await asyncio.create_task(ask())
        current_job().report(number, 100)
        return first, second, third, number

    async with supervisor_of(way) as supervisor:
        answers = await supervisor.map(asks, range(50))
        assert [number for *_, number in answers] == list(range(50))
        assert all(first == second == third for first, second, third, _ in answers)
        assert len({first for first, *_ in answers}) == 50
        assert counted(supervisor) == (50, 0, 0)
    with pytest.raises(RuntimeError):
        current_job()


@pytest.mark.parametrize("way", WAYS)
async def test_running_items_can_be_seen_and_cancelled(way: str) -> None:
    """The items that run are among the supervisor's jobs; one that is cancelled ends as that."""
    gate = asyncio.Event()

    async def waits(number: int) -> int:
        await gate.wait()
        return number

    async with supervisor_of(way) as supervisor:
        reading = asyncio.create_task(awaited(supervisor.map(waits, range(4)).outcomes()))
        while supervisor.stats().running < 4:
            await asyncio.sleep(0)
        jobs = sorted(supervisor.jobs(), key=lambda one: one.args)
        assert [one.args for one in jobs] == [(0,), (1,), (2,), (3,)]
        assert supervisor.get(jobs[1].id) is jobs[1]
        jobs[1].cancel("this one")
        gate.set()
        ends = await reading
        assert ends[1] is jobs[1]
        cancelled = [isinstance(one.exception(), JobCancelled) for one in ends]
        assert cancelled == [False, True, False, False]
    assert counted(supervisor) == (3, 0, 1)
