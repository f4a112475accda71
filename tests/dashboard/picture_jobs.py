"""A supervisor at work, as the pictures in the docs show it."""

import asyncio
import linecache
import logging
import random
import time
from pathlib import Path

from asyncworkers import Queue, Retry, Supervisor, current_job, job

dice = random.Random(7)

log = logging.getLogger("shop.payments")
log.setLevel(logging.INFO)

SHOWN_FILE = "/srv/shop/jobs.py"
linecache.cache[SHOWN_FILE] = (1, None, Path(__file__).read_text("utf-8").splitlines(True), "")


def of_the_shop(function):
    """Have tracebacks and stalls name a file as it would be called where the shop runs."""
    function.__code__ = function.__code__.replace(co_filename=SHOWN_FILE)
    return function


class PaymentDeclined(Exception):
    """What a payment provider says."""


@job(queue="mail", retry=Retry(attempts=3, on=(ConnectionError,), delay=0.4), tags=("newsletter",))
async def send_newsletter(address: str, edition: int, api_token: str) -> None:
    """Now and then the server hangs up."""
    await asyncio.sleep(dice.uniform(0.02, 0.25))
    if dice.random() < 0.1:
        raise ConnectionError("smtp.example.com closed the connection")


@job(queue="web")
async def fetch_page(url: str) -> int:
    """Quick and many."""
    await asyncio.sleep(dice.expovariate(1 / 0.06))
    return len(url)


@job(queue="payments", tags=("orders",), retry=Retry(attempts=3, on=(ConnectionError,), delay=0.2))
@of_the_shop
async def charge_card(order: dict, card_token: str) -> None:
    """Fails where it matters."""
    log.info("order %d: %d %s", order["id"], order["amount"], order["currency"])
    await asyncio.sleep(0.05)
    if order["amount"] > 900 and current_job().attempt == 1:
        try:
            raise ConnectionError("pay.example.com closed the connection")
        except ConnectionError:
            log.warning("the provider did not answer", exc_info=True)
            raise
    if order["amount"] > 900:
        log.error("declined: limit exceeded")
        raise PaymentDeclined(f"order {order['id']} was declined: limit exceeded")


@job(queue="reports")
async def build_report(month: str, customers: int) -> None:
    """Takes long, and says how far it is."""
    for done in range(customers):
        current_job().report(done, customers, f"customer {done + 4_001}")
        await asyncio.sleep(0.05)


@job(cpu=True)
def resize_image(path: str, width: int) -> int:
    """Computes in a process."""
    end = time.monotonic() + 0.4
    total = 0
    while time.monotonic() < end:
        total += width
    return total


@job
@of_the_shop
async def parse_invoice(path: str) -> None:
    """Blocks the event loop, which it should not."""
    time.sleep(0.16)  # the point


def supervisor() -> Supervisor:
    """With queues of several kinds."""
    return Supervisor(
        20,
        processes=2,
        queues=[
            Queue("mail", 12),
            Queue("web", 24),
            Queue("payments", 4),
            Queue("reports", 2),
        ],
        name="shop",
    )


async def keep_busy(shop: Supervisor) -> None:
    """Submit what a shop has to do, for ever."""
    for number in range(3):
        shop.submit_nowait(build_report, f"2026-{number + 9:02}", 900 - 150 * number)
    for number in range(40):
        shop.submit_nowait(resize_image, f"/srv/images/{number + 1:05}.jpeg", 640)
    for number in range(30):
        address = f"reader{number}@example.com"
        shop.submit_nowait(send_newsletter.options(delay=3600), address, 214, api_token="t-1")
    beat = 0
    while True:
        beat += 1
        for _ in range(dice.randrange(10, 34)):
            shop.submit_nowait(fetch_page, f"https://example.com/products/{dice.randrange(9_000)}")
        for _ in range(dice.randrange(1, 8)):
            address = f"reader{dice.randrange(9_000)}@example.com"
            shop.submit_nowait(send_newsletter, address, 215, api_token="t-1")
        if beat % 3 == 0:
            order = {"id": 70_000 + beat, "amount": dice.randrange(20, 1_000), "currency": "EUR"}
            shop.submit_nowait(charge_card, order, card_token="tok_visa")
        if beat in (8, 30):
            shop.submit_nowait(parse_invoice, "/srv/invoices/2026-11.pdf")
        await asyncio.sleep(0.1)
