"""What children run in tests of big data: a module of its own, so that they need not import the tests."""

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

KEPT: list[Any] = []


def pid() -> int:
    """Who runs this."""
    return os.getpid()


def describe(array: np.ndarray) -> tuple[bool, bool, float]:
    """Whether it may be written, whether it owns its data, and what its items come to."""
    return bool(array.flags.writeable), bool(array.flags.owndata), float(array.sum())


def same(value: Any) -> Any:
    """What came, as it came."""
    return value


def ones(count: int, each: float = 1.0) -> np.ndarray:
    """A new array."""
    return np.full(count, each)


def zeros(nbytes: int, kind: str) -> Any:
    """So many bytes of nothing, which the system need not even provide."""
    return {"array": lambda n: np.zeros(n, "u1"), "bytes": bytes, "bytearray": bytearray}[kind](
        nbytes
    )


def keep(value: Any) -> int:
    """Keep it beyond the job's end; how many are kept."""
    KEPT.append(value)
    return len(KEPT)


def kept() -> list[float]:
    """What is kept comes to."""
    return [float(value.sum()) for value in KEPT]


def limit_space(more: int, kind: int) -> None:
    """Let this process have only so much more memory, of the address space or of its own."""
    pages = Path("/proc/self/statm").read_text().split()
    used = int(pages[0 if kind == resource.RLIMIT_AS else 5]) * resource.getpagesize()
    resource.setrlimit(kind, (used + more, resource.getrlimit(kind)[1]))


def forget() -> None:
    """Let go of what is kept."""
    KEPT.clear()


def fail_once(value: np.ndarray) -> float:
    """Fail when called first."""
    if not KEPT:
        KEPT.append(1)
        raise ValueError("the first time")
    return float(value.sum())


def die_while_writing(nbytes: int) -> np.ndarray:
    """Have this process killed while the result is copied into the arena."""
    writer = sys.modules["asyncworkers_child.arena"].Writer
    whole, steps = writer._write, []

    def write(self: Any, at: int, piece: memoryview) -> None:
        steps.append(at)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        whole(self, at, piece)

    writer._write = write
    return np.ones(nbytes, "u1")


def result_without_memory(nbytes: int) -> np.ndarray:
    """Return more than this process may write into shared memory."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    return np.ones(nbytes, "u1")
