"""Context variables: a job has its submitter's, each attempt anew, and never those of another job."""

import asyncio
import contextlib
import decimal
import gc
import inspect
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any
from unittest.mock import AsyncMock

import pytest

from asyncworkers import JobCancelled, Queue, Retry, Supervisor, current_job, job
from asyncworkers.testing import EventRecorder

pytestmark = pytest.mark.asyncio

user: ContextVar[str] = ContextVar("user", default="nobody")
other: ContextVar[str] = ContextVar("other", default="nothing")

PLACES = ("shared", "task", "threads")
"""The queues: workers with a task for all their jobs, a task for each job, and threads."""


def supervisor_with(workers: int = 1, **options: Any) -> Supervisor:
    """A supervisor with a queue for each place."""
    queues = [
        Queue("shared", workers),
        Queue("task", workers, isolation="task"),
        Queue("threads", workers, kind="threads"),
    ]
    return Supervisor(queues=queues, **options)


def at(place: str, function: Callable[..., Any], **options: Any) -> Any:
    """The plain function as a job for this place; on the loop it is suspended once before."""
    if place == "threads":
        return job(function, queue=place, **options)

    async def on_the_loop(*args: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args)

    return job(on_the_loop, queue=place, **options)


def look(*_: object) -> str:
    """What the variable is here."""
    return user.get()


def change(name: str) -> str:
    """What the variable was, before it is set to something else."""
    found = user.get()
    user.set(name)
    assert user.get() == name
    return found


# ---- the submitter's snapshot


@pytest.mark.parametrize("place", PLACES)
async def test_snapshot_is_of_the_moment_of_submission(place: str) -> None:
    """A job sees what was set when it was submitted, in each of the ways to submit one, whatever is
    set before it runs; and what it sets, its submitter does not see.
    """
    function = at(place, look)
    async with supervisor_with() as supervisor:
        supervisor.pause(place)
        user.set("submit")
        jobs = [await supervisor.submit(function)]
        user.set("submit_nowait")
        jobs.append(supervisor.submit_nowait(function))
        user.set("submit_many")
        jobs.extend(await supervisor.submit_many(function, [1]))
        user.set("bind")
        jobs.append(await supervisor.submit(function.bind()))
        user.set("later")
        supervisor.resume(place)
        names = ["submit", "submit_nowait", "submit_many", "bind"]
        assert [await one for one in jobs] == names
        user.set("call")
        assert await supervisor.call(function) == "call"
        assert await supervisor.call(at(place, change), "me") == "call"
        assert user.get() == "call"


@pytest.mark.parametrize("place", PLACES)
async def test_snapshot_of_another_thread(place: str) -> None:
    """`submit_threadsafe` takes the variables of the thread that calls it."""
    function = at(place, look)
    user.set("the loop's")

    def submits() -> Any:
        user.set("the thread's")
        return supervisor.submit_threadsafe(function)

    async with supervisor_with() as supervisor:
        future = await asyncio.get_running_loop().run_in_executor(None, Context().run, submits)
        assert await asyncio.wrap_future(future) == "the thread's"


@pytest.mark.parametrize("place", PLACES)
async def test_snapshot_of_a_map(place: str) -> None:
    """Items see the variables of whoever reads the map, as they were when reading began."""
    async with supervisor_with() as supervisor:
        user.set("maker")
        stream = supervisor.map(at(place, change), [str(number) for number in range(100)], window=3)
        user.set("reader")
        seen = set()
        async for name in stream:
            seen.add(name)
            user.set("later")
        assert seen == {"reader"}


@pytest.mark.parametrize("place", PLACES)
async def test_snapshot_of_a_job_that_submits(place: str) -> None:
    """A job submitted by a job sees what that one had set, and is its own `current_job`."""

    def name() -> tuple[str, str]:
        return user.get(), current_job().name

    async def parent() -> tuple[str, str]:
        user.set("parent")
        before = current_job().id
        answer: tuple[str, str] = await supervisor.call(at(place, name, name="child"))
        assert current_job().id == before
        return answer

    async with supervisor_with() as supervisor:
        for queue in ("shared", "task"):
            assert await supervisor.call(job(parent, queue=queue)) == ("parent", "child")


