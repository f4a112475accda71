"""Runs scripts as child processes that tell what happens by lines, so that a test need not sleep."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PATIENCE = 60.0
"""Seconds until a child that says nothing more counts as hung; none needs a tenth of it."""

PREAMBLE = """\
import asyncio, os, re, signal, sys, threading, time
from asyncworkers import *

def say(*words):
    print(*words, flush=True)

def module(name):
    return sys.modules[name]

def say_when_heard():
    '''Say so whenever run() has heard a signal, also while the loop is stuck.'''
    def heard(number, frame):
        chained[number](number, frame)
        say("heard", signal.Signals(number).name)
    chained = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        chained[number] = signal.signal(number, heard)
"""


class Hung(AssertionError):
    """The child did not say or do what was expected of it; the message shows what it said."""


class Child:
    """A running script; its two outputs are one stream of lines."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.output = ""
        self._read = 0
        assert process.stdout is not None
        self._fd = process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._fd, selectors.EVENT_READ)

    def expect(self, text: str) -> str:
        """Read on until a line holds the text; return that line."""
        while True:
            end = self.output.find("\n", self._read)
            if end < 0:
                if not self._more():
                    raise Hung(f"{text!r} never came; the child said:\n{self.output}")
                continue
            line = self.output[self._read : end]
            self._read = end + 1
            if text in line:
                return line

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, number)

    def ends(self) -> int:
        """Wait until it has ended and return its exit code, as `subprocess` counts it."""
        while self._more():
            pass
        return self.process.wait(PATIENCE)

    def _more(self) -> bool:
        if not self._selector.select(PATIENCE):
            raise Hung(f"nothing more came; the child said:\n{self.output}")
        chunk = os.read(self._fd, 65_536)
        self.output += chunk.decode(errors="backslashreplace")
        return bool(chunk)

    def close(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.wait()
        self._selector.close()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def child(
    script: str,
    loop: str = "asyncio",
    *,
    before: Sequence[str] = (),
    flags: Sequence[str] = (),
    preamble: str = PREAMBLE,
    **environment: str,
) -> Iterator[Child]:
    """Run a script in a Python of its own; `before` is the command line in front of Python's."""
    code = preamble + textwrap.dedent(script)
    process = subprocess.Popen(
        [*before, sys.executable, *flags, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "ASYNCWORKERS_LOOP": loop, **environment},
    )
    started = Child(process)
    try:
        yield started
    finally:
        started.close()


def run_child(script: str, loop: str = "asyncio", **options: str) -> str:
    """Run a script that is to end well; return what it said."""
    with child(script, loop, **options) as one:
        code = one.ends()
        assert code == 0, f"exit code {code}; the child said:\n{one.output}"
        return one.output


def child_of(process: int) -> int:
    """The one child that a process has, as soon as it has one (Linux)."""
    for _ in range(int(PATIENCE / 0.01)):
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)
    raise Hung(f"process {process} has no child")
