"""The frontier, the weather, and the fetch of one page from a site that misbehaves."""

import asyncio
from collections import Counter

import pytest

from asyncworkers import RetryLater
from asyncworkers.demo.crawl import ATTEMPTS, TRANSIENT, Frontier, client, fetch, session
from asyncworkers.demo.records import DemoFailed
from asyncworkers.demo.site import serving
from asyncworkers.demo.site_child import WORST_LUCK, forecast


@pytest.mark.asyncio
async def test_each_address_is_visited_once_and_then_the_frontier_ends():
    """A site with loops is crawled to its end, however often its pages link to each other."""
    site = {"index": ["a", "b", "index"], "a": ["b", "c"], "b": ["a"], "c": []}
    frontier = Frontier("index")
    visited = []
    async for address in frontier:
        visited.append(address)
        frontier.visited(site[address])
    assert visited == ["index", "a", "b", "c"]
    assert (frontier.known, frontier.unvisited) == (set(site), 0)


@pytest.mark.asyncio
async def test_the_frontier_waits_while_a_visit_may_still_find_something():
    """An empty frontier is not at its end as long as an address it gave out is not done with."""
    frontier = Frontier("index")
    addresses = aiter(frontier)
    assert await anext(addresses) == "index"
    following = asyncio.ensure_future(anext(addresses))
    await asyncio.sleep(0)
    assert not following.done()
    frontier.visited(["a"])
    assert await following == "a"
    frontier.visited()
    with pytest.raises(StopAsyncIteration):
        await anext(addresses)


def test_the_weather_is_repeatable():
    """The same seed gives an address the same latencies and faults; another seed does not."""

    def weather(seed):
        return [forecast(seed, 0.5, f"{page}.html", 1) for page in range(50)]

    assert weather(1) == weather(1)
    assert weather(1) != weather(2)


def test_faults_come_as_often_as_asked_for():
    """No faults means none, all means all, and the three kinds come in the given proportion."""
    kinds = Counter(forecast(1, 1.0, f"{page}.html", 1).fault for page in range(2000))
    assert set(kinds) == {"busy", "reset", "hang"}
    assert kinds["busy"] > kinds["reset"] > kinds["hang"]
    assert {forecast(1, 0.0, f"{page}.html", 1).fault for page in range(100)} == {"none"}


def test_patience_is_always_rewarded():
    """However bad the weather, a page comes within the attempts that a fetch has."""
    assert WORST_LUCK < ATTEMPTS
    assert forecast(1, 1.0, "page.html", WORST_LUCK).fault != "none"
    assert forecast(1, 1.0, "page.html", WORST_LUCK + 1).fault == "none"


def first_with(fault: str) -> str:
    """The name of a page whose first visit meets this fault."""
    names = (f"page{number}.html" for number in range(1000))
    return next(name for name in names if forecast(1, 0.9, name, 1).fault == fault)


@pytest.mark.asyncio
async def test_a_site_answers_refuses_and_resets(tmp_path):
    """Over real HTTP: pages and 404 are answers, 503 asks for patience, resets are errors."""
    good, busy, reset = (first_with(fault) for fault in ("none", "busy", "reset"))
    for name in (good, busy, reset):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    async with serving(tmp_path, 1, 0.9) as site, session(site.address) as http:
        client.set(http)
        page = await fetch(good)
        assert (page.address, page.status, page.body) == (good, 200, good.encode() * 1000)
        with pytest.raises(RetryLater) as refusal:
            await fetch(busy)
        assert refusal.value.seconds == 1.0
        with pytest.raises(TRANSIENT):
            await fetch(reset)
    assert site.tally == {"200": 1, "503": 1, "reset": 1}


@pytest.mark.asyncio
async def test_what_is_not_there_is_not_found(tmp_path):
    """A missing page is an answer, and so is whatever tries to leave the folder."""
    (tmp_path / "index.html").write_text("index")
    async with serving(tmp_path, 1, 0.0) as site, session(site.address) as http:
        client.set(http)
        for address in ("missing.html", "..%2Fsecret.html"):
            assert (await fetch(address)).status == 404
    assert site.tally == {"404": 2}


@pytest.mark.asyncio
async def test_a_server_that_cannot_start_is_reported(tmp_path, monkeypatch):
    """A child that ends at once is an error in one line, and nothing waits for it."""
    monkeypatch.setattr("asyncworkers.demo.site_child.__file__", str(tmp_path / "nothing.py"))
    with pytest.raises(DemoFailed, match="the server ended with code 2"):
        async with serving(tmp_path, 1, 0.0):
            raise AssertionError
