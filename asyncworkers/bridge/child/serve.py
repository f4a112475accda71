"""The child: reads frames, runs jobs one after the other, and writes their ends into the ring."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from select import select
from time import monotonic_ns
from types import FrameType

from . import pickling as pickle
from .arena import Memory
from .chunk import CHUNKED, Chunk, unread
from .freight import (
    Arrived,
    Freight,
    discard,
    finish,
    open_steps,
    pack,
    pack_small,
    ship_steps,
    unpack,
)
from .home import Home, tell_on_stderr
from .lifeline import die_with_parent
from .prepare import Served, prepare
from .raising import Interrupted, raise_in
from .ring import (
    ASK,
    CURRENT,
    DROPPED,
    ELSEWHERE,
    ERROR,
    FREIGHT,
    INTERRUPT,
    LARGEST,
    MASK,
    NOTE,
    SAID,
    SKIPPED,
    SLEEPS,
    STARTED,
    UNFIT,
    VALUE,
    WORN,
    RingWriter,
    Shared,
    fence,
)
from .trouble import describe, unpicklable
from .wire import (
    ANSWER,
    BYE,
    DEFINE,
    FORGET,
    HELLO,
    JOBS,
    RESULT,
    SETUP,
    TRIM,
    WAKE_UP,
    FrameReader,
    ProtocolError,
    frame,
    long_frame,
    open_long,
)
from .wire import FREIGHT as FREIGHT_FRAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")

__all__ = ["Serving", "main"]

PLAIN = frozenset((int, float, bool, complex, str))
"""Types of values that hold no big data, as far as pickle can tell it apart."""

HIGH = 200
"""The protocol's descriptors get at least this number, out of the way of code that closes the first."""

NO_ROOM = """\
big arguments lie in shared memory, for which this process has no room in its address space: \
limit its own memory instead, by RLIMIT_DATA, not RLIMIT_AS"""

CARRIED = 0
"""The number of functions that travel with each job, as its first argument."""

serving: Serving | None = None
"""What this process serves, if it is a child."""


