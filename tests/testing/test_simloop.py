"""SimLoop: the seed alone decides, time is virtual, and nothing real gets in."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from asyncworkers.testing import SimDeadlock, SimLoop, SimStepLimit, SimUnsupported, simulate


def running() -> SimLoop:
    """Return the loop this runs on."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    return loop


class Counter:
    """A read-modify-write race: it reads, lets others go on, and writes back."""

    def __init__(self) -> None:
        self.value = 0

    async def add(self) -> None:
        seen = self.value
        self.value = seen  # what is read and written in one step is safe
        await asyncio.sleep(0)
        self.value += 1


class RacyCounter(Counter):
    async def add(self) -> None:
        seen = self.value
        if seen == 0:
            await asyncio.sleep(0)  # the first one writes its configuration down, it believes
        self.value = seen + 1


async def late_second(counter: Counter) -> int:
    """Add twice, the second time after the first would be through in asyncio's own order."""

    async def second() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # in asyncio's order the first one is through by now
        await counter.add()

    await asyncio.gather(counter.add(), second())
    return counter.value


def test_shuffling_finds_a_race_that_the_fifo_order_hides():
    """The planted lost update is seen in some shuffled runs and in none of asyncio's own order."""
    shuffled = [
        simulate(lambda: late_second(RacyCounter()), seed=seed).value for seed in range(100)
    ]
    fifo = [
        simulate(lambda: late_second(RacyCounter()), seed=seed, shuffle=0).value
        for seed in range(100)
    ]
    assert set(shuffled) == {1, 2}
    assert set(fifo) == {2}


def test_a_correct_program_stands_every_order():
    """The same program without the race is right in every shuffled run."""
    assert {simulate(lambda: late_second(Counter()), seed=seed).value for seed in range(100)} == {2}


async def busy() -> list[object]:
    """A program with everything whose order chance decides: timers, tasks, sets, the executor."""
    loop = running()
    log: list[object] = []

    async def one(number: int) -> int:
        await asyncio.sleep(loop.random.choice((0, 0.1, 0.1, 0.2)))
        log.append((number, loop.time()))
        return number

    tasks = {loop.create_task(one(number)) for number in range(10)}
    log.extend([task.get_name() for task in tasks])
    done, _ = await asyncio.wait(tasks)
    log.extend([task.result() for task in done])
    futures = {loop.create_future() for _ in range(10)}
    for number, future in enumerate(futures):
        future.set_result(number)
    log.extend([future.result() for future in futures])
    log.append(await asyncio.to_thread(lambda: loop.time()))
    loop.note(log)
    return log


