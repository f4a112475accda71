"""Writes the timeline of a run: one HTML file that needs nothing else, a lane for each worker."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from asyncworkers.demo.records import Attempt, Ending
from asyncworkers.units import counted

__all__ = ["lanes", "write_timeline"]

JOBS = ("render", "fetch", "parse", "compress")


def write_timeline(
    path: Path, attempts: Iterable[Attempt], subtitle: str, figures: Iterable[tuple[str, str]]
) -> None:
    """Write the page; `figures` are names and values to show above the lanes."""
    data = {"subtitle": subtitle, "figures": list(figures), **_drawn(attempts)}
    # In a script element only "</" could end it early.
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    template = (files("asyncworkers.demo") / "timeline.html").read_text(encoding="utf-8")
    path.write_text(template.replace("__DATA__", text), encoding="utf-8")


def lanes(attempts: Iterable[Attempt]) -> dict[int, int]:
    """A lane for each worker of one queue, by the worker's number.

    Idle workers are let go and new ones, with new numbers, come when there is more to do: those
    take over the lanes of workers that have gone.
    """
    lives: dict[int, tuple[float, float]] = {}
    for attempt in attempts:
        start, end = lives.get(attempt.worker, (attempt.start, attempt.end))
        lives[attempt.worker] = (min(start, attempt.start), max(end, attempt.end))
    found: dict[int, int] = {}
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    for worker, (start, end) in sorted(lives.items(), key=lambda life: (life[1], life[0])):
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (end, lane))
        found[worker] = lane
    return found


def _drawn(attempts: Iterable[Attempt]) -> Mapping[str, Any]:
    """The attempts as columns of numbers, times in milliseconds: a third of the size of objects."""
    taken = sorted(attempts, key=lambda attempt: attempt.start)
    # Few workers first: threads and processes above, the crowd on the loop below.
    of_queue: dict[str, list[Attempt]] = {}
    for attempt in taken:
        of_queue.setdefault(attempt.queue, []).append(attempt)
    lane_of = {queue: lanes(there) for queue, there in of_queue.items()}
    count = {queue: max(found.values()) + 1 for queue, found in lane_of.items()}
    queues = sorted(of_queue, key=lambda queue: (count[queue], queue))
    jobs = [*JOBS, *sorted({attempt.job for attempt in taken} - set(JOBS))]
    endings = list(Ending)
    return {
        "jobs": jobs,
        "endings": endings,
        "queues": [
            {"name": queue, "lanes": count[queue], "note": counted(count[queue], "worker")}
            for queue in queues
        ],
        "span": round(1000 * max((attempt.end for attempt in taken), default=1.0), 2),
        "attempts": {
            "job": [jobs.index(attempt.job) for attempt in taken],
            "queue": [queues.index(attempt.queue) for attempt in taken],
            "lane": [lane_of[attempt.queue][attempt.worker] for attempt in taken],
            "start": [round(1000 * attempt.start, 2) for attempt in taken],
            "end": [round(1000 * attempt.end, 2) for attempt in taken],
            "ending": [endings.index(attempt.ending) for attempt in taken],
            "number": [attempt.number for attempt in taken],
            "subject": [attempt.subject for attempt in taken],
        },
    }
