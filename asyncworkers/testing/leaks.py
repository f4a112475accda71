"""Checks that code leaves nothing behind: tasks, threads, children, files, memory, warnings.

What is looked at, and where it is to be had:

- tasks of the running event loop: with `async with` only, for a loop that has stopped may have
  cancelled its tasks already;
- threads; on every platform;
- child processes, zombies included, and open file descriptors: on Linux, where /proc tells;
- shared memory, mapped or left in /dev/shm: on Linux;
- ResourceWarnings, and RuntimeWarnings about coroutines that were never awaited.

What ends by itself a moment later is no leak: the check joins threads and waits for children, at
most `grace` seconds in all, and only if there is anything left to wait for.
"""

from __future__ import annotations

import asyncio
import fnmatch
import gc
import time
import warnings
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from asyncworkers.testing import _tasks
from asyncworkers.testing._resources import Resources

__all__ = ["LeakCheck", "LeakError", "no_leaks"]

TURNS = 10
"""Turns of the loop that tasks get to end: a finished task's followers need one or two."""

SLICE = 0.01
"""Seconds to wait for one thread or child before looking at the others, and the loop, again."""


class LeakError(AssertionError):
    """Something was left behind; the message names each thing."""


def no_leaks(
    *,
    ignore: Iterable[str] = (),
    grace: float = 1.0,
    tasks: bool = True,
    resources: bool = True,
) -> LeakCheck:
    """Return a context manager, for `with` and `async with`, that raises LeakError on leaks.

        async with no_leaks():
            await main()

    - `ignore`: patterns as for `fnmatch`, matched against the descriptions in the message, such as
      `"thread 'AnyIO worker thread'*"`.
    - `grace`: seconds that threads and children get to end.
    - `tasks`, `resources`: whether to look at tasks, and at everything else.
    """
    return LeakCheck(ignore=ignore, grace=grace, tasks=tasks, resources=resources)


class LeakCheck:
    """What `no_leaks()` returns: compares what there is at the end of a block with its beginning.

    If the block raises, that is what you get to see: nothing is checked then.
    """

    def __init__(
        self,
        *,
        ignore: Iterable[str] = (),
        grace: float = 1.0,
        tasks: bool = True,
        resources: bool = True,
    ) -> None:
        self._ignore = tuple(ignore)
        self._grace = grace
        self._look_at_tasks = tasks
        self._look_at_resources = resources
        self._tasks_before: set[asyncio.Task[Any]] = set()
        self._before = Resources.nothing()
        self._warnings: warnings.catch_warnings[Any] | None = None
        self._recorded: list[warnings.WarningMessage] = []
        self._watching = False

    def __repr__(self) -> str:
        looks = {"tasks": self._look_at_tasks, "resources": self._look_at_resources}
        watched = " and ".join(name for name, wanted in looks.items() if wanted) or "nothing"
        return f"<LeakCheck of {watched}, {'watching' if self._watching else 'not watching'}>"

    def __enter__(self) -> Self:
        self._watching = True
        if self._look_at_resources:
            self._warnings = warnings.catch_warnings(record=True)
            self._recorded = self._warnings.__enter__()
            warnings.simplefilter("always", ResourceWarning)
            warnings.filterwarnings("always", r"coroutine .* was never awaited", RuntimeWarning)
            self._before = Resources.now()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            leaks: list[str] = []
            if error is None:
                for _ in self._waiting_for_resources():
                    pass
                leaks = self._resources_left()
        finally:
            leaked = self._stop_recording()
        self._report([*leaks, *leaked] if error is None else [])

    async def __aenter__(self) -> Self:
        self.__enter__()
        self._tasks_before = _tasks_of_this_loop()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        leaks: list[str] = []
        try:
            if error is None:
                leaks = await self._wait_for_tasks()
                waiting = self._waiting_for_resources()
                for _ in waiting:
                    await asyncio.sleep(0)  # they may need the loop to end
                leaks += self._resources_left()
        finally:
            leaked = self._stop_recording()
        self._report([*leaks, *leaked] if error is None else [])

    async def _wait_for_tasks(self) -> list[str]:
        if not self._look_at_tasks:
            return []
        for _ in range(TURNS):
            if not _tasks_of_this_loop() - self._tasks_before:
                break
            await asyncio.sleep(0)
        left = _tasks_of_this_loop() - self._tasks_before
        return [f"task {task}" for task in _tasks.describe_all(left)]

    def _waiting_for_resources(self) -> Iterator[bool]:
        """Wait for what is left to end, a little at each step, until it is gone or time is up."""
        if not self._look_at_resources:
            return
        end = time.monotonic() + self._grace
        turns = 0
        gc.collect(1)  # what the block made and dropped is young
        while turns < TURNS and time.monotonic() < end:
            left = Resources.now().beyond(self._before)
            if not self._wanted(left.descriptions()):
                return
            gc.collect()
            if not left.wait(SLICE):
                turns += 1
            yield True

    def _resources_left(self) -> list[str]:
        if not self._look_at_resources:
            return []
        return list(Resources.now().beyond(self._before).descriptions())

    def _stop_recording(self) -> list[str]:
        """Treat warnings as before; return those that tell of leaks, issue the others again."""
        self._watching = False
        if self._warnings is None:
            return []
        recorded = list(self._recorded)
        self._warnings.__exit__(None, None, None)
        self._warnings = None
        found: list[str] = []
        for warning in recorded:
            if _tells_of_a_leak(warning):
                found.append(f"warning {warning.message} ({warning.filename}:{warning.lineno})")
            else:
                warnings.warn_explicit(
                    warning.message,
                    warning.category,
                    warning.filename,
                    warning.lineno,
                    source=warning.source,
                )
        return found

    def _wanted(self, descriptions: Iterable[str]) -> list[str]:
        return [
            text
            for text in descriptions
            if not any(fnmatch.fnmatchcase(text, pattern) for pattern in self._ignore)
        ]

    def _report(self, leaks: list[str]) -> None:
        wanted = self._wanted(leaks)
        if wanted:
            raise LeakError(f"{len(wanted)} leaked:" + "".join(f"\n- {leak}" for leak in wanted))


def _tells_of_a_leak(warning: warnings.WarningMessage) -> bool:
    if issubclass(warning.category, ResourceWarning):
        return True
    return issubclass(warning.category, RuntimeWarning) and "never awaited" in str(warning.message)


def _tasks_of_this_loop() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
