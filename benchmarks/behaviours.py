"""One table: what happens when things go wrong, to asyncworkers and to its peers.

    python -m benchmarks.behaviours [--quick] [--asyncio] [--only pebble,loky]

Every experiment runs in an interpreter of its own on two processes, which is given up after a
minute and a half, and every word of the table comes from what was seen in this run. Nothing is left
behind.

Errors are shown by name. A job *hangs* if its caller waits in vain for 15 seconds. A job that is to
be stopped is *interrupted* if its `finally` runs, *killed* if its process is gone, and *burns on* if
it still uses CPU five seconds later.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.experiments import Words
from benchmarks.family import Family, started, wait_for_quiet
from benchmarks.process_pools import OURS, ProcessPool, chosen
from benchmarks.tables import machine, markdown

PATIENCE = 90.0
EXITS_WITHIN = 8.0

Deed: TypeAlias = Callable[[Family], Words]
"""What is done to the experiment's process from outside, and what is seen there."""


def leave_alone(family: Family) -> Words:
    """Wait for what the experiment itself has seen."""
    family.wait(PATIENCE)
    words: Words = family.result()
    return words


def wait_until_busy(family: Family) -> None:
    """Wait until its jobs run."""
    ends = time.monotonic() + PATIENCE
    while not (family.folder / "ready").exists():
        if family.wait(0.02) or time.monotonic() > ends:
            raise RuntimeError(family.errors or "its jobs did not begin to run")


def interrupt(family: Family) -> Words:
    """Ctrl-C, as a terminal does it: SIGINT to the whole process group."""
    wait_until_busy(family)
    os.killpg(family.process.pid, signal.SIGINT)
    began = time.monotonic()
    ended = family.wait(EXITS_WITHIN)
    taken = time.monotonic() - began
    time.sleep(0.5)
    return {
        "the program": f"exits in {taken:.1f} s" if ended else "hangs",
        "tracebacks shown": str(family.errors.count("Traceback (most recent call last)")),
        "processes left": str(len(family.members()) - (not ended)),
    }


def kill_parent(family: Family) -> Words:
    """SIGKILL to the parent alone; a second later, who is left?"""
    wait_until_busy(family)
    family.process.kill()
    family.wait(PATIENCE)
    time.sleep(1)
    return {"": str(len(family.members()))}


@dataclass(frozen=True, slots=True)
class Trial:
    """An experiment and its rows, if need be in several variants that share the rows."""

    title: str
    experiment: str
    variants: dict[str, dict[str, Any]] = field(default_factory=lambda: {"": {}})
    deed: Deed = leave_alone


def trials(quick: bool) -> list[Trial]:
    ways = ("SIGKILL",) if quick else ("SIGKILL", "segfault", "os._exit(0)")
    size, shown = (50_000_000, "50 MB") if quick else (1_000_000_000, "1 GB")
    busy = {"": {"job": "spin"}}
    return [
        Trial("a child dies", "crash", {way: {"how": way} for way in ways}),
        Trial("cancel of a Python loop", "cancel", {"": {"job": "spin"}}),
        Trial("cancel of a call into C", "cancel", {"": {"job": "spin_in_c"}}),
        Trial("timeout of a Python loop", "timeout"),
        Trial("a closure", "closure"),
        Trial("an exception of two arguments", "odd_exception"),
        Trial("a result that cannot be pickled", "unpicklable_result"),
        Trial(f"a result of {shown}", "big_result", {"": {"size": size}}),
        Trial("Ctrl-C", "keep_busy", busy, interrupt),
        Trial(
            "left 1 s after kill -9 of the parent: idle",
            "keep_busy",
            {"": {"job": ""}},
            kill_parent,
        ),
        Trial("left: running a Python loop", "keep_busy", busy, kill_parent),
        Trial(
            "left: in a call into C",
            "keep_busy",
            {"": {"job": "spin_in_c"}},
            kill_parent,
        ),
    ]


def tried(trial: Trial, pool: type[ProcessPool], loop: str) -> Words:
    """All that was seen, a word a row; variants that differ say so."""
    seen: dict[str, dict[str, str]] = {}
    for variant, arguments in trial.variants.items():
        wait_for_quiet(0.5, patience=3)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            given = {"pool": pool.name, "experiment": trial.experiment, "folder": folder}
            given |= {"loop": loop, **arguments}
            with started(Path(folder), "benchmarks.experiments:perform", given) as family:
                for row, word in trial.deed(family).items():
                    seen.setdefault(row, {})[variant] = word

    def merged(words: dict[str, str]) -> str:
        alike = set(words.values())
        if len(alike) == 1:
            return alike.pop()
        return "; ".join(f"{variant}: {word}" for variant, word in words.items())

    return {
        ": ".join(filter(None, (trial.title, row))): merged(words) for row, words in seen.items()
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.behaviours", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="one way to crash, small results")
    parser.add_argument("--asyncio", action="store_true", help="stock asyncio, not uvloop")
    parser.add_argument("--only", default="", help="(parts of) names, separated by commas")
    parser.add_argument("--trials", default="", help="parts of rows' names, likewise")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    loop = "asyncio" if options.asyncio else "uvloop"
    pools = chosen(options.only)
    rows: dict[str, dict[str, str]] = {}
    failures: list[str] = []
    for trial in trials(options.quick):
        if not any(part in trial.title for part in options.trials.split(",")):
            continue
        for pool in pools:
            if pool.version() is None:
                continue
            if sys.stderr.isatty():
                doing = f"{trial.title}, {pool.name}"
                print(f"\r{doing:<70}", end="", file=sys.stderr, flush=True)
            try:
                words = tried(trial, pool, loop)
            except RuntimeError as error:
                failures.append(f"{trial.title}, {pool.name}: {error}")
                continue
            for row, word in words.items():
                rows.setdefault(row, {})[pool.name] = word
    command = " ".join(["benchmarks.behaviours", *sys.argv[1:]])
    print(f"{machine()}; {loop}; `python -m {command}`\n")
    head = [f"**{pool.name}**" if pool.name == OURS else pool.name for pool in pools]
    body = [
        [
            row,
            *(
                words.get(pool.name, "failed" if pool.version() is not None else "not installed")
                for pool in pools
            ),
        ]
        for row, words in rows.items()
    ]
    print(markdown(["", *head], body))
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