@pytest.mark.parametrize("place", PLACES)
async def test_only_what_the_function_wants(place: str) -> None:
    """`context` takes nothing, or the variables named if they are set, along."""

    def both() -> tuple[str, str]:
        return user.get(), other.get()

    async with supervisor_with() as supervisor:
        user.set("Ada")
        assert await supervisor.call(at(place, both)) == ("Ada", "nothing")
        other.set("thing")
        for context, expected in (
            ("submitter", ("Ada", "thing")),
            ("none", ("nobody", "nothing")),
            ((other,), ("nobody", "thing")),
            ((user, other), ("Ada", "thing")),
            ((), ("nobody", "nothing")),
        ):
            assert await supervisor.call(at(place, both, context=context)) == expected
    for wrong in ("mine", [user], user, ("user",), None):
        with pytest.raises((TypeError, ValueError), match="context must be"):
            job(look, context=wrong)  # type: ignore[call-overload]


@pytest.mark.parametrize("place", PLACES)
async def test_snapshot_is_let_go(place: str) -> None:
    """When a job has ended its snapshot keeps nothing alive, though the job is kept."""

    class Body:
        pass

    body: ContextVar[Body] = ContextVar("body")

    def submits() -> tuple[Any, weakref.ref[Body]]:
        value = Body()
        body.set(value)
        return supervisor.submit_nowait(at(place, look)), weakref.ref(value)

    async with supervisor_with() as supervisor:
        one, reference = Context().run(submits)
        assert await one == "nobody"
        await supervisor.call(at(place, look))  # the worker has turned to something else
        assert reference() is None


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("end", ["returns", "fails"])
async def test_an_idle_worker_keeps_nothing(steps: int, end: str) -> None:
    """What a job with a context of its own was given and has returned is gone with the job."""

    class Body:
        pass

    async def echo(body: Body) -> Body:
        if steps == 2:
            await asyncio.sleep(0)
        if end == "fails":
            raise LookupError
        return body

    async def one() -> weakref.ref[Body]:
        body = Body()
        user.set("submitter")
        await (await supervisor.submit(job(echo), body)).wait()
        return weakref.ref(body)

    async with supervisor_with() as supervisor:
        reference = await asyncio.create_task(one())
        assert supervisor.stats().queues["default"].running == 0
        assert reference() is None


@pytest.mark.parametrize("place", PLACES)
async def test_an_idle_worker_keeps_no_function(place: str) -> None:
    """A function that nobody holds any more is gone with its last job, and what it encloses with it."""

    async def one() -> weakref.ref[Callable[[], None]]:
        def function() -> None:
            pass

        await supervisor.call(at(place, function))
        return weakref.ref(function)

    async with supervisor_with() as supervisor:
        reference = await asyncio.create_task(one())
        gc.collect()  # whatever was made of it may know it
        assert reference() is None


@pytest.mark.parametrize("end", ["returns", "fails"])
async def test_what_a_job_waited_for_is_let_go(end: str) -> None:
    """The first thing that a job with a context of its own waits for is gone when the job goes on: it
    may have had a big result.
    """

    class Body:
        pass

    references: list[weakref.ref[Body]] = []
    seen: list[bool] = []

    def answer(future: asyncio.Future[Body]) -> None:
        body = Body()
        references.append(weakref.ref(body))
        future.set_result(body)

    async def asks() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Body] = loop.create_future()
        loop.call_soon(answer, future)
        await future
        del future
        await asyncio.sleep(0)
        seen.append(references[0]() is not None)
        if end == "fails":
            raise LookupError

    async with supervisor_with() as supervisor:
        user.set("submitter")
        await (await supervisor.submit(job(asks))).wait()
        assert seen == [False]
        assert references[0]() is None


