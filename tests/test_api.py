"""The public API as a whole: what is exported is documented, and every object tells its state."""

import asyncio
import enum
import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest

import asyncworkers
import asyncworkers.testing
from asyncworkers import (
    Cancelled,
    Failed,
    Job,
    Progress,
    Queue,
    Retry,
    Stats,
    Succeeded,
    Supervisor,
    TimedOut,
    Work,
    current_job,
    job,
)
from asyncworkers import events as events_module
from asyncworkers.bridge import ThreadBridge
from asyncworkers.store.memory import MemoryStore
from asyncworkers.testing import (
    CancelReport,
    CancelRun,
    EventRecorder,
    FaultInjector,
    SimLoop,
    VirtualLoop,
    no_leaks,
    simulate,
)
from asyncworkers.testing.plugin import Simulate

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"

INTEGRATIONS = (
    *(f"asyncworkers.integrations.{name}" for name in ("aiohttp", "asgi", "fastapi", "litestar")),
    *("asyncworkers.integrations.refusal", "asyncworkers.host"),
)

MODULES = (
    *("asyncworkers", "asyncworkers.events", "asyncworkers.errors", "asyncworkers.testing"),
    *INTEGRATIONS,
    *("asyncworkers.chronicle", "asyncworkers.report", "asyncworkers.timeline"),
    *("asyncworkers.notebook", "asyncworkers.portal"),
)


# ---- what is exported is what is documented


def names_of(page: str) -> set[str]:
    """The names that a page has a section or a table row for, or explains in a sentence."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    sections = re.findall(r"^::: (\S+)", text, re.MULTILINE)
    rows = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    sentences = re.findall(r"^`asyncworkers\.(\w+)` is ", text, re.MULTILINE)
    return {name.rpartition(".")[2] for name in sections} | {*rows, *sentences}


def test_every_exported_name_is_in_the_reference() -> None:
    """`__all__` and the reference pages list the same names; what is more there is no export but
    the type of an argument or an answer.
    """
    documented = names_of("api.md") | names_of("errors.md")
    types_of_arguments = {"Options", "Listener", "Backoff", "Connection", "Stored", "Using"}
    assert documented - types_of_arguments == set(asyncworkers.__all__)
    assert types_of_arguments <= documented


def test_every_name_for_tests_is_in_the_reference() -> None:
    """The same for `asyncworkers.testing`, and its plugin."""
    assert names_of("testing.md") - {"plugin"} == set(asyncworkers.testing.__all__)


def test_every_name_of_the_integrations_is_in_the_reference() -> None:
    """The same for what web frameworks get, whose modules are imported one by one."""
    exported = {f"{module}.{name}" for module in INTEGRATIONS for name in _all(module)}
    text = (REFERENCE / "integrations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^::: (\S+)", text, re.MULTILINE)) == exported


def _all(module: str) -> list[str]:
    names: list[str] = importlib.import_module(module).__all__
    return names


def test_every_event_is_in_the_reference() -> None:
    """Every event has its row; what else the module exports is for listeners' annotations."""
    events = {
        name
        for name in events_module.__all__
        if inspect.isclass(getattr(events_module, name))
        and issubclass(getattr(events_module, name), events_module.Event)
    }
    assert names_of("events.md") == events - {"Event", "JobEvent"}


def test_every_name_for_notebooks_is_in_the_reference() -> None:
    """The same for the doors that are imported by name."""
    exported = {
        name
        for module in ("asyncworkers.notebook", "asyncworkers.plot", "asyncworkers.portal")
        for name in importlib.import_module(module).__all__
    }
    assert names_of("notebook.md") == exported - {"make_plot"}


@pytest.mark.parametrize("module", MODULES)
def test_exports_exist_and_are_sorted(module: str) -> None:
    """Every exported name exists, once, in order, constants first; none begins with an underscore."""
    exported = importlib.import_module(module).__all__
    assert exported == sorted(set(exported), key=lambda name: (not name.isupper(), name))
    assert not [name for name in exported if name.startswith("_")]
    for name in exported:
        assert hasattr(importlib.import_module(module), name)


def test_nothing_public_is_imported_by_accident() -> None:
    """The package shows its exports and its modules, and nothing else."""
    shown = {name for name in vars(asyncworkers) if not name.startswith("_")}
    modules = {name for name in shown if isinstance(getattr(asyncworkers, name), types.ModuleType)}
    assert shown - modules == set(asyncworkers.__all__) - modules


