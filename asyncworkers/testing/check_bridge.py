"""What every bridge must do: checks to run over one's own, through a queue that is declared with it.

With pytest:

    @pytest.mark.asyncio
    @pytest.mark.parametrize("check", bridge_checks(), ids=check_name)
    async def test_my_bridge(check):
        await check(Queue("mine", bridge=MyBridge))

The bridge must carry functions that can be imported where it leads to, asyncworkers among them, and
what runs there must reach a socket of this machine at 127.0.0.1. Each check also sees that nothing
is left behind here: no task, thread, process or file.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from asyncworkers import (
    Cancelled,
    Failed,
    JobFailed,
    JobState,
    JobTimedOut,
    Queue,
    Retry,
    Succeeded,
    Supervisor,
    TimedOut,
    WorkerCrashed,
    job,
)
from asyncworkers.bridge import AbandoningBridge
from asyncworkers.testing import _calls
from asyncworkers.testing.leaks import no_leaks

__all__ = ["bridge_checks", "check_bridge"]

Check: TypeAlias = Callable[[Queue], Awaitable[None]]

PATIENCE = 60.0
"""Seconds that no check takes, unless the bridge never does what it should."""

SOON = 5.0
"""Seconds in which a call that was stopped must be over."""

BIG = 4_000_000
"""Bytes: more than any pipe or socket takes at once."""

LOOPS_OWN = ("shared memory *", "file *: /dev/null")
"""Not of the bridge: what other programs share, and a file that uvloop keeps in reserve."""

_checks: list[Check] = []
_stoppable: set[str] = set()


def bridge_checks() -> list[Check]:
    """All checks, to parametrize a test with; `check_name` names each."""
    return list(_checks)


async def check_bridge(queue: Queue) -> None:
    """Run every check over a queue declared with the bridge, `Queue("mine", bridge=MyBridge)`.

    Raises what the first check that fails raises, with a note that names it. The queue's `workers`
    and `unwind` are the checks' own. What cannot be asked of threads is not asked of them.
    """
    for check in _checks:
        await check(queue)


class World:
    """A queue over the bridge, and a socket by which what runs at its other end is heard."""

    def __init__(self, queue: Queue, address: tuple[str, int], heard: asyncio.Queue[Line]) -> None:
        self._queue = queue
        self._heard = heard
        self.address = address

    def supervisor(self, workers: int = 1, unwind: float = 10.0) -> Supervisor:
        """A supervisor whose queue has so many bridges."""
        declared = self._queue.replace(workers=workers, unwind=unwind)
        return Supervisor(queues=[declared], stall=None)

    def job(self, function: Any, **options: Any) -> Any:
        """The function, to run over the bridge."""
        return job(function, queue=self._queue.name, **options)

    async def begun(self) -> Line:
        """Wait until the next call has begun."""
        return await self._heard.get()

    async def long_enough(self, supervisor: Supervisor) -> float:
        """Seconds in which a call has begun for certain, over this bridge and on this machine."""
        now = asyncio.get_running_loop().time
        began = now()
        await self.works(supervisor)
        return 0.5 + 5 * (now() - began)

    async def works(self, supervisor: Supervisor) -> None:
        """Another call goes through."""
        assert await supervisor.call(self.job(_calls.echo), "still here") == "still here"


class Line:
    """The connection to a call that runs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def tell(self, order: str) -> None:
        """Tell the call what to do."""
        self._writer.write(order.encode() + b"\n")

    async def ended(self) -> None:
        """See that the call is over, or will be in a moment."""
        try:
            async with asyncio.timeout(SOON):
                await self._reader.read()
        except ConnectionError:
            pass
        except TimeoutError:
            raise AssertionError("the job has ended, but its call runs on") from None

    def hang_up(self) -> None:
        """Let the call go, if it still runs."""
        self._writer.close()


def stops(queue: Queue) -> bool:
    """Whether calls over this queue's bridge can be stopped."""
    made: Any = queue.bridge
    abandons = isinstance(made, type) and issubclass(made, AbandoningBridge)
    return queue.kind not in ("threads", "interpreters") and not abandons


@asynccontextmanager
async def _world(queue: Queue) -> AsyncGenerator[World]:
    heard: asyncio.Queue[Line] = asyncio.Queue()
    lines: list[Line] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer)
        lines.append(line)
        assert await reader.readline() == b"begun\n"
        heard.put_nowait(line)

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    try:
        yield World(queue, server.sockets[0].getsockname()[:2], heard)
    finally:
        server.close()
        for line in lines:
            line.hang_up()
        await server.wait_closed()


