"""Retries in virtual time: a policy of hours is tried out in milliseconds, with exact times.

`simulate` runs a program on an event loop whose time jumps from one thing that happens to the
next. Nothing in the program knows: it is the same code that runs in production.

Prints:

    attempt 1 at 0:00:00
    attempt 2 at 0:00:30
    attempt 3 at 0:02:00
    attempt 4 at 0:06:30
    attempt 5 at 0:20:00
    delivered at the fifth attempt
    with jitter, seed 1: 0:03:22
    with jitter, seed 2: 0:06:59
"""

import asyncio
from datetime import timedelta

from asyncworkers import Retry, Supervisor, current_job, job
from asyncworkers.testing import simulate

POLICY = Retry(attempts=5, on=ConnectionError, delay=30, factor=3, maximum=3600, jitter=False)


def clock() -> timedelta:
    """The time of the event loop, which begins at 0, to the second."""
    return timedelta(seconds=round(asyncio.get_running_loop().time()))


@job(retry=POLICY)
async def deliver() -> str:
    """A delivery to a server that stays away for a quarter of an hour."""
    print(f"attempt {current_job().attempt} at {clock()}")
    if clock() < timedelta(minutes=15):
        raise ConnectionError("nobody there")
    return "delivered at the fifth attempt"


@job(retry=Retry(attempts=5, on=ConnectionError, delay=30, factor=3, maximum=3600))
async def deliver_with_jitter() -> None:
    """The same, with waits drawn by chance: the seed decides which."""
    if current_job().attempt < 5:
        raise ConnectionError("nobody there")


async def main() -> str:
    """Run one delivery."""
    async with Supervisor() as supervisor:
        return await supervisor.call(deliver)


async def with_jitter() -> timedelta:
    """Run one delivery whose waits are random."""
    async with Supervisor() as supervisor:
        await supervisor.call(deliver_with_jitter)
    return clock()


if __name__ == "__main__":
    print(simulate(main).value)
    for seed in (1, 2):
        print(f"with jitter, seed {seed}: {simulate(with_jitter, seed=seed).value}")
