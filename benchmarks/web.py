"""Requests a second of a web application that starts something with each, and how long they take.

    python -m benchmarks.web [--seconds 2] [--rounds 5] [--connections 32] [--only submit] [--json results.json]

The applications are Starlette's, each served by uvicorn in a process of its own; all live through the whole
run. In each round each row is measured once, in another order; the table shows medians, and the median of the
ratios to BackgroundTasks in the same round. Load comes from `wrk` if it is installed, else from this process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route

from asyncworkers import Supervisor, job
from asyncworkers.integrations.asgi import SupervisorMiddleware
from benchmarks.tables import figure, machine, markdown


class Row(NamedTuple):
    """What is measured: a path of an application."""

    path: str
    application: str = "plain"


# What is watched is an application of its own, in which the watching is on; `beside` starts who looks.
BASELINE = "BackgroundTasks"
ROWS = {
    "answer only": Row("/answer"),
    BASELINE: Row("/background"),
    "create_task": Row("/task"),
    "**submit_nowait**": Row("/submit_nowait"),
    "**await submit**": Row("/submit"),
    "**await submit, SupervisorMiddleware**": Row("/submit", "middleware"),
    "**await submit, record=True**": Row("/submit", "record"),
    "**await submit, metrics: counts, scraped each second**": Row("/submit", "metrics"),
    "**await submit, metrics: timings, scraped each second**": Row("/submit", "timings"),
    "**await submit, dashboard closed**": Row("/submit", "closed"),
    "**await submit, dashboard open**": Row("/submit", "open"),
    '**await submit, stored, durability="process"**': Row("/submit_stored", "stored"),
    "**await submit, stored**": Row("/submit_stored", "power"),
}


async def work() -> None:
    """The job: as little as there can be."""


stored_work = job(work, name="work", keep=0)


async def answer(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("accepted", 202)


async def background(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("accepted", 202, background=BackgroundTask(work))


async def task(request: Request) -> PlainTextResponse:
    tasks: set[asyncio.Task[None]] = request.state.tasks
    one = asyncio.create_task(work())
    tasks.add(one)
    one.add_done_callback(tasks.discard)
    return PlainTextResponse("accepted", 202)


async def submit_nowait(request: Request) -> PlainTextResponse:
    request.state.supervisor.submit_nowait(work)
    return PlainTextResponse("accepted", 202)


async def submit(request: Request) -> PlainTextResponse:
    await request.state.supervisor.submit(work)
    return PlainTextResponse("accepted", 202)


async def submit_stored(request: Request) -> PlainTextResponse:
    await request.state.supervisor.submit(stored_work)
    return PlainTextResponse("accepted", 202)


def application(name: str) -> Starlette:
    """The application of that name."""
    if name in ("stored", "power"):
        store = "sqlite:///jobs.db" + ("?durability=process" if name == "stored" else "")
        supervisor = Supervisor(store=store, functions=[stored_work])
    else:
        supervisor = Supervisor(record=name == "record")
    middleware: list[Middleware] = []
    if name == "middleware":
        middleware.append(Middleware(SupervisorMiddleware, supervisor=supervisor))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, Any]]:
        async with supervisor.lifespan(app) as state:
            yield {**state, "tasks": set()}

    handlers = (answer, background, task, submit_nowait, submit, submit_stored)
    routes: list[BaseRoute] = [Route(f"/{handler.__name__}", handler) for handler in handlers]
    if name in ("metrics", "timings"):
        from asyncworkers.integrations.prometheus import PrometheusMetrics

        routes.append(
            Mount("/metrics", PrometheusMetrics(supervisor, timings=name == "timings").app)
        )
    if name in ("closed", "open"):
        routes.append(Mount("/dashboard", supervisor.dashboard(auth=None)))
    return Starlette(routes=routes, middleware=middleware, lifespan=lifespan)


def made() -> Starlette:
    """What uvicorn calls in its process."""
    return application(os.environ["BENCH_APPLICATION"])


@contextlib.contextmanager
def beside(name: str, port: int) -> Generator[None]:
    """What goes on beside the requests, while this application is measured: who looks at it."""
    looked_at = {"metrics": "/metrics/", "timings": "/metrics/", "open": "/dashboard/api/live"}
    if name not in looked_at:
        yield
        return
    url = f"http://127.0.0.1:{port}{looked_at[name]}"
    again = "; time.sleep(1)" if name != "open" else ""  # a stream of events stays open by itself
    look = f"import time, urllib.request\nwhile True: urllib.request.urlopen({url!r}).read(){again}"
    with subprocess.Popen([sys.executable, "-c", look]) as onlooker:
        try:
            yield
            if onlooker.poll() is not None:
                raise RuntimeError(f"who looks at {url} has ended")
        finally:
            onlooker.kill()


@contextlib.contextmanager
def served(name: str, loop: str) -> Generator[int]:
    """The application in a process of its own; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = (
        f"uvicorn benchmarks.web:made --factory --port {port} --loop {loop} --log-level warning"
    )
    with tempfile.TemporaryDirectory(prefix="asyncworkers-bench-") as place:
        root = str(Path(__file__).parents[1])
        environment = {**os.environ, "BENCH_APPLICATION": name, "PYTHONPATH": root}
        server = subprocess.Popen(
            [sys.executable, "-m", *command.split()], cwd=place, env=environment
        )
        try:
            for _ in range(3_000):
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                if server.poll() is not None:
                    raise RuntimeError(f"uvicorn ended with {server.returncode}")
                time.sleep(0.01)
            yield port
        finally:
            server.terminate()
            server.wait()


