"""What a page of another site can do to an HTTP face that nobody guards, in a real browser: nothing."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from playwright.async_api import Page, async_playwright
from starlette.responses import HTMLResponse

from asyncworkers import Supervisor
from asyncworkers.http import EventStreams, JobsApp

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

ATTACKS = """
async (target) => {
  const said = {};
  const attempt = async (name, act) => {
    try { said[name] = await act(); } catch (error) { said[name] = "refused"; }
  };
  const post = (type, body, more) => fetch(target + "/submit/nothing",
    {method: "POST", headers: type ? {"Content-Type": type} : {}, body, ...more});
  await attempt("json", async () => (await post("application/json", "{}")).status);
  await attempt("plain", async () => (await post("text/plain", "{}")).status);
  await attempt("no-cors", async () => (await post("text/plain", "{}", {mode: "no-cors"})).type);
  await attempt("beacon", async () => navigator.sendBeacon(target + "/submit/nothing", "{}"));
  await attempt("read", async () => await (await fetch(target + "/")).text());
  await attempt("script", () => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.onload = () => resolve("loaded"); script.onerror = reject;
    script.src = target + "/openapi.json"; document.body.append(script);
  }));
  await attempt("stream", () => new Promise((resolve, reject) => {
    const stream = new EventSource(target + "/JOB/events");
    stream.onopen = () => resolve("open"); stream.onerror = () => { stream.close(); reject(); };
  }));
  await attempt("form", () => new Promise((resolve) => {
    const frame = document.createElement("iframe");
    frame.name = "frame"; document.body.append(frame);
    const form = document.createElement("form");
    form.method = "POST"; form.action = target + "/submit/nothing"; form.target = "frame";
    form.enctype = "text/plain"; document.body.append(form);
    frame.onload = () => resolve("sent"); form.submit();
  }));
  return said;
}
"""


async def nothing() -> None:
    """Do nothing."""


async def gated(gate: bool = True) -> None:
    """Go on until it is cancelled."""
    await asyncio.Event().wait()


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[int]:
    """Serve an app on loopback; yields the port."""
    config = uvicorn.Config(app, port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not task.done(), task.result()
            await asyncio.sleep(0.005)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def browsing() -> AsyncIterator[Page]:
    """A page of a new browser, to which evil.example is this machine."""
    names = [os.environ.get("ASYNCWORKERS_CHROMIUM", ""), *BROWSERS]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no Chromium here")
    arguments = [
        *("--no-sandbox", "--disable-background-networking", "--disable-component-update"),
        *("--no-first-run", "--disable-dev-shm-usage"),
        "--host-resolver-rules=MAP evil.example 127.0.0.1",
    ]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=arguments)
        try:
            yield await browser.new_page()
        finally:
            await browser.close()


@pytest.mark.parametrize("site", ["localhost", "127.0.0.1", "evil.example"])
async def test_fault_V07_a_page_of_another_site_can_do_nothing(site: str) -> None:
    """By fetch, beacon, script, stream, frame and form: no job is made, nothing is read or held."""
    async with Supervisor() as supervisor:
        streams = EventStreams()
        jobs = JobsApp(supervisor, [nothing, gated], streams=streams)
        page_of_theirs = HTMLResponse("<!doctype html><title>evil</title><body>")
        async with serving(jobs) as port, serving(page_of_theirs) as theirs, browsing() as page:
            target = f"http://127.0.0.1:{port}"
            ours = await page.goto(f"{target}/openapi.json")
            assert ours is not None
            assert ours.status == 200  # a person may look: there is something to be attacked
            made = await page.evaluate(
                "async () => (await (await fetch('/submit/gated', {method: 'POST', body: '{}',"
                " headers: {'Content-Type': 'application/json'}})).json()).id"
            )
            assert supervisor.stats().queues["default"].submitted == 1
            await page.goto(f"http://{site}:{theirs}/")
            said = await page.evaluate(ATTACKS.replace("JOB", made), target)
            assert said.pop("no-cors") in ("opaque", "refused")  # sent, and refused there
            assert said.pop("beacon") in (True, False)
            assert said.pop("form") == "sent"
            assert set(said.values()) == {"refused"}, said
            assert supervisor.stats().queues["default"].submitted == 1
            assert (streams.open, streams.refused) == (0, 0)
        supervisor.cancel_all()


async def test_fault_V06_a_name_that_was_pointed_here_is_refused() -> None:
    """To the browser the page and the face are one site then; the face knows its names: 403."""
    async with Supervisor() as supervisor:
        jobs = JobsApp(supervisor, [nothing])
        async with serving(jobs) as port, browsing() as page:
            answer = await page.goto(f"http://evil.example:{port}/openapi.json")
            assert answer is not None
            assert answer.status == 403
            status = await page.evaluate(
                "async () => (await fetch('/submit/nothing', {method: 'POST', body: '{}',"
                " headers: {'Content-Type': 'application/json'}})).status"
            )
            assert status == 403
        assert supervisor.stats().queues["default"].submitted == 0
