"""A plot of a run, by matplotlib: how many jobs ended over time, and how long attempts took."""

from __future__ import annotations

import io
from collections import defaultdict
from os import PathLike
from pathlib import Path
from typing import Any, cast

from asyncworkers import _checks
from asyncworkers.chronicle import Chronicle, Span
from asyncworkers.units import seconds

__all__ = ["Plot", "make_plot"]

POINTS = 4_000
"""Attempts that are drawn at most, evenly chosen: a page has no room for more."""

QUEUES = 8
"""Queues that are drawn, the busiest ones."""

ENDS = (("succeeded", "#1f9d57"), ("failed", "#e03131"), ("cancelled", "#868e96"))


class Plot:
    """A plot of a run, as `supervisor.plot()` makes it. A notebook shows it; `save` writes a file.

    `figure` is matplotlib's, to change or add to it. It belongs to no window and to no state of
    pyplot.
    """

    def __init__(self, figure: Any) -> None:
        self.figure = figure

    def save(self, path: str | PathLike[str]) -> Path:
        """Write a picture, and return its path: `.png`, `.svg`, `.pdf` and what else matplotlib knows
        by its ending.

        Raises ValueError for another ending, OSError if the file cannot be written.
        """
        place = Path(path)
        self.figure.savefig(place)
        return place

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.figure.savefig(picture, format="png")
        return picture.getvalue()

    def __repr__(self) -> str:
        return "<Plot of a run>"


def make_plot(chronicle: Chronicle, title: str) -> Plot:
    """Draw what a chronicle has recorded. Raises ImportError without matplotlib."""
    try:
        from matplotlib import figure
    except ImportError as error:
        raise ImportError(
            "a plot needs matplotlib: pip install 'asyncworkers[plot]'", name=error.name
        ) from error
    drawn: Any = cast("Any", figure).Figure(figsize=(8, 5), layout="constrained")
    above, below = drawn.subplots(2, 1, sharex=True)
    above.set_title(_plain(title))
    _draw_throughput(above, chronicle)
    _draw_times(below, chronicle)
    below.set_xlabel("seconds since the run began")
    below.set_xlim(left=0)
    return Plot(drawn)


def _draw_throughput(axes: Any, chronicle: Chronicle) -> None:
    """Jobs that ended in a second, by how they ended, each above the one before."""
    axes.set_ylabel("jobs ended per second")
    seen = chronicle.throughput()
    edges = [seen.start + seen.width * place for place in range(len(seen.ended) + 1)]
    floor = [0.0] * len(seen.ended)
    for name, color in ENDS:
        counts: tuple[int, ...] = getattr(seen, name)
        if any(counts):
            top = [low + count / seen.width for low, count in zip(floor, counts, strict=True)]
            axes.stairs(top, edges, baseline=floor, fill=True, color=color, label=name)
            floor = top
    if any(floor):
        axes.legend(loc="upper right")


def _draw_times(axes: Any, chronicle: Chronicle) -> None:
    """How long each attempt took, where it ended; those of a queue have one color."""
    axes.set_ylabel("seconds of an attempt")
    by_queue: defaultdict[str, list[Span]] = defaultdict(list)
    for span in _some(chronicle.attempts(running=False)):
        by_queue[span.queue].append(span)
    busiest = sorted(by_queue.items(), key=lambda one: (-len(one[1]), one[0]))
    for name, spans in busiest[:QUEUES]:
        ends = [span.end for span in spans]
        took = [max(span.seconds or 0.0, 1e-6) for span in spans]
        figures = chronicle.queues[name].running
        half, most = (seconds(figures.percentile(share) or 0.0) for share in (0.5, 0.99))
        label = _plain(f"{name}: median {half}, p99 {most}")
        axes.plot(ends, took, ".", markersize=3, alpha=0.6, rasterized=True, label=label)
    if by_queue:
        axes.set_yscale("log")
        axes.legend(loc="upper right")


def _some(spans: list[Span]) -> list[Span]:
    step = -(-len(spans) // POINTS) or 1
    return spans[::step]


def _plain(text: str) -> str:
    """Text that matplotlib takes as it is: a dollar sign would begin a formula."""
    return _checks.printable(text).replace("$", r"\$")
