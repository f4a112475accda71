"""Take the picture of a notebook for the docs: docs/pictures/notebook.png.

Usage: `python tests/docs/screenshot_notebook.py [dark]`. It runs examples/library.ipynb in a kernel, takes the
cells that show something, makes a page of them and has the Chromium there is draw it. What it measures
is different each time, so no test compares it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "library.ipynb"
PICTURES = ROOT / "docs" / "pictures"
SHOWN = (
    "whole = await supervisor.map",
    "print(f",
    "supervisor.report()",
    "supervisor.timeline()",
    "supervisor.plot()",
)
SIZE = "940,1460"


def page(theme: str) -> str:
    """Run the example and return a page of the cells that are shown."""
    notebook = nbformat.read(EXAMPLE, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    notebook.cells = [cell for cell in notebook.cells if cell.source.startswith(SHOWN)]
    body, _ = HTMLExporter(theme=theme).from_notebook_node(notebook)
    return str(body)


def main(theme: str = "light") -> int:
    """Write the picture."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("there is no chromium")
    with tempfile.TemporaryDirectory(prefix="screenshot-") as folder:
        html = Path(folder, "notebook.html")
        html.write_text(page(theme), encoding="utf-8")
        name = "notebook.png" if theme == "light" else f"notebook-{theme}.png"
        subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--virtual-time-budget=3000",
                f"--user-data-dir={folder}/profile",
                f"--window-size={SIZE}",
                f"--screenshot={PICTURES / name}",
                html.as_uri(),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": folder},
            timeout=120,
        )
    shrink(PICTURES / name)
    return 0


def shrink(path: Path) -> None:
    """A picture of few colors needs no more than 256."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
