"""The other side of an arena: a child process that evaluates expressions over parcels.

Run as a script it is the child, which never imports asyncworkers, as a real one. Imported it is
the parent's end of it.
"""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHILD = Path(__file__).parents[2] / "asyncworkers" / "bridge" / "child"
LENGTH = struct.Struct("<cQ")


class Gone(Exception):
    """The other side has closed."""


def send(sock: socket.socket, kind: bytes, *parts: "bytes | memoryview") -> None:
    """Send one message in parts."""
    sock.sendall(LENGTH.pack(kind, sum(len(part) for part in parts)))
    for part in parts:
        sock.sendall(part)


def receive(sock: socket.socket) -> tuple[bytes, memoryview]:
    """Receive one message into memory of its own."""

    def exactly(count: int) -> memoryview:
        got = memoryview(bytearray(count))
        rest = got
        while len(rest):
            some = sock.recv_into(rest)
            if not some:
                raise Gone
            rest = rest[some:]
        return got

    kind, length = LENGTH.unpack(exactly(LENGTH.size))
    return kind, exactly(length)


class Peer:
    """The parent's end: `evaluate` an expression over there; `memory` is what is shared."""

    def __init__(self, memory: Any, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self.memory = memory
        self.process = process
        self.sock = sock
        self.told: memoryview | None = None

    def evaluate(self, expression: str, **names: Any) -> Any:
        """The value of the expression over there; RuntimeError if it raises."""
        self.send(expression, **names)
        return self.receive()

    def send(self, expression: str, **names: Any) -> None:
        """Have it evaluated, and do not wait; arguments cross as they do for jobs."""
        from asyncworkers.bridge.child import freight

        self.memory.looker.poll()
        packed = freight.pack_call((expression,), names)
        send(self.sock, b"E", *freight.finish(freight.ship_steps(packed, self.memory.writer)))

    def receive(self) -> Any:
        from asyncworkers.bridge.child import freight

        kind, message = receive(self.sock)
        if kind == b"!":
            raise RuntimeError(bytes(message).decode())
        self.told = message
        return freight.unpack(*freight.finish(freight.open_steps(message, self.memory.looker)))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def idle(self) -> bool:
        """True if the child has given back everything, and so have we."""
        self.evaluate("None")
        self.memory.looker.poll(everything=True)
        self.memory.writer.collect()
        return (self.memory.writer.out, self.memory.looker.looked_at) == (0, 0)


@contextlib.contextmanager
def peer(limit: int | None = None) -> Iterator[Peer]:
    """A child with an arena, gone with all it had at the end."""
    from asyncworkers.bridge.child.arena import Memory

    memory = Memory.create(limit)
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno()), str(memory.fd)],
        pass_fds=[theirs.fileno(), memory.fd],
    )
    theirs.close()
    try:
        yield Peer(memory, process, ours)
    finally:
        ours.close()
        process.wait()
        for _ in memory.close_steps():
            pass


def serve(sock: socket.socket, fd: int) -> None:
    """Be the child until the parent has closed."""
    from asyncworkers_child import arena, freight

    memory = arena.Memory.attach(fd)
    kept: list[Any] = []

    def die_while_writing(value: Any, steps: int) -> None:
        """Be killed when so many steps of a result were written."""
        writing = freight.ship_steps(freight.pack(value), memory.writer)
        for _ in range(steps):
            next(writing)
        os.kill(os.getpid(), signal.SIGKILL)

    known = {
        "kept": kept,
        "memory": memory,
        "freight": freight,
        "die_while_writing": die_while_writing,
    }
    while True:
        try:
            _, message = receive(sock)
        except Gone:
            return
        try:
            (expression,), names = freight.unpack(
                *freight.finish(freight.open_steps(message, memory.looker))
            )
            value = eval(expression, known | {"os": os, "sys": sys}, names)
            del names
            memory.looker.poll()
            parts = freight.finish(freight.ship_steps(freight.pack(value), memory.writer))
            del value
        except Exception as error:
            names = value = None
            send(sock, b"!", f"{type(error).__name__}: {error}".encode())
        else:
            send(sock, b"=", *parts)
        memory.looker.poll()


if __name__ == "__main__":
    package = type(sys)("asyncworkers_child")
    package.__path__ = [str(CHILD)]
    sys.modules["asyncworkers_child"] = package
    serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
