"""Which modules are rendered, and how they are shared out."""

import subprocess
import sys
from pathlib import Path

import pytest

from asyncworkers.demo.catalog import LEFT_OUT, Module, batches, public_modules


def test_the_public_library_is_found():
    """Modules, packages, their submodules, built-in modules: each once; nothing private."""
    names = [module.name for module in public_modules()]
    assert names == sorted(set(names))
    assert {"json", "json.decoder", "sys", "asyncio.taskgroups", "__future__"} <= set(names)
    assert len(names) > 300
    for name in names:
        for part in name.split("."):
            assert part not in LEFT_OUT
            assert part == "__future__" or not part.startswith("_")


def test_nothing_is_imported_to_find_it():
    """Looking for modules must not run them: some draw windows, some open browsers."""
    code = (
        "import sys; from asyncworkers.demo.catalog import public_modules\n"
        "before = set(sys.modules); names = {module.name for module in public_modules()}\n"
        "print(sorted((set(sys.modules) - before) & names))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("count", [1, 3, 8, 50])
def test_batches_hold_every_module_once(count):
    """Nothing is lost or rendered twice, and no batch is empty."""
    modules = [Module(f"m{number}", 1 + number % 7) for number in range(20)]
    shares = batches(modules, Path("site"), count)
    assert sorted(name for batch in shares for name in batch.modules) == sorted(
        module.name for module in modules
    )
    assert len(shares) == min(count, 20)
    assert [batch.number for batch in shares] == list(range(1, len(shares) + 1))


def test_batches_weigh_about_the_same():
    """No batch outweighs the lightest by more than the heaviest module."""
    modules = [Module(f"m{number}", weight) for number, weight in enumerate([90, 5, 5, 5, 40, 45])]
    weights = {module.name: module.weight for module in modules}
    sums = [
        sum(weights[name] for name in batch.modules) for batch in batches(modules, Path("site"), 2)
    ]
    assert sorted(sums) == [95, 95]
