"""The child program that renders modules to HTML: it imports nothing but the standard library.

    python -I -S render_child.py FOLDER MODULE...

pydoc imports what it renders, and an import may do anything. So this happens in a process of its
own, without site-packages. It tells of each module in one line of JSON on standard output; if
nobody reads it any more, because the parent has died, the next line ends this process too.
"""

from __future__ import annotations

import importlib
import json
import os
import pydoc
import sys
import time
import warnings
from pathlib import Path

__all__ = ["main", "render"]


def render(name: str, folder: Path) -> int:
    """Write the page of one module and return its size in bytes; raises whatever importing does."""
    module = importlib.import_module(name)
    html = pydoc.html.page(pydoc.describe(module), pydoc.html.document(module, name))
    # Some docstrings hold lone surrogates, which UTF-8 has no bytes for.
    body = html.encode("utf-8", "xmlcharrefreplace")
    (folder / f"{name}.html").write_bytes(body)
    return len(body)


def main() -> None:
    """Render every module named on the command line, each told of in one line."""
    warnings.simplefilter("ignore")
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    # Modules may print while they are imported: keep the real output for ourselves.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as report:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        for name in names:
            print(json.dumps(_told(name, folder)), file=report, flush=True)


def _told(name: str, folder: Path) -> dict[str, object]:
    began = time.perf_counter()
    size, error = 0, None
    try:
        size = render(name, folder)
    except (Exception, SystemExit) as failure:  # an import may raise anything
        error = f"{type(failure).__name__}: {failure}"
    return {"module": name, "size": size, "seconds": time.perf_counter() - began, "error": error}


if __name__ == "__main__":
    main()
