"""Applies unified diffs to a copy of the package, by their text alone: line numbers do not matter.

A planted bug must survive edits elsewhere in its file, and must not need a `patch` program. Each
hunk is found by the lines it removes and keeps, which have to be in the file exactly once.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import asyncworkers

PATCHES = Path(__file__).parent / "planted"
PACKAGE = Path(asyncworkers.__file__).parent


class DoesNotApply(Exception):
    """The code a patch is about has changed: the patch has to be written anew."""


def copy_with(patch: Path, target: Path) -> None:
    """Copy the package into a directory, with the bug planted."""
    ignored = shutil.ignore_patterns("__pycache__", "demo")
    shutil.copytree(PACKAGE, target / "asyncworkers", ignore=ignored)
    for name, hunks in _read(patch).items():
        file = target / name
        text = file.read_text(encoding="utf-8")
        for old, new in hunks:
            if text.count(old) != 1:
                raise DoesNotApply(
                    f"{patch.name} does not apply: these lines are in {name} "
                    f"{text.count(old)} times instead of once. Write the patch anew.\n{old}"
                )
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")


def _read(patch: Path) -> dict[str, list[tuple[str, str]]]:
    """The hunks of a diff by file, each as the text before and after."""
    files: dict[str, list[tuple[str, str]]] = {}
    old: list[str] = []
    new: list[str] = []
    hunks: list[tuple[str, str]] = []

    def end_hunk() -> None:
        if old or new:
            hunks.append(("".join(old), "".join(new)))
            old.clear()
            new.clear()

    for line in patch.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.startswith("+++ b/"):
            end_hunk()
            hunks = files.setdefault(line[6:].strip(), [])
        elif line.startswith("@@"):
            end_hunk()
        elif files and line.startswith((" ", "-", "+")) and not line.startswith("---"):
            if line[0] != "+":
                old.append(line[1:])
            if line[0] != "-":
                new.append(line[1:])
    end_hunk()
    if not files:
        raise DoesNotApply(f"{patch.name} holds no diff")
    return files
