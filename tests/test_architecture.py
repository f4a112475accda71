"""The floors of the package, read from its syntax trees: who imports whom, and what is banned."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import asyncworkers

PACKAGE = Path(__file__).parents[1] / "asyncworkers"

# A room imports only lower floors. Only the words of floor 0 and the doors know their neighbors.
# The package itself (its __init__, the promise) stands between the rooms and the doors.
FLOORS = {
    **dict.fromkeys(("_checks", "_log", "_record", "errors", "outcome", "policies", "events"), 0),
    **dict.fromkeys(("_html", "_notebook", "_overheard", "units"), 0),
    **dict.fromkeys(("_arity", "secret", "redact", "health"), 0),
    **dict.fromkeys(("function", "host", "signed", "subscription"), 1),
    "job": 2,
    **dict.fromkeys(("bridge", "escort", "store"), 3),
    **dict.fromkeys(("_engine", "chronicle"), 4),
    **dict.fromkeys(("current", "logs", "progress", "queue", "report", "signals"), 5),
    **dict.fromkeys(("_premises", "embedding", "plot", "stored", "stream", "timeline"), 6),
    "web": 5,
    "dashboard": 6,
    "supervisor": 7,
    "run": 8,
    "": 9,
    **dict.fromkeys(("cli", "__main__", "demo", "integrations", "notebook", "portal"), 10),
    "http": 10,
    "testing": 11,
}
WORDS, PROMISE, DOORS = 0, 9, 10
FACES = {
    "web",
    "dashboard",
}  # shown to people, who want the date, and guarded by tokens drawn at random

CORE_LIBRARIES = {
    "anyio",
    "cloudpickle",
    "msgspec",
    "uvloop",
    "_typeshed",  # for type checkers only
}
LIBRARIES = {
    "_notebook": {"IPython"},
    "cli": {"click", "rich", "uvicorn"},
    "demo": {"aiohttp", "click", "rich"},
    "http": {"starlette"},
    "dashboard": {"starlette"},
    "web": {"starlette"},
    "integrations": {"aiohttp", "fastapi", "litestar", "opentelemetry", "prometheus_client"}
    | {"starlette"},
    "notebook": {"IPython"},
    "plot": {"matplotlib"},
    "progress": {"rich"},
    "testing": {"hypothesis", "pytest", "pytest_asyncio"},
}

# Time, chance and identity come from the loop's clock seam, so that a simulation owns them; dates
# and leases of stored jobs from the store's, for the owner of the data owns its clock.
CLOCKS = {"asyncworkers._engine.clock", "asyncworkers.store.clock"}
NOT_DETERMINISTIC = {
    *("time.time", "time.time_ns", "datetime.datetime.now", "datetime.datetime.utcnow"),
    *("datetime.datetime.today", "datetime.date.today", "uuid.uuid1", "uuid.uuid4"),
    *("os.urandom", "random.*", "secrets.*"),
}
# Each of these costs more than a job does, or loses a cancellation. At the very end of a supervisor
# or a run, once, `asyncio.wait` is the right tool.
TOO_DEAR = {"asyncio.wait_for", "asyncio.wait", "asyncio.Condition", "asyncio.Semaphore"}
AT_THE_END = {
    "asyncworkers._engine.stop",
    "asyncworkers._engine.stored.last_waits",
    "asyncworkers.run",
}


def modules() -> dict[str, ast.Module]:
    """Return the tree of every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return found


MODULES = modules()


