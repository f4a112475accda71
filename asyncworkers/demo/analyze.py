"""The jobs that analyze a page: CPU-bound work, in child processes."""

from __future__ import annotations

import lzma
import re
import zlib
from collections import Counter
from html.parser import HTMLParser

from asyncworkers import job
from asyncworkers.demo.records import Compression, Page, Reading
from asyncworkers.demo.render import INDEX

__all__ = ["compress", "parse"]


@job(cpu=True, priority=10)  # ahead of compressing: the crawl waits for the links
def parse(page: Page) -> Reading:
    """Read one page: its words and headings, how deep it is nested, and where it links to."""
    reader = _Reader(page.address)
    reader.feed(page.body.decode())
    reader.close()
    return reader.reading(len(page.body))


@job(cpu=True)
def compress(page: Page) -> Compression:
    """Measure how small the page gets."""
    body = page.body
    return Compression(
        page.address, len(body), zlib=len(zlib.compress(body)), lzma=len(lzma.compress(body))
    )


_WORD = re.compile(r"\w[\w'-]*")
# Elements without an end tag, which therefore nest nothing.
_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "wbr"}
)
# An item needs no end tag: the next one ends it.
_ENDED_BY = {"dt": {"dt", "dd"}, "dd": {"dt", "dd"}, "li": {"li"}, "p": {"p"}}
# What pydoc marks up as headings, beside the real ones.
_HEADING_TAGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_HEADING_CLASSES = frozenset({"title", "bigsection"})


class _Reader(HTMLParser):
    """Gathers in one pass over a page what a `Reading` tells."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.words = 0
        self.headings = 0
        self.depth = 0
        self.links: Counter[str] = Counter()
        self.targets: set[tuple[str, str]] = set()
        self.anchors: set[str] = set()
        self.external = 0
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            if self._open and self._open[-1] in _ENDED_BY.get(tag, ()):
                self._open.pop()
            self._open.append(tag)
            self.depth = max(self.depth, len(self._open))
        attributes = dict(attrs)
        if tag in _HEADING_TAGS or attributes.get("class") in _HEADING_CLASSES:
            self.headings += 1
        for place in (attributes.get("id"), attributes.get("name") if tag == "a" else None):
            if place:
                self.anchors.add(place)
        if tag == "a" and (href := attributes.get("href")) is not None:
            self._link(href)

    def handle_endtag(self, tag: str) -> None:
        # Leaves whatever was left open inside; an end tag without a beginning closes nothing.
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        self.words += len(_WORD.findall(data))

    def _link(self, href: str) -> None:
        path, _, place = href.partition("#")
        if ":" in path or path.startswith("//"):
            self.external += 1
            return
        address = self.address if not path else INDEX if path == "." else path
        self.links[address] += 1
        if place:
            self.targets.add((address, place))

    def reading(self, size: int) -> Reading:
        return Reading(
            address=self.address,
            size=size,
            words=self.words,
            headings=self.headings,
            depth=self.depth,
            links=self.links,
            targets=frozenset(self.targets),
            anchors=frozenset(self.anchors),
            external=self.external,
        )
