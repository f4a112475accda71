"""The pytest plugin: virtual time by a mark, and the testing tools as fixtures.

It is loaded by pytest wherever asyncworkers is installed, and does nothing to tests that do not
ask for it. Asynchronous tests are run by pytest-asyncio 1.4 or later:

    @pytest.mark.asyncio
    @pytest.mark.virtual_time
    async def test_gives_up_after_an_hour(event_recorder): ...

- `virtual_time` (mark): run the test, and its asynchronous fixtures, on a `VirtualLoop`.
- `event_recorder` (fixture): a new `EventRecorder`.
- `sim` (fixture): `sim(main, seeds=100)` runs a program once for each seed and says which seed
  failed; `pytest --sim-seed=17` repeats that one alone.
- `leak_check` (fixture): the test fails if it leaves a task, thread, child, file, shared memory or
  a warning behind. `asyncworkers_leak_check = true` in the configuration asks for it in every
  test, and the mark `allow_leaks` excuses one.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import pytest

from asyncworkers.testing.leaks import no_leaks
from asyncworkers.testing.recorder import EventRecorder
from asyncworkers.testing.simulate import SimResult, simulate
from asyncworkers.testing.virtual import VirtualLoop

__all__ = ["Simulate"]

T = TypeVar("T")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--sim-seed` and the option that checks every test for leaks."""
    group = parser.getgroup("asyncworkers")
    group.addoption(
        "--sim-seed",
        type=int,
        default=None,
        metavar="SEED",
        help="run simulations of the `sim` fixture with this seed only",
    )
    parser.addini(
        "asyncworkers_leak_check",
        type="bool",
        default=False,
        help="check every test for leaked tasks, threads, children, files and shared memory",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    config.addinivalue_line(
        "markers", "virtual_time: run this asynchronous test on a loop whose time jumps when idle"
    )
    config.addinivalue_line("markers", "allow_leaks: do not check this test for leaks")
    if config.getini("asyncworkers_leak_check"):
        config.pluginmanager.register(_EveryTest(), "asyncworkers-leak-check")


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Generator[None, Mapping[str, LoopFactory] | None, Mapping[str, LoopFactory] | None]:
    """Answer pytest-asyncio, which asks on which loops to run a test.

    Once anybody answers it wants an answer for every test, so where nobody else has one it gets
    the very loop that it would have made by itself.
    """
    chosen = yield
    if item.get_closest_marker("virtual_time") is not None:
        return {"virtual": VirtualLoop}
    return chosen or {"asyncio": asyncio.new_event_loop}


class Simulate:
    """What the `sim` fixture is: runs a program on a SimLoop, once for each seed."""

    def __init__(self, only: int | None) -> None:
        self._only = only

    def __call__(
        self,
        main: Callable[[], Coroutine[Any, Any, T]],
        *,
        seeds: int | Iterable[int] = 1,
        **options: Any,
    ) -> list[SimResult[T]]:
        """Run `main()` for seeds 0, 1, ... (or those given); options are those of `simulate`.

        Returns how each run went. Raises what the first failing run raises, with notes on how to
        repeat it. With `--sim-seed` on the command line only that seed is run.
        """
        if self._only is not None:
            seeds = (self._only,)
        elif isinstance(seeds, int):
            seeds = range(seeds)
        results: list[SimResult[T]] = []
        for seed in seeds:
            try:
                results.append(simulate(main, seed=seed, **options))
            except BaseException as error:
                error.add_note(f"repeat this run with: pytest --sim-seed={seed}")
                raise
        return results


@pytest.fixture
def sim(request: pytest.FixtureRequest) -> Simulate:
    """`sim(main, seeds=100)`: run an async program once for each seed, deterministically."""
    return Simulate(request.config.getoption("--sim-seed"))


@pytest.fixture
def event_recorder() -> EventRecorder:
    """A new EventRecorder, for `Supervisor(listeners=[event_recorder])`."""
    return EventRecorder()


@pytest.fixture
def leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test if it leaves anything behind; the mark `allow_leaks` excuses it."""
    if request.node.get_closest_marker("allow_leaks") is not None:
        yield
        return
    for name in request.fixturenames:
        # A loop that several tests share opens its files in the first of them, and keeps them.
        if name.endswith("_scoped_runner") and not name.startswith("_function"):
            request.getfixturevalue(name)
    _open_what_uvloop_keeps()
    with no_leaks(tasks=False):
        yield


@functools.cache
def _open_what_uvloop_keeps() -> None:
    """The first of its loops opens a pipe for all of them, which stays open for good: `run` makes
    one where uvloop is installed.
    """
    with suppress(ImportError):
        import uvloop

        uvloop.new_event_loop().close()


class _EveryTest:
    """Asks for the leak check in every test. A fixture of this kind comes before the test's own."""

    @pytest.fixture(autouse=True)
    def _leak_check(self, leak_check: None) -> None:
        """Check this test too."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Look for leaked tasks where they can be seen: at the end of the test, in its own loop."""
    if "leak_check" not in getattr(item, "fixturenames", ()):
        return
    if item.get_closest_marker("allow_leaks") is not None:
        return
    test: Any = item
    function = test.obj
    if inspect.iscoroutinefunction(function) and not _has_open_fixtures(item):

        @functools.wraps(function)
        async def checked(*args: Any, **kwargs: Any) -> None:
            async with no_leaks(resources=False):
                await function(*args, **kwargs)

        test.obj = checked


def _has_open_fixtures(item: pytest.Item) -> bool:
    """Whether an asynchronous fixture is still open when the test ends: tasks may be that one's."""
    fixtures: Any = getattr(item, "_fixtureinfo", None)
    known: dict[str, Any] = {} if fixtures is None else fixtures.name2fixturedefs
    return any(
        inspect.isasyncgenfunction(inspect.unwrap(definitions[-1].func))
        for definitions in known.values()
    )
