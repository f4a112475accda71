"""Stops a server under load and says what became of every job that it had accepted.

    python tests/web/deploy.py [--loop uvloop] [--workers 1] [--jobs 2000]

Clients ask a FastAPI application under uvicorn to submit jobs, as fast as it answers. In the middle
comes SIGTERM. A job counts as accepted once its client has read the 202 that says so. Then the next
release takes over the store.
"""

import argparse
import asyncio
import contextlib
import re
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from deploy_app import GRACE, durable
from servers import Server, serving

from asyncworkers import Supervisor

CLIENTS = 16


@dataclass
class Accepted:
    """What clients were told: the ids of the jobs by their kind, and how often they were refused."""

    durable: dict[str, int] = field(default_factory=dict)
    memory: set[str] = field(default_factory=set)
    endless: set[str] = field(default_factory=set)
    refused: int = 0


@dataclass
class Outcome:
    """What became of them."""

    accepted: Accepted
    said: str
    seconds: float
    """From SIGTERM to the end of the server."""
    drained: set[str]
    """Jobs in memory that have ended well."""
    named: set[str]
    """Those that the report names."""
    before: int
    """Stored jobs that were done when the old release ended."""
    effects: list[int]
    """What stored jobs have done, in the end."""
    lost: set[str]
    """Stored jobs that were accepted and have not succeeded in the end."""


async def ask(server: Server, accepted: Accepted, kind: str, number: int) -> bool:
    """One request on a connection of its own; False if the server does not take it."""
    try:
        reader, writer = await asyncio.open_connection(*server.host)
    except OSError:
        return False
    try:
        writer.write(
            f"GET /{kind}/{number} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode()
        )
        answer = (await reader.read()).decode()
    except OSError:  # cut off: nobody knows whether it was accepted
        return True
    finally:
        writer.close()
    status, _, body = answer.partition("\r\n\r\n")
    if " 202 " in status.partition("\r\n")[0]:
        job_id = body.strip('"')
        if kind == "durable":
            accepted.durable[job_id] = number
        else:
            getattr(accepted, kind).add(job_id)
    elif " 503 " in status.partition("\r\n")[0]:
        accepted.refused += 1
    return True


async def load(server: Server, jobs: int) -> tuple[Accepted, float]:
    """Have jobs submitted until nothing is answered any more; SIGTERM comes after so many."""
    accepted = Accepted()
    numbers = iter(range(sys.maxsize))
    told = 0.0

    async def client() -> None:
        nonlocal told
        while await ask(server, accepted, ("durable", "memory")[(n := next(numbers)) % 2], n):
            if not told and len(accepted.durable) + len(accepted.memory) >= jobs:
                told = time.monotonic()
                server.process.tell(signal.SIGTERM)

    for number in range(3):
        await ask(server, accepted, "endless", number)
    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(client())
    return accepted, told


async def take_over(folder: Path, accepted: Accepted) -> tuple[int, set[str]]:
    """The next release: how many were done before it came, and which are not done in the end."""
    async with Supervisor(20, store=f"sqlite:///{folder}/jobs.db", functions=[durable]) as next_one:
        before = len(Path("effects").read_text().split())
        lost = set()
        for job_id in accepted.durable:
            stored = await next_one.stored.get(job_id)
            await stored.wait()
            if stored.state != "succeeded":
                lost.add(job_id)
        return before, lost


def deploy(folder: Path, loop: str, workers: int, jobs: int) -> Outcome:
    """Do all of it; the current directory must be `folder`, where jobs leave their effects."""
    app = (HERE / "deploy_app.py").read_text(encoding="utf-8")
    with serving(app, folder, "uvicorn", loop, workers) as server:
        accepted, told = asyncio.run(load(server, jobs))
        said = server.ends()
        seconds = time.monotonic() - told
    before, lost = asyncio.run(take_over(folder, accepted))
    return Outcome(
        accepted,
        said,
        seconds,
        drained=set(Path("drained").read_text().split()),
        named={one for line in re.findall(r"; not done: (.*)", said) for one in line.split(", ")},
        before=before,
        effects=[int(one) for one in Path("effects").read_text().split()],
        lost=lost,
    )


def main() -> None:
    """Do it once, and print a report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        found = deploy(Path(place), options.loop, options.workers, options.jobs)
    accepted, done = found.accepted, set(found.effects)
    memory = accepted.memory | accepted.endless
    print(f"""\
uvicorn --loop {options.loop} --workers {options.workers}, grace {GRACE:g} s
  exit after SIGTERM       {found.seconds:8.2f} s
  refused with 503         {accepted.refused:8}
  stored jobs accepted     {len(accepted.durable):8}
    done before the end    {found.before:8}
    lost                   {len(found.lost):8}
    run twice              {len(found.effects) - len(done):8}
  jobs in memory accepted  {len(memory):8}
    drained                {len(memory & found.drained):8}
    named in the report    {len(memory & found.named):8}
    lost without a word    {len(memory - found.drained - found.named):8}""")


if __name__ == "__main__":
    main()
