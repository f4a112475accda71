"""The timeline of a run: what is in the page, the picture and the trace, and that nothing can break them."""

import json
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from asyncworkers import Retry, Supervisor, SupervisorClosed, job
from asyncworkers.chronicle import Chronicle
from asyncworkers.timeline import Bar, Child, Mark, Timeline, lanes

HOSTILE = "</script><script>alert(1)</script><!-- \u2028 <b>'\"&\x00\ud800"


def bar(worker, start, end, queue="default", job="fetch", subject="a", number=1, **more):
    """Return an attempt at a fetch, unless told otherwise."""
    return Bar(
        queue, worker, job, subject, number, start, end, more.get("ending", "succeeded"), None
    )


def drawn(page):
    """The data that the page's script draws."""
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])


def test_every_attempt_is_in_the_page():
    """Each attempt has its job, queue, lane, times in milliseconds, number, ending and subject."""
    bars = [
        bar(7, 1.0, 1.25, ending="failed"),
        bar(9, 2.0, 2.5, number=2),
        bar(1, 2.5, 4.0, queue="processes", job="parse"),
    ]
    data = drawn(Timeline(bars, title="one", subtitle="a run", figures=[("pages", "1")]).to_html())
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
        ("fetch", "default", 1000, 1250, "failed", 1, "a"),
        ("fetch", "default", 2000, 2500, "succeeded", 2, "a"),
        ("parse", "processes", 2500, 4000, "succeeded", 1, "a"),
    ]
    assert data["span"] == 4000
    assert (data["title"], data["subtitle"], data["figures"]) == ("one", "a run", [["pages", "1"]])


def hostile():
    """Return a timeline whose every text would break out of where it is put, if it could."""
    one = Bar("default", 1, HOSTILE, HOSTILE, 1, 0.0, 1.0, HOSTILE, HOSTILE)
    return Timeline(
        [one],
        title=HOSTILE,
        subtitle=HOSTILE,
        figures=[(HOSTILE, HOSTILE)],
        marks=[Mark(0.0, 0.5, HOSTILE)],
        note=HOSTILE,
    )


