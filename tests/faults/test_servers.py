"""Shutdown inside real servers (X05): they stop as they do without us, and no accepted job is lost.

The servers are started by their own commands and told to stop by real signals: by SIGTERM to the
first process, as containers do; by SIGINT to all of them, as a terminal does on Ctrl-C; by SIGTERM
to all of them, as systemd does. Where they differ:

- uvicorn never gives up an open connection by itself, and tells its workers by SIGTERM.
- granian tells its workers by SIGTERM. If one is told twice while a connection is open, or before it
  has served anything, it hangs, without us as well (2.8); so each is asked first and told once here.
- hypercorn without workers never gives up an open connection on asyncio. Its workers hear of no
  signal: a shared event ends them, one of them in good order, and then the others by SIGTERM. A
  stream that nobody closes keeps them from ending at all.
- gunicorn tells its workers by SIGTERM, also those that a reload replaces, and kills what has not ended
  after its graceful timeout. Told SIGINT alone it tells them by SIGQUIT, of which uvicorn's worker takes
  no notice and at which its own cancels every task: that is not tried here.
"""

import signal
import socket
import sys
from pathlib import Path

import pytest
from children import PATIENCE, child
from servers import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="servers are told by signals"),
]

APP = """\
import asyncio
import logging
import os
import signal
from contextlib import asynccontextmanager
from asyncworkers import Supervisor
from asyncworkers.integrations.asgi import SupervisorMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

logging.basicConfig(level="INFO", format="%(name)s %(message)s")
supervisor = Supervisor(grace=60)


def say(*words):  # in one go: several processes write to one pipe
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


async def ends_in_the_drain(number):
    await supervisor.wait_draining()
    say("done", number)


async def never_ends(number):
    try:
        await asyncio.Event().wait()
    finally:
        say("cancelled", number)


heard = []


def hear(number, frame):  # installed after the supervisor's, as others may do
    heard.append(number)
    chained[number](number, frame)


chained = {}


async def ends_when_told_twice(number):
    while len(heard) < 2:
        await asyncio.sleep(0.01)
    say("done", number)


FUNCTIONS = {"ends": ends_in_the_drain, "never": never_ends, "twice": ends_when_told_twice}


@asynccontextmanager
async def lifespan(app):
    async with supervisor.lifespan(app) as state:
        for number in (signal.SIGINT, signal.SIGTERM):
            chained[number] = signal.getsignal(number)
            if callable(chained[number]):
                signal.signal(number, hear)
        yield state


async def submit(request):
    function = FUNCTIONS[request.path_params["function"]]
    await request.state.supervisor.submit(function, int(request.path_params["number"]))
    return PlainTextResponse("accepted")


async def process(request):
    return PlainTextResponse(str(os.getpid()))


async def late(request):
    say("late request")
    await supervisor.wait_draining()
    await supervisor.submit(never_ends, 0)


async def watches(request):  # a stream that nobody would end if it did not do so itself
    async def stream():
        draining = asyncio.ensure_future(request.state.supervisor.wait_draining())
        while not draining.done():
            yield "tick\\n"
            await asyncio.wait([draining], timeout=0.01)

    return StreamingResponse(stream(), media_type="application/x-ndjson")


async def endless(request):  # one that knows nothing of the drain
    async def stream():
        yield "data: tick\\n\\n"
        await asyncio.Event().wait()

    return StreamingResponse(stream(), media_type="text/event-stream")


def listener(event):
    if type(event).__name__.startswith("Supervisor"):
        say(type(event).__name__.removeprefix("Supervisor").lower())


supervisor.listen(listener)
app = Starlette(
    routes=[
        Route("/submit/{function}/{number}", submit),
        Route("/late", late),
        Route("/process", process),
        Route("/watches", watches),
        Route("/endless", endless),
    ],
    middleware=[Middleware(SupervisorMiddleware, supervisor=supervisor)],
    lifespan=lifespan,
)
"""

