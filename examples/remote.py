"""A bridge of your own: each job runs in a fresh Python that a command of yours starts.

The command may as well be `ssh big-machine python3`, `docker run -i image python3` or `srun python3`:
whatever starts a Python that can import your functions. A job that is cancelled or times out is
interrupted there, and killed if that does not help; one that brings its Python down fails alone.

Prints:

    12! is 479001600
    shout failed: ValueError: no voice for 'hello'
    forever timed out after 1 s
"""

import asyncio
import math
import os
import pickle
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

from asyncworkers import (
    Bridge,
    Failed,
    NotSerializable,
    Queue,
    Succeeded,
    Supervisor,
    TimedOut,
    Work,
    WorkerCrashed,
    job,
    run,
)

THERE = """
import pickle, sys
answer, sys.stdout = sys.stdout.buffer, sys.stderr
try:
    function, args, kwargs = pickle.load(sys.stdin.buffer)
    data = pickle.dumps((True, function(*args, **kwargs)))
except BaseException as error:
    data = pickle.dumps((False, error))
answer.write(data)
"""


class CommandBridge(Bridge):
    """Runs each call in a Python of its own."""

    command = (sys.executable,)
    process: Process | None = None

    async def run(self, work: Work) -> Succeeded | Failed:
        """Send the call to standard input, and read how it ended from standard output."""
        command, call = (*self.command, "-c", THERE), work.pickled()
        self.process = process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
        )
        answer = asyncio.ensure_future(process.communicate(call))
        try:
            data, said = await asyncio.shield(answer)
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            await answer
            raise
        if process.returncode or not data:
            raise WorkerCrashed("its Python is gone", process.returncode, said.decode())
        try:
            succeeded, end = pickle.loads(data)
        except Exception as error:
            return Failed(NotSerializable(f"how it ended cannot be read here: {error!r}"))
        return Succeeded(end) if succeeded else Failed(end)

    def kill(self) -> None:
        """Kill what runs."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


@job(queue="remote")
def shout(text: str) -> str:
    raise ValueError(f"no voice for {text!r}")


@job(queue="remote", timeout=1)
def forever() -> None:
    time.sleep(600)


async def main() -> None:
    """Run some jobs over bridges of one's own, two at a time."""
    async with Supervisor(queues=[Queue("remote", 2, bridge=CommandBridge)]) as supervisor:
        factorial = job(math.factorial, queue="remote")
        print("12! is", await supervisor.call(factorial, 12))
        for failing in (shout.bind("hello"), forever.bind()):
            ended = await supervisor.submit(failing)
            outcome = await ended.wait()
            if isinstance(outcome, Failed):
                print(f"{ended.name} failed: {type(outcome.error).__name__}: {outcome.error}")
            elif isinstance(outcome, TimedOut):
                print(f"{ended.name} timed out after {outcome.timeout:g} s")


if __name__ == "__main__":
    run(main)
