"""What the tests of stored jobs share: a supervisor's store, of each kind, and child processes."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stored_jobs import ALL, notes

from asyncworkers import Supervisor
from asyncworkers.store.memory import MemoryData, MemoryStore
from asyncworkers.store.sqlite import SqliteStore

CHILD = Path(__file__).with_name("stored_child.py")


class Place:
    """One store's data, for any number of supervisors."""

    def __init__(self, kind, tmp_path):
        self.kind = kind
        self.path = tmp_path / "jobs.db"
        self.data = MemoryData()

    def store(self, **settings):
        """Another store on the same data, as another process would have it."""
        if self.kind == "memory":
            return MemoryStore(self.data, **settings)
        return SqliteStore(self.path, **settings)

    def supervisor(self, functions=ALL, **options):
        """A supervisor on this store."""
        return Supervisor(store=self.store, functions=functions, **options)


@pytest.fixture(params=["memory", "sqlite"])
def place(request, tmp_path):
    """Return a store of each kind."""
    return Place(request.param, tmp_path)


@pytest.fixture
def sqlite(tmp_path):
    """Return a store in a file."""
    return Place("sqlite", tmp_path)


class Children:
    """Processes on the same file; none is left at the end."""

    def __init__(self, place, diary):
        self.place = place
        self.diary = diary
        self.living = []

    async def start(self, workers=4):
        """Start one, and wait until it serves."""
        ready = notes(self.diary).count("ready")
        arguments = [f"sqlite:///{self.place.path}", str(self.diary), str(workers)]
        child = subprocess.Popen([sys.executable, str(CHILD), *arguments])
        self.living.append(child)
        await self.wrote("ready", ready + 1)
        return child

    async def wrote(self, word, count=1):
        """Wait until so many lines of the diary begin with a word."""
        while sum(line.startswith(word) for line in notes(self.diary)) < count:
            for child in self.living:
                assert child.poll() is None, "a child has ended"
            await asyncio.sleep(0.005)

    def kill(self, child, how=signal.SIGKILL):
        """Kill one."""
        child.send_signal(how)
        child.wait()
        self.living.remove(child)

    def close(self):
        """Kill all."""
        for child in list(self.living):
            with contextlib.suppress(ProcessLookupError):
                self.kill(child)


@pytest.fixture
def children(sqlite, tmp_path):
    """Return what starts processes on the file of `sqlite`."""
    made = Children(sqlite, tmp_path / "diary")
    yield made
    made.close()
