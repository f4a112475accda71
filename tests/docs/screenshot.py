"""Draw what `asyncworkers top` shows, for the docs: docs/pictures/top.svg.

Usage: `python tests/docs/screenshot.py`. The frame is of a real store, filled through its protocol; but
its clock stands still and its ids are drawn from a seed, so that the picture is the same each time.
"""

import asyncio
import io
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from asyncworkers.cli import top
from asyncworkers.store.clock import ManualClock, new_id
from asyncworkers.store.protocol import Settlement, Submission, Want, error_text
from asyncworkers.store.sqlite import SqliteStore

PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "top.svg"
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
    clock, dice = ManualClock(), random.Random(4)
    store = SqliteStore(path, clock=clock)
    await store.open({"send_mail", "fetch", "thumbnail"})

    async def submit(name: str, queue: str, number: int, **fields: float) -> None:
        ids = [new_id(clock.wall(), dice) for _ in range(number)]
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


def main() -> int:
    """Write the picture."""
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