# ---- every public thing says what it is


def public_members(of: type) -> list[tuple[str, Any]]:
    """The methods and properties that a class defines itself, by name; the fields of a record are
    explained by its docstring.
    """
    fields = inspect.get_annotations(of)
    return [
        (name, member)
        for name, member in vars(of).items()
        if not name.startswith("_")
        and name not in fields
        and isinstance(member, (types.FunctionType, property, classmethod, staticmethod))
    ]


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_has_a_docstring(module: str) -> None:
    """Every exported class and function, and every public method and property of them, says what it
    means; a class does not pass off the docstring of its base, or that of `dataclass`, as its own.
    """
    silent: list[str] = []
    for name in importlib.import_module(module).__all__:
        one = getattr(importlib.import_module(module), name)
        if inspect.isclass(one):
            documented = vars(one).get("__doc__") or ""
            if not documented or documented.startswith(f"{name}("):
                silent.append(name)
            members = public_members(one)
            silent += [
                f"{name}.{key}"
                for key, member in members
                if not inspect.getdoc(member) and not _is_of_a_base(one, key)
            ]
        elif inspect.isfunction(one) and not inspect.getdoc(one):
            silent.append(name)
    assert silent == []


def _is_of_a_base(owner: type, name: str) -> bool:
    """Whether it is another class's method in a new form, as those of a test's event loop are."""
    return any(hasattr(base, name) for base in owner.__mro__[1:])


def test_every_raised_error_is_named_where_it_is_raised() -> None:
    """Each method of the supervisor that refuses says in its docstring what it raises, or whose
    errors it raises.
    """
    told = re.compile(r"[Rr]aises|raise |As `submit`|as `Job.cancel`|what `submit`")
    for name, method in public_members(Supervisor):
        if isinstance(method, types.FunctionType) and name not in NEVER_RAISE:
            assert told.search(inspect.getdoc(method) or ""), name


NEVER_RAISE = {
    "call",  # the function's errors, as it says
    "cleanup_ctx",
    "drain",
    "explain",
    "health",
    "jobs",
    "lifespan",
    "resume",
    "stats",
    "submit_threadsafe",
    "workers",
}


# ---- every object tells its state


async def echo(value: Any) -> Any:
    """Return the value."""
    return value


class Shown:
    """A supervisor in the middle of its work, and what there is around it."""

    def __init__(self, supervisor: Supervisor, gate: asyncio.Event) -> None:
        self.supervisor = supervisor
        self.gate = gate


def shows(*parts: str) -> str:
    """A pattern that has all of these, in this order."""
    return ".*".join(re.escape(part) for part in parts)


PLAIN: dict[str, tuple[Callable[[], Any], str]] = {
    "Supervisor": (Supervisor, shows("<Supervisor new>")),
    "Queue": (lambda: Queue("mail", 3), shows("Queue(", "name='mail'", "workers=3", "maxsize=")),
    "Retry": (lambda: Retry(3, on=ValueError), shows("Retry(", "attempts=3", "ValueError")),
    "Unique": (
        lambda: asyncworkers.Unique("key", until=5),
        shows("Unique(key='key', until=5.0, on_duplicate='existing')"),
    ),
    "SignedPickle": (
        lambda: asyncworkers.SignedPickle(b"SECRET" * 4),
        shows("<SignedPickle with 1 key>"),
    ),
    "JobFunction": (lambda: job(echo), shows("<JobFunction echo on queue 'default'>")),
    "Call": (lambda: job(echo).bind("SECRET"), shows("<Call of echo>")),
    "JobState": (lambda: asyncworkers.JobState.QUEUED, shows("JobState.QUEUED")),
    "Progress": (lambda: Progress(1, 2, "half"), shows("Progress(", "1", "2", "half")),
    "Succeeded": (lambda: Succeeded(7), shows("Succeeded(value=7)")),
    "Failed": (lambda: Failed(ValueError("no")), shows("Failed(", "ValueError('no')")),
    "TimedOut": (lambda: TimedOut(0.5), shows("TimedOut(timeout=0.5)")),
    "Cancelled": (lambda: Cancelled("enough"), shows("Cancelled(reason='enough'")),
    "Bridge": (ThreadBridge, shows("<ThreadBridge>")),
    "Work": (lambda: Work(echo, ("SECRET",), {}, Context(), "echo"), shows("<Work echo>")),
    "ChildStats": (
        lambda: asyncworkers.ChildStats(1, 4711, True, 20_000_000, 3, "resize", "a-7", 0),
        shows("ChildStats(worker=1, pid=4711", "memory=20000000", "job_name='resize'"),
    ),
    "Backlog": (
        lambda: asyncworkers.Backlog("mail", 3, 0, 1, 2.5, 4),
        shows("Backlog(queue='mail', waiting=3", "oldest=2.5"),
    ),
    "Health": (lambda: Supervisor().health(), shows("Health(alive=True, ready=False", "new")),
    "HealthApp": (
        lambda: asyncworkers.HealthApp(Supervisor()),
        shows("<HealthApp /healthz /readyz>"),
    ),
    "Subscription": (
        lambda: Supervisor().subscribe(),
        shows("<Subscription 0 waiting, 0 dropped>"),
    ),
    "Secret": (lambda: asyncworkers.Secret("SECRET"), shows("Secret(***)")),
    "Stats": (lambda: Supervisor().stats(), shows("Stats(queues={})")),
}