def test_no_text_can_break_out_of_the_page():
    """Whatever a job, an error or a run is called, it stays text."""
    tags = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append((tag, dict(attrs)))

    page = hostile().to_html()
    Tags().feed(page)
    scripts = [attrs for tag, attrs in tags if tag == "script"]
    assert scripts == [{"id": "data", "type": "application/json"}, {}]
    plain = []
    Tags.handle_starttag = lambda _self, tag, _attrs: plain.append(tag)
    Tags().feed(Timeline([bar(1, 0.0, 1.0)]).to_html())
    assert [tag for tag, _ in tags] == plain
    assert drawn(page)["attempts"]["subject"] == [HOSTILE]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_draws_the_page(tmp_path):
    """Opened from a file, the page's script runs to its end and fills in what it was given, as text;
    no element comes of a hostile name.
    """
    name = "<img src=x onerror=alert(1)>"
    timeline = Timeline(
        [Bar("default", 1, name, name, 1, 0.0, 1.0, "failed", name)],
        title=name,
        figures=[(name, "17")],
        marks=[Mark(0.0, 0.5, name)],
    )
    page = timeline.save(tmp_path / "run.html")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    dumped = subprocess.run(
        ["chromium", *options, "--dump-dom", page.as_uri()],
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=True,
    ).stdout
    tags, texts = [], []

    class Seen(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append((tag, dict(attrs)))

        def handle_data(self, data):
            texts.append(data)

    Seen().feed(dumped)
    assert "img" not in {tag for tag, _ in tags}
    assert texts.count(name) >= 3  # the title, the figure's name, the legend
    assert {"17", "failed", "the loop stalled"} <= set(texts)
    (canvas,) = [attrs for tag, attrs in tags if tag == "canvas"]
    assert int(canvas["height"]) > 100, "it was drawn, which is the last thing the script does"


def test_no_text_can_break_out_of_the_picture():
    """The picture is well-formed, and its texts are the texts that were given, escaped."""
    root = ET.fromstring(hostile().to_svg())
    plain = ET.fromstring(Timeline([bar(1, 0.0, 1.0)], marks=[Mark(0.0, 0.5, "x")]).to_svg())
    assert {node.tag for node in root.iter()} == {node.tag for node in plain.iter()}
    assert any("alert(1)" in (node.text or "") for node in root.iter())


@pytest.mark.parametrize("form", ["to_html", "to_svg"])
def test_it_needs_nothing_else(form):
    """No address, no import, no other file: it opens without a network."""
    text = getattr(Timeline([bar(1, 0.0, 1.0)]), form)()
    text = text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|\b(src|href)=|@import|url\(|fetch\(|import\(", text)
    assert not re.search(r"__[A-Z]+__", text)


def test_an_empty_run_can_be_drawn():
    """A run that was broken off before its first attempt has a page, a picture and a trace."""
    empty = Timeline([])
    assert drawn(empty.to_html())["queues"] == []
    assert ET.fromstring(empty.to_svg()).tag.endswith("svg")
    assert check_trace(empty.to_trace()) == []


def test_thousands_of_attempts_stay_small():
    """Ten thousand attempts make a page below a megabyte."""
    timeline = Timeline(
        bar(n % 200, n / 100, n / 100 + 0.5, subject=f"module{n}.html") for n in range(10_000)
    )
    page = timeline.to_html()
    assert len(drawn(page)["attempts"]["start"]) == 10_000
    assert len(page) < 1_000_000
    assert len(timeline.to_svg()) < 1_000_000


def test_workers_that_live_at_once_have_lanes_of_their_own():
    """Two workers share a lane only if one was gone before the other came."""
    found = lanes(
        [
            bar(1, 0.0, 1.0),
            bar(2, 0.5, 0.8),
            bar(1, 2.0, 3.0),
            bar(5, 1.0, 2.5),
            bar(6, 3.0, None),
            bar(7, 4.0, 4.5),
        ],
        5.0,
    )
    assert found[1] == 0
    assert found[2] == 1
    assert found[5] == 1, "worker 2 is gone, worker 1 is not"
    assert found[6] == 0
    assert found[7] == 1, "worker 6 still runs"


# ---- the trace, by the rules of the Trace Event Format


def check_trace(trace):
    """Check what the format asks of each kind of event; return the complete ones."""
    json.loads(json.dumps(trace, allow_nan=False))
    assert set(trace) == {"traceEvents", "displayTimeUnit", "otherData"}
    assert trace["displayTimeUnit"] in ("ms", "ns")
    slices, flows, named = [], {}, set()
    for event in trace["traceEvents"]:
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["name"], str)
        kind = event["ph"]
        if kind == "M":
            (value,) = event["args"].values()
            assert event["name"] in {
                "process_name": isinstance(value, str),
                "thread_name": isinstance(value, str),
                "process_sort_index": isinstance(value, int),
                "thread_sort_index": isinstance(value, int),
            }
            named.add((event["pid"], event["tid"] if "thread" in event["name"] else None))
            continue
        assert event["ts"] >= 0
        assert isinstance(event["cat"], str)
        if kind == "X":
            assert event["dur"] >= 0
            slices.append(event)
        elif kind == "i":
            assert event["s"] in ("g", "p", "t")
        elif kind in ("s", "f"):
            assert event.get("bp") == ("e" if kind == "f" else None)
            flows.setdefault(event["id"], []).append(event)
        else:
            raise AssertionError(f"an event of kind {kind}")
    for event in slices:
        assert (event["pid"], None) in named
        assert (event["pid"], event["tid"]) in named
    for start, end in flows.values():
        assert (start["ph"], end["ph"]) == ("s", "f")
        assert start["ts"] <= end["ts"]
        for one in (start, end):
            assert any(
                s["pid"] == one["pid"]
                and s["tid"] == one["tid"]
                and s["ts"] <= one["ts"] <= s["ts"] + s["dur"]
                for s in slices
            ), "an arrow must begin and end in a slice"
    by_thread = {}
    for event in sorted(slices, key=lambda one: one["ts"]):
        before = by_thread.get((event["pid"], event["tid"]), 0.0)
        # Viewers take a slice that begins within another, by an error of rounding, as its child; Perfetto
        # counts whole nanoseconds, to which it may cut the sum.
        assert event["ts"] >= before, "slices of a thread may not overlap"
        assert int(1000 * event["ts"]) >= int(1000 * before), "nor as whole nanoseconds"
        by_thread[event["pid"], event["tid"]] = event["ts"] + event["dur"]
    return slices


def test_the_trace_is_valid():
    """Attempts are complete events, rows and queues are named, retries are arrows, stalls instants."""
    timeline = Timeline(
        [
            bar(1, 0.0, 0.5, ending="failed"),
            bar(2, 0.0, 3.0, subject="b"),
            bar(1, 1.0, 2.0, number=2),
            bar(1, 0.25, None, queue="processes", job="parse", ending="running"),
        ],
        marks=[Mark(0.1, 0.2, "in job fetch")],
        children=[Child("processes", 1, 4711, 0.0, None)],
        lasted=4.0,
    )
    trace = timeline.to_trace()
    slices = check_trace(trace)
    attempts = [(s["name"], s["ts"], s["dur"]) for s in slices if s["cat"] == "attempt"]
    assert sorted(attempts) == [
        ("fetch", 0.0, 499_999.998),
        ("fetch", 0.0, 2_999_999.998),
        ("fetch", 1_000_000.0, 999_999.998),
        ("parse", 250_000.0, 3_749_999.998),
    ]
    kinds = [event["ph"] for event in trace["traceEvents"]]
    assert (kinds.count("s"), kinds.count("f"), kinds.count("i")) == (1, 1, 1)
    names = {event["args"].get("name") for event in trace["traceEvents"] if event["ph"] == "M"}
    assert {"queue default", "queue processes", "pid 4711", "worker 1", "worker 2"} <= names
    check_trace(hostile().to_trace())


def test_attempts_that_touch_do_not_overlap_in_a_trace():
    """A worker's attempts follow one another without a gap, at times that no float hits: in the trace, whose
    durations are added up by others, none begins before the one before it has ended.
    """
    dice, at, bars = random.Random(3), 98.269064123, []
    for number in range(2_000):
        end = at + dice.uniform(0.0, 0.05)
        bars.append(bar(1, at, end, subject=str(number)))
        at = end
    assert len(check_trace(Timeline(bars).to_trace())) == 2_000


def test_save_writes_what_the_name_says(tmp_path):
    """The ending decides; any other is refused, and what is accepted is named."""
    timeline = Timeline([bar(1, 0.0, 1.0)])
    assert timeline.save(tmp_path / "run.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert timeline.save(str(tmp_path / "run.svg")).read_text("utf-8").startswith("<svg ")
    assert json.loads(timeline.save(tmp_path / "run.json").read_text("utf-8"))["traceEvents"]
    with pytest.raises(ValueError, match=r"must end in \.html, \.svg or \.json, not '.*run\.pdf'"):
        timeline.save(tmp_path / "run.pdf")
    with pytest.raises(TypeError, match="title"):
        Timeline([], title=3)
    with pytest.raises(ValueError, match="width"):
        timeline.to_svg(10)


@job(retry=Retry(attempts=2, on=(ValueError,), delay=1, jitter=False))
async def once_more(fails: list[int]) -> None:
    """Fail if there is something left to fail for."""
    if fails:
        fails.pop()
        raise ValueError("<bad>")


@pytest.mark.virtual_time
@pytest.mark.asyncio
async def test_the_timeline_of_a_supervisor():
    """Every attempt is in it, with its job, worker, ending and error, and where there was no room
    for all of them it says so; it is refused where nothing was recorded.
    """
    silent = Supervisor()
    with pytest.raises(ValueError, match="does not record"):
        silent.timeline()
    supervisor = Supervisor(workers=1, record=Chronicle(attempts=3), name="shop")
    with pytest.raises(SupervisorClosed):
        supervisor.timeline()
    async with supervisor:
        await supervisor.call(once_more, [1])
        await supervisor.call(once_more, [])
    timeline = supervisor.timeline()
    assert timeline.title == "A run of shop"
    assert timeline.seconds == 1.0
    assert [(b.job, b.number, b.ending, b.note) for b in timeline.bars] == [
        ("once_more", 1, "failed", "ValueError: <bad>"),
        ("once_more", 2, "succeeded", None),
        ("once_more", 1, "succeeded", None),
    ]
    assert timeline.note == ""
    assert repr(timeline) == "<Timeline of 3 attempts in 1.00 s>"
    async with supervisor:
        for _ in range(4):
            await supervisor.call(once_more, [])
    assert len(supervisor.timeline().bars) == 3
    assert supervisor.timeline().note == (
        "1 attempt that ended before these had no room, and are not drawn."
    )
