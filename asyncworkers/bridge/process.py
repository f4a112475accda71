"""The parent's end of a child process: starts it, writes frames, reads frames and the ring, ends it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from asyncworkers.bridge.child import ring, wire
from asyncworkers.bridge.freighter import Freighter
from asyncworkers.bridge.protocol import BridgeBroken

__all__ = ["ProcessBridge"]

BOOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child", "boot.py")

PIPE = 1 << 18
"""Bytes that wait in a pipe at most. Linux gives each user 64 MB for all pipes."""

TAIL = 4096
"""Bytes of what a child said last on standard error that are kept."""

CHUNK = 65_536
"""Bytes of standard error read at a time."""


class ProcessBridge:
    """A child process, which runs jobs one after the other, and the way there and back.

    It knows frames and records, nothing of jobs. What comes is told to two callables, on the loop:
    `heard(kind, payload)` of each frame but those that wake, `ended()` when the channel has closed.
    Wakes, and frames of results, make it call `look()`, which is to read the ring.

    There is a pipe for each direction, which costs less than a pair of sockets. Everything here is the
    event loop's: no thread, and nothing that blocks. Writing never waits: what the pipe does not take
    now is kept and written when it does.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        look: Callable[[], None],
        heard: Callable[[int, bytes | memoryview], None],
        ended: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._look = look
        self._heard = heard
        self._ended = ended
        self._unsent: deque[memoryview] = deque()
        self._frames = wire.FrameReader()
        self._process: subprocess.Popen[bytes] | None = None
        self._said = bytearray()
        self._open = False
        self._to_child = -1
        self.freighter = Freighter(loop)
        self.garbage: str | None = None  # what the child sent that was no frame

    # ---- its life

    def start(self, setup: dict[str, Any], environment: dict[str, str] | None = None) -> None:
        """Start the child; it says HELLO when it is ready. Raises BridgeBroken if that fails.

        It is a new interpreter, never a copy of this process: what runs here, threads and locks
        included, is no danger to it. It leads a session, and so a process group, of its own: a
        Ctrl-C at the terminal does not reach it, and it can be ended with all it has started.
        """
        with contextlib.ExitStack() as undo:
            try:
                theirs = self._make_channels(undo)
                undo.callback(self.freighter.close)
                arena = self.freighter.open()
                arguments = [str(each) for each in (*theirs[:4], arena)]
                self._process = subprocess.Popen(  # noqa: S603
                    [sys.executable, *_interpreter_flags(), BOOT, *arguments],
                    stdin=subprocess.DEVNULL,
                    stderr=theirs[4],
                    pass_fds=theirs[:4] if arena < 0 else (*theirs[:4], arena),
                    env=environment,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                raise BridgeBroken(f"no child process could be started: {error}") from error
            undo.pop_all()
        for descriptor in theirs:
            os.close(descriptor)
        self.pid = self._process.pid
        self._open = True
        _bridges.add(self)
        self._loop.add_reader(self._from_child, self._read)
        self._loop.add_reader(self._stderr, self._hear_stderr)
        self.write(wire.frame(wire.SETUP, pickle.dumps(setup, 5)))

    def _make_channels(self, undo: contextlib.ExitStack) -> tuple[int, int, int, int, int]:
        """The pipes there and back, the shared memory, the lifeline and standard error; the child's
        ends of them.
        """

        def keep(descriptor: int) -> int:
            undo.callback(os.close, descriptor)
            return descriptor

        orders, self._to_child = map(keep, _pipe())
        self._from_child, answers = map(keep, _pipe())
        os.set_blocking(self._to_child, False)
        os.set_blocking(self._from_child, False)
        memory = keep(_memory(ring.SIZE))
        self.shared = ring.Shared(memory)
        undo.callback(self.shared.close)
        self.shared.words[ring.SLEEPS] = 1
        self.ring = ring.RingReader(self.shared)
        watched, self._lifeline = map(keep, os.pipe())
        self._stderr, stderr = map(keep, os.pipe())
        os.set_blocking(self._stderr, False)
        return orders, answers, memory, watched, stderr

    def interrupt(self, job: int) -> None:
        """Have the running job stopped politely, if it still is this one."""
        self.shared.words[ring.INTERRUPT] = job
        self.shared.places[job & ring.MASK] = 1
        ring.fence()
        self._signal(signal.SIGUSR1, group=False)

    def kill(self) -> None:
        """Kill the child and all it has started."""
        self._signal(signal.SIGKILL, group=True)

    def hang_up(self) -> None:
        """Say that there is nothing more to do: the child ends by itself."""
        if self._open and self._to_child >= 0:
            if not self._unsent:
                self.write(wire.frame(wire.BYE))
            self._loop.remove_writer(self._to_child)
            self._unsent.clear()
            os.close(self._to_child)
            self._to_child = -1

    def _signal(self, number: signal.Signals, *, group: bool) -> None:
        if self._process is not None and (group or self._process.returncode is None):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                (os.killpg if group else os.kill)(self._process.pid, number)

    def has_ended(self) -> bool:
        """Whether the process has ended; asks the system."""
        return self._process is None or self._process.poll() is not None

    def wait(self, seconds: float) -> None:
        """Block until the process, which was killed, has ended."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)

    @property
    def exit_code(self) -> int | None:
        """Its exit code; of a signal, the negative number. None if that is not known."""
        return None if self._process is None else self._process.returncode

    @property
    def is_open(self) -> bool:
        """Whether there is a child, or what one has left to be read."""
        return self._open

    @property
    def memory(self) -> int | None:
        """Bytes of memory the child has now, without what it shares with others; None if the
        system does not say.
        """
        try:
            with open(f"/proc/{self.pid}/statm", "rb", buffering=0) as file:
                resident, shared = file.read(200).split()[1:3]
            return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None

    @property
    def dropped(self) -> int:
        """Log records the child could not send."""
        return self.shared.words[ring.DROPPED] if self._open else 0

    @property
    def last_words(self) -> str:
        """What it said last on standard error."""
        return self._said.decode("utf-8", "backslashreplace")

    def close(self) -> None:
        """Let go of everything. The process must have ended, or is left to itself."""
        if self._open:
            self.hang_up()
            self._open = False
            self._loop.remove_reader(self._from_child)
            self._loop.remove_reader(self._stderr)
            self._hear_stderr()
            for descriptor in (self._from_child, self._lifeline, self._stderr):
                os.close(descriptor)
            self.shared.close()

    def let_go_in_copy(self, nowhere: int) -> None:
        """This is a copy that was forked: have our ends of what the child waits for lead nowhere."""
        if self._open:
            for descriptor in (self._lifeline, self._to_child):
                if descriptor >= 0:
                    os.dup2(nowhere, descriptor, inheritable=False)

    # ---- the control page

    def current(self) -> int:
        """The number of the job the child runs, or ran last."""
        return self.shared.words[ring.CURRENT]

    def started(self) -> int:
        """When that began, in nanoseconds of the monotonic clock."""
        return self.shared.words[ring.STARTED]

    def sleep(self, asleep: bool) -> None:
        """Say whether the child must wake us when there is a record."""
        self.shared.words[ring.SLEEPS] = asleep
        if asleep:
            ring.fence()

    @property
    def asleep(self) -> bool:
        """Whether the child must, and has not yet."""
        return bool(self.shared.words[ring.SLEEPS])

    def take_back(self, job: int) -> bool:
        """Have the child skip the job; False if it has come to it already."""
        self.shared.places[job & ring.MASK] = 1
        ring.fence()
        return self.shared.words[ring.CURRENT] < job

    # ---- writing

    @property
    def clogged(self) -> bool:
        """Whether the pipe has not taken all that was written."""
        return bool(self._unsent)

    def write(self, data: bytes | memoryview) -> None:
        """Write, without ever waiting; into the void, after `hang_up`."""
        if not self._unsent:
            try:
                sent = os.write(self._to_child, data)
            except BlockingIOError:
                sent = 0
            except OSError:  # it has died, which `_read` will notice
                return
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            self._loop.add_writer(self._to_child, self._write_on)
        self._unsent.append(memoryview(data))

    def _write_on(self) -> None:
        unsent = self._unsent
        try:
            part = unsent[0][: wire.STEP]
            sent = os.write(self._to_child, part)
            unsent[0] = unsent[0][sent:]
            if not unsent[0].nbytes:
                unsent.popleft()
        except BlockingIOError:
            return
        except OSError:
            unsent.clear()
        if not unsent:
            self._loop.remove_writer(self._to_child)
            self._look()

    # ---- reading

    def _read(self) -> None:
        count = self._read_frames()
        if count > 0:
            self._look()
        elif not count:
            self._loop.remove_reader(self._from_child)
            self._ended()

    def _read_frames(self) -> int:
        """Read once and tell of the frames; how many bytes came, -1 if none did, 0 at the end."""
        try:
            count = os.readv(self._from_child, [self._frames.room()])
        except BlockingIOError:
            return -1
        except OSError:
            return 0
        if count:
            try:
                frames = self._frames.took(count)
            except wire.ProtocolError as error:
                self.garbage = str(error)
                return 0
            for kind, payload in frames:
                self._heard(kind, payload)
        return count

    def read_on(self) -> bool:
        """Read what has come already, without looking at the ring; False if there is nothing."""
        return self._open and self._read_frames() > 0

    def _hear_stderr(self) -> None:
        try:
            data = os.read(self._stderr, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._stderr)
            return
        self._said += data
        del self._said[:-TAIL]
        with contextlib.suppress(Exception):  # whatever stands there: nobody can be told
            sys.stderr.write(data.decode("utf-8", "backslashreplace"))
            sys.stderr.flush()


_bridges: WeakSet[ProcessBridge] = WeakSet()
"""All there are, so that a forked copy of this process lets go of their children."""


def _let_go_in_copy() -> None:
    """A child ends when its parent's ends of the pipes are closed: a copy must not keep them open, for
    it may outlive the parent. Their numbers stay taken, so that nothing else is closed by them later.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for bridge in tuple(_bridges):
        bridge.let_go_in_copy(nowhere)
    os.close(nowhere)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_let_go_in_copy)


def _pipe() -> tuple[int, int]:
    """A pipe that takes as much at a time as is worth a turn of the loop, where the system lets us."""
    ends = os.pipe()
    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE)
    return ends


def _memory(size: int) -> int:
    """A descriptor of memory that has no name, so that nobody can leave it behind."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("asyncworkers")
    else:
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)
    os.ftruncate(descriptor, size)
    return descriptor


def _interpreter_flags() -> list[str]:
    """The flags this interpreter was started with, so that a child understands code the same way."""
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined, no-any-return]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]
