"""How answers look: tables for people, a JSON object a line for programs, nothing that could fool either.

On a terminal tables are drawn by rich where it is installed; in a pipe they are plain columns. What
comes from a store is never trusted: control characters, which could repaint a terminal, are escaped.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "Column",
    "counted",
    "drawn",
    "escaped",
    "has_rich",
    "plain_table",
    "print_json",
    "print_table",
    "span",
]

UNITS = (("d", 86_400), ("h", 3_600), ("m", 60))

STYLES = {
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "paused": "yellow",
}


class Column(NamedTuple):
    """A column of a table; numbers stand on the right, and what may be `long` is cut at the edge."""

    title: str
    number: bool = False
    long: bool = False


def escaped(text: str, keep: str = "") -> str:
    """The text with everything escaped that is not printable; `keep` names characters to leave."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def span(seconds: float | None) -> str:
    """A length of time in its two largest units, as in `3h 20m`; a dash for none."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    whole = int(seconds)
    for (unit, size), (less, part) in zip(UNITS, (*UNITS[1:], ("s", 1)), strict=True):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size}{unit} {rest}{less}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"


def counted(number: int, noun: str) -> str:
    """A number with its noun, as in `1 job` and `2,000 jobs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def has_rich() -> bool:
    """Whether tables can be drawn."""
    return importlib.util.find_spec("rich") is not None


def print_json(document: Mapping[str, Any]) -> None:
    """Print one object on a line of its own; ASCII only, so that it passes everywhere."""
    click.echo(json.dumps(document))


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on standard output."""
    safe = [[escaped(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and has_rich():
        from rich.console import Console

        Console().print(drawn(columns, safe))
    else:
        click.echo(plain_table(columns, safe))


def plain_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """A table as columns of text, for pipes and for terminals without rich."""
    lines = [[column.title.upper() for column in columns], *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column.number else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    )


def drawn(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Table:
    """A table for rich; cells are texts, never markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.number else "left",
            no_wrap=True,
            overflow="ellipsis" if column.long else "fold",
        )
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    return table
