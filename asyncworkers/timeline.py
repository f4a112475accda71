"""The timeline of a run: a row for each worker and process, as a web page, a picture or a trace file."""

from __future__ import annotations

import heapq
import json
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from asyncworkers import _checks, _html
from asyncworkers._record import Record
from asyncworkers.chronicle import Chronicle, Span
from asyncworkers.events import ChildEnded, ChildStarted
from asyncworkers.report import Report, place_of
from asyncworkers.units import counted, seconds

__all__ = ["Bar", "Child", "Mark", "Timeline", "make_timeline"]

MOST_SHOWN = 300_000
"""Bytes of a picture that are put into a notebook, and are saved with it."""

# One color for light ground and one for dark; more kinds of jobs than these share them.
_JOBS = (
    *(("#8250df", "#a98bff"), ("#2f7fe0", "#5aa2ff"), ("#1f9d57", "#3fc27b")),
    *(("#c58a00", "#e0ac2f"), ("#0c8599", "#3bc9db"), ("#a0522d", "#d9976b")),
    *(("#5c7cfa", "#91a7ff"), ("#66a80f", "#a9e34b")),
)
_ENDINGS = {
    "succeeded": ("#868e96", "#868e96"),
    "failed": ("#e03131", "#ff5d5d"),
    "timed out": ("#d6336c", "#ff6b9c"),
    "cancelled": ("#868e96", "#868e96"),
    "running": ("#adb5bd", "#5c6672"),
}
_OTHER_ENDINGS = (("#e8590c", "#ff8f4a"), ("#862e9c", "#e599f7"), ("#000000", "#ffffff"))
_STALL = ("#343a40", "#ced4da")
_GROUND = {
    "ground": ("#ffffff", "#12161c"),
    "ink": ("#1c2128", "#e4e9f0"),
    "soft": ("#626b77", "#93a0b0"),
    "line": ("#d9dee5", "#303a47"),
    "lane": ("#eef1f4", "#1b222c"),
}


class Bar(Record):
    """One attempt as it is drawn: from `start` to `end` in the row of a worker; times are in seconds.

    `subject` is what the attempts of one story have in common, such as the id of their job, and
    `ending` how this one ended, in a word or two: what is not "succeeded" stands out. `end` is
    None while it runs. `note` says more, such as the error.
    """

    queue: str
    worker: int
    job: str
    subject: str
    number: int
    start: float
    end: float | None
    ending: str
    note: str | None = None


class Mark(Record):
    """The event loop stood still from `start` to `end`; `text` tells where."""

    start: float
    end: float
    text: str


class Child(Record):
    """A worker's child process, known by its `pid`, from `start` to `end`, or None if it goes on."""

    queue: str
    worker: int
    pid: int
    start: float
    end: float | None


