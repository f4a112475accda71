"""Bad input (group B): every argument of the public API is tried with everything that does not belong.

The tables here are complete by test: `test_every_argument_is_in_the_tables` compares them with the
signatures. For each argument a `Kind` says what is accepted, by a rule written anew, and every value
of one corpus is tried: what is accepted must be taken, and anything else refused at the call, by an
error of the right class that names argument and value, with nothing done.
"""

import asyncio
import dataclasses
import enum
import functools
import inspect
import math
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from invariants import echo, trial, turns

import asyncworkers
from asyncworkers import (
    CancelToken,
    Job,
    JobNotFound,
    Queue,
    Retry,
    SignedPickle,
    Stream,
    Supervisor,
    Unique,
    cli,
    current_job,
    job,
    run,
)
from asyncworkers.bridge.terms import has_interpreters
from asyncworkers.function import Options
from asyncworkers.testing import no_leaks

Log = pytest.LogCaptureFixture

YEARS = 10 * 366 * 86_400


# ---- B01 and B02: the corpus


class Text(str):
    """A text by inheritance."""

    __slots__ = ()


class Number(int):
    """A number by inheritance."""


class Color(enum.IntEnum):
    """A number by another name."""

    RED = 3


class LikeAnInt:
    """As the numbers of numerical libraries are: no int, but it could be made one."""

    def __index__(self) -> int:
        return 5

    __int__ = __index__

    def __repr__(self) -> str:
        return "int64(5)"


