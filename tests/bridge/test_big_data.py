"""Big data through the front door: submit and await, on both loops, with real children and real kills."""

import asyncio
import contextlib
import errno
import gc
import io
import os
import resource
import select
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import big_jobs
import numpy as np
import pytest

from asyncworkers import (
    Cancelled,
    Failed,
    NotSerializable,
    Retry,
    Supervisor,
    WorkerCrashed,
    job,
)
from asyncworkers.bridge.child import arena, freight
from asyncworkers.testing import no_leaks

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(sys.platform == "win32", reason="there are no child processes of ours"),
]
OTHERS = ("shared memory /dev/shm/*",)
"""The arena has no name there: what has one is other people's."""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs memfd and /proc")

MIB = 1 << 20

pid, describe, same, ones, zeros, keep, kept, forget, fail_once, die_while_writing = (
    job(getattr(big_jobs, name), cpu=True)
    for name in (
        *("pid", "describe", "same", "ones", "zeros", "keep", "kept", "forget", "fail_once"),
        "die_while_writing",
    )
)
limit_space = job(big_jobs.limit_space, cpu=True)


@contextlib.asynccontextmanager
async def one_child(processes: int = 1) -> AsyncIterator[Supervisor]:
    """A supervisor with so many children; nothing of them is left at the end."""
    async with no_leaks(ignore=OTHERS):
        async with Supervisor(processes=processes) as supervisor:
            yield supervisor
        gc.collect()


async def do(supervisor: Supervisor, function: Any, *args: Any) -> Any:
    """The value of a job."""
    return await (await supervisor.submit(function, *args))


def arena_of(running: Any) -> arena.Memory:
    """The arena of the child that a job was sent to."""
    return running._value.process.freighter._memory


def lies_in_an_arena(array: np.ndarray) -> bool:
    """True if the array's data are in mapped shared memory, not in a copy of it."""
    at = array.__array_interface__["data"][0]
    maps = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in maps if "memfd:asyncworkers" in line]
    return any(int(start, 16) <= at < int(end, 16) for start, end in spans)


async def test_arrays_are_arguments_and_results_in_place() -> None:
    """An array is read in the child where the parent put it, and may not be written; a result is
    used in the parent where the child put it, and may be.
    """
    array = np.random.default_rng(1).random(MIB)
    async with one_child() as supervisor:
        assert await do(supervisor, describe, array) == (False, False, array.sum())
        result = await do(supervisor, ones, MIB)
        assert result.flags.writeable
        if sys.platform == "linux":
            assert lies_in_an_arena(result)
        result += 1
        assert result.sum() == 2 * MIB
        del result
        assert np.array_equal(await do(supervisor, same, array), array)
        both = await do(supervisor, same, {"a": array, "b": [array, 1, "x"]})
        assert both["a"] is both["b"][0]
        assert np.array_equal(both["a"], array)
        del both


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_bytes_of_all_kinds_cross_and_stay_what_they_are(kind: Any) -> None:
    """Bytes, bytearrays and memoryviews, small and big, arrive as such on both sides."""
    async with one_child() as supervisor:
        for size in (10, 100_000, 3 * MIB + 1):
            value = kind(np.random.default_rng(size).bytes(size))
            got = await do(supervisor, same, value)
            assert type(got) is kind
            assert got == value
            del got


async def test_results_outlive_their_jobs_and_their_supervisor() -> None:
    """Kept results stay as they were under all later ones, and when the children are gone."""
    async with no_leaks(ignore=OTHERS):
        async with Supervisor(processes=2) as supervisor:
            results = [await do(supervisor, ones, MIB, i) for i in range(6)]
            for i in range(20):
                assert (await do(supervisor, ones, MIB + i)).sum() == MIB + i
        assert [set(np.unique(result)) for result in results] == [{i} for i in range(6)]
        results[0][:] = 9
        assert (results[0].sum(), results[1].sum()) == (9 * MIB, MIB)
        del results
        gc.collect()


