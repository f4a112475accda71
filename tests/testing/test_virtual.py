"""VirtualLoop: real threads and sockets, and time that jumps only where nothing is missed."""

import asyncio
import signal
import socket
import threading

import pytest

from asyncworkers.testing import VirtualDeadlock, VirtualLoop


def run(main, **options):
    """Run a program on a VirtualLoop with these options."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(**options)) as runner:
        return runner.run(main())


def now() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


class Gate:
    """Blocks a thread until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def pass_through(self) -> str:
        self.reached.set()
        assert self.open.wait(30)
        return "through"


def test_an_hour_of_sleeping_takes_no_time():
    """3,600 sleeps of a second are over at once, and time is exact to the last bit."""

    async def main() -> float:
        for _ in range(3600):
            await asyncio.sleep(1)
        return now()

    assert run(main) == 3600.0


def test_timers_keep_their_order():
    """Sleepers wake in the order of their times, at exactly these times."""

    async def main() -> list[tuple[float, float]]:
        log: list[tuple[float, float]] = []

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(seconds)
            log.append((seconds, now()))

        await asyncio.gather(*(sleep(seconds) for seconds in (5, 0.5, 86_400 * 3, 2)))
        return log

    assert run(main) == [(0.5, 0.5), (2, 2.0), (5, 5.0), (259_200, 259_200.0)]


def test_time_does_not_jump_while_held():
    """While work is under way outside, a timer an hour away is not reached; afterwards it is."""
    gate = Gate()

    async def main() -> tuple[float, float, str]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def work() -> None:
            value = gate.pass_through()
            loop.call_soon_threadsafe(future.set_result, value)
            loop.release()

        loop.hold()
        thread = threading.Thread(target=work)
        thread.start()
        timer = asyncio.create_task(asyncio.sleep(3600))
        while not gate.reached.is_set():
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0.001)  # the loop is idle in between, and would jump if it could
        held_at, done = now(), timer.done()
        assert not done
        gate.open.set()
        value = await future
        await timer
        thread.join()
        return held_at, now(), value

    held_at, ended_at, value = run(main)
    assert held_at < 60
    assert ended_at >= 3600
    assert value == "through"


def test_a_thread_that_outlives_its_timeout_does_not_stop_time():
    """Held time passes as real time, so a timeout on a blocked thread fires and nothing hangs."""
    gate = Gate()

    async def main() -> str:
        try:
            async with asyncio.timeout(0.02):
                await asyncio.to_thread(gate.pass_through)
        except TimeoutError:
            return "timed out"
        finally:
            gate.open.set()
        return "in time"

    assert run(main) == "timed out"


def test_a_blocking_call_is_waited_for():
    """run_in_executor holds the loop: a timeout of an hour does not fire meanwhile."""
    gate = Gate()

    async def main() -> str:
        loop = asyncio.get_running_loop()

        def open_soon() -> None:
            gate.reached.wait(30)
            gate.open.set()

        async with asyncio.timeout(3600):
            opened = loop.run_in_executor(None, open_soon)
            value = await asyncio.to_thread(gate.pass_through)
            await opened
        return value

    assert run(main) == "through"


def test_the_result_of_a_thread_never_comes_after_a_jump():
    """Of many quick calls none loses the race between its result and a timer that is due later."""

    async def main() -> float:
        for _ in range(300):
            async with asyncio.timeout(1000):
                await asyncio.to_thread(int)
        return now()

    assert run(main) < 1000


def test_other_threads_are_heard():
    """A thread that nobody holds the loop for wakes it by call_soon_threadsafe."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        thread = threading.Thread(
            target=lambda: loop.call_soon_threadsafe(future.set_result, "heard")
        )
        thread.start()
        try:
            return await future
        finally:
            thread.join()

    assert run(main, patience=30) == "heard"


def test_sockets_work_and_their_answers_come_before_the_timeout():
    """A server on this loop answers although the client's timeout is the only timer set."""

    async def main() -> tuple[list[bytes], float]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        answers = []
        async with server:
            for _ in range(50):
                async with asyncio.timeout(10):
                    address = server.sockets[0].getsockname()
                    reader, writer = await asyncio.open_connection(*address)
                    writer.write(b"hello\n")
                    answers.append(await reader.read())
                    writer.close()
                    await writer.wait_closed()
        return answers, now()

    answers, ended_at = run(main)
    assert answers == [b"HELLO\n"] * 50
    assert ended_at == 0


def test_a_server_may_be_slow_in_virtual_time():
    """With sockets open time still jumps, once they have been silent for `settle` seconds."""

    async def main() -> float:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            await asyncio.sleep(3600)
            writer.write(b"at last\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            assert await reader.read() == b"at last\n"
            writer.close()
            await writer.wait_closed()
        return now()

    assert run(main) == 3600


def test_a_child_process_is_read():
    """Pipes and the end of a child are seen."""

    async def main() -> bytes:
        process = await asyncio.create_subprocess_exec(
            "echo", "hello", stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        return output

    assert run(main) == b"hello\n"


async def waits_for_ever() -> None:
    """Wait for what nobody will bring."""
    await asyncio.get_running_loop().create_future()


def test_a_deadlock_names_the_tasks():
    """With nothing left that could happen, the run ends with each waiting task and its place."""
    alone = threading.active_count() == 1

    async def main() -> None:
        await asyncio.create_task(waits_for_ever(), name="the patient one")

    with pytest.raises(VirtualDeadlock, match=r"the patient one.*waits_for_ever.*test_virtual.py"):
        run(main, patience=5.0 if alone else 0.01)


def test_a_deadlock_is_seen_beside_idle_threads():
    """Threads that stay silent for `patience` seconds do not make the loop hang."""

    async def main() -> None:
        await asyncio.to_thread(int)  # leaves an idle thread behind
        await waits_for_ever()

    with pytest.raises(VirtualDeadlock):
        run(main, patience=0.01)


def test_a_watched_socket_is_waited_for():
    """With a socket open the loop listens, as every loop does, instead of crying deadlock."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        connected = loop.create_future()

        def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()
            connected.set_result("came")

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            address = server.sockets[0].getsockname()

            def connect() -> None:
                socket.create_connection(address).close()

            thread = threading.Thread(target=connect)
            thread.start()
            try:
                return await connected
            finally:
                thread.join()

    assert run(main, patience=0) == "came"


def test_a_signal_is_waited_for():
    """A program that waits for a signal and nothing else gets it."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        came = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, came.set_result, "came")
        thread = threading.Thread(target=lambda: signal.raise_signal(signal.SIGUSR1))
        thread.start()
        try:
            return await came
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)
            thread.join()

    assert run(main, patience=30) == "came"


def test_release_needs_a_hold():
    """A release too many is a mistake in the bridge, so it is an error."""

    async def main() -> None:
        asyncio.get_running_loop().release()

    with pytest.raises(RuntimeError, match="hold"):
        run(main)


def test_clock_and_dice():
    """The wall clock goes with virtual time, and the dice are seeded."""

    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        before = loop.wall()
        await asyncio.sleep(3600)
        return loop.wall() - before, loop.random.random()

    passed, roll = run(main, seed=5)
    assert passed == pytest.approx(3600)
    assert run(main, seed=5)[1] == roll != run(main, seed=6)[1]


def test_the_loop_ends_with_its_executor():
    """The five minutes that Runner gives the executor are not jumped over; no thread is left."""
    before = threading.active_count()

    async def main() -> None:
        await asyncio.gather(*(asyncio.to_thread(int) for _ in range(5)))

    run(main)
    assert threading.active_count() == before
