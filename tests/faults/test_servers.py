"""Shutdown inside real servers (X05): they stop as they do without us, and no accepted job is lost."""

import re
import signal
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from children import PATIENCE, Child, child

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="servers are told by signals"),
]

APP = """\
import asyncio
import os
from asyncworkers import Supervisor
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

supervisor = Supervisor(grace=60)


def say(*words):  # in one go: two processes write to one pipe
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


async def ends_in_the_drain(number):
    while supervisor.state == "open":
        await asyncio.sleep(0.01)
    say("done", number)


async def never_ends(number):
    try:
        await asyncio.Event().wait()
    finally:
        say("cancelled", number)


FUNCTIONS = {"ends": ends_in_the_drain, "never": never_ends}


async def submit(request):
    function = FUNCTIONS[request.path_params["function"]]
    await request.state.supervisor.submit(function, int(request.path_params["number"]))
    return PlainTextResponse("accepted")


async def events(request):
    async def stream():
        while request.state.supervisor.state == "open":
            yield "data: tick\\n\\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(stream(), media_type="text/event-stream")



def listener(event):
    if type(event).__name__ == "SupervisorDraining":
        say("draining")


supervisor.listen(listener)
app = Starlette(
    routes=[Route("/submit/{function}/{number}", submit), Route("/events", events)],
    lifespan=supervisor.lifespan,
)
"""

UVICORN = """
    import uvicorn
    uvicorn.run("served:app", app_dir={folder!r}, port=0, loop={loop!r}, workers={workers})
"""

HYPERCORN = """
    import sys
    sys.path.insert(0, {folder!r})
    import hypercorn.asyncio, hypercorn.config, asyncio, signal
    from served import app
    config = hypercorn.config.Config()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = "-"
    asked = asyncio.Event()

    async def serve():
        loop = asyncio.get_running_loop()
        def heard(number, frame):
            loop.call_soon_threadsafe(asked.set)
        signal.signal(signal.SIGTERM, heard)
        signal.signal(signal.SIGINT, heard)
        await hypercorn.asyncio.serve(app, config, shutdown_trigger=asked.wait)

    if {loop!r} == "uvloop":
        import uvloop
        uvloop.run(serve())
    else:
        asyncio.run(serve())
"""

SERVERS = {"uvicorn": UVICORN, "hypercorn": HYPERCORN}


class Server:
    """A server in a child process, and what can be asked of it."""

    def __init__(self, process: Child) -> None:
        self.process = process
        line = process.expect("unning on http://")
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found is not None, line
        self.address = found[0]

    def submit(self, function: str, number: int) -> None:
        """Have the application submit a job; returns when that was accepted."""
        with self.open(f"/submit/{function}/{number}") as answer:
            assert answer.read() == b"accepted"

    @contextmanager
    def open(self, path: str) -> Iterator["urllib.request._UrlopenRet"]:
        """Ask for a page."""
        with urllib.request.urlopen(self.address + path, timeout=PATIENCE) as answer:
            yield answer


@contextmanager
def serving(folder: Path, name: str, loop: str, workers: int = 1) -> Iterator[Server]:
    """A server of this name with the application above."""
    (folder / "served.py").write_text(APP)
    script = SERVERS[name].format(folder=str(folder), loop=loop, workers=workers)
    with child(script, loop, preamble="") as process:
        yield Server(process)


LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
ENDINGS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@LOOPS
@ENDINGS
@pytest.mark.parametrize("name", SERVERS)
def test_fault_X05_a_server_that_is_told_to_stop_drains(
    tmp_path: Path, name: str, loop: str, number: signal.Signals
) -> None:
    """Jobs that run when the signal comes end as they should, and then so does the server."""
    with serving(tmp_path, name, loop) as server:
        for job in range(3):
            server.submit("ends", job)
        server.process.tell(number)
        server.process.expect("draining")
        ended = sorted(server.process.expect("done") for _ in range(3))
        assert ended == ["done 0", "done 1", "done 2"]
        assert server.process.ends() in (0, -number, 128 + number)


@LOOPS
def test_fault_X05_a_stream_of_events_does_not_delay_the_end(tmp_path: Path, loop: str) -> None:
    """The drain begins with the signal, so a stream that watches the state ends, and the server."""
    with serving(tmp_path, "uvicorn", loop) as server, server.open("/events") as stream:
        assert stream.readline() == b"data: tick\n"
        server.submit("ends", 1)
        server.process.tell(signal.SIGTERM)
        server.process.expect("done 1")
        assert server.process.ends() in (0, -signal.SIGTERM)


@LOOPS
def test_fault_X05_a_second_signal_cancels_the_jobs(tmp_path: Path, loop: str) -> None:
    """What does not end in the drain is cancelled by the second signal, and the server ends."""
    with serving(tmp_path, "uvicorn", loop) as server:
        server.submit("never", 7)
        server.process.tell(signal.SIGINT)
        server.process.expect("draining")
        server.process.tell(signal.SIGINT)
        server.process.expect("cancelled 7")
        server.process.ends()


@LOOPS
def test_fault_X05_each_of_two_workers_drains(tmp_path: Path, loop: str) -> None:
    """With two processes each has a supervisor of its own, and both are drained."""
    with serving(tmp_path, "uvicorn", loop, workers=2) as server:
        for _ in range(2):
            server.process.expect("Application startup complete")
        for job in range(4):
            server.submit("ends", job)
        server.process.tell(signal.SIGTERM)
        ended = sorted(server.process.expect("done") for _ in range(4))
        assert ended == [f"done {job}" for job in range(4)]
        server.process.ends()
