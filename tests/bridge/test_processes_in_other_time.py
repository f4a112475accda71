"""Jobs in processes on loops whose time is not the real one."""

import asyncio
import os
import sys

import bridge_jobs
import pytest

from asyncworkers import Supervisor, job
from asyncworkers.testing import VirtualLoop, simulate

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="children need socket pairs")


def test_virtual_time_waits_for_processes() -> None:
    """On a virtual loop real jobs take real time, and hours pass at once when none is under way."""

    async def main() -> None:
        async with Supervisor(processes=1) as supervisor:
            later = await supervisor.submit(job(bridge_jobs.double, cpu=True, delay=3600), 2)
            assert await supervisor.call(job(bridge_jobs.double, cpu=True), 1) == 2
            assert await later == 4
            assert 3600 <= asyncio.get_running_loop().time() < 3700

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def test_simulated_time_starts_no_process() -> None:
    """On a simulated loop such jobs run inline, so that a simulation stays one process."""

    async def main() -> int:
        async with Supervisor(processes=1) as supervisor:
            return await supervisor.call(job(bridge_jobs.whoami, cpu=True))

    assert simulate(main, seed=1).value == os.getpid()
