"""Every Python block of the README and the docs runs, and prints what the page says it prints.

A block is a program of its own, but for the tutorial's pages, where each continues the one before,
and the page on notebooks, where they are cells too: they may await, and each is a task of one loop. On
any page, a block that begins with `# in a cell` is one. What is marked as `py` is another library's, shown to be
recognized. If a ```text block follows, it is the output, in which `...` stands for anything.
"""

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import itertools
import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Return all fenced blocks of a page, in order."""
    markdown = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], markdown.count("\n", 0, found.start()) + 2)
        for found in FENCE.finditer(markdown)
    ]


def programs(page: Path) -> list[tuple[Block, str | None]]:
    """Return the Python blocks of a page, each with the output that follows it, if one does."""
    found = []
    fenced = blocks(page)
    for block, after in itertools.zip_longest(fenced, fenced[1:]):
        if block.language == "python":
            output = after.text if after is not None and after.language == "text" else None
            found.append((block, output))
    return found


WITH_CODE = [page for page in PAGES if programs(page)]


def name(page: Path) -> str:
    """Return the page's name for the test's id."""
    return str(page.relative_to(ROOT))


def execute(
    block: Block, page: Path, namespace: dict[str, object], kernel: asyncio.Runner | None
) -> str:
    """Run a block as `__main__` and return what it printed; what is logged is thrown away."""
    source = "\n" * (block.line - 1) + block.text
    flags = 0 if kernel is None else ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, str(page), "exec", flags, dont_inherit=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        running = eval(code, namespace)
        if kernel is not None and inspect.iscoroutine(running):
            kernel.run(running)
    return "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("page", WITH_CODE, ids=name)
def test_blocks_run(page, loop, monkeypatch, tmp_path):
    """Each Python block of the page runs without a warning and prints what the page says."""
    monkeypatch.setenv("ASYNCWORKERS_LOOP", loop)
    monkeypatch.chdir(tmp_path)
    is_notebook = page.name == "notebook.md"
    continued = is_notebook or "tutorial" in page.parts
    module = types.ModuleType("__main__")
    new_loop = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with (
        asyncio.Runner(loop_factory=new_loop) if is_notebook else contextlib.nullcontext() as kernel
    ):
        run_blocks(page, module, continued, kernel, new_loop, monkeypatch)


def run_blocks(page, module, continued, kernel, new_loop, monkeypatch):
    """Run the blocks of a page one after the other, and compare what they print."""
    checker = doctest.OutputChecker()
    for block, wanted in programs(page):
        if not continued:
            module = types.ModuleType("__main__")
        monkeypatch.setitem(sys.modules, "__main__", module)
        with contextlib.ExitStack() as stack:
            if kernel is None and block.text.startswith("# in a cell\n"):
                cell = stack.enter_context(asyncio.Runner(loop_factory=new_loop))
            else:
                cell = kernel
            printed = execute(block, page, module.__dict__, cell)
        if wanted is not None and not checker.check_output(wanted, printed, doctest.ELLIPSIS):
            pytest.fail(
                f"{name(page)}:{block.line} says it prints\n{wanted}\nbut printed\n{printed}"
            )
        assert wanted is not None or not printed, f"{name(page)}:{block.line} hides {printed!r}"


def test_fences_are_seen():
    """No Python block escapes the runner by being indented or left open."""
    for page in PAGES:
        markdown = page.read_text(encoding="utf-8")
        fences = re.findall(r"^[ \t]*```python\b", markdown, re.MULTILINE)
        assert len(fences) == len(programs(page)), name(page)


def test_only_what_others_have_is_not_run():
    """Blocks that do not run are other libraries': on the page for those who come from there."""
    for page in PAGES:
        shown = [block for block in blocks(page) if block.language == "py"]
        assert not shown or page.name == "migrate.md", name(page)
        assert not any("asyncworkers" in block.text for block in shown), name(page)


def test_links_lead_somewhere():
    """Relative links of the README and the examples' index lead to files of this repository."""
    for page in (ROOT / "README.md", ROOT / "examples" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{name(page)} links to {target}"
