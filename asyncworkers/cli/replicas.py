"""Keeps several processes of one command alive: starts them, replaces those that end, ends them all.

Facts this follows:
- Ctrl-C goes to the whole process group of the terminal. Each replica has a group of its own, so
  that it hears of a signal once, from here.
- Whoever is killed with SIGKILL can tell nobody. Each replica holds one end of a pipe of which we
  hold the other, and the kernel sends it SIGTERM when ours is closed, in whatever way.
- A replica sees to its own grace. Only one that cannot even do that any more is killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from asyncworkers.units import agreed, counted

__all__ = ["LIFELINE", "Replicas"]

log = logging.getLogger("asyncworkers.run")

LIFELINE = "ASYNCWORKERS_LIFELINE"
"""The variable that tells a replica which descriptor is its end of the pipe."""

NUMBER = "ASYNCWORKERS_REPLICA"
"""The variable that tells a replica, and its jobs, which one it is, from 1."""

MINUTE = 60.0
"""Seconds in which no replica may end by itself more often than `restarts` says."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds before another is started if one ended before, in the last minute; twice as long each time."""

LATE = 4.0
"""Seconds after its grace, or after a second signal, at which a replica is killed."""

WRONG_USAGE = 2
"""The exit code of a replica that cannot be started at all: another would not do better."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Replicas:
    """So many processes of a command. `restarts` and `grace` are those of `asyncworkers run`."""

    def __init__(self, command: Sequence[str], count: int, *, restarts: int, grace: float) -> None:
        self._command = command
        self._count = count
        self._restarts = restarts
        self._grace = grace
        self._alive: dict[int, Process] = {}
        self._signals = 0
        self._asked: int | None = None
        self._failure: int | None = None
        self._unclean = False
        self._ending = asyncio.Event()

    async def run(self) -> int:
        """Keep them alive until a signal comes, or one ends too often; returns the exit code."""
        loop = asyncio.get_running_loop()
        for wanted in SIGNALS:
            if signal.getsignal(wanted) is not signal.SIG_IGN:  # as with nohup, or a shell's `&`
                loop.add_signal_handler(wanted, self._heard, wanted)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(1, self._count + 1):
                    group.create_task(self._keep(number))
        finally:
            for process in self._alive.values():
                _tell(process, signal.SIGKILL)
        if self._failure is not None:
            return self._failure
        assert self._asked is not None
        return 128 + self._asked if self._unclean else 0

    async def _keep(self, number: int) -> None:
        """Keep one replica alive."""
        loop = asyncio.get_running_loop()
        ends: deque[float] = deque()
        while not self._ending.is_set():
            code = await self._live(number)
            if self._ending.is_set():
                # One that had not yet set up its handlers had not begun anything either.
                self._unclean = self._unclean or code not in (0, -signal.SIGTERM)
                return
            if code == WRONG_USAGE:
                self._fail(WRONG_USAGE)
                return
            now = loop.time()
            ends.append(now)
            while ends[0] < now - MINUTE:
                ends.popleft()
            if len(ends) > self._restarts:
                log.critical("replica %d ended %d times in a minute: giving up", number, len(ends))
                self._fail(1)
                return
            if len(ends) > 1:
                pause = min(FIRST_PAUSE * 2.0 ** (len(ends) - 2), LONGEST_PAUSE)
                log.warning("replica %d is started again in %g s", number, pause)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._ending.wait()

    async def _live(self, number: int) -> int:
        """One life of a replica; how it ended, as `subprocess` counts it."""
        theirs, ours = os.pipe()
        try:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.DEVNULL,
                    env={**os.environ, NUMBER: str(number), LIFELINE: str(theirs)},
                    pass_fds=(theirs,),
                    process_group=0,
                )
            except OSError as error:
                log.error("replica %d cannot be started: %s", number, error)
                return 1
            finally:
                os.close(theirs)
            self._alive[number] = process
            log.info("replica %d is process %d", number, process.pid)
            if self._ending.is_set():
                _tell(process, signal.SIGTERM)
            code = await process.wait()
            del self._alive[number]
            level = logging.INFO if self._ending.is_set() else logging.WARNING
            log.log(level, "replica %d, process %d, %s", number, process.pid, _ended(code))
            return code
        finally:
            os.close(ours)

    def _heard(self, number: int) -> None:
        self._signals += 1
        self._asked = number
        name = signal.Signals(number).name
        if self._signals == 1:
            alive = len(self._alive)
            replicas, are = counted(alive, "replica"), agreed(alive, "is", "are")
            log.warning("%s: %s %s told to drain", name, replicas, are)
            self._end(self._grace + LATE)
        elif self._signals == 2:
            log.warning("%s again: they are told to cancel", name)
            self._end(LATE)
        else:
            self._unclean = True
            self._tell_all(signal.SIGKILL)

    def _fail(self, code: int) -> None:
        if self._failure is None:
            self._failure = code
            self._end(self._grace + LATE)

    def _end(self, patience: float) -> None:
        """Have all of them end, within so many seconds."""
        self._ending.set()
        self._tell_all(signal.SIGTERM)
        asyncio.get_running_loop().call_later(patience, self._tell_all, signal.SIGKILL)

    def _tell_all(self, number: int) -> None:
        for process in self._alive.values():
            _tell(process, number)


def _tell(process: Process, number: int) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
