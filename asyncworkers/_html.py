"""What notebooks show in place of a repr: small, escaped, and readable on a light and a dark page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from asyncworkers import _checks

__all__ = ["bar", "block", "figures", "rows", "text", "words"]

LONGEST = 200
"""Characters of a text that are shown."""

MOST = 50
"""Rows of a table that are shown, so that what is saved in a notebook stays small."""

# The colors are those of the page around it, whichever theme that has: nothing here is black or white.
STYLE = (
    "<style>.asyncworkers{color:inherit;margin:.3em 0}"
    ".asyncworkers table{border-collapse:collapse;margin:.3em 0;font-variant-numeric:tabular-nums}"
    ".asyncworkers table :is(th,td){color:inherit;background:none;text-align:left!important;padding:.15em .6em;"
    "border:0;border-bottom:1px solid rgba(128,128,128,.35)}"
    ".asyncworkers table .number{text-align:right!important}"
    ".asyncworkers progress{width:20em;max-width:100%;vertical-align:middle}"
    ".asyncworkers img{max-width:100%}</style>"
)


def text(value: object) -> str:
    """Any value as text that is no markup: escaped, printable, and not too long."""
    shown = _checks.printable(str(value)[: LONGEST + 1])
    if len(shown) > LONGEST:
        shown = shown[: LONGEST - 1] + "…"
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        shown = shown.replace(sign, entity)
    return shown.replace("'", "&#x27;")


def block(title: str, *parts: str) -> str:
    """Parts, which are markup, below a title, which is text, unless they have one."""
    heading = f"<div><strong>{text(title)}</strong></div>" if title else ""
    return f'<div class="asyncworkers">{STYLE}{heading}{"".join(parts)}</div>'


def words(value: object) -> str:
    """A line of text."""
    return f"<div>{text(value)}</div>"


def rows(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A table with a head; the first cell of each line names it. Without columns that are empty, and
    nothing at all if there is no line.
    """
    every: list[Sequence[object]] = list(lines)
    if not every:
        return ""
    kept = [place for place in range(len(heads)) if not place or any(x[place] != "" for x in every)]
    heads = [heads[place] for place in kept]
    every = [[line[place] for place in kept] for line in every]
    head = "".join(
        f'<th scope="col"{_kind(like)}>{text(name)}</th>'
        for name, like in zip(heads, every[0], strict=True)
    )
    body = "".join(_row(name, cells) for name, *cells in every[:MOST])
    left = words(f"and {len(every) - MOST:,} more") if len(every) > MOST else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{left}"


def figures(pairs: Iterable[tuple[str, object]]) -> str:
    """A table of names and what each of them is; without those that are None."""
    body = "".join(_row(name, [value]) for name, value in pairs if value is not None)
    return f"<table><tbody>{body}</tbody></table>"


def bar(done: float, total: float | None) -> str:
    """How far something is; without a total only that it goes on."""
    if not total or total < 0:
        return "<progress></progress>"
    share = min(max(done / total, 0.0), 1.0)
    return f'<progress value="{share:.4f}" max="1">{share:.0%}</progress>'


def _row(name: object, cells: Iterable[object]) -> str:
    others = "".join(f"<td{_kind(cell)}>{_figure(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{text(name)}</th>{others}</tr>'


def _kind(value: object) -> str:
    return ' class="number"' if isinstance(value, int | float) else ""


def _figure(value: object) -> str:
    return f"{value:,}" if type(value) is int else text(value)
