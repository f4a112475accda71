"""The command `asyncworkers demo`: its options, the run, what is written and what is said."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any, TextIO

import click

from asyncworkers import JobCancelled, SupervisorClosed
from asyncworkers import run as run_loop
from asyncworkers.bridge.terms import usable_processors
from asyncworkers.demo.records import DemoFailed, Run, Settings
from asyncworkers.demo.render import prepare
from asyncworkers.units import counted

__all__ = ["demo"]

BATCHES = 8
"""Child processes in all, however many run at once: both kinds of run do the same."""

STORED_BATCHES = 32
"""With a store they are smaller: what a run that is killed had in hand is done again."""

TITLE = "The standard library's pages: rendered, served, crawled and analyzed"
"""What is written over the timeline."""

INTERRUPTED = 130
"""The exit code of what Ctrl-C broke off, as shells have it."""


def _share(text: str) -> float:
    """A number from 0 to 1; also `nan` is none."""
    with contextlib.suppress(ValueError):
        if 0.0 <= float(text) <= 1.0:
            return float(text)
    raise click.BadParameter(f"{text!r} is not a number from 0 to 1.")


def _usual() -> Settings:
    usable = usable_processors()
    return Settings(Path("asyncworkers-demo"), threads=usable, processes=usable)


_USUAL = _usual()


@click.command(short_help="Put it all to work on the standard library's documentation.")
@click.option(
    "--sequential", is_flag=True, help="Do the same work without the supervisor, to compare."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 100_000),
    default=_USUAL.workers,
    show_default=True,
    metavar="N",
    help="Requests at once, a coroutine each.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1_000),
    default=_USUAL.threads,
    show_default="one for each usable processor",
    metavar="N",
    help="Blocking jobs at once: threads, each waiting for a process that renders.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 1_000),
    default=_USUAL.processes,
    show_default="one for each usable processor",
    metavar="N",
    help="CPU-bound jobs at once: processes that analyze.",
)
@click.option(
    "--pages",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    help="Take only the first N modules.",
)
@click.option(
    "--faults",
    type=_share,
    metavar="RATE",
    help=f"The share of requests that meet a 503, a reset or silence. [default: {_USUAL.faults:g}]",
)
@click.option("--no-faults", is_flag=True, help="The same as --faults 0.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63),
    default=_USUAL.seed,
    show_default=True,
    metavar="N",
    help="Another seed is other weather on the network.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=_USUAL.output,
    show_default=True,
    metavar="DIR",
    help="The folder for pages, figures and timeline.",
)
@click.option(
    "--store",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep the jobs in this SQLite file: killed and started again, it goes on where it was.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the findings as JSON on standard output, and the rest elsewhere.",
)
def demo(
    *,
    faults: float | None,
    no_faults: bool,
    output: Path,
    store: Path | None,
    as_json: bool,
    **others: Any,
) -> int:
    """Render, serve, crawl and analyze the standard library's documentation.

    The whole of asyncworkers on real input: the pages are rendered by pydoc, served on 127.0.0.1,
    crawled and analyzed, without a network.
    """
    if no_faults and faults is not None:
        raise click.UsageError("--no-faults is not allowed with --faults.")
    if importlib.util.find_spec("aiohttp") is None:
        raise DemoFailed("the demo needs an HTTP library: pip install 'asyncworkers[demo]'")
    if store is not None and others["sequential"]:
        raise click.UsageError("--sequential is not allowed with --store.")
    rate = 0.0 if no_faults else _USUAL.faults if faults is None else faults
    settings = Settings(
        output=output.absolute(),
        faults=rate,
        store=None if store is None else store.absolute(),
        **others,
    )
    before = None if settings.store is None else _before(settings, settings.store)
    if before is None:
        prepare(settings)
    run = Run(settings)
    stream = sys.stderr if as_json else sys.stdout
    print(_greeting(settings), file=stream, flush=True)
    if before is not None:
        print(f"Going on with {settings.store}: {before}.", file=stream, flush=True)
    try:
        _work(run, stream)
    except (KeyboardInterrupt, SystemExit, JobCancelled, SupervisorClosed):
        # The ways in which Ctrl-C arrives: all of them leave what was done so far in `run`.
        print("\nBroken off. This is what was done so far.", file=stream)
    _tell(run, stream, as_json=as_json)
    return 0 if run.complete else INTERRUPTED


# What follows needs the extras, or takes a while to import: not for `--help`.


def _before(settings: Settings, store: Path) -> object:
    """What an earlier run on the same store has done; None if there was none."""
    from asyncworkers.demo.durable import progress

    return progress(settings, store)


def _work(run: Run, stream: TextIO) -> None:
    from asyncworkers.demo.catalog import batches, public_modules
    from asyncworkers.demo.display import watching
    from asyncworkers.demo.sequential import work_sequentially
    from asyncworkers.demo.supervised import work_supervised

    settings = run.settings
    modules = public_modules()[: settings.pages]
    run.stage("render").total = len(modules)
    count = BATCHES if settings.store is None else STORED_BATCHES
    shares = batches(modules, settings.site, count)
    with watching(run, stream):
        if settings.sequential:
            work_sequentially(run, shares)
        elif settings.store is not None:
            from asyncworkers.demo.durable import work_durably

            run_loop(work_durably, run, shares, settings.store)
        else:
            run_loop(work_supervised, run, shares)


def _tell(run: Run, stream: TextIO, *, as_json: bool) -> None:
    from asyncworkers.demo import ratio, report
    from asyncworkers.demo.findings import find
    from asyncworkers.timeline import Timeline

    settings, found = run.settings, find(run)
    document = ratio.document(run, found)
    compared = None if settings.store is not None else ratio.comparison(settings, document)
    if run.complete and settings.store is None:
        ratio.keep(settings, document)
    drawn = Timeline(
        run.bars(),
        title=TITLE,
        subtitle=_subtitle(run),
        figures=report.figures(found),
        story="page",
    )
    timeline = drawn.save(settings.output / f"timeline-{settings.mode}.html")
    if as_json:
        print(json.dumps(document, indent=1))
    else:
        report.print_sections(report.sections(found), stream)
        if compared is not None:
            report.print_sections([compared], stream)
        if settings.pages is not None:
            print("\nWith --pages, most dead links lead to what was left out.", file=stream)
    print(f"\nThe timeline, to open in a browser: {timeline.as_uri()}", file=stream)
    if settings.store is not None:
        print(f"\n{_kept(run, settings.store)}", file=stream)
    elif compared is None and run.complete:
        other = "without" if settings.sequential else "with"
        print(f"Run it again {other} --sequential to see the ratio on this machine.", file=stream)


def _kept(run: Run, store: Path) -> str:
    """What is in the store now, and whether anything was lost or done twice on the way there."""
    visited = [reading.address for reading in run.readings] + [*run.dead, *run.unreachable]
    if not run.complete:
        return f"{store} keeps the rest: start it again with the same options, and it goes on."
    once = "each once" if len(visited) == len(set(visited)) else "SOME OF THEM TWICE"
    linked = {link for reading in run.readings for link in reading.links}
    lost = len(linked - set(visited))
    return (
        f"{store} has all {len(visited)} addresses, {once}; of those linked to, {lost} are missing."
    )


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
