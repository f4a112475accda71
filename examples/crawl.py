"""Crawl a site by following links: each page once, eight requests at a time, failures retried.

A job fetches a page and submits a job for every link it has not seen yet. Leaving the `async with`
block waits for all of them, so nobody has to count what is under way. The site is a small server
inside this program; every page of it answers 503 the first time it is asked for.

Prints:

    40 pages, 1560 links, 81 requests
    missing: /page/40
    never more than 8 requests at once: True
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from asyncworkers import Retry, Supervisor, current_job, job, run

PAGES = 40
WORKERS = 8
LINK = re.compile(r'href="([^"]+)"')


class Unavailable(Exception):
    """The server asked to be left alone for a moment."""


@dataclass
class Crawl:
    """What is known of the site so far."""

    supervisor: Supervisor
    port: int
    seen: set[str] = field(default_factory=set[str])
    links: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    missing: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        retry = Retry(attempts=4, on=(Unavailable, ConnectionError), delay=0.01)
        self._visit = job(self.visit, retry=retry, timeout=10)

    async def visit(self, path: str) -> None:
        """Fetch one page, note its links and submit a job for each new one."""
        status, body = await get(self.port, path)
        if status == 503:
            raise Unavailable(f"{path}, attempt {current_job().attempt}")
        if status == 404:
            self.missing.append(path)
            return
        self.links[path] = LINK.findall(body)
        for link in self.links[path]:
            await self.submit(link)

    async def submit(self, path: str) -> None:
        """Submit a visit, unless this page had one before."""
        if path not in self.seen:
            self.seen.add(path)
            await self.supervisor.submit(self._visit, path)


async def main() -> None:
    """Crawl from the front page and say what was found."""
    async with serving() as site:
        async with Supervisor(workers=WORKERS) as supervisor:
            crawl = Crawl(supervisor, site.port)
            await crawl.submit("/page/0")
        links = sum(map(len, crawl.links.values()))
        print(f"{len(crawl.links)} pages, {links} links, {site.requests.total()} requests")
        print("missing:", *crawl.missing)
        print(f"never more than {WORKERS} requests at once: {site.most <= WORKERS}")


# ---- the site and an HTTP client, as small as they can be


async def get(port: int, path: str) -> tuple[int, str]:
    """The status and the body of a page."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    return int(head.split()[1]), body


@dataclass
class Site:
    """A server whose pages link to each other, and to one that is not there."""

    port: int = 0
    now: int = 0
    most: int = 0
    requests: Counter[str] = field(default_factory=Counter[str])

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        path = (await reader.readuntil(b"\r\n\r\n")).decode().split()[1]
        self.now += 1
        self.most = max(self.most, self.now)
        self.requests[path] += 1
        await asyncio.sleep(0.002)
        writer.write(self.page(path).encode())
        self.now -= 1
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def page(self, path: str) -> str:
        """The whole response for a path."""
        number = int(path.rpartition("/")[2])
        if number >= PAGES:
            return "HTTP/1.0 404 Not Found\r\n\r\n"
        if self.requests[path] == 1:
            return "HTTP/1.0 503 Service Unavailable\r\n\r\n"
        others = (n for n in range(PAGES + 1) if n not in (number, (number + 1) % PAGES))
        links = "".join(f'<a href="/page/{other}">{other}</a>' for other in others)
        return f"HTTP/1.0 200 OK\r\n\r\n{links}"


@asynccontextmanager
async def serving() -> AsyncGenerator[Site]:
    """Serve the site on a free port of this machine."""
    site = Site()
    async with await asyncio.start_server(site.answer, "127.0.0.1") as server:
        site.port = server.sockets[0].getsockname()[1]
        yield site


if __name__ == "__main__":
    run(main)
