"""What the demo writes down: plain data, the same for a run with and without the supervisor."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from asyncworkers.timeline import Bar

__all__ = [
    "Attempt",
    "Compression",
    "DemoFailed",
    "Ending",
    "Page",
    "Reading",
    "Rendered",
    "Run",
    "Settings",
    "Stage",
    "Stall",
]


class DemoFailed(Exception):
    """The demo cannot go on, for a reason that the message gives in one line."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for on the command line."""

    output: Path
    sequential: bool = False
    workers: int = 200
    threads: int = 2
    processes: int = 2
    pages: int | None = None
    faults: float = 0.05
    seed: int = 1
    store: Path | None = None

    @property
    def mode(self) -> str:
        """The run's name in files and headings."""
        if self.store is not None:
            return "store"
        return "sequential" if self.sequential else "supervisor"

    @property
    def conditions(self) -> dict[str, float | None]:
        """How much work there is and how bad the network: the same in runs that compare."""
        return {"pages": self.pages, "faults": self.faults, "seed": self.seed}

    @property
    def site(self) -> Path:
        """The folder of the rendered pages."""
        return self.output / "site"


@dataclass(frozen=True, slots=True)
class Rendered:
    """One module's page was written, or `error` says why it could not be imported."""

    module: str
    size: int
    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """What the site answered at last: 200 with a body, or 404."""

    address: str
    status: int
    body: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True, slots=True)
class Reading:
    """What the parser found in one page.

    `size` is in bytes, `links` counts how often each address of this site is linked to,
    `targets` are the places within pages that links point at, `anchors` those this page offers.
    """

    address: str
    size: int
    words: int
    headings: int
    depth: int
    links: Counter[str]
    targets: frozenset[tuple[str, str]]
    anchors: frozenset[str]
    external: int


@dataclass(frozen=True, slots=True)
class Compression:
    """The size of one page in bytes: as it is, by zlib and by lzma."""

    address: str
    size: int
    zlib: int
    lzma: int

    @property
    def ratio(self) -> float:
        """How many times smaller lzma makes it."""
        return self.size / self.lzma


class Ending(StrEnum):
    """How an attempt ended, in the words of the network where those say more."""

    SUCCEEDED = "succeeded"
    BUSY = "503"
    RESET = "reset"
    TIMED_OUT = "timed out"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of a job; times are in seconds since the run began."""

    job: str
    subject: str
    number: int
    queue: str
    worker: int
    start: float
    end: float
    ending: Ending

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Stall:
    """The event loop could not turn for so many seconds; `place` is where it was seen stuck."""

    seconds: float
    job: str | None
    place: str


@dataclass(slots=True)
class Stage:
    """How far one kind of job is: for the display while the run lasts."""

    done: int = 0
    total: int = 0
    running: int = 0


@dataclass(slots=True)
class Run:
    """All that one run of the demo found; it grows with the work, so a broken-off run has some.

    CPU times are in seconds: of the event loop's thread, of the other threads of this process,
    and of the child processes that rendered and analyzed.
    """

    settings: Settings
    stages: dict[str, Stage] = field(default_factory=dict[str, Stage])
    rendered: list[Rendered] = field(default_factory=list[Rendered])
    dead: set[str] = field(default_factory=set[str])
    unreachable: dict[str, str] = field(default_factory=dict[str, str])
    readings: list[Reading] = field(default_factory=list[Reading])
    compressions: list[Compression] = field(default_factory=list[Compression])
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    stalls: list[Stall] = field(default_factory=list[Stall])
    served: dict[str, int] = field(default_factory=dict[str, int])
    seconds: float = 0.0
    cpu_loop: float = 0.0
    cpu_threads: float = 0.0
    cpu_children: float = 0.0
    complete: bool = False

    def bars(self) -> list[Bar]:
        """The attempts as a timeline draws them."""
        return [
            Bar(a.queue, a.worker, a.job, a.subject, a.number, a.start, a.end, a.ending.value)
            for a in self.attempts
        ]

    def stage(self, job: str) -> Stage:
        """The stage of a job's name, made when it is first asked for."""
        return self.stages.setdefault(job, Stage())
