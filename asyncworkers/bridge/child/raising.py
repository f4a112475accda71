"""Raises an exception in running code such that its `finally` blocks run, which takes a little care."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

__all__ = ["Interrupted", "raise_in"]


class Interrupted(BaseException):
    """Raised inside a job that was cancelled or timed out, so that its `finally` blocks run."""


def raise_in(frame: FrameType | None, check: Callable[[], None]) -> None:
    """Call `check`, which raises or does not, where the frame's handlers see what it raises.

    To be called by a signal handler with the frame it has interrupted. That frame may stand at the jump
    from the end of a `while` loop's body to its head, and CPython 3.13 forgets that such a
    jump, made of the loop's condition, stands inside of a `try`: what is raised there passes by all
    `finally`, `except` and `with` of the function, and a short loop nearly always stands there. (3.11
    and 3.12 were tried too, and do not.) Then `check` is called one instruction later, by a trace function
    that is there for just that long. If somebody else traces this thread, as a debugger does, that
    ends there: what a trace function raises ends all tracing.
    """
    if frame is None or not _stands_at_a_jump(frame):
        check()
        return
    others, local, opcodes = sys.gettrace(), frame.f_trace, frame.f_trace_opcodes

    def trace(where: FrameType, _event: str, _detail: Any) -> None:
        if where is frame:
            sys.settrace(others)
            frame.f_trace, frame.f_trace_opcodes = local, opcodes
            check()

    frame.f_trace, frame.f_trace_opcodes = trace, True
    sys.settrace(trace)


def _stands_at_a_jump(frame: FrameType) -> bool:
    from opcode import opmap  # not needed before the first job that is stopped

    code, at = frame.f_code.co_code, frame.f_lasti
    return 0 <= at < len(code) and code[at] == opmap.get("JUMP_BACKWARD")
