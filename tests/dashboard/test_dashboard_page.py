"""The page in a real browser: what it shows, that it is live, what it lets one do, and how.

A browser takes seconds, and sees nothing of the kind of loop behind the server. One test runs on
every kind, of a page that is live.
"""

import asyncio
import logging
from contextlib import asynccontextmanager
from importlib.resources import files
from types import SimpleNamespace

import pytest
from browser import browsing, serving
from starlette.applications import Starlette

from asyncworkers import Queue, Retry, Supervisor, current_job, job
from asyncworkers.dashboard import Dashboard, StoreSource
from asyncworkers.dashboard.app import ASSETS
from asyncworkers.http import Token
from asyncworkers.store.protocol import Settlement, Submission, Want, error_text
from asyncworkers.store.sqlite import SqliteStore

LOG = logging.getLogger("tests.dashboard.page")


@job(queue="shop", tags=("orders",))
async def charge(order: int, card_token: str) -> None:
    """Fails."""
    raise ValueError(f"order {order} was declined")


@job(queue="shop")
async def wait_for(gate: asyncio.Event, what: str) -> str:
    """Runs until it may end, and says how far it is."""
    current_job().report(3, 10, "half way")
    await gate.wait()
    return what


@job(retry=Retry(attempts=2, on=OSError, delay=3600))
async def connect() -> None:
    """Is tried again in an hour."""
    raise OSError("no route")


@asynccontextmanager
async def shop(**settings):
    """A supervisor with a job that runs, one that waits, one that failed and one to be retried, and
    a server with its dashboard; what runs ends when `gate` is set.
    """
    gate = asyncio.Event()
    supervisor = Supervisor(1, queues=[Queue("shop", 1)], name="shop")
    app = Starlette()
    board = supervisor.dashboard(**{"auth": None, "every": 0.1, **settings})
    app.mount("/dashboard", board)
    async with supervisor:
        failed = await supervisor.submit(charge, 17, card_token="secret-4711")
        await failed.wait()
        retried = await supervisor.submit(connect)
        running = await supervisor.submit(wait_for, gate, "first")
        waiting = await supervisor.submit(wait_for, gate, "second")
        async with serving(app) as where:
            try:
                yield SimpleNamespace(
                    supervisor=supervisor,
                    board=board,
                    where=f"{where}/dashboard/",
                    root=where,
                    gate=gate,
                    failed=failed,
                    retried=retried,
                    running=running,
                    waiting=waiting,
                )
            finally:
                supervisor.cancel_all("the test is over")


def queue(page, name="shop"):
    """The row of a queue."""
    return page.locator(f'#queues tr[data-key="{name}"]')


async def is_live(page):
    """Wait until the page says that it is."""
    await page.locator('[data-live="on"]').wait_for()


@pytest.mark.asyncio
async def test_the_overview_shows_every_queue_and_changes_by_itself():
    """Figures of queues, the last failures; and what happens is seen without a reload, on one stream."""
    async with shop() as at, browsing() as (page, seen):
        await page.goto(f"{at.root}/dashboard")  # without its slash it finds its files all the same
        await is_live(page)
        cells = await queue(page).locator("td").all_inner_texts()
        assert cells[1].strip() == "1 of 1"
        assert cells[2].strip() == "1"
        assert "charge" in await page.locator("#failures").inner_text()
        assert "ValueError: order 17 was declined" in await page.locator("#failures").inner_text()
        assert await page.locator("#name").inner_text() == "shop"
        at.gate.set()
        await queue(page).locator("td", has_text="0 of 1").wait_for()
        assert at.board.streams.open == 1
        live = [one for one in seen.requests if one.endswith("/api/live")]
        assert len(live) == 1
        assert seen.complaints == []


