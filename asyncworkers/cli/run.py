"""`asyncworkers run`: a supervisor in a process of its own, or in several that are kept alive."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys

import click

from asyncworkers.bridge.child.lifeline import end_with_parent
from asyncworkers.cli.options import seconds
from asyncworkers.cli.replicas import LIFELINE, Replicas
from asyncworkers.cli.target import find
from asyncworkers.run import serve

__all__ = ["run"]

log = logging.getLogger("asyncworkers.run")

LEVELS = ("debug", "info", "warning", "error")


@click.command()
@click.argument("target", metavar="MODULE:SUPERVISOR")
@click.option(
    "--replicas",
    type=click.IntRange(1, 1_000),
    metavar="N",
    help="Run N processes, and start another when one ends.",
)
@click.option(
    "--grace",
    type=seconds(0, 86_400),
    default=8.0,
    show_default=True,
    metavar="SECONDS",
    help="How long jobs may go on after a signal, in place of the supervisor's own grace. "
    "Containers are often killed ten seconds after the signal.",
)
@click.option(
    "--restarts",
    type=click.IntRange(0, 1_000),
    default=5,
    show_default=True,
    metavar="N",
    help="With --replicas: end them all if one ends by itself more often than this in a minute.",
)
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False),
    default=".",
    metavar="DIR",
    help="Where modules are looked for first. [default: the current directory]",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    help="What to log on standard error, if the module does not set logging up itself.",
)
def run(
    target: str,
    replicas: int | None,
    grace: float,
    restarts: int,
    directory: str,
    log_level: str,
) -> int:
    """Run a supervisor until SIGINT or SIGTERM.

    The first signal drains: jobs have their grace to end. The second cancels them, the third ends
    the process on the spot. Exits with 0 if all jobs came to their end, with 128 plus the signal's
    number if some were cancelled or given back, with 1 if the supervisor failed or replicas kept
    ending, with 2 if there is no such supervisor.
    """
    if replicas is not None:
        _log_to_stderr(log_level)
        options = ("--grace", str(grace), "--directory", directory, "--log-level", log_level)
        command = (sys.executable, *_interpreter_flags(), "-m", "asyncworkers", "run", target)
        crew = Replicas((*command, *options), replicas, restarts=restarts, grace=grace)
        return asyncio.run(crew.run())
    lifeline = os.environ.pop(LIFELINE, None)
    if lifeline is not None:
        end_with_parent(int(lifeline))
    supervisor = find(target, directory)
    _log_to_stderr(log_level)
    log.info("%s runs in process %d", target, os.getpid())
    serve(supervisor, grace=grace)
    return 0  # not reached: it is a signal that ends it


def _log_to_stderr(level: str) -> None:
    """Log, unless somebody has seen to that."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    )


def _interpreter_flags() -> list[str]:
    """The flags this interpreter was started with, for its replicas."""
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined, no-any-return]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]