class Timeline:
    """All attempts of a run over time, to be saved and looked at.

    `supervisor.timeline()` makes it of what was recorded; anything else that has attempts may be
    drawn by giving them as bars. `lasted` is the length of the run in seconds, None if the last
    attempt ended it. What is drawn of it is up to `save`.
    """

    def __init__(
        self,
        bars: Iterable[Bar],
        *,
        title: str = "A run of asyncworkers",
        subtitle: str = "",
        figures: Iterable[tuple[str, str]] = (),
        marks: Iterable[Mark] = (),
        children: Iterable[Child] = (),
        lasted: float | None = None,
        story: str = "job",
        note: str = "",
    ) -> None:
        self.bars: Sequence[Bar] = tuple(sorted(bars, key=lambda bar: bar.start))
        self.title = _checks.text("title", title)
        self.subtitle = _checks.text("subtitle", subtitle)
        self.figures = tuple(figures)
        self.marks = tuple(marks)
        self.children = tuple(children)
        self.story = story
        self.note = note
        last = max((_end(bar, bar.start) for bar in self.bars), default=0.0)
        self.seconds = max(last, lasted or 0.0) or 1.0
        self._rows = _rows(self.bars, self.seconds)
        self._names = {queue: self._lane_names(queue) for queue in self._rows}

    def save(self, path: str | PathLike[str]) -> Path:
        """Write it as what the name ends in says, and return the path.

        - `.html`: a page that needs nothing else, to zoom and point at, in any browser
        - `.svg`: a picture
        - `.json`: a trace for ui.perfetto.dev or chrome://tracing

        Raises ValueError for another ending, OSError if the file cannot be written.
        """
        file = Path(fspath(path))
        make = {".html": self.to_html, ".svg": self.to_svg, ".json": self._to_json}.get(file.suffix)
        if make is None:
            shown = _checks.shown(fspath(path))
            raise ValueError(f"path must end in .html, .svg or .json, not {shown}")
        file.write_text(make(), encoding="utf-8")
        return file

    # ---- as a page

    def to_html(self) -> str:
        """A page that needs nothing else."""
        data = self._drawn()
        # In a script element only "</" could end it early, and "<!--" could keep it from ending.
        text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
        template = files("asyncworkers").joinpath("timeline.html").read_text(encoding="utf-8")
        light, dark = (self._colors(dark=dark) for dark in (False, True))
        head, found, tail = template.partition("__DATA__")
        assert found
        for place, what in (
            ("__TITLE__", escape(self.title)),
            ("__LIGHT__", light),
            ("__DARK__", dark),
        ):
            head = head.replace(place, what)
        return head + text + tail

    def _drawn(self) -> dict[str, Any]:
        """The bars as columns of numbers, times in milliseconds: a third of the size of objects."""
        bars, jobs, endings, queues = self.bars, self._jobs(), self._endings(), list(self._rows)
        job_at, ending_at, queue_at = (_places(names) for names in (jobs, endings, queues))
        return {
            "title": self.title,
            "subtitle": self.subtitle,
            "story": self.story,
            "note": self.note,
            "figures": [list(figure) for figure in self.figures],
            "jobs": jobs,
            "jobColors": [f"--job{place % len(_JOBS)}" for place in range(len(jobs))],
            "endings": endings,
            "endingColors": [f"--end{place}" for place in range(len(endings))],
            "queues": [
                {
                    "name": queue,
                    "lanes": self._lanes(queue),
                    "note": counted(self._lanes(queue), "worker"),
                    "names": self._names[queue],
                }
                for queue in queues
            ],
            "marks": [
                {"start": _ms(mark.start), "end": _ms(mark.end), "text": mark.text}
                for mark in self.marks
            ],
            "span": _ms(self.seconds),
            "notes": {place: bar.note for place, bar in enumerate(bars) if bar.note},
            "attempts": {
                "job": [job_at[bar.job] for bar in bars],
                "queue": [queue_at[bar.queue] for bar in bars],
                "lane": [self._rows[bar.queue][bar.worker] for bar in bars],
                "start": [_ms(bar.start) for bar in bars],
                "end": [_ms(_end(bar, self.seconds)) for bar in bars],
                "ending": [ending_at[bar.ending] for bar in bars],
                "number": [bar.number for bar in bars],
                "subject": [bar.subject for bar in bars],
            },
        }

    def _colors(self, *, dark: bool) -> str:
        pairs = {f"job{place}": pair for place, pair in enumerate(_JOBS)}
        others = 0
        for place, ending in enumerate(self._endings()):
            pair = _ENDINGS.get(ending)
            if pair is None:
                pair = _OTHER_ENDINGS[others % len(_OTHER_ENDINGS)]
                others += 1
            pairs[f"end{place}"] = pair
        pairs["stall"] = _STALL
        return "  " + " ".join(f"--{name}: {pair[dark]};" for name, pair in pairs.items())

    # ---- as a picture

    def to_svg(self, width: int = 1200) -> str:
        """A picture of the rows, `width` pixels wide, with a legend; for light and dark ground."""
        return "\n".join(self._svg(_checks.whole("width", width, 400, 20_000)))

    def _svg(self, width: int) -> Iterator[str]:
        left, right, y = 130, 20, 64
        scale = (width - left - right) / self.seconds
        jobs, endings = self._jobs(), self._endings()
        job_at, ending_at = _places(jobs), _places(endings)
        body: list[str] = []
        strokes: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for queue, rows in self._rows.items():
            lanes = self._lanes(queue)
            high = 16 if lanes <= 8 else 8 if lanes <= 40 else 4
            body.append(_text(12, y + 12, queue, "ink"))
            if lanes * high > 26:
                body.append(_text(12, y + 28, counted(lanes, "worker"), "soft"))
            row = f'width="{width - left - right}" height="{max(high - 2, 2)}" class="lane"/>'
            body += [f'<rect x="{left}" y="{y + lane * high}" {row}' for lane in range(lanes)]
            for bar in self.bars:
                if bar.queue == queue:
                    kind = (
                        f"job{job_at[bar.job] % len(_JOBS)}"
                        if bar.ending == "succeeded"
                        else f"end{ending_at[bar.ending]}"
                    )
                    x = left + bar.start * scale
                    long = max((_end(bar, self.seconds) - bar.start) * scale, 0.6)
                    top, tall = y + rows[bar.worker] * high, max(high - 2, 2)
                    strokes[kind][f"M{x:.1f} {top}h{long:.1f}v{tall}h-{long:.1f}z"] = None
            y += lanes * high + 22
        bottom = y - 10
        marks = [
            f'<rect x="{left + mark.start * scale:.1f}" y="56" '
            f'width="{max((mark.end - mark.start) * scale, 1.5):.1f}" height="{bottom - 56}" '
            f'class="stall"><title>{_xml(mark.text)}</title></rect>'
            for mark in self.marks
        ]
        yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 28}">'
        yield f"<title>{_xml(self.title)}</title>"
        yield f"<style>\n{self._svg_style()}\n</style>"
        yield f'<rect width="{width}" height="{bottom + 28}" class="ground"/>'
        yield _text(12, 22, self.title, "ink title")
        yield from self._svg_legend(width, jobs, endings)
        yield from body
        for at, moment in _ticks(self.seconds, scale):
            yield f'<rect x="{left + at:.1f}" y="56" width="1" height="{bottom - 56}" class="line"/>'
            yield _text(left + at, bottom + 18, moment, "soft tick")
        yield from (
            f'<path class="{kind}" d="{"".join(paths)}"/>' for kind, paths in strokes.items()
        )
        yield from marks
        yield "</svg>"

    def _svg_style(self) -> str:
        rules = [
            "text { font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }",
            ".title { font-size: 15px; font-weight: 600; }",
            ".tick { text-anchor: middle; }",
            ".stall { fill-opacity: .25; }",
        ]
        kinds = [*(f"job{place}" for place in range(len(_JOBS)))]
        kinds += [*(f"end{place}" for place in range(len(self._endings()))), "stall", *_GROUND]
        rules += [f".{kind} {{ fill: var(--{kind}); }}" for kind in kinds]
        for dark in (False, True):
            ground = " ".join(f"--{name}: {pair[dark]};" for name, pair in _GROUND.items())
            rule = f":root {{ {ground}{self._colors(dark=dark)} }}"
            rules.append(f"@media (prefers-color-scheme: dark) {{ {rule} }}" if dark else rule)
        return "\n".join(rules)

    def _svg_legend(self, width: int, jobs: list[str], endings: list[str]) -> Iterator[str]:
        entries = [(name, f"job{place % len(_JOBS)}") for place, name in enumerate(jobs)]
        entries += [(n, f"end{place}") for place, n in enumerate(endings) if n != "succeeded"]
        if self.marks:
            entries.append(("the loop stalled", "stall"))
        x = 12.0
        for name, kind in entries:
            long = 30 + 7.4 * len(name)
            if x + long > width - 20:
                return
            yield f'<rect x="{x}" y="35" width="10" height="10" rx="2" class="{kind}"/>'
            yield _text(x + 15, 44, name, "soft")
            x += long

    def _repr_html_(self) -> str:
        """As notebooks show it: a picture, apart from the page, so that neither changes the other."""
        picture = self.to_svg(1000).encode()
        said = "Zoom and point: timeline.save('run.html')."
        if len(picture) > MOST_SHOWN:
            return _html.block(self.title, _html.words(f"{self!r} is too big to show here. {said}"))
        data = b64encode(picture).decode()
        image = f'<img src="data:image/svg+xml;base64,{data}" alt="{_html.text(repr(self))}"/>'
        return _html.block("", image, _html.words(said))

    # ---- as a trace

    def to_trace(self) -> dict[str, Any]:
        """The trace events that Perfetto and Chrome read: each queue is a process there, each row
        a thread, an arrow leads from an attempt to the next one of the same job.
        """
        events: list[dict[str, Any]] = [
            *_named_process(0, "event loop"),
            *_named_thread(0, 0, "stalls"),
        ]
        for pid, queue in enumerate(self._rows, 1):
            events += _named_process(pid, f"queue {queue}")
            for lane, name in enumerate(self._names[queue]):
                events += _named_thread(pid, lane, name or f"worker {lane + 1}")
        pids = {queue: pid for pid, queue in enumerate(self._rows, 1)}
        before: dict[tuple[str, str], dict[str, Any]] = {}
        arrows = 0
        for bar in self.bars:
            start, end = _us(bar.start), _us(_end(bar, self.seconds))
            where = {"pid": pids[bar.queue], "tid": self._rows[bar.queue][bar.worker], "ts": start}
            told = {"id": bar.subject, "attempt": bar.number, "ending": bar.ending}
            if bar.note:
                told["note"] = bar.note
            whole = {"name": bar.job, "cat": "attempt", "ph": "X", **where, "dur": _gap(start, end)}
            events.append(whole | {"args": told})
            story = bar.job, bar.subject
            if story in before:
                arrows += 1
                arrow = {"name": "retry", "cat": "retry", "id": arrows}
                events.append(arrow | {"ph": "s"} | before[story])
                events.append(arrow | {"ph": "f", "bp": "e"} | where)
            before[story] = where
        for mark in self.marks:
            start, end = _us(mark.start), _us(mark.end)
            stall = {"name": "stall", "cat": "stall", "pid": 0, "tid": 0, "ts": start}
            told = {"where": mark.text}
            events.append(stall | {"ph": "X", "dur": _gap(start, end), "args": told})
            events.append(stall | {"ph": "i", "s": "g", "args": told})
        return {
            "traceEvents": events,
            "displayTimeUnit": "ms",
            "otherData": {"title": self.title, "subtitle": self.subtitle, "note": self.note},
        }

    def _to_json(self) -> str:
        return json.dumps(self.to_trace(), separators=(",", ":"))

    # ---- what all of them draw

    def _jobs(self) -> list[str]:
        return list(dict.fromkeys(bar.job for bar in self.bars))

    def _endings(self) -> list[str]:
        found = {bar.ending for bar in self.bars}
        known = [ending for ending in _ENDINGS if ending in found]
        return known + sorted(found - set(known))

    def _lanes(self, queue: str) -> int:
        return max(self._rows[queue].values()) + 1

    def _lane_names(self, queue: str) -> list[str]:
        """What each row is called: the processes that ran there, if there were any."""
        names: list[list[str]] = [[] for _ in range(self._lanes(queue))]
        for child in self.children:
            lane = self._rows[queue].get(child.worker) if child.queue == queue else None
            if lane is not None:
                names[lane].append(str(child.pid))
        return [f"pid {', '.join(pids)}" if pids else "" for pids in names]

    def __repr__(self) -> str:
        return f"<Timeline of {counted(len(self.bars), 'attempt')} in {seconds(self.seconds)}>"


