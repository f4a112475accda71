"""Attacks on the dashboard, as a real browser and a real server meet them."""

import asyncio
import json
import logging
from urllib.parse import quote

import pytest
from browser import browsing, serving
from conversation import Conversation
from corpus import PAYLOADS, HostileSource
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from asyncworkers import Supervisor, redact
from asyncworkers.dashboard import Dashboard
from asyncworkers.dashboard.app import ASSETS

STRANGE = """() => ({
    pwned: window.pwned ?? null,
    scripts: document.querySelectorAll("script").length,
    images: document.images.length,
    frames: document.querySelectorAll("iframe, object, embed, base, style, video, audio, form[action]").length,
    handlers: [...document.querySelectorAll("*")].filter((one) =>
        one.getAttributeNames().some((name) => name.startsWith("on") || name === "style")).length,
    links: [...document.querySelectorAll("a")].filter((one) => !one.getAttribute("href").startsWith("#")).length,
    text: document.body.innerText.replace(/\\s+/g, " "),
})"""

VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""


def shown(text):
    """The text as a page shows it: what is not printable is escaped, white space runs together."""
    return " ".join(redact.safe(text).split())


async def unharmed(page):
    """The page is as we made it; returns what can be read there."""
    found = await page.evaluate(STRANGE)
    text = found.pop("text")
    assert found == {
        "pwned": None,
        "scripts": 1,
        "images": 1,
        "frames": 0,
        "handlers": 0,
        "links": 0,
    }
    assert await page.evaluate("violations") == []
    return text


@pytest.mark.slow
@pytest.mark.asyncio
async def test_fault_V04_fifty_payloads_in_every_field_are_text():
    """Whatever stands in any field of a queue, worker, child, stall or job is read, and does nothing;
    the policy of the page has nothing to refuse.
    """
    assert len(PAYLOADS) == len(set(PAYLOADS)) == 50
    board = Dashboard(HostileSource(), auth=None, actions=True, every=0.2)
    async with serving(board) as where, browsing() as (page, seen):
        await page.add_init_script(VIOLATIONS)
        await page.goto(where)
        await page.locator("#stalls tbody tr").nth(49).wait_for()
        text = await unharmed(page)
        missing = [one for one in PAYLOADS if text.count(shown(one)) < 5]
        assert (
            missing == []
        )  # its name and kind, the failure and its error, the stall and its place
        await page.get_by_role("button", name="Resume").first.click()
        await page.locator("#toast").wait_for()
        await unharmed(page)
        refused, _ = seen.complaints  # there can be no queue of that name
        assert refused.startswith("422 POST")
        seen.complaints.clear()
        await page.goto(f"{where}/#/workers")
        await page.locator("#children tbody tr").nth(49).wait_for()
        text = await unharmed(page)
        assert [one for one in PAYLOADS if text.count(shown(one)) < 4] == []
        await page.goto(f"{where}/#/jobs")
        await page.locator("#jobs tbody tr").nth(49).wait_for()
        text = await unharmed(page)
        assert [one for one in PAYLOADS if text.count(shown(one)) < 4] == []
        for number, one in enumerate(PAYLOADS):
            await page.goto(f"{where}/#/job/{quote(f'job#{number}', safe='')}")
            await page.wait_for_function(
                "one => document.title.startsWith(one)", arg=f"job#{number}"
            )
            await page.locator("#job .id", has_text=f"#{number}").wait_for()
            text = await unharmed(page)
            assert text.count(shown(one)) >= 20, one
        assert seen.complaints == []
        assert all(one.startswith((where, "data:image")) for one in seen.requests)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_fault_V04_the_policy_is_what_would_stop_a_script():
    """The last line of defence holds by itself: what is forced into the page as markup does not run."""
    board = Dashboard(HostileSource(), auth=None)
    async with serving(board) as where, browsing() as (page, _):
        await page.add_init_script(VIOLATIONS)
        await page.goto(where)
        await page.evaluate(
            "html => { document.getElementById('job').innerHTML = html; }",
            "<img src=x onerror='window.pwned=1'><p style='color:red'>x</p>",
        )
        await page.wait_for_function("violations.length >= 2")
        assert await page.evaluate("window.pwned ?? null") is None
        assert {"script-src-attr", "style-src-attr"} <= set(await page.evaluate("violations"))


