"""The timeline page: what is in it, and that nothing in it can break it."""

import json
import re
from html.parser import HTMLParser

from asyncworkers.demo.records import Attempt, Ending
from asyncworkers.demo.timeline import lanes, write_timeline


def attempt(worker, start, end, queue="default", job="fetch", subject="a.html", number=1, **more):
    """Return an attempt at a fetch, unless told otherwise."""
    ending = more.get("ending", Ending.SUCCEEDED)
    return Attempt(job, subject, number, queue, worker, start, end, ending)


def drawn(path):
    """The data that the page's script draws."""
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.DOTALL)[1])


def test_every_attempt_is_in_the_page(tmp_path):
    """Each attempt has its job, queue, lane, times in milliseconds, number, ending and subject."""
    page = tmp_path / "timeline.html"
    attempts = [
        attempt(7, 1.0, 1.25, ending=Ending.BUSY),
        attempt(9, 2.0, 2.5, number=2),
        attempt(1, 2.5, 4.0, queue="processes", job="parse"),
    ]
    write_timeline(page, attempts, "a run", [("pages", "1")])
    data = drawn(page)
    columns = data["attempts"]
    rows = [
        (
            data["jobs"][job],
            data["queues"][queue]["name"],
            start,
            end,
            data["endings"][ending],
            number,
            subject,
        )
        for job, queue, start, end, ending, number, subject in zip(
            *(columns[name] for name in ("job", "queue", "start", "end", "ending", "number")),
            columns["subject"],
            strict=True,
        )
    ]
    assert rows == [
        ("fetch", "default", 1000, 1250, "503", 1, "a.html"),
        ("fetch", "default", 2000, 2500, "succeeded", 2, "a.html"),
        ("parse", "processes", 2500, 4000, "succeeded", 1, "a.html"),
    ]
    assert data["span"] == 4000
    assert (data["subtitle"], data["figures"]) == ("a run", [["pages", "1"]])


def test_a_subject_cannot_break_out_of_the_data(tmp_path):
    """Whatever a page is called, it stays text."""
    page = tmp_path / "timeline.html"
    hostile = "</script><script>alert(1)</script><!-- \u2028"
    write_timeline(page, [attempt(1, 0.0, 1.0, subject=hostile)], hostile, [(hostile, hostile)])
    scripts = []

    class Scripts(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag == "script":
                scripts.append(dict(attrs))

    Scripts().feed(page.read_text(encoding="utf-8"))
    assert scripts == [{"id": "data", "type": "application/json"}, {}]
    assert drawn(page)["attempts"]["subject"] == [hostile]


def test_the_page_needs_nothing_else(tmp_path):
    """No address, no import, no other file: it opens without a network."""
    page = tmp_path / "timeline.html"
    write_timeline(page, [attempt(1, 0.0, 1.0)], "a run", [])
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?:|\bsrc=|@import|url\(|fetch\(|import\(", text)
    assert "__DATA__" not in text


def test_an_empty_run_is_a_page_too(tmp_path):
    """A run that was broken off before its first attempt can be drawn."""
    page = tmp_path / "timeline.html"
    write_timeline(page, [], "nothing", [])
    assert drawn(page)["queues"] == []


def test_thousands_of_attempts_stay_small(tmp_path):
    """Ten thousand attempts make a page below a megabyte."""
    page = tmp_path / "timeline.html"
    write_timeline(
        page,
        [
            attempt(n % 200, n / 100, n / 100 + 0.5, subject=f"module{n}.html")
            for n in range(10_000)
        ],
        "many",
        [],
    )
    assert len(drawn(page)["attempts"]["start"]) == 10_000
    assert page.stat().st_size < 1_000_000


def test_workers_that_live_at_once_have_lanes_of_their_own():
    """Two workers share a lane only if one was gone before the other came."""
    found = lanes(
        [
            attempt(1, 0.0, 1.0),
            attempt(2, 0.5, 0.8),
            attempt(1, 2.0, 3.0),
            attempt(5, 1.0, 2.5),
            attempt(6, 3.0, 4.0),
        ]
    )
    assert found[1] == 0
    assert found[2] == 1
    assert found[5] == 1, "worker 2 is gone, worker 1 is not"
    assert found[6] == 0
