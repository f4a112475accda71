"""A bridge to a daemon thread of its own: blocking calls run there, one after the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue

from asyncworkers._log import log
from asyncworkers.bridge.abandoning import AbandoningBridge, End
from asyncworkers.bridge.protocol import BridgeBroken, Work

__all__ = ["ThreadBridge"]


class ThreadBridge(AbandoningBridge):
    """Runs calls in one daemon thread, which is started with the first call and then kept.

    A thread cannot be stopped. A cancelled call is abandoned: its end is dropped when it comes,
    and until then the bridge is not free. The thread is a daemon, so that an abandoned call does
    not keep the process from ending. `hold` and `release` tell a virtual clock that real work is
    under way and waited for.
    """

    def __init__(self, name: str, hold: Callable[[], None], release: Callable[[], None]) -> None:
        super().__init__()
        self._name = name
        self._hold = hold
        self._release = release
        self._thread: threading.Thread | None = None
        self._inbox: SimpleQueue[tuple[Work, asyncio.Future[End]] | None] = SimpleQueue()

    async def call(self, work: Work) -> End:
        """Run the work in the thread; when cancelled, abandon it there."""
        self._hold()
        try:
            return await super().call(work)
        finally:
            self._release()

    def close(self) -> None:
        """End the thread, at once if it is idle and after its abandoned call otherwise."""
        self._inbox.put(None)
        if self._thread is not None and self._under_way is None:
            self._thread.join(timeout=1.0)  # it is idle, so this takes microseconds
        self._thread = None

    def _start(self, work: Work, future: asyncio.Future[End]) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:
                raise BridgeBroken(f"no thread could be started: {error}") from error
            self._thread = thread
        self._inbox.put((work, future))

    def _serve(self) -> None:
        while (item := self._inbox.get()) is not None:
            work, future = item
            end = work.run()
            try:
                future.get_loop().call_soon_threadsafe(self._deliver, future, end)
            except RuntimeError:  # the loop was closed under us: there is nobody to tell
                if self._abandoned is not work:  # else everybody was told that it was left behind
                    log.warning(
                        "the event loop was closed while %s ran in thread %s; its result is lost",
                        work.name,
                        self._name,
                    )
                return
            del item, work, future, end  # an idle thread must not keep the last job alive