def described_while_running() -> dict[str, str]:
    """What objects that live with a supervisor say of themselves, by the name of their class."""
    return {
        "CurrentJob": shows("<CurrentJob ", "attempt 1 of 3>"),
        "CancelToken": shows("<CancelToken not cancelled>"),
        "CancelCallback": shows("<CancelCallback waiting>"),
        "Stream": shows("<Stream not started, ordered>"),
        "Job": shows("<Job ", " running>"),
        "QueueStats": shows("QueueStats(name='default'", "running=1", "submitted=1"),
        "WorkerStats": shows("WorkerStats(queue='default', worker=", "attempt=1, seconds="),
        "DrainReport": shows("DrainReport(done=(", "abandoned=()", "seconds="),
    }


def test_every_class_is_looked_at() -> None:
    """The two tables name every exported class that is no error."""
    classes = {
        name
        for name in asyncworkers.__all__
        if inspect.isclass(getattr(asyncworkers, name))
        and not issubclass(getattr(asyncworkers, name), Exception)
    }
    assert PLAIN.keys() | described_while_running().keys() == classes


@pytest.mark.parametrize("name", PLAIN)
def test_repr_of_plain_objects(name: str) -> None:
    """What can be made without a supervisor says what it holds, on one line; arguments of a call
    stay its secret.
    """
    make, pattern = PLAIN[name]
    text = repr(make())
    assert re.search(pattern, text), text
    assert "\n" not in text
    assert "SECRET" not in text
    assert " at 0x" not in text


@pytest.mark.asyncio
async def test_repr_of_what_lives_with_a_supervisor() -> None:
    """Everything tells its present state, and another one after it has changed."""
    inside: dict[str, str] = {}
    gate = asyncio.Event()

    @job(retry=Retry(3, on=ValueError))
    async def look(secret: str) -> None:
        me = current_job()
        inside["CurrentJob"], inside["CancelToken"] = repr(me), repr(me.cancelled)
        with me.cancelled.on_cancel(lambda: None) as callback:
            inside["CancelCallback"] = repr(callback)
        await gate.wait()

    async with Supervisor(2) as supervisor:
        one = await supervisor.submit(look, "SECRET")
        queued = supervisor.map(echo, [1])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        inside["Job"], inside["Stream"] = repr(one), repr(queued)
        inside["QueueStats"] = repr(supervisor.stats().queues["default"])
        inside["WorkerStats"] = repr(supervisor.workers()[0])
        assert repr(supervisor) == "<Supervisor open [default: 1 running, 0 queued, 2 workers]>"
        assert await queued == [1]
        assert "used" in repr(queued)
        gate.set()
        await one
        assert repr(one).endswith(" succeeded>")
        report = await supervisor.drain()
        inside["DrainReport"] = repr(report)
        assert "draining" in repr(supervisor)
    assert repr(supervisor).startswith("<Supervisor closed [")
    assert inside.keys() == described_while_running().keys()
    for name, pattern in described_while_running().items():
        assert re.search(pattern, inside[name]), inside[name]
        assert "SECRET" not in inside[name]
        assert " at 0x" not in inside[name]


