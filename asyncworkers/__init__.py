"""An asyncio-native job runner: jobs in memory or in a store, on the loop, in threads and processes."""

from asyncworkers._engine.report import (
    Backlog,
    ChildStats,
    DrainReport,
    QueueStats,
    Stats,
    WorkerStats,
)
from asyncworkers.bridge import Bridge, CancelCallback, CancelToken, Work
from asyncworkers.current import CurrentJob, current_job
from asyncworkers.errors import (
    ArgumentsMismatch,
    AsyncworkersError,
    DuplicateJob,
    GiveUp,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobLost,
    JobNotFound,
    JobTimedOut,
    NotSerializable,
    QueueFull,
    RetryLater,
    StoreBusy,
    StoreChanged,
    StoreDamaged,
    StoreFull,
    StoreUnavailable,
    StoreVersion,
    SupervisorClosed,
    SupervisorFailed,
    WorkerCrashed,
    WouldDeadlock,
    WrongLoop,
    WrongProcess,
)
from asyncworkers.function import Call, JobFunction, job
from asyncworkers.health import Health, HealthApp
from asyncworkers.job import Job, JobState, Progress
from asyncworkers.outcome import Cancelled, Failed, Outcome, Succeeded, TimedOut
from asyncworkers.policies import Retry, Unique
from asyncworkers.queue import Queue
from asyncworkers.run import run
from asyncworkers.secret import Secret
from asyncworkers.signed import SignedPickle
from asyncworkers.stream import Stream
from asyncworkers.subscription import Subscription
from asyncworkers.supervisor import Supervisor

__all__ = [
    "ArgumentsMismatch",
    "AsyncworkersError",
    "Backlog",
    "Bridge",
    "Call",
    "CancelCallback",
    "CancelToken",
    "Cancelled",
    "ChildStats",
    "CurrentJob",
    "DrainReport",
    "DuplicateJob",
    "Failed",
    "GiveUp",
    "Health",
    "HealthApp",
    "Job",
    "JobCancelled",
    "JobExpired",
    "JobFailed",
    "JobFunction",
    "JobLost",
    "JobNotFound",
    "JobState",
    "JobTimedOut",
    "NotSerializable",
    "Outcome",
    "Progress",
    "Queue",
    "QueueFull",
    "QueueStats",
    "Retry",
    "RetryLater",
    "Secret",
    "SignedPickle",
    "Stats",
    "StoreBusy",
    "StoreChanged",
    "StoreDamaged",
    "StoreFull",
    "StoreUnavailable",
    "StoreVersion",
    "Stream",
    "Subscription",
    "Succeeded",
    "Supervisor",
    "SupervisorClosed",
    "SupervisorFailed",
    "TimedOut",
    "Unique",
    "Work",
    "WorkerCrashed",
    "WorkerStats",
    "WouldDeadlock",
    "WrongLoop",
    "WrongProcess",
    "current_job",
    "job",
    "run",
]
