"""An interrupt that reaches a portal at any moment leaves no job of the call, and the portal usable."""

import asyncio
import dis
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import pytest

from asyncworkers import Supervisor, portal
from asyncworkers.portal import Portal
from asyncworkers.testing import no_leaks

TURNS = 50
"""Turns of the loop in which whatever was begun gets going, and whatever was cancelled ends."""


async def for_ever(*_: int) -> int:
    """Never end."""
    await asyncio.Event().wait()
    return 0


CALLS: dict[str, Callable[[Portal], object]] = {
    "call": lambda portal: portal.call(for_ever),
    "run": lambda portal: portal.run(for_ever),
    "all": lambda portal: portal.map(for_ever, [1]).all(),
    "reduce": lambda portal: portal.map(for_ever, [1]).reduce(max),
    "for": lambda portal: next(iter(portal.map(for_ever, iter([1])))),
}


def turn(portal: Portal) -> None:
    """Let the loop turn."""
    turned = threading.Event()
    loop = portal.run(asyncio.get_running_loop)

    def again(left: int) -> None:
        if left:
            loop.call_soon(again, left - 1)
        else:
            turned.set()

    loop.call_soon_threadsafe(again, TURNS)
    turned.wait()


class Interrupt:
    """Raises KeyboardInterrupt at the n-th instruction of the portal's module, in this thread."""

    def __init__(self, at: int, before: Callable[[], None]) -> None:
        self.place: tuple[CodeType, int] | None = None
        self._left = at
        self._before = before

    @contextmanager
    def hangs_over(self) -> Iterator[None]:
        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # CPython 3.12 asks for one before it traces any
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if code.co_filename != portal.__file__:
            return None
        frame.f_trace_opcodes = True
        # No signal is looked for at an instruction that does nothing, and no `try` may cover it.
        if event == "opcode" and code.co_code[frame.f_lasti] != dis.opmap["NOP"]:
            self._left -= 1
            if self._left == 0:
                sys.settrace(None)
                self.place = code, frame.f_lasti
                self._before()
                raise KeyboardInterrupt
        return self._trace


@pytest.mark.filterwarnings("ignore:a map was never used")
@pytest.mark.parametrize("way", CALLS)
def test_an_interrupt_at_any_instruction(way: str) -> None:
    """Until it waits again where it has waited: the loop has gone as far as it could each time."""
    places: set[tuple[CodeType, int]] = set()
    with no_leaks(grace=5.0), Portal(Supervisor(stall=None)) as portal:
        for at in range(1, 10_000):
            interrupt = Interrupt(at, lambda: turn(portal))
            with pytest.raises(KeyboardInterrupt), interrupt.hangs_over():
                CALLS[way](portal)
            assert interrupt.place is not None
            turn(portal)
            assert portal.run(portal.supervisor.jobs) == [], (at, interrupt.place)
            if interrupt.place in places and interrupt.place[0].co_name == "wait":
                break
            places.add(interrupt.place)
        assert portal.call(abs, -1) == 1
        assert len(places) > 20
