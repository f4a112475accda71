"""A bridge to a sub-interpreter: calls compute side by side in one process, on Python 3.14 and later."""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from asyncworkers import _checks
from asyncworkers._log import log
from asyncworkers.bridge import child
from asyncworkers.bridge.abandoning import End
from asyncworkers.bridge.failure import rebuild
from asyncworkers.bridge.protocol import BridgeBroken, Work
from asyncworkers.bridge.thread import ThreadBridge
from asyncworkers.errors import NotSerializable
from asyncworkers.outcome import Failed, Succeeded

__all__ = ["InterpreterBridge"]

BOOT = """
import sys
sys.path[:] = path
package = type(sys)("asyncworkers_child")
package.__path__ = [here]
sys.modules["asyncworkers_child"] = package
from asyncworkers_child.answer import answer
"""
"""As in a child process: to import `asyncworkers.bridge.child` would import the whole of asyncworkers."""


class InterpreterBridge(ThreadBridge):
    """Runs calls in one sub-interpreter, in a thread that is there for it.

    It has a lock of its own, so that its calls compute beside those of all others, and shares
    nothing with us: calls and their ends cross as pickles. It cannot be stopped: a call that nobody
    waits for any more is abandoned, as in a thread, and the interpreter ends after it.
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._interpreter: Any = None
        self._told: asyncio.Future[BaseException | None] | None = None  # of its start, of its end

    async def start(self) -> None:
        """Start the thread, and in it the interpreter. Raises BridgeBroken if none can be had."""
        self._told = asyncio.get_running_loop().create_future()
        await super().start()
        trouble = await self._told
        if trouble is not None:
            raise BridgeBroken(f"no interpreter could be started: {trouble}") from trouble

    async def close(self) -> None:
        """Have the interpreter, which is idle, end, and the thread with it."""
        self._told = asyncio.get_running_loop().create_future()
        self._inbox.put(None)
        await self._told
        self._thread.join()

    def _serve(self) -> None:
        try:
            self._open()
        except BaseException as error:
            self._tell(error)
            return
        self._tell(None)
        try:
            super()._serve()
        finally:
            try:
                self._interpreter.close()
            except BaseException as error:
                log.failure(f"the interpreter of thread {self._thread.name} did not close", error)
            self._tell(None)

    def _open(self) -> None:
        from concurrent import interpreters  # type: ignore[attr-defined]  # from Python 3.14 on

        made: Any = cast("Any", interpreters).create()
        made.prepare_main(path=tuple(sys.path), here=str(Path(child.__file__).parent))
        made.exec(BOOT)
        self._interpreter = made

    def _tell(self, trouble: BaseException | None) -> None:
        """Tell the loop, if it is still there, that the interpreter is ready, or gone."""
        told = self._told
        if told is not None:
            try:
                told.get_loop().call_soon_threadsafe(_resolve, told, trouble)
            except RuntimeError:  # it was closed
                return

    def _carry(self, work: Work) -> End:
        """Run the work there. What is no end means, as for any bridge, that this one is broken."""
        try:
            call = work.pickled()
        except NotSerializable as error:
            return Failed(error)
        try:
            said: bytes = self._interpreter.call(_answer, call)
        except BaseException as error:
            return cast("End", error)
        try:
            succeeded, end = pickle.loads(said)  # noqa: S301  # of our own interpreter
            return Succeeded(end) if succeeded else Failed(cast("Exception", rebuild(end)))
        except BaseException as error:
            return Failed(
                NotSerializable(f"how {work.name} ended cannot be read: {_checks.summary(error)}")
            )


def _answer(call: bytes) -> bytes:
    """Runs there. It knows nothing of this module, so that it can be sent as mere code."""
    answer: Callable[[bytes], bytes] = __import__("__main__").answer
    return answer(call)


def _resolve(told: asyncio.Future[BaseException | None], trouble: BaseException | None) -> None:
    if not told.done():
        told.set_result(trouble)
