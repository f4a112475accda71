"""The job that crawls, and the frontier: what is known of the site and still to be visited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextvars import ContextVar

import aiohttp

from asyncworkers import Retry, RetryLater, job
from asyncworkers.demo.records import Page

__all__ = [
    "ATTEMPTS",
    "FIRST_DELAY",
    "REQUEST_TIMEOUT",
    "TRANSIENT",
    "Frontier",
    "client",
    "fetch",
    "session",
]

ATTEMPTS = 5
REQUEST_TIMEOUT = 1.5  # seconds
FIRST_DELAY = 0.1  # seconds before the second attempt; it doubles from there
TRANSIENT = (aiohttp.ClientError, TimeoutError)

# A job sees the context variables of whoever submitted it: so all share one pool of connections.
client: ContextVar[aiohttp.ClientSession] = ContextVar("client")


@job(retry=Retry(attempts=ATTEMPTS, on=TRANSIENT, delay=FIRST_DELAY), timeout=REQUEST_TIMEOUT)
async def fetch(address: str) -> Page:
    """Ask the site for one page. A 404 is an answer; a 503 says when to ask again."""
    async with client.get().get(address) as response:
        if response.status == 503:
            raise RetryLater(float(response.headers["Retry-After"]), "503")
        return Page(address, response.status, await response.read())


def session(site: str) -> aiohttp.ClientSession:
    """An ordinary HTTP client for the site.

    It limits nothing by itself: how many requests run at once is the workers' business, and how
    long one may take is the job's.
    """
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(site, connector=connector, timeout=aiohttp.ClientTimeout())


class Frontier:
    """Addresses to visit, each once: iterating ends when all that were known have been visited.

    Iterating waits while the pages that are under way may still lead to new ones.
    """

    def __init__(self, start: str) -> None:
        self.known = {start}
        self.unvisited = 1
        self._waiting: asyncio.Queue[str | None] = asyncio.Queue()
        self._waiting.put_nowait(start)

    def visited(self, links: Iterable[str] = ()) -> None:
        """One of the addresses is done with, and these were found there."""
        for address in links:
            if address not in self.known:
                self.known.add(address)
                self.unvisited += 1
                self._waiting.put_nowait(address)
        self.unvisited -= 1
        if self.unvisited == 0:
            self._waiting.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[str]:
        while (address := await self._waiting.get()) is not None:
            yield address
