"""Draw the pictures for the docs, in docs/pictures: what `asyncworkers top` shows, and a timeline.

Usage: `python tests/docs/screenshot.py`. The frame of top.svg is of a real store, filled through its
protocol; but its clock stands still and its ids are drawn from a seed, so that the picture is the same
each time. timeline.svg is of a run in virtual time, whose chance is seeded too. timeline.png is that
run's page in a browser, if there is one: Debian's chromium.
"""

import asyncio
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from asyncworkers import Queue, Retry, Supervisor, job
from asyncworkers.cli import top
from asyncworkers.events import LoopStalled
from asyncworkers.store.clock import Ids, ManualClock
from asyncworkers.store.protocol import Settlement, Submission, Want, error_text
from asyncworkers.store.sqlite import SqliteStore
from asyncworkers.testing import simulate
from asyncworkers.timeline import Timeline

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
WIDTH = 108

# As rich draws it, but for its web font: a picture should not call home.
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: arial; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


async def frame(path: Path) -> top.Frame:
    """Fill a store, and look at it as `top` does."""
    clock = ManualClock()
    new = Ids(clock.wall, random.Random(4))
    store = SqliteStore(path, clock=clock)
    await store.open({"send_mail", "fetch", "thumbnail"})

    async def submit(name: str, queue: str, number: int, **fields: float) -> None:
        ids = [new.new() for _ in range(number)]
        await store.submit([Submission(one, queue, name, "[[],{}]", **fields) for one in ids])

    await submit("send_mail", "mail", 40)
    await submit("send_mail", "mail", 12, delay=600.0)
    await submit("thumbnail", "images", 900)
    dead = await store.lease([Want("mail", 3)])
    error = error_text("SMTPServerDisconnected", "connection lost")
    await store.settle([Settlement.fail(lease, error) for lease in dead])
    await store.pause("mail", True)
    thumbnails = await store.lease([Want("images", 2)])
    for lease in thumbnails:
        store.started(lease)
    clock.advance(42.0)
    await submit("fetch", "web", 600)
    fetches = await store.lease([Want("web", 6)])
    clock.advance(3.5)
    said = [(fetches[0], '[12,40,"chapter 3"]'), (thumbnails[1], "[0.5,1,null]")]
    await asyncio.to_thread(store.renew, said)
    frames = top.watch(store, 0.0, 12, clock=iter([0.0, 1.0, 2.0]).__next__)
    await anext(frames)
    ended = await store.lease([Want("web", 187)])
    await store.settle([Settlement.complete(lease, "1") for lease in ended])
    await submit("fetch", "web", 60)
    found = await anext(frames)
    await frames.aclose()
    await store.close()
    return found._replace(at=clock.wall())


def draw() -> str:
    """Return the picture."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    with tempfile.TemporaryDirectory(prefix="screenshot-") as folder:
        seen = asyncio.run(frame(Path(folder, "jobs.db")))
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, legacy_windows=False
    )
    console.print(top.picture(seen, "/var/lib/app/jobs.db"))
    return console.export_svg(title="asyncworkers top", code_format=FORMAT, unique_id="top")


DICE = random.Random(7)


async def spend(seconds: float) -> None:
    """Take about so long, now and then longer."""
    await asyncio.sleep(DICE.expovariate(1 / seconds))


@job(queue="web", retry=Retry(attempts=4, on=ConnectionError, delay=0.2), timeout=0.45)
async def fetch(_: int) -> None:
    """Ask a server that now and then resets the connection, or does not answer in time."""
    await spend(0.09)
    if DICE.random() < 0.1:
        raise ConnectionResetError("by peer")


@job(queue="files")
async def store(_: int) -> None:
    """Write to a slow disk."""
    await spend(0.05)


@job(queue="images")
async def thumbnail(_: int) -> None:
    """Compute."""
    await spend(0.03)


async def busy() -> Timeline:
    """A run of a few hundred jobs, one after the other for each page, and a stall as it would be told."""
    queues = [Queue("web", 16), Queue("files", 3), Queue("images", 2)]
    supervisor = Supervisor(queues=queues, record=True, name="gallery")
    async with supervisor:

        async def page(number: int) -> None:
            await asyncio.sleep(DICE.random() * 2)
            for function in (fetch, store, thumbnail):
                await (await supervisor.submit(function, number)).wait()

        pages = [asyncio.create_task(page(number)) for number in range(150)]
        await asyncio.sleep(1.4)
        assert supervisor.chronicle is not None
        now = asyncio.get_running_loop().time()
        where = "/srv/gallery/images.py", 41, "decode"
        supervisor.chronicle(LoopStalled(now, 0.12, "1", "thumbnail", *where, True))
        for one in pages:
            await one
    return supervisor.timeline()


def timeline() -> Timeline:
    """Return the run; each time the same one."""
    DICE.seed(7)
    return simulate(busy, seed=1).value


def photograph(drawn: Timeline, browser: str) -> None:
    """Have a browser open the page and make timeline.png of it."""
    with tempfile.TemporaryDirectory(prefix="screenshot-") as folder:
        page = drawn.save(Path(folder, "run.html"))
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        size = ["--window-size=1200,840", f"--user-data-dir={folder}/profile"]
        picture = f"--screenshot={PICTURES / 'timeline.png'}"
        command = [browser, *options, *size, picture, page.as_uri()]
        subprocess.run(command, check=True, timeout=60, capture_output=True)


def main() -> int:
    """Write the pictures."""
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "top.svg").write_text(draw(), encoding="utf-8")
    drawn = timeline()
    drawn.save(PICTURES / "timeline.svg")
    browser = shutil.which("chromium")
    if browser is None:
        sys.stderr.write("no chromium: timeline.png is left as it is\n")
    else:
        photograph(drawn, browser)
    return 0


if __name__ == "__main__":
    sys.exit(main())
