"""Runs an async program to its end on a `SimLoop` and tells how the run went."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar, cast

from asyncworkers.testing import _tasks
from asyncworkers.testing.simloop import SimDeadlock, SimLoop, SimStepLimit

__all__ = ["Ending", "Program", "SimResult", "run_to_end", "simulate"]

T = TypeVar("T")

Program: TypeAlias = Callable[[], Coroutine[Any, Any, T]]

MERCY = 10_000
"""How many steps the tasks left over may take to end after they were cancelled."""


@dataclass(frozen=True, slots=True)
class SimResult(Generic[T]):
    """How a simulated program ended.

    - `value`: what it returned.
    - `digest`: the fingerprint of the run, the same for the same code and seed.
    - `steps`: how many callbacks and task steps it took.
    - `time`: virtual seconds from beginning to end.
    - `leftover`: the tasks, one line each, that were unfinished when the program returned.
    - `unhandled`: what reached the loop's exception handler, such as a task's lost exception.
    - `seed`: what to pass again to repeat it.
    """

    value: T
    digest: str
    steps: int
    time: float
    leftover: tuple[str, ...]
    unhandled: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Ending(Generic[T]):
    """How a run ended, whether by a value or by an error (then `result.value` is None)."""

    result: SimResult[T]
    error: BaseException | None


def simulate(
    main: Program[T],
    *,
    seed: int = 0,
    shuffle: float = 1.0,
    max_steps: int = 1_000_000,
    latency: tuple[float, float] = (0.0, 0.01),
) -> SimResult[T]:
    """Call `main()` and run the coroutine to its end on a new `SimLoop`; options are the loop's.

    Tasks left over are cancelled afterwards, as `asyncio.run` does it. Whatever the program
    raises is raised here, with a note that tells the seed; so are SimDeadlock and SimStepLimit.
    Must not be called while an event loop is running in this thread.

        def test_nothing_is_lost():
            for seed in range(1000):
                assert simulate(crawl, seed=seed).value == EXPECTED
    """
    loop = SimLoop(seed, shuffle=shuffle, max_steps=max_steps, latency=latency)
    ending = run_to_end(loop, main)
    if ending.error is not None:
        ending.error.add_note(
            f"simulated with seed={seed}, shuffle={shuffle}; ended at virtual time "
            f"{ending.result.time:.6f} s, after {ending.result.steps} steps"
        )
        raise ending.error
    return ending.result


def run_to_end(loop: SimLoop, main: Program[T]) -> Ending[T]:
    """Run a program on a loop made for it, end what it left behind, and close the loop."""
    value, error = None, None
    with _collector_resting(), contextlib.closing(loop):
        task = loop.create_task(main(), name="main")
        try:
            value = loop.run_until_complete(task)
        except BaseException as raised:  # handed on by whoever asked for the run
            error = raised
        digest, steps, time = loop.digest(), loop.steps, loop.time()
        leftover = _tasks.describe_all(asyncio.all_tasks(loop))
        _end(loop)
    result = SimResult(
        value=cast("T", value),
        digest=digest,
        steps=steps,
        time=time,
        leftover=leftover,
        unhandled=tuple(loop.unhandled),
        seed=loop.seed,
    )
    return Ending(result, error)


def _end(loop: SimLoop) -> None:
    """Cancel what is left, again and again, then give up on what does not end."""
    loop.step_hook = None
    with _mercy(loop):
        while tasks := _tasks.in_order(asyncio.all_tasks(loop)):
            for task in tasks:
                task.cancel("the simulation ended")
            loop.run_until_complete(asyncio.wait(tasks))
    with _mercy(loop):
        loop.run_until_complete(loop.shutdown_asyncgens())
    for task in _tasks.in_order(asyncio.all_tasks(loop)):
        _discard(task)


@contextlib.contextmanager
def _mercy(loop: SimLoop) -> Generator[None]:
    """Give the block some more steps, and end it quietly when they are used up or lead nowhere."""
    loop.max_steps = loop.steps + MERCY
    with contextlib.suppress(SimDeadlock, SimStepLimit):
        yield


def _discard(task: asyncio.Task[Any]) -> None:
    """Drop a task that cannot be ended, and with it the log line about its being dropped."""
    stubborn: Any = task
    stubborn._log_destroy_pending = False
    with contextlib.suppress(BaseException):  # it has shown that it does what it likes
        stubborn.get_coro().close()


@contextlib.contextmanager
def _collector_resting() -> Generator[None]:
    """Keep the cyclic collector from running finalizers at moments that differ between runs."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
