"""cancel_at_every_step: every place is tried, and planted mistakes are found at the right one."""

import asyncio
import sys

import pytest

from asyncworkers.testing import CancelRun, cancel_at_every_step


class Pool:
    """Two workers on a queue; one that is cancelled gives its job back, unless it has a bug."""

    def __init__(self, bug: str | None) -> None:
        self.bug = bug
        self.queue: asyncio.Queue[int] = asyncio.Queue()
        self.done: list[int] = []
        self.in_hand: set[int] = set()

    async def work(self) -> None:
        while True:
            job = await self.queue.get()
            if self.bug == "await between":
                await asyncio.sleep(0)  # between taking the job and registering it
            self.in_hand.add(job)
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                self.in_hand.discard(job)
                if self.bug != "forgets":
                    self.queue.put_nowait(job)
                raise
            self.done.append(job)
            self.in_hand.discard(job)


def scenario(bug: str | None = None):
    """Make a scenario of four jobs and two workers, one of them the victim."""

    async def main() -> tuple[list[int], set[int]]:
        pool = Pool(bug)
        victim = asyncio.create_task(pool.work(), name="victim")
        other = asyncio.create_task(pool.work(), name="other")
        for job in range(4):
            pool.queue.put_nowait(job)
        await asyncio.sleep(1)
        for task in (victim, other):
            task.cancel()
        await asyncio.wait([victim, other])
        return sorted(pool.done), pool.in_hand

    return main


def nothing_lost(run: CancelRun[tuple[list[int], set[int]]]) -> None:
    """Every job was done once, wherever the victim was cancelled."""
    assert run.value == ([0, 1, 2, 3], set()), f"lost or doubled: {run.value}"


def test_correct_code_has_no_violations():
    """The pool without a bug loses nothing, wherever its worker is cancelled."""
    report = cancel_at_every_step(scenario(), nothing_lost, task="victim")
    assert not report.violations, report
    assert len(report.cancellations) >= 6
    assert {each.moment for each in report.cancellations} == {"waking", "waiting"}


def test_an_await_between_taking_and_registering_is_found():
    """The planted suspension point loses a job; the report says where the task was."""
    report = cancel_at_every_step(scenario("await between"), nothing_lost, task="victim")
    places = [str(each.cancellation) for each in report.violations]
    assert places
    assert any("test_exhaustive.py" in place and "in work" in place for place in places)
    assert all("lost" in each.problem for each in report.violations)


def test_a_job_not_given_back_is_found():
    """The planted missing clean-up is found while the job waits, and also as it wakes."""
    report = cancel_at_every_step(scenario("forgets"), nothing_lost, task="victim")
    moments = {each.cancellation.moment for each in report.violations if each.cancellation}
    assert moments == {"waking", "waiting"}


def test_a_swallowed_cancellation_is_found_as_a_hang():
    """A main task that never ends after its cancellation is a violation, not a hang of the test."""

    async def deaf() -> None:
        event = asyncio.Event()
        asyncio.get_running_loop().call_later(1, event.set)
        try:
            await event.wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    report = cancel_at_every_step(deaf)
    assert any("SimDeadlock" in each.problem for each in report.violations)


def test_tasks_left_over_are_found():
    """A scenario that leaves its child running when it is cancelled is reported with the child."""

    async def careless() -> None:
        child = asyncio.create_task(asyncio.sleep(100), name="orphan")
        await asyncio.sleep(1)
        child.cancel()
        await asyncio.wait([child])

    report = cancel_at_every_step(careless)
    assert any("orphan" in each.problem for each in report.violations)
    assert "violations in" in str(report)


def test_a_lost_exception_is_found():
    """What reaches the loop's exception handler counts as a violation."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            future.set_exception(ValueError("nobody looks"))

    report = cancel_at_every_step(main)
    assert any("nobody looks" in each.problem for each in report.violations)


def test_an_error_of_the_scenario_is_a_violation():
    """An exception other than CancelledError means that the cancellation was handled badly."""

    async def main() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            raise KeyError("clean-up")

    report = cancel_at_every_step(main)
    undisturbed = [each for each in report.violations if each.cancellation is None]
    assert len(undisturbed) == 1  # the run without a cancellation fails too, and is told of once
    assert "KeyError" in undisturbed[0].problem
    assert "not cancelled at all" in str(undisturbed[0])


def test_tasks_are_chosen_by_a_function():
    """With a predicate the steps of every matching task are tried."""
    by_name = cancel_at_every_step(scenario(), task="victim")
    both = cancel_at_every_step(
        scenario(), nothing_lost, task=lambda task: task.get_name() in ("victim", "other")
    )
    assert len(both.cancellations) == 2 * len(by_name.cancellations)
    assert not both.violations, both


def test_a_choice_that_matches_nothing_is_an_error():
    """A sweep that cancelled nothing would prove nothing."""
    with pytest.raises(ValueError, match="no step"):
        cancel_at_every_step(scenario(), task="nobody")


def test_the_first_step_of_an_eager_task_counts():
    """A task that starts inside its maker's step is also cancelled where it first waits."""
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")
    log: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            log.append("while waiting")
            raise

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.Task(child(), loop=loop, name="child", eager_start=True)
        await asyncio.wait([task])

    report = cancel_at_every_step(main, task="child")
    assert [(each.step, each.moment) for each in report.cancellations] == [
        (1, "waking"),
        (1, "waiting"),
    ]
    assert log == ["while waiting"] * 2