def make_timeline(chronicle: Chronicle, report: Report) -> Timeline:
    """Draw what was recorded."""
    began = chronicle.began or 0.0
    stalls = chronicle.stalls
    kept = chronicle.attempts()
    missing = chronicle.dropped.get("attempts", 0)
    note = (
        f"{counted(missing, 'attempt')} that ended before these had no room, and are not drawn."
        if missing
        else ""
    )
    return Timeline(
        map(_bar, kept),
        title=f"A run of {report.name}" if report.name != "supervisor" else "A run of asyncworkers",
        subtitle=report.headline,
        figures=_figures(chronicle, report),
        marks=[
            Mark(stall.at - began - stall.seconds, stall.at - began, place_of(stall))
            for stall in stalls.last
        ],
        children=_children(chronicle, began),
        lasted=report.seconds,
        note=note,
    )


def _figures(chronicle: Chronicle, report: Report) -> Iterator[tuple[str, str]]:
    total = chronicle.total
    yield "in all", seconds(report.seconds)
    yield "jobs", f"{report.submitted:,}"
    for word, count in (("failed", report.failed), ("repeated", report.retried)):
        if count:
            yield word, f"{count:,}"
    yield (
        "jobs a second",
        f"{report.per_second:,.3g}" if report.per_second < 100 else f"{report.per_second:,.0f}",
    )
    for word, times in (("waited", total.waiting), ("ran", total.running)):
        half, most = times.percentile(0.5), times.percentile(0.99)
        if half is not None and most is not None:
            yield f"{word}, median", seconds(half)
            yield f"{word}, 99 %", seconds(most)
    if report.stalls.count:
        yield "loop stalled", seconds(report.stalls.seconds)