class Load(NamedTuple):
    """Requests a second, and milliseconds until half, and 99 in 100, were answered."""

    rate: float
    half: float
    most: float


def load(url: str, seconds: float, connections: int) -> Load:
    """Ask for this page over and over."""
    if shutil.which("wrk") is None:
        return asyncio.run(_own_load(url, seconds, connections))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    times = dict(re.findall(r"(50|99)%\s+([\d.]+[mu]?s)", said))
    assert rate is not None, said
    return Load(float(rate[1]), _milliseconds(times["50"]), _milliseconds(times["99"]))


def _milliseconds(text: str) -> float:
    number, unit = float(re.sub(r"[a-z]+", "", text)), re.sub(r"[\d.]+", "", text)
    return number * {"us": 0.001, "ms": 1.0, "s": 1_000.0}[unit]


async def _own_load(url: str, seconds: float, connections: int) -> Load:
    _, _, host, path = url.split("/", 3)
    name, _, port = host.partition(":")
    ends = time.perf_counter() + seconds
    taken: list[float] = []

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(name, int(port))
        while (start := time.perf_counter()) < ends:
            writer.write(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if " 202 " not in head.partition("\r\n")[0]:
                raise RuntimeError(head)
            await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
            taken.append(1_000 * (time.perf_counter() - start))
        writer.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return Load(len(taken) / seconds, median(taken), quantiles(taken, n=100)[98])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--asyncio", action="store_true", help="on stock asyncio, not uvloop")
    parser.add_argument("--only", default="", help="rows that contain one of these, by comma")
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    wanted = [word for word in options.only.split(",") if word]
    rows = {
        title: row
        for title, row in ROWS.items()
        if title == BASELINE or not wanted or any(word in title for word in wanted)
    }
    loop = "asyncio" if options.asyncio or sys.platform == "win32" else "uvloop"
    found: dict[str, list[Load]] = {title: [] for title in rows}
    with contextlib.ExitStack() as stack:
        ports = {
            name: stack.enter_context(served(name, loop))
            for name in dict.fromkeys(row.application for row in rows.values())
        }
        for round_ in range(-1, options.rounds):
            for title in random.sample(list(rows), len(rows)):
                path, name = rows[title]
                url = f"http://127.0.0.1:{ports[name]}{path}"
                with beside(name, ports[name]):
                    if round_ < 0:
                        load(url, 0.5, options.connections)  # to warm up
                    else:
                        found[title].append(load(url, options.seconds, options.connections))
    table = [
        [
            title,
            figure(median(one.rate for one in loads)),
            figure(
                median(
                    one.rate / base.rate for one, base in zip(loads, found[BASELINE], strict=True)
                )
            ),
            figure(median(one.half for one in loads)),
            figure(median(one.most for one in loads)),
        ]
        for title, loads in found.items()
    ]
    arguments = " ".join(sys.argv[1:])
    print(f"{machine()}; {loop}; `python -m benchmarks.web {arguments}`:".replace(" `:", "`:"))
    print()
    head = ["each request starts one job", "requests/s", "ratio", "p50, ms", "p99, ms"]
    print(markdown(head, table))
    if options.json:
        text = json.dumps(
            {title: [one._asdict() for one in loads] for title, loads in found.items()}
        )
        Path(options.json).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
