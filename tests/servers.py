"""Real web servers in processes of their own, started by their own commands and told by signals."""

import contextlib
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from children import PATIENCE, Child, child

COMMANDS = {
    "uvicorn": "uvicorn served:app --no-access-log --port {port} --loop {loop} --workers {workers}",
    "hypercorn": "hypercorn served:app --bind 127.0.0.1:{port} --worker-class {loop} --workers {workers}",
    "aiohttp": "aiohttp.web -H 127.0.0.1 -P {port} served:make_app",
    "gunicorn": "gunicorn served:app --bind 127.0.0.1:{port} --workers {workers} --graceful-timeout 60"
    " --worker-class uvicorn_worker.{worker} --no-control-socket",
    "gunicorn-asgi": "gunicorn served:app --bind 127.0.0.1:{port} --workers {workers} --graceful-timeout 60"
    " --worker-class asgi --asgi-loop {loop} --no-control-socket",
    "granian": "granian served:app --interface asgi --port {port} --loop {loop} --workers {workers}",
}


class Server:
    """A server in processes of its own, and what can be asked of it."""

    def __init__(self, process: Child, port: int, workers: int) -> None:
        self.process = process
        self.host = ("127.0.0.1", port)
        self.workers = workers

    def submit(self, function: str, number: int) -> None:
        """Have the application submit a job; returns when that was accepted."""
        with self.open(f"/submit/{function}/{number}") as answer:
            assert answer.read() == b"accepted"

    @contextmanager
    def open(self, path: str) -> Iterator["urllib.request._UrlopenRet"]:
        """Ask for a page."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.host[1]}{path}", timeout=PATIENCE
        ) as answer:
            yield answer

    def tell_all(self, number: signal.Signals) -> None:
        """Tell the server and its workers at once, as a terminal does."""
        os.killpg(self.process.process.pid, number)

    def wait_ready(self, ready: str) -> None:
        """Wait until each of its processes has started, and it can be asked."""
        for _ in range(self.workers or 1):
            self.process.expect(ready)
        for _ in range(int(PATIENCE / 0.02)):
            try:
                socket.create_connection(self.host, PATIENCE).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError(self.process.output)

    def ends(self) -> str:
        """Wait until the server has ended by itself; return all that was said."""
        code = self.process.ends()
        said = self.process.output
        assert code in (0, -signal.SIGTERM, -signal.SIGINT, 130, 143), said
        assert "was destroyed but it is pending" not in said
        return said


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


@contextmanager
def serving(
    app: str, folder: Path, name: str, loop: str, workers: int = 1, ready: str = "started"
) -> Iterator[Server]:
    """A server of this name with this application, `app` of a module, in a process group of its own.

    It or the server says `ready` in each process when its lifespan has begun.
    """
    (folder / "served.py").write_text(app)
    port = free_port()
    worker = {"asyncio": "UvicornH11Worker", "uvloop": "UvicornWorker"}[loop]
    command = COMMANDS[name].format(port=port, loop=loop, workers=workers, worker=worker)
    script = f"""
        import os, sys
        os.setpgid(0, 0)
        os.chdir({str(folder)!r})
        os.execv(sys.executable, [sys.executable, "-m", *{command.split()!r}])
    """
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(folder), str(root)])
    with child(script, preamble="", PYTHONPATH=path) as process:
        try:
            server = Server(process, port, workers)
            server.wait_ready(ready)
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.process.pid, signal.SIGKILL)