@pytest.mark.skipif(sys.version_info < (3, 12), reason="functions cannot be marked before 3.12")
@pytest.mark.parametrize("variable", [False, True])
async def test_whatever_can_be_awaited(variable: bool) -> None:
    """A function that says it is a coroutine function may return anything that can be awaited."""

    class Later:
        def __await__(self) -> Iterator[Any]:
            yield from asyncio.sleep(0).__await__()
            return user.get()

    @inspect.markcoroutinefunction
    def later() -> Later:
        return Later()

    async with supervisor_with() as supervisor:
        if variable:
            user.set("submitter")
        found = await supervisor.call(job(later, queue="shared"))
        assert found == ("submitter" if variable else "nobody")
        assert await supervisor.call(later) == found


class Wrapper:
    """An object that is called like a function, and may be marked as a coroutine function."""

    def __call__(self, number: int) -> Any:
        return asyncio.sleep(0, number)


@pytest.mark.parametrize("decorated", [False, True])
async def test_object_that_is_marked_as_a_coroutine_function(decorated: bool) -> None:
    """What says so by itself runs on the loop, as mocks of coroutine functions do."""
    marked: list[Any] = [AsyncMock(return_value=7), AsyncMock(return_value=7).method]
    marked[1].return_value = 7
    if sys.version_info >= (3, 12):
        wrapper = Wrapper()
        inspect.markcoroutinefunction(wrapper)
        marked.append(wrapper)
    async with supervisor_with() as supervisor:
        for function in marked:
            submitted = await supervisor.submit(job(function) if decorated else function, 7)
            assert (await submitted, submitted.queue) == (7, "default")


# ---- attempts


@pytest.mark.parametrize("before", ["nobody", "submitter"])
@pytest.mark.parametrize("place", PLACES)
async def test_each_attempt_anew(place: str, before: str) -> None:
    """A retry sees the submitter's variables, not what the attempt before it has set."""
    seen: list[str] = []

    def fails_twice() -> int:
        seen.append(change(f"attempt {current_job().attempt}"))
        if len(seen) < 3:
            raise OSError
        return len(seen)

    async with supervisor_with() as supervisor:
        if before != "nobody":
            user.set(before)
        retry = Retry(3, on=OSError, delay=0)
        assert await supervisor.call(at(place, fails_twice, retry=retry)) == 3
        user.set("later")
        assert seen == [before] * 3


@pytest.mark.parametrize("place", PLACES)
async def test_each_attempt_of_a_mapped_item_anew(place: str) -> None:
    """The same for items of a map."""
    seen: list[str] = []

    def fails_once(number: int) -> int:
        seen.append(change(f"item {number}"))
        if current_job().attempt == 1:
            raise OSError
        return number

    async with supervisor_with() as supervisor:
        user.set("reader")
        function = at(place, fails_once, retry=Retry(2, on=OSError, delay=0))
        assert await supervisor.map(function, range(5)) == list(range(5))
        assert seen == ["reader"] * 10


# ---- one job after the other


@pytest.mark.parametrize("listening", [False, True])
@pytest.mark.parametrize("ending", ["returns", "raises", "is cancelled"])
@pytest.mark.parametrize("place", PLACES)
async def test_never_the_previous_jobs(place: str, ending: str, listening: bool) -> None:
    """However a job ends that has set variables, the next on its worker, of the same function or of
    another, sees none of it.
    """

    def sets_and_raises() -> None:
        change("raised")
        raise ValueError("previous")

    async def sets_and_waits() -> None:
        change("cancelled")
        await asyncio.Event().wait()

    def sets_and_polls() -> None:
        change("cancelled")
        current_job().cancelled.wait()

    waits = job(sets_and_polls if place == "threads" else sets_and_waits, queue=place)
    listeners = [EventRecorder()] if listening else []
    async with supervisor_with(listeners=listeners) as supervisor:
        assert user not in copy_context()
        for _ in range(3):
            if ending == "returns":
                assert await supervisor.call(at(place, change), "previous") == "nobody"
            elif ending == "raises":
                with pytest.raises(ValueError, match="previous"):
                    await supervisor.call(at(place, sets_and_raises))
            else:
                one = await supervisor.submit(waits)
                while one.state != "running":
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
                one.cancel()
                with pytest.raises(JobCancelled):
                    await one
            assert await supervisor.call(at(place, look)) == "nobody"
            assert await supervisor.map(at(place, look), range(5)) == ["nobody"] * 5


