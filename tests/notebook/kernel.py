"""Executes notebooks in a kernel as a user's client does: `python kernel.py notebook.ipynb [how]`.

It is a program of its own, since a client of kernels leaves threads and sockets behind. It prints, as
JSON, what each cell has put out, and what became of the processes that the cells have named in lines
such as `children: 17, 18`. A cell that prints `interrupt me` is interrupted then, in the way the
client's button does that. `how` the kernel ends: `shutdown`, as at the end of a session, or `kill`.
"""

import asyncio
import contextlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

PATIENCE = 30.0
"""Seconds until a process that should end counts as left behind."""


class Client(NotebookClient):
    """A client that presses the button when it is asked to."""

    def process_message(self, message: Any, cell: Any, index: int) -> Any:
        """Look at what a cell puts out, as it comes."""
        if message["msg_type"] == "stream" and "interrupt me" in message["content"]["text"]:
            self.pressing = asyncio.ensure_future(self.km.interrupt_kernel())
        return super().process_message(message, cell, index)


async def execute(path: Path, how: str) -> dict[str, Any]:
    """Run all cells; what they have put out, and which of their processes are left."""
    notebook = nbformat.read(path, as_version=4)
    client = Client(notebook, timeout=60, kernel_name="python3")
    cells: list[str] = []
    html: list[str] = []
    async with client.async_setup_kernel():
        for index, cell in enumerate(notebook.cells):
            with contextlib.suppress(CellExecutionError):  # it is in the output
                await client.async_execute_cell(cell, index)
            cells.append(text_of(cell))
        html = [html_of(cell) for cell in notebook.cells]  # what is updated in place, at last
        if how == "kill":
            await client.km.shutdown_kernel(now=True)
    said = re.findall(r"^children: (.*)$", "\n".join(cells), re.MULTILINE)
    children = {int(pid) for line in said for pid in line.split(",")}
    return {"cells": cells, "html": html, "left": await left_of(children)}


def text_of(cell: Any) -> str:
    """What a cell has printed, its value, and the error it ended with, as plain text."""
    found = []
    for output in cell.get("outputs", ()):
        if output.output_type == "stream":
            found.append(output.text)
        elif output.output_type == "error":
            found.append(f"{output.ename}: {output.evalue}\n")
        else:
            found.append(output.data["text/plain"] + "\n")
    return "".join(found)


def html_of(cell: Any) -> str:
    """What a cell shows on a page, other than text."""
    data = [output.data for output in cell.get("outputs", ()) if "data" in output]
    return "".join(one.get("text/html", "") for one in data)


async def left_of(processes: set[int]) -> list[int]:
    """The processes that do not end."""
    waited = 0.0
    while (left := [pid for pid in processes if runs(pid)]) and waited < PATIENCE:
        await asyncio.sleep(0.02)
        waited += 0.02
    return left


def runs(pid: int) -> bool:
    """Whether there is such a process, which is not merely waiting to be forgotten."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    told = asyncio.run(execute(Path(sys.argv[1]), sys.argv[2]))
    sys.stdout.write(json.dumps(told) + "\n")
