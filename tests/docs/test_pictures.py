"""The pictures in the docs show what is shown."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[2]


def words(picture: str) -> list[str]:
    """Return the texts of a picture, wherever they stand in it."""
    return [text.strip() for text in ET.fromstring(picture).itertext() if text.strip()]


def test_the_screenshot_of_top_is_up_to_date():
    """Drawn anew it says the same; a child draws it, for it sets the time zone."""
    draw = (
        "import sys; sys.path.insert(0, 'tests/docs'); import screenshot; print(screenshot.draw())"
    )
    drawn = subprocess.run(
        [sys.executable, "-c", draw],
        cwd=ROOT,
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    ).stdout
    picture = (ROOT / "docs" / "pictures" / "top.svg").read_text(encoding="utf-8")
    matrix = words(picture)
    assert "running" in " ".join(matrix)
    assert words(drawn) == matrix, "run: python tests/docs/screenshot.py"


def test_the_timeline_is_up_to_date():
    """Drawn anew, from the same run in virtual time, it is the same."""
    draw = "import sys; sys.path.insert(0, 'tests/docs'); import screenshot; print(screenshot.timeline().to_svg())"
    drawn = subprocess.run(
        [sys.executable, "-c", draw],
        cwd=ROOT,
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    ).stdout
    picture = (ROOT / "docs" / "pictures" / "timeline.svg").read_text(encoding="utf-8")
    assert {"images", "fetch", "failed", "timed out"} <= set(words(picture))
    assert drawn.strip() == picture.strip(), "run: python tests/docs/screenshot.py"


def test_pictures_are_self_contained():
    """None loads anything from elsewhere."""
    for path in (ROOT / "docs" / "pictures").glob("*.svg"):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text
        assert "@import" not in text


def test_photographs_are_small_and_shown():
    """Each is below 200 kB, and on a page; one that no page shows would only weigh."""
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    pictures = list((ROOT / "docs" / "pictures").glob("*.png"))
    assert len(pictures) >= 5
    for path in pictures:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 200_000, path.name
        assert f"../pictures/{path.name}" in pages, path.name
