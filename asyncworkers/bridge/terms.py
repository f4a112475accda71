"""Terms are what a queue asks of its child processes: how each is made ready, and how long it serves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Literal

from asyncworkers import _checks
from asyncworkers._record import Record
from asyncworkers.errors import NotSerializable

__all__ = [
    "STARTUP",
    "Terms",
    "has_gil",
    "has_interpreters",
    "kind_for_cpu",
    "packed_initializer",
    "usable_processors",
]

STARTUP = 60.0
"""Seconds in which a child must be ready, if its queue does not say."""

OPENMP = "OMP_NUM_THREADS"
"""How many threads OpenMP may start; the libraries of `HEED_OPENMP` go by it if theirs is not set."""

HEED_OPENMP = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
OTHERS = ("VECLIB_MAXIMUM_THREADS",)


class Terms(Record):
    """What a queue of processes was declared with, as far as it concerns each child."""

    initializer: bytes | None = None
    """The pickled callable that each child calls once, before its first job."""
    max_jobs: int | None = None
    max_memory: int | None = None
    nice: int | None = None
    prints: str = "through"
    startup: float = STARTUP

    def setup(self) -> dict[str, Any]:
        """What a child is told of them."""
        return {
            "initializer": self.initializer,
            "max_jobs": self.max_jobs,
            "max_memory": self.max_memory,
            "nice": self.nice,
            "prints": self.prints,
        }

    @staticmethod
    def environment(processes: int) -> dict[str, str]:
        """The environment of a child that is one of so many: ours, and how many threads libraries
        that compute may start, so that all children together start about one for each processor.

        What our environment says about that stands, and also for the libraries that heed it.
        """
        share = str(max(1, usable_processors() // max(1, processes)))
        names = (*OTHERS,) if OPENMP in os.environ else (OPENMP, *HEED_OPENMP, *OTHERS)
        return dict.fromkeys(names, share) | dict(os.environ)


def packed_initializer(queue: str, initializer: Callable[[], object] | None) -> bytes | None:
    """The initializer as it travels. Raises NotSerializable if it cannot."""
    if initializer is None:
        return None
    from asyncworkers.bridge.child.trouble import dumps_freely

    try:
        return dumps_freely(initializer)
    except Exception as error:
        raise NotSerializable(
            f"the initializer of queue {queue!r} cannot be pickled: {_checks.summary(error, 300)}"
        ) from error


def kind_for_cpu(*, gil: bool) -> Literal["threads", "processes"]:
    """Where jobs that compute run, if their queue does not say: without a global interpreter lock
    threads compute side by side, and nothing has to cross to another process.
    """
    return "processes" if gil else "threads"


def has_gil() -> bool:
    """Whether one thread at a time runs Python here; on free-threaded builds it may not be so."""
    enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return enabled()


def has_interpreters() -> bool:
    """Whether this Python has sub-interpreters that a program can start, each with its own lock."""
    return sys.version_info >= (3, 14)


def usable_processors() -> int:
    """The number of processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
