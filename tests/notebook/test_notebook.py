"""A notebook in a real kernel: functions of its cells go to processes, also when they were redefined;
the button interrupts a cell and nothing else; and when the kernel ends no process is left.
"""

import json
import os
import re
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


class Said(list[str]):
    """What each cell has put out as text, as it ended; `html` is what it shows on a page at last."""

    html: list[str]


@pytest.fixture
def execute(tmp_path: Path) -> Execute:
    """Runs a notebook, given as a file or as the text of its cells; answers with what each cell put
    out, after a look at whether a process of theirs is left.
    """

    def execute(*cells: str | Path, how: str = "shutdown") -> Said:
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
            timeout=280,
            cwd=tmp_path,
            env=os.environ | surroundings,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        told = json.loads(result.stdout.splitlines()[-1])
        assert told["left"] == []
        said = Said(told["cells"])
        said.html = told["html"]
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


OPEN = """\
import asyncio, threading
from asyncworkers import Supervisor, current_job, job

supervisor = await Supervisor(processes=1, stall=None).open()
"""

ON_EVERY_BRIDGE = """\
async def on_the_loop(number):
    return {text!r}, number + shift

def elsewhere(number):
    return {text!r}, number + shift

shift = {shift}
"""

CALL_EACH = """\
print(await supervisor.call(on_the_loop, 1))
print(await supervisor.call(elsewhere, 2))
print(await supervisor.call(job(elsewhere, cpu=True), 3))
"""


def test_functions_of_cells_on_every_bridge(execute: Execute) -> None:
    """A supervisor that was opened in a cell runs the functions of cells on the loop, in a thread and
    in a process, and their new texts, and what they read, once their cell was run again; and is closed.
    """
    said = execute(
        OPEN,
        ON_EVERY_BRIDGE.format(text="old", shift=0),
        CALL_EACH,
        ON_EVERY_BRIDGE.format(text="new", shift=10),
        CALL_EACH,
        "print(await supervisor.close())\nsupervisor.state",
    )
    assert said[2] == "('old', 1)\n('old', 2)\n('old', 3)\n"
    assert said[4] == "('new', 11)\n('new', 12)\n('new', 13)\n"
    assert said[5].startswith("drained in ")
    assert said[5].endswith("'closed'\n")


BUTTON = """\
async def on_the_loop():
    print("interrupt me", flush=True)
    await asyncio.Event().wait()

def in_a_thread():
    print("interrupt me", flush=True)
    stopped = threading.Event()
    with current_job().cancelled.on_cancel(stopped.set):
        stopped.wait()
    ended.set()

ended = threading.Event()
"""


def test_the_button_on_every_bridge(execute: Execute) -> None:
    """What a cell awaits on the loop or in a thread is cancelled too, and the supervisor is as before."""
    said = execute(
        OPEN,
        BUTTON,
        "await supervisor.call(on_the_loop)",
        "await supervisor.call(in_a_thread)",
        "print(ended.wait(20), await supervisor.call(abs, -1))\n"
        "print(supervisor.stats().queues['default'].cancelled)\nprint(await supervisor.close())",
    )
    assert said[2] == said[3] == "interrupt me\nCancelledError: \n"
    assert said[4].startswith("True 1\n1\ndrained in ")


def test_progress_is_shown_in_place(execute: Execute) -> None:
    """A map's progress is one display, which at last, as the notebook is saved, says how it went."""
    said = execute(
        OPEN,
        "def odd_fails(number):\n    return 1 / (number % 2)",
        "await supervisor.map(abs, range(3)).progress('<b>three</b>')",
        "async for _ in supervisor.map(odd_fails, range(4), cpu=True).outcomes().progress():\n"
        "    pass",
        "await supervisor.map(odd_fails, [1, 0]).progress()",
        "await supervisor.close()",
    )
    assert said[2].count("three") == 1
    assert "&lt;b&gt;three&lt;/b&gt;" in said.html[2]
    assert "3/3, in " in said.html[2]
    assert "2/4 done, 2 failed, in " in said.html[3]
    assert 'value="1.0000"' in said.html[3]
    assert "1 failed" in said.html[4]
    assert said[4].endswith("ZeroDivisionError: division by zero\n")
    assert all(html.count("<progress") == 1 for html in said.html[2:5])