@pytest.mark.slow
@pytest.mark.asyncio
async def test_jobs_are_listed_filtered_and_turned_over():
    """By state, queue, function and tag, which stand in the address; page by page."""
    async with shop() as at, browsing() as (page, seen):
        await page.goto(f"{at.where}#/jobs")
        rows = page.locator("#jobs tbody tr")
        await rows.nth(3).wait_for()
        names = await rows.locator("th a").all_inner_texts()
        assert sorted(names) == ["charge", "connect", "wait_for", "wait_for"]
        await page.get_by_label("State").select_option("failed")
        await page.locator('#jobs tbody tr:only-child a:text("charge")').wait_for()
        assert page.url.endswith("#/jobs?state=failed")
        await page.get_by_role("button", name="All").click()
        await rows.nth(3).wait_for()
        await page.get_by_label("Function").fill("connect")
        await page.keyboard.press("Enter")
        await page.locator('#jobs tbody tr:only-child a:text("connect")').wait_for()
        await page.go_back()
        await rows.nth(3).wait_for()
        for number in range(60):
            at.supervisor.submit_nowait(wait_for, at.gate, str(number))
        await page.get_by_role("button", name="More").click()
        await page.get_by_text("Page 2", exact=True).wait_for()
        await page.get_by_role("button", name="Back").click()
        await page.get_by_text("Page 1", exact=True).wait_for()
        assert seen.complaints == []


@pytest.mark.slow
@pytest.mark.asyncio
async def test_one_job_with_all_there_is_to_know():
    """Arguments with secrets masked, attempts, traceback; why it waits; its end, when it comes."""
    async with shop() as at, browsing() as (page, seen):
        await page.goto(f"{at.where}#/job/{at.failed.id}")
        about = page.locator("#job")
        await about.get_by_role("heading", name="Error").wait_for()
        told = await about.inner_text()
        assert "ValueError: order 17 was declined" in told
        assert 'raise ValueError(f"order {order} was declined")' in told
        assert "card_token\n***" in told.replace("\n\n", "\n")
        assert "secret-4711" not in await page.content()
        await page.goto(f"{at.where}#/job/{at.waiting.id}")
        await about.get_by_text("the only worker of queue 'shop' is busy").wait_for()
        assert '"second"' in await about.inner_text()
        at.gate.set()
        await about.get_by_text("It has succeeded.").wait_for()
        await about.get_by_text("Succeeded").first.wait_for()
        assert seen.complaints == []


@pytest.mark.slow
@pytest.mark.asyncio
async def test_the_log_of_a_job_grows_before_ones_eyes():
    """Lines come below as they are said, and the ones before are left alone; what is not kept is told.
    Who has scrolled up to read stays there; the last words are shown though the job has ended.
    """
    says, lines = asyncio.Event(), iter(["first <b>", "second", *map(str, range(300))])

    @job(queue="talk")
    async def talk() -> None:
        while line := next(lines, None):
            await says.wait()
            LOG.warning(line, exc_info=line == "second")
            if line in ("first <b>", "second"):
                says.clear()

    async with shop() as at, browsing() as (page, seen):
        talking = await at.supervisor.submit(talk.options(queue="default"))
        await page.goto(f"{at.where}#/job/{talking.id}")
        about = page.locator("#job")
        await about.get_by_text("Nothing was logged that is known here.").wait_for()
        says.set()
        rows = about.locator(".log li")
        await about.get_by_text("first <b>", exact=True).wait_for()
        assert await rows.count() == 1
        await rows.first.evaluate("row => { row.dataset.seen = 'yes'; }")
        says.set()
        await about.get_by_text("second", exact=True).wait_for()
        assert await rows.first.get_attribute("data-seen") == "yes"
        assert "WARNING" in await rows.nth(1).inner_text()
        says.set()
        await talking
        await about.get_by_text("102 earlier records are not kept.").wait_for()
        assert await rows.count() == 200
        await rows.last.get_by_text("299", exact=True).wait_for()
        assert await rows.first.locator("pre").inner_text() == "100"
        box = about.get_by_role("region", name="Log")
        assert await box.evaluate("one => one.scrollTop > 0")
        assert seen.complaints == []


