"""Call an API that allows so many requests a second: whoever is told 429 makes everybody wait.

A server inside this program grants twenty requests in each 100 ms, and answers all others with 429
and a `Retry-After`. The job that is told so pauses its queue for as long, so that no other job asks
in vain meanwhile, and asks to be run again itself. A paused queue holds no worker and loses no job.

Needs aiohttp: pip install aiohttp.

Prints:

    100 answers, in order: True
    told to wait, and waited: True
    asked again only what was refused: True
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import ClientSession, web

from asyncworkers import Queue, Retry, RetryLater, Supervisor, job, run

CUSTOMERS = 100
GRANTED = 20
WINDOW = 0.1


class Api:
    """What a job needs to call the API, and to spare it."""

    def __init__(self, session: ClientSession, supervisor: Supervisor) -> None:
        self.session = session
        self.supervisor = supervisor
        self.look_up = job(
            self._look_up, queue="api", timeout=5, retry=Retry(attempts=50, on=ConnectionError)
        )

    async def _look_up(self, customer: int) -> int:
        """The customer's balance."""
        async with self.session.get(f"/customers/{customer}") as response:
            if response.status == 429:
                seconds = float(response.headers["Retry-After"])
                self.rest(seconds)
                raise RetryLater(seconds, "the API asked us to wait")
            response.raise_for_status()
            return int((await response.json())["balance"])

    def rest(self, seconds: float) -> None:
        """Start no more calls for so long. Being told twice is as good as once."""
        self.supervisor.pause("api")
        asyncio.get_running_loop().call_later(seconds, self.supervisor.resume, "api")


async def main() -> None:
    """Look up all customers, as fast as the API allows."""
    counter = Counter()
    queue = Queue("api", workers=30)
    async with (
        serving(counter) as address,
        ClientSession(address) as session,
        Supervisor(queues=[queue]) as supervisor,
    ):
        api = Api(session, supervisor)
        balances = await supervisor.map(api.look_up, range(CUSTOMERS))
    print(f"{len(balances)} answers, in order: {balances == [7 * n for n in range(CUSTOMERS)]}")
    print(f"told to wait, and waited: {counter.refused > 0}")
    print(f"asked again only what was refused: {counter.asked == CUSTOMERS + counter.refused}")


# ---- the API


class Counter:
    """Grants so many requests in each window of time, and counts."""

    def __init__(self) -> None:
        self.asked = self.refused = self.granted = 0
        self.ends = 0.0

    def wait(self) -> float:
        """The seconds until another request is granted; none if this one is."""
        now = time.monotonic()
        self.asked += 1
        if now >= self.ends:
            self.ends, self.granted = now + WINDOW, 0
        self.granted += 1
        if self.granted <= GRANTED:
            return 0.0
        self.refused += 1
        return self.ends - now


@asynccontextmanager
async def serving(counter: Counter) -> AsyncGenerator[str]:
    """Serve the API on a free port of this machine."""

    async def answer(request: web.Request) -> web.Response:
        seconds = counter.wait()
        if seconds:
            return web.Response(status=429, headers={"Retry-After": f"{seconds:.3f}"})
        return web.json_response({"balance": 7 * int(request.match_info["customer"])})

    application = web.Application()
    application.router.add_get("/customers/{customer}", answer)
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
