"""A bridge that crosses nothing: a simulated loop runs blocking calls inline, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from asyncworkers import _checks
from asyncworkers.bridge.abandoning import AbandoningBridge, End
from asyncworkers.bridge.protocol import Work
from asyncworkers.errors import WorkerCrashed
from asyncworkers.outcome import Failed

__all__ = ["InlineBridge"]


class InlineBridge(AbandoningBridge):
    """Runs each call by the loop's `run_in_executor`, which on a simulated loop is deterministic.

    It abandons like a thread does, so that a simulation sees the same behavior. Standing in for a
    process, it calls the process's initializer before its first call; if that raises, the call
    has failed.
    """

    def __init__(self, initializer: Callable[[], object] | None = None) -> None:
        self._initializer = initializer

    def begin(self, work: Work) -> asyncio.Future[End]:
        """Have the loop run the work in its own time."""
        run = work.run if self._initializer is None else lambda: self._run_prepared(work)
        return asyncio.get_running_loop().run_in_executor(None, run)

    def kill(self) -> None:
        """Nothing is held."""

    def _run_prepared(self, work: Work) -> End:
        if self._initializer is not None:
            try:
                self._initializer()
            except BaseException as error:
                crash = WorkerCrashed(
                    f"no process could be made ready to run {work.name}: "
                    f"its initializer raised {_checks.kind_of(error)}"
                )
                crash.__cause__ = error
                return Failed(crash)
            self._initializer = None
        return work.run()
