"""Whoever can write to the store cannot have anything executed: what is there is data."""

import ast
import base64
import pickle
from pathlib import Path

import pytest
from stored_jobs import double

import asyncworkers
from asyncworkers import (
    ArgumentsMismatch,
    JobFailed,
    JobState,
    NotSerializable,
    Queue,
    SignedPickle,
    Supervisor,
    job,
)
from asyncworkers.store import Settlement, Submission, Want
from asyncworkers.store.codec import FunctionCodec, rebuild_error

PACKAGE = Path(asyncworkers.__file__).parent

ROOMS = ("store", "_engine/stored", "stored.py", "signed.py", "cli")
"""What reads from stores."""

EXECUTES = {
    *("eval", "exec", "__import__", "import_module", "find_class", "Unpickler"),
    *("pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "yaml", "jsonpickle"),
    *("os.system", "subprocess", "load_extension", "enable_load_extension", "attrgetter"),
}

EXCUSED = {
    ("signed.py", "pickle"),  # checks the signature first: see test_fault_V14
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


# ---- V14: pickle, where a queue asks for it


KEY, OTHER = b"0123456789abcdef", b"fedcba9876543210"


class Model:
    """What JSON cannot hold."""

    def __init__(self, weights):
        self.weights = weights


@job(queue="models")
async def train(model: Model, rounds: int = 1) -> Model:
    """Work on such a thing."""
    return Model([one * rounds for one in model.weights])


def on_models(place, *keys, **options):
    """Return a supervisor whose queue "models" is pickled with these keys."""
    queue = Queue("models", 2, codec=SignedPickle(keys[0], old=keys[1:]))
    return Supervisor(store=place.store(), functions=[train, double], queues=[queue], **options)


@pytest.mark.asyncio
async def test_fault_V14_what_json_cannot_hold_goes_and_comes_signed(place):
    """Arguments and result of a queue with a codec are pickled; other queues are as ever."""
    async with on_models(place, KEY) as supervisor:
        trained = await supervisor.submit(train, Model([1, 2]), rounds=3)
        assert (await trained).weights == [3, 6]
        assert (await (await supervisor.stored.get(trained.id))).weights == [3, 6]
        assert await supervisor.call(double, 1) == 2
        (record,) = await supervisor._depot.store.get([trained.id])
        assert record.codec == "pickle/1"
        with pytest.raises(TypeError, match="model"):
            await supervisor.submit(train)
        with pytest.raises(NotSerializable, match="cannot be pickled"):
            await supervisor.submit(train, Model(lambda: None))
        with pytest.raises(NotSerializable, match="at most 262,144"):
            await supervisor.submit(train, Model(bytes(300_000)))


def forgeries(text):
    """Yield what somebody without the key could make of a signed text."""
    raw = base64.b64decode(text)
    bomb = pickle.dumps(((Bomb(),), {}))
    yield base64.b64encode(raw[:32] + bomb).decode()
    yield base64.b64encode(bytes(32) + bomb).decode()
    yield base64.b64encode(bomb).decode()
    yield SignedPickle(OTHER)._seal("models\nforged\ntrain\narguments", ((Bomb(),), {}))
    yield text[:-8]
    yield text  # of another job
    yield ""


@pytest.mark.asyncio
async def test_fault_V14_what_was_tampered_with_is_not_unpickled(place, caplog):
    """It is set aside as a dead job, loudly, and the queue goes on: nobody without the key, and nothing
    that was signed for another job, gets anything executed.
    """
    async with on_models(place, KEY) as supervisor:
        store = supervisor._depot.store
        first = await supervisor.submit(train, Model([1]))
        await first
        (record,) = await store.get([first.id])
        for number, text in enumerate(forgeries(record.args)):
            caplog.clear()
            ident = "forged" if number < 6 else f"forged{number}"
            ident = f"{ident}-{number}"
            await store.submit([Submission(ident, "models", "train", text, "pickle/1")])
            forged = await supervisor.stored.get(ident)
            with pytest.raises(ArgumentsMismatch, match="signature is wrong"):
                await forged
            assert "somebody has changed them" in caplog.text
            assert forged.state is JobState.FAILED
        assert (await supervisor.call(train, Model([2]))).weights == [2]


@pytest.mark.asyncio
async def test_fault_V14_a_key_is_replaced(place):
    """What was signed with an old key is read as long as that is listed, and not after that."""
    async with on_models(place, KEY) as supervisor:
        ident = (await supervisor.submit(train.options(delay=3_600), Model([1]))).id
        done = await supervisor.submit(train, Model([5]))
        await done
    async with on_models(place, OTHER, KEY) as supervisor:
        assert (await (await supervisor.stored.get(done.id))).weights == [5]
        assert (await supervisor.call(train, Model([2]))).weights == [2]
    async with on_models(place, OTHER) as supervisor:
        assert (await supervisor.stored.get(ident)).state is JobState.SCHEDULED
        with pytest.raises(ArgumentsMismatch, match="signature"):
            await (await supervisor.stored.get(done.id))


@pytest.mark.asyncio
async def test_fault_V14_without_a_key_it_is_left_alone(place):
    """Who has no codec for it does not take such a job, and never unpickles one."""
    async with on_models(place, KEY, workers=0) as supervisor:
        supervisor.resize("models", 0)
        waits = await supervisor.submit(train, Model([1]))
        ident = waits.id
    queue = Queue("models", 1)
    async with Supervisor(
        store=place.store(), functions=[train, double], queues=[queue]
    ) as keyless:
        assert await keyless.call(double, 1) == 2
        assert (await keyless.stored.get(ident)).state is JobState.QUEUED


@pytest.mark.parametrize(
    ("key", "old", "error"),
    [
        ("a text that is long enough", (), TypeError),
        (b"short", (), ValueError),
        (KEY, [b"short"], ValueError),
        (KEY, KEY, TypeError),
        (None, (), TypeError),
    ],
)
def test_fault_V14_keys_are_checked_and_never_shown(key, old, error):
    """There is no pickle without a key, and no message or pickle of its own holds one."""
    with pytest.raises(error) as caught:
        SignedPickle(key, old=old)
    for secret in ("short", "long enough", "0123456789abcdef"):
        assert secret not in str(caught.value)
    assert "0123456789" not in repr(SignedPickle(KEY))
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(SignedPickle(KEY))
    with pytest.raises(TypeError, match=r"Queue\.codec must be a SignedPickle"):
        Queue("models", codec=KEY)
    with pytest.raises(ValueError, match=r"Queue\.stored is False"):
        Queue("models", stored=False, codec=SignedPickle(KEY))
