"""What notebooks show of a supervisor and its parts: every figure, escaped, bounded, and nothing secret."""

import asyncio
import base64
import re
import sys
import types
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from asyncworkers import (
    ChildStats,
    DrainReport,
    Queue,
    QueueStats,
    Retry,
    Stats,
    Supervisor,
    _html,
    _notebook,
    current_job,
    job,
)
from asyncworkers.portal import Portal
from asyncworkers.timeline import Bar, Timeline

HOSTILE = "<script>alert('\"&')</script>\u202e\x07"
SAFE = "&lt;script&gt;alert(&#x27;&quot;&amp;&#x27;)&lt;/script&gt;\\u202e\\x07"


class Page(HTMLParser):
    """Checks that tags are balanced, and none is of a kind that does anything."""

    harmless = frozenset(
        ("div", "strong", "style", "table", "thead", "tbody", "tr", "th", "td", "progress", "img")
    )

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.harmless
        assert {name for name, _ in attrs} <= {"class", "scope", "value", "max", "src", "alt"}
        if tag == "img":
            assert str(dict(attrs)["src"]).startswith("data:image/svg+xml;base64,")
            return
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "img":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] != "style":
            self.words.append(data)


def shown(one: Any) -> str:
    """The markup of an object, which is sound, and its text."""
    markup: str = one._repr_html_()
    assert len(markup) < 60_000
    return " ".join(" ".join(Page(markup).words).split())


async def echo(value: Any) -> Any:
    """Return the value."""
    return value


def queue_stats(name: str, **figures: Any) -> QueueStats:
    """Figures of a queue, 0 if not given."""
    counts = dict.fromkeys(QueueStats._fields, 0) | {"name": name, "paused": False, "children": ()}
    return QueueStats(**(counts | figures))


def test_text_is_never_markup() -> None:
    """Whatever is shown is escaped, printable, and cut."""
    assert _html.text(HOSTILE) == SAFE
    assert _html.text("x" * 300) == "x" * 199 + "…"
    markup = _html.block(HOSTILE, _html.words(HOSTILE), _html.rows([HOSTILE], [[HOSTILE]]))
    markup += _html.figures([(HOSTILE, HOSTILE), ("missing", None)])
    assert markup.count(SAFE) == 6
    assert "missing" not in markup
    assert "<script" not in markup
    Page(markup)


def test_tables_are_bounded() -> None:
    """The first 50 lines are shown, and how many more there are; without a line there is no table."""
    table = _html.rows(("name", "number"), [(f"line {n}", n) for n in range(1050)])
    assert table.count('<th scope="row">') == 50
    assert "and 1,000 more" in table
    assert 'class="number">49<' in table
    assert _html.rows(("name",), []) == ""


@pytest.mark.parametrize(
    ("done", "total", "wanted"),
    [
        (1, 4, 'value="0.2500"'),
        (5, 4, 'value="1.0000"'),
        (-1, 4, 'value="0.0000"'),
        (3, None, "<progress>"),
        (3, 0, "<progress>"),
        (3, -1, "<progress>"),
    ],
)
def test_a_bar_is_never_more_than_full(done: float, total: float | None, wanted: str) -> None:
    """Whatever a job reports of itself, its bar is between empty and full, or says nothing."""
    assert wanted in _html.bar(done, total)


def test_figures_of_queues() -> None:
    """All of every queue, a pause, rare figures when there are any, and what each process does."""
    child = ChildStats(1, 4711, True, 20_000_000, 3, HOSTILE, "a-7", 2)
    starting = ChildStats(2, 4712, False, None, 0, None, None, 0)
    busy = queue_stats("mail", workers=5, running=2, succeeded=1234, zombies=9, paused=True)
    cpu = queue_stats("cpu", children=(child, starting))
    text = shown(Stats({"mail": busy, "cpu": cpu}))
    assert "mail (paused) 5 2 0 0 1,234" in text
    assert "zombies" in text
    assert "lent" not in text
    assert "cpu 1 4711 20.0 MB 3 2 <script>" in text
    assert "cpu 2 4712 0 0 starting" in text
    assert shown(busy).startswith("queue mail")
    assert SAFE in cpu._repr_html_()


def test_a_drain_report() -> None:
    """How many came to which end, and some of those that did not come to a good one."""
    ids = tuple(f"a-{number}" for number in range(1000))
    text = shown(DrainReport(ids, ids[:1], (), ids[:20], 1.234, ids[:3], ids[3:5]))
    assert text.startswith("Drained in 1.23 s")
    assert "done 995" in text
    assert "failed 3 a-0, a-1, a-2" in text
    assert "withdrawn 2 a-3, a-4" in text
    assert "cancelled 1 a-0" in text
    assert "abandoned 20 a-0, a-1" in text
    assert "a-9, ..." in text
    assert "a-10" not in text


