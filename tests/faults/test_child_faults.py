"""Faults of processes (group P) that limits and initializers are about, with real children."""

import functools
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cpu_jobs
import pytest
from invariants import CANARY, trial, until

from asyncworkers import Queue, Retry, WorkerCrashed, job
from asyncworkers.events import ChildEnded, ChildStarted, WorkerReplaced

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(sys.platform == "win32", reason="children need socket pairs"),
]

Log = pytest.LogCaptureFixture

MEGABYTE = 1 << 20

OTHERS = ("shared memory /dev/shm/*",)
"""Children share memory that has no name; what has one is not ours."""


def cpu(function: Any, **options: Any) -> Any:
    """The function as a job for processes."""
    return job(function, cpu=True, **options)


async def test_fault_P14_child_leaks_memory(caplog: Log, tmp_path: Path) -> None:
    """A child that has too much memory after a job is replaced, between two jobs: what was sent to it
    runs in the next one, once, and what it runs is never ended. Memory that a job has given back
    when it ends does not count.
    """
    queues = [Queue("processes", 1, kind="processes", max_memory=100 * MEGABYTE)]
    file = tmp_path / "runs"
    async with trial(caplog, more=queues, leaks=OTHERS) as t:
        swelling = [
            await t.supervisor.submit(cpu(cpu_jobs.swell), 150 * MEGABYTE) for _ in range(3)
        ]
        assert len({await one for one in swelling}) == 1
        before = await t.supervisor.call(cpu(cpu_jobs.whoami))
        # Jobs that take no time go to the child many at once, the leak in the middle of them.
        for n in range(100):
            t.supervisor.submit_nowait(cpu(cpu_jobs.append), str(file), f"a{n}")
        leaking = t.supervisor.submit_nowait(cpu(cpu_jobs.leak), 120 * MEGABYTE, CANARY)
        later = [
            t.supervisor.submit_nowait(cpu(cpu_jobs.append), str(file), f"b{n}") for n in range(100)
        ]
        assert await leaking == before
        assert [await one for one in later] == [f"b{n}" for n in range(100)]
        assert {one.attempt for one in later} == {1}
        assert await t.supervisor.call(cpu(cpu_jobs.whoami)) != before
        (ended,) = t.recorder.of(ChildEnded)
        assert ended.pid == before
        assert "its max_memory is 104857600" in ended.cause
        assert t.recorder.of(WorkerReplaced) == []
    runs = Counter(file.read_text().split())
    assert runs == {f"{letter}{n}": 1 for letter in "ab" for n in range(100)}


@pytest.mark.parametrize("processes", [1, 2])
async def test_fault_P18_initializer_raises(caplog: Log, tmp_path: Path, processes: int) -> None:
    """An initializer that raises makes the jobs that wait fail with its error as the cause, after a few
    children; new ones are started for new jobs only, and ever more rarely. Once it works all is well.
    """
    starts, marker = tmp_path / "starts", tmp_path / "marker"
    marker.touch()
    failing = functools.partial(cpu_jobs.fail_while, str(starts), str(marker))
    queues = [Queue("processes", processes, kind="processes", initializer=failing)]
    async with trial(caplog, more=queues, leaks=OTHERS) as t:
        waiting = [await t.supervisor.submit(cpu(cpu_jobs.echo), CANARY) for _ in range(5)]
        for one in waiting:
            with pytest.raises(
                WorkerCrashed, match="initializer raised ValueError: not yet"
            ) as caught:
                await one
            assert isinstance(caught.value.__cause__, ValueError)
        tried = len(starts.read_text().split())
        assert tried <= 3 + processes
        assert t.recorder.of(ChildStarted) == []
        assert len([one for one in t.log if "no other is started for" in one.getMessage()]) >= 1
        patient = cpu(cpu_jobs.echo, retry=Retry(10, on=WorkerCrashed, delay=0))
        more = await t.supervisor.submit(patient, CANARY)
        await until(lambda: "no child process is started for a while" in more.why)
        marker.unlink()
        assert await more == CANARY


async def test_one_child_that_cannot_be_made_ready(caplog: Log, tmp_path: Path) -> None:
    """While another child works, jobs wait for it rather than fail because of one that does not get
    ready.
    """
    starts, marker, go = tmp_path / "starts", tmp_path / "marker", tmp_path / "go"
    failing = functools.partial(cpu_jobs.fail_while, str(starts), str(marker))
    queues = [Queue("processes", 2, kind="processes", initializer=failing)]
    async with trial(caplog, more=queues, leaks=OTHERS) as t:
        file = tmp_path / "running"
        running = await t.supervisor.submit(cpu(cpu_jobs.wait_for_file), str(file), str(go))
        await until(file.exists)
        marker.touch()
        waiting = [await t.supervisor.submit(cpu(cpu_jobs.echo), n) for n in range(3)]
        await until(lambda: any("no other is started" in one.getMessage() for one in t.log))
        assert {one.state for one in waiting} == {"queued"}
        go.touch()
        assert await running == "done"
        assert [await one for one in waiting] == [0, 1, 2]
        assert os.getpid() not in map(int, starts.read_text().split())
