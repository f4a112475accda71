"""A process is killed in the middle of its jobs; the next one finishes them, and writes each row once.

Prints:

    killed in the middle
    10 of 10 orders are shipped, 10 rows
"""

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from asyncworkers import Supervisor, current_job, job

ORDERS = 10


@job
async def ship(order: int) -> None:
    await asyncio.sleep(0.01)
    async with current_job().transaction() as connection:
        await connection.execute("INSERT INTO shipped VALUES (?)", (order,))
        if order == ORDERS // 2 and current_job().attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def prepare(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE shipped (number INTEGER)")
    connection.close()


async def submit_and_work(path: str) -> None:
    async with Supervisor(workers=2, store=f"sqlite:///{path}", functions=[ship]) as supervisor:
        for one in await supervisor.submit_many(ship, range(ORDERS)):
            await one


async def go_on(path: str) -> None:
    # That a process died, and how many jobs the store took back from it, is a warning: here it is no news.
    logging.getLogger("asyncworkers").setLevel(logging.ERROR)
    async with Supervisor(workers=2, store=f"sqlite:///{path}", functions=[ship]) as supervisor:
        done = 0
        async for one in supervisor.stored.jobs(name="ship"):
            await one
            done += 1
    connection = sqlite3.connect(path)
    ((rows, distinct),) = connection.execute(
        "SELECT count(*), count(DISTINCT number) FROM shipped"
    ).fetchall()
    connection.close()
    assert rows == distinct
    print(f"{done} of {ORDERS} orders are shipped, {rows} rows")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.db"
        prepare(path)
        first = subprocess.run([sys.executable, __file__, str(path)], check=False)
        if first.returncode == -signal.SIGKILL:
            print("killed in the middle")
        asyncio.run(go_on(str(path)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(submit_and_work(sys.argv[1]))
    else:
        main()
