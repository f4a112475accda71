"""What `parse` and `compress` measure in a page."""

import lzma
import zlib

from asyncworkers.demo.analyze import compress, parse
from asyncworkers.demo.records import Page


def reading(html: str, address: str = "here.html"):
    """Read some HTML as if it were the page `here.html`."""
    return parse(Page(address, 200, html.encode()))


def test_a_page_is_read_whole():
    """Words, headings, nesting, links and anchors of a small page are all found."""
    found = reading(
        "<html><body><h1>The json module</h1>"
        '<div class="bigsection"><a name="-dumps">dumps</a> writes&nbsp;JSON<br></div>'
        '<p id="end">See <a href="other.html#Place">there</a>, <a href="other.html">there</a>'
        ' and <a href="#-dumps">here</a>.</p></body></html>'
    )
    assert found.words == 11
    assert found.headings == 2
    assert found.depth == 4
    assert found.links == {"other.html": 2, "here.html": 1}
    assert found.targets == {("other.html", "Place"), ("here.html", "-dumps")}
    assert found.anchors == {"-dumps", "end"}
    assert found.external == 0


def test_links_that_leave_the_site_are_only_counted():
    """Other schemes and other hosts are nothing to crawl."""
    found = reading(
        '<a href="https://example.org/a.html">1</a> <a href="file:/usr/lib/x.py">2</a>'
        '<a href="//example.org/b.html">3</a> <a name="no-href">-</a>'
    )
    assert (found.external, found.links) == (3, {})


def test_a_dot_is_the_index():
    """The pages link to their index as `.`, which is the page the crawl began at."""
    assert reading('<a href=".">index</a>').links == {"index.html": 1}


def test_items_without_end_tags_do_not_nest():
    """A list of a hundred open items is no deeper than a list of one."""
    one, many = (reading(f"<dl>{'<dt>a<dd>b' * count}</dl>").depth for count in (1, 100))
    assert one == many == 2


def test_an_end_tag_closes_what_was_left_open_inside():
    """Depth is counted from the elements that are really open; stray end tags close nothing."""
    assert reading("<div><p><b>x</div></div></i><div><p>y</p></div>").depth == 3


def test_text_of_any_kind_is_read():
    """Words may have any letters, hyphens and apostrophes; punctuation alone is no word."""
    assert reading("<p>it's a &lt;b&gt; &amp; c-d ünï , ☃</p>").words == 5


def test_compression_is_measured_in_bytes():
    """The sizes are those of the compressed bodies, and the ratio is lzma's."""
    body = b"spam " * 1000
    found = compress(Page("spam.html", 200, body))
    assert (found.size, found.zlib, found.lzma) == (
        len(body),
        len(zlib.compress(body)),
        len(lzma.compress(body)),
    )
    assert found.ratio == len(body) / found.lzma