def _check(function: Callable[[World], Awaitable[None]]) -> Check:
    """Make a check of a function."""

    async def check(queue: Queue) -> None:
        if check.__name__ in _stoppable and not stops(queue):
            return
        try:
            async with (
                asyncio.timeout(PATIENCE),
                no_leaks(ignore=LOOPS_OWN, grace=SOON),
                _world(queue) as world,
            ):
                await function(world)
        except BaseException as error:
            error.add_note(f"while checking {check.__name__}")
            raise

    name: Any = function
    check.__name__ = check.__qualname__ = name.__name__.strip("_")
    check.__doc__ = function.__doc__
    _checks.append(check)
    return check


def _check_of_stopping(function: Callable[[World], Awaitable[None]]) -> None:
    """The same, for bridges that can stop a call."""
    name: Any = function
    _stoppable.add(name.__name__.strip("_"))
    _check(function)


# ---- there and back


@_check
async def _values_come_back(world: World) -> None:
    """What a call returns is what the job returns."""
    async with world.supervisor() as supervisor:
        for value in (None, 0, "text", b"", [1, {"two": (3.0, None)}]):
            assert await supervisor.call(world.job(_calls.echo), value) == value


@_check
async def _names_of_arguments_are_kept(world: World) -> None:
    """Arguments come by position and by name, as they were given."""
    async with world.supervisor() as supervisor:
        assert await supervisor.call(world.job(_calls.echo), 5, twice=True) == (5, 5)


@_check
async def _errors_come_back(world: World) -> None:
    """What a call raises is what the job raises, and the bridge is good for the next."""
    async with world.supervisor() as supervisor:
        failing = await supervisor.submit(world.job(_calls.fail), "no", 7)
        outcome = await failing.wait()
        assert isinstance(outcome, Failed), f"it ended as {outcome}"
        assert type(outcome.error) is ValueError, f"it failed with {outcome.error!r}"
        assert outcome.error.args == ("no", 7)
        await world.works(supervisor)


@_check
async def _exits_are_failures(world: World) -> None:
    """A call that raises SystemExit has failed; nothing else ends."""
    async with world.supervisor() as supervisor:
        outcome = await (await supervisor.submit(world.job(_calls.leave))).wait()
        assert isinstance(outcome, Failed), f"it ended as {outcome}"
        assert isinstance(outcome.error, JobFailed | WorkerCrashed), f"it raised {outcome.error!r}"
        await world.works(supervisor)


