"""A bridge that crosses nothing: a simulated loop runs blocking calls inline, in virtual time."""

from __future__ import annotations

import asyncio

from asyncworkers.bridge.abandoning import AbandoningBridge, End
from asyncworkers.bridge.protocol import Work

__all__ = ["InlineBridge"]


class InlineBridge(AbandoningBridge):
    """Runs each call by the loop's `run_in_executor`, which on a simulated loop is deterministic.

    It abandons like a thread does, so that a simulation sees the same behavior.
    """

    def close(self) -> None:
        """Nothing is held."""

    def _start(self, work: Work, future: asyncio.Future[End]) -> None:
        def deliver(ended: asyncio.Future[End]) -> None:
            self._deliver(future, ended.result())

        future.get_loop().run_in_executor(None, work.run).add_done_callback(deliver)
