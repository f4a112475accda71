"""An asyncio-native job runner: jobs in memory, on the event loop and in threads, supervised."""

from asyncworkers._engine.report import DrainReport, QueueStats, Stats
from asyncworkers.bridge import CancelToken
from asyncworkers.current import CurrentJob, current_job
from asyncworkers.errors import (
    AsyncworkersError,
    GiveUp,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobNotFound,
    JobTimedOut,
    QueueFull,
    RetryLater,
    SupervisorClosed,
    SupervisorFailed,
    WouldDeadlock,
    WrongLoop,
    WrongProcess,
)
from asyncworkers.function import Call, JobFunction, job
from asyncworkers.job import Job, JobState, Progress
from asyncworkers.outcome import Cancelled, Failed, Outcome, Succeeded, TimedOut
from asyncworkers.policies import Retry
from asyncworkers.queue import Queue
from asyncworkers.run import run
from asyncworkers.stream import Stream
from asyncworkers.supervisor import Supervisor

__all__ = [
    "AsyncworkersError",
    "Call",
    "CancelToken",
    "Cancelled",
    "CurrentJob",
    "DrainReport",
    "Failed",
    "GiveUp",
    "Job",
    "JobCancelled",
    "JobExpired",
    "JobFailed",
    "JobFunction",
    "JobNotFound",
    "JobState",
    "JobTimedOut",
    "Outcome",
    "Progress",
    "Queue",
    "QueueFull",
    "QueueStats",
    "Retry",
    "RetryLater",
    "Stats",
    "Stream",
    "Succeeded",
    "Supervisor",
    "SupervisorClosed",
    "SupervisorFailed",
    "TimedOut",
    "WouldDeadlock",
    "WrongLoop",
    "WrongProcess",
    "current_job",
    "job",
    "run",
]