WAYS = {
    "TERM": lambda server: server.process.tell(signal.SIGTERM),
    "INT": lambda server: server.tell_all(signal.SIGINT),
    "TERM to all": lambda server: server.tell_all(signal.SIGTERM),
}
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
SERVERS = pytest.mark.parametrize(
    ("name", "workers"),
    [("uvicorn", 1), ("uvicorn", 2), ("granian", 1), ("hypercorn", 0)],
)
CELLS = pytest.mark.parametrize(
    ("name", "workers", "ending"),
    [
        *(("uvicorn", 1, "TERM"), ("uvicorn", 1, "INT"), ("hypercorn", 0, "TERM")),
        *(("uvicorn", 2, "TERM"), ("uvicorn", 2, "INT"), ("uvicorn", 2, "TERM to all")),
        *(("hypercorn", 0, "INT"), ("granian", 1, "TERM"), ("granian", 2, "TERM")),
        *(("gunicorn", 1, "TERM"), ("gunicorn", 2, "INT"), ("gunicorn", 2, "TERM to all")),
        *(("gunicorn-asgi", 1, "INT"), ("gunicorn-asgi", 2, "TERM")),
    ],
)


def check_drained(said: str, jobs: int, processes: int) -> None:
    """Each of the jobs came to its end by itself, once, and each supervisor to its own."""
    assert [said.count(f"done {job}\n") for job in range(jobs)] == [1] * jobs, said
    assert said.count("draining\n") == said.count("closed\n") == processes, said
    assert "Traceback" not in said, said


@LOOPS
@CELLS
def test_fault_X05_a_server_that_is_told_to_stop_drains(
    tmp_path: Path, name: str, workers: int, loop: str, ending: str
) -> None:
    """Jobs that run when the signal comes end as they should, though two streams are open that
    would never end, and though workers may be told twice of one wish to stop; the streams come to
    a proper end, and so does the server.
    """
    with serving(APP, tmp_path, name, loop, workers) as server:
        with server.open("/watches") as watches, server.open("/endless") as endless:
            assert (watches.readline(), endless.readline()) == (b"tick\n", b"data: tick\n")
            for job in range(4):
                server.submit("ends", job)
            asked: set[str] = set()
            while name == "granian" and len(asked) < workers:
                with server.open("/process") as answer:
                    asked.add(answer.read().decode())
            WAYS[ending](server)
            watches.read(), endless.read()  # raises if they are cut off
            check_drained(server.ends(), 4, workers or 1)


@LOOPS
@pytest.mark.parametrize("ending", ["INT", "TERM to all"])
def test_fault_X05_workers_that_are_told_twice_go_on(
    tmp_path: Path, loop: str, ending: str
) -> None:
    """A terminal or systemd tells uvicorn's workers, and then uvicorn tells them again: that is one wish
    to stop, and no job is cancelled for it. (Gunicorn is so quick that the two signals become one.)
    """
    with serving(APP, tmp_path, "uvicorn", loop, 2) as server:
        for job in range(4):
            server.submit("twice", job)
        WAYS[ending](server)
        check_drained(server.ends(), 4, 2)


@LOOPS
@pytest.mark.parametrize(("name", "workers"), [("uvicorn", 1), ("uvicorn", 2), ("hypercorn", 0)])
def test_fault_X05_ctrl_c_twice_cancels_the_jobs(
    tmp_path: Path, name: str, workers: int, loop: str
) -> None:
    """What does not end in the drain is cancelled by the second Ctrl-C, and the server ends."""
    with serving(APP, tmp_path, name, loop, workers) as server, server.open("/endless") as endless:
        assert endless.readline() == b"data: tick\n"
        server.submit("never", 7)
        server.tell_all(signal.SIGINT)
        for _ in range(workers or 1):
            server.process.expect("draining")
        server.tell_all(signal.SIGINT)
        said = server.ends()
        assert said.count("cancelled 7\n") == 1, said


