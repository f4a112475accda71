"""Crawl with aiohttp: the standard library's own files, over HTTP, by following links.

A server inside this program shows the folders of the standard library as pages of links, as web
servers do. One job reads one address: of a folder it submits what is linked there, of a file it
submits the text to a job that parses it in another process. All jobs share one session of aiohttp,
which is possible because they run in the loop it belongs to.

Needs aiohttp: pip install aiohttp.

Prints:

    crawled all modules there are: True
    parsed in other processes: True
    json.dumps has 10 parameters
    longest function found: True
"""

import ast
import asyncio
import html
import json
import os
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from asyncworkers import Job, Retry, Supervisor, job, run

LIBRARY = Path(json.__file__).parents[1]
FOLDERS = ("json", "asyncio", "email", "http", "logging", "unittest")
LINK = re.compile(r'href="([^"]+)"')


class Function(NamedTuple):
    """A function of the standard library."""

    name: str
    lines: int
    parameters: int


@job(cpu=True)
def functions(path: str, source: str) -> tuple[int, list[Function]]:
    """The functions of a module, and the process that found them."""
    found: list[Function] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            found.append(Function(f"{path}:{node.name}", lines, count))
    return os.getpid(), found


class Crawler:
    """Visits each address once, and keeps the jobs that parse."""

    def __init__(self, supervisor: Supervisor, session: ClientSession) -> None:
        self.supervisor = supervisor
        self.session = session
        self.seen: set[str] = set()
        self.parsing: list[Job[tuple[int, list[Function]]]] = []
        retry = Retry(attempts=4, on=(ClientError, TimeoutError), delay=0.05)
        self._visit = job(self.visit, retry=retry, timeout=20)

    async def follow(self, address: str) -> None:
        """Submit a visit, unless this address had one."""
        if address not in self.seen:
            self.seen.add(address)
            await self.supervisor.submit(self._visit, address)

    async def visit(self, address: str) -> None:
        """Read one address: follow a folder's links, have a module parsed."""
        async with self.session.get(address) as response:
            response.raise_for_status()
            text = await response.text()
        if address.endswith("/"):
            for link in LINK.findall(text):
                await self.follow(address + html.unescape(link))
        else:
            self.parsing.append(await self.supervisor.submit(functions, address, text))


async def main() -> None:
    """Crawl from the front page and say what was found."""
    async with (
        serving() as front,
        ClientSession(front, timeout=ClientTimeout(10)) as session,
        Supervisor(workers=20, processes=2) as supervisor,
    ):
        crawler = Crawler(supervisor, session)
        await crawler.follow("/")
    # Leaving the block finished every job, those that were submitted meanwhile included.
    parsed = [parsing.result() for parsing in crawler.parsing]
    modules = [path for name in FOLDERS for path in (LIBRARY / name).rglob("*.py")]
    there = {f"/{path.relative_to(LIBRARY).as_posix()}" for path in modules if not hidden(path)}
    files = {address for address in crawler.seen if not address.endswith("/")}
    found = {each.name: each for _, functions in parsed for each in functions}
    dumps = found["/json/__init__.py:dumps"]
    longest = max(found.values(), key=lambda each: each.lines)
    print(f"crawled all modules there are: {files == there}")
    print(f"parsed in other processes: {os.getpid() not in {process for process, _ in parsed}}")
    print(f"json.dumps has {dumps.parameters} parameters")
    print(f"longest function found: {longest.lines > 100}")


# ---- the site


def hidden(path: Path) -> bool:
    """Tests are as much again, and caches are no modules."""
    return any(part in ("test", "tests", "__pycache__") for part in path.parts)


@asynccontextmanager
async def serving() -> AsyncGenerator[str]:
    """Serve the folders on a free port of this machine."""

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.001)  # as if it were far away
        path = LIBRARY / request.match_info["path"]
        if path.is_file():
            return web.Response(text=path.read_text(encoding="utf-8"))
        entries = sorted(path.iterdir()) if path != LIBRARY else [LIBRARY / n for n in FOLDERS]
        shown = [e for e in entries if not hidden(e) and (e.is_dir() or e.suffix == ".py")]
        names = [html.escape(e.name + ("/" if e.is_dir() else "")) for e in shown]
        links = "\n".join(f'<a href="{name}">{name}</a>' for name in names)
        return web.Response(text=links, content_type="text/html")

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    run(main)