def _bar(span: Span) -> Bar:
    words = {None: "running", "TimedOut": "timed out"}
    ending = words.get(span.outcome) or str(span.outcome).lower()
    return Bar(
        span.queue,
        span.worker,
        span.job_name,
        span.job_id,
        span.attempt,
        span.start,
        span.end,
        ending,
        span.error,
    )


def _children(chronicle: Chronicle, began: float) -> list[Child]:
    found: dict[tuple[str, int, int], Child] = {}
    for event in chronicle.moments:
        if isinstance(event, ChildStarted | ChildEnded):
            who, at = (event.queue, event.worker, event.pid), event.at - began
            if isinstance(event, ChildStarted):
                found[who] = Child(*who, at - event.seconds, None)
            elif who in found:
                found[who] = found[who].replace(end=at)
    return list(found.values())


def _rows(bars: Iterable[Bar], last: float) -> dict[str, dict[int, int]]:
    """The row of each worker in each queue; those with few rows come first: threads and processes
    above, the crowd on the loop below.
    """
    of_queue: dict[str, list[Bar]] = {}
    for bar in bars:
        of_queue.setdefault(bar.queue, []).append(bar)
    rows = {queue: lanes(there, last) for queue, there in of_queue.items()}
    return dict(sorted(rows.items(), key=lambda row: (max(row[1].values()), row[0])))