class Hostile:
    """Nothing can be asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("hostile")

    def __bool__(self) -> bool:
        raise RuntimeError("hostile")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("hostile")

    __hash__ = object.__hash__


CORPUS: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    7,
    99,
    100,
    101,
    -100,
    -101,
    1_000,
    1_001,
    1_000_000,
    1_000_001,
    10_000_001,
    YEARS,
    YEARS + 1,
    2**31,
    2**63,
    2**63 + 1,
    2**200,
    10**400,
    0.0,
    -0.0,
    0.5,
    1.0,
    1.5,
    -0.5,
    1e-300,
    1e300,
    math.nan,
    math.inf,
    -math.inf,
    1j,
    LikeAnInt(),
    Number(7),
    Color.RED,
    "",
    " ",
    "a",
    "7",
    "loop",
    "threads",
    "processes",
    "through",
    "log",
    "shared",
    "existing",
    "task",
    "submitter",
    "none",
    "queued",
    "default",
    "x" * 1_000_000,
    Text("default"),
    b"",
    b"default",
    bytearray(b"default"),
    timedelta(0),
    timedelta(seconds=5),
    timedelta(days=-1),
    timedelta.max,
    datetime(2030, 1, 1),  # noqa: DTZ001  # the naive one
    datetime(2030, 1, 1, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=timezone(timedelta(hours=3))),
    [],
    (),
    {},
    {1},
    [1],
    ["a"],
    ["a"] * 17,
    ["a" * 65],
    ["a\nb"],
    [""],
    [None],
    (ContextVar("one"),),
    ValueError,
    (ValueError, OSError),
    [ValueError, 5],
    [BaseException],
    KeyboardInterrupt,
    ValueError(),
    int,
    object,
    object(),
    len,
    print,
    echo,
    echo.__call__,
    ...,
    NotImplemented,
    Hostile(),
    Retry(3, on=ValueError),
    Queue("mine"),
    [Queue("mine")],
    [Queue("mine"), Queue("mine")],
    [Queue("mine"), 5],
    [print],
    [print, 5],
]

# ---- B03: names

NAMES = [
    "a\0b",
    "a\nb",
    "a\r\nb",
    'a"b',
    "a'b",
    "a;b",
    "a; DROP TABLE jobs",
    "../a",
    "a/b",
    "a\\b",
    ".a",
    "-a",
    "a b",
    "a\t",
    "a\u202eb",
    "a\u200bb",
    "\u0430",  # a Cyrillic a
    "ä",
    "\N{SNAKE}",
    "\ud800",
    "A",
    "Default",
    "%s",
    "{0}",
    "a" * 64,
    "a" * 65,
    "a" * 128,
    "a" * 129,
    "a.b_c-d",
    "_a",
    "1a",
    "a:b",
    "<lambda>",
    "a<b>",
    "a\n",
]
CORPUS += NAMES


# ---- what is accepted, said once more


Verdict = type[Exception] | None


@dataclasses.dataclass
class Kind:
    """Which values an argument accepts: None for those, or the class of the error."""

    judge: Callable[[Any], Verdict]

    def or_none(self) -> "Kind":
        return Kind(lambda value: None if value is None else self.judge(value))


def whole(low: int, high: int) -> Kind:
    """An int, and no bool."""

    def judge(value: Any) -> Verdict:
        if type(value) is not int:
            return TypeError
        return None if low <= value <= high else ValueError

    return Kind(judge)


def duration(*, zero: bool = True, least: float = 0.0) -> Kind:
    """Seconds or a timedelta, finite and at most ten years."""

    def judge(value: Any) -> Verdict:
        if isinstance(value, timedelta):
            value = value.total_seconds()
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return TypeError
        good = value == value and least <= value <= YEARS and (zero or value != 0)
        return None if good else ValueError

    return Kind(judge)


def number(low: float = -math.inf) -> Kind:
    """Any number that is finite, also as a float."""

    def judge(value: Any) -> Verdict:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return TypeError
        good = abs(value) <= sys.float_info.max
        return None if good and value >= low else ValueError

    return Kind(judge)


def name(pattern: str) -> Kind:
    """A str, exactly, that the pattern matches as a whole."""

    def judge(value: Any) -> Verdict:
        if type(value) is not str:
            return TypeError
        return None if re.fullmatch(pattern, value) else ValueError

    return Kind(judge)


def one_of(*allowed: Any, otherwise: type[Exception] = ValueError) -> Kind:
    """One of a few texts."""

    def judge(value: Any) -> Verdict:
        if type(value) is not str:
            return TypeError
        return None if value in allowed else otherwise

    return Kind(judge)


def instance(kind: type) -> Kind:
    """An instance."""
    return Kind(lambda value: None if isinstance(value, kind) else TypeError)


def _is_iterable(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes))


def _judge_queues(value: Any) -> Verdict:
    if not _is_iterable(value):
        return TypeError
    found = list(value)
    if not all(isinstance(one, Queue) for one in found):
        return TypeError
    names = [one.name for one in found]
    return ValueError if len(names) > len(set(names)) else None


def _judge_listeners(value: Any) -> Verdict:
    return None if _is_iterable(value) and all(callable(one) for one in value) else TypeError


def _judge_exceptions(value: Any) -> Verdict:
    found = list(value) if _is_iterable(value) and not isinstance(value, type) else [value]
    if not all(isinstance(one, type) and issubclass(one, Exception) for one in found):
        return TypeError
    return None if found else ValueError


def _judge_tags(value: Any) -> Verdict:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return TypeError
    found = list(value)
    if len(found) > 16:
        return ValueError
    if not all(type(one) is str for one in found):
        return TypeError
    return None if all(one.isprintable() and 1 <= len(one) <= 64 for one in found) else ValueError


def _judge_context(value: Any) -> Verdict:
    if type(value) is tuple:
        return None if all(isinstance(one, ContextVar) for one in value) else TypeError
    return None if type(value) is str and value in ("submitter", "none") else TypeError


def _judge_delay(value: Any) -> Verdict:
    if isinstance(value, datetime):
        return None if value.tzinfo is not None else ValueError
    return duration().judge(value)


def _judge_state(value: Any) -> Verdict:
    states = ("scheduled", "queued", "running", "succeeded", "failed", "cancelled")
    if type(value) is not str:
        return TypeError
    return None if value in states else ValueError


def _judge_initializer(value: Any) -> Verdict:
    return None if callable(value) and not inspect.iscoroutinefunction(value) else TypeError


def _judge_bridge(value: Any) -> Verdict:
    if isinstance(value, type):
        return None if issubclass(value, asyncworkers.Bridge) else TypeError
    return _judge_initializer(value)


def _judge_store(value: Any) -> Verdict:
    if isinstance(value, str):  # none of the corpus is a URL that names a store
        return ValueError if type(value) is str else TypeError
    return None if value is None or callable(value) else TypeError


def _judge_functions(value: Any) -> Verdict:
    if not _is_iterable(value):
        return TypeError
    return None if all(_makes_a_job(one) for one in value) else TypeError


def _makes_a_job(value: Any) -> bool:
    if isinstance(value, type) or not callable(value):
        return False
    return not (inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value))


def _judge_unique(value: Any) -> Verdict:
    if value is None or callable(value) or isinstance(value, Unique):
        return None
    if type(value) is not str:
        return TypeError
    sound = "\0" not in value and value.encode("utf-8", "replace").decode() == value
    return None if sound and 1 <= len(value) <= 256 else ValueError


def _judge_until(value: Any) -> Verdict:
    if isinstance(value, str):
        return one_of("started", "done").judge(value)
    return duration(zero=False).judge(value)


QUEUE_NAME = name(r"[a-z0-9][a-z0-9_.-]{0,63}")
FUNCTION_NAME = name(r"[A-Za-z_][A-Za-z0-9_.:<>-]{0,127}")
TEXT = Kind(lambda value: None if type(value) is str else TypeError)
FLAG = Kind(lambda value: None if type(value) is bool else TypeError)
CALLABLE = Kind(lambda value: None if callable(value) else TypeError)


class _Escort:
    """One that does nothing, which the corpus has none of: None stands for it."""

    submitted = sent = begun = ended = staticmethod(lambda *_: {})


ESCORT = Kind(lambda value: None if value is None else TypeError)
KNOWN_QUEUE = Kind(
    lambda v: (
        QUEUE_NAME.judge(v) or (None if v in ("default", "threads", "processes") else ValueError)
    )
)

SUPERVISOR = {
    "workers": whole(0, 1_000_000),
    "threads": whole(0, 10_000).or_none(),
    "processes": whole(0, 10_000).or_none(),
    "queues": Kind(_judge_queues),
    "maxsize": whole(1, 2**63).or_none(),
    "store": Kind(_judge_store),
    "functions": Kind(_judge_functions),
    "max_block": duration(zero=False),
    "grace": duration(),
    "restarts": whole(0, 1_000_000),
    "period": duration(zero=False),
    "stall": duration(least=0.01).or_none(),
    "listeners": Kind(_judge_listeners),
    "record": FLAG,
    "name": QUEUE_NAME.or_none(),
}
QUEUE = {
    "name": QUEUE_NAME,
    "workers": whole(0, 1_000_000).or_none(),
    "kind": one_of(
        "loop", "threads", "processes", *(["interpreters"] if has_interpreters() else [])
    ),
    "maxsize": whole(1, 2**63).or_none(),
    "isolation": one_of("shared", "task"),
    "unwind": duration().or_none(),
    "ageing": duration().or_none(),
    "bridge": Kind(_judge_bridge).or_none(),
    "stored": FLAG.or_none(),
    "codec": instance(SignedPickle).or_none(),
}
QUEUE_OF_PROCESSES = {
    "initializer": Kind(_judge_initializer).or_none(),
    "max_jobs": whole(1, 2**63).or_none(),
    "max_memory": whole(16 << 20, 2**63).or_none(),
    "nice": whole(0, 19).or_none(),
    "prints": one_of("through", "log").or_none(),
    "startup": duration(zero=False).or_none(),
}
RETRY = {
    "attempts": whole(1, 1_000),
    "on": Kind(_judge_exceptions),
    "delay": duration(),
    "factor": number(1),
    "maximum": duration(),
    "jitter": FLAG,
    "backoff": CALLABLE.or_none(),
}
UNIQUE = {
    "key": Kind(lambda value: TypeError if value is None else _judge_unique(value)),
    "until": Kind(_judge_until),
    "on_duplicate": one_of("existing", "replace", "reject"),
}
OPTIONS = {
    "name": FUNCTION_NAME.or_none(),
    "queue": QUEUE_NAME.or_none(),
    "cpu": FLAG,
    "retry": instance(Retry).or_none(),
    "timeout": duration(zero=False).or_none(),
    "expires": duration(zero=False).or_none(),
    "priority": whole(-100, 100),
    "delay": Kind(_judge_delay).or_none(),
    "tags": Kind(_judge_tags),
    "once": FLAG,
    "unique": Kind(_judge_unique).or_none(),
    "keep": duration().or_none(),
    "context": Kind(_judge_context),
}

Make = Callable[[str, Any], object]

CONSTRUCTORS: dict[str, tuple[dict[str, Kind], Make]] = {
    "Supervisor": (SUPERVISOR, lambda argument, value: Supervisor(**{argument: value})),
    "Queue": (QUEUE, lambda argument, value: Queue(**{"name": "mine", argument: value})),
    "Queue of processes": (
        QUEUE_OF_PROCESSES,
        lambda argument, value: Queue("mine", kind="processes", **{argument: value}),
    ),
    "Unique": (UNIQUE, lambda argument, value: Unique(**{"key": "k", argument: value})),
    "Retry": (RETRY, lambda a, value: Retry(**{"attempts": 3, "on": ValueError, a: value})),
    "job(function, ...)": (OPTIONS, lambda argument, value: job(blocks, **{argument: value})),
    "job(...)": (OPTIONS, lambda argument, value: job(**{argument: value})),
    ".options(...)": (OPTIONS, lambda argument, value: job(blocks).options(**{argument: value})),
}


def _tries(kinds: dict[str, Kind]) -> Iterator[tuple[str, Any, Verdict]]:
    for argument, kind in kinds.items():
        for value in CORPUS:
            yield argument, value, kind.judge(value)


def _refuses(
    use: Callable[[], object], argument: str, value: Any, expected: type[Exception]
) -> None:
    """The call raises just that class, in one line that names the argument and shows the value."""
    said = f"{argument} = {_shown(value)}"
    try:
        use()
    except (TypeError, ValueError) as error:
        raised: Exception = error
    else:
        raise AssertionError(f"{said} was accepted")
    assert type(raised) is expected, f"{said}: {raised!r}"
    message = str(raised)
    assert argument.removesuffix("s") in message, f"{said}: {message!r} does not name it"
    assert message.isprintable(), f"{said}: {message!r}"
    assert message.isascii(), f"{said}: {message!r}"
    assert len(message) < 300, f"{said}: {message!r}"
    shown = {_shown(value)}
    if isinstance(
        value, (list, tuple, set, dict, bytes, bytearray)
    ):  # the one that does not belong, or how many there are
        shown |= {_shown(one) for one in value} | {str(len(value)), "twice", "at least one"}
    assert any(one[:20] in message for one in shown), message


def _shown(value: Any) -> str:
    if isinstance(value, Hostile):
        return "<Hostile"
    return ascii(value)[:70]


# ---- completeness

NOT_FOR_USERS = {
    "Backlog": "made by backlog",
    "Health": "made by health",
    "HealthApp": "it takes a supervisor and nothing else, see test_health",
    "Secret": "it takes any value",
    "Subscription": "made by subscribe",
    "WorkerStats": "made by workers",
    "Bridge": "derived from by users",
    "Call": "made by JobFunction.bind",
    "CancelCallback": "made by on_cancel",
    "CancelToken": "made by the engine",
    "Cancelled": "a fact, made by the engine",
    "ChildStats": "made by stats",
    "CurrentJob": "made by current_job",
    "DrainReport": "made by drain",
    "Failed": "a fact, made by the engine",
    "Job": "made by submit",
    "JobFunction": "made by job",
    "JobState": "an enum",
    "Progress": "made by report",
    "QueueStats": "made by stats",
    "SignedPickle": "it never shows its keys, see test_fault_V14",
    "Stats": "made by stats",
    "Stream": "made by map",
    "Succeeded": "a fact, made by the engine",
    "TimedOut": "a fact, made by the engine",
    "Work": "made by the engine",
}
"""Classes whose constructor is not for users, or takes nothing that could be wrong."""

USES = {
    "Supervisor": {
        "submit": {"function"},
        "submit_nowait": {"function"},
        "submit_many": {"function", "items"},
        "call": {"function"},
        "map": {"function", "items", "ordered", "window", "cpu"},
        "submit_threadsafe": {"function"},
        "get": {"job_id"},
        "jobs": {"state", "queue", "name", "tag"},
        "cancel": {"job", "reason"},
        "cancel_all": {"reason"},
        "pause": {"queue"},
        "resume": {"queue"},
        "resize": {"queue", "workers"},
        "drain": {"grace"},
        "lifespan": {"_app"},
        "cleanup_ctx": {"_app"},
        "close": {"grace"},
        "listen": {"listener"},
        "on_error": {"witness"},
        "subscribe": {"limit"},
        "escort": {"escort"},
        "workers": {"most"},
        "iter_jobs": {"queue"},
        "health": {"patience"},
        "dashboard": {"auth", "actions", "hosts", "every", "clients"},
        "using": {"what"},
    },
    "Job": {"cancel": {"reason"}, "wait": {"timeout"}},
    "CurrentJob": {"report": {"done", "total", "message"}},
    "CancelToken": {"cancel": {"reason"}, "on_cancel": {"callback"}, "wait": {"seconds"}},
    "Stream": {"progress": {"title"}, "reduce": {"function"}},
    "JobFunction": {"options": set[str](), "bind": set[str]()},
    "Call": {"with_id": {"job_id"}},
    "Unique": {"key_of": {"args", "kwargs"}},
    "Retry": {"wants": {"error"}, "delay_after": {"attempt", "error", "roll"}},
    "run": {"main"},
    "job": {"function"},
    "RetryLater": {"seconds", "message"},
    "Bridge": {"run": {"work"}},
}
"""Every other argument there is; each is tried in a test below, but for what the engine asks
(`Retry`'s questions) or says (`CancelToken.cancel`), the application that a server hands on and
nobody looks at, what bridges are handed (`Bridge.run`), and what a job raises: `RetryLater` is
judged with the policies."""


def _arguments(function: Any) -> set[str]:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return {one.name for one in parameters if one.name != "self" and one.kind not in variable}


def test_every_argument_is_in_the_tables() -> None:
    """No public function, method or constructor has an argument that the tables do not know."""
    found: dict[str, Any] = {}
    for public in asyncworkers.__all__:
        one = getattr(asyncworkers, public)
        if inspect.isfunction(one):
            if _arguments(one):
                found[public] = _arguments(one)
        elif isinstance(one, type) and not issubclass(one, enum.Enum):
            methods = {
                key: _arguments(value)
                for key, value in vars(one).items()
                if inspect.isfunction(value) and not key.startswith("_")
            }
            methods = {
                key: names for key, names in methods.items() if names or key in ("options", "bind")
            }
            if methods:
                found[public] = methods
            elif issubclass(one, BaseException) and "__init__" in vars(one):
                found[public] = _arguments(one)
    assert found.pop("JobCancelled") == {"message", "reason"}  # made by the engine
    assert found.pop("DuplicateJob") == {"message", "job_id"}
    assert found.pop("JobTimedOut") == {"message", "timeout"}
    assert found.pop("SupervisorClosed") == {"message", "state"}
    assert found.pop("WorkerCrashed") == {"message", "status", "stderr"}
    assert found == USES
    assert _arguments(Supervisor) == SUPERVISOR.keys()
    assert _arguments(Queue) == QUEUE.keys() | QUEUE_OF_PROCESSES.keys()
    assert _arguments(Retry) == RETRY.keys()
    assert _arguments(Unique) == UNIQUE.keys()
    assert Options.__annotations__.keys() == OPTIONS.keys()
    classes = {
        public
        for public in asyncworkers.__all__
        if isinstance(getattr(asyncworkers, public), type)
        and not issubclass(getattr(asyncworkers, public), Exception)
    }
    assert classes - NOT_FOR_USERS.keys() == {"Supervisor", "Queue", "Retry", "Unique"}


# ---- constructors and options: B01, B02, B03


@pytest.mark.parametrize("what", CONSTRUCTORS)
def test_fault_B01_wrong_types_and_values(what: str) -> None:
    """Every argument with every value of the corpus: what is accepted is taken, all else is refused
    at the call, and nothing is left behind.
    """
    kinds, make = CONSTRUCTORS[what]
    accepted: set[str] = set()
    refused: set[str] = set()
    with no_leaks():
        for argument, value, expected in _tries(kinds):
            if expected is None:
                make(argument, value)
                accepted.add(argument)
            else:
                _refuses(lambda a=argument, v=value: make(a, v), argument, value, expected)
                refused.add(argument)
    assert accepted == refused == kinds.keys()


def test_fault_B01_iterables_that_can_be_read_once() -> None:
    """What is to be iterated may be an iterator, and is read once."""
    supervisor = Supervisor(queues=iter([Queue("mine")]), listeners=iter([print]))
    own = ["default", "threads", "processes"]
    assert [queue.name for queue in supervisor.queues] == [*own, "mine"]
    assert Retry(2, on=iter([ValueError])).on == (ValueError,)
    assert job(echo, tags=iter("ab")).policies.tags == ("a", "b")


@pytest.mark.parametrize("what", CONSTRUCTORS)
def test_fault_B02_out_of_range(what: str) -> None:
    """The error for a value out of range tells the range, for a number as for a word."""
    kinds, make = CONSTRUCTORS[what]
    told = 0
    for argument, value, expected in _tries(kinds):
        if expected is ValueError and argument not in ("queues", "on", "tags", "store"):
            with pytest.raises(ValueError) as caught:
                make(argument, value)
            message = str(caught.value)
            assert re.search(
                r"between .* and |to \d+ seconds|must match |one of |at least|finite|aware", message
            ), message
            told += 1
    assert told > 20


@pytest.mark.parametrize("value", NAMES, ids=ascii)
def test_fault_B03_one_rule_for_names(value: str) -> None:
    """A name of a queue is good or bad everywhere alike: declared, asked for by a function, used to
    steer, given to the supervisor itself; and so is that of a function.
    """
    ways: list[Callable[[], object]] = [
        lambda: Queue(value),
        lambda: Supervisor(name=value),
        lambda: job(echo, queue=value),
        lambda: job(echo).options(queue=value),
    ]
    good = re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,63}", value) is not None
    for way in ways:
        if good:
            way()
        else:
            with pytest.raises(ValueError, match=r"must match \[a-z0-9\]"):
                way()
    if good:
        Supervisor(queues=[Queue(value)])


def test_fault_B03_case_twins() -> None:
    """Names that differ in case only cannot be confused: there are no capitals."""
    assert Queue("mail").name == "mail"
    with pytest.raises(ValueError, match=r"Queue\.name must match"):
        Queue("Mail")


# ---- what a supervisor is asked


@dataclasses.dataclass
class Scene:
    """A supervisor that works, and a job of it that waits."""

    supervisor: Supervisor
    held: Job[Any]


async def _consume(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


SteerUse = Callable[[Scene, Any], Any]

STEERED: dict[str, tuple[str, Kind, SteerUse]] = {
    "map(ordered=)": ("ordered", FLAG, lambda s, v: s.supervisor.map(echo, [], ordered=v)),
    "map(cpu=)": (
        "cpu",
        FLAG,
        lambda s, v: s.supervisor.map(blocks, [], cpu=v),
    ),
    "map(window=)": (
        "window",
        whole(1, 10_000_000).or_none(),
        lambda s, v: s.supervisor.map(echo, [], window=v),
    ),
    "jobs(state=)": (
        "state",
        Kind(_judge_state).or_none(),
        lambda s, v: s.supervisor.jobs(state=v),
    ),
    "jobs(queue=)": ("queue", KNOWN_QUEUE.or_none(), lambda s, v: s.supervisor.jobs(queue=v)),
    "jobs(name=)": ("name", TEXT.or_none(), lambda s, v: s.supervisor.jobs(name=v)),
    "jobs(tag=)": ("tag", TEXT.or_none(), lambda s, v: s.supervisor.jobs(tag=v)),
    "cancel(reason=)": ("reason", TEXT, lambda s, v: s.supervisor.cancel("none-1", v)),
    "pause": ("queue", KNOWN_QUEUE, lambda s, v: _and_resume(s, v)),
    "resume": ("queue", KNOWN_QUEUE, lambda s, v: s.supervisor.resume(v)),
    "resize(queue)": ("queue", KNOWN_QUEUE, lambda s, v: s.supervisor.resize(v, 2)),
    "resize(workers)": (
        "workers",
        whole(0, 1_000_000),
        lambda s, v: (s.supervisor.resize("default", v), s.supervisor.resize("default", 2)),
    ),
    "listen": ("listener", CALLABLE, lambda s, v: s.supervisor.listen(v)()),
    "on_error": ("witness", CALLABLE, lambda s, v: s.supervisor.on_error(v)()),
    "subscribe": ("limit", whole(1, 10_000_000), lambda s, v: s.supervisor.subscribe(v).close()),
    "escort": ("escort", ESCORT, lambda s, v: _escorted(s, v)),
    "workers": ("most", whole(0, 1_000_000), lambda s, v: s.supervisor.workers(v)),
    "iter_jobs": ("queue", KNOWN_QUEUE.or_none(), lambda s, v: s.supervisor.iter_jobs(v)),
    "health(patience=)": ("patience", duration(), lambda s, v: s.supervisor.health(patience=v)),
    "dashboard(auth=)": (
        "auth",
        CALLABLE.or_none(),
        lambda s, v: s.supervisor.dashboard(auth=v),
    ),
    "dashboard(actions=)": (
        "actions",
        FLAG,
        lambda s, v: s.supervisor.dashboard(auth=None, actions=v),
    ),
    "dashboard(every=)": (
        "every",
        duration(zero=False),
        lambda s, v: s.supervisor.dashboard(auth=None, every=v),
    ),
    "dashboard(clients=)": (
        "clients",
        whole(0, 10_000),
        lambda s, v: s.supervisor.dashboard(auth=None, clients=v),
    ),
    "Stream.progress(title=)": ("title", TEXT.or_none(), lambda s, v: _titled(s, v)),
}


def _escorted(scene: Scene, escort: Any) -> None:
    scene.supervisor.escort(escort if escort is not None else _Escort())()


def _and_resume(scene: Scene, queue: Any) -> None:
    scene.supervisor.pause(queue)
    scene.supervisor.resume(queue)


def _titled(scene: Scene, title: Any) -> Any:
    stream = scene.supervisor.map(echo, [])
    try:
        return stream.progress(title)
    except TypeError:
        assert "not started" in repr(stream)
        stream.outcomes()._use()  # or it would complain that nobody used it
        raise


@pytest.mark.asyncio
@pytest.mark.parametrize("what", STEERED)
async def test_fault_B01_steering(caplog: Log, what: str) -> None:
    """What a supervisor is asked or told, with every value of the corpus: refused before anything
    is done, or done.
    """
    argument, kind, use = STEERED[what]
    accepted = refused = 0
    async with trial(caplog) as t:
        gate = asyncio.Event()
        held = await t.supervisor.submit(gate.wait)
        scene = Scene(t.supervisor, held)
        await turns()
        before = t.supervisor.stats(), repr(t.supervisor)
        for value in CORPUS:
            expected = kind.judge(value)
            if expected is None:
                found = use(scene, value)
                if isinstance(found, Stream):
                    assert await found == []
                accepted += 1
            else:
                _refuses(lambda v=value: use(scene, v), argument, value, expected)
                refused += 1
            assert (t.supervisor.stats(), repr(t.supervisor)) == before
        gate.set()
        assert await held is True
    assert accepted
    assert refused


AWAITED: dict[str, tuple[str, Kind, Callable[[Scene, Any], Awaitable[Any]]]] = {
    "Job.wait": ("timeout", duration().or_none(), lambda s, v: s.held.wait(v)),
    "drain": ("grace", duration().or_none(), lambda s, v: s.supervisor.drain(v)),
    "close": ("grace", duration().or_none(), lambda s, v: s.supervisor.close(v)),
    "Stream.reduce": ("function", CALLABLE, lambda s, v: _reduced(s, v)),
}


def _reduced(scene: Scene, function: Any) -> Any:
    stream = scene.supervisor.map(echo, [])
    stream._use()  # or it would complain that nobody used it
    return stream.reduce(function)


@pytest.mark.asyncio
@pytest.mark.parametrize("what", AWAITED)
async def test_fault_B01_what_is_awaited(caplog: Log, what: str) -> None:
    """The same for what is awaited: a refused drain drains nothing, a refused wait waits not."""
    argument, kind, use = AWAITED[what]
    async with trial(caplog) as t:
        gate = asyncio.Event()
        held = await t.supervisor.submit(gate.wait)
        scene = Scene(t.supervisor, held)
        await turns()
        for value in CORPUS:
            expected = kind.judge(value)
            if expected is not None:
                awaitable = use(scene, value)
                _refuses(functools.partial(_step, awaitable), argument, value, expected)
        assert (t.supervisor.state, held.state) == ("open", "running")
        gate.set()
        assert await held is True


def _step(awaitable: Any) -> None:
    try:
        awaitable.send(None)
    finally:
        awaitable.close()


@pytest.mark.asyncio
async def test_fault_B01_job_ids_and_reasons(caplog: Log) -> None:
    """`get` and `cancel` take ids, and jobs; an id that is none finds nothing, what is no id is an
    error, and no job is touched by either.
    """
    async with trial(caplog) as t:
        gate = asyncio.Event()
        held = await t.supervisor.submit(gate.wait)
        await turns()
        prefix, _, number_text = held.id.rpartition("-")
        near = [f"{prefix}-0{number_text}", f"{prefix}-{number_text} ", f"{prefix}-²", f"{prefix}-"]
        near += [f"-{number_text}", number_text, f"{prefix}--1", f"{prefix}-{'9' * 5_000}"]
        for value in [*CORPUS, *near]:
            if type(value) is str:
                if value != near[0]:  # a zero in front is the same number
                    with pytest.raises(JobNotFound, match="no unfinished job has the id"):
                        t.supervisor.get(value)
                    assert t.supervisor.cancel(value) is False
            else:
                _refuses(lambda v=value: t.supervisor.get(v), "job_id", value, TypeError)
                if not isinstance(value, str):  # an id by inheritance is one that `get` refuses
                    _refuses(lambda v=value: t.supervisor.cancel(v), "job", value, TypeError)
            if type(value) is not str:
                _refuses(lambda v=value: t.supervisor.cancel(held, v), "reason", value, TypeError)
                _refuses(lambda v=value: held.cancel(v), "reason", value, TypeError)
                _refuses(lambda v=value: t.supervisor.cancel_all(v), "reason", value, TypeError)
        assert (t.supervisor.state, held.state) == ("open", "running")
        gate.set()
        assert await held is True


@pytest.mark.asyncio
@pytest.mark.parametrize("argument", ["done", "total", "message"])
async def test_fault_B01_reports_of_a_job(caplog: Log, argument: str) -> None:
    """A job that reports nonsense about its progress gets the error, and keeps its last report."""
    kinds = {"done": number(), "total": number().or_none(), "message": TEXT.or_none()}
    kind = kinds[argument]

    async def reports() -> int:
        me = current_job()
        me.report(1, 2, "well")
        refused = 0
        for value in CORPUS:
            expected = kind.judge(value)
            if expected is None:
                me.report(**{"done": 3, argument: value})
                me.report(1, 2, "well")
            else:
                use = functools.partial(me.report, **{"done": 3, argument: value})
                _refuses(use, argument, value, expected)
                refused += 1
        return refused

    async with trial(caplog) as t:
        one = await t.supervisor.submit(reports)
        assert await one > 20
        assert one.progress == asyncworkers.Progress(1, 2, "well")


def test_fault_B01_tokens() -> None:
    """The token that blocking code sleeps on takes a duration, or None, and nothing else; who wants
    to be told gives it a callable.
    """
    kind = duration().or_none()
    token = CancelToken()
    for value in CORPUS:
        expected = kind.judge(value)
        if expected is not None:
            _refuses(lambda v=value: token.wait(v), "seconds", value, expected)
        if not callable(value):
            _refuses(lambda v=value: token.on_cancel(v), "callback", value, TypeError)
    assert token.wait(0) is False
    token.cancel("enough")
    assert token.wait(None) is True


# ---- functions and items: B05


def blocks(value: Any = None) -> Any:
    """A blocking job."""
    return value


class Callable_:
    """Objects that can be called, one way or the other."""

    async def __call__(self, value: Any = None) -> Any:
        return value

    async def method(self, value: Any = None) -> Any:
        return value

    @classmethod
    async def of_class(cls, value: Any = None) -> Any:
        return value

    @staticmethod
    def static(value: Any = None) -> Any:
        return value


async def generates(value: Any = None) -> AsyncIterator[Any]:
    """No job: it gives many values."""
    yield value


def generates_blocking(value: Any = None) -> Iterator[Any]:
    """Likewise."""
    yield value


def wrapped(function: Any) -> Any:
    """A wrapper as users write them: `async def` around `async def`."""

    @functools.wraps(function)
    async def wrapper(*args: Any) -> Any:
        return await function(*args)

    return wrapper


def wrapped_badly(function: Any) -> Any:
    """A wrapper that hands on the coroutine: a `def` around `async def`."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


GOOD = {
    "async def": echo,
    "def": blocks,
    "partial": functools.partial(echo, 1),
    "partial of partial": functools.partial(functools.partial(blocks), 1),
    "partial of a callable object": functools.partial(Callable_(), 1),
    "lambda": lambda value=1: value,
    "bound method": Callable_().method,
    "class method": Callable_.of_class,
    "static method": Callable_.static,
    "callable object": Callable_(),
    "builtin": repr,
    "bound method of a builtin": [1].count,
    "wrapped": wrapped(wrapped(echo)),
    "JobFunction": job(echo),
    "partial of a JobFunction": functools.partial(job(blocks), 1),
}

BAD = {
    "a class": (Callable_, "class"),
    "a builtin class": (int, "class"),
    "an async generator function": (generates, "generator"),
    "a generator function": (generates_blocking, "generator"),
    "partial of a generator function": (functools.partial(generates), "generator"),
    "None": (None, "None"),
    "a number": (7, "7"),
    "a name": ("echo", "'echo'"),
    "Ellipsis": (..., "Ellipsis"),
    "something hostile": (Hostile(), "Hostile"),
}

WAYS: dict[str, Callable[[Supervisor, Any], Any]] = {
    "submit": lambda s, f: s.submit(f, 1),
    "submit_nowait": lambda s, f: s.submit_nowait(f, 1),
    "submit_many": lambda s, f: s.submit_many(f, [1]),
    "call": lambda s, f: s.call(f, 1),
    "map": lambda s, f: s.map(f, [1]),
    "submit_threadsafe": lambda s, f: asyncio.wrap_future(s.submit_threadsafe(f, 1)),
}


async def _used(value: Any) -> Any:
    """What comes of it in the end, however it was submitted."""
    while isinstance(value, Awaitable):
        value = await value
    if isinstance(value, list):
        (value,) = [await _used(one) for one in value]
    return value


@pytest.mark.asyncio
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", GOOD)
async def test_fault_B05_what_can_be_called_is_a_job(caplog: Log, what: str, way: str) -> None:
    """Anything that can be called with the arguments is run, on the loop or in a thread by what
    it is.
    """
    async with trial(caplog) as t:
        if what.startswith("partial"):
            with pytest.raises(TypeError):
                await _used(WAYS[way](t.supervisor, GOOD[what]))  # one argument too many
            found = await t.supervisor.call(GOOD[what])
        else:
            found = await _used(WAYS[way](t.supervisor, GOOD[what]))
        assert found in (1, "1")


@pytest.mark.asyncio
@pytest.mark.parametrize("way", [*WAYS, "job"])
@pytest.mark.parametrize("what", [*BAD, "a coroutine", "a Call with more"])
async def test_fault_B05_what_makes_no_job(caplog: Log, what: str, way: str) -> None:
    """What cannot be a job is refused by every way in, before anything is accepted; a coroutine
    object is closed, so that nobody is warned of it.
    """
    async with trial(caplog) as t:
        bad, hint = BAD.get(what, (None, ""))
        if what == "a coroutine":
            bad, hint = echo(1), "not its coroutine"
        elif what == "a Call with more":
            bad = job(echo).bind(1)
            hint = "Call" if way in ("job", "submit_many", "map") else "nothing more"
        use = (lambda s, f: job(f)) if way == "job" else WAYS[way]
        if what == "None" and way == "job":
            return  # `job(None)` is `job()`
        with pytest.raises(TypeError, match=hint) as caught:
            await _used(use(t.supervisor, bad))
        assert str(caught.value).isprintable()
        if what == "a coroutine":
            assert inspect.getcoroutinestate(bad) == inspect.CORO_CLOSED
        assert t.supervisor.stats().submitted == 0


@pytest.mark.asyncio
async def test_fault_B05_a_coroutine_out_of_a_wrapper_is_told(caplog: Log) -> None:
    """A `def` that hands on a coroutine fails as a job and says what is missing; nothing is left
    to be awaited.
    """
    async with trial(caplog) as t:
        with pytest.raises(TypeError, match="an await or a loop is missing"):
            await t.supervisor.call(wrapped_badly(echo), 1)
        with pytest.raises(TypeError, match="an await or a loop is missing"):
            await t.supervisor.call(lambda: echo(1))


@pytest.mark.asyncio
async def test_fault_B05_wrong_arguments_for_the_function(caplog: Log) -> None:
    """Arguments that the function does not take are refused at the call, which names it, and at `bind`:
    there is no job.
    """
    wrong = r"echo\(.*cannot be called so: (missing a required|too many positional)"
    async with trial(caplog) as t:
        for arguments in ((), (1, 2)):
            for function in (echo, job(echo)):
                with pytest.raises(TypeError, match=wrong):
                    await t.supervisor.submit(function, *arguments)
            with pytest.raises(TypeError, match=r"missing a required|too many positional"):
                job(echo).bind(*arguments)
        with pytest.raises(TypeError, match=r"echo\(.*cannot be called so: .*unexpected keyword"):
            await t.supervisor.submit(echo, 1, other=2)
        assert t.supervisor.stats().submitted == 0


ITEMS = {"None": None, "a number": 7, "a text": "abc", "bytes": b"abc", "a class": int}


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["submit_many", "map"])
@pytest.mark.parametrize("what", [*ITEMS, "an awaitable", "a coroutine", "an async iterable"])
async def test_fault_B05_items_that_are_none(caplog: Log, what: str, way: str) -> None:
    """What cannot be iterated is refused by name before anything is accepted; a text, which can be,
    is taken by neither: one job a letter is never meant.
    """
    async with trial(caplog) as t:
        loop = asyncio.get_running_loop()
        items: Any = ITEMS.get(what)
        if what == "an awaitable":
            items = loop.create_future()
            items.cancel()
        elif what == "a coroutine":
            items = echo([1])
        elif what == "an async iterable":
            items = generates()
            if way == "map":
                assert await t.supervisor.map(echo, items) == [None]
                return
        with pytest.raises(TypeError, match=r"items must be an iterable.*, not "):
            await _consume(getattr(t.supervisor, way)(echo, items))
        assert t.supervisor.stats().submitted == 0
        if what == "a coroutine":
            items.close()
        elif what == "an async iterable":
            await items.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("breaks_at", [0, 1, 5])
