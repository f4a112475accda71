"""The pages on frameworks: what they show is served by real servers, answers, and is drained."""

import http.client
import re
import signal
import sys
from pathlib import Path

import pytest
from children import PATIENCE
from servers import Server, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="servers are told by signals"),
]

PAGES = Path(__file__).parents[2] / "docs" / "howto"


def application(page: str, number: int = 0) -> str:
    """One of the Python blocks of a page, and a job that says whether it was waited for."""
    text = (PAGES / page).read_text(encoding="utf-8")
    block = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[number]
    assert "Hello, {name}!" in block
    slow = """
    if name == "slow":
        print("begun", flush=True)
        await __import__("asyncio").sleep(0.5)
        print("waited for", flush=True)
"""
    head = re.search(r"async def greet\(name: str\) -> str:\n", block)
    assert head is not None
    return block[: head.end()] + slow + block[head.end() :]


def ask(server: Server, path: str) -> str:
    """The answer to one request."""
    connection = http.client.HTTPConnection(*server.host, timeout=PATIENCE)
    connection.request("GET", path)
    answer = connection.getresponse()
    try:
        assert answer.status == 200, answer.read()
        return answer.read().decode().strip('"')
    finally:
        connection.close()


READY = {"uvicorn": "startup complete", "granian": "Started worker", "aiohttp": "Running on"}


@pytest.mark.parametrize(
    ("page", "block", "name"),
    [
        ("fastapi.md", 0, "uvicorn"),
        ("fastapi.md", 0, "granian"),
        ("fastapi.md", -1, "uvicorn"),
        ("litestar.md", 0, "uvicorn"),
        ("quart.md", 0, "uvicorn"),
        ("django.md", 0, "uvicorn"),
        ("django.md", 0, "granian"),
        ("aiohttp.md", 0, "aiohttp"),
    ],
)
def test_what_a_page_shows_is_served_and_drained(
    tmp_path: Path, page: str, block: int, name: str
) -> None:
    """The page's application answers under a real server, and the job that runs when SIGTERM comes is
    waited for; so is its request.
    """
    app = application(page, block)
    with serving(app, tmp_path, name, "asyncio", ready=READY[name]) as server:
        assert ask(server, "/greet/Ada") == "Hello, Ada!"
        if page == "django.md":
            assert ask(server, "/blocking/Ada") == "Hello, Ada!"
        connection = http.client.HTTPConnection(*server.host, timeout=PATIENCE)
        connection.request("GET", "/greet/slow")
        server.process.expect("begun")
        server.process.tell(signal.SIGTERM)
        assert connection.getresponse().read().decode().strip('"') == "Hello, slow!"
        connection.close()
        assert server.ends().count("waited for\n") == 1
