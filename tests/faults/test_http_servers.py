"""The HTTP face of jobs behind a real server: it drains, and bad clients hold nothing up (V, O06)."""

import json
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from children import PATIENCE, Child, child

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="servers are told by signals"),
]

SECRET = "0123456789abcdef0123456789abcdef"

APP = """\
import asyncio
import os
from asyncworkers import Supervisor, current_job
from asyncworkers.http import EventStreams, Guard, JobsApp, Token
from starlette.requests import Request


def say(*words):  # in one go: two processes write to one pipe
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


async def ends_in_the_drain(number: int) -> int:
    current_job().report(1, 2)
    while supervisor.state == "open":
        await asyncio.sleep(0.01)
    say("done", number)
    return number


async def double(number: int) -> int:
    return 2 * number


functions = [ends_in_the_drain, double]
store = os.environ.get("STORE")
stored = {"store": store, "functions": functions} if store else {}
supervisor = Supervisor(grace=60, **stored)
jobs = JobsApp(supervisor, functions, auth=Token(os.environ["TOKEN"]), streams=EventStreams(lifetime=3600))

streams = EventStreams(patience=0.2, buffer=4)


async def flood(feed):
    while True:
        feed.put("x" * 100_000)
        await asyncio.sleep(0)


async def flooded(scope, receive, send):
    answer = streams.answer(Request(scope), flood, ends=asyncio.Event().wait)
    await answer(scope, receive, send)
    say("streams", streams.open, "slow", streams.slow, "dropped", streams.dropped > 0)


guarded = Guard(flooded, body_seconds=0.2)


async def app(scope, receive, send):
    if scope.get("path", "").endswith("/result"):
        say("asked")
    inner = guarded if scope.get("path", "").startswith("/flood") else jobs
    await inner(scope, receive, send)
"""

UVICORN = """
    import uvicorn
    uvicorn.run(
        "served:app", app_dir={folder!r}, host={host!r}, port=0, loop={loop!r}, workers={workers}
    )
"""


class Server:
    """A server in a child process, and what can be asked of it."""

    def __init__(self, process: Child) -> None:
        self.process = process
        found = re.search(r"http://[^:]+:(\d+)", process.expect("unning on http://"))
        assert found is not None
        self.port = int(found[1])
        self.address = f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Ask with the token; the status, and what was answered."""
        sent = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json", **headers}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, sent)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    @contextmanager
    def talk(self, text: str) -> Iterator[socket.socket]:
        """A connection on which this was sent, and no more."""
        with closing(socket.create_connection(("127.0.0.1", self.port), PATIENCE)) as connection:
            connection.sendall(text.replace("\n", "\r\n").encode())
            yield connection


@contextmanager
def serving(
    folder: Path, loop: str, *, workers: int = 1, host: str = "127.0.0.1", **environment: str
) -> Iterator[Server]:
    """A server with the application above."""
    (folder / "served.py").write_text(APP)
    script = UVICORN.format(folder=str(folder), loop=loop, workers=workers, host=host)
    with child(script, loop, preamble="", TOKEN=SECRET, **environment) as process:
        yield Server(process)


LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@LOOPS
def test_jobs_over_http_drain_with_an_open_stream(tmp_path: Path, loop: str) -> None:
    """At SIGTERM the stream ends, who waits for a result gets it, and the server ends."""
    with serving(tmp_path, loop) as server:
        status, told = server.ask("/submit/ends_in_the_drain", {"number": 7})
        assert status == 202
        headers = f"Host: localhost\nAuthorization: Bearer {SECRET}\n\n"
        stream = f"GET /{told['id']}/events HTTP/1.1\n{headers}"
        waits = f"GET /{told['id']}/result?wait=30 HTTP/1.1\n{headers}"
        with server.talk(stream) as events, server.talk(waits) as waiting:
            seen = b""
            while b'"done":1.0' not in seen and b'"done":1,' not in seen:
                seen += events.recv(65_536)
            server.process.expect("asked")
            server.process.tell(signal.SIGTERM)
            while more := events.recv(65_536):
                seen += more
            assert seen.rstrip().endswith(b"0")  # the last chunk: the stream ended whole
            end = b""
            while b'"result":7' not in end:
                more = waiting.recv(65_536)
                assert more, end
                end += more
        server.process.expect("done 7")
        assert server.process.ends() in (0, -signal.SIGTERM)


@LOOPS
def test_fault_O06_a_client_that_does_not_read_is_dropped(tmp_path: Path, loop: str) -> None:
    """What a flood puts is bounded for it, and after a while the stream is given up."""
    with serving(tmp_path, loop) as server:
        with server.talk("GET /flood HTTP/1.1\nHost: localhost\n\n") as connection:
            assert connection.recv(4_096).startswith(b"HTTP/1.1 200")
            said = server.process.expect("streams")
            assert said.split() == ["streams", "0", "slow", "1", "dropped", "True"]
            assert server.ask("/submit/double", {"number": 1})[0] == 202
        server.process.tell(signal.SIGTERM)
        assert server.process.ends() in (0, -signal.SIGTERM)


@LOOPS
def test_fault_V10_a_body_that_comes_a_byte_at_a_time_is_given_up(
    tmp_path: Path, loop: str
) -> None:
    """A client that announces a body and does not send it is answered 408, and others are served."""
    request = (
        "POST /flood HTTP/1.1\nHost: localhost\nOrigin: http://localhost\n"
        "Content-Type: application/json\nContent-Length: 1000\n\n{"
    )
    with serving(tmp_path, loop) as server:
        with server.talk(request) as slow:
            assert server.ask("/submit/double", {"number": 1})[0] == 202
            assert slow.recv(4_096).startswith(b"HTTP/1.1 408")
            while slow.recv(4_096):
                pass  # and the connection is closed
        server.process.tell(signal.SIGTERM)
        assert server.process.ends() in (0, -signal.SIGTERM)


@LOOPS
def test_with_a_store_every_worker_process_knows_every_job(tmp_path: Path, loop: str) -> None:
    """Two processes of one server share a store: whichever is asked knows the job and its result."""
    store = f"sqlite:///{tmp_path}/jobs.db"
    with serving(tmp_path, loop, workers=2, STORE=store) as server:
        for _ in range(2):
            server.process.expect("Application startup complete")
        ids = [server.ask("/submit/double", {"number": n})[1]["id"] for n in range(6)]
        for number, ident in enumerate(ids):
            for _ in range(3):  # each time over another connection
                status, told = server.ask(f"/{ident}/result?wait=30")
                assert (status, told["result"]) == (200, 2 * number)
        key = {"Idempotency-Key": "once"}
        made = {server.ask("/submit/double", {"number": 9}, **key)[1]["id"] for _ in range(6)}
        assert len(made) == 1
        server.process.tell(signal.SIGTERM)
        server.process.ends()


def test_fault_V05_a_server_on_all_addresses_does_not_open_the_guard(tmp_path: Path) -> None:
    """Whoever has no token gets nothing, wherever the server listens; and no foreign name is asked."""
    with serving(tmp_path, "asyncio", host="0.0.0.0") as server:
        assert server.ask("/", Authorization="")[0] == 401
        assert server.ask("/", Host="evil.example")[0] == 403
        assert server.ask("/submit/double", {"number": 1})[0] == 202
        server.process.tell(signal.SIGTERM)
        server.process.ends()