@pytest.mark.slow
@pytest.mark.asyncio
async def test_what_another_process_has_seen_is_said_to_be_unknown(tmp_path):
    """Of a stored job, as a store alone knows it: counts and the last attempt, and where to look."""
    store = SqliteStore(tmp_path / "jobs.db")
    await store.open({"send"})
    try:
        await store.submit([Submission("one", "mail", "send", "[[],{}]")])
        (lease,) = await store.lease([Want("mail", 1)])
        store.started(lease)
        await store.settle([Settlement.fail(lease, error_text("OSError", "no route"))])
        board = Dashboard(StoreSource(store, "jobs.db"), auth=None, every=0.1)
        async with serving(board) as where, browsing() as (page, seen):
            await page.goto(f"{where}#/job/one")
            about = page.locator("#job")
            await about.get_by_text("the dashboard of its supervisor shows it").wait_for()
            (attempt,) = await about.locator("table tbody tr").all_inner_texts()
            assert attempt.split("\t")[:2] == ["1", "failed"]
            assert "OSError: no route" in attempt
            assert seen.complaints == []
    finally:
        await store.close()


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_filter_that_makes_no_sense():
    """An address with a state that there is none of says so, and shows no jobs in place of those."""
    async with shop() as at, browsing() as (page, _):
        await page.goto(f"{at.where}#/jobs")
        await page.locator("#jobs tbody tr").first.wait_for()
        await page.goto(f"{at.where}#/jobs?state=gone")
        await page.get_by_text("state must be that of a job").wait_for()
        await page.get_by_text("There are no such jobs.").wait_for()


@pytest.mark.slow
@pytest.mark.asyncio
async def test_workers_and_how_far_they_are():
    """What runs now, for how long, and what it reports."""
    async with shop() as at, browsing() as (page, seen):
        await page.goto(f"{at.where}#/workers")
        row = page.locator("#workers tbody tr")
        await row.get_by_text("3 of 10, half way").wait_for()
        assert await row.get_by_role("link", name="wait_for").count() == 1
        assert seen.complaints == []


async def listens_to_the_announcer(page):
    """Keep all that a screen reader is told: the next message takes the place of the last one."""
    await page.evaluate(
        """() => {
            const announcer = document.querySelector("#announcer");
            window.told = [];
            new MutationObserver(() => window.told.push(announcer.textContent)).observe(
                announcer, {childList: true, characterData: true, subtree: true});
        }"""
    )


async def is_told(page, text):
    """Wait until a screen reader was told this."""
    async with asyncio.timeout(60):
        while not any(text in one for one in await page.evaluate("() => window.told")):
            await asyncio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_actions_by_keyboard_alone():
    """Pause, resume and resize a queue, cancel a job: with keys, each asked about and told."""
    async with shop(actions=True) as at, browsing() as (page, seen):
        await page.goto(at.where)
        await is_live(page)
        await listens_to_the_announcer(page)
        await page.get_by_role("button", name="Pause shop").focus()
        await page.keyboard.press("Enter")
        await page.get_by_text("Start no more jobs of queue shop?").wait_for()
        await page.keyboard.press("Escape")
        assert not at.supervisor.stats().queues["shop"].paused
        await page.keyboard.press("Enter")  # the focus is back where it was
        await page.get_by_role("button", name="Pause", exact=True).focus()
        await page.keyboard.press("Enter")
        await is_told(page, "Queue shop is paused.")
        assert at.supervisor.stats().queues["shop"].paused
        resume = page.get_by_role("button", name="Resume shop")
        await resume.focus()
        await page.keyboard.press("Enter")
        await is_told(page, "goes on")
        assert not at.supervisor.stats().queues["shop"].paused
        await page.get_by_role("button", name="Resize shop").focus()
        await page.keyboard.press("Enter")
        await page.get_by_label("Workers", exact=True).fill("3")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await queue(page).get_by_text("2 of 3").wait_for()
        await page.goto(f"{at.where}#/job/{at.retried.id}")
        await page.get_by_role("button", name="Cancel").focus()
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Cancel the job").focus()
        await page.keyboard.press("Enter")
        await page.locator("#job .state.cancelled").first.wait_for()
        assert at.retried.state == "cancelled"
        assert seen.complaints == []


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_question_asked_again_at_once_is_answered():
    """What is asked before the browser has told of the dialog's last closing waits for its own answer."""
    async with shop(actions=True) as at, browsing() as (page, seen):
        await page.goto(at.where)
        await is_live(page)
        await page.get_by_role("button", name="Pause shop").click()
        await page.get_by_role("button", name="Pause shop").evaluate(
            "one => { document.querySelector('#dialog').close(); one.click(); }"
        )
        await page.get_by_role("button", name="Pause", exact=True).click()
        await page.get_by_role("button", name="Resume shop").wait_for()
        assert at.supervisor.stats().queues["shop"].paused
        assert seen.complaints == []


