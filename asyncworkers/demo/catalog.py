"""Which modules of the standard library get a page: found by name, never by importing them."""

from __future__ import annotations

import heapq
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

__all__ = ["LEFT_OUT", "Batch", "Module", "batches", "public_modules"]

# pydoc imports what it renders, so these are not for rendering.
LEFT_OUT = frozenset(
    {
        "antigravity",  # opens a web browser
        "idlelib",  # starts the editor
        "lib2to3",  # writes grammar caches
        "test",  # runs tests, as do the packages' own `test` and `tests`
        "tests",
        "this",  # prints a poem
        "turtledemo",  # opens windows
    }
)

# What a module without a source file, one written in C, is taken to cost: about a median one.
_UNKNOWN = 10_000


@dataclass(frozen=True, slots=True)
class Module:
    """A module's name and its weight, the bytes of its source: a guess at what rendering costs."""

    name: str
    weight: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Modules that one child process renders into a folder."""

    number: int
    folder: Path
    modules: tuple[str, ...]

    def __str__(self) -> str:
        return f"batch {self.number}, {len(self.modules)} modules from {self.modules[0]}"


def public_modules() -> list[Module]:
    """Every public module of the standard library, by name; some may turn out not to import."""
    return sorted(_walk_top(), key=lambda module: module.name)


def batches(modules: Iterable[Module], folder: Path, count: int) -> list[Batch]:
    """Share the modules out into at most `count` batches of about the same weight.

    The heaviest go first, each to the batch that is lightest so far.
    """
    heap: list[tuple[int, int, list[str]]] = [(0, number, []) for number in range(count)]
    for module in sorted(modules, key=lambda module: (-module.weight, module.name)):
        weight, number, names = heap[0]
        names.append(module.name)
        heapq.heapreplace(heap, (weight + module.weight, number, names))
    filled = sorted((number, names) for _, number, names in heap if names)
    return [Batch(number, folder, tuple(names)) for number, (_, names) in enumerate(filled, 1)]


def _walk_top() -> Iterator[Module]:
    for name in sys.stdlib_module_names:
        if _is_wanted(name):
            # Built-in modules have no file, and those of other platforms no spec: both are kept,
            # for whether a module can be imported is one of the demo's findings.
            yield from _walk(name, PathFinder.find_spec(name))


def _walk(name: str, spec: ModuleSpec | None) -> Iterator[Module]:
    yield Module(name, _weight(spec))
    inside = spec.submodule_search_locations if spec is not None else None
    for _, last, _ in pkgutil.iter_modules(inside or []):
        if _is_wanted(last):
            yield from _walk(f"{name}.{last}", PathFinder.find_spec(last, inside))


def _is_wanted(name: str) -> bool:
    return name not in LEFT_OUT and (not name.startswith("_") or name == "__future__")


def _weight(spec: ModuleSpec | None) -> int:
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return _UNKNOWN
    return Path(spec.origin).stat().st_size
