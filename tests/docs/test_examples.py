"""Every example runs as a user would run it and prints what its docstring says."""

import ast
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py"))
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))  # tests/notebook runs them
STALLED = re.compile(r"the event loop (has been|was) stalled for ")


def promised(program: Path) -> str:
    """Return what the docstring says is printed: the indented block after `Prints:`."""
    docstring = ast.get_docstring(ast.parse(program.read_text(encoding="utf-8"))) or ""
    _, heading, output = docstring.partition("\nPrints:\n\n")
    assert heading, f"{program.name} does not say what it prints"
    return textwrap.dedent(output).strip()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_prints_what_it_promises(name, loop):
    """The example's output is the one in its docstring, warnings are errors, stderr is empty; but
    anything may stall for a moment on a crowded machine, and is told of then.
    """
    result = subprocess.run(
        [sys.executable, "-W", "error", name],
        cwd=EXAMPLES,
        env={**os.environ, "ASYNCWORKERS_LOOP": loop},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    complaints = [line for line in result.stderr.splitlines() if not STALLED.match(line)]
    assert (result.returncode, complaints) == (0, [])
    assert result.stdout.strip() == promised(EXAMPLES / name)


def test_index_lists_every_example():
    """The README beside the examples names each of them, and nothing that is not there."""
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = {line.split("`")[1] for line in index.splitlines() if line.startswith("| [`")}
    assert listed == {*PROGRAMS, *NOTEBOOKS}