async def test_arguments_that_a_job_keeps_stay_as_they_were() -> None:
    """What a child keeps of its arguments is not written over by those of later jobs."""
    async with one_child() as supervisor:
        for i in range(4):
            await do(supervisor, keep, np.full(MIB, float(i)))
        for i in range(10):
            await do(supervisor, describe, np.full(MIB, 7.0 + i))
        assert await do(supervisor, kept) == [0, MIB, 2 * MIB, 3 * MIB]
        await do(supervisor, forget)


async def test_the_same_room_is_used_again() -> None:
    """Fifty arrays, one after the other, there and back, take the memory of two at most each way."""
    async with one_child() as supervisor:
        for i in range(50):
            sent = await supervisor.submit(same, np.full(MIB // 8, i))
            while sent.state == "queued":
                await asyncio.sleep(0)
            if sent.state == "running" and i == 49:
                assert arena_of(sent).resident < 6 * MIB
            assert (await sent)[-1] == i
            del sent


async def test_many_jobs_with_big_data_share_children_fairly() -> None:
    """Arrays of many sizes, mixed with small jobs, all arrive where they belong."""
    async with one_child(2) as supervisor:
        jobs = [
            await supervisor.submit(same, np.full(i * 5000, i) if i % 3 else i) for i in range(60)
        ]
        for i, one in enumerate(jobs):
            got = await one
            assert (len(got), set(np.unique(got))) == (i * 5000, {i}) if i % 3 else got == i
            del got
        del jobs, one


async def test_the_loop_turns_while_big_data_cross() -> None:
    """The loop turns at least once for each MiB copied, of arguments and of bytes that come back."""
    turns = 0

    def tick() -> None:
        nonlocal turns, handle
        turns += 1
        handle = loop.call_soon(tick)

    loop = asyncio.get_running_loop()
    async with one_child() as supervisor:
        await do(supervisor, pid)
        sizes: list[int] = []
        whole = arena.Writer._write

        def write(self: Any, at: int, piece: memoryview) -> None:
            sizes.append(len(piece))
            whole(self, at, piece)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arena.Writer, "_write", write)
            handle = loop.call_soon(tick)
            try:
                sent = await supervisor.submit(describe, np.ones(64 * MIB, "u1"))
                while len(sizes) < 64:
                    await asyncio.sleep(0)
                assert turns >= 63
                await sent
                turns = 0
                assert len(await do(supervisor, zeros, 64 * MIB, "bytes")) == 64 * MIB
                assert turns >= 63
            finally:
                handle.cancel()
        assert max(sizes) <= MIB


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["array", "bytes", "bytearray"])
async def test_a_result_of_a_gigabyte(kind: str) -> None:
    """A gigabyte comes back whole, as an array in place or as bytes."""
    async with one_child() as supervisor:
        result = await do(supervisor, zeros, 1 << 30, kind)
        assert len(result) == 1 << 30
        assert not any(result[:: 1 << 20])
        del result


async def test_a_retry_sends_the_data_again() -> None:
    """A job that failed with a big argument gets the same argument in its next attempt."""
    array = np.ones(MIB)
    async with one_child() as supervisor:
        again = job(big_jobs.fail_once, cpu=True, retry=Retry(2, on=ValueError, delay=0))
        one = await supervisor.submit(again, array)
        assert await one == MIB
        assert one.attempt == 2
        await do(supervisor, forget)


# ---- what may go wrong


async def killed_at(supervisor: Supervisor, step: int, patch: pytest.MonkeyPatch) -> int:
    """Have the child killed when the parent copies so many MiB; its pid."""
    child = await do(supervisor, pid)
    whole, steps = arena.Writer._write, []

    def write(self: Any, at: int, piece: memoryview) -> None:
        steps.append(at)
        if len(steps) == step:
            os.kill(child, signal.SIGKILL)
        whole(self, at, piece)

    patch.setattr(arena.Writer, "_write", write)
    return child