@pytest.mark.asyncio
async def test_a_supervisor_and_its_jobs() -> None:
    """A supervisor shows its queues and what jobs wait for, a job how far it is; no argument, no
    value. What is looked at is not read: an error nobody awaits is logged nevertheless.
    """
    gate = asyncio.Event()

    async def work(secret: str) -> str:
        current_job().report(1, 4, HOSTILE)
        await gate.wait()
        raise ValueError(HOSTILE)

    work.__qualname__ = HOSTILE
    supervisor = Supervisor(1, queues=[Queue("mail", 2)], name="mine")
    assert shown(supervisor) == "Supervisor mine, new"
    async with supervisor:
        running = await supervisor.submit(work, "SECRET")
        waiting = await supervisor.submit(job(echo, tags=("<b>",)), "SECRET")
        while running.progress is None:
            await asyncio.sleep(0)
        text = shown(supervisor)
        assert text.startswith("Supervisor mine, open")
        assert "default 1 1 1 0" in text
        assert "mail" in text
        assert "queued: the only worker of queue 'default' is busy" in text
        text = shown(running)
        assert "25% 1 of 4: <script>" in text
        assert "created" in text
        assert "finished" not in text
        assert "<b>" in shown(waiting)
        gate.set()
        await waiting
        await running.wait()
        assert "failed in attempt 1: ValueError: <script>" in shown(running)
        assert "finished" in shown(running)
        assert "succeeded" in shown(waiting)
        for one in (supervisor, running, waiting):
            assert "SECRET" not in one._repr_html_()
            assert "<script>alert" not in one._repr_html_()
    assert shown(supervisor).startswith("Supervisor mine, closed")


@pytest.mark.asyncio
async def test_looking_at_a_job_reads_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An error is still nobody's after its job was shown."""

    async def fails() -> None:
        raise ValueError("nobody's")

    async with Supervisor() as supervisor:
        failed = await supervisor.submit(fails)
        while not failed.done():
            await asyncio.sleep(0)
        assert "nobody" in shown(failed)
        assert not caplog.records
    assert "failed and nobody awaited it" in caplog.text


@pytest.mark.asyncio
async def test_a_stream() -> None:
    """It says how to use it, until it was used."""
    async with Supervisor() as supervisor:
        stream = supervisor.map(echo, [1], ordered=False)
        assert shown(stream).startswith("Stream, not started, unordered await it for a list")
        assert await stream == [1]
        assert shown(stream) == "Stream, used, unordered"


def test_a_stream_of_a_portal() -> None:
    """It says how to use it there, where nothing is awaited."""
    with Portal() as portal:
        stream = portal.map(echo, [1])
        assert "await" not in shown(stream)
        assert "call all() for a list" in shown(stream)
        assert stream.all() == [1]
        assert shown(stream) == "Stream, used, ordered"


class Printer:
    """What IPython hands to whatever it shows at a prompt."""

    said = ""

    def text(self, text: str) -> None:
        """Take what is to be shown."""
        self.said += text


@pytest.mark.allow_leaks  # matplotlib keeps its fonts open
@pytest.mark.asyncio
async def test_a_report_a_timeline_and_a_plot(tmp_path: Path) -> None:
    """What was recorded is shown as tables, as a picture apart from the page, and as a plot."""

    async def fails() -> None:
        raise ValueError(HOSTILE)

    fails.__qualname__ = HOSTILE + "$x$"
    async with Supervisor(record=True) as supervisor:
        await supervisor.map(echo, range(20))
        with pytest.raises(ValueError, match="script"):
            await supervisor.call(job(fails, retry=Retry(2, on=ValueError, delay=0)))
    report, timeline, plot = supervisor.report(), supervisor.timeline(), supervisor.plot()
    text = shown(report)
    assert "21 jobs, 20 succeeded, 1 failed" in text
    assert "default 21 1 - 1" in text
    assert "ValueError 2 ValueError: <script>" in text
    assert SAFE in report._repr_html_()
    assert "Not recorded" not in text
    printer = Printer()
    report._repr_pretty_(printer, False)
    assert printer.said == str(report)
    assert "timeline.save" in shown(timeline)
    data = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', timeline._repr_html_())
    assert data is not None
    picture = base64.b64decode(data[1])
    assert picture.startswith(b"<svg")
    assert timeline.title.encode() in picture
    assert f"<strong>{timeline.title}" not in timeline._repr_html_()  # not twice
    assert plot._repr_png_().startswith(b"\x89PNG")
    assert plot.save(tmp_path / "run.svg") == tmp_path / "run.svg"
    drawn = (tmp_path / "run.svg").read_text(encoding="utf-8")
    assert "default: median" in drawn
    assert repr(plot) == "<Plot of a run>"