@pytest.mark.slow
@pytest.mark.asyncio
async def test_fault_V06_another_name_for_this_machine_is_refused():
    """A name whose DNS was turned to loopback meanwhile (rebinding) gets nothing, in a real browser."""
    board = Dashboard(HostileSource(), auth=None, actions=True)
    rule = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    async with serving(board) as where, browsing(rule) as (page, _):
        port = where.rpartition(":")[2]
        answer = await page.goto(f"http://evil.example:{port}/")
        assert answer.status == 403
        answer = await page.goto(f"http://evil.example:{port}/api/overview")
        assert answer.status == 403
        assert "queues" not in await answer.text()


FOREIGN = """async (target) => {
    const outcomes = [];
    const body = JSON.stringify({action: "pause", target: "default"});
    for (const options of [
        {method: "POST", body, mode: "no-cors"},
        {method: "POST", body, headers: {"Content-Type": "application/json"}},
        {method: "POST", body, headers: {"Content-Type": "application/json"}, credentials: "include"},
        {method: "GET"},
        {method: "GET", mode: "no-cors"},
        {method: "DELETE"},
    ]) {
        for (const path of ["api/act", "api/overview", "api/live", "api/jobs"]) {
            try {
                const answer = await fetch(target + path, options);
                outcomes.push(answer.type === "opaque" ? "opaque" : await answer.text());
            } catch (error) {
                outcomes.push("refused");
            }
        }
    }
    return outcomes;
}"""

FORM = """<!doctype html><form id=f method=post enctype=text/plain action="TARGET">
<input name='{"action":"pause","target":"default","x":"' value='"}'></form><script>f.submit()</script>"""


@pytest.mark.slow
@pytest.mark.asyncio
async def test_fault_V07_a_page_of_another_site_changes_and_learns_nothing():
    """Neither fetch nor a form from elsewhere, with or without CORS, gets anything done or read; the
    same pages of ours do. The browser itself says where a request comes from.
    """
    source = HostileSource()
    board = Dashboard(source, auth=None, actions=True)

    async def evil(request):
        return HTMLResponse(FORM.replace("TARGET", request.query_params.get("to", "")))

    elsewhere = Starlette(
        routes=[Route("/form", evil), Route("/", lambda _: PlainTextResponse("hi"))]
    )
    async with serving(board) as where, serving(elsewhere) as other, browsing() as (page, _):
        other = other.replace("127.0.0.1", "localhost")
        await page.goto(other)
        outcomes = await page.evaluate(FOREIGN, f"{where}/")
        assert set(outcomes) <= {"refused", "opaque"}
        answered = []
        page.on("response", lambda answer: answered.append((answer.request.method, answer.status)))
        await page.goto(f"{other}/form?to={quote(f'{where}/api/act', safe='')}")
        await page.wait_for_url(f"{where}/api/act")
        assert ("POST", 403) in answered
        assert source.actions == []
        await page.goto(where)
        said = await page.evaluate(
            """() => fetch("api/act", {method: "POST", headers: {"Content-Type": "application/json"},
            body: JSON.stringify({action: "pause", target: "default"})}).then((one) => one.status)"""
        )
        assert said == 200
        assert [one.verb for one in source.actions] == ["pause"]


PATHS = [
    "/../../../../etc/passwd",
    "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/..%2f..%2f..%2fetc/passwd",
    "/..%5c..%5c..%5cetc%5cpasswd",
    "/%252e%252e%252fetc%252fpasswd",
    "/....//....//etc/passwd",
    "//etc/passwd",
    "/etc/passwd",
    "/./app.py",
    "/../app.py",
    "/page/app.js",
    "/app.js/../../app.py",
    "/app.js%00.py",
    "/app.js/",
    "/APP.JS",
    "/style.css;x",
    "/index.html",
    "/file:///etc/passwd",
    "/%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd",
    "/__init__.py",
    "/api/../data.py",
    "/.git/config",
]


