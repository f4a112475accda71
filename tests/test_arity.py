"""Wrong arguments are an error at the call, before there is a job; whatever fits is accepted."""

import functools
import inspect
import operator
import re

import pytest
import pytest_asyncio

from asyncworkers import Queue, Supervisor, job
from asyncworkers._arity import arity_of
from asyncworkers.function import Options

pytestmark = pytest.mark.asyncio


@job
async def pair(first: int, second: int = 2, *, third: int = 3) -> tuple[int, int, int]:
    """Take one or two by position, and one by name."""
    return first, second, third


@job
async def named(*, key: int) -> int:
    """Take one that must be named."""
    return key


@job
async def any_number(*values: int, **others: int) -> int:
    """Take anything."""
    return sum(values) + sum(others.values())


@job
def in_thread(first: int, /) -> int:
    """Take exactly one, without its name."""
    return first


@job(cpu=True)
def in_process(first: int) -> int:
    """Take exactly one."""
    return first


async def bare(first: int) -> int:
    """Be no JobFunction."""
    return first


def wrapped(function):
    """Wrap it so that only the wrapper knows what it takes."""

    @functools.wraps(function)
    async def wrapper(*args):
        return await function(*args, 10)

    return wrapper


@wrapped
async def given_one_more(first: int, second: int) -> int:
    """Take two, of which the wrapper gives one."""
    return first + second


@job
async def has_a_timeout(timeout: int) -> int:
    """Take an argument that is called as an option of jobs is."""
    return timeout


WRONG = [
    (pair, (), {}, "missing a required argument: 'first'"),
    (pair, (1, 2, 3), {}, "too many positional arguments"),
    (pair, (1,), {"fourth": 4}, "unexpected keyword argument 'fourth'"),
    (pair, (1,), {"first": 1}, "multiple values for argument 'first'"),
    (named, (), {}, "missing a required.* argument: 'key'"),
    (named, (1,), {}, "too many positional arguments"),
    (in_thread, (), {"first": 1}, "first"),
    (in_thread, (1, 2), {}, "too many positional arguments"),
    (in_process, (), {}, "missing a required argument: 'first'"),
    (in_process, (1, 2), {}, "too many positional arguments"),
    (bare, (), {}, "missing a required argument: 'first'"),
]
RIGHT = [
    (pair, (1,), {}, (1, 2, 3)),
    (pair, (1, 5), {"third": 6}, (1, 5, 6)),
    (pair, (), {"first": 1, "second": 4}, (1, 4, 3)),
    (named, (), {"key": 7}, 7),
    (any_number, (), {}, 0),
    (any_number, (1, 2), {"more": 3}, 6),
    (in_thread, (4,), {}, 4),
    (in_process, (4,), {}, 4),
    (in_process, (), {"first": 4}, 4),
    (bare, (1,), {}, 1),
    (given_one_more, (1,), {}, 11),
]


def name_of(case):
    """Name a case in the report."""
    return getattr(case, "__name__", None) or getattr(case, "name", None)


@pytest_asyncio.fixture
async def supervisor():
    """Enter a supervisor."""
    async with Supervisor(4, processes=1) as supervisor:
        yield supervisor


@pytest.mark.parametrize(("function", "args", "kwargs", "why"), WRONG, ids=name_of)
async def test_what_does_not_fit_makes_no_job(supervisor, function, args, kwargs, why):
    """It is a TypeError of the call that names the function and what it takes, twice the same."""
    name = getattr(function, "name", "bare")
    for _ in range(2):
        for submit in (supervisor.submit, supervisor.call):
            with pytest.raises(TypeError, match=rf"{name}\(.* cannot be called so: .*{why}"):
                await submit(function, *args, **kwargs)
        with pytest.raises(TypeError, match=why):
            supervisor.submit_nowait(function, *args, **kwargs)
    if not kwargs:
        with pytest.raises(TypeError, match=why):
            await supervisor.submit(job(bare).bind() if function is bare else function.bind(*args))
    assert supervisor.jobs() == []


@pytest.mark.parametrize("key", sorted(Options.__annotations__))
async def test_an_option_of_the_job_among_the_arguments(supervisor, key):
    """Whoever hands an option of jobs to `submit` is told where it goes; a parameter of that name is
    the function's own.
    """
    said = f"'{key}'; {key} is an option of jobs: give it to @job"
    for call in (supervisor.submit_nowait, supervisor.call, supervisor.submit):
        with pytest.raises(TypeError, match=re.escape(said)):
            await call(pair, 1, **{key: 1})
    with pytest.raises(TypeError, match=re.escape(said)):
        pair.bind(1, **{key: 1})
    with pytest.raises(TypeError) as refused:
        await supervisor.submit(has_a_timeout, timeout=1, fourth=2)
    assert "option" not in str(refused.value)
    assert await supervisor.call(has_a_timeout, timeout=1) == 1


