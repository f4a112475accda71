"""What `import asyncworkers` brings along, and what it gives the names that modules have too."""

import subprocess
import sys

import pytest


def printed_by(code: str) -> list[str]:
    """Return the words that a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    "first",
    [
        "import asyncworkers",
        "import asyncworkers.job, asyncworkers.run",
        "import asyncworkers.run; from asyncworkers.job import Job",
        "from asyncworkers import run, job; import asyncworkers.job, asyncworkers.run",
        "import importlib; importlib.import_module('asyncworkers.job')",
        "import asyncworkers.testing, asyncworkers.cli",
    ],
)
def test_functions_hide_the_modules_they_are_named_after(first):
    """`asyncworkers.job` and `asyncworkers.run` are the functions, whatever is imported first."""
    asked = "print(type(asyncworkers.job).__name__, type(asyncworkers.run).__name__)"
    assert printed_by(f"{first}; import asyncworkers; {asked}") == ["function", "function"]


def test_what_only_some_users_need_is_not_imported():
    """Beside what asyncio needs itself, no library is imported before it is used."""
    code = "import asyncio, sys; had = {*sys.modules}; import asyncworkers; print(*{*sys.modules} - had)"
    early = set(printed_by(code))
    assert "asyncworkers.supervisor" in early
    assert early.isdisjoint({"anyio", "uvloop", "rich", "aiohttp", "pytest", "hypothesis"})
    assert early.isdisjoint({"asyncworkers.testing", "asyncworkers.cli", "asyncworkers.demo"})
    assert early.isdisjoint({"multiprocessing", "dataclasses", "difflib", "argparse"})