class Serving:
    """All a child is: its pipes, its shared memory, the functions it knows, the job it runs."""

    def __init__(self, orders: int, answers: int, shared: Shared, arena: int) -> None:
        self.setup: dict[str, Any] = {}
        self.number = CARRIED  # of the function that runs
        self.attempt = 1
        self.functions: dict[int, Callable[..., Any]] = {}
        self.definitions: dict[int, Any] = {}
        self.shared = shared
        self.words = shared.words
        self._orders, self._answers = orders, answers
        self._arena = arena
        self._memory: Memory | None = None
        self._reader = FrameReader()
        self._inbox: deque[tuple[int, Any]] = deque()
        self._ring = RingWriter(shared, self._wake)
        self._writing = threading.RLock()  # a job's own threads may write notes
        self._inside = bytearray(1)  # not 0 while the code of a job runs, which may be interrupted
        self._enough: Callable[[], str | None] | None = None  # asked after each job
        self._worn = False  # it has served enough
        self._forked = False  # this is a copy of the child, with which the parent has nothing to do

    # ---- the pipes

    def _next_frame(self) -> tuple[int, Any] | None:
        """The next frame; None if the parent has closed, or said that it does."""
        while not self._inbox:
            if not self._receive():
                return None
        if self._inbox[0][0] == BYE:
            return None  # and it stays there: nothing comes after it
        return self._inbox.popleft()

    def _receive(self) -> bool:
        """Read once, and wait for something to be read; False if the parent has closed."""
        count = os.readv(self._orders, [self._reader.room()])
        if count:
            self._inbox.extend(self._reader.took(count))
        return count > 0

    def write(self, data: bytes | memoryview) -> None:
        """Write all of it, however long the parent takes to read it."""
        rest = memoryview(data)
        while rest.nbytes:
            rest = rest[os.write(self._answers, rest[: 1 << 20]) :]

    def _wake(self) -> None:
        """Wake the parent if it sleeps. What is to be seen was written before."""
        fence()
        if self.words[SLEEPS]:
            self.words[SLEEPS] = 0
            os.write(self._answers, WAKE_UP)  # so little is written whole

    # ---- serving

    def serve(self) -> None:
        """Do what the parent says until it closes."""
        self.write(frame(HELLO))
        while (found := self._next_frame()) is not None:
            kind, payload = found
            if kind in (JOBS, FREIGHT_FRAME) and self._worn:
                continue
            if kind == JOBS:
                self._run_all(*pickle.loads(payload))  # from our parent
                del payload, found
                self._wake()
            elif kind == FREIGHT_FRAME:
                job, entry, arrived = self._arrived(payload)
                del payload, found  # from here on only the job has it
                entries = [(entry[0], arrived, *entry[1:])]
                del arrived
                self._run_all(job, entries)
                self._wake()
            elif kind == DEFINE:
                number, definition = pickle.loads(payload)
                self.definitions[number] = definition
            elif kind == FORGET:
                for number in pickle.loads(payload):
                    self.definitions.pop(number, None)
                    self.functions.pop(number, None)
            elif kind == TRIM:
                self._trim()
            elif kind != ANSWER:  # which may come too late, if whoever asked was interrupted
                raise ProtocolError(f"a frame of kind {kind} from the parent")
            if self._memory is not None:
                self._memory.looker.poll()

    # ---- big data

    @property
    def memory(self) -> Memory | None:
        """The arena, mapped when it is needed first; None if there is none, or no room for it here."""
        if self._memory is None and self._arena >= 0:
            try:
                self._memory = Memory.attach(self._arena)
            except OSError:  # a limit of the address space, say
                return None
        return self._memory

    def _arrived(self, payload: bytes | memoryview) -> tuple[int, tuple[Any, ...], Any]:
        """A job's number, its entry, and its arguments as they lie in the arena.

        This is done before the job begins, for nothing may interrupt it. If there is no memory for
        them, that is what the job raises.
        """
        (job, *entry), message = open_long(payload)
        looker = None if self.memory is None else self.memory.looker
        if self.shared.places[job & MASK]:
            discard(message, looker)
            return job, tuple(entry), ()
        try:
            return job, tuple(entry), finish(open_steps(message, looker))
        except MemoryError as error:
            return job, tuple(entry), error.with_traceback(None)
        except ValueError:
            if looker is not None or self._arena < 0:
                raise
            return job, tuple(entry), MemoryError(NO_ROOM)

    def _trim(self) -> None:
        """Give the memory of results back, unless there is something better to do."""
        if self._memory is not None:
            for _ in self._memory.writer.trim_steps():
                if self._inbox or select([self._orders], (), (), 0)[0]:
                    break

    def _pack(self, job: int, value: object) -> tuple[int, bytes]:
        """The record of a value that may be big, or may not be picklable."""
        items: Any = value if value.__class__ is tuple else (value,)
        try:
            small = pack_small(value, items)
            if small is not None:
                return VALUE, small
            freight = pack(value)
        except BaseException as error:
            function = self.functions[self.number]
            if not isinstance(function, Chunk):
                return ERROR, unpicklable(value, error)
            end: Any = value
            freight = pack(function.shortened(end, _trouble_with))
        if not freight.pieces:
            return VALUE, freight.stream
        return self._ship(job, freight)

    def _ship(self, job: int, freight: Freight) -> tuple[int, bytes]:
        try:
            writer = None if self.memory is None else self.memory.writer
            parts = finish(ship_steps(freight, writer))
        except BaseException as error:  # there is no memory
            return ERROR, describe(error)
        if len(parts) == 1 and len(parts[0]) <= LARGEST:
            return FREIGHT, bytes(parts[0])
        self._send_result(FREIGHT, job, parts)
        return ELSEWHERE, b""

    def _run_all(self, job: int, entries: list[tuple[Any, ...]]) -> None:
        at = 0
        while at < len(entries):
            at = Context().run(self._run, job, entries, at)

    def _run(self, first: int, entries: list[tuple[Any, ...]], at: int) -> int:
        """Run jobs until there are no more of them or one has left context variables behind; how
        far that went. The path of each job.
        """
        words, places, inside = self.words, self.shared.places, self._inside
        functions, put, dumps = self.functions, self._ring.put, pickle.dumps
        enough = self._enough
        ended = monotonic_ns()
        while at < len(entries):
            entry = entries[at]
            job = first + at
            words[STARTED] = started = ended
            words[CURRENT] = job
            fence()
            if at and words[SLEEPS]:  # the end of the job before is to be seen
                words[SLEEPS] = 0
                os.write(self._answers, WAKE_UP)
            value = arguments = None
            try:
                inside[0] = 1  # from here on it may be interrupted, so look whether it was before
                if places[job & MASK]:
                    raise _TakenBack
                self.number = entry[0]
                arguments = entry[1]
                self.attempt = 1 if len(entry) == 2 else entry[2]
                function = functions.get(entry[0]) or self._function(entry[0])
                if len(entry) == 4:
                    _open_luggage(entry[3])
                if arguments.__class__ is tuple:  # noqa: SIM108
                    value = function(*arguments)
                else:
                    value = _call_packed(function, arguments)
                inside[0] = 0
                if self._forked:  # this copy has come back from its job, and nobody waits for that
                    raise SystemExit
            except BaseException as error:
                inside[0] = 0
                if self._forked:
                    raise
                kind, payload = _failed(error)
                enough = self._enough
            else:
                kind, payload = VALUE, b""
                if value is not None:
                    try:
                        if type(value) in PLAIN:
                            payload = dumps(value, 5)
                        else:
                            kind, payload = self._pack(job, value)
                    except BaseException as error:  # there is no memory, say
                        kind, payload = ERROR, describe(error)
            ended = monotonic_ns()
            if len(payload) > LARGEST:
                self._send_result(kind, job, [payload])
                kind, payload = ELSEWHERE, b""
            with self._writing:
                put(kind, job, started, ended, payload)
            at += 1
            entries[at - 1] = ()
            entry, arguments, value, payload, function = (), None, None, b"", _call  # keep nothing
            if enough is not None and kind != SKIPPED and (cause := enough()) is not None:
                self._worn = True
                self._put(WORN, cause.encode())
                return len(entries)
            if len(copy_context()):
                break
        return at

    def _send_result(self, kind: int, job: int, parts: Sequence[bytes | memoryview]) -> None:
        with self._writing:
            for part in long_frame(RESULT, (kind, job), parts):
                self.write(part)

    def _function(self, number: int) -> Callable[..., Any]:
        """Make the function of this number, which a job wants for the first time."""
        if number == CARRIED:
            function: Callable[..., Any] = _call
        else:
            function = _made(self.definitions[number])
        self.functions[number] = function
        return function

    # ---- its life

    def make_ready(self, setup: dict[str, Any]) -> bool:
        """Do what its queue wants done before the first job; False if that failed."""
        self.setup = setup
        os.register_at_fork(after_in_child=self._disown)
        if setup["max_jobs"] is not None or setup["max_memory"] is not None:
            self._enough = Served(setup["max_jobs"], setup["max_memory"]).enough
        try:
            prepare(setup, Home(self._say, self._count_dropped, setup["levels"]))
        except BaseException as error:
            self._put(UNFIT, describe(error))
            return False
        return True

    def _disown(self) -> None:
        """This is a copy of the child that a job has forked: it must keep off what they share."""
        self._forked = True
        self._inside[0] = 0

    def _say(self, record: bytes) -> bool:
        """Send a log record, from any thread; False if there is no room for it now.

        It may be said in the middle of anything, for a finalizer or a signal handler may log: also
        of writing to the ring. Then there is no room either.
        """
        if self._forked:
            return tell_on_stderr(record)
        if self._is_writing():
            return False
        with self._writing:
            if self._ring.is_crowded(len(record)):
                return False
            self._put(SAID, record)
            if not self._inside[0]:
                self.write(WAKE_UP)  # no end of a job follows, at which the parent looks
        return True

    def _count_dropped(self) -> None:
        self.words[DROPPED] += 1

    # ---- what the running job may do

    def note(self, details: Any) -> None:
        """Tell the parent something about the running job; may be called from any thread.

        Nothing is told if this comes in the middle of telling something, from a signal handler say.
        """
        if not self._is_writing():
            self._put(NOTE, pickle.dumps(details, 5))

    def ask(self, details: Any) -> Any:
        """Ask the parent something about the running job and wait for the answer.

        In the job's own thread only: elsewhere it would read what is meant for the main thread; and
        a process that the job has forked, what is meant for this one.
        """
        if self._forked:
            raise RuntimeError("this must be asked before the job forks")
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("this must be asked in the main thread of the process first")
        if self._is_writing():
            raise RuntimeError(
                "this must be asked before: now the child is in the middle of telling something"
            )
        self._put(ASK, pickle.dumps(details, 5))
        while True:
            select([self._orders], (), ())  # to wait here may be interrupted, to read may not
            answer = self._undisturbed(self._read_answer)
            if answer is not None:
                return answer[0]

    def _read_answer(self) -> tuple[Any] | None:
        """Read what has come; the answer to the running job, if it is there. All stays in the inbox."""
        if not self._receive():
            raise EOFError("the parent has closed")
        for kind, payload in self._inbox:
            if kind == BYE:
                raise EOFError("the parent is about to close")
            if kind == ANSWER:
                job, answer = pickle.loads(payload)  # from our parent
                if job == self.words[CURRENT]:
                    return (answer,)
        return None

    def _is_writing(self) -> bool:
        """Whether this thread is in the middle of writing to the parent."""
        return bool(getattr(self._writing, "_is_owned")())  # noqa: B009  # in no type's stub

    def _put(self, kind: int, payload: bytes) -> None:
        if not self._forked:
            self._undisturbed(lambda: self._write_record(kind, payload))

    def _write_record(self, kind: int, payload: bytes) -> None:
        now = monotonic_ns()
        with self._writing:
            self._ring.put(kind, self.words[CURRENT], now, now, payload)
            self._wake()

    def _undisturbed(self, do: Callable[[], T]) -> T:
        """Do what must not be left half done; an interrupt that comes meanwhile is raised afterwards."""
        main = threading.current_thread() is threading.main_thread()
        was_inside = self._inside[0]
        if main:
            self._inside[0] = 0
        try:
            done = do()
        finally:
            if main:
                self._inside[0] = was_inside
        if main and was_inside and self.words[INTERRUPT] == self.words[CURRENT]:
            self._look_for_imports(sys._getframe())
            self._inside[0] = 0
            raise Interrupted
        return done

    def current(self) -> int:
        """The number of the running job."""
        return self.words[CURRENT]

    def runs_job(self) -> bool:
        """Whether a job runs now."""
        return bool(self._inside[0])

    def is_over(self, job: int) -> bool:
        """Whether the job of this number has ended, or the parent wants it to."""
        return self.words[INTERRUPT] == job or self.words[CURRENT] != job or not self.runs_job()

    def is_unwanted(self, job: int) -> bool:
        """Whether the parent wanted the job of this number to stop."""
        return self.words[INTERRUPT] == job

    def interrupt(self, _number: int, frame: FrameType | None) -> None:
        """The signal by which the parent asks for the running job's end."""
        if self._inside[0] and self.words[INTERRUPT] == self.words[CURRENT]:
            self._look_for_imports(frame)
            raise_in(frame, self._stop_job)

    def _look_for_imports(self, frame: FrameType | None) -> None:
        """A module that is left half imported is so for all jobs that come: let there be none."""
        while frame is not None and frame.f_code is not _run_code:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                self._enough = lambda: "a job was stopped there in the middle of an import"
            frame = frame.f_back

    def _stop_job(self) -> None:
        if self._inside[0] and self.words[INTERRUPT] == self.words[CURRENT]:
            self._inside[0] = 0
            raise Interrupted