async def test_fault_B05_items_that_raise(caplog: Log, breaks_at: int) -> None:
    """An iterable that raises in the middle: `submit_many` has accepted nothing then, and `map`
    raises that error after what came before.
    """

    def items() -> Iterator[int]:
        yield from range(breaks_at)
        raise ZeroDivisionError("mine")

    async with trial(caplog) as t:
        with pytest.raises(ZeroDivisionError):
            await t.supervisor.submit_many(echo, items())
        assert t.supervisor.stats().submitted == 0
        seen: list[int] = []
        with pytest.raises(ZeroDivisionError):
            async for value in t.supervisor.map(echo, items()):
                seen.append(value)
        assert seen == list(range(breaks_at))


@pytest.mark.asyncio
async def test_fault_B05_methods_are_refused_with_advice(caplog: Log) -> None:
    """`@job` in a class body says how methods are submitted, and that way works."""
    with pytest.raises((TypeError, RuntimeError)) as caught:

        class Mailer:
            @job
            async def send(self) -> None: ...

    told = caught.value if isinstance(caught.value, TypeError) else caught.value.__cause__
    assert "submit the bound method" in str(told)
    async with trial(caplog) as t:
        assert await t.supervisor.call(job(Callable_().method, timeout=5), 2) == 2


# ---- B04, as far as it concerns memory