@pytest.mark.slow
@pytest.mark.asyncio
async def test_without_actions_there_is_nothing_to_press():
    """Read-only is the default, in the page and behind it."""
    async with shop() as at, browsing() as (page, _):
        await page.goto(at.where)
        await is_live(page)
        assert await page.get_by_role("button", name="Pause shop").count() == 0
        status = await page.evaluate(
            """() => fetch("api/act", {method: "POST", headers: {"Content-Type": "application/json"},
            body: JSON.stringify({action: "pause", target: "shop"})}).then((one) => one.status)"""
        )
        assert status == 403
        assert not at.supervisor.stats().queues["shop"].paused


@pytest.mark.slow
@pytest.mark.asyncio
async def test_the_keyboard_reaches_everything_and_the_focus_stays():
    """The skip link comes first, pages take the focus, and updates leave it where it is."""
    async with shop(actions=True) as at, browsing() as (page, _):
        await page.goto(at.where)
        await is_live(page)
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "skip"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        await page.get_by_role("link", name="Jobs", exact=True).focus()
        await page.keyboard.press("Enter")
        await page.locator("#view-jobs").wait_for()
        assert await page.evaluate("document.activeElement.id") == "main"
        assert await page.locator('nav [aria-current="page"]').inner_text() == "Jobs"
        await page.go_back()
        button = page.get_by_role("button", name="Pause shop")
        await button.focus()
        at.gate.set()
        await queue(page).get_by_text("0 of 1").wait_for()
        assert await button.evaluate("one => one === document.activeElement")


@pytest.mark.slow
@pytest.mark.asyncio
async def test_sign_in_with_the_token_of_the_address_or_by_hand():
    """The token leaves the address at once, is exchanged for a cookie no script reads, and can be typed."""
    token = Token()
    async with shop(auth=token) as at, browsing() as (page, seen):
        await page.goto(token.url(at.where))
        await is_live(page)
        assert token.secret not in page.url
        assert await page.evaluate("document.cookie") == ""
        assert not any(token.secret in one.partition("#")[0] for one in seen.requests)
        assert not any(
            token.secret in value for value in await page.evaluate("Object.values(localStorage)")
        )
        await page.get_by_role("button", name="Sign out").click()
        field = page.get_by_label("Token")
        await field.fill("wrong")
        await page.keyboard.press("Enter")
        await page.get_by_role("alert").get_by_text("this is not the token").wait_for()
        await field.fill(token.secret)
        await page.keyboard.press("Enter")
        await is_live(page)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_the_address_with_the_token_works_in_a_tab_that_is_open_already():
    """Only what is behind the `#` changes then, so nothing is loaded by itself; the token leaves the
    address all the same, signed in or not.
    """
    token = Token()
    async with shop(auth=token) as at, browsing() as (page, _):
        await page.goto(at.where)
        await page.get_by_label("Token").wait_for()
        for _ in range(2):
            await page.goto(token.url(at.where))
            await page.wait_for_url(lambda url: url.endswith("#/"))
            await is_live(page)
            assert token.secret not in page.url


