"""Submit from threads: code that knows nothing of asyncio hands its work to the event loop.

`submit_threadsafe` returns a `concurrent.futures.Future` at once. The thread may wait for it, add
a callback to it, or cancel it, which cancels the job.

Prints:

    teller 1: 100 + 10 = 110
    teller 2: 200 + 20 = 220
    teller 3: 300 + 30 = 330
    teller 3 was refused: ValueError: no more than 1000
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from asyncworkers import Supervisor, job, run


@job(timeout=5)
async def deposit(balance: int, amount: int) -> int:
    """A coroutine, which runs on the supervisor's event loop."""
    if amount > 1000:
        raise ValueError("no more than 1000")
    await asyncio.sleep(0.001)
    return balance + amount


def teller(supervisor: Supervisor, number: int) -> list[str]:
    """Ordinary blocking code in a thread of its own."""
    lines: list[str] = []
    balance, amount = 100 * number, 10 * number
    future = supervisor.submit_threadsafe(deposit, balance, amount)
    lines.append(f"teller {number}: {balance} + {amount} = {future.result(timeout=10)}")
    if number == 3:
        refused = supervisor.submit_threadsafe(deposit, balance, 5000).exception(timeout=10)
        lines.append(f"teller {number} was refused: {type(refused).__name__}: {refused}")
    return lines


async def main() -> None:
    """Run three tellers in threads of their own and a supervisor in this one."""
    loop = asyncio.get_running_loop()
    async with Supervisor(workers=10) as supervisor:
        with ThreadPoolExecutor(max_workers=3) as tellers:
            waiting = [loop.run_in_executor(tellers, teller, supervisor, n) for n in (1, 2, 3)]
            for lines in await asyncio.gather(*waiting):
                print(*lines, sep="\n")


if __name__ == "__main__":
    run(main)
