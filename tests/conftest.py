"""Every asynchronous test runs once per event loop: stock asyncio, uvloop, and eager on request.

`ASYNCWORKERS_EAGER=1` adds stock asyncio with the eager task factory on Python 3.12 and later
(uvloop does not support that factory). Tests marked `slow` run on stock asyncio only. A test that
is about one kind of loop says so: `@pytest.mark.asyncio(loop_factories=["uvloop"])`.

Every test begins in an empty context, as a program does: jobs take another path if their submitter
has context variables, and pytest itself leaves one behind, of the decimal module.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextvars import Context
from linecache import getlines
from typing import cast

import pytest

from asyncworkers import Supervisor

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def eager_event_loop() -> asyncio.AbstractEventLoop:
    """Make a stock loop whose tasks run their first step at once, as some users set it up."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def loop_factories() -> dict[str, LoopFactory]:
    """Return the loops of this run by name."""
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if sys.platform != "win32":
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    if sys.version_info >= (3, 12) and os.environ.get("ASYNCWORKERS_EAGER") == "1":
        factories["eager"] = eager_event_loop
    return factories


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, LoopFactory]:
    """Tell pytest-asyncio on which loops to run `item`."""
    if item.get_closest_marker("slow"):
        return {"asyncio": asyncio.new_event_loop}
    return loop_factories()


@pytest.fixture(autouse=True)
def patient_watchdog(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a crowded machine anything may stall for a moment: only tests about stalls hear of that."""
    about_stalls = any("LoopStalled" in line for line in getlines(str(request.path)))
    if request.node.get_closest_marker("asyncio") and not about_stalls:
        defaults = cast("dict[str, object]", Supervisor.__init__.__kwdefaults__)
        monkeypatch.setitem(defaults, "stall", 60.0)


def pytest_configure() -> None:
    """Heed SIGINT also in a background job, where shells have it ignored: children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Have the test run in an empty context."""
    run_test = item.runtest
    item.runtest = lambda: Context().run(run_test)  # type: ignore[method-assign]
