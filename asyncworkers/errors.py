"""Every error asyncworkers raises: one root, a few branches, each telling what to do."""

from __future__ import annotations

from typing import Any

__all__ = [
    "ArgumentsMismatch",
    "AsyncworkersError",
    "DuplicateJob",
    "GiveUp",
    "JobCancelled",
    "JobExpired",
    "JobFailed",
    "JobLost",
    "JobNotFound",
    "JobTimedOut",
    "NotSerializable",
    "QueueFull",
    "RetryLater",
    "StoreBusy",
    "StoreChanged",
    "StoreDamaged",
    "StoreFull",
    "StoreUnavailable",
    "StoreVersion",
    "SupervisorClosed",
    "SupervisorFailed",
    "WorkerCrashed",
    "WouldDeadlock",
    "WrongLoop",
    "WrongProcess",
]


class AsyncworkersError(Exception):
    """The root of every error of this package: catch it to catch them all."""


class QueueFull(AsyncworkersError):
    """The queue holds `maxsize` waiting jobs: `await submit(...)` waits for room instead."""


class SupervisorClosed(AsyncworkersError):
    """The supervisor accepts no jobs: it was not entered yet, it is draining, or it has ended.

    `state` is the supervisor's, as far as it is known: "new" if it was never entered.
    """

    def __init__(self, message: str = "", state: str = "closed") -> None:
        super().__init__(message)
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.state), self.__dict__


class SupervisorFailed(AsyncworkersError):
    """Workers crashed more often than `restarts` in `period` seconds; the cause is attached."""


class WrongLoop(AsyncworkersError):
    """Called outside the event loop that runs the supervisor: use `submit_threadsafe` there."""


class WrongProcess(AsyncworkersError):
    """The process was forked after the supervisor started: make a supervisor in the child."""


class JobNotFound(AsyncworkersError, KeyError):
    """No unfinished job has this id; jobs in memory are forgotten once they have ended."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class WouldDeadlock(AsyncworkersError):
    """The wait could never end: the job would wait for itself or for room only it can make."""


class JobFailed(AsyncworkersError):
    """The job ended with something that is no ordinary exception; `__cause__` holds it."""


class NotSerializable(AsyncworkersError, TypeError):
    """A function, an argument or a result cannot go to another process, or cannot be stored and
    come back as what it is; the message names it.
    """


class WorkerCrashed(AsyncworkersError):
    """The process that ran the job died: killed, out of memory, by a fault in C code, by `os._exit`.

    `signal` is the number of the signal that ended it, `exit_code` what it ended with by itself,
    both None if that is not known; `stderr` is the end of what it said on standard error. Only
    the job that was running gets this, and it is run again only if `Retry(on=...)` names it. Jobs
    that wait get it if no process can be made ready, because of an initializer that raises, say.
    """

    def __init__(self, message: str, status: int | None = None, stderr: str = "") -> None:
        super().__init__(message)
        self.signal = -status if status is not None and status < 0 else None
        self.exit_code = status if status is not None and status >= 0 else None
        self.stderr = stderr
        if stderr:
            self.add_note(f"it said last:\n{stderr}")


class GiveUp(AsyncworkersError):
    """Raised by a job: fail now, whatever `retry` says. `raise GiveUp("...") from error`."""


class RetryLater(AsyncworkersError):
    """Raised by a job: run me again after `seconds`, as long as `retry` has attempts left.

    It needs no match in `Retry.on`, and its delay replaces the policy's. When no attempt is
    left the job fails with this very exception.
    """

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(message or f"asked to be run again in {seconds} s")
        self.seconds = seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.seconds, str(self)), self.__dict__


class JobCancelled(AsyncworkersError):
    """The job was cancelled; `reason` says by whom or why. Never a `CancelledError`."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.reason), self.__dict__


class JobExpired(JobCancelled):
    """The job was still waiting when its `expires` time came, so it was not run (again)."""


class JobTimedOut(AsyncworkersError, TimeoutError):
    """An attempt ran longer than `timeout` seconds.

    It is a `TimeoutError`, which Python makes an `OSError`: `Retry(on=OSError)` matches it too.
    """

    def __init__(self, message: str, timeout: float) -> None:
        super().__init__(message)
        self.timeout = timeout

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.timeout), self.__dict__


class JobLost(AsyncworkersError):
    """The stored job's worker died each time it ran, or once if it may only run once."""


class DuplicateJob(AsyncworkersError):
    """Another job holds the `unique` key, and the function says to reject a second one.

    `job_id` is the id of the job that holds it.
    """

    def __init__(self, message: str, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.job_id), self.__dict__


class ArgumentsMismatch(AsyncworkersError, TypeError):
    """What is stored does not fit the function any more: keep what stored jobs were written for."""


class StoreUnavailable(AsyncworkersError):
    """The store cannot be used; the message names it and the cause. What was asked may be asked
    again: a submission with the same id, and the same settlement, never take effect twice.
    """


class StoreBusy(StoreUnavailable):
    """Another program has kept the store locked for too long: find it, or ask again."""


class StoreFull(StoreUnavailable):
    """There is no room to write: free some, and ask again. What was stored is safe."""


class StoreChanged(StoreUnavailable):
    """The store's file was deleted or replaced while it was open: start again."""


class StoreDamaged(StoreUnavailable):
    """What is there is no store, or a broken one. Nothing in it was changed: restore a backup."""


class StoreVersion(StoreUnavailable):
    """The store was written by a newer version of asyncworkers: upgrade this one."""
