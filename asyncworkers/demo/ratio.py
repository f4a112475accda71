"""The run as plain data, kept on disk so that the next one of the other kind can be compared."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from pathlib import Path
from typing import Any

from asyncworkers.demo.findings import Findings
from asyncworkers.demo.records import Run, Settings
from asyncworkers.demo.report import Section
from asyncworkers.units import seconds

__all__ = ["comparison", "document", "keep"]


def document(run: Run, found: Findings) -> dict[str, Any]:
    """All of it, fit for `json`."""
    return {
        "mode": run.settings.mode,
        "complete": run.complete,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "workers": run.settings.workers,
        "threads": run.settings.threads,
        "processes": run.settings.processes,
        "conditions": run.settings.conditions,
        "findings": dataclasses.asdict(found),
        "served": run.served,
        "pages": sorted(reading.address for reading in run.readings),
    }


def keep(settings: Settings, kept: dict[str, Any]) -> None:
    """Write a run's document for a later comparison."""
    _file(settings, settings.mode).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def comparison(settings: Settings, this: dict[str, Any]) -> Section | None:
    """This run beside the last one of the other kind, if both had the same to do."""
    other = _load(_file(settings, "supervisor" if settings.sequential else "sequential"))
    if other is None or not (this["complete"] and _same_work(this, other)):
        return None
    first, second = (this, other) if settings.sequential else (other, this)
    before, after = first["findings"]["work"], second["findings"]["work"]

    def row(what: str, one: float, two: float, why: str = "") -> tuple[str, str, str]:
        return what, f"{one / two:.1f} ×", f"{seconds(one)} → {seconds(two)}{why}"

    def wall(job: str) -> tuple[float, float]:
        return before["spans"][job]["wall"], after["spans"][job]["wall"]

    alone = before["spans"]["analyze"]["busy"], after["spans"]["analyze"]["wall"]
    return Section(
        "One thing after another → with the supervisor",
        [
            row(
                "render",
                *wall("render"),
                ", in child processes: as many at once as there are threads",
            ),
            row(
                "crawl and analyze",
                *wall("crawl"),
                ", both at once, and all the waiting side by side",
            ),
            row("analyze alone", *alone, ", CPU-bound, in child processes, while the pages arrive"),
            row("all of it", before["seconds"], after["seconds"]),
        ],
    )


def _same_work(this: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(this[key] == other.get(key) for key in ("conditions", "python", "pages"))


def _file(settings: Settings, mode: str) -> Path:
    return settings.output / f"{mode}.json"


def _load(path: Path) -> dict[str, Any] | None:
    try:
        loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return loaded