@pytest.mark.parametrize("step", [1, 4, 8])
async def test_a_child_killed_while_its_arguments_are_copied(
    monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A job that was being sent has not begun: it runs in the next child, no attempt spent."""
    array = np.random.default_rng(3).random(MIB)
    async with one_child() as supervisor:
        child = await killed_at(supervisor, step, monkeypatch)
        one = await supervisor.submit(describe, array)
        assert await one == (False, False, array.sum())
        assert one.attempt == 1
        assert await do(supervisor, pid) != child


async def test_a_child_killed_while_it_writes_its_result() -> None:
    """A result cut short by a kill is a crash of that job only; earlier results stay whole."""
    async with one_child() as supervisor:
        before = await do(supervisor, ones, MIB)
        one = await supervisor.submit(die_while_writing, 8 * MIB)
        outcome = await one.wait()
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, WorkerCrashed)
        assert (await do(supervisor, ones, MIB)).sum() == MIB
        assert before.sum() == MIB
        del before


@on_linux
@pytest.mark.parametrize("step", [1, 5])
async def test_a_job_cancelled_while_its_arguments_are_copied(
    monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Copying stops, the job is cancelled, and its room is free for the next one."""
    whole, steps = arena.Writer._write, []

    def write(self: Any, at: int, piece: memoryview) -> None:
        whole(self, at, piece)
        steps.append(self)
        if len(steps) == step:
            jobs[0].cancel("enough")

    async with one_child() as supervisor:
        await do(supervisor, pid)
        monkeypatch.setattr(arena.Writer, "_write", write)
        jobs = [await supervisor.submit(describe, np.ones(2 * MIB))]
        assert await jobs[0].wait() == Cancelled("enough")
        copied = len(steps)
        assert await do(supervisor, describe, np.ones(MIB)) == (False, False, MIB)
        assert copied == step
        assert len({id(writer) for writer in steps}) == 1
        assert steps[0].out <= 1
        assert steps[0].warm <= 8 * MIB + 4096


@on_linux
async def test_a_job_cancelled_in_the_line_gives_its_room_back() -> None:
    """Data of a job that a child skips are free again, although nobody looked at them."""
    async with one_child() as supervisor:
        child = await do(supervisor, pid)
        for _ in range(5):
            await do(supervisor, describe, np.ones(MIB // 8))
        os.kill(child, signal.SIGSTOP)
        try:
            jobs = [await supervisor.submit(describe, np.ones(MIB // 8)) for _ in range(2)]
            while not hasattr(jobs[0]._value, "process"):
                await asyncio.sleep(0)
            memory = arena_of(jobs[0])
            while memory.writer.out < 1 or jobs[0]._value.process.freighter.loads:
                await asyncio.sleep(0)
            for one in jobs:
                one.cancel("enough")
        finally:
            os.kill(child, signal.SIGCONT)
        assert [await one.wait() for one in jobs] == [Cancelled("enough")] * 2
        assert await do(supervisor, pid) == child
        memory.writer.collect()
        assert memory.writer.out == 0
        del memory


@on_linux
async def test_no_memory_for_an_argument_fails_that_job_only() -> None:
    """A job whose argument finds no memory fails with MemoryError that says so; the next one runs."""
    async with one_child() as supervisor:
        await do(supervisor, pid)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, limits[1]))
        try:
            one = await supervisor.submit(describe, np.ones(MIB))
            outcome = await one.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, MemoryError)
        assert "no shared memory for the arguments" in str(outcome.error)
        assert errno.errorcode[errno.EFBIG] in str(outcome.error)
        assert await do(supervisor, describe, np.ones(MIB)) == (False, False, MIB)


@on_linux
async def test_no_memory_for_a_result_fails_that_job_only() -> None:
    """A job whose result finds no memory fails with MemoryError that says so; small ones still run."""
    async with one_child() as supervisor:
        with pytest.raises(MemoryError, match="no shared memory for the result"):
            await do(supervisor, job(big_jobs.result_without_memory, cpu=True), 8 * MIB)
        assert await do(supervisor, pid) > 0


@on_linux
async def test_a_child_that_has_no_room_for_the_arena() -> None:
    """Where a limit of the address space leaves none, a job with a big argument fails alone with MemoryError,
    which says what to do, and results come through the pipe.
    """
    async with one_child() as supervisor:
        child = await do(supervisor, pid)
        await do(supervisor, limit_space, 64 * MIB, resource.RLIMIT_AS)
        for _ in range(2):
            with pytest.raises(MemoryError, match="RLIMIT_DATA"):
                await do(supervisor, describe, np.ones(MIB))
        result = await do(supervisor, ones, MIB // 2)
        assert result.sum() == MIB // 2
        assert not lies_in_an_arena(result)
        assert await do(supervisor, pid) == child


@on_linux
async def test_a_child_that_has_no_memory_for_bytes() -> None:
    """Bytes that are an argument own their memory: if there is none, that job fails alone."""
    async with one_child() as supervisor:
        child = await do(supervisor, pid)
        await do(supervisor, describe, np.ones(MIB))
        await do(supervisor, limit_space, 16 * MIB, resource.RLIMIT_DATA)
        with pytest.raises(MemoryError):
            await do(supervisor, same, bytes(64 * MIB))
        assert await do(supervisor, describe, np.ones(MIB)) == (False, False, MIB)
        assert await do(supervisor, pid) == child


@pytest.mark.parametrize("fails", [1, 2, 4])
async def test_no_memory_here_for_bytes_that_are_a_result(
    monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """The job whose result they are fails alone and at once, in whichever step it is."""
    calls = 0

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            nonlocal calls
            calls += 1
            if calls == fails:
                raise MemoryError("there is none left")
            return super().write(data)

    async with one_child() as supervisor:
        child = await do(supervisor, pid)
        monkeypatch.setattr(freight, "BytesIO", Full)
        bad = await supervisor.submit(zeros, 4 * MIB, "bytes")
        with pytest.raises(NotSerializable, match="MemoryError: there is none left"):
            await bad
        assert len(await do(supervisor, zeros, 4 * MIB, "bytes")) == 4 * MIB
        assert await do(supervisor, pid) == child


async def test_without_an_arena_data_cross_in_messages(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no arena can be made jobs run all the same, and a warning says why they are slower."""

    def none_left(limit: int | None = None) -> arena.Memory:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(arena.Memory, "create", none_left)
    array = np.random.default_rng(4).random(MIB)
    async with one_child() as supervisor:
        for value in (array, bytearray(3 * MIB), b"x" * MIB):
            got = await do(supervisor, same, value)
            assert type(got) is type(value)
            assert np.array_equal(got, value)
        result = await do(supervisor, ones, MIB)
        result += 1
        assert result.sum() == 2 * MIB
        small = await do(supervisor, ones, 10_000)
        small += 1
    assert "no arena for big data" in caplog.text


async def test_a_full_arena_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all room of the arena kept by a child, further arguments cross in messages."""
    whole = arena.Memory.create
    monkeypatch.setattr(arena.Memory, "create", lambda: whole(2 * MIB))
    async with one_child() as supervisor:
        for i in range(5):
            assert await do(supervisor, keep, np.full(MIB // 8, float(i))) == i + 1
        assert await do(supervisor, kept) == [i * MIB // 8 for i in range(5)]
        results = [await do(supervisor, ones, MIB // 8) for i in range(5)]
        assert [result.sum() for result in results] == [MIB // 8] * 5
        del results
        await do(supervisor, forget)


@on_linux
async def test_a_parent_killed_in_a_transfer_takes_its_child_along() -> None:
    """When the parent dies by SIGKILL with data half copied, the child ends and no file stays."""
    script = """
import asyncio, big_jobs, numpy as np
from asyncworkers import Supervisor, job
from asyncworkers.bridge.child import arena

whole, steps = arena.Writer._write, []

def write(self, at, piece):
    whole(self, at, piece)
    steps.append(at)
    if len(steps) == 5:
        print(child, flush=True)
        input()

async def main():
    global child
    async with Supervisor(processes=1) as supervisor:
        child = await (await supervisor.submit(job(big_jobs.pid, cpu=True)))
        arena.Writer._write = write
        await (await supervisor.submit(job(big_jobs.describe, cpu=True), np.ones(1 << 21)))

asyncio.run(main())
"""
    path = [str(Path(__file__).parent), *filter(None, sys.path)]
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    watched = os.pidfd_open(child)
    try:
        for process in (parent.pid, child):  # there is no name that could stay
            assert "/dev/shm" not in Path(f"/proc/{process}/maps").read_text()
        parent.kill()
        await parent.wait()
        assert select.select([watched], [], [], 30)[0], "the child is still there"
    finally:
        os.close(watched)
