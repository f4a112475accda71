"""The image service of the examples in a real browser: a photograph goes in, thumbnails are seen."""

import importlib
import sys
from pathlib import Path

import matplotlib as mpl
import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "dashboard"))

from browser import browsing, serving  # noqa: E402  (the tests of the dashboard have it)

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]


@pytest.fixture
def service(monkeypatch):
    """The example as a module, imported anew."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.delitem(sys.modules, "image_service", raising=False)
    yield importlib.import_module("image_service")
    sys.modules.pop("image_service")


async def test_a_photograph_becomes_thumbnails(service):
    """What a person does: choose a file, press the button, see pictures of the widths promised."""
    photograph = Path(mpl.get_data_path(), "sample_data", "grace_hopper.jpg")
    async with serving(service.app, lifespan="on") as address, browsing() as (page, seen):
        await page.goto(address)
        await page.get_by_label("A photograph").set_input_files(photograph)
        await page.get_by_role("button", name="Send").click()
        await page.get_by_role("status").filter(has_text="done").wait_for()
        shown = page.locator("#made img")
        await page.wait_for_function(
            "() => [...document.images].length === 4 && [...document.images].every(i => i.complete)"
        )
        widths = await shown.evaluate_all("images => images.map(image => image.naturalWidth)")
        assert tuple(widths) == service.WIDTHS
        assert await page.locator("#bar").evaluate("bar => bar.value") == len(service.WIDTHS)
        assert seen.complaints == []


async def test_what_is_no_picture_is_told(service, tmp_path):
    """A file that Pillow cannot read is said to have failed, and nothing is shown."""
    text = tmp_path / "letter.jpg"
    text.write_text("Dear reader")
    async with serving(service.app, lifespan="on") as address, browsing() as (page, _):
        await page.goto(address)
        await page.get_by_label("A photograph").set_input_files(text)
        await page.get_by_role("button", name="Send").click()
        await page.get_by_role("status").filter(has_text="failed").wait_for()
        assert await page.locator("#made img").count() == 0
