"""A bridge that crosses nothing: a simulated loop runs blocking calls inline, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from asyncworkers import _checks
from asyncworkers.bridge.abandoning import AbandoningBridge, End
from asyncworkers.bridge.protocol import Work
from asyncworkers.errors import WorkerCrashed

__all__ = ["InlineBridge"]


class InlineBridge(AbandoningBridge):
    """Runs each call by the loop's `run_in_executor`, which on a simulated loop is deterministic.

    It abandons like a thread does, so that a simulation sees the same behavior. Standing in for a
    process, it calls the process's initializer before its first call; if that raises, the call
    has failed.
    """

    def __init__(self, initializer: Callable[[], object] | None = None) -> None:
        super().__init__()
        self._initializer = initializer

    def close(self) -> None:
        """Nothing is held."""

    def _start(self, work: Work, future: asyncio.Future[End]) -> None:
        def deliver(ended: asyncio.Future[End]) -> None:
            self._deliver(future, ended.result())

        run = work.run if self._initializer is None else lambda: self._run_prepared(work)
        future.get_loop().run_in_executor(None, run).add_done_callback(deliver)

    def _run_prepared(self, work: Work) -> tuple[Any, BaseException | None]:
        if self._initializer is not None:
            try:
                self._initializer()
            except BaseException as error:
                crash = WorkerCrashed(
                    f"no process could be made ready to run {work.name}: "
                    f"its initializer raised {_checks.kind_of(error)}"
                )
                crash.__cause__ = error
                return None, crash
            self._initializer = None
        return work.run()
