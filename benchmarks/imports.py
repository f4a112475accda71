"""What `import asyncworkers` costs beyond bare Python, and what it must not bring along.

    python -m benchmarks.imports [--runs 25]

Each run is a fresh interpreter that times one import statement; the contestants take turns and the
table shows medians. A run of each that is not counted compiles what it imports, as an installer
does: compiling costs more than importing. Leaves with 1 if a library that is to be imported only
when used was imported.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from statistics import median, quantiles

from benchmarks.tables import machine, markdown

SUBJECTS = ("asyncworkers", "asyncio", "uvloop", "anyio", "aiojobs", "streamable", "taskiq")
LAZY = (
    "aiohttp",
    "anyio",
    "cloudpickle",
    "cronsim",
    "msgspec",
    "multiprocessing",
    "rich",
    "uvloop",
)

_TIMED = "from time import perf_counter as now; t = now(); import {}; print((now() - t) * 1e3)"
_LOADED = "import sys; import asyncworkers; print(*sys.modules)"


def output_of(code: str, compiled: str) -> str:
    """What the code prints in a fresh interpreter that keeps its bytecode in a directory."""
    surroundings = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
    surroundings.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=surroundings,
    ).stdout


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--runs", type=int, default=25)
    runs: int = parser.parse_args().runs
    times: dict[str, list[float]] = {name: [] for name in SUBJECTS if find_spec(name)}
    with tempfile.TemporaryDirectory() as compiled:
        for name in times:
            output_of(_TIMED.format(name), compiled)
        for _ in range(runs):
            for name, taken in times.items():
                taken.append(float(output_of(_TIMED.format(name), compiled)))
        loaded = set(output_of(_LOADED, compiled).split())
    rows = [
        [f"`import {name}`"]
        + (
            [f"{median(times[name]):.1f}", f"{quantiles(times[name], n=4)[2]:.1f}"]
            if name in times
            else ["not installed", "-"]
        )
        for name in SUBJECTS
    ]
    print(f"{machine()}; {runs} runs\n")
    print(markdown(["in a fresh interpreter", "median, ms", "upper quartile, ms"], rows))
    early = [name for name in LAZY if name in loaded]
    print(f"\nImported too early: {', '.join(early) or 'nothing'}, of {', '.join(LAZY)}.")
    return 1 if early else 0


if __name__ == "__main__":
    sys.exit(main())