@_check
async def _big_values_go_both_ways(world: World) -> None:
    """No pipe is too narrow for a big argument or a big value."""
    data = bytes(range(256)) * (BIG // 256)
    async with world.supervisor() as supervisor:
        assert await supervisor.call(world.job(_calls.measure), data) == (len(data), data)


@_check
async def _what_cannot_be_carried_fails_alone(world: World) -> None:
    """An argument or a value that cannot go over the bridge is that job's error, at once or later."""
    async with world.supervisor() as supervisor:
        for function, args in ((_calls.echo, (threading.Lock(),)), (_calls.lock, ())):
            try:
                await supervisor.call(world.job(function), *args)
            except WorkerCrashed as error:
                raise AssertionError("the bridge broke over what cannot be pickled") from error
            except Exception:  # noqa: S110  # whatever it is, it is said
                pass
            await world.works(supervisor)


@_check
async def _calls_run_at_once(world: World) -> None:
    """Two workers have a bridge each: two calls run at the same time, and each gets its own end."""
    async with world.supervisor(2) as supervisor:
        jobs = [await supervisor.submit(world.job(_calls.converse), world.address) for _ in "ab"]
        lines = [await world.begun(), await world.begun()]
        for number, line in reversed(list(enumerate(lines))):
            line.tell(f"you are {number}")
            await line.ended()
        assert sorted([await one for one in jobs]) == ["you are 0", "you are 1"]


@_check
async def _leaving_waits_for_calls(world: World) -> None:
    """A supervisor that is left normally waits for the call that runs."""
    async with world.supervisor() as supervisor:
        running = await supervisor.submit(world.job(_calls.converse), world.address)
        (await world.begun()).tell("go home")
    assert running.result() == "go home"


# ---- ending early


@_check
async def _what_was_cancelled_early_is_forgotten(world: World) -> None:
    """A job that is cancelled at once, begun or not, ends as cancelled, or with its value."""
    async with world.supervisor(unwind=1.0) as supervisor:
        for turns in range(4):
            hasty = await supervisor.submit(world.job(_calls.echo), turns)
            for _ in range(turns):
                await asyncio.sleep(0)
            hasty.cancel("in haste")
            assert await hasty.wait() in (Cancelled("in haste"), Succeeded(turns))
        await world.works(supervisor)


@_check
async def _a_cancelled_call_is_over(world: World) -> None:
    """Cancelling a job ends its call; where that cannot be, its slot is taken until it ends."""
    async with world.supervisor() as supervisor:
        running = await supervisor.submit(world.job(_calls.converse), world.address)
        line = await world.begun()
        waiting = await supervisor.submit(world.job(_calls.echo), "next")
        running.cancel("enough")
        assert await running.wait() == Cancelled("enough")
        if not stops(world._queue):
            assert waiting.state is JobState.QUEUED
            line.tell("end")
        await line.ended()
        assert await waiting == "next"


@_check
async def _a_timed_out_call_is_over(world: World) -> None:
    """The same for a call that takes too long; the job may be tried again."""
    retry = Retry(2, on=JobTimedOut, delay=0)
    async with world.supervisor(2) as supervisor:
        timeout = await world.long_enough(supervisor)
        slow = world.job(_calls.converse, timeout=timeout, retry=retry)
        running = await supervisor.submit(slow, world.address)
        line = await world.begun()
        second = await world.begun()
        if not stops(world._queue):
            line.tell("too late")
        await line.ended()
        second.tell("in time")
        assert await running == "in time"


@_check_of_stopping
async def _a_call_that_will_not_end_is_killed(world: World) -> None:
    """A call that ignores every request is killed after `unwind`, and another bridge is made."""
    async with world.supervisor(unwind=0.2) as supervisor:
        deaf = world.job(_calls.stay)
        for timeout in (None, await world.long_enough(supervisor)):
            running = await supervisor.submit(deaf.options(timeout=timeout), world.address)
            line = await world.begun()
            if timeout is None:
                running.cancel("enough")
            outcome = await running.wait()
            assert outcome == (Cancelled("enough") if timeout is None else TimedOut(timeout))
            await line.ended()
            await world.works(supervisor)


@_check_of_stopping
async def _only_what_was_cancelled_is_ended(world: World) -> None:
    """Killing the call of one bridge leaves that of another alone."""
    async with world.supervisor(2, unwind=0.2) as supervisor:
        deaf = await supervisor.submit(world.job(_calls.stay), world.address)
        await world.begun()
        other = await supervisor.submit(world.job(_calls.converse), world.address)
        line = await world.begun()
        deaf.cancel("enough")
        assert await deaf.wait() == Cancelled("enough")
        line.tell("alive")
        assert await other == "alive"


@_check_of_stopping
async def _leaving_in_anger_ends_calls(world: World) -> None:
    """A supervisor that is left with an exception ends what runs, willing or not."""
    for function in (_calls.converse, _calls.stay):
        lines: list[Line] = []
        try:
            async with world.supervisor(unwind=0.2) as supervisor:
                await supervisor.submit(world.job(function), world.address)
                lines.append(await world.begun())
                raise KeyError("in anger")
        except KeyError:
            pass
        await lines[0].ended()


@_check_of_stopping
async def _a_death_fails_one_job(world: World) -> None:
    """When what carries a call dies, that job fails with WorkerCrashed, and no other."""
    async with world.supervisor() as supervisor:
        dying = await supervisor.submit(world.job(_calls.converse), world.address)
        waiting = await supervisor.submit(world.job(_calls.echo), "next")
        (await world.begun()).tell("die")
        outcome = await dying.wait()
        assert isinstance(outcome, Failed), f"it ended as {outcome}"
        assert isinstance(outcome.error, WorkerCrashed), f"it failed with {outcome.error!r}"
        assert await waiting == "next"


@_check_of_stopping
async def _a_death_can_be_retried(world: World) -> None:
    """A job whose bridge died runs again, over another one, if its `retry` says so."""
    retry = Retry(2, on=WorkerCrashed, delay=0)
    async with world.supervisor() as supervisor:
        dying = await supervisor.submit(world.job(_calls.converse, retry=retry), world.address)
        (await world.begun()).tell("die")
        (await world.begun()).tell("well")
        assert await dying == "well"
        assert dying.attempt == 2
