"""Runs one measurement in a process of its own, so that no contestant inherits another's heap."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

LOOPS = ("asyncio", "uvloop")


def run_on(loop: str, main: Coroutine[Any, Any, Any]) -> Any:
    """Run `main` on a new event loop of that kind."""
    factory = None
    if loop == "uvloop":
        factory = import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def in_new_process(function: str, timeout: float = 300, **arguments: Any) -> Any:
    """Call `module:function` with these JSON-able arguments in a new interpreter.

    Raises `RuntimeError` with what it wrote to stderr if it fails, also if it takes too long.
    """
    command = [sys.executable, "-m", "benchmarks.fresh", function, json.dumps(arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True)
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{function} {arguments}:\n{error.stderr}") from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{function} {arguments}: not done in {timeout} s") from error
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    function = getattr(import_module(module), name)
    print(json.dumps(function(**json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