@pytest.mark.parametrize("place", PLACES)
async def test_many_at_once_keep_theirs(place: str) -> None:
    """Jobs that run side by side and are suspended in turn each keep what is theirs."""

    async def keeps(name: str) -> str:
        assert user.get() == f"submitted {name}"
        user.set(name)
        for _ in range(10):
            await asyncio.sleep(0)
            assert user.get() == name
        assert await asyncio.create_task(later()) == name
        return user.get()

    async def later() -> str:
        await asyncio.sleep(0)
        return user.get()

    def keeps_in_a_thread(name: str) -> str:
        assert user.get() == f"submitted {name}"
        user.set(name)
        barrier.wait()
        return user.get()

    barrier = threading.Barrier(5)
    function = job(keeps_in_a_thread if place == "threads" else keeps, queue=place)
    async with supervisor_with(5) as supervisor:
        jobs = []
        for number in range(20):
            user.set(f"submitted {number}")
            jobs.append(await supervisor.submit(function, str(number)))
        assert [await one for one in jobs] == [str(number) for number in range(20)]


@pytest.mark.parametrize("place", PLACES)
async def test_workers_start_from_an_empty_context(place: str) -> None:
    """Whoever enters the supervisor, or has a worker hired by submitting, hands it no variables: a
    job that was submitted without any sees none.
    """
    empty = Context()
    user.set("whoever enters")
    async with supervisor_with(3) as supervisor:
        user.set("whoever has workers hired")
        await asyncio.gather(*(supervisor.call(at(place, look)) for _ in range(5)))
        task = asyncio.create_task(supervisor.call(at(place, variables)), context=empty)
        assert await task == ["asyncworkers"]
        mapping = asyncio.create_task(mapped(supervisor, at(place, variables)), context=empty)
        assert await mapping == [["asyncworkers"]] * 3
        task = asyncio.create_task(supervisor.call(at(place, variables, context="none")))
        assert await task == ["asyncworkers"]


def variables(*_: object) -> list[str]:
    """The names of all variables that are set here; our own stands for which job this is."""
    return [var.name.partition("_")[0].partition(".")[0] for var in copy_context()]


async def mapped(supervisor: Supervisor, function: Any) -> Any:
    """A map of three items, read here."""
    return await supervisor.map(function, range(3))


# ---- inside one attempt


@pytest.mark.parametrize("place", PLACES[:2])
@pytest.mark.parametrize("variable", [False, True])
async def test_one_context_for_all_steps(place: str, variable: bool) -> None:
    """All steps of an attempt, its subtasks, callbacks and cleaning up are in one context: what was
    set can be reset, and is seen when cancelled.
    """
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    @contextlib.asynccontextmanager
    async def as_user(name: str) -> AsyncIterator[None]:
        token = user.set(name)
        try:
            await asyncio.sleep(0)
            yield
        finally:
            await asyncio.sleep(0)
            user.reset(token)  # raises in any context but the one where it was set

    async def steps() -> list[str]:
        found = [user.get()]
        async with as_user("one"), asyncio.timeout(60):
            found.append(user.get())
            async with as_user("two"):
                found.append(await asyncio.create_task(coroutine()))
                called = loop.create_future()
                loop.call_soon(lambda: called.set_result(user.get()))
                found.append(await called)
                found.append(await loop.run_in_executor(None, copy_context().run, user.get))
                async with asyncio.TaskGroup() as group:
                    subtask = group.create_task(coroutine())
                found.append(subtask.result())
            found.append(user.get())
        found.append(user.get())
        return found

    async def coroutine() -> str:
        await asyncio.sleep(0)
        return user.get()

    async def waits() -> None:
        async with as_user("cancelled"):
            try:
                started.set()
                await asyncio.Event().wait()
            finally:
                seen.append(user.get())

    started = asyncio.Event()
    async with supervisor_with() as supervisor:
        if variable:
            user.set("nobody")
        found = await supervisor.call(job(steps, queue=place))
        assert found == ["nobody", "one", "two", "two", "two", "two", "one", "nobody"]
        one = await supervisor.submit(job(waits, queue=place))
        await started.wait()
        one.cancel()
        await one.wait()
        assert seen == ["cancelled"]
        assert await supervisor.call(at(place, look)) == "nobody"