@pytest.mark.allow_leaks  # matplotlib keeps its fonts open
@pytest.mark.asyncio
async def test_what_was_not_recorded() -> None:
    """A report says so, a plot and a timeline are refused; an empty run is drawn nevertheless."""
    async with Supervisor() as supervisor:
        await supervisor.call(echo, 1)
    assert "Not recorded" in shown(supervisor.report())
    with pytest.raises(ValueError, match="record=True"):
        supervisor.plot()
    async with Supervisor(record=True) as supervisor:
        assert supervisor.plot()._repr_png_()


@pytest.mark.asyncio
async def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no matplotlib is told which extra to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    async with Supervisor(record=True) as supervisor:
        with pytest.raises(ImportError, match=r"pip install 'asyncworkers\[plot\]'"):
            supervisor.plot()


def test_a_timeline_that_is_too_big() -> None:
    """A notebook is not filled with a picture of megabytes: it says how to save it instead."""
    bars = [
        Bar("q", number % 500, f"job{number % 8}", "j", 1, number / 7, number / 7 + 1, "succeeded")
        for number in range(30_000)
    ]
    markup = Timeline(bars)._repr_html_()
    assert len(markup) < 2_000
    assert "too big to show here" in markup


# ---- the bar of a notebook


class Handle:
    """Stands in for IPython's display: keeps what was shown."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def display(self, one: Any, display_id: bool) -> "Handle":
        assert display_id
        self.update(one)
        return self

    def update(self, one: Any) -> None:
        Page(one._repr_html_())
        self.seen.append(repr(one))


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Handle:
    """What is shown where a kernel is believed to run."""
    made = Handle()
    core = types.ModuleType("IPython.core")
    core.display_functions = made  # type: ignore[attr-defined]
    getipython = types.ModuleType("IPython.core.getipython")
    getipython.get_ipython = lambda: types.SimpleNamespace(kernel=1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "IPython.core", core)
    monkeypatch.setitem(sys.modules, "IPython.core.getipython", getipython)
    return made


def test_a_live_bar(handle: Handle) -> None:
    """It says count, failures, rate, what is left, and at last how long it took; the same is not
    shown twice.
    """
    now, failed = 0.0, 0
    bar = _notebook.LiveBar("<b>", 1000, lambda: now, lambda: {"failed": failed})
    bar.show(0)
    bar.show(0)
    now = 10.0
    bar.show(100)
    failed, now = 3, 100.0
    bar.show(500)
    now = 7300.0
    bar.show(999)
    bar.close(1000)
    assert handle.seen == [
        "<b>: 0/1,000",
        "<b>: 100/1,000, 10/s, 1:30 min left",
        "<b>: 497/1,000 done, 3 failed, 5/s, 1:40 min left",
        "<b>: 996/1,000 done, 3 failed, 0.137/s, 7 s left",
        "<b>: 997/1,000 done, 3 failed, in 2:01 h, 0.137/s",
    ]
    endless = _notebook.LiveBar("jobs", None, lambda: now, dict)
    now += 2.0
    endless.show(4)
    assert "<progress></progress>" in endless._repr_html_()
    endless.close(4)
    assert handle.seen[-1] == "jobs: 4, in 2.0 s, 2/s"
    assert 'value="1.0000"' in endless._repr_html_()


@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_progress_in_a_kernel(handle: Handle, capsys: pytest.CaptureFixture[str]) -> None:
    """There a map shows a bar in place of lines, at most ten times a second, and the last state."""
    async with Supervisor(1) as supervisor:
        await supervisor.map(asyncio.sleep, [0.01] * 100).progress("naps")
    assert capsys.readouterr().err == ""
    assert 5 <= len(handle.seen) <= 13
    assert re.fullmatch(r"naps: 100/100, in 1\.\d s, .*/s", handle.seen[-1])


@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_the_loop_of_a_kernel_is_kept_awake(handle: Handle) -> None:
    """It turns ten times a second while a supervisor is open, so that interrupts are heard; not after,
    and not for one that was forgotten.
    """
    loop = asyncio.get_running_loop()

    def timers() -> int:
        return sum("keep_awake" in repr(timer) for timer in loop._scheduled)  # type: ignore[attr-defined]

    async with Supervisor():
        assert timers() == 1
        await asyncio.sleep(1)
        assert timers() == 1
    await asyncio.sleep(0.2)
    assert timers() == 0


def test_outside_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no kernel runs, or IPython runs in a terminal, it is no notebook."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert not _notebook.in_notebook()
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    getipython = types.ModuleType("IPython.core.getipython")
    getipython.get_ipython = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.core.getipython", getipython)
    assert not _notebook.in_notebook()
