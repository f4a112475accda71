"""A process with a supervisor on a store, until it is told to stop or killed; run by the tests."""

import asyncio
import signal
import sys

from stored_jobs import ALL, note

from asyncworkers import Supervisor


async def main(url: str, diary: str, workers: str) -> None:
    """Serve until SIGTERM, then leave."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    async with Supervisor(int(workers), store=url, functions=ALL, grace=0) as supervisor:
        note(diary, "ready")
        await over.wait()
        await supervisor.drain(0)
    note(diary, "left")


asyncio.run(main(*sys.argv[1:]))