@pytest.mark.slow
@pytest.mark.asyncio
async def test_nothing_comes_from_elsewhere():
    """Every request goes to the server itself, and the page works where there is no other network."""
    async with shop() as at, browsing() as (page, seen):
        await page.context.route(
            "**",
            lambda route: (
                route.continue_() if route.request.url.startswith(at.root) else route.abort()
            ),
        )
        await page.goto(at.where)
        await is_live(page)
        await page.goto(f"{at.where}#/jobs")
        await page.locator("#jobs tbody tr").first.wait_for()
        assert all(one.startswith(at.where) for one in seen.requests)
        assert {
            one.removeprefix(at.where).partition("?")[0].partition("#")[0] for one in seen.requests
        } >= {"", "style.css", "app.js", "api/live", "api/jobs"}
        assert seen.complaints == []


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_accessible(scheme):
    """No rule of axe-core is broken, on any page, contrast included, in light and in dark."""
    from axe_playwright_python.async_playwright import Axe

    axe = Axe()
    async with shop(actions=True) as at, browsing(color_scheme=scheme) as (page, _):
        pages = {
            "": "#queues tbody tr",
            "#/jobs": "#jobs tbody tr",
            f"#/job/{at.failed.id}": "#job .traceback",
            "#/workers": "#workers tbody tr",
        }
        for address, what in pages.items():
            await page.goto(f"{at.where}{address}")
            await page.locator(what).first.wait_for()
            # A script of ours is what the policy of the page would refuse: it comes from the test.
            found = await axe.run(page)
            broken = [
                (one["id"], [node["html"] for node in one["nodes"]])
                for one in found.response["violations"]
            ]
            assert broken == [], address


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.parametrize("width", [320, 390])
async def test_it_fits_on_a_phone(width):
    """Nothing is wider than the screen, on any page, and figures have their names beside them."""
    options = {"viewport": {"width": width, "height": 700}, "has_touch": True}
    async with shop(actions=True) as at, browsing(**options) as (page, _):
        for address in ("", "#/jobs", f"#/job/{at.failed.id}", "#/workers"):
            await page.goto(f"{at.where}{address}")
            await page.locator("main table:visible").first.wait_for()
            wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, address
        await page.goto(at.where)
        await queue(page).wait_for()
        label = (
            await queue(page)
            .locator("td")
            .nth(2)
            .evaluate("cell => getComputedStyle(cell, '::before').content")
        )
        assert label == '"Waiting"'


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_server_that_goes_is_told_of():
    """The page says that it is not live any more, and comes back by itself."""
    async with browsing() as (page, _):
        async with shop() as at:
            await page.goto(at.where)
            await is_live(page)
        await page.locator('[data-live="off"]').wait_for()
        assert "cannot be reached" in await page.locator("#live-text").inner_text()


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_store_alone(tmp_path):
    """`StoreSource` shows all jobs of a store; failed ones are retried and waiting ones cancelled."""
    store = SqliteStore(tmp_path / "jobs.db")
    await store.open({"send"})
    try:
        arguments = '[["Ada"],{"password":"hunter2"}]'
        await store.submit([Submission("dead", "mail", "send", arguments)])
        (lease,) = await store.lease([Want("mail", 1)])
        store.started(lease)
        await store.settle([Settlement.fail(lease, error_text("OSError", "no route"))])
        await store.submit([Submission("later", "mail", "send", arguments, delay=3600)])
        board = Dashboard(StoreSource(store, "jobs.db"), auth=None, actions=True, every=0.1)
        async with serving(board) as where, browsing() as (page, seen):
            await page.goto(where)
            await queue(page, "mail").wait_for()
            await page.goto(f"{where}#/jobs")
            assert await page.locator("#jobs tbody tr").count() in (0, 2)
            await page.get_by_role("link", name="send", exact=True).nth(1).click()
            await page.locator("#job").get_by_text("OSError: no route").first.wait_for()
            assert "hunter2" not in await page.content()
            await page.get_by_role("button", name="Retry").click()
            await page.get_by_role("dialog").get_by_role("button", name="Retry").click()
            await page.locator("#job .state.queued").first.wait_for()
            await page.goto(f"{where}#/job/later")
            await page.get_by_role("button", name="Cancel").click()
            await page.get_by_role("button", name="Cancel the job").click()
            await page.locator("#job .state.cancelled").first.wait_for()
            records = await store.get(["dead", "later"])
            assert [str(one.state) for one in records] == ["queued", "cancelled"]
            assert seen.complaints == []
    finally:
        await store.close()


def test_the_page_has_exactly_its_files():
    """Every file that is served is there, none lies about unserved, and none holds markup in a string."""
    folder = files("asyncworkers.dashboard") / "page"
    names = {one.name for one in folder.iterdir()}
    assert names == {name for name, _ in ASSETS.values()}
    for name in names:
        text = (folder / name).read_text("utf-8")
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "style=",
            "onclick=",
        ):
            assert way not in text, f"{name} has {way}"
