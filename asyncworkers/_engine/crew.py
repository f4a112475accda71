"""The crew of a queue: the workers there are, hired when jobs come, lent, resized and let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from asyncworkers._engine.attempt import Attempt
from asyncworkers._log import log

__all__ = ["AT_ONCE", "TURN", "Crew"]

TURN = 0.005
"""Seconds that all workers of a queue together may go on before the rest of the loop has a turn."""

AT_ONCE = 4
"""Workers that may be on their way to work at a time; each calls as many if there is enough to do."""

BACK_OFF = 0.5
"""Seconds until workers that could not be hired are tried again."""

REAP_AFTER = 10.0
"""Seconds after which workers that had nothing to do all that time are let go."""


class Waiting(Protocol):
    """An idle worker, by which it is told that it is wanted (True) or not needed any more (False)."""

    def done(self) -> bool: ...
    def set_result(self, result: bool, /) -> None: ...


class Crew:
    """The workers of one queue, each known by the attempt it has in hand.

    - `spare` counts the workers that may still be hired: the capacity, plus slots lent by jobs
      that await other jobs, minus the workers there are. Below zero there are too many: idle
      ones are let go at once, others when they come for their next job. So a job that resumes
      never waits, and nothing new starts until the surplus is gone.
    - An idle worker waits on a future of its own and is woken without being handed a job: it
      takes one itself, if there still is one. A wake-up that a cancelled worker cannot use is
      passed on. So no job is ever in between, where it could be lost.
    - Four workers are called at a time, woken or hired, and each of them, when it arrives, calls
      others if more is waiting than it can take (`calls` counts those under way). So jobs that
      do not suspend are run by the first that comes, instead of waking a worker each, and a
      thousand that do are all begun a few turns of the loop later.
    - The turn is one for the whole crew: it begins with the first job that ends in a turn of the
      loop, and when it is over each worker gives way after its job. So a job that was suspended
      meanwhile is followed by the next at once, unless the crew has had its share already.
    - A worker that cannot be hired (there is no memory for its task) is hired later: what it was
      wanted for waits, and no slot is lost.
    """

    __slots__ = (
        "_closed",
        "_hire_one",
        "_hired",
        "_least_idle",
        "_loop",
        "_reaper",
        "_second_try",
        "_used_up",
        "_waiting",
        "breathe",
        "calls",
        "held",
        "idle",
        "lent",
        "members",
        "overflow",
        "spare",
        "turn",
        "turn_ends",
        "workers",
        "zombies",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        workers: int,
        hire: Callable[[int], Attempt],
        waiting: Callable[[], int],
    ) -> None:
        self.workers = workers
        self.spare = workers
        self.lent = 0
        self.held = False  # nothing is to be started
        self.members: dict[Attempt, None] = {}
        self.zombies: dict[Attempt, None] = {}  # retired workers whose code still runs
        self.idle: list[Waiting] = []
        self.overflow: Callable[[], None] | None = (
            None  # told when more waits than anybody is free for
        )
        self.turn = TURN
        self.turn_ends = 0.0
        self.breathe: Callable[[], None] | None = None  # called where a turn was used up
        self._used_up = False
        self._loop = loop
        self._hire_one = hire
        self._waiting = waiting  # how many things there are to take
        self.calls = 0
        self._hired = 0
        self._closed = False
        self._least_idle = 0
        self._reaper: asyncio.TimerHandle | None = None
        self._second_try: asyncio.TimerHandle | None = None

    def staff(self, wanted: int) -> None:
        """So many things have come to wait: call workers, as far as there are any to be had."""
        if self.held:
            return
        if self.idle or self.spare > 0:
            wanted = self._call(wanted)
        else:  # everybody is at work, as whenever there is much to do
            self._least_idle = 0
        if wanted > 0 and self.overflow is not None:
            self.overflow()

    def _call(self, wanted: int) -> int:
        """Wake or hire so many, but only some at a time; how many are wanted beyond those there are."""
        wanted = min(wanted, AT_ONCE - self.calls)
        while wanted > 0 and self.idle:
            future = self.idle.pop()
            if not future.done():
                future.set_result(True)
                self.calls += 1
                wanted -= 1
        self._least_idle = min(self._least_idle, len(self.idle))
        try:
            while wanted > 0 and self.spare > 0:
                self._hire()
                wanted -= 1
        except Exception as error:
            self._try_again_later(error)
        return wanted

    def _hire(self) -> None:
        self.members[self._hire_one(self._hired + 1)] = None  # it may fail: first this, then count
        self._hired += 1
        self.spare -= 1
        self.calls += 1

    @property
    def cannot_hire(self) -> bool:
        """Whether the last worker that was wanted could not be hired, and is to be tried again."""
        return self._second_try is not None

    def _try_again_later(self, error: Exception) -> None:
        if self._second_try is None:
            self._second_try = self._loop.call_later(BACK_OFF, self._try_again)
            log.failure("no worker can be hired; jobs wait until one can", error)

    def _try_again(self) -> None:
        self._second_try = None
        self.staff(self._waiting())

    def arrive(self, attempt: Attempt) -> None:
        """A worker that was hired begins."""
        attempt.has_begun = True
        self._answer_call()

    def _answer_call(self) -> None:
        self.calls -= 1
        others = self._waiting() - 1
        if others > 0:
            self.staff(others)

    def is_turn_over(self, moment: float) -> bool:
        """Asked by a worker after each job that ends later than `turn_ends`: must it give way?"""
        if self.turn_ends:
            self._used_up = True
            return True
        self.turn_ends = moment + self.turn
        self._loop.call_soon(self._begin_anew)
        return False

    def _begin_anew(self) -> None:
        self.turn_ends = 0.0
        if self._used_up:
            self._used_up = False
            if self.breathe is not None:
                self.breathe()

    def lend(self) -> None:
        """A job waits for another one: its slot may serve somebody else meanwhile."""
        self.lent += 1
        self.spare += 1

    def take_back(self) -> None:
        """The job goes on, in its own slot."""
        self.lent -= 1
        self.spare -= 1
        self._let_go()

    def resize(self, workers: int) -> None:
        """Change the capacity; what runs goes on to its end."""
        self.spare += workers - self.workers
        self.workers = workers
        self._let_go()

    def excuse(self, attempt: Attempt) -> bool:
        """Whether this worker is one too many; if so it counts no more and must end."""
        if self.spare >= 0:
            return False
        self.spare += 1
        attempt.off_duty = True
        return True

    def dismiss(self, attempt: Attempt) -> None:
        """This worker counts no more; another one may be hired in its place."""
        self.members.pop(attempt, None)
        if not attempt.has_begun:  # its task was cancelled before its first step
            attempt.has_begun = True
            self.calls -= 1
        if not attempt.off_duty:
            attempt.off_duty = True
            self.spare += 1

    async def wait_ready(self, attempt: Attempt) -> bool:
        """Wait until there may be something to take. False: this worker is not needed any more."""
        if self._closed:
            return False
        future: asyncio.Future[bool] = self._loop.create_future()
        self.rest(future)
        try:
            needed = await future
        except BaseException:
            if future in self.idle:
                self.idle.remove(future)
            elif not future.cancelled() and future.result():
                self.calls -= 1
                self.staff(1)  # the wake-up cannot be used by us: pass it on
            elif not future.cancelled():
                attempt.off_duty = True  # we were sent home, and counted out, already
            raise
        if needed:
            self._answer_call()
        else:
            attempt.off_duty = True
        return needed

    def rest(self, waiting: Waiting) -> bool:
        """This worker has nothing to do; it is told when it is wanted, or not needed any more.

        False if it is not needed now.
        """
        if self._closed:
            return False
        self.idle.append(waiting)
        if self._reaper is None:
            self._start_reaper()
        return True

    def close(self) -> None:
        """Send every idle worker home, and the others when they come for more."""
        self.held = self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        if self._second_try is not None:
            self._second_try.cancel()
            self._second_try = None
        idle, self.idle = self.idle, []
        for future in idle:
            if not future.done():
                future.set_result(False)

    def _let_go(self) -> None:
        while self.spare < 0 and self.idle:
            future = self.idle.pop(0)
            if not future.done():
                future.set_result(False)
                self.spare += 1

    def _start_reaper(self) -> None:
        self._least_idle = len(self.idle)
        self._reaper = self._loop.call_later(REAP_AFTER, self._reap)

    def _reap(self) -> None:
        """Let go of the workers that had nothing to do since the last look."""
        self._reaper = None
        for future in [future for future in self.idle if not future.done()][: self._least_idle]:
            self.idle.remove(future)
            future.set_result(False)
            self.spare += 1
        if self.idle:
            self._start_reaper()
