"""The command `asyncworkers demo`: its options, the run, what is written and what is said."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from asyncworkers import JobCancelled, SupervisorClosed
from asyncworkers import run as run_loop
from asyncworkers.bridge.terms import usable_processors
from asyncworkers.demo.records import DemoFailed, Run, Settings
from asyncworkers.demo.render import prepare
from asyncworkers.demo.units import counted

__all__ = ["add_options", "demo"]

BATCHES = 8
"""Child processes in all, however many run at once: both kinds of run do the same."""

INTERRUPTED = 130
"""The exit code of what Ctrl-C broke off, as shells have it."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    usable = usable_processors()
    defaults = Settings(Path("asyncworkers-demo"), threads=usable, processes=usable)
    parser.set_defaults(command=demo)
    parser.add_argument(
        "--sequential",
        action="store_true",
        help="do the same work without the supervisor, to compare",
    )
    parser.add_argument(
        "--workers",
        type=_whole(1, 100_000),
        default=defaults.workers,
        metavar="N",
        help="requests at once, a coroutine each (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=_whole(1, 1_000),
        default=defaults.threads,
        metavar="N",
        help="blocking jobs at once: threads, each waiting for a process that renders "
        "(default: one for each usable processor, here %(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=_whole(1, 1_000),
        default=defaults.processes,
        metavar="N",
        help="CPU-bound jobs at once: processes that analyze "
        "(default: one for each usable processor, here %(default)s)",
    )
    parser.add_argument(
        "--pages",
        type=_whole(1, 1_000_000),
        metavar="N",
        help="take only the first N modules",
    )
    faults = parser.add_mutually_exclusive_group()
    faults.add_argument(
        "--faults",
        type=_share,
        default=defaults.faults,
        metavar="RATE",
        help="the share of requests that meet a 503, a reset or silence (default: %(default)s)",
    )
    faults.add_argument(
        "--no-faults", dest="faults", action="store_const", const=0.0, help="the same as --faults 0"
    )
    parser.add_argument(
        "--seed",
        type=_whole(0, 2**63),
        default=defaults.seed,
        metavar="N",
        help="another seed is other weather on the network (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=defaults.output,
        metavar="DIR",
        help="the folder for pages, figures and timeline (default: %(default)s)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the findings as JSON on standard output, and the rest elsewhere",
    )


def demo(arguments: argparse.Namespace) -> int:
    """Run the demo as the command line says; returns the exit code. Raises DemoFailed."""
    if importlib.util.find_spec("aiohttp") is None:
        raise DemoFailed("the demo needs an HTTP library: pip install 'asyncworkers[demo]'")
    settings = Settings(
        output=arguments.output.absolute(),
        sequential=arguments.sequential,
        workers=arguments.workers,
        threads=arguments.threads,
        processes=arguments.processes,
        pages=arguments.pages,
        faults=arguments.faults,
        seed=arguments.seed,
    )
    prepare(settings)
    run = Run(settings)
    stream = sys.stderr if arguments.json else sys.stdout
    print(_greeting(settings), file=stream, flush=True)
    try:
        _work(run, stream)
    except (KeyboardInterrupt, SystemExit, JobCancelled, SupervisorClosed):
        # The ways in which Ctrl-C arrives: all of them leave what was done so far in `run`.
        print("\nBroken off. This is what was done so far.", file=stream)
    _tell(run, stream, as_json=arguments.json)
    return 0 if run.complete else INTERRUPTED


# What follows needs the extras, or takes a while to import: not for `--help`.


def _work(run: Run, stream: TextIO) -> None:
    from asyncworkers.demo.catalog import batches, public_modules
    from asyncworkers.demo.display import watching
    from asyncworkers.demo.sequential import work_sequentially
    from asyncworkers.demo.supervised import work_supervised

    settings = run.settings
    modules = public_modules()[: settings.pages]
    run.stage("render").total = len(modules)
    shares = batches(modules, settings.site, BATCHES)
    with watching(run, stream):
        if settings.sequential:
            work_sequentially(run, shares)
        else:
            run_loop(work_supervised, run, shares)


def _tell(run: Run, stream: TextIO, *, as_json: bool) -> None:
    from asyncworkers.demo import ratio, report
    from asyncworkers.demo.findings import find
    from asyncworkers.demo.timeline import write_timeline

    settings, found = run.settings, find(run)
    document = ratio.document(run, found)
    compared = ratio.comparison(settings, document)
    if run.complete:
        ratio.keep(settings, document)
    timeline = settings.output / f"timeline-{settings.mode}.html"
    write_timeline(timeline, run.attempts, _subtitle(run), report.figures(found))
    if as_json:
        print(json.dumps(document, indent=1))
    else:
        report.print_sections(report.sections(found), stream)
        if compared is not None:
            report.print_sections([compared], stream)
        if settings.pages is not None:
            print("\nWith --pages, most dead links lead to what was left out.", file=stream)
    print(f"\nThe timeline, to open in a browser: {timeline.as_uri()}", file=stream)
    if compared is None and run.complete:
        other = "without" if settings.sequential else "with"
        print(f"Run it again {other} --sequential to see the ratio on this machine.", file=stream)


def _greeting(settings: Settings) -> str:
    how = (
        "one thing after another, without the supervisor, which takes a minute or two"
        if settings.sequential
        else _crew(settings)
    )
    return f"Rendering, serving, crawling and analyzing the standard library's pages: {how}."


def _crew(settings: Settings) -> str:
    workers = counted(settings.workers, "worker")
    threads = counted(settings.threads, "thread")
    processes = counted(settings.processes, "process", "processes")
    return f"{workers} on the event loop, {threads}, {processes}"


def _subtitle(run: Run) -> str:
    settings = run.settings
    how = "one thing after another" if settings.sequential else _crew(settings)
    ended = "" if run.complete else " Broken off before its end."
    processors = counted(os.cpu_count() or 1, "processor")
    machine = f"Python {platform.python_version()}, {processors}"
    return f"A run of asyncworkers demo: {how}, {machine}.{ended}"


# ---- reading options


def _whole(least: int, most: int) -> Callable[[str], int]:
    """A reader of whole numbers between two bounds, for argparse."""

    def read(text: str) -> int:
        if text.strip().isdecimal() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"must be a whole number from {least}, not {text!r}")

    return read


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0.0 <= value <= 1.0:
        return value
    raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")
