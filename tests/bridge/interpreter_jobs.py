"""Functions for the tests of interpreters, in a module that one can import."""

import socket
import sys
import threading
from typing import Any

from asyncworkers import current_job, job

state: list[int] = []


@job(queue="inside", cpu=True)
def double(number: int) -> int:
    """Decorated, so that it is found by its name."""
    return number * 2


def remember(number: int) -> list[int]:
    """What this interpreter has been given so far."""
    state.append(number)
    return state


def modules() -> list[str]:
    """What is imported there."""
    return sorted(sys.modules)


def make(what: str) -> Any:
    """Return what cannot come back."""
    return threading.Lock() if what == "lock" else UnreadableHere()


def ask() -> str:
    """Ask for the job that runs, of which this interpreter knows nothing."""
    return current_job().id


def hold(address: tuple[str, int]) -> str:
    """Block until the other end says how to go on."""
    with socket.create_connection(address) as line:
        return line.recv(100).decode()


class UnreadableHere:
    """Can be pickled there, and cannot be made anew here."""

    def __reduce__(self) -> Any:
        return _unless_main, (threading.main_thread().ident,)


def _unless_main(_: int) -> None:
    raise OSError("not here")