def test_the_same_seed_gives_the_same_run():
    """Value, digest, steps and time repeat for a seed, and differ between seeds."""
    runs = [[simulate(busy, seed=seed) for seed in range(20)] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len({run.digest for run in runs[0]}) == 20


def test_the_digest_is_the_same_in_other_processes():
    """Neither PYTHONHASHSEED nor addresses change a run: two processes agree on every digest."""
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_simloop import busy
        from asyncworkers.testing import simulate
        print(*[simulate(busy, seed=seed).digest for seed in range(20)])
    """
    outputs = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert outputs == {" ".join(simulate(busy, seed=seed).digest for seed in range(20)) + "\n"}


def test_a_note_changes_the_digest():
    """What a program notes is part of the fingerprint, also between two steps."""

    async def noting(what: object) -> None:
        running().note(what)

    digests = {simulate(lambda what=what: noting(what)).digest for what in (1, 2)}
    assert len(digests) == 2


def test_the_programs_dice_do_not_change_the_order_of_tasks():
    """A draw more from `loop.random` leaves the scheduling as it was."""

    async def order(draws: int) -> list[int]:
        for _ in range(draws):
            running().random.random()
        log: list[int] = []

        async def one(number: int) -> None:
            log.append(number)

        await asyncio.gather(*(one(number) for number in range(20)))
        return log

    orders = [simulate(lambda draws=draws: order(draws), seed=3).value for draws in (0, 1, 100)]
    assert orders[0] == orders[1] == orders[2] != sorted(orders[0])


def test_plain_callbacks_keep_their_order():
    """Callbacks run in the order they were registered, as documented, whatever the seed."""

    async def main() -> list[int]:
        log: list[int] = []
        for number in range(50):
            running().call_soon(log.append, number)
        await asyncio.sleep(1)
        return log

    for seed in range(20):
        assert simulate(main, seed=seed).value == list(range(50))


def test_timers_of_one_instant_fire_in_any_order_and_others_in_theirs():
    """Both orders of a tie are tried; a later timer never comes first."""

    async def main() -> str:
        log: list[str] = []
        for when, name in ((0.3, "late"), (0.2, "a"), (0.1 + 0.1, "b"), (0.1, "early")):
            running().call_at(when, log.append, name)
        await asyncio.sleep(1)
        return " ".join(log)

    assert {simulate(main, seed=seed).value for seed in range(50)} == {
        "early a b late",
        "early b a late",
    }


def test_overdue_timers_keep_the_order_of_their_times():
    """Timers set for different moments in the past fire in the order of these moments."""

    async def main() -> list[str]:
        log: list[str] = []
        await asyncio.sleep(1)
        for when, name in ((0.9, "late"), (0.5, "early")):
            running().call_at(when, log.append, name)
        await asyncio.sleep(1)
        return log

    for seed in range(20):
        assert simulate(main, seed=seed).value == ["early", "late"]


def test_without_shuffling_the_order_is_asyncios():
    """With `shuffle=0` tasks and tied timers run first in, first out."""

    async def main() -> list[int]:
        log: list[int] = []

        async def one(number: int) -> None:
            await asyncio.sleep(1)
            log.append(number)

        await asyncio.gather(*(one(number) for number in range(20)))
        return log

    for seed in range(10):
        assert simulate(main, seed=seed, shuffle=0).value == list(range(20))


def test_time_is_virtual_and_exact():
    """A year passes at once; the wall clock goes with it and can be made to jump."""

    async def main() -> tuple[float, float, float]:
        loop = running()
        before = loop.wall()
        await asyncio.sleep(365 * 86400)
        after = loop.wall()
        loop.wall_offset -= 3600
        return loop.time(), after - before, loop.wall() - after

    result = simulate(main)
    assert result.value == (31_536_000.0, 31_536_000.0, -3600.0)
    assert result.time == 31_536_000.0


def test_a_deadlock_names_the_tasks_that_wait():
    """Instead of hanging, the run ends with each waiting task, its file and its function."""

    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.create_task(waits_for_ever(), name="the patient one")

    with pytest.raises(SimDeadlock) as caught:
        simulate(main, seed=7)
    text = str(caught.value)
    assert "the patient one" in text
    assert "test_simloop.py" in text
    assert "in waits_for_ever" in text
    assert "main (" in text
    assert "seed=7" in caught.value.__notes__[0]


def test_a_cancelled_timer_does_not_hide_a_deadlock():
    """Time does not jump to a timer nobody waits for any more."""

    async def main() -> None:
        running().call_later(10, print).cancel()
        await asyncio.get_running_loop().create_future()

    with pytest.raises(SimDeadlock, match=r"virtual time 0\.000 s"):
        simulate(main)


def test_going_in_circles_ends_at_the_step_limit():
    """A program that never gets anywhere is stopped and named."""

    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(SimStepLimit, match=r"(?s)in circles.*test_simloop\.py:\d+ in main"):
        simulate(main, max_steps=1000)


def test_errors_carry_the_seed():
    """Whatever the program raises tells how to repeat the run."""

    async def main() -> None:
        await asyncio.sleep(2)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong") as caught:
        simulate(main, seed=42)
    assert "seed=42" in caught.value.__notes__[0]
    assert "2.000000 s" in caught.value.__notes__[0]


def test_leftover_tasks_and_lost_exceptions_are_reported():
    """The result names what was unfinished at the end and what nobody has looked at."""

    async def fails() -> None:
        raise ValueError("lost")

    async def main() -> None:
        asyncio.create_task(asyncio.sleep(100), name="left")
        asyncio.create_task(fails())
        await asyncio.sleep(1)

    result = simulate(main)
    assert len(result.leftover) == 1
    assert result.leftover[0].startswith("left (sleep)")
    assert len(result.unhandled) == 1
    assert result.unhandled[0].endswith("exception was never retrieved: ValueError('lost')")


def test_what_is_left_is_ended_in_bounded_time():
    """A task that swallows its cancellation does not hold up the end, nor that of a generator."""
    log: list[str] = []
    kept: list[object] = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                log.append("swallowed")

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(1)
            log.append("closed")

    async def main() -> None:
        asyncio.create_task(stubborn())
        generator = numbers()
        kept.append(generator)
        await anext(generator)
        await asyncio.sleep(1)

    result = simulate(main)
    assert len(result.leftover) == 1
    assert "swallowed" in log
    assert "closed" in log


def test_blocking_calls_take_a_seeded_time_and_see_no_loop():
    """An executor's call runs inline, after a delay within `latency`, in an empty context."""

    def blocking() -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return threading.current_thread() is threading.main_thread()
        return False

    async def main() -> float:
        began = running().time()
        assert await asyncio.get_running_loop().run_in_executor(None, blocking)
        assert running() is asyncio.get_running_loop()
        return running().time() - began

    times = [simulate(main, seed=seed, latency=(1.0, 2.0)).value for seed in range(20)]
    assert all(1 <= time <= 2 for time in times)
    assert len(set(times)) == 20


def test_a_blocking_call_hands_on_what_it_raises():
    """Errors come out of the awaited future, StopIteration as a RuntimeError as in a thread."""

    def raises(error: BaseException) -> None:
        raise error

    async def main() -> None:
        with pytest.raises(KeyError):
            await asyncio.to_thread(raises, KeyError("x"))
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.to_thread(raises, StopIteration())
        running().run_in_executor(None, raises, KeyError("never runs")).cancel()
        await asyncio.sleep(1)

    assert simulate(main).unhandled == ()


def test_signals_arrive_when_raised():
    """A handler is called with its arguments as long as it is set."""

    async def main() -> list[str]:
        log: list[str] = []
        loop = running()
        loop.add_signal_handler(signal.SIGTERM, log.append, "terminated")
        loop.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)
        await asyncio.sleep(1)
        assert loop.remove_signal_handler(signal.SIGTERM) is True
        assert loop.remove_signal_handler(signal.SIGTERM) is False
        with pytest.raises(LookupError, match="no handler"):
            loop.raise_signal(signal.SIGTERM)
        return log

    assert simulate(main).value == ["terminated"]


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: asyncio.open_connection("127.0.0.1", 1),
        lambda: asyncio.start_server(print, "127.0.0.1", 0),
        lambda: asyncio.create_subprocess_exec("true"),
        lambda: asyncio.get_running_loop().getaddrinfo("localhost", 80),
        lambda: asyncio.get_running_loop().sock_recv(None, 1),
    ],
)
def test_real_input_and_output_is_refused(attempt):
    """Sockets and processes raise at once, and say what to use instead."""

    async def main() -> None:
        await attempt()

    with pytest.raises(SimUnsupported, match="VirtualLoop"):
        simulate(main)


