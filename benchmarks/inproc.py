"""One table: jobs in one process, asyncworkers beside references and peers, on both event loops.

    python -m benchmarks.inproc [--quick] [--loop uvloop] [--only aiojobs,map] [--json results.json]

How it measures. Every row is measured in processes of its own, in several rounds, the rows shuffled
anew in each. Within a process the row and its reference take turns, each time on a new event loop,
so that both see the same noise; a ratio compares two neighbors in time, and the table shows the
median over all of them. Workers are started and warmed up before the clock is. The garbage
collector runs as Python sets it, for everybody, and has just made a full collection.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.contestants import Contestant, contestants
from benchmarks.fresh import LOOPS, in_new_process, run_on
from benchmarks.ours import SUBMIT
from benchmarks.references import BASE
from benchmarks.tables import figure, machine, markdown
from benchmarks.workloads import WORKLOADS, Workload

if TYPE_CHECKING:
    from collections.abc import Iterable

COSTS = {
    "nothing: the noise of these figures": (BASE, BASE),
    "`asyncio.timeout`, by hand": (BASE, f"{BASE}, timeout"),
    "timeout=30 that does not fire": (SUBMIT, f"{SUBMIT}, timeout=30"),
    "retry=Retry(5, on=OSError) that is not needed": (SUBMIT, f"{SUBMIT}, retry"),
    "a listener": (SUBMIT, f"{SUBMIT}, a listener"),
    "no listener, after one was removed": (SUBMIT, f"{SUBMIT}, a listener removed"),
}
"""What one thing costs a job, as two rows that take turns: without it, and with it."""


@dataclass(frozen=True, slots=True)
class Duel:
    """Two contestants, one workload, one loop: what is measured in turns in one process."""

    loop: str
    workload: str
    base: str
    subject: str

    def measure(self, pairs: int, share: float) -> list[tuple[float, float]]:
        """Base and subject in turns, `pairs` times or for about two seconds.

        Who goes first changes each time: the second of two finds warmer caches.
        """
        workload = WORKLOADS[self.workload]
        jobs = max(workload.workers, int(workload.jobs * share))
        base, subject = contestants()[self.base], contestants()[self.subject]
        result: list[tuple[float, float]] = []
        ends = perf_counter() + 2
        while len(result) < pairs and (not result or perf_counter() < ends):
            order = (1, 0) if len(result) % 2 else (0, 1)
            taken = [0.0, 0.0]
            for turn in order:
                taken[turn] = run_on(self.loop, once((subject, base)[turn], workload, jobs))
            after, before = taken
            if isnan(after):
                break
            result.append((before, after))
        return result


async def once(contestant: Contestant, workload: Workload, jobs: int) -> float:
    """Seconds a job, or the workload's own figure; not a number if it cannot do what is asked."""
    async with contestant.open(workload.workers) as pool:
        if workload.single and pool.call is None:
            return float("nan")
        measured = await workload.measure(pool, workload.workers, jobs)
        return measured / jobs if workload.unit == "ratio" else measured


def measure(
    duels: list[dict[str, str]], pairs: int, share: float
) -> list[list[tuple[float, float]]]:
    """Measure several duels, one after the other. Runs in a process of its own."""
    return [Duel(**duel).measure(pairs, share) for duel in duels]


class Results:
    """All pairs measured, and the cells they become."""

    def __init__(self) -> None:
        self.pairs: dict[Duel, list[tuple[float, float]]] = {}
        self.failures: dict[str, str] = {}

    def run(self, duels: list[Duel], pairs: int, share: float) -> None:
        """Measure in a new process and keep what came of it, also if that was an error."""
        try:
            measured = in_new_process(
                "benchmarks.inproc:measure",
                duels=[asdict(duel) for duel in duels],
                pairs=pairs,
                share=share,
            )
        except RuntimeError as error:
            self.failures[duels[0].subject] = str(error)
            return
        for duel, new in zip(duels, measured, strict=True):
            self.pairs.setdefault(duel, []).extend((before, after) for before, after in new)

    def cell(self, duel: Duel) -> str:
        """What the table shows for it."""
        pairs = self.pairs.get(duel)
        if not pairs:
            return "-"
        if WORKLOADS[duel.workload].unit == "ratio":
            return figure(median(before / after for before, after in pairs))
        return figure(median(after for _, after in pairs))

    def cost(self, duel: Duel) -> str:
        """Nanoseconds a job that the subject takes more than the base."""
        pairs = self.pairs.get(duel)
        return f"{median(after - before for before, after in pairs) * 1e9:,.0f}" if pairs else "-"

    def rate(self, loop: str) -> float:
        """No-op jobs a second of the hand-written loop, over all its turns."""
        return 1 / median(
            before
            for duel, pairs in self.pairs.items()
            if (duel.loop, duel.workload, duel.base) == (loop, "noop", BASE)
            for before, _ in pairs
        )


