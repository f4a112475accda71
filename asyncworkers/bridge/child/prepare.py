"""Makes a child ready for its first job as its queue's terms say, and tells when it has served enough."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from . import pickling as pickle
from .home import Home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Served", "prepare"]


DISPENSABLE = 200
"""How much sooner than its parent a child is to be ended when memory runs out, in the kernel's measure:
thousandths of the memory there is, which it is counted as using besides."""


def prepare(setup: dict[str, Any], home: Home) -> None:
    """Do what is to be done once, before the first job. Raises what the initializer raises."""
    _stand_in_for_parent()
    if setup["nice"]:
        os.nice(setup["nice"])
    home.settle_in(setup["prints"])
    if setup["initializer"] is not None:
        initializer: Callable[[], object] = pickle.loads(setup["initializer"])
        initializer()


def _stand_in_for_parent() -> None:
    """When memory runs out the kernel ends some process: rather this one, of which one job is lost, than
    the one that holds all of them. Only Linux can be told.
    """
    try:
        with open("/proc/self/oom_score_adj", "rb+", buffering=0) as file:
            own = int(file.read(20))
            file.write(b"%d" % min(1000, own + DISPENSABLE))
    except OSError:
        pass


class Served:
    """Tells after each job whether it was the last, because of their number or the memory in use."""

    def __init__(self, max_jobs: int | None, max_memory: int | None) -> None:
        self._left = max_jobs
        self._max_jobs = max_jobs
        self._max_memory = max_memory

    def enough(self) -> str | None:
        """A job has ended: why it was the last one, None if it was not."""
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                jobs = "job" if self._max_jobs == 1 else "jobs"
                return f"it has run {self._max_jobs} {jobs}, its max_jobs"
        if self._max_memory is not None:
            used = memory()
            if used > self._max_memory:
                return f"it used {used} bytes of memory, its max_memory is {self._max_memory}"
        return None


def memory() -> int:
    """Bytes of memory that this process has now, without what it shares with others; where nobody
    says so, the most that it ever had.
    """
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            resident, shared = file.read(200).split()[1:3]
        return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
