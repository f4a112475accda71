"""A child dies with its parent: the kernel sees to it, or a thread where the kernel does not."""

from __future__ import annotations

import os
import signal
import sys
import threading

__all__ = ["die_with_parent", "end_with_parent"]

F_SETSIG = 10
"""Linux: which signal is sent when a descriptor becomes ready."""


def die_with_parent(lifeline: int) -> None:
    """Have the whole process group killed when the other end of this pipe is closed.

    The parent never writes to it, and nobody else holds its end, so that it closes when the parent
    ends, in whatever way. On Linux the kernel is asked to send SIGKILL itself then: this also ends
    a job in the middle of a C call that never lets go of the interpreter, and what it has started.
    Elsewhere a thread waits for it, which such a call can keep waiting.

    (Linux can also send a signal when the parent dies, but means the parent's thread by it.)
    """
    _when_closed(lifeline, signal.SIGKILL, -os.getpgrp())


def end_with_parent(lifeline: int) -> None:
    """Have this process, and no other, told to end by SIGTERM in the same way."""
    _when_closed(lifeline, signal.SIGTERM, os.getpid())


def _when_closed(lifeline: int, number: int, whom: int) -> None:
    os.set_inheritable(lifeline, False)
    if sys.platform == "linux":
        import fcntl
        import select

        fcntl.fcntl(lifeline, fcntl.F_SETOWN, whom)
        fcntl.fcntl(lifeline, F_SETSIG, number)
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
        poll = select.poll()
        poll.register(lifeline, select.POLLIN)
        if poll.poll(0):  # it was closed before anybody could be told
            os.kill(whom, number)
    else:
        threading.Thread(target=_wait, args=(lifeline, number, whom), daemon=True).start()


def _wait(lifeline: int, number: int, whom: int) -> None:
    while True:
        try:
            os.read(lifeline, 1)
        except InterruptedError:
            continue
        except OSError:  # a job has closed it: nothing is known any more
            return
        os.kill(whom, number)
        return