@LOOPS
@SERVERS
def test_fault_X05_a_request_in_flight_hears_that_nothing_is_accepted(
    tmp_path: Path, name: str, workers: int, loop: str
) -> None:
    """A request that wants to submit when the drain has begun is answered with 503, and with when to
    ask again.
    """
    with serving(APP, tmp_path, name, loop, workers) as server:
        with socket.create_connection(server.host, PATIENCE) as request:
            request.sendall(b"GET /late HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            server.process.expect("late request")
            server.process.tell(signal.SIGTERM)
            answer = b""
            while chunk := request.recv(4096):
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split(b"\r\n")[0].split()[1] == b"503"
        assert b"retry-after: 5" in head.lower()
        assert b'"type":"SupervisorClosed"' in body
        server.ends()


@LOOPS
@pytest.mark.parametrize("name", ["gunicorn", "gunicorn-asgi"])
def test_fault_X05_workers_that_are_replaced_drain(tmp_path: Path, name: str, loop: str) -> None:
    """On SIGHUP gunicorn starts new workers and ends the old ones, which finish what they have, streams
    included; the new ones answer.
    """
    with serving(APP, tmp_path, name, loop, 2) as server:
        with server.open("/watches") as watches, server.open("/endless") as endless:
            assert (watches.readline(), endless.readline()) == (b"tick\n", b"data: tick\n")
            for job in range(4):
                server.submit("ends", job)
            server.process.tell(signal.SIGHUP)
            watches.read(), endless.read()  # raises if they are cut off
        while server.process.output.count("closed\n") < 2:
            server.process.expect("closed")
        while server.process.output.count("started\n") < 4:
            server.process.expect("started")
        server.submit("ends", 4)
        server.process.tell(signal.SIGTERM)
        check_drained(server.ends(), 5, 4)


DURABLE = """\
import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path
from asyncworkers import Supervisor, Unique, job
from asyncworkers.host import first_on_host
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

HERE = Path(__file__).parent


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


@job
async def waits(number: int) -> None:  # in the store until it may end, however often it is begun
    say("began", number)
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    say("done", number)


@job(unique=Unique("warm-up", until=3600))
async def warm_up() -> None:
    say("warmed up")


supervisor = Supervisor(20, grace=0.1, store=f"sqlite:///{HERE}/jobs.db", functions=[waits, warm_up])


@asynccontextmanager
async def lifespan(app):
    async with supervisor.lifespan(app) as state:
        with first_on_host("reloaded", HERE / "locks") as first:
            if first:
                say("first")
            await supervisor.submit(warm_up)
            say("started")
            yield state
    say("closed")


async def submit(request):
    await supervisor.submit(waits, int(request.path_params["number"]))
    return PlainTextResponse("accepted")


app = Starlette(routes=[Route("/submit/{function}/{number}", submit)], lifespan=lifespan)
"""


@LOOPS
@pytest.mark.parametrize("name", ["gunicorn", "gunicorn-asgi"])
def test_fault_X05_a_reload_loses_no_stored_job(tmp_path: Path, name: str, loop: str) -> None:
    """What the old workers could not finish in their grace the new ones finish, each once; and what is to
    be done once was done once, for all workers before and after.
    """
    (tmp_path / "locks").mkdir(mode=0o700)
    with serving(DURABLE, tmp_path, name, loop, 2) as server:
        assert server.process.output.count("first\n") == 1
        for job in range(6):
            server.submit("waits", job)
            server.process.expect(f"began {job}")
        server.process.tell(signal.SIGHUP)
        while server.process.output.count("closed\n") < 2:
            server.process.expect("closed")
        while server.process.output.count("started\n") < 4:
            server.process.expect("started")
        server.submit("waits", 6)
        (tmp_path / "go").touch()
        while server.process.output.count("done ") < 7:
            server.process.expect("done ")
        server.process.tell(signal.SIGTERM)
        said = server.ends()
        assert [said.count(f"done {job}\n") for job in range(7)] == [1] * 7, said
        assert said.count("warmed up\n") == 1, said


@LOOPS
def test_fault_X05_what_a_server_cancels_goes_back(tmp_path: Path, loop: str) -> None:
    """Gunicorn's own worker cancels every task when its master alone is told SIGINT: no stored job fails of
    that, the next server runs them.
    """
    (tmp_path / "locks").mkdir(mode=0o700)
    with serving(DURABLE, tmp_path, "gunicorn-asgi", loop, 1) as server:
        for job in range(4):
            server.submit("waits", job)
            server.process.expect(f"began {job}")
        server.process.tell(signal.SIGINT)
        assert "done" not in server.ends()
    (tmp_path / "go").touch()
    with serving(DURABLE, tmp_path, "gunicorn-asgi", loop, 1) as server:
        while server.process.output.count("done ") < 4:
            server.process.expect("done ")
        server.process.tell(signal.SIGTERM)
        server.ends()


AIOHTTP = """\
import asyncio
from aiohttp import web
from asyncworkers import Supervisor
from asyncworkers.integrations.aiohttp import SUPERVISOR, setup

async def ends_in_the_drain(supervisor):
    await supervisor.wait_draining()
    print("done 0", flush=True)

async def watches(request):
    supervisor = request.app[SUPERVISOR]
    await supervisor.submit(ends_in_the_drain, supervisor)
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"tick\\n")
    await supervisor.wait_draining()
    await response.write_eof()
    return response

async def make_app(argv):
    app = web.Application()
    supervisor = Supervisor(listeners=[
        lambda event: print(type(event).__name__.removeprefix("Supervisor").lower(), flush=True)
    ])
    setup(app, supervisor)
    app.router.add_get("/watches", watches)
    return app
"""


@pytest.mark.parametrize("ending", ["TERM", "INT"])
def test_fault_X05_aiohttps_own_server_drains(tmp_path: Path, ending: str) -> None:
    """aiohttp, which handles signals in its own way, ends as the others do, with a stream open."""
    with serving(AIOHTTP, tmp_path, "aiohttp", "asyncio") as server:
        with server.open("/watches") as watches:
            assert watches.readline() == b"tick\n"
            WAYS[ending](server)
            assert watches.read() == b""
            check_drained(server.ends(), 1, 1)


@LOOPS
@pytest.mark.parametrize("ending", ["TERM", "INT"])
def test_fault_X05_workers_that_hear_of_no_signal_drain(
    tmp_path: Path, loop: str, ending: str
) -> None:
    """Hypercorn's workers are not signalled. They drain when they end their lifespan, or when the one
    that ended before them has them killed: by a SIGTERM that nobody handles, which waits for us.
    """
    with serving(APP, tmp_path, "hypercorn", loop, 2) as server:
        for job in range(4):
            server.submit("ends", job)
        WAYS[ending](server)
        said = server.ends()
        assert [said.count(f"done {job}\n") for job in range(4)] == [1] * 4, said


@LOOPS
def test_fault_X06_a_signal_that_nobody_else_handles_ends_the_process_after_the_drain(
    loop: str,
) -> None:
    """Where SIGTERM would end the process at once, it does so when the jobs are done, and not never."""
    script = """
        async def work():
            await supervisor.wait_draining()
            say("done")

        async def main():
            async with supervisor.lifespan():
                await supervisor.submit(work)
                say("ready")
                await asyncio.Event().wait()

        supervisor = Supervisor()
        if os.environ["ASYNCWORKERS_LOOP"] == "uvloop":
            import uvloop
            uvloop.run(main())
        else:
            asyncio.run(main())
    """
    with child(script, loop) as process:
        process.expect("ready")
        process.tell(signal.SIGTERM)
        assert process.ends() == -signal.SIGTERM, process.output
        assert process.output.count("done") == 1
