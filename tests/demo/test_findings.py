"""The arithmetic of the findings, on a run written by hand."""

from collections import Counter
from pathlib import Path

import pytest

from asyncworkers.demo.findings import find, percentile, span
from asyncworkers.demo.records import (
    Attempt,
    Compression,
    Ending,
    Reading,
    Rendered,
    Run,
    Settings,
    Stall,
)
from asyncworkers.demo.report import figures, sections


def attempt(start, end, job="fetch", subject="a.html", number=1, ending=Ending.SUCCEEDED):
    """Return an attempt at a fetch, unless told otherwise."""
    return Attempt(job, subject, number, "default", 1, start, end, ending)


def reading(address, links=(), targets=(), anchors=(), size=100):
    """Return what was read in a page of ten words."""
    return Reading(
        address, size, 10, 1, 3, Counter(links), frozenset(targets), frozenset(anchors), 2
    )


@pytest.fixture
def run():
    """Return a run over three pages, one of them reached at the third attempt."""
    run = Run(Settings(Path("out")))
    run.rendered = [
        Rendered("a", 300, 0.2, None),
        Rendered("b", 100, 0.5, None),
        Rendered("winreg", 0, 0.0, "ModuleNotFoundError: no"),
    ]
    run.readings = [
        reading("index.html", ["a.html", "b.html"]),
        reading("a.html", ["b.html", "b.html", "gone.html", "a.html"], {("b.html", "x")}, {"y"}),
        reading("b.html", ["gone.html"], {("a.html", "y"), ("gone.html", "z")}, size=800),
    ]
    run.dead = {"gone.html"}
    run.compressions = [Compression("a.html", 100, 50, 10), Compression("b.html", 900, 600, 300)]
    run.attempts = [
        attempt(0.0, 1.0, "render", "batch 1"),
        attempt(1.0, 2.0, subject="a.html", ending=Ending.BUSY),
        attempt(1.0, 1.5, subject="b.html", ending=Ending.RESET),
        attempt(1.5, 3.0, subject="b.html", number=2, ending=Ending.TIMED_OUT),
        attempt(3.0, 3.1, subject="a.html", number=2),
        attempt(3.0, 3.4, subject="b.html", number=3),
        attempt(3.4, 3.6, "parse", "b.html"),
        attempt(3.5, 5.0, "compress", "b.html"),
    ]
    run.stalls = [Stall(0.2, None, "x.py:1 in f"), Stall(0.7, "parse", "y.py:2 in g")]
    run.seconds = 5.0
    return run


def test_the_site_is_added_up(run):
    """Pages, bytes, words, links and who is linked to most, by pages and not by links."""
    site = find(run).site
    assert (site.pages, site.bytes, site.words, site.links, site.external) == (3, 1000, 30, 7, 6)
    assert site.heaviest == [("a", 300), ("b", 100)]
    assert site.slowest_to_render == [("b", 0.5), ("a", 0.2)]
    assert site.most_linked == [("b.html", 2), ("gone.html", 2), ("a.html", 1)]
    assert site.not_imported == {"winreg": "ModuleNotFoundError: no"}


def test_dead_links_and_lost_places_are_told_apart(run):
    """A place in a page that is missing altogether is a dead link, not a lost place too."""
    defects = find(run).defects
    assert defects.dead == {"gone.html": 2}
    assert (defects.lost_places, defects.lost_example) == (1, "b.html#x")


def test_every_attempt_counts_as_a_request(run):
    """Retries and their causes are counted; latencies are those of answers only."""
    network = find(run).network
    assert (network.requests, network.retried) == (5, 3)
    assert (network.busy, network.resets, network.timeouts) == (1, 1, 1)
    assert network.latency["p50"] == pytest.approx(0.1)
    assert network.latency["max"] == pytest.approx(0.4)
    assert [address for address, _ in network.slowest] == ["b.html", "a.html"]


def test_the_work_is_timed_by_its_attempts(run):
    """Walls span from first start to last end; rates count from the crawl, not the rendering."""
    work = find(run).work
    assert work.spans["render"].wall == 1.0
    assert work.spans["crawl"].wall == 4.0
    assert work.spans["analyze"].wall == pytest.approx(1.6)
    assert work.spans["analyze"].busy == pytest.approx(1.7)
    assert work.pages_per_second == 3 / 4.0
    assert work.bytes_per_second == 1000 / 4.0
    assert work.worst_stall == Stall(0.7, "parse", "y.py:2 in g")


def test_compression_is_ranked_by_ratio(run):
    """The best page is the one that shrinks most, however small it is."""
    squeeze = find(run).squeeze
    assert (squeeze.bytes, squeeze.zlib, squeeze.lzma) == (1000, 650, 310)
    assert (squeeze.best, squeeze.worst) == (("a.html", 10.0), ("b.html", 3.0))


def test_a_peak_does_not_count_who_takes_over():
    """An attempt that starts in the moment another ends runs after it, not beside it."""
    assert span([attempt(0.0, 1.0), attempt(1.0, 2.0)]).peak == 1
    assert span([attempt(0.0, 1.1), attempt(1.0, 2.0), attempt(1.05, 3.0)]).peak == 3


def test_percentiles_are_values_that_were_measured():
    """The nearest rank, never something between two measurements; nothing gives zero."""
    hundred = list(range(100, 0, -1))
    assert [percentile(hundred, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert percentile([7.0], 0.5) == 7.0
    assert percentile([], 0.99) == 0.0


def test_a_run_that_did_nothing_has_findings_too():
    """Broken off in its first moment, a run is reported without dividing by zero."""
    found = find(Run(Settings(Path("out"))))
    assert found.site.pages == found.network.requests == found.work.pages_per_second == 0
    assert [table.heading for table in sections(found)] == ["The site", "The work"]
    assert ("pages", "0") in figures(found)


def test_the_report_names_what_was_found(run):
    """Every finding that matters stands in the tables, in words."""
    text = "\n".join(" ".join(row) for table in sections(find(run)) for row in table.rows)
    for finding in (
        "dead links 2 to 1 address: most of them to gone.html (2 links)",
        "lost places 1 linked to, but not in their page, such as b.html#x",
        "not importable 1 module winreg",
        "3 of them asked again, after 1 × 503, 1 × reset, 1 × timed out",
        "worst stall 700 ms in job parse, at y.py:2 in g; 2 in all",
    ):
        assert finding in text