def test_a_supervisor_is_watched(execute: Execute) -> None:
    """`watch` shows a supervisor in place until that ends, also one behind a portal, whose cell waits."""
    said = execute(
        OPEN,
        "from asyncworkers.notebook import watch\n"
        "from asyncworkers.portal import Portal\n"
        "watching = watch(supervisor, every=0.05)",
        "await supervisor.map(abs, range(7))\nawait supervisor.close()\n"
        "while 'going on' in repr(watching):\n    await asyncio.sleep(0.01)",
        "with Portal(Supervisor(stall=None)) as portal:\n"
        "    watching = portal.run(watch, portal.supervisor, every=0.05)\n"
        "    portal.map(abs, range(8)).all()\n"
        "    portal.run(watching.stop)",
    )
    assert said[2] == ""
    assert "Supervisor, closed" in said.html[1]
    assert '<td class="number">7</td>' in said.html[1]
    assert "Supervisor, open" in said.html[3]
    assert '<td class="number">8</td>' in said.html[3]
    assert said.html[1].count("<table") == 1


def test_a_portal_in_a_cell(execute: Execute) -> None:
    """Where a loop runs already a portal is used without `await`, with the functions of cells on every
    bridge; the button cancels what the cell waits for, and leaves the portal as it was.
    """
    said = execute(
        "import asyncio, threading\n"
        "from asyncworkers import Supervisor, current_job, job\n"
        "from asyncworkers.portal import Portal\n"
        "portal = Portal(Supervisor(processes=1, stall=None)).open()",
        ON_EVERY_BRIDGE.format(text="new", shift=10),
        CALL_EACH.replace("await supervisor", "portal"),
        BUTTON + "portal.call(on_the_loop)",
        "portal.call(in_a_thread)",
        "print(ended.wait(20), [value for value in portal.map(abs, iter([-1, -2]))])\n"
        "print(portal.supervisor.state)",
        "portal.map(abs, range(5)).progress('five').all()",
        "portal",
        "portal.close()",
    )
    assert said[2] == "('new', 11)\n('new', 12)\n('new', 13)\n"
    assert said[3] == said[4] == "interrupt me\nKeyboardInterrupt: \n"
    assert said[5] == "True [1, 2]\nopen\n"
    assert "5/5" in said.html[6]
    assert "Supervisor, open" in said.html[7]
    assert "Drained in" in said.html[8]


@pytest.mark.parametrize("how", ["shutdown", "kill"])
def test_a_kernel_ends_with_an_open_portal(execute: Execute, how: str) -> None:
    """However a kernel ends in which a portal was not closed, its child ends with it."""
    said = execute(
        "import os, time\nfrom asyncworkers import Supervisor, job\n"
        "from asyncworkers.portal import Portal\n"
        "portal = Portal(Supervisor(processes=1, stall=None)).open()\n"
        "print('children:', portal.call(job(os.getpid, cpu=True)))\n"
        "running = portal.submit(job(time.sleep, cpu=True), 600)",
        how=how,
    )
    assert "children: " in said[0]


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.ipynb")))
def test_examples(execute: Execute, name: str) -> None:
    """Each example puts out what is stored in it; of cells that are tagged `varies` nothing is stored,
    and they end well. What is shown on a page is all there.
    """
    said = execute(EXAMPLES / name)
    stored = nbformat.read(EXAMPLES / name, as_version=4).cells
    varies = ["varies" in cell.metadata.get("tags", ()) for cell in stored]
    shown = [text if not vary else "" for text, vary in zip(said, varies, strict=True)]
    assert shown == [text_of(cell) for cell in stored]
    assert any(shown)
    assert not [text for text in said if re.search(r"^\w*(Error|Interrupt): ", text, re.MULTILINE)]
    if name == "library.ipynb":
        page = "".join(said.html)
        for what in ("1 failed", "slowest attempts", "data:image/svg+xml", "Drained in"):
            assert what in page
        assert "Supervisor, closed" in said.html[3]
        assert "<Plot of a run>\n" in said