CYCLE: list[Any] = []
CYCLE.append(CYCLE)

ARGUMENTS = [
    math.nan,
    b"bytes",
    {1, 2},
    (1, (2,)),
    {1: "a", "1": "b", (1,): 2},
    datetime(2030, 1, 1, tzinfo=UTC),
    CYCLE,
    functools.reduce(lambda inner, _: [inner], range(2_000), []),
    bytearray(257 * 1024),
    object(),
    Hostile(),
    lambda: None,
    sys,
]


@pytest.mark.asyncio
@pytest.mark.parametrize("function", [echo, blocks])
async def test_fault_B04_arguments_are_never_changed(caplog: Log, function: Any) -> None:
    """In memory an argument is the very object on the other side, and so is the result: not copied,
    not converted, not looked at.
    """
    async with trial(caplog) as t:
        for value in ARGUMENTS:
            submitted = await t.supervisor.submit(function, value)
            assert await submitted is value
            assert submitted.args[0] is value
        together = await t.supervisor.map(function, ARGUMENTS)
        assert all(a is b for a, b in zip(together, ARGUMENTS, strict=True))


# ---- B07: options that do not exist, and those that exclude each other


@pytest.mark.parametrize("option", Options.__annotations__)
def test_fault_B07_a_misspelled_option_is_named_with_the_nearest(option: str) -> None:
    """An option with a letter too many is refused, and the right one is named."""
    wrong = option + "s"
    for way in (lambda: job(echo, **{wrong: None}), lambda: job(echo).options(**{wrong: None})):
        with pytest.raises(TypeError, match=f"unknown option '{wrong}'.*did you mean '{option}'"):
            way()
    with pytest.raises(TypeError, match=f"unknown option '{wrong}'"):
        job(**{wrong: None})