@pytest.mark.asyncio
async def test_repr_of_a_job_in_every_state() -> None:
    """A job says its state, and its attempt once that is not the first."""
    seen: set[str] = set()
    gate = asyncio.Event()

    async def fails() -> None:
        await gate.wait()
        raise ValueError

    async with Supervisor(1) as supervisor:
        retried = job(fails, retry=Retry(2, on=ValueError, delay=0.001, jitter=False))
        jobs = [
            await supervisor.submit(retried),
            await supervisor.submit(echo, 1),
            await supervisor.submit(job(echo, delay=3600), 1),
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen |= {repr(one).split()[-1] for one in jobs}
        jobs[2].cancel()
        gate.set()
        for one in jobs:
            await one.wait()
        seen |= {re.sub(r".*?(\w+(, attempt \d)?>)$", r"\1", repr(one)) for one in jobs}
    states = ("running", "queued", "scheduled", "cancelled", "succeeded")
    assert seen == {f"{state}>" for state in states} | {"failed, attempt 2>"}


def _simulated() -> Any:
    async def main() -> int:
        return 7

    return simulate(main)


TESTING: dict[str, tuple[Callable[[], Any], str]] = {
    "SimLoop": (lambda: _closed(SimLoop()), shows("<SimLoop ", "closed=True")),
    "VirtualLoop": (lambda: _closed(VirtualLoop()), shows("<VirtualLoop ", "closed=True")),
    "SimResult": (_simulated, shows("SimResult(value=7", "seed=0")),
    "EventRecorder": (EventRecorder, shows("<EventRecorder 0 events, 0 waited for>")),
    "FaultInjector": (lambda: FaultInjector(2), shows("<FaultInjector fails call 2 before: 0")),
    "LeakCheck": (no_leaks, shows("<LeakCheck of tasks and resources, not watching>")),
    "CancelReport": (lambda: CancelReport((), ()), shows("CancelReport(cancellations=()")),
    "CancelRun": (lambda: CancelRun(None, 7, None, ()), shows("CancelRun(", "value=7")),
    "Cancellation": (
        lambda: asyncworkers.testing.Cancellation(3, "waking", "main"),
        shows("Cancellation(step=3", "waking"),
    ),
    "StoredJobs": (
        lambda: asyncworkers.testing.StoredJobs(Supervisor(), MemoryStore()),
        shows("<StoredJobs 0 submitted>"),
    ),
    "Submitted": (
        lambda: asyncworkers.testing.Submitted("1", "send", "default", ("Ada",), {}, 0.0, 0, ()),
        shows("Submitted(id='1'", "args=('Ada',)"),
    ),
    "Violation": (
        lambda: asyncworkers.testing.Violation(None, "lost"),
        shows("Violation(", "lost"),
    ),
}


def _closed(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    loop.close()
    return loop


def test_every_testing_class_is_looked_at() -> None:
    """The table names every class of `asyncworkers.testing` that is no error."""
    classes = {
        name
        for name in asyncworkers.testing.__all__
        if inspect.isclass(getattr(asyncworkers.testing, name))
        and not issubclass(getattr(asyncworkers.testing, name), BaseException)
    }
    assert TESTING.keys() == classes


@pytest.mark.parametrize("name", TESTING)
def test_repr_of_testing_tools(name: str) -> None:
    """The tools say what they do and how far they are, too."""
    make, pattern = TESTING[name]
    text = repr(make())
    assert re.search(pattern, text), text
    assert " at 0x" not in text


LATER = {"chronicle": "Chronicle", "plot": "Plot", "report": "Report", "timeline": "Timeline"}


def test_annotations_can_be_read() -> None:
    """Every annotation of the public API names something that exists when it is read, be it in a
    module that is imported when it is first used.
    """
    later = {
        name: getattr(importlib.import_module(f"asyncworkers.{module}"), name)
        for module, name in LATER.items()
    }
    for name in asyncworkers.__all__:
        one = getattr(asyncworkers, name)
        if inspect.isclass(one) and not issubclass(one, enum.Enum):
            for _, member in public_members(one):
                asked = member.fget if isinstance(member, property) else member
                typing.get_type_hints(asked, localns=later)
        elif inspect.isfunction(one):
            typing.get_type_hints(one)


def test_outcome_is_the_union_of_its_kinds() -> None:
    """`Outcome` names exactly the four ends that `Job.wait` answers with."""
    assert set(typing.get_args(asyncworkers.Outcome)) == {Succeeded, Failed, TimedOut, Cancelled}
    hints = typing.get_type_hints(Job.wait)
    assert hints["return"] == asyncworkers.Outcome
    assert isinstance(Supervisor().stats(), Stats)
    assert Simulate.__doc__
