"""The site to crawl: a server in a child process of its own, reached on loopback only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from pathlib import Path

from asyncworkers.demo import site_child
from asyncworkers.demo.records import DemoFailed

__all__ = ["Site", "serving"]

_PATIENCE = 10.0  # seconds to start, and as many to stop


class Site:
    """A running site: where it is, and once it has ended, how often it did what."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.tally: dict[str, int] = {}


@contextlib.asynccontextmanager
async def serving(folder: Path, seed: int, faults: float) -> AsyncGenerator[Site]:
    """Serve a folder of pages while the body runs; raises DemoFailed if that does not work.

    The server ends when its standard input does, so it cannot outlive this process however that
    ends.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", site_child.__file__, str(folder), str(seed), str(faults),
        stdin=PIPE, stdout=PIPE,
        start_new_session=True,  # Ctrl-C is for us; the child ends when we close its input
    )  # fmt: skip
    try:
        site = Site(f"http://127.0.0.1:{(await _told(child))['port']}/")
        yield site
        assert child.stdin is not None
        child.stdin.close()
        site.tally = await _told(child)
        await asyncio.wait_for(child.wait(), _PATIENCE)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def _told(child: Process) -> dict[str, int]:
    assert child.stdout is not None
    try:
        line = await asyncio.wait_for(child.stdout.readline(), _PATIENCE)
    except TimeoutError:
        raise DemoFailed(f"the server did not answer for {_PATIENCE:g} s") from None
    if not line:
        raise DemoFailed(f"the server ended with code {await child.wait()}")
    told: dict[str, int] = json.loads(line)
    return told
