"""The parts of the pages that are made from the code and from the measured tables.

`python tests/docs/generated.py` writes them anew; `test_generated.py` compares them.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from asyncworkers import errors, events
from asyncworkers._record import fields
from asyncworkers.cli.root import root

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "docs" / "reference" / "benchmarks.md"

README_COLUMNS = ("no-op", "one `sleep(0)`", "1 ms sleep", "idle latency, µs")
README_ROWS = (
    "**await submit**",
    "**submit_nowait, a context per request**",
    '**submit_nowait, isolation="task"**',
    "**await map**",
    "**async for map**",
    "hand-written loop",
    "hand-written loop, awaited in order",
    "TaskGroup + Semaphore",
    "aiojobs",
    "anyio stream + N workers",
    "asyncio-pool",
    "taskiq InMemoryBroker",
)


def text_of(documented: type) -> str:
    """Return a class's docstring on one line."""
    return " ".join(inspect.cleandoc(documented.__doc__ or "").split())


def events_table() -> str:
    """Return a row for each event, in the order of the module."""
    rows = ["| event | fields beside those of all | what happened |", "|---|---|---|"]
    for name, event in vars(events).items():
        if name in events.__all__ and isinstance(event, type) and issubclass(event, events.Event):
            if event in (events.Event, events.JobEvent):
                continue
            base = events.JobEvent if issubclass(event, events.JobEvent) else events.Event
            own = [f"`{field}`" for field in fields(event)[len(fields(base)) :]]
            if base is events.JobEvent:
                own.insert(0, "those of `JobEvent`")
            rows.append(f"| `{name}` | {', '.join(own)} | {text_of(event)} |")
    return "\n".join(rows)


def errors_table() -> str:
    """Return a row for each error, in the order of the module."""
    rows = ["| error | is a | what it means, and what to do |", "|---|---|---|"]
    for name, error in vars(errors).items():
        if name in errors.__all__:
            bases = ", ".join(f"`{base.__name__}`" for base in error.__bases__)
            rows.append(f"| `{name}` | {bases} | {text_of(error)} |")
    return "\n".join(rows)


def figures_table() -> str:
    """Return the rows and columns of the first benchmark table that the README shows."""
    page = BENCHMARKS.read_text(encoding="utf-8")
    where = re.search(
        r"^(CPython .*?),(?: the same command| `python -m benchmarks\.inproc)", page, re.MULTILINE
    )
    assert where is not None, "the benchmarks page names no machine before its first table"
    table = page[where.end() :].partition("\n|")[2].partition("\n\n")[0].split("\n")
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    columns = [head.index(column) for column in README_COLUMNS]
    found = {re.sub(r" \d+(\.\d+)+$", "", cells[0]): cells for cells in body}
    rows = [
        f"| {head[0]} | {' | '.join(README_COLUMNS)} |",
        "|---|" + "--:|" * len(README_COLUMNS),
        *(
            f"| {found[row][0]} | {' | '.join(found[row][column] for column in columns)} |"
            for row in README_ROWS
        ),
    ]
    return f"{where[1]}:\n\n" + "\n".join(rows)


def commands_reference() -> str:
    """Return a section for each command with what its `--help` says, however wide a terminal is."""
    return "\n\n".join(_sections(root, None))


def _sections(command: click.Command, parent: click.Context | None) -> Iterator[str]:
    name = "asyncworkers" if parent is None else command.name
    settings = {**root.context_settings, "terminal_width": 96}
    context = click.Context(command, parent, name, **settings)
    yield f"### `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from _sections(command.commands[name], context)


PARTS: dict[str, tuple[Path, Callable[[], str]]] = {
    "events": (ROOT / "docs" / "reference" / "events.md", events_table),
    "errors": (ROOT / "docs" / "reference" / "errors.md", errors_table),
    "cli": (ROOT / "docs" / "reference" / "cli.md", commands_reference),
    "figures": (ROOT / "README.md", figures_table),
}


def part(name: str) -> re.Pattern[str]:
    """Return the pattern of a generated part of a page, between its marks."""
    return re.compile(
        rf"(<!-- generated: {name} -->\n\n)(.*?)(\n\n<!-- end of {name} -->)", re.DOTALL
    )


def main() -> int:
    """Write every generated part."""
    for name, (page, make) in PARTS.items():
        text = page.read_text(encoding="utf-8")
        made = make()
        page.write_text(part(name).sub(lambda m, made=made: m[1] + made + m[3], text), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