@pytest.mark.parametrize("option", ["rate", "concurrency", "x"])
def test_fault_B07_what_is_not_built_yet_does_not_exist(option: str) -> None:
    """Nothing is accepted and ignored: an option that does nothing is an error."""
    with pytest.raises(TypeError, match=f"unknown option '{option}'"):
        job(echo, **{option: None})
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{option}'"):
        Supervisor(**{option: None})
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{option}'"):
        Queue("mine", **{option: None})


@pytest.mark.asyncio
async def test_fault_B07_conflicts_and_unknown_queues(caplog: Log) -> None:
    """What cannot be together is refused where it meets, with what there is to choose from."""
    for kind in ("threads", "processes"):
        with pytest.raises(ValueError, match=f"for {kind}: they run no tasks"):
            Queue("mine", kind=kind, isolation="task")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cpu=True is for def functions"):
        job(echo, cpu=True)
    with pytest.raises(ValueError, match="declare 'mine' twice"):
        Supervisor(queues=[Queue("mine"), Queue("mine", 3)])
    async with trial(caplog) as t:
        for way in WAYS.values():
            with pytest.raises(ValueError, match=r"there is no queue 'defualt'.*mean 'default'"):
                await _used(way(t.supervisor, job(echo, queue="defualt")))
            with pytest.raises(ValueError, match="a function made with def runs on a queue"):
                await _used(way(t.supervisor, job(blocks, queue="default")))
            with pytest.raises(ValueError, match="a function made with async def runs on a queue"):
                await _used(way(t.supervisor, job(echo, queue="threads")))
        assert t.supervisor.stats().submitted == 0


