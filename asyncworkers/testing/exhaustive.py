"""Cancels a task at each of its steps, one run per step, and tells what was wrong afterwards.

A cancellation can arrive wherever a coroutine awaits, and code is rarely tested at all of these
places. `cancel_at_every_step` runs a scenario again and again on a `SimLoop`, with the same seed
and therefore in the same way, and cancels the chosen task one step later each time, until a run
ends without being touched. So every place is tried once, and none by luck.

There are two moments at each step, and they differ:

- `"waking"`: what the task waits for has just come, and the task is about to go on. The
  cancellation takes the place of what it would have been given: the classic way to lose it.
- `"waiting"`: the task has just begun to wait. The cancellation goes to what it waits for.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from asyncworkers.testing import _tasks
from asyncworkers.testing.simloop import SimLoop
from asyncworkers.testing.simulate import Program, run_to_end

__all__ = ["CancelReport", "CancelRun", "Cancellation", "Violation", "cancel_at_every_step"]

T = TypeVar("T")

Moment: TypeAlias = Literal["waking", "waiting"]
MOMENTS: tuple[Moment, ...] = ("waking", "waiting")

Choice: TypeAlias = str | Callable[[asyncio.Task[Any]], bool]


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Where a run was disturbed: at which step, at which moment of it, and what the task was at."""

    step: int
    moment: Moment
    task: str

    def __str__(self) -> str:
        return f"cancelled at step {self.step}, {self.moment}: {self.task}"


@dataclass(frozen=True, slots=True)
class CancelRun(Generic[T]):
    """One run of the scenario.

    - `cancellation`: where it was disturbed; None for the last run, which was not.
    - `value`: what the scenario returned; None if it raised.
    - `error`: what it raised: None or a CancelledError, for anything else is a violation anyway.
    - `leftover`: the tasks, one line each, that were unfinished when the scenario ended.
    """

    cancellation: Cancellation | None
    value: T | None
    error: BaseException | None
    leftover: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Violation:
    """What was wrong after which run."""

    cancellation: Cancellation | None
    problem: str

    def __str__(self) -> str:
        return f"{self.cancellation or 'not cancelled at all'}: {self.problem}"


@dataclass(frozen=True, slots=True)
class CancelReport:
    """What came of all runs: where the task was cancelled, and what was wrong after that."""

    cancellations: tuple[Cancellation, ...]
    violations: tuple[Violation, ...]

    def __str__(self) -> str:
        head = f"{len(self.violations)} violations in {len(self.cancellations)} cancelled runs"
        return "\n".join([head, *(f"- {violation}" for violation in self.violations)])


def cancel_at_every_step(
    scenario: Program[T],
    check: Callable[[CancelRun[T]], object] | None = None,
    *,
    task: Choice = "main",
    seed: int = 0,
    shuffle: float = 0.0,
    max_steps: int = 100_000,
) -> CancelReport:
    """Run the scenario once per step of the chosen task, cancelling it there; report violations.

    - `scenario`: called for each run; the coroutine it returns is the task named "main".
    - `check`: looks at each run, the undisturbed one included, and raises AssertionError if
      something is wrong with it.
    - `task`: which task to cancel: its name, or a function that picks it. If several match, each
      step of any of them counts.
    - `seed`, `shuffle`, `max_steps`: as for `SimLoop`.

    Without any check these are violations: the run deadlocks or does not end, the scenario raises
    anything but CancelledError, tasks are left over, or the loop's exception handler is called.
    Raises ValueError if no task was ever chosen, for then nothing was tried.

        report = cancel_at_every_step(scenario, check)
        assert not report.violations, report
    """
    cancellations: list[Cancellation] = []
    violations: list[Violation] = []
    for moment in MOMENTS:
        step = 1
        while True:
            canceller = _Canceller(task, step, moment)
            loop = SimLoop(seed, shuffle=shuffle, max_steps=max_steps)
            run, problems = _run(loop, scenario, canceller, check)
            violations.extend(Violation(run.cancellation, problem) for problem in problems)
            if run.cancellation is None:
                break
            cancellations.append(run.cancellation)
            step += 1
    if not cancellations:
        raise ValueError(f"the scenario has no step of a task chosen by {task!r}")
    return CancelReport(tuple(cancellations), tuple(dict.fromkeys(violations)))


class _Canceller:
    """The loop's step hook for one run: cancels the chosen task at its n-th step."""

    def __init__(self, choice: Choice, step: int, moment: Moment) -> None:
        self.done: Cancellation | None = None
        self._choice = choice
        self._step = step
        self._moment: Moment = moment
        self._steps = 0
        self._known: set[asyncio.Task[Any]] = set()

    def __call__(self, task: asyncio.Task[Any] | None, take_step: Callable[[], None]) -> None:
        if self.done is not None:
            take_step()
            return
        chosen = task if task is not None and self._chooses(task) else None
        if chosen is not None and self._moment == "waking":
            self._count(chosen)
        take_step()
        if self._moment == "waiting":
            if chosen is not None:
                self._known.add(chosen)
                self._count(chosen)
            self._count_eager()

    def _chooses(self, task: asyncio.Task[Any]) -> bool:
        choice = self._choice
        return task.get_name() == choice if isinstance(choice, str) else choice(task)

    def _count(self, task: asyncio.Task[Any]) -> None:
        if task.done() or self.done is not None:
            return
        self._steps += 1
        if self._steps == self._step:
            self.done = Cancellation(self._step, self._moment, _tasks.describe(task))
            task.cancel()

    def _count_eager(self) -> None:
        """A task started eagerly makes its first step inside another's: count that one too."""
        for task in _tasks.in_order(asyncio.all_tasks()):
            if task not in self._known and self._chooses(task):
                coroutine = task.get_coro()
                begun = inspect.iscoroutine(coroutine) and coroutine.cr_await is not None
                if begun:
                    self._known.add(task)
                    self._count(task)


def _run(
    loop: SimLoop,
    scenario: Program[T],
    canceller: _Canceller,
    check: Callable[[CancelRun[T]], object] | None,
) -> tuple[CancelRun[T], list[str]]:
    loop.step_hook = canceller
    ending = run_to_end(loop, scenario)
    result, error = ending.result, ending.error
    value = None if error is not None else result.value
    run = CancelRun(canceller.done, value, error, result.leftover)
    problems = [f"left unfinished: {task}" for task in result.leftover]
    problems += [f"unhandled: {report}" for report in result.unhandled]
    if error is not None and not isinstance(error, asyncio.CancelledError):
        problems.append(f"the scenario raised {type(error).__name__}: {error}")
    elif check is not None:
        try:
            check(run)
        except AssertionError as failed:
            problems.append(str(failed) or "the check failed")
    return run, problems
