"""One table: what it costs a job to be watched, on both event loops.

    python -m benchmarks.observe [--quick] [--loop uvloop] [--only traces,metrics]

How it measures. The job does nothing, so that nothing hides the price. Each row is measured in
processes of its own, in several rounds, the rows shuffled anew in each. Within a process a
supervisor that is not watched and one that is take turns, each time on a new event loop, and who
goes first changes: the table shows the median of the differences, in nanoseconds of processor time a
job, which the rest of the machine disturbs less than it does a clock. The first
row compares nothing with nothing: that is the noise of the others.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from statistics import median
from time import process_time
from typing import TypeAlias

from asyncworkers import Queue, Supervisor, job
from asyncworkers.events import Event
from benchmarks.fresh import LOOPS, in_new_process, run_on
from benchmarks.tables import machine, markdown

WORKERS = 100
WARM_UP = 1_000

Watch: TypeAlias = Callable[[Supervisor], AbstractContextManager[None]]


@job
async def noop(number: int) -> int:
    return number


@contextlib.contextmanager
def nobody(_supervisor: Supervisor) -> Generator[None]:
    yield


@contextlib.contextmanager
def listener(supervisor: Supervisor) -> Generator[None]:
    def ignore(_: Event) -> None:
        pass

    stop = supervisor.listen(ignore)
    yield
    stop()


@contextlib.contextmanager
def subscription(supervisor: Supervisor) -> Generator[None]:
    events = supervisor.subscribe()
    yield
    events.close()


def metrics(*, timings: bool) -> Watch:
    @contextlib.contextmanager
    def watch(supervisor: Supervisor) -> Generator[None]:
        from prometheus_client import CollectorRegistry

        from asyncworkers.integrations.prometheus import PrometheusMetrics

        with PrometheusMetrics(supervisor, registry=CollectorRegistry(), timings=timings):
            yield

    return watch


def traces(ratio: float) -> Watch:
    @contextlib.contextmanager
    def watch(supervisor: Supervisor) -> Generator[None]:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

        from asyncworkers.integrations.opentelemetry import OpenTelemetryTraces

        provider = TracerProvider(sampler=ParentBasedTraceIdRatio(ratio))  # and nobody exports
        with OpenTelemetryTraces(supervisor, tracer_provider=provider):
            yield
        provider.shutdown()

    return watch


@contextlib.contextmanager
def traces_closed(supervisor: Supervisor) -> Generator[None]:
    with traces(1.0)(supervisor):
        pass
    yield


ROWS: dict[str, tuple[Watch, bool]] = {
    "nothing: the noise of these figures": (nobody, False),
    "a listener that does nothing": (listener, False),
    "`subscribe()`, nobody reads": (subscription, False),
    "metrics, counts": (metrics(timings=False), False),
    "metrics, `timings=True`": (metrics(timings=True), False),
    "`record=True`": (nobody, True),
    "traces, none sampled": (traces(0.0), False),
    "traces, all sampled, not exported": (traces(1.0), False),
    "traces, switched off again": (traces_closed, False),
}


async def once(row: str | None, jobs: int) -> float:
    """Seconds of processor time a job, of a burst whose jobs are awaited one by one."""
    watch, record = (nobody, False) if row is None else ROWS[row]
    queue = Queue("default", WORKERS, maxsize=None)
    async with Supervisor(queues=[queue], record=record) as supervisor:
        with watch(supervisor):
            for count in (WARM_UP, jobs):
                started = process_time()
                for one in [supervisor.submit_nowait(noop, number) for number in range(count)]:
                    await one
                taken = process_time() - started
    return taken / jobs


def measure(row: str, loop: str, pairs: int, jobs: int) -> list[float]:
    """Seconds a job that the watched one takes more, so many times. Runs in a process of its own."""
    differences: list[float] = []
    for turn in range(pairs):
        first, second = (None, row) if turn % 2 else (row, None)
        one, other = run_on(loop, once(first, jobs)), run_on(loop, once(second, jobs))
        differences.append(other - one if first is None else one - other)
    return differences


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observe", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="one short round, half a minute")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of fresh processes")
    parser.add_argument("--loop", choices=LOOPS, action="append", help="default: both")
    parser.add_argument("--only", default="", help="parts of names of rows, separated by commas")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    loops: list[str] = options.loop or list(LOOPS)
    parts = options.only.casefold().split(",")
    rows = [row for row in ROWS if any(part in row.casefold() for part in parts)]
    rounds, pairs, jobs = (1, 4, 3_000) if options.quick else (options.rounds, 6, 10_000)
    found: dict[tuple[str, str], list[float]] = {}
    shuffler = random.Random(0)
    for _ in range(rounds):
        todo = [(row, loop) for row in rows for loop in loops]
        shuffler.shuffle(todo)
        for row, loop in todo:
            new = in_new_process(
                "benchmarks.observe:measure", row=row, loop=loop, pairs=pairs, jobs=jobs
            )
            found.setdefault((row, loop), []).extend(new)
    print(f"{machine()}; `python -m {' '.join(['benchmarks.observe', *sys.argv[1:]])}`\n")
    cells = [[row, *(f"{median(found[row, loop]) * 1e9:,.0f}" for loop in loops)] for row in rows]
    print(markdown(["What being watched costs a job, ns", *loops], cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