@pytest.mark.parametrize("kind", ["loop", "threads"])
@pytest.mark.parametrize("argument", QUEUE_OF_PROCESSES)
def test_fault_B07_what_is_for_processes_is_refused_elsewhere(kind: Any, argument: str) -> None:
    """What would have no effect on a queue of another kind is an error there."""
    for value in (1, 1 << 30, "log", print, 0, ""):
        with pytest.raises(ValueError, match=rf"Queue\.{argument} is for queues of processes"):
            Queue("mine", kind=kind, **{argument: value})


@pytest.mark.parametrize("wish", ["Asyncio", "uv", " ", "asyncio;uvloop", "\u202e", "x" * 10_000])
def test_fault_B07_a_wrong_environment_is_named(monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
    """A loop that ASYNCWORKERS_LOOP misspells is an error, before main is begun."""
    monkeypatch.setenv("ASYNCWORKERS_LOOP", wish)

    async def main() -> None:
        raise AssertionError("begun")

    with pytest.raises(ValueError, match="ASYNCWORKERS_LOOP must be asyncio or uvloop") as caught:
        run(main)
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("main", "hint"),
    [
        (None, "main must be a coroutine function"),
        (7, "main must be a coroutine function"),
        (print, "main must be a coroutine function"),
        (lambda: None, "main must be a coroutine function"),
        (generates, "main must be a coroutine function"),
        (int, "main must be a coroutine function"),
    ],
    ids=["None", "number", "builtin", "lambda", "async generator", "class"],
)
def test_fault_B05_what_cannot_be_run(main: Any, hint: str) -> None:
    """`run` takes a coroutine function: anything else is named, and leaves no loop behind."""
    with no_leaks(), pytest.raises(TypeError, match=hint):
        run(main)
    coroutine = echo(1)
    with pytest.raises(TypeError, match=r"run\(main\), not run\(main\(\)\)"):
        run(coroutine)  # type: ignore[arg-type]
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


