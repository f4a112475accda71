"""Recursive fan-out: a job submits jobs and awaits them, level by level, on a single worker.

A job that awaits another job lends its slot while it waits, so the worker is free for the children
and the tree finishes, however deep it is. Children run before the waiting jobs of the levels above
them, so few branches are open at a time.

Prints:

    1,111 jobs on one worker: the sum is 499,500
    most jobs waiting at once: 28
"""

from asyncworkers import Supervisor, run

supervisor = Supervisor(workers=1)
waiting: list[int] = []


async def add_up(low: int, high: int) -> int:
    """Add up the numbers of a range: one by one if it is a single one, else in ten parts."""
    if high - low == 1:
        return low
    step = (high - low) // 10
    parts = [
        await supervisor.submit(add_up, start, start + step) for start in range(low, high, step)
    ]
    waiting.append(supervisor.stats().queued)
    return sum([await part for part in parts])


async def main() -> None:
    """Add up the numbers below a thousand, in a tree of jobs three levels deep."""
    async with supervisor:
        total = await supervisor.call(add_up, 0, 1000)
    print(f"{supervisor.stats().succeeded:,} jobs on one worker: the sum is {total:,}")
    print(f"most jobs waiting at once: {max(waiting)}")


if __name__ == "__main__":
    run(main)