async def raw(where, path):
    """Ask for a path exactly as it is written, which no client library would; returns all that comes."""
    host, _, port = where.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
    )
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.asyncio
async def test_fault_V17_no_path_leads_out_of_the_table_of_files():
    """There is a fixed table: what is not in it is not there, however it is written."""
    board = Dashboard(HostileSource(), auth=None)
    async with serving(board) as where:
        for path in PATHS:
            answer = await raw(where, path)
            assert answer.split(b" ", 2)[1] in (b"400", b"404", b"414"), path
            assert b"root:" not in answer
            assert b"import " not in answer
        for path in ASSETS:
            answer = await raw(where, path)
            assert answer.startswith(b"HTTP/1.1 200"), path
            assert b"content-security-policy: default-src 'none'" in answer


@pytest.mark.asyncio
async def test_fault_V12_nothing_in_a_document_or_a_log_line_can_repaint_or_reorder(caplog):
    """Controls, escapes, marks of direction and of no width are escaped in all that is sent to the page,
    tracebacks and what was logged keep their lines alone; and an action cannot forge a line of the log.
    """
    source = HostileSource()
    board = Dashboard(source, auth=None, actions=True)
    for path, query in (
        ("/api/overview", b""),
        ("/api/jobs", b""),
        *(("/api/job", f"id=x%23{number}".encode()) for number in range(len(PAYLOADS))),
    ):
        talk = Conversation(path)
        talk.scope["query_string"] = query
        await board(talk.scope, talk.receive, talk.send)
        assert talk.status == 200
        texts = list(_texts(json.loads(talk.body)))
        assert texts
        for name, text in texts:
            lined = name in ("traceback", "logged")
            left = text.translate({ord("\n"): None, ord("\t"): None}) if lined else text
            assert left.isprintable(), (name, text)
    body = json.dumps({"action": "cancel", "target": "x\nINFO forged"}).encode()
    talk = Conversation(
        "/api/act", "POST", origin="http://localhost", content_type="application/json"
    )
    talk.scope["headers"] += [(b"sec-fetch-site", b"same-origin")]
    talk.receive = _body(body)
    with caplog.at_level(logging.INFO):
        await board(talk.scope, talk.receive, talk.send)
    assert talk.status == 422
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert source.actions == []


def _body(body):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _texts(value, name=""):
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield "a name", key
            yield from _texts(one, key)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, name)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_fault_O06_a_slow_page_misses_pictures_and_says_how_many():
    """Few pictures wait for a client; of more the oldest is dropped, and the page shows the count."""
    board = Dashboard(HostileSource(), auth=None)

    async def hurried(feed):
        picture = await board.ticker.picture()
        for _ in range(10):
            feed.put(picture, "picture")
        await asyncio.Event().wait()

    board.ticker.follow = hurried
    async with serving(board) as where, browsing() as (page, _):
        await page.goto(where)
        await page.get_by_text(
            "6 updates were left out: this page was too slow for them"
        ).wait_for()


@pytest.mark.asyncio
async def test_fault_O06_a_client_that_stops_reading_costs_four_pictures():
    """Its feed holds four and no more however long it sleeps; others go on, and are told of it."""
    async with Supervisor(1) as supervisor:
        board = supervisor.dashboard(auth=None, every=0.001)
        slow, quick = Conversation("/api/live"), Conversation("/api/live")
        tasks = [
            asyncio.create_task(board(one.scope, one.receive, one.send)) for one in (slow, quick)
        ]
        await slow.until(lambda: len(slow.events) >= 1)
        slow.reads.clear()
        there = len(quick.events)
        await quick.until(lambda: len(quick.events) >= there + 20)
        slow.reads.set()
        await slow.until(lambda: any(name == "dropped" for name, _ in slow.events))
        told = next(data["dropped"] for name, data in slow.events if name == "dropped")
        assert told >= 10
        slow.leave()
        await tasks[0]
        there = len(quick.events)
        await quick.until(lambda: len(quick.events) > there + 1)
        assert quick.events[-1][1]["streams"]["dropped"] >= told
        assert quick.events[-1][1]["streams"]["open"] == 1
        quick.leave()
        await tasks[1]
