"""The command `asyncworkers`: its subcommands, and what becomes of errors."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import click

from asyncworkers import AsyncworkersError
from asyncworkers.cli.dashboard import dashboard
from asyncworkers.cli.jobs import jobs
from asyncworkers.cli.output import escaped
from asyncworkers.cli.queues import queues
from asyncworkers.cli.run import run
from asyncworkers.cli.store import store
from asyncworkers.cli.top import top
from asyncworkers.demo.command import demo
from asyncworkers.demo.records import DemoFailed

__all__ = ["execute", "root"]

INTERRUPTED = 130
"""The exit code of what Ctrl-C broke off, as shells have it."""


def _version() -> str:
    try:
        return version("asyncworkers")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "(not installed)"


@click.group(
    name="asyncworkers",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(_version(), prog_name="asyncworkers", message="%(prog)s %(version)s")
def root() -> None:
    """An asyncio-native job runner: run supervisors, and look after stored jobs."""


for _command in (run, jobs, queues, store, top, dashboard, demo):
    root.add_command(_command)


def execute(arguments: Sequence[str] | None) -> int:
    """Run a command and return its exit code; errors become one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever the terminal cannot show is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        code: object = root.main(arguments, prog_name="asyncworkers", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as `| head` does: nobody is left to tell, not even by
        # the interpreter when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (AsyncworkersError, DemoFailed, OSError) as error:
        click.echo(f"asyncworkers: {escaped(str(error))}", err=True)
        return 1
    return code if isinstance(code, int) else 0
