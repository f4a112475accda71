"""Prints results as Markdown."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, padded so that it also reads well in a terminal."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *(line(row) for row in rows)])


def figure(value: float) -> str:
    """Two significant digits below 10, none after the point above."""
    if value >= 99.5:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def machine() -> str:
    """The interpreter, its loop library and the number of cores, in one line."""
    try:
        uvloop = f", uvloop {metadata.version('uvloop')}"
    except metadata.PackageNotFoundError:
        uvloop = ", no uvloop"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}{uvloop}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