def test_a_real_thread_is_refused():
    """A thread that calls into the loop gets an error: such a run could not be repeated."""
    errors: list[Exception] = []

    async def main() -> None:
        loop = running()

        def call() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except SimUnsupported as error:
                errors.append(error)

        thread = threading.Thread(target=call, name="intruder")
        thread.start()
        thread.join()

    simulate(main)
    assert "intruder" in str(errors[0])


def test_tasks_started_eagerly_work():
    """asyncio.Task(..., eager_start=True), as made beside the loop's own factory, runs and ends."""
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")

    async def child() -> str:
        await asyncio.sleep(1)
        return "done"

    async def main() -> str:
        loop = running()
        task = asyncio.Task(child(), loop=loop, eager_start=True)
        return await task

    assert {simulate(main, seed=seed).value for seed in range(5)} == {"done"}


def test_a_task_factory_is_honored():
    """A program may set a factory of its own, as on every loop."""

    async def main() -> bool:
        class Special(asyncio.Task):
            pass

        loop = running()
        loop.set_task_factory(lambda loop, coro, **options: Special(coro, loop=loop, **options))
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        return type(task) is Special

    assert simulate(main).value


def test_senseless_options_are_refused():
    """A chance above 1, a delay that ends before it begins and a timer at NaN are errors."""
    with pytest.raises(ValueError, match="shuffle"):
        SimLoop(shuffle=1.5)
    with pytest.raises(ValueError, match="latency"):
        SimLoop(latency=(2.0, 1.0))
    loop = SimLoop()
    with pytest.raises(ValueError, match="NaN"):
        loop.call_at(float("nan"), print)
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(1, print)


def test_a_timer_that_never_comes_is_no_reason_to_go_on():
    """A timer at infinity does not keep a deadlocked program alive."""

    async def main() -> None:
        await asyncio.sleep(float("inf"))

    with pytest.raises(SimDeadlock):
        simulate(main)


def test_the_step_hook_sees_every_step():
    """The hook is called in place of each step, with its task or None."""
    seen: list[str | None] = []

    async def main() -> None:
        loop = running()
        loop.step_hook = hook
        loop.call_soon(lambda: None)
        await asyncio.sleep(0)
        loop.step_hook = None

    def hook(task, take_step):
        seen.append(task and task.get_name())
        take_step()

    simulate(main, shuffle=0)
    assert seen == [None, "main"]