_run_code = Serving._run.__code__


class _TakenBack(BaseException):
    """The parent has taken the job back before it began."""


def _failed(error: BaseException) -> tuple[int, bytes]:
    if isinstance(error, _TakenBack):
        return SKIPPED, b""
    return ERROR, describe(error)


def _trouble_with(value: object) -> bytes | None:
    """What there is to say against pickling a value, if anything is."""
    try:
        pack(value)
    except BaseException as error:
        return unpicklable(value, error)
    return None


def _open_luggage(luggage: tuple[str, str, str, Any] | None) -> None:
    """Have what came along with a job do its part, if it is of use here; no job fails by it."""
    if luggage is not None:
        needs, module, name, data = luggage
        try:
            if needs in sys.modules:
                __import__(module)
                getattr(sys.modules[module], name)(data)
        except Exception:  # noqa: S110  # best effort
            pass


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _call_packed(function: Callable[..., Any], packed: Any) -> Any:
    if isinstance(packed, BaseException):  # the parent could not send what it should
        raise packed
    try:
        if isinstance(packed, Arrived):
            args, kwargs, variables = unpack(*packed)
        else:
            args, kwargs, variables = pickle.loads(packed)  # from our parent
    except Exception as error:
        if isinstance(function, Chunk):
            return unread(error)
        raise
    for (module, name), value in variables:
        try:
            __import__(module)
            getattr(sys.modules[module], name).set(pickle.loads(value))
        except Exception:  # noqa: S112  # it cannot live here: best effort
            continue
    return function(*args, **kwargs)


