"""What a run found, worked out from its records: pure arithmetic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from asyncworkers.demo.records import Attempt, Ending, Run, Stall

__all__ = ["Findings", "Span", "Stall", "find", "percentile", "span"]

LISTED = 5
"""How long the lists of the heaviest, slowest and so on are."""

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Span:
    """How one kind of job spent the run; times in seconds.

    `wall` is from its first attempt's start to its last one's end, `busy` the sum of all its
    attempts, and `peak` how many ran at once at most.
    """

    attempts: int
    wall: float
    busy: float
    peak: int

    @property
    def at_once(self) -> float:
        """How many ran at once on average."""
        return self.busy / self.wall if self.wall else 0.0


@dataclass(frozen=True, slots=True)
class Site:
    """What there is: counts, and bytes."""

    pages: int
    bytes: int
    words: int
    headings: int
    deepest: int
    links: int
    external: int
    not_imported: dict[str, str]
    heaviest: list[tuple[str, int]]
    slowest_to_render: list[tuple[str, float]]
    most_linked: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Defects:
    """What is wrong with it.

    `dead` counts the links to each address that answered 404; `lost_places` are places that are
    linked to and are not in their page.
    """

    dead: dict[str, int]
    lost_places: int
    lost_example: str | None
    unreachable: dict[str, str]


@dataclass(frozen=True, slots=True)
class Network:
    """How the site answered; latencies in seconds, of the attempts that got an answer."""

    requests: int
    retried: int
    busy: int
    resets: int
    timeouts: int
    latency: dict[str, float]
    slowest: list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Squeeze:
    """How well the pages compress; bytes, and how many times smaller lzma made a page."""

    bytes: int
    zlib: int
    lzma: int
    best: tuple[str, float] | None
    worst: tuple[str, float] | None


@dataclass(frozen=True, slots=True)
class Work:
    """Where the time went, in seconds; `waited` is what the fetches spent waiting, added up."""

    seconds: float
    spans: dict[str, Span]
    pages_per_second: float
    bytes_per_second: float
    cpu_loop: float
    cpu_threads: float
    cpu_children: float
    stalls: int
    worst_stall: Stall | None


@dataclass(frozen=True, slots=True)
class Findings:
    """All of it."""

    site: Site
    defects: Defects
    network: Network
    squeeze: Squeeze
    work: Work


def find(run: Run) -> Findings:
    """Work out the findings of a run, also of one that was broken off."""
    return Findings(_site(run), _defects(run), _network(run), _squeeze(run), _work(run))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them do not exceed; 0.0 if there are none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def span(attempts: Iterable[Attempt]) -> Span:
    """Sum up the attempts at one kind of job."""
    taken = list(attempts)
    if not taken:
        return Span(0, 0.0, 0.0, 0)
    wall = max(attempt.end for attempt in taken) - min(attempt.start for attempt in taken)
    # An end before a start at the same moment: one that takes over is not a second one.
    turns = sorted([(a.start, 1) for a in taken] + [(a.end, -1) for a in taken])
    running = peak = 0
    for _, turn in turns:
        running += turn
        peak = max(peak, running)
    return Span(len(taken), wall, sum(attempt.seconds for attempt in taken), peak)


def _site(run: Run) -> Site:
    linked_from: Counter[str] = Counter()
    for reading in run.readings:
        linked_from.update(address for address in reading.links if address != reading.address)
    pages = [page for page in run.rendered if page.error is None]
    return Site(
        pages=len(run.readings),
        bytes=sum(reading.size for reading in run.readings),
        words=sum(reading.words for reading in run.readings),
        headings=sum(reading.headings for reading in run.readings),
        deepest=max((reading.depth for reading in run.readings), default=0),
        links=sum(reading.links.total() for reading in run.readings),
        external=sum(reading.external for reading in run.readings),
        not_imported={page.module: page.error for page in run.rendered if page.error is not None},
        heaviest=_top((page.module, page.size) for page in pages),
        slowest_to_render=_top((page.module, page.seconds) for page in pages),
        most_linked=_top(linked_from.items()),
    )


def _defects(run: Run) -> Defects:
    links: Counter[str] = Counter()
    targets: set[tuple[str, str]] = set()
    for reading in run.readings:
        links.update(reading.links)
        targets |= reading.targets
    anchors = {reading.address: reading.anchors for reading in run.readings}
    lost = sorted(
        (address, place)
        for address, place in targets
        if address in anchors and place not in anchors[address]
    )
    return Defects(
        dead={address: links[address] for address in sorted(run.dead)},
        lost_places=len(lost),
        lost_example="#".join(lost[0]) if lost else None,
        unreachable=dict(sorted(run.unreachable.items())),
    )


def _network(run: Run) -> Network:
    fetches = [attempt for attempt in run.attempts if attempt.job == "fetch"]
    endings = Counter(attempt.ending for attempt in fetches)
    answered = [attempt for attempt in fetches if attempt.ending is Ending.SUCCEEDED]
    seconds = [attempt.seconds for attempt in answered]
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return Network(
        requests=len(fetches),
        retried=sum(attempt.number > 1 for attempt in fetches),
        busy=endings[Ending.BUSY],
        resets=endings[Ending.RESET],
        timeouts=endings[Ending.TIMED_OUT],
        latency={name: percentile(seconds, share) for name, share in shares.items()},
        slowest=_top((attempt.subject, attempt.seconds) for attempt in answered),
    )


def _squeeze(run: Run) -> Squeeze:
    by_ratio = sorted(run.compressions, key=lambda compression: compression.ratio)
    return Squeeze(
        bytes=sum(compression.size for compression in run.compressions),
        zlib=sum(compression.zlib for compression in run.compressions),
        lzma=sum(compression.lzma for compression in run.compressions),
        best=(by_ratio[-1].address, by_ratio[-1].ratio) if by_ratio else None,
        worst=(by_ratio[0].address, by_ratio[0].ratio) if by_ratio else None,
    )


def _work(run: Run) -> Work:
    spans = {
        job: span(attempt for attempt in run.attempts if attempt.job == job)
        for job in ("render", "fetch", "parse", "compress")
    }
    spans["analyze"] = span(a for a in run.attempts if a.job in {"parse", "compress"})
    spans["crawl"] = span(attempt for attempt in run.attempts if attempt.job != "render")
    crawled = spans["crawl"].wall
    size = sum(reading.size for reading in run.readings)
    return Work(
        seconds=run.seconds,
        spans=spans,
        pages_per_second=len(run.readings) / crawled if crawled else 0.0,
        bytes_per_second=size / crawled if crawled else 0.0,
        cpu_loop=run.cpu_loop,
        cpu_threads=run.cpu_threads,
        cpu_children=run.cpu_children,
        stalls=len(run.stalls),
        worst_stall=max(run.stalls, key=lambda stall: stall.seconds, default=None),
    )


def _top(pairs: Iterable[tuple[str, Number]]) -> list[tuple[str, Number]]:
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:LISTED]