def table(results: Results, rows: Iterable[Contestant], loops: list[str]) -> str:
    """The one table: a row a contestant, a column a workload, the loops side by side in a cell."""
    units = {"ratio": "", "µs": ", µs", "ms": ", ms"}
    head = [" / ".join(loops), *(f"{w.title}{units[w.unit]}" for w in WORKLOADS.values())]

    def cell(contestant: Contestant, key: str) -> str:
        if contestant.version is None:
            return "not installed"
        if contestant.name in results.failures:
            return "failed"
        base = WORKLOADS[key].base
        figures = [results.cell(Duel(loop, key, base, contestant.name)) for loop in loops]
        return "-" if set(figures) == {"-"} else " / ".join(figures)

    def name(contestant: Contestant) -> str:
        if contestant.kind == "ours":
            return f"**{contestant.name}**"
        return f"{contestant.name} {contestant.version or ''}".strip()

    return markdown(head, [[name(row), *(cell(row, key) for key in WORKLOADS)] for row in rows])


def costs(results: Results, loops: list[str]) -> str:
    """What one thing costs a job, in nanoseconds."""
    rows = [
        [label, *(results.cost(Duel(loop, "noop", base, subject)) for loop in loops)]
        for label, (base, subject) in COSTS.items()
    ]
    return markdown(["What a job pays for, ns", *loops], rows)


def tasks(rows: Iterable[Contestant], loops: list[str], rounds: int) -> list[list[Duel]]:
    """What to measure, a process an entry: round by round, and shuffled within a round."""
    everything: list[list[Duel]] = []
    shuffler = random.Random(0)
    for _ in range(rounds):
        round_: list[list[Duel]] = []
        for loop in loops:
            for row in rows:
                if row.version is not None:
                    duels = [Duel(loop, key, w.base, row.name) for key, w in WORKLOADS.items()]
                    round_.append(duels)
            round_.extend([Duel(loop, "noop", *cost)] * 3 for cost in COSTS.values())
        shuffler.shuffle(round_)
        everything.extend(round_)
    return everything


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inproc", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="one short round, about a minute")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of fresh processes")
    parser.add_argument("--loop", choices=LOOPS, action="append", help="default: both")
    parser.add_argument("--only", default="", help="parts of names of rows, separated by commas")
    parser.add_argument("--json", type=Path, help="also write every sample to this file")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    loops: list[str] = options.loop or list(LOOPS)
    parts = options.only.casefold().split(",")
    rows = [
        row
        for row in contestants().values()
        if row.kind != "extra"
        and (row.name == BASE or any(part in row.name.casefold() for part in parts))
    ]
    rounds, pairs, share = (1, 2, 0.3) if options.quick else (options.rounds, 3, 1.0)
    results = Results()
    todo = tasks(rows, loops, rounds)
    for count, duels in enumerate(todo, 1):
        if sys.stderr.isatty():
            print(
                f"\r{count}/{len(todo)} {duels[0].subject:<60}", end="", file=sys.stderr, flush=True
            )
        results.run(duels, pairs, share)
    print(f"{machine()}; `python -m {' '.join(['benchmarks.inproc', *sys.argv[1:]])}`\n")
    print(table(results, rows, loops))
    rates = " / ".join(f"{results.rate(loop):,.0f}" for loop in loops)
    print(f"\n1.00 is {rates} no-op jobs a second.\n")
    print(costs(results, loops))
    for name, error in results.failures.items():
        print(f"\n{name} failed: {error}", file=sys.stderr)
    if options.json:
        samples = [asdict(duel) | {"pairs": pairs} for duel, pairs in results.pairs.items()]
        options.json.write_text(json.dumps({"machine": machine(), "samples": samples}))
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
