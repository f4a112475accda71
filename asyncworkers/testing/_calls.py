"""Functions that the checks of bridges have called elsewhere; they speak with the check over a socket."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from typing import Any

__all__ = ["converse", "echo", "fail", "leave", "lock", "measure", "stay"]

Address = tuple[str, int]


def echo(value: Any, *, twice: bool = False) -> Any:
    """Return what came."""
    return (value, value) if twice else value


def measure(data: bytes) -> tuple[int, bytes]:
    """Return the length of what came, and as much again."""
    return len(data), data


def fail(*args: Any) -> None:
    """Raise."""
    raise ValueError(*args)


def leave() -> None:
    """Ask the interpreter to end."""
    sys.exit(3)


def lock() -> Any:
    """Return what cannot be pickled."""
    return threading.Lock()


def converse(address: Address) -> str:
    """Say that we have begun, then do as we are told; the connection ends with us."""
    with socket.create_connection(address) as line:
        line.sendall(b"begun\n")
        order = line.makefile().readline().strip()
        if order == "die":
            os._exit(3)
        return order


def stay(address: Address) -> str:
    """Say that we have begun, and ignore every request to stop, until the other side hangs up."""
    with socket.create_connection(address) as line:
        line.sendall(b"begun\n")
        while True:
            with contextlib.suppress(BaseException):
                while line.recv(1):
                    pass
                return "hung up"
