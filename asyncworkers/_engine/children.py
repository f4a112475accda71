"""What a supervisor tells of its child processes, and why a job must wait for one."""

from __future__ import annotations

from asyncworkers._record import Record
from asyncworkers.units import counted

__all__ = ["ChildStats", "in_bytes"]


class ChildStats(Record):
    """One child process at one moment.

    `worker` is the number of its worker, `jobs` how many jobs it has run, `memory` how many bytes
    it has resident and shares with nobody (None where the system does not say), `job_name` and
    `job_id` what it runs now, `sent` how many jobs it holds that have not begun.
    """

    worker: int
    pid: int
    ready: bool
    memory: int | None
    jobs: int
    job_name: str | None
    job_id: str | None
    sent: int

    def __str__(self) -> str:
        memory = "" if self.memory is None else f", {in_bytes(self.memory)}"
        doing = "is idle" if self.ready else "is starting"
        if self.job_name is not None:
            doing = f"runs {self.job_name} {self.job_id}"
        ahead = f", {self.sent} more sent" if self.sent else ""
        done = f"{counted(self.jobs, 'job')} done"
        return f"child {self.worker} (pid {self.pid}{memory}, {done}) {doing}{ahead}"


def in_bytes(number: int) -> str:
    """A number of bytes for people."""
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
