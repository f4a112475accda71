"""The bridge to sub-interpreters: what is peculiar to it; the rest is checked as for every bridge."""

import asyncio
import operator
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import interpreter_jobs
import pytest
import pytest_asyncio

from asyncworkers import (
    JobCancelled,
    NotSerializable,
    Queue,
    Supervisor,
    WorkerCrashed,
    job,
)
from asyncworkers.bridge.terms import has_interpreters
from asyncworkers.events import AttemptAbandoned
from asyncworkers.testing import EventRecorder, no_leaks

Log = pytest.LogCaptureFixture

needs_3_14 = pytest.mark.skipif(not has_interpreters(), reason="Python 3.14 has interpreters")


def inside(function: Any, **options: Any) -> Any:
    """The function, to run in an interpreter."""
    return job(function, queue="inside", **options)


def interpreters(workers: int = 1, recorder: EventRecorder | None = None) -> Supervisor:
    """A supervisor with so many interpreters."""
    queues = [Queue("inside", workers, kind="interpreters", unwind=0)]
    return Supervisor(queues=queues, listeners=[recorder] if recorder else [], stall=None)


@pytest_asyncio.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    """A supervisor with one interpreter."""
    async with interpreters() as supervisor:
        yield supervisor


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A socket to which jobs connect when they have begun."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.skipif(has_interpreters(), reason="here there are interpreters")
def test_refused_where_there_are_none() -> None:
    """Older versions of Python get told at the declaration, and what to take instead."""
    with pytest.raises(ValueError, match=r"needs Python 3\.14 or later.*use 'processes'"):
        Queue("inside", kind="interpreters")


@needs_3_14
@pytest.mark.asyncio
async def test_what_an_interpreter_is(supervisor: Supervisor) -> None:
    """In this process, in a thread of its own, one for all jobs of its worker, with modules of its own
    that nobody else sees.
    """
    assert await supervisor.call(inside(os.getpid)) == os.getpid()
    remember = inside(interpreter_jobs.remember)
    assert [await supervisor.call(remember, n) for n in (1, 2)] == [[1], [1, 2]]
    assert interpreter_jobs.state == []
    names = [thread.name for thread in threading.enumerate()]
    assert f"asyncworkers-{supervisor.name}-inside-1" in names
    found = await supervisor.call(inside(lambda: __import__("sys").path))
    assert found == sys.path


@needs_3_14
@pytest.mark.asyncio
async def test_functions_and_streams(supervisor: Supervisor) -> None:
    """Decorated functions, lambdas, closures and streams cross, with `cpu=True` or without."""
    assert await supervisor.call(interpreter_jobs.double, 4) == 8
    base = 100
    assert await supervisor.map(inside(lambda n: n + base), range(50)) == list(range(100, 150))
    sizes = supervisor.map(inside(abs, cpu=True), [-1, -2], ordered=False)
    assert sorted([size async for size in sizes]) == [1, 2]


@needs_3_14
@pytest.mark.asyncio
async def test_errors_tell_where_they_were_raised(supervisor: Supervisor) -> None:
    """An error comes back as itself, with its traceback there as the cause."""
    with pytest.raises(ZeroDivisionError) as caught:
        await supervisor.call(inside(operator.truediv), 1, 0)
    assert "ZeroDivisionError" in str(caught.value.__cause__)
    with pytest.raises(ImportError, match="does not support loading in subinterpreters"):
        await supervisor.call(inside(__import__), "faulthandler")


@needs_3_14
@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("what", "said"),
    [("lock", "the value it returned"), ("other", "how make ended cannot be read")],
)
async def test_values_that_cannot_come_back(supervisor: Supervisor, what: str, said: str) -> None:
    """The job fails, and says why; the interpreter goes on."""
    with pytest.raises(NotSerializable, match=said):
        await supervisor.call(inside(interpreter_jobs.make), what)
    assert await supervisor.call(interpreter_jobs.double, 4) == 8


@needs_3_14
@pytest.mark.asyncio
async def test_a_job_does_not_know_its_job(supervisor: Supervisor) -> None:
    """What asks for the running job is told that there is none there."""
    with pytest.raises(RuntimeError, match="current_job"):
        await supervisor.call(inside(interpreter_jobs.ask))


@needs_3_14
@pytest.mark.asyncio
async def test_a_call_that_nobody_waits_for_is_abandoned(
    server: socket.socket, caplog: Log
) -> None:
    """It cannot be stopped: its slot is taken until it ends, and then its interpreter goes too."""
    recorder = EventRecorder()
    async with interpreters(1, recorder) as supervisor:
        remember = inside(interpreter_jobs.remember)
        assert await supervisor.call(remember, 1) == [1]
        running = await supervisor.submit(inside(interpreter_jobs.hold), server.getsockname())
        line, _ = await asyncio.to_thread(server.accept)
        with line:
            running.cancel("enough")
            with pytest.raises(JobCancelled, match="enough"):
                await running
            await recorder.wait_for(AttemptAbandoned, job_id=running.id)
            waiting = await supervisor.submit(remember, 2)
            await asyncio.sleep(0)
            assert waiting.state == "queued"
            line.send(b"go on")
        assert await waiting == [2]
    assert any("abandoned attempt" in record.getMessage() for record in caplog.records)


@needs_3_14
@pytest.mark.asyncio
async def test_an_interpreter_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks while it is made ready is told of, and tried again."""
    from concurrent import interpreters as real  # type: ignore[attr-defined]

    tries = 0

    def create() -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RuntimeError("no interpreter left")
        return original()

    original = real.create
    monkeypatch.setattr(real, "create", create)
    async with interpreters() as supervisor:
        assert await supervisor.call(interpreter_jobs.double, 4) == 8
    assert tries == 2


@needs_3_14
@pytest.mark.asyncio
async def test_an_interpreter_that_breaks(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: Log
) -> None:
    """The job that ran fails with WorkerCrashed, and the next has another interpreter."""
    spoil = inside(lambda: __import__("__main__").__dict__.pop("answer") and None)
    assert await supervisor.call(spoil) is None
    with pytest.raises(WorkerCrashed, match="answer"):
        await supervisor.call(interpreter_jobs.double, 4)
    assert await supervisor.call(interpreter_jobs.double, 4) == 8


@needs_3_14
@pytest.mark.asyncio
async def test_nothing_is_left() -> None:
    """When the supervisor has ended, so have its interpreters."""
    from concurrent import interpreters as real  # type: ignore[attr-defined]

    before = len(real.list_all())
    async with no_leaks():
        async with interpreters(2) as supervisor:
            await supervisor.map(interpreter_jobs.double, range(20))
            assert len(real.list_all()) > before
    assert len(real.list_all()) == before
