"""The command line: finds the command, runs it, and turns its errors into one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from asyncworkers import AsyncworkersError
from asyncworkers.demo import command as demo_command
from asyncworkers.demo.records import DemoFailed

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 for success, 1 for failure, 2 for wrong usage.

    130 means that it was interrupted.
    """
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.command(parsed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone, as `| head` does: nobody is left to tell, not even by
        # the interpreter when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (AsyncworkersError, DemoFailed, OSError) as error:
        print(f"asyncworkers: {error}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asyncworkers", description="An asyncio-native job runner."
    )
    parser.add_argument("--version", action="version", version=f"asyncworkers {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo_command.add_options(
        commands.add_parser(
            "demo",
            help="render, serve, crawl and analyze the standard library's documentation",
            description="Render the standard library's documentation, serve it on 127.0.0.1, "
            "crawl and analyze it: the whole of asyncworkers on real input, without a network.",
        )
    )
    return parser


def _version() -> str:
    try:
        return version("asyncworkers")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "(not installed)"
