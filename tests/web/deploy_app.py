"""A web application that is deployed under load: stored jobs, jobs in memory, and some that never end."""

import asyncio
import logging
import os
from pathlib import Path

from fastapi import FastAPI

from asyncworkers import Queue, Supervisor, current_job, job
from asyncworkers.events import SupervisorStarted
from asyncworkers.integrations.asgi import SupervisorMiddleware
from asyncworkers.integrations.fastapi import SupervisorDep

GRACE = 3.0
STORE = "sqlite:///jobs.db"


def note(where: str, what: object) -> None:
    """Add a line to a file; several processes may do so."""
    with Path(where).open("a") as file:
        file.write(f"{what}\n")


@job(name="durable", keep=3600)
async def durable(number: int) -> int:
    """Do something that can be seen afterwards."""
    await asyncio.sleep(0.01)
    note("effects", number)
    return number


@job(queue="memory")
async def in_memory() -> None:
    """Note when it is done."""
    await asyncio.sleep(0.05)
    note("drained", current_job().id)


@job(queue="memory")
async def endless() -> None:
    """Never end."""
    await asyncio.Event().wait()


supervisor = Supervisor(
    workers=20,
    store=STORE,
    functions=[durable],
    queues=[Queue("memory", 100, stored=False)],
    grace=GRACE,
)
app = FastAPI(lifespan=supervisor.lifespan)
app.add_middleware(SupervisorMiddleware, supervisor=supervisor)
logging.basicConfig(level="INFO", format="%(message)s")
supervisor.listen(
    lambda event: os.write(1, b"started\n") if type(event) is SupervisorStarted else None
)


@app.get("/durable/{number}", status_code=202)
async def submit_durable(number: int, supervisor: SupervisorDep) -> str:
    """Accept a job that must not be lost."""
    return (await supervisor.submit(durable, number)).id


@app.get("/memory/{number}", status_code=202)
async def submit_in_memory(number: int, supervisor: SupervisorDep) -> str:
    """Accept a job that is lost with the process, but not silently."""
    return supervisor.submit_nowait(in_memory).id


@app.get("/endless/{number}", status_code=202)
async def submit_endless(number: int, supervisor: SupervisorDep) -> str:
    """Accept one that cannot be waited for."""
    return supervisor.submit_nowait(endless).id