@pytest.mark.parametrize("place", PLACES)
async def test_current_job_anywhere(place: str) -> None:
    """Code of a job, in a subtask or a thread it starts too, asks for the very job; none elsewhere."""

    def in_a_thread(found: list[str]) -> None:
        found.append(current_job().id)

    async def asks() -> list[str]:
        found = [current_job().id]
        await asyncio.to_thread(in_a_thread, found)
        await asyncio.create_task(ask(found))
        return found

    async def ask(found: list[str]) -> None:
        found.append(current_job().id)

    def asks_in_a_thread() -> list[str]:
        found = [current_job().id]
        copy_context().run(in_a_thread, found)
        return found

    function = job(asks_in_a_thread if place == "threads" else asks, queue=place)
    async with supervisor_with() as supervisor:
        for _ in range(3):
            one = await supervisor.submit(function)
            assert set(await one) == {one.id}
        with pytest.raises(RuntimeError, match="outside a job"):
            current_job()
        with pytest.raises(RuntimeError, match="outside a job"):
            await asyncio.to_thread(current_job)


@pytest.mark.parametrize("place", PLACES)
async def test_decimal_context(place: str) -> None:
    """The decimal module's context is a variable too: its precision is the submitter's if that has
    set one, and changes for no other job.
    """

    def third(precision: int | None) -> str:
        if precision is not None:
            decimal.setcontext(decimal.Context(prec=precision))
        return str(decimal.Decimal(1) / 3)

    default = "0." + "3" * decimal.DefaultContext.prec
    function = at(place, third)
    async with supervisor_with() as supervisor:
        assert await supervisor.call(function, None) == default
        assert await supervisor.call(function, 3) == "0.333"
        assert await supervisor.call(function, None) == default
        with decimal.localcontext(prec=5):
            assert await supervisor.call(function, None) == "0.33333"
            assert await supervisor.call(function, 2) == "0.33"
            assert await supervisor.map(function, [None, 2, None]) == ["0.33333", "0.33", "0.33333"]


async def test_task_of_each_job() -> None:
    """With isolation="task" each attempt has a task of its own, with nothing of the last one's:
    not its name, nor its cancellation; without it a worker's jobs share one.
    """

    async def meddles() -> int:
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        assert task.get_name() != "meddled with"
        task.set_name("meddled with")
        await asyncio.sleep(0)
        tasks.append(task)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return len(tasks)

    async def plain() -> None:
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(0)
        tasks.append(task)

    tasks: list[asyncio.Task[Any]] = []
    async with supervisor_with() as supervisor:
        for number in range(5):
            assert await supervisor.call(job(meddles, queue="task")) == number + 1
        assert len(set(tasks)) == 5
        tasks.clear()
        for place, expected in (("shared", 1), ("task", 5)):
            for _ in range(5):
                await supervisor.call(job(plain, queue=place))
            assert len(set(tasks)) == expected
            tasks.clear()


async def test_iterables_run_in_the_readers_context() -> None:
    """The code of a map's iterable sees, and sets, the variables of a context of its reader's, in
    one context from its beginning to its end.
    """
    seen: list[str] = []

    def items() -> Iterator[int]:
        token = user.set(f"items of {user.get()}")
        for number in range(200):
            seen.append(user.get())
            yield number
        user.reset(token)

    async def async_items() -> AsyncIterator[int]:
        for number in items():
            await asyncio.sleep(0)
            yield number

    async with supervisor_with() as supervisor:
        user.set("reader")
        for make in (items, async_items):
            found = await supervisor.map(at("shared", look), make(), window=10)
            assert found == ["reader"] * 200
            assert set(seen) == {"items of reader"}
            assert user.get() == "reader"
