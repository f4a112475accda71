"""Photograph the dashboard, for the docs: docs/pictures/dashboard-*.png.

Usage: `python tests/docs/dashboard_pictures.py [seconds]`. A real supervisor is at work behind a real
server, and a real browser looks at it, so that no two pictures are the same: they are made anew when
the page has changed, and looked at by whoever changed it.
"""

import asyncio
import io
import sys
from pathlib import Path

from PIL import Image
from starlette.applications import Starlette

sys.path.insert(0, str(Path(__file__).parents[1] / "dashboard"))

import picture_jobs
from browser import browsing, serving

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


async def photograph(page, name: str) -> None:
    """Take what the page shows, written as small as it goes."""
    raw = await page.screenshot(animations="disabled")
    picture = Image.open(io.BytesIO(raw)).convert("RGB")
    await asyncio.to_thread(picture.save, PICTURES / f"dashboard-{name}.png", optimize=True)


async def look(where: str, seconds: float) -> None:
    """Go through the pages as somebody would."""
    async with browsing(viewport=DESKTOP, color_scheme="light") as (page, _):
        await page.goto(where)
        await asyncio.sleep(seconds)
        await photograph(page, "overview")
        failed = page.locator("#failures a").first
        href = await failed.get_attribute("href")
        await page.goto(f"{where}#/jobs")
        await page.locator("#jobs tbody tr").first.wait_for()
        await asyncio.sleep(1)
        await photograph(page, "jobs")
        await page.goto(f"{where}{href}")
        await page.locator("#job .log li").first.wait_for()
        await page.set_viewport_size({"width": 1280, "height": 1320})
        await photograph(page, "job")
    async with browsing(viewport=DESKTOP, color_scheme="dark") as (page, _):
        await page.goto(where)
        await asyncio.sleep(2)
        await photograph(page, "dark")
    async with browsing(viewport=PHONE, device_scale_factor=2, color_scheme="light") as (page, _):
        await page.goto(where)
        await asyncio.sleep(2)
        await photograph(page, "phone")


async def main() -> None:
    """Run a shop, and look at it."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    shop = picture_jobs.supervisor()
    app = Starlette()
    app.mount("/dashboard", shop.dashboard(auth=None, actions=True))
    async with shop:
        busy = asyncio.create_task(picture_jobs.keep_busy(shop))
        async with serving(app) as where:
            await look(f"{where}/dashboard/", seconds)
        busy.cancel()
        shop.cancel_all("enough was seen")


if __name__ == "__main__":
    asyncio.run(main())