def lanes(bars: Iterable[Bar], last: float) -> dict[int, int]:
    """A lane for each worker of one queue, by the worker's number.

    Idle workers are let go and new ones, with new numbers, come when there is more to do: those
    take over the lanes of workers that have gone.
    """
    lives: dict[int, tuple[float, float]] = {}
    for bar in bars:
        end = _end(bar, last)
        start, latest = lives.get(bar.worker, (bar.start, end))
        lives[bar.worker] = (min(start, bar.start), max(latest, end))
    found: dict[int, int] = {}
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    for worker, (start, end) in sorted(lives.items(), key=lambda life: (life[1], life[0])):
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (end, lane))
        found[worker] = lane
    return found


def _end(bar: Bar, last: float) -> float:
    return max(bar.start, last) if bar.end is None else bar.end


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


def _ms(moment: float) -> float:
    return round(1000 * moment, 2)


def _us(moment: float) -> float:
    """Microseconds, in whole nanoseconds: that is what viewers of traces count in."""
    return round(1_000_000 * moment, 3)


def _gap(start: float, end: float) -> float:
    """The duration between them, two nanoseconds short: viewers add it up in floating point, or cut it to
    whole nanoseconds, and of two attempts that touch the second must not begin within the first.
    """
    return round(max(end - start - 0.002, 0.0), 3)


def _named_process(pid: int, name: str) -> list[dict[str, Any]]:
    about = {"ph": "M", "pid": pid, "tid": 0}
    return [
        about | {"name": "process_name", "args": {"name": name}},
        about | {"name": "process_sort_index", "args": {"sort_index": pid}},
    ]


def _named_thread(pid: int, tid: int, name: str) -> list[dict[str, Any]]:
    about = {"ph": "M", "pid": pid, "tid": tid}
    return [
        about | {"name": "thread_name", "args": {"name": name}},
        about | {"name": "thread_sort_index", "args": {"sort_index": tid}},
    ]


def _ticks(lasted: float, scale: float) -> Iterator[tuple[float, str]]:
    """Where the axis has its lines, and what they say: round numbers, some 110 pixels apart."""
    power, rough = 1e-9, 110 / scale
    while 10 * power <= rough:
        power *= 10
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= rough)
    digits = next(digits for digits in range(10) if step * 10**digits > 0.99)
    for place in range(int(lasted / step) + 1):
        yield place * step * scale, f"{place * step:,.{digits}f} s"


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y}" class="{kind}">{_xml(text)}</text>'


def _xml(text: str) -> str:
    return escape(_checks.printable(text))
