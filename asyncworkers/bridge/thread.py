"""A bridge to a daemon thread of its own: blocking calls run there, one after the other."""

from __future__ import annotations

import asyncio
import threading
from queue import SimpleQueue

from asyncworkers._log import log
from asyncworkers.bridge.abandoning import AbandoningBridge, End, forget_value
from asyncworkers.bridge.protocol import BridgeBroken, Work

__all__ = ["ThreadBridge"]


class ThreadBridge(AbandoningBridge):
    """Runs calls in one daemon thread.

    A thread cannot be stopped: a call that nobody waits for any more is abandoned, and the thread
    ends after it. It is a daemon, so that an abandoned call does not keep the process from ending.
    """

    def __init__(self, name: str | None = None) -> None:
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._inbox: SimpleQueue[tuple[Work, asyncio.Future[End]] | None] = SimpleQueue()

    async def start(self) -> None:
        """Start the thread. Raises BridgeBroken if none can be had."""
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            raise BridgeBroken(f"no thread could be started: {error}") from error

    def begin(self, work: Work) -> asyncio.Future[End]:
        """Have the thread run the work, after what it still has."""
        future: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._inbox.put((work, future))
        return future

    def kill(self) -> None:
        """Have the thread end, at once if it is idle and after its abandoned call otherwise."""
        self._inbox.put(None)

    async def close(self) -> None:
        """Have the thread, which is idle, end."""
        self._inbox.put(None)
        self._thread.join(timeout=1.0)  # it takes microseconds

    def _serve(self) -> None:
        while (item := self._inbox.get()) is not None:
            work, future = item
            end = self._carry(work)
            try:
                future.get_loop().call_soon_threadsafe(_deliver, future, end)
            except RuntimeError:  # the loop was closed under us: there is nobody to tell
                if not work.abandoned:  # else everybody was told that it was left behind
                    log.warning(
                        "the event loop was closed while %s ran in thread %s; its result is lost",
                        work.name,
                        threading.current_thread().name,
                    )
                return
            del item, work, future, end  # an idle thread must not keep the last job alive

    def _carry(self, work: Work) -> End:
        """Run the work, in the thread."""
        try:
            return work.run()
        finally:
            del work  # an error's traceback knows this frame, and a job must not be in a cycle with it


def _deliver(future: asyncio.Future[End], end: End) -> None:
    if not future.done():
        future.set_result(end)
    else:
        forget_value(end)