def room(module: str) -> str:
    """Return the top-level name under the package, `""` for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def imports(module: str) -> Iterator[tuple[str, str]]:
    """Yield `(module, name)` for each import at any depth; name is `""` for a whole module."""
    is_package = (PACKAGE.parent / module.replace(".", "/")).is_dir()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: None if is_package else -1]
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner, "") if inner in MODULES else (base, alias.name)


def internal_imports() -> Iterator[tuple[str, str, str]]:
    """Yield `(importer, imported module, name)` for each import of ours by ours."""
    for module in MODULES:
        for target, name in imports(module):
            if target.split(".")[0] == "asyncworkers":
                yield module, target, name


def references(module: str) -> Iterator[tuple[str, int]]:
    """Yield the full dotted name and the line of everything imported that the module mentions.

    A call adds `()` to the name of what it calls.
    """
    aliases = {}
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                head = alias.name.partition(".")[0]
                aliases[alias.asname or head] = alias.name if alias.asname else head
        elif isinstance(node, ast.ImportFrom) and not node.level:
            aliases |= {(a.asname or a.name): f"{node.module}.{a.name}" for a in node.names}
            yield from ((f"{node.module}.{a.name}", node.lineno) for a in node.names)
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Attribute | ast.Call):
            written = (
                ast.unparse(node.func) + "()" if isinstance(node, ast.Call) else ast.unparse(node)
            )
            head = re.split(r"\W", written)[0]
            if head in aliases:
                yield aliases[head] + written.removeprefix(head), node.lineno


def banned(module: str, names: set[str]) -> list[str]:
    """Return where `module` mentions one of `names`; `random.Random` as a type is allowed."""
    return [
        f"{module}:{line} {name}"
        for name, line in references(module)
        if name != "random.Random" and (name in names or f"{name.split('.')[0]}.*" in names)
    ]


def test_every_module_stands_on_a_floor() -> None:
    """A new room has to be given its place before it can be used, and no place stands empty."""
    assert {room(module) for module in MODULES} == set(FLOORS)


def test_imports_go_down() -> None:
    """No module imports a higher floor, or a neighbor it should not know."""
    wrong = []
    for module, target, _ in internal_imports():
        here, there = FLOORS[room(module)], FLOORS[room(target)]
        same = room(module) == room(target) or here in (WORDS, DOORS)
        if there > here or (there == here and not same):
            wrong.append(f"{module} imports {target}")
    assert wrong == []


def test_there_is_no_cycle() -> None:
    """The graph of imports can be sorted, imports for type checkers and in functions included."""
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for module, target, _ in internal_imports():
        graph[module].add(target)
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_bridges_are_strangers() -> None:
    """One kind of bridge knows the protocol and what all share, never another kind."""
    kinds = {f"asyncworkers.bridge.{name}" for name in ("inline", "thread", "process")}
    assert kinds <= set(MODULES)
    assert [(m, t) for m, t, _ in internal_imports() if m in kinds and t in kinds] == []


def test_what_children_import_is_light() -> None:
    """A child's modules know each other and what is small in the standard library, or import it only
    where it is used; and nothing of ours that would bring the event loop along.
    """
    light = {
        *("__future__", "bisect", "collections", "contextlib", "contextvars", "errno"),
        *("functools", "gc", "io", "marshal", "mmap", "operator", "os", "pickle", "select"),
        *("signal", "struct", "sys", "threading", "time", "types", "typing", "warnings"),
    }
    wrong = []
    for module in MODULES:
        if not module.startswith("asyncworkers.bridge.child."):
            continue
        for node in MODULES[module].body:
            if isinstance(node, ast.Import):
                wrong += [f"{module} imports {a.name}" for a in node.names if a.name not in light]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                if (node.module or "").split(".")[0] not in light:
                    wrong.append(f"{module} imports from {node.module}")
            elif isinstance(node, ast.ImportFrom) and node.level > 1:
                wrong.append(f"{module} imports from above")
    assert wrong == []


def test_stores_are_strangers() -> None:
    """One store knows the protocol and what all share, never another store; only what finds a store
    by its address knows them all.
    """

    def owner(module: str) -> str:
        return ".".join(module.split(".")[:3])

    shared = ("", ".address", ".clock", ".codec", ".protocol")
    common = {f"asyncworkers.store{name}" for name in shared}
    kinds = {owner(m) for m in MODULES if room(m) == "store"} - common
    wrong = [
        (module, target)
        for module, target, _ in internal_imports()
        if room(target) == "store" and owner(target) in kinds
        if room(module) == "store"
        and owner(module) not in (owner(target), "asyncworkers.store.address")
    ]
    assert wrong == []


def test_doors_use_what_users_may_use() -> None:
    """The command line and the demo import public names only."""
    wrong = []
    for module, target, name in internal_imports():
        if FLOORS[room(module)] != DOORS or room(module) == room(target):
            continue
        if target == "asyncworkers._checks":  # what is wrong is said the same at every door
            continue
        if any(part.startswith("_") for part in [*target.split("."), name]):
            wrong.append(f"{module} imports {target} {name}")
        if target == "asyncworkers" and name and name not in asyncworkers.__all__:
            wrong.append(f"{module} imports {name}, which the package does not promise")
    assert wrong == []


def test_libraries_stay_in_their_rooms() -> None:
    """An extra is imported only by the room named after it; the core has its own two."""
    wrong = []
    for module in MODULES:
        allowed = CORE_LIBRARIES | LIBRARIES.get(room(module), set()) | {"asyncworkers"}
        used = {target.split(".")[0] for target, _ in imports(module)}
        wrong += [f"{module} imports {x}" for x in used - allowed - sys.stdlib_module_names]
    assert wrong == []


def test_time_and_chance_come_from_the_clock() -> None:
    """Below the doors, nothing but the clock seam reads the wall clock or draws a number."""
    below = [m for m in MODULES if FLOORS[room(m)] < DOORS and room(m) not in FACES]
    core = [module for module in below if module not in CLOCKS]
    assert [hit for module in core for hit in banned(module, NOT_DETERMINISTIC)] == []


def test_no_expensive_primitive() -> None:
    """The package never uses the asyncio helpers that cost more than a job."""
    wrong = []
    for module in MODULES:
        if room(module) not in ("demo", "testing"):
            names = TOO_DEAR - {"asyncio.wait"} if module in AT_THE_END else TOO_DEAR
            wrong += banned(module, names)
    assert wrong == []