def _made(definition: Any) -> Callable[..., Any]:
    if isinstance(definition, bytes):
        function: Callable[..., Any] = pickle.loads(definition)  # from our parent
        return function
    first, *rest = definition
    return Chunk(*map(_made, rest)) if first == CHUNKED else _find(first, *rest)


def _find(module: str, qualname: str) -> Any:
    """The function of this name, without what a decorator of ours has made of it."""
    __import__(module)
    found: Any = sys.modules[module]
    for name in qualname.split("."):
        found = getattr(found, name)
    policies = getattr(found, "policies", None)
    return found.function if policies is not None and hasattr(found, "function") else found


def main(orders: int, answers: int, memory: int, lifeline: int, arena: int) -> None:
    """Serve the parent at the other end of the pipes until it closes."""
    global serving  # noqa: PLW0603  # there is one in a process
    signal.signal(signal.SIGINT, _unheard)  # programs that a job starts do hear it
    die_with_parent(_dup_high(lifeline))
    orders, answers = _dup_high(orders), _dup_high(answers)
    shared = Shared(memory)
    os.close(memory)
    serving = Serving(orders, answers, shared, arena if arena < 0 else _dup_high(arena))
    signal.signal(signal.SIGUSR1, serving.interrupt)
    first = serving._next_frame()
    if first is None:
        return
    kind, payload = first
    if kind != SETUP:
        raise ProtocolError(f"a frame of kind {kind} came before the setup")
    setup = pickle.loads(payload)  # from our parent
    sys.path[:], sys.argv[:] = setup["path"], setup["argv"]
    _enable_fault_handler()
    if serving.make_ready(setup):
        serving.serve()


def _unheard(_number: int, _frame: FrameType | None) -> None:
    """A signal that concerns our parent only."""


def _dup_high(descriptor: int) -> int:
    import fcntl

    try:
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH)
    except OSError:  # fewer descriptors are allowed
        os.set_inheritable(descriptor, False)
        return descriptor
    os.close(descriptor)
    return high


def _enable_fault_handler() -> None:
    import faulthandler

    try:
        faulthandler.enable()
    except (OSError, RuntimeError, ValueError):  # standard error is closed: nobody would read it
        return
