"""A notebook in a real kernel: functions of its cells go to processes, also when they were redefined;
the button interrupts a cell and nothing else; and when the kernel ends no process is left.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kernel import text_of
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="children need socket pairs")

KERNEL = Path(__file__).with_name("kernel.py")
EXAMPLES = Path(__file__).parents[2] / "examples"

Execute = Callable[..., Any]


@pytest.fixture
def execute(tmp_path: Path) -> Execute:
    """Runs a notebook, given as a file or as the text of its cells; answers with what each cell put
    out, after a look at whether a process of theirs is left.
    """

    def execute(*cells: str | Path, how: str = "shutdown") -> list[str]:
        path = cells[0]
        if not isinstance(path, Path):
            path = tmp_path / "notebook.ipynb"
            nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
        surroundings = {
            name: str(tmp_path / name) for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        }
        result = subprocess.run(
            [sys.executable, str(KERNEL), str(path), how],
            capture_output=True,
            text=True,
            timeout=100,
            cwd=tmp_path,
            env=os.environ | surroundings,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        told = json.loads(result.stdout.splitlines()[-1])
        assert told["left"] == []
        said: list[str] = told["cells"]
        return said

    return execute


ENTER = """\
from contextlib import AsyncExitStack
from asyncworkers import Supervisor, job

stack = AsyncExitStack()
supervisor = await stack.enter_async_context(Supervisor(processes=1, stall=None))
"""

DEFINE = """\
@job(cpu=True)
def answer(number):
    import os, sys
    return {text!r}, number, os.getpid(), "IPython" in sys.modules

def square(number):
    return {text!r}, helper(number)

def helper(number):
    return number ** 2
"""

USE = """\
sent = await supervisor.submit(answer, 1)
print(await sent == (await supervisor.call(answer, 1)), (await sent)[0], (await sent)[3])
print(await supervisor.map(square, range(3), cpu=True))
print("children:", (await sent)[2])
"""

BURN = """\
import asyncio, os
from asyncworkers import current_job

@job(cpu=True)
def burn(*_):
    current_job().report(0)
    while True:
        pass

async def tell():
    while not (jobs := supervisor.jobs()) or jobs[0].progress is None:
        await asyncio.sleep(0)
    print("interrupt me", flush=True)
    return jobs[0]
"""


def test_a_function_of_a_cell_in_processes(execute: Execute) -> None:
    """It is sent as it is, sent anew to the same child when its cell, or that of a function it calls,
    was run again, and the child has none of the kernel's modules.
    """
    old, new = DEFINE.format(text="old"), DEFINE.format(text="new")
    helper = "def helper(number):\n    return -number\n"
    leave = "await stack.aclose()\nsupervisor.state"
    said = execute(ENTER, old, USE, new, USE, helper, USE, leave)
    first, second, third = said[2], said[4], said[6]
    assert first.startswith("True old False\n[('old', 0), ('old', 1), ('old', 4)]\nchildren: ")
    assert second == first.replace("old", "new")
    assert third == second.replace("('new', 1)", "('new', -1)").replace(" 4)", " -2)")
    assert said[7] == "'closed'\n"


def test_the_button(execute: Execute) -> None:
    """An interrupt ends the cell: a job that it awaits goes on, unless it is the cell's own, as with
    `call` and `map`, and the supervisor is as good as new, with the same child.
    """
    awaits = "telling = asyncio.create_task(tell())\nawait {}"
    how = "print(await (await telling).wait())"
    said = execute(
        ENTER,
        BURN,
        "await supervisor.call(lambda: 1)\nprint(len(supervisor.queues))",
        awaits.format("(await supervisor.submit(burn))"),
        "running = await telling\nprint(running.state, running.cancel('enough'))\n" + how,
        awaits.format("supervisor.call(burn)"),
        how,
        awaits.format("supervisor.map(burn, [1], cpu=True)"),
        how,
        "waiting = supervisor.submit_nowait(job(os.getpid, cpu=True))\n"
        "print('interrupt me', flush=True)\nwhile True: pass",
        "print(await supervisor.map(lambda number: -number, range(3), cpu=True))\n"
        "print(await waiting in"
        " {child.pid for child in supervisor.stats().queues['processes'].children})\n"
        "children = [child.pid for child in supervisor.stats().queues['processes'].children]\n"
        "print('children:', ', '.join(map(str, children)))\n"
        "print(len(children), supervisor.stats().queues['processes'].cancelled)",
    )
    assert said[3] == said[5] == said[7] == "interrupt me\nCancelledError: \n"
    assert said[4] == "running True\nCancelled(reason='enough', expired=False)\n"
    assert said[6].startswith("Cancelled(reason='the call that awaited it was cancelled'")
    assert said[8].startswith("Cancelled(")
    assert said[9] == "interrupt me\nKeyboardInterrupt: \n"
    assert said[10].startswith("[0, -1, -2]\nTrue\n")
    assert said[10].endswith("\n1 3\n")


CHILDREN = """\
running = await supervisor.submit(burn)
while running.progress is None:
    await asyncio.sleep(0)
children = [child.pid for child in supervisor.stats().queues["processes"].children]
print("children:", ", ".join(map(str, children)))
"""


@pytest.mark.parametrize("how", ["shutdown", "kill"])
def test_the_kernel_ends(execute: Execute, how: str) -> None:
    """However a kernel ends in which a supervisor is entered and a job runs, its child ends with it."""
    said = execute(ENTER, BURN, CHILDREN, how=how)
    assert "children: " in said[2]


def test_a_cell_that_is_run_again(execute: Execute) -> None:
    """The cell that enters a supervisor may be run again: the one before is let go of with its child."""
    said = execute(
        ENTER,
        "import asyncio, os\npid = await supervisor.call(job(os.getpid, cpu=True))\n"
        "print('children:', pid)",
        ENTER,
        "async def gone():\n"
        "    while os.path.exists(f'/proc/{pid}'):\n"
        "        await asyncio.sleep(0)\n"
        "async with asyncio.timeout(50):\n"
        "    await gone()\n"
        "print(await supervisor.call(job(abs, cpu=True), -5))",
    )
    assert said[3] == "5\n"


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.ipynb")))
def test_examples(execute: Execute, name: str) -> None:
    """Each example puts out what is stored in it."""
    said = execute(EXAMPLES / name)
    stored = nbformat.read(EXAMPLES / name, as_version=4).cells
    assert said == [text_of(cell) for cell in stored]
    assert any(said)
