"""The command line: `asyncworkers run`, `jobs`, `queues`, `store`, `top`, `dashboard` and `demo`.

- `root` is the command itself, and turns errors into a line and an exit code;
- `run`, `jobs`, `queues`, `store`, `top` and `dashboard` are its subcommands; `demo` is in a room of its own;
- `target` finds the supervisor to run, `replicas` keeps several processes of it alive;
- `options` is what several commands understand alike, `documents` what programs get to read, and
  `output` how it looks.

The library that reads the command line is an extra, `asyncworkers[cli]`: it is imported here only
when a command is run.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done. 1: it failed, or nothing matched. 2: wrong usage. 130: interrupted. `run` has more, see
    there. Raises SystemExit where the shell asked for completions.
    """
    if importlib.util.find_spec("click") is None:
        sys.stderr.write(
            "asyncworkers: the command line needs a library: pip install 'asyncworkers[cli]'\n"
        )
        return 1
    from asyncworkers.cli.root import execute

    return execute(arguments)
