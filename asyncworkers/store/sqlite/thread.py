"""A thread with a connection of its own, which does together whatever was asked while it was busy.

That is all there is to group commit: what gathers while one commit waits for the disk goes with the
next. There is no timer, so nothing waits longer than it must.
"""

from __future__ import annotations

import contextlib
import threading
import time
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from asyncworkers._log import log
from asyncworkers.errors import StoreUnavailable

__all__ = ["Ask", "Batches"]

TURN = 0.02
"""Seconds for which those that come after a batch follow each other, once the first of them is done, while
something new is asked.
"""

BREATH = 0.00005
"""Seconds for which a busy loop lets go of the interpreter: long enough for a thread to take it."""


class Ask:
    """Something asked of the thread; answered on the loop that asked, or to the thread that waits."""

    __slots__ = ("answer", "error", "future", "items", "verb", "waiting")

    def __init__(self, verb: str, items: Any, future: Future[Any] | None) -> None:
        self.verb = verb
        self.items = items
        self.future = future
        self.waiting = threading.Event() if future is None else None
        self.answer: Any = None
        self.error: BaseException | None = None


class Batches:
    """The thread. `work` gets all asks there are, and leaves an answer or an error in each; what it
    returns is called when these have been delivered, in turns: whoever asks without an end does not
    keep these waiting, nor do many of these whoever asks.

    `start` runs first, in the thread, and `stop` last; `deliver` is called on the loop with each
    batch that was worked off.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        name: str,
        *,
        start: Callable[[], None],
        work: Callable[[Sequence[Ask]], Sequence[Callable[[], None]]],
        stop: Callable[[], None],
        deliver: Callable[[Sequence[Ask]], None],
    ) -> None:
        self._loop = loop
        self._start, self._work, self._stop, self._deliver = start, work, stop, deliver
        self._lock = threading.Lock()
        self._gathered: list[Ask] = []
        self._after: deque[Callable[[], None]] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()  # a semaphore in C: threading's is Python
        self._roused = False
        self._pressing = False  # a thread is blocked until it is answered
        self._closing = False
        self.opened: Future[None] = loop.create_future()
        self.ended: Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask(self, verb: str, items: Any, *, at_once: bool = False) -> Future[Any]:
        """Ask something, on the loop. What is asked in one turn of the loop is done together; unless
        that is much, and is to begin `at_once`, while the loop goes on with its turn.
        """
        future: Future[Any] = self._loop.create_future()
        with self._lock:
            if self._closing:
                raise StoreUnavailable("the store is closed")
            self._gathered.append(Ask(verb, items, future))
            if self._roused:
                return future
            self._roused = True
        if at_once:
            self._wake.put(None)
            self.breathe()
        else:
            self._loop.call_soon(self._wake.put, None)
        return future

    def breathe(self) -> None:
        """On a loop that has more to do: if the thread is at work, let it have the interpreter.

        A thread gets it from a busy one after 5 ms only (sys.setswitchinterval), and has to ask for
        it after each statement: they would work in turn, on two cores as on one.
        """
        if self._roused:
            time.sleep(BREATH)

    def post(self, verb: str, items: Any) -> None:
        """Ask something from any thread; `items` itself hears of the answer."""
        with self._lock:
            if self._closing:
                raise StoreUnavailable("the store is closed")
            self._gathered.append(Ask(verb, items, None))
            self._roused = True
        self._wake.put(None)

    def ask_and_wait(self, verb: str, items: Any) -> Any:
        """Ask something from any thread, and block until it is answered."""
        ask = Ask(verb, items, None)
        with self._lock:
            if self._closing:
                raise StoreUnavailable("the store is closed")
            self._gathered.append(ask)
            self._roused = self._pressing = True
        self._wake.put(None)
        assert ask.waiting is not None
        ask.waiting.wait()
        if ask.error is not None:
            raise ask.error
        return ask.answer

    def close(self) -> Future[None]:
        """End the thread once everything asked is done; the future is done when it has ended."""
        with self._lock:
            self._closing = True
        self._wake.put(None)
        return self.ended

    def join(self) -> None:
        """Wait for the thread, which has `ended`."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._start()
        except BaseException as error:
            self._tell(_fail, self.opened, error)
            self._tell(_finish, self.ended)
            return
        self._tell(_finish, self.opened)
        try:
            while self._one_batch():
                pass
        except BaseException as error:
            log.failure("the thread of a store broke off: open it anew", error)
            self._break_off()
        finally:
            try:
                self._stop()
            finally:
                self._tell(_finish, self.ended)  # whatever became of it: somebody waits

    def _break_off(self) -> None:
        """Nobody waits for a thread that has ended, and nobody asks it any more."""
        with self._lock:
            self._closing, self._roused = True, False
            asks, self._gathered = self._gathered, []
        for ask in asks:
            ask.error = StoreUnavailable("the store's thread has ended")
        self._hand_out(asks)

    def _one_batch(self) -> bool:
        self._wake.get()
        while True:
            with self._lock:
                asks, self._gathered, self._pressing = self._gathered, [], False
                if not asks and not self._after:
                    self._roused = False
                    return not self._closing
            if asks:
                self._one_answer(asks)
            self._one_turn()

    def _one_turn(self) -> None:
        """Those that are there have asked before whatever gathers now, so they go first; but not for long,
        and not while a thread is blocked.

        The first is not counted: it may have waited for a loop that was busy with the batch's answers.
        """
        ends: float | None = None
        for _ in range(len(self._after)):
            self._after.popleft()()
            now = time.monotonic()
            ends = ends or now + TURN
            if self._pressing or now >= ends:
                return

    def _one_answer(self, asks: Sequence[Ask]) -> None:
        try:
            self._after.extend(self._work(asks))
        except BaseException as error:
            for ask in asks:
                ask.error = error
        self._hand_out(asks)

    def _hand_out(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            if ask.waiting is not None:
                ask.waiting.set()
        self._tell(self._deliver, asks)

    def _tell(self, function: Callable[..., None], *args: Any) -> None:
        # If the loop was closed under us, nobody is left to be told.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)


def _finish(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
