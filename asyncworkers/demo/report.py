"""Says in words what a run found, in a few tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from asyncworkers.demo.findings import Findings, Stall
from asyncworkers.units import counted, seconds, size

__all__ = ["Section", "figures", "print_sections", "sections"]

Row = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Section:
    """A table of a few rows: what, how much, and what there is to say about it."""

    heading: str
    rows: list[Row]


def sections(found: Findings) -> list[Section]:
    """All the findings in words; a run that was broken off has fewer."""
    tables = [Section("The site", _site(found))]
    if found.site.pages:
        tables.append(Section("What is wrong with it", _defects(found)))
    if found.site.pages and found.network.requests:  # a run with a store may find all done
        tables.append(Section("The network", _network(found)))
    return [*tables, Section("The work", _work(found))]


def figures(found: Findings) -> list[tuple[str, str]]:
    """The few figures to see at first sight."""
    work, network = found.work, found.network
    return [
        ("in all", seconds(work.seconds)),
        ("pages", f"{found.site.pages:,}"),
        ("size", size(found.site.bytes)),
        ("requests", f"{network.requests:,}"),
        ("asked again", f"{network.retried:,}"),
        ("median latency", seconds(network.latency["p50"])),
        ("crawled and analyzed", f"{work.pages_per_second:.0f} pages/s"),
        ("requests at once", f"{work.spans['fetch'].peak:,}"),
        ("CPU on the loop", seconds(work.cpu_loop)),
        ("CPU off the loop", seconds(work.cpu_threads + work.cpu_children)),
    ]


# ---- the tables


def _site(found: Findings) -> list[Row]:
    site, squeeze = found.site, found.squeeze
    links = f"{site.links + site.external:,} links ({site.external:,} of them to elsewhere)"
    text = f"{size(site.bytes)}, {site.words:,} words, {links}, nested {site.deepest} deep"
    rows = [
        ("pages", f"{site.pages:,}", text),
        _ranking("heaviest", site.heaviest, size),
        _ranking("slowest to render", site.slowest_to_render, seconds),
        _ranking("most linked to", site.most_linked, lambda pages: counted(int(pages), "page")),
    ]
    if squeeze.best is not None and squeeze.worst is not None:
        (best, most), (worst, least) = squeeze.best, squeeze.worst
        text = (
            f"by lzma, to {size(squeeze.lzma)}; by zlib to {size(squeeze.zlib)}; "
            f"best {best} {most:.0f} ×, worst {worst} {least:.1f} ×"
        )
        rows.append(("compressed", f"{squeeze.bytes / squeeze.lzma:.1f} ×", text))
    return [row for row in rows if row[1]]


def _defects(found: Findings) -> list[Row]:
    defects, site = found.defects, found.site
    wanted = sorted(defects.dead.items(), key=lambda pair: (-pair[1], pair[0]))
    most = ", ".join(f"{address} ({counted(count, 'link')})" for address, count in wanted[:3])
    dead = f"to {counted(len(wanted), 'address', 'addresses')}: most of them to {most}"
    example = f", such as {defects.lost_example}" if defects.lost_example else ""
    not_imported = sorted(site.not_imported)
    rows = [
        ("dead links", f"{sum(defects.dead.values()):,}", dead if wanted else ""),
        ("lost places", f"{defects.lost_places:,}", f"linked to, but not in their page{example}"),
        ("not importable", counted(len(not_imported), "module"), _some(not_imported)),
    ]
    if defects.unreachable:
        reasons = [f"{address} ({error})" for address, error in defects.unreachable.items()]
        amount = counted(len(reasons), "address", "addresses")
        rows.append(("never answered", amount, _some(reasons)))
    return rows


def _network(found: Findings) -> list[Row]:
    network = found.network
    latency = {name: seconds(value) for name, value in network.latency.items()}
    again = (
        f"{network.retried:,} of them asked again, after {network.busy} × 503, "
        f"{network.resets} × reset, {network.timeouts} × timed out"
    )
    spread = f"in the median; 90 % within {latency['p90']}, 99 % within {latency['p99']}"
    return [
        ("requests", f"{network.requests:,}", again),
        ("latency", latency["p50"], spread),
        _ranking("slowest", network.slowest, seconds),
    ]


def _work(found: Findings) -> list[Row]:
    work = found.work
    crawl, fetch, analyze = (work.spans[name] for name in ("crawl", "fetch", "analyze"))
    waited = f"{seconds(fetch.busy)} of waiting for answers went into {seconds(crawl.wall)}"
    analyzed = f"on average: {seconds(analyze.busy)} of analyzing went into {seconds(analyze.wall)}"
    elsewhere = f"{seconds(work.cpu_threads)} in threads, {seconds(work.cpu_children)} in children"
    return [
        (
            "throughput",
            f"{work.pages_per_second:.1f} pages/s",
            f"crawled and analyzed, {size(work.bytes_per_second)}/s",
        ),
        ("requests at once", f"{fetch.peak:,}", waited),
        ("CPU-bound jobs at once", f"{analyze.at_once:.2f}", analyzed),
        ("on the loop", seconds(work.cpu_loop), "of CPU time in the thread of the event loop"),
        ("off the loop", seconds(work.cpu_threads + work.cpu_children), f"of CPU: {elsewhere}"),
        _stall(work.worst_stall, work.stalls),
    ]


def _stall(worst: Stall | None, count: int) -> Row:
    if worst is None:
        return "worst stall", "none", "the loop was never stuck long enough to be reported"
    culprit = f"in job {worst.job}" if worst.job else "outside any job"
    return "worst stall", seconds(worst.seconds), f"{culprit}, at {worst.place}; {count} in all"


def _ranking(what: str, pairs: Sequence[tuple[str, float]], written: Callable[[float], str]) -> Row:
    """The first of a list in large, the others in small."""
    if not pairs:
        return what, "", ""
    (name, value), *others = pairs
    more = [f"{name} {written(value)}" for name, value in others]
    return what, written(value), "; ".join([name, *more])


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# ---- on paper


def print_sections(tables: Iterable[Section], stream: TextIO) -> None:
    """Print the tables: drawn by rich on a terminal, if it is there, in plain columns otherwise."""
    if stream.isatty() and _print_rich(tables, stream):
        return
    for table in tables:
        print(f"\n{table.heading}", file=stream)
        first, second = (max(len(row[column]) for row in table.rows) for column in (0, 1))
        for what, amount, text in table.rows:
            print(f"  {what:<{first}}  {amount:>{second}}  {text}".rstrip(), file=stream)


def _print_rich(tables: Iterable[Section], stream: TextIO) -> bool:
    try:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ModuleNotFoundError:
        return False
    console = Console(file=stream, highlight=False)
    for table in tables:
        grid = Table(box=None, padding=(0, 1), show_header=False)
        grid.add_column(no_wrap=True, min_width=17)
        grid.add_column(justify="right", style="bold cyan", no_wrap=True, min_width=12)
        grid.add_column()
        for row in table.rows:
            grid.add_row(*(escape(cell) for cell in row))
        console.print(f"\n[bold]{escape(table.heading)}[/bold]")
        console.print(grid)
    return True
