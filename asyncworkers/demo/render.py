"""The job that renders: a blocking function, waiting in a thread for a child process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from asyncworkers import CancelToken, current_job, job
from asyncworkers.demo import render_child
from asyncworkers.demo.catalog import Batch
from asyncworkers.demo.records import DemoFailed, Rendered, Settings

__all__ = ["INDEX", "prepare", "render", "render_batch", "write_index"]

INDEX = "index.html"

_NOTE = "Written by `asyncworkers demo`, anew each time; delete it whenever you like.\n"


@job(timeout=300)
def render(batch: Batch) -> list[Rendered]:
    """Render a batch of modules in a child process, telling how far it is."""
    this = current_job()
    rendered: list[Rendered] = []
    for page in render_batch(batch, this.cancelled):
        rendered.append(page)
        this.report(len(rendered), len(batch.modules), page.module)
    return rendered


def render_batch(batch: Batch, cancelled: CancelToken | None = None) -> Iterator[Rendered]:
    """Run the child process and yield each module as it is done; raises DemoFailed.

    The child ends with the loop over it, however that ends, and as soon as the token is true.
    """
    command = [sys.executable, "-I", "-S", render_child.__file__, str(batch.folder), *batch.modules]
    child = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us; the child we end ourselves
    )
    assert child.stdout is not None
    if cancelled is not None:
        threading.Thread(target=_end_with, args=(child, cancelled), daemon=True).start()
    with child, child.stdout as told:
        try:
            for line in told:
                yield Rendered(**json.loads(line))
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0:
        raise DemoFailed(f"{batch}: its process ended with code {child.returncode}")


def _end_with(child: subprocess.Popen[bytes], cancelled: CancelToken) -> None:
    """Kill the child as soon as nobody waits for it: its reader is stuck until it says more."""
    while child.poll() is None:
        if cancelled.wait(0.05):
            child.kill()


def prepare(settings: Settings) -> None:
    """Make the output folder, or empty its site of the pages of an earlier run.

    Raises DemoFailed rather than delete pages that the demo did not write.
    """
    note, site = settings.output / "README.txt", settings.site
    if site.exists() and not (note.exists() and note.read_text(encoding="utf-8") == _NOTE):
        raise DemoFailed(f"{site} is not from the demo: choose another --output")
    site.mkdir(parents=True, exist_ok=True)
    note.write_text(_NOTE, encoding="utf-8")
    for page in site.glob("*.html"):
        page.unlink()


def write_index(folder: Path, rendered: Iterable[Rendered]) -> None:
    """Write the page a crawl begins at: the modules outside packages, which link to the rest."""
    names = sorted(page.module for page in rendered if page.error is None)
    roots = (escape(name) for name in names if "." not in name)
    links = (f'<li><a href="{root}.html">{root}</a></li>' for root in roots)
    (folder / INDEX).write_text(
        "<!DOCTYPE html>\n<html><head><meta charset='utf-8'><title>Python: index of modules</title>"
        f"</head><body><h1>Index of modules</h1><ul>\n{chr(10).join(links)}\n</ul></body></html>\n",
        encoding="utf-8",
    )
