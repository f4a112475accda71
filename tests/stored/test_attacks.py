"""Whoever can write to the store cannot have anything executed: what is there is data."""

import ast
import base64
import pickle
from pathlib import Path

import pytest
from stored_jobs import double

import asyncworkers
from asyncworkers import ArgumentsMismatch, JobFailed, JobState
from asyncworkers.store import Settlement, Submission, Want
from asyncworkers.store.codec import FunctionCodec, rebuild_error

PACKAGE = Path(asyncworkers.__file__).parent

ROOMS = ("store", "_engine/stored", "stored.py", "cli")
"""What reads from stores."""

EXECUTES = {
    *("eval", "exec", "__import__", "import_module", "find_class", "Unpickler"),
    *("pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "yaml", "jsonpickle"),
    *("os.system", "subprocess", "load_extension", "enable_load_extension", "attrgetter"),
}

EXCUSED = {
    ("cli/target.py", "import_module"),  # of the operator's own command line
    ("cli/replicas.py", "subprocess"),  # likewise
    ("cli/run.py", "subprocess"),
}


def mentioned(tree):
    """Yield every name that is imported, called or looked up in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
            yield ast.unparse(node)


def test_fault_V01_nothing_that_reads_a_store_can_execute_what_it_reads():
    """No module between a store and a job mentions pickle, eval, imports by name or the like."""
    found = set()
    files = [PACKAGE / room for room in ROOMS]
    for path in [
        one for file in files for one in ([file] if file.is_file() else file.rglob("*.py"))
    ]:
        name = path.relative_to(PACKAGE).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found |= {(name, word) for word in mentioned(tree) if word in EXECUTES}
    assert found - EXCUSED == set()
    assert EXCUSED - found == set(), "an excuse that nobody needs"


class Bomb:
    """What executes code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("it was executed",))


PICKLED = pickle.dumps(Bomb(), 0).decode("latin-1")

HOSTILE = [
    PICKLED,
    base64.b64encode(pickle.dumps(Bomb())).decode(),
    "!!python/object/apply:os.system ['true']",
    '{"py/reduce": [{"py/function": "os.system"}, ["true"]]}',
    '[[{"__reduce__": ["os.system", "true"]}],{}]',
    "[" * 100_000,
    "9" * 1_000_000,
]


@pytest.mark.asyncio
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_fault_V01_hostile_bytes_are_refused(place, text):
    """As arguments they fail the job before it runs, as a result they fail who awaits it."""
    async with place.supervisor() as supervisor:
        store = supervisor._depot.store
        await store.submit([Submission("args", "default", "double", text)])
        with pytest.raises(ArgumentsMismatch):
            await (await supervisor.stored.get("args"))
        assert await supervisor.call(double, 1) == 2
    codec = FunctionCodec(double.function, "double")
    with pytest.raises(ArgumentsMismatch):
        codec.decode_result(text)


NAMES = ["os.system", "builtins.exec", "asyncworkers.demo.command", "subprocess:Popen", "../double"]


@pytest.mark.asyncio
@pytest.mark.parametrize("name", NAMES)
async def test_fault_V02_a_name_is_only_looked_up_among_the_listed(place, name):
    """A row that names what is not listed is left alone, whatever else of that name exists."""
    async with place.supervisor() as supervisor:
        store = supervisor._depot.store
        await store.submit([Submission("evil", "default", name, '[["true"],{}]')])
        assert await supervisor.call(double, 1) == 2
        evil = await supervisor.stored.get("evil")
        assert evil.state is JobState.QUEUED
        assert evil.attempt == 0
        assert f"no process here knows function {name!r}" in evil.why


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["os.system", "subprocess.Popen", "SystemExit", "exec", "JobView"])
async def test_fault_V02_the_class_of_an_error_is_never_imported(place, kind):
    """A stored error that names anything but an error known here comes back as JobFailed."""
    text = f'{{"type": "{kind}", "message": "true", "args": ["true"]}}'
    assert type(rebuild_error(text)) is JobFailed
    store = place.store()
    await store.open({"double"})
    await store.submit([Submission("dead", "default", "double", "[[1],{}]")])
    (lease,) = await store.lease([Want("default", 1)])
    await store.settle([Settlement.fail(lease, text)])
    await store.close()
    async with place.supervisor() as supervisor:
        with pytest.raises(JobFailed, match="true"):
            await (await supervisor.stored.get("dead"))