@pytest.mark.parametrize(("function", "args", "kwargs", "value"), RIGHT, ids=name_of)
async def test_what_fits_runs(supervisor, function, args, kwargs, value):
    """Also the second time, when its shape is known."""
    for _ in range(2):
        assert await supervisor.call(function, *args, **kwargs) == value


async def test_map_gives_one_argument(supervisor):
    """A function that does not take exactly that is refused before an item is looked at."""
    assert await supervisor.map(pair, [1]) == [(1, 2, 3)]
    with pytest.raises(TypeError, match="cannot be called so"):
        supervisor.map(named, [1])
    with pytest.raises(TypeError, match="cannot be called so"):
        supervisor.map(job(operator.pow), [1])
    with pytest.raises(TypeError, match="cannot be called so"):
        await supervisor.submit_many(named, [1])


async def test_many_shapes_are_not_kept(supervisor):
    """A function that is called in ever new shapes costs no memory for each."""
    for number in range(600):
        assert await supervisor.call(any_number, **{f"name_{number}": 1}) == 1
    assert len(supervisor._intake.order(any_number).arity._fits) <= 256


async def test_a_signature_that_somebody_wrote_is_no_ground_to_refuse(supervisor):
    """It may be of something else than the function."""

    async def one_more(first):
        return first

    one_more.__signature__ = "no signature"
    assert await supervisor.call(one_more, 1) == 1


async def test_in_memory_and_in_a_store_alike(tmp_path):
    """Jobs that are stored are checked as well."""
    queues = [Queue("default")]
    async with Supervisor(
        queues=queues, store=f"sqlite:///{tmp_path}/jobs.db", functions=[pair]
    ) as supervisor:
        with pytest.raises(TypeError, match=r"pair\(.*cannot be called so: too many positional"):
            await supervisor.submit(pair, 1, 2, 3)


def signed(function):
    """Write down another signature than the function has, as what injects arguments does."""
    function.__signature__ = inspect.signature(lambda first, database: None)
    return function


@signed
async def injected(first):
    """Take one, whatever its signature says."""
    return first


class Calls:
    """What is called through its class."""

    __call__ = injected


class Broken:
    """Breaks when it is asked for anything."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __eq__(self, other):
        raise RuntimeError("not to be compared")

    __hash__ = object.__hash__

    def __call__(self, first):
        return first


class Bound:
    """Has a method."""

    async def method(self, first):
        """Take one."""
        return first


@pytest.mark.parametrize("what", ["itself", "a partial", "its class", "broken", "a broken partial"])
async def test_what_does_not_say_what_it_takes_is_called(what):
    """A word of somebody else about it, and an object that breaks when it is asked, refuse nothing."""
    function = {
        "itself": lambda: injected,
        "a partial": lambda: functools.partial(injected),
        "its class": Calls,
        "broken": Broken,
        "a broken partial": lambda: functools.partial(Broken()),
    }[what]()
    arity_of(function).check("it", (1, 2, 3, 4), {"five": 5})


async def test_methods_are_remembered_by_their_function(supervisor):
    """Each is bound anew when it is named, and takes one argument less than its function."""
    one, other = Bound(), Bound()
    assert arity_of(one.method) is arity_of(other.method)
    assert await supervisor.call(one.method, 1) == 1
    with pytest.raises(TypeError, match="too many positional arguments"):
        await supervisor.call(other.method, 1, 2)
    assert await supervisor.call(Bound.method, one, 1) == 1


class Unspeakable:
    """Breaks when it is shown."""

    def __repr__(self):
        raise RuntimeError("not to be shown")


async def test_what_is_refused_is_not_told_with_its_defaults(supervisor):
    """They may be secret, or break when they are shown; names are enough to see what is wrong."""

    async def login(user: str, password: str = "hunter2", how: object = Unspeakable()) -> None:
        pass

    with pytest.raises(
        TypeError, match=r"login\(user, password=\.\.\., how=\.\.\.\) cannot"
    ) as caught:
        await supervisor.submit(login)
    assert "hunter2" not in str(caught.value)
