"""The first lines that the README gives each of its three users run as they stand in an empty folder."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

KERNEL = Path(__file__).parents[1] / "notebook" / "kernel.py"
README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(
    r"^```(?:python|text)\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL
)
PATIENCE = 60.0


def block(beginning: str) -> str:
    """Return the only block of the README that begins so."""
    (found,) = [text for text in BLOCKS if text.startswith(beginning)]
    return found


def lines(text: str) -> int:
    """Count the lines that say something: no blank ones, no comments, no imports."""
    said = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return sum(not line.startswith(("from ", "import ")) for line in said)


@pytest.fixture
def environment() -> dict[str, str]:
    """Let a process in another folder see the package that is tested here."""
    paths = [str(README.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def test_script(tmp_path: Path, environment: dict[str, str]) -> None:
    """The script prints what stands below it."""
    (tmp_path / "script.py").write_text(block("from asyncworkers import Retry"), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-W", "error", "script.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ran.returncode, ran.stderr, ran.stdout) == (0, "", block("page 5, attempt 1"))


def test_web_backend(tmp_path: Path, environment: dict[str, str]) -> None:
    """The application is served by a real uvicorn, answers, and ends when it is told to."""
    (tmp_path / "main.py").write_text(block("# main.py"), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "main:app", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as server:
        try:
            assert answer(server, f"http://127.0.0.1:{port}/orders/7") == '"order 7 is confirmed"'
        finally:
            server.terminate()
            said, _ = server.communicate(timeout=PATIENCE)
    assert b"Traceback" not in said, said.decode()


def answer(server: "subprocess.Popen[bytes]", url: str) -> str:
    """Ask until the server listens, for as long as it lives."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            request = urllib.request.Request(url, method="POST")
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.read().decode()
        except urllib.error.URLError:
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.05)


def test_notebook(tmp_path: Path, environment: dict[str, str]) -> None:
    """The cell runs in a real kernel, and prints what stands below it."""
    cell = nbformat.v4.new_code_cell(block("# in a cell"))
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "notebook.ipynb")
    folders = {name: str(tmp_path / name) for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    ran = subprocess.run(
        [sys.executable, str(KERNEL), "notebook.ipynb", "shutdown"],
        cwd=tmp_path,
        env=environment | folders,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1])["cells"] == [block("['large'")]


@pytest.mark.parametrize(
    "beginning", ["from asyncworkers import Retry", "# main.py", "# in a cell"]
)
def test_under_ten_lines(beginning: str) -> None:
    """Each user is served in about ten lines, imports aside."""
    assert lines(block(beginning)) <= 10
