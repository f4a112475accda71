"""What a signal handler raises in a loop passes through the loop's own `finally`."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from asyncworkers.bridge.child.raising import raise_in

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")


class Stop(BaseException):
    """What is raised."""


class Stopped:
    """Has a thread stop a loop of the main thread, as soon as that is in it."""

    def __init__(self, loop: Callable[[list[int], list[str]], None]) -> None:
        self.words: list[str] = []
        turns: list[int] = [0]
        try:
            stopper = threading.Thread(target=self.stop, args=(turns,))
            stopper.start()
            loop(turns, self.words)
        except Stop:
            self.words.append("stopped")
        stopper.join()

    def stop(self, turns: list[int]) -> None:
        while turns[0] < 100:
            pass
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


def ends_by_a_condition(turns: list[int], words: list[str]) -> None:
    """A `while` loop with a condition: CPython 3.13 forgets what stands around its end."""
    try:
        while turns[0] < 1_000_000_000:
            turns[0] += 1
    finally:
        words.append("finally")


def ends_never(turns: list[int], words: list[str]) -> None:
    """One without."""
    try:
        while True:
            turns[0] += 1
    finally:
        words.append("finally")


def ends_by_a_call(turns: list[int], words: list[str]) -> None:
    """One whose condition calls."""
    try:
        while os.getpid() and not words:
            turns[0] += 1
    finally:
        words.append("finally")


@pytest.fixture
def raising() -> Iterator[None]:
    """Have SIGUSR1 raise while this runs; nobody traces afterwards who did not before."""

    def check() -> None:
        raise Stop

    def handle(_number: int, frame: FrameType | None) -> None:
        raise_in(frame, check)

    before, tracing = signal.signal(signal.SIGUSR1, handle), sys.gettrace()
    yield
    assert sys.gettrace() is tracing
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("loop", [ends_by_a_condition, ends_never, ends_by_a_call])
@pytest.mark.usefixtures("raising")
def test_a_loop_that_is_stopped_runs_its_finally(
    loop: Callable[[list[int], list[str]], None],
) -> None:
    """Wherever in the loop the signal comes: without care most would pass it by on 3.13."""
    for _ in range(30):
        assert Stopped(loop).words == ["finally", "stopped"]


def test_without_a_frame_it_is_raised_at_once() -> None:
    """A handler may be called where no Python code runs."""

    def check() -> None:
        raise Stop

    with pytest.raises(Stop):
        raise_in(None, check)
