"""The catalogue of faults: every id has a test that carries it, or a reason why it has none yet."""

import ast
import re
from pathlib import Path

GROUPS = {
    "J": ("what the code of a job does", range(1, 31)),
    "W": ("workers, supervisor, scheduler", range(1, 14)),
    "L": ("the loop and its host", range(1, 13)),
    "X": ("shutdown", range(1, 11)),
    "B": ("bad input", range(1, 9)),
    "P": ("threads and processes", range(1, 21)),
    "S": ("every store", range(1, 13)),
    "Q": ("SQLite", range(1, 12)),
    "T": ("clocks", (1, 2)),
    "O": ("overload", (6, 7)),
    "V": ("attacks", (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)),
}

NOT_YET: dict[str, str] = {}

HERE = Path(__file__).parent
STORES = HERE.parent / "store"
STORED = HERE.parent / "stored"
HTTP = HERE.parent / "http"
DASHBOARD = HERE.parent / "dashboard"


def ids_of_tests() -> dict[str, str]:
    """The id of every fault that a test function carries in its name, with that name."""
    found: dict[str, str] = {}
    for path in [
        p for where in (HERE, STORES, STORED, HTTP, DASHBOARD) for p in where.rglob("test_*.py")
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                match = re.match(r"test_fault_([A-Z]\d\d)(_|$)", node.name)
                if match is not None:
                    found[match[1]] = node.name
                    assert ast.get_docstring(node), f"{node.name} does not say what it proves"
    return found


def test_every_fault_has_a_test() -> None:
    """No id of the catalogue is left out, and none is excused that has a test."""
    wanted = {f"{group}{number:02}" for group, (_, numbers) in GROUPS.items() for number in numbers}
    tested = set(ids_of_tests())
    assert wanted - NOT_YET.keys() - tested == set()
    assert tested & NOT_YET.keys() == set()
    assert tested - wanted == set(), "an id that is not in the catalogue"
