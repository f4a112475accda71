"""Values that tell where they were packed and unpacked, for a child and its parent."""

import os
import threading
from typing import Any

MANY = list(range(300_000))
"""More than is pickled at once."""

entered, go = threading.Event(), threading.Event()


class Packed:
    """Arrives as the number of the thread in which it was packed."""

    def __reduce__(self) -> Any:
        return int, (threading.get_ident(),)


class Unpacked:
    """Arrives as the number of the thread in which it was unpacked."""

    def __reduce__(self) -> Any:
        return threading.get_ident, ()


class Gate:
    """Takes its time to be packed: until it may go."""

    def __reduce__(self) -> Any:
        return pass_gate()


class GateAtHome:
    """Takes its time to be unpacked."""

    def __reduce__(self) -> Any:
        return pass_gate, ()


def pass_gate() -> Any:
    """Wait for leave to go on; the pickle of a number."""
    entered.set()
    go.wait(60)
    return int, (7,)


def last(values: Any) -> Any:
    """The last of them."""
    return values[-1]


def size_and_child(values: Any) -> tuple[int, int]:
    """How many there are, and who has counted."""
    return len(values), os.getpid()


def heavy(kind: str) -> list[Any]:
    """Many numbers, and something."""
    return [*MANY, {"unpacked": Unpacked, "gate": GateAtHome}[kind]()]


def light() -> list[Any]:
    """Few numbers, and something."""
    return [1, Unpacked()]
