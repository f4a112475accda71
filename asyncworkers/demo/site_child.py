"""The child program that serves the pages over real HTTP, through seeded bad weather.

    python -P site_child.py FOLDER SEED FAULTS

It prints its port as a line of JSON, serves until its standard input ends, which it does when the
parent closes it or dies, and then prints how often it did what.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import socket
import struct
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from aiohttp import web

__all__ = ["HANG", "Site", "Weather", "forecast", "main"]

Fault: TypeAlias = Literal["none", "busy", "reset", "hang"]

# The latencies of a distant server: half of all answers take longer than the median, one in a
# hundred five times as long.
MEDIAN_LATENCY = 0.06
SPREAD = 0.7
LONGEST_LATENCY = 0.6

RETRY_AFTER = 1  # seconds; HTTP allows only whole ones
HANG = 60.0  # seconds; longer than any client will wait
WORST_LUCK = 3  # faults in a row at one address, then it answers


@dataclass(frozen=True, slots=True)
class Weather:
    """What one request meets: a latency in seconds, and perhaps a fault."""

    latency: float
    fault: Fault


def forecast(seed: int, faults: float, address: str, visit: int) -> Weather:
    """The weather of the n-th visit to an address: always the same for the same seed.

    So two runs meet the same weather, in whatever order they visit the pages.
    """
    dice = random.Random(f"{seed} {address} {visit}")  # repeatable on purpose
    latency = min(dice.lognormvariate(math.log(MEDIAN_LATENCY), SPREAD), LONGEST_LATENCY)
    if visit > WORST_LUCK or dice.random() >= faults:
        return Weather(latency, "none")
    kinds: list[Fault] = ["busy", "reset", "hang"]
    return Weather(latency, dice.choices(kinds, weights=(5, 4, 1))[0])


class Site:
    """A folder of pages as a web application."""

    def __init__(self, folder: Path, seed: int, faults: float) -> None:
        self.pages = {page.name: page.read_bytes() for page in folder.glob("*.html")}
        self.seed = seed
        self.faults = faults
        self.visits: Counter[str] = Counter()
        self.tally: Counter[str] = Counter()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, as the weather permits."""
        address = request.match_info["address"]
        self.visits[address] += 1
        weather = forecast(self.seed, self.faults, address, self.visits[address])
        await asyncio.sleep(weather.latency)
        match weather.fault:
            case "none":
                answer = self._answer(address)
                self.tally[str(answer.status)] += 1
                return answer
            case "busy":
                self.tally["503"] += 1
                return web.Response(status=503, headers={"Retry-After": str(RETRY_AFTER)})
            case "reset":
                self.tally["reset"] += 1
                return await self._reset(request, self._answer(address))
            case "hang":
                self.tally["hang"] += 1
                await asyncio.sleep(HANG)
                return web.Response(status=504)

    def _answer(self, address: str) -> web.Response:
        body = self.pages.get(address)
        if body is None:
            return web.Response(status=404, text="There is no such page.")
        return web.Response(body=body, content_type="text/html", charset="utf-8")

    async def _reset(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        """Send half of the answer, then reset the connection: the client must notice by itself."""
        body = answer.body
        assert isinstance(body, bytes)
        half = web.StreamResponse(status=answer.status, headers={"Content-Length": str(len(body))})
        await half.prepare(request)
        await half.write(body[: len(body) // 2])
        if request.transport is not None:
            # To linger for no time at all is to send RST instead of FIN.
            linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
            connection = request.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            request.transport.abort()
        return half


async def main() -> None:
    """Serve on a free port of 127.0.0.1 until standard input ends."""
    site = Site(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    application = web.Application()
    application.router.add_get("/{address}", site.serve)
    # Whoever hangs is let go as soon as the client gives up, or at the end.
    runner = web.AppRunner(
        application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        # All workers connect at once: who finds the line full tries again after a whole second.
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
        _tell({"port": runner.addresses[0][1]})
        await asyncio.to_thread(sys.stdin.buffer.read)
    finally:
        await runner.cleanup()
    with contextlib.suppress(BrokenPipeError):
        _tell(dict(site.tally))


def _tell(what: dict[str, int]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
