"""A job that has big data is loaded before it is sent: packed in a thread, if that takes long, and copied."""

from __future__ import annotations

import pickle
from typing import Any, Protocol

from asyncworkers._engine.child_watch import ChildWatch
from asyncworkers._engine.memory import MemoryQueue
from asyncworkers._engine.sent import SentLine
from asyncworkers.bridge.child import ring, wire
from asyncworkers.bridge.child.freight import Freight
from asyncworkers.bridge.freighter import Loaded
from asyncworkers.bridge.parcel import Parcel
from asyncworkers.bridge.process import ProcessBridge
from asyncworkers.bridge.steps import Heavy, Step
from asyncworkers.job import Job

__all__ = ["Load"]


class Loader(Protocol):
    """What is needed of the line worker that sends it."""

    home: MemoryQueue
    process: ProcessBridge
    line: SentLine
    watch: ChildWatch
    ready: bool
    packing: Step | None

    def refuse(self, job: Job[Any], error: BaseException) -> None: ...
    def fill(self, most: int) -> None: ...


class Load:
    """The last job in a child's line, which stands there already; nothing is sent behind it until it
    is loaded.
    """

    def __init__(self, worker: Loader, job: Job[Any], parcel: Parcel) -> None:
        escort = worker.home.hub.escort
        self._worker = worker
        self._job = job
        self._parcel = parcel
        self._number = worker.line.last
        self._luggage = () if escort is None else (escort.sent(job),)
        self._tries = 0 if job._rare is None else job._rare.tries

    def begin(self) -> None:
        """Load it, and send it then."""
        arguments = self._parcel[1]
        if isinstance(arguments, Heavy):
            self._worker.packing = self._worker.home.hub.aside.begin(arguments.pack, self._packed)
        else:
            self._ship(arguments)

    def _wanted(self) -> bool:
        return self._worker.line.holds(self._number)

    def _packed(self, arguments: Any, error: BaseException | None) -> None:
        """The thread is done with it."""
        worker, number = self._worker, self._number
        if worker.ready and error is not None and self._wanted():
            worker.line.replace(number, None)
            worker.process.take_back(number)
            worker.refuse(self._job, error)  # nothing is sent meanwhile, whatever its end sets off
        worker.packing = None
        if not worker.ready:
            return  # whoever settles the line gives it back as it is
        if not self._wanted():
            self._loaded(None)
        else:
            version = self._parcel[0]
            worker.line.replace(number, (self._job, (version, arguments), version.took))
            self._ship(arguments)

    def _ship(self, arguments: Any) -> None:
        """Have it copied to where the child finds it, as far as any part of it is big."""
        freighter = self._worker.process.freighter
        freighter.last_used = self._worker.home.now()
        freighter.poll()
        freight = arguments if arguments.__class__ is Freight else Freight(arguments, [])
        freighter.load(freight, self._wanted, self._loaded)

    def _loaded(self, message: Loaded) -> None:
        """Send it. If it cannot be sent, or was taken back, the child is told so, and will skip it."""
        worker, version = self._worker, self._parcel[0].number
        if isinstance(message, list):
            facts = (self._number, version, self._tries + 1, *self._luggage)
            for part in wire.long_frame(wire.FREIGHT, facts, message):
                worker.process.write(part)
        else:
            contents = () if message is None else message
            entry = (version, contents, self._tries + 1, *self._luggage)
            jobs = pickle.dumps((self._number, [entry]), 5)
            worker.process.write(wire.frame(wire.JOBS, jobs))
        if len(worker.line.jobs) == 1:
            worker.watch.seen = worker.home.now()
        worker.fill(ring.PLACES)