# ---- B06: the command line


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "Commands:"),
        (["dmo"], "No such command 'dmo'"),
        (["demo", "extra"], "unexpected extra argument"),
        (["demo", "--unknown"], "No such option"),
        (["demo", "--workers"], "requires an argument"),
        *(
            (["demo", f"--{option}", value], f"--{option}")
            for option in ("workers", "threads", "pages")
            for value in (
                "0",
                "-1",
                "1.5",
                "",
                " ",
                "many",
                "1e3",
                "nan",
                "9" * 30,
                "\u202e",
                "9" * 5_000,
            )
        ),
        *(
            (["demo", f"--faults={value}"], "--faults")
            for value in ("-0.1", "1.1", "nan", "inf", "", "half")
        ),
        (["demo", "--seed", str(2**64)], "--seed"),
        (["demo", "--faults", "0.1", "--no-faults"], "not allowed with"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_fault_B06_wrong_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    """Wrong usage ends with code 2 and one line that names the cause, and nothing is begun."""
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert complaint in err
    assert "Traceback" not in err
    assert len(err.splitlines()[-1]) < 6_000


def _cli(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "asyncworkers", *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def test_fault_B06_broken_pipe_and_no_terminal() -> None:
    """Whoever reads may go away, and there may be no output at all: code 1 or 0, no traceback."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        ended = _cli("demo", "--help", stdout=write_end)
    finally:
        os.close(write_end)
    assert ended.returncode in (0, 1)
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    with Path(os.devnull).open("w") as nowhere:
        ended = _cli("--version", stdout=nowhere)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_fault_B06_a_folder_that_cannot_be_written() -> None:
    """What the machine refuses is one line and code 1."""
    ended = _cli("demo", "--pages", "1", "--output", "/dev/null/here", stdout=subprocess.PIPE)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("asyncworkers: ")
