"""A real browser before a real server: Chromium, driven by playwright, and uvicorn in the test's own loop."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

ARGUMENTS = [
    *("--no-sandbox", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--disable-quic", "--disable-dev-shm-usage"),
]
PATIENCE = 30_000
"""Milliseconds for which a page is waited for: the machine may be busy with other things."""


def chromium() -> str:
    """The browser of this machine; without one the test is skipped, but for CI, where it fails."""
    named = os.environ.get("ASYNCWORKERS_CHROMIUM")
    names = [named] if named else ["chromium", "chromium-browser", "google-chrome"]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        missing = (
            "no Chromium was found: install Debian's package chromium, see scripts/find-browser"
        )
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@asynccontextmanager
async def serving(app: Any, **settings: Any) -> AsyncIterator[str]:
    """Serve an ASGI app on loopback with uvicorn; yields where it is."""
    config = uvicorn.Config(
        app,
        port=0,
        log_level="warning",
        timeout_graceful_shutdown=5,
        **{"lifespan": "off", **settings},
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not task.done(), task.result()
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


class Seen:
    """What a browser said that nobody asked for: errors, refused policies, requests to elsewhere."""

    def __init__(self, context: BrowserContext) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        context.on("console", self._said)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("dialog", self._dialog)
        context.on("response", self._answered)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _answered(self, answer: Any) -> None:
        if answer.status >= 400:
            self.complaints.append(f"{answer.status} {answer.request.method} {answer.url}")

    async def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"a dialog: {dialog.message}")
        await dialog.dismiss()


@asynccontextmanager
async def browsing(*arguments: str, **options: Any) -> AsyncIterator[tuple[Page, Seen]]:
    """A page of a new browser, and what it says."""
    path = chromium()
    async with async_playwright() as playwright:
        browser: Browser = await playwright.chromium.launch(
            executable_path=path, args=[*ARGUMENTS, *arguments]
        )
        try:
            context = await browser.new_context(**{"reduced_motion": "reduce", **options})
            context.set_default_timeout(PATIENCE)
            seen = Seen(context)
            yield await context.new_page(), seen
        finally:
            await browser.close()
