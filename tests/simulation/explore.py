"""Runs the simulation for many seeds and says which of them fail: `python explore.py 0 1000`.

`--step 2` takes every second seed, `--until-failure` stops at the first that fails, `--show` prints
the plan and the history of the first seed. The last line of the output is a summary in JSON.
"""

# ruff: noqa: T201  # its output is what it is for

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from checks import check_run
from plan import make_plan
from world import World, quiet_logging

import asyncworkers
from asyncworkers.testing import simulate

SHUFFLES = (1.0, 1.0, 0.5, 0.0)
"""Most seeds run in a chosen order, some in asyncio's own, which users meet."""


def run_seed(seed: int) -> tuple[list[str], World, str]:
    """Run one seed; its problems, its world, and the digest of the run."""
    plan = make_plan(seed)
    worlds: list[World] = []

    async def main() -> None:
        worlds.append(World(plan))
        await worlds[0].run()

    try:
        result = simulate(
            main,
            seed=seed,
            shuffle=SHUFFLES[seed % len(SHUFFLES)],
            latency=plan.latency,
            max_steps=50_000,
        )
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        # Problems noted while the run was being torn down are none.
        return [f"the run raised {type(error).__name__}: {error}"], worlds[0], ""
    (world,) = worlds
    check_run(world)
    problems = world.problems
    problems += [f"unhandled: {report}" for report in result.unhandled]
    world.tally["steps"] += result.steps
    return problems, world, result.digest


def show(world: World) -> None:
    """Print a run for somebody who looks for a bug in it."""
    for each in fields(world.plan):
        value = getattr(world.plan, each.name)
        print(f"{each.name}:", *value if isinstance(value, list) else [value], sep="\n    ")
    keys = {job.id: key for key, job in world.jobs.items()}
    for entry in world.history:
        key = keys.get(getattr(entry, "job_id", None) or "", "")
        told = {
            name: getattr(entry, name)
            for name in entry.__slots__
            if name not in ("at", "job_name", "seconds", "job_id")
        }
        print(f"{entry.at:8.4f}", type(entry).__name__, key, told)


def main() -> int:
    """Run the seeds that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("end", type=int)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--until-failure", action="store_true")
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    quiet_logging()
    tally: Counter[str] = Counter()
    digests: list[str] = []
    failures: dict[int, list[str]] = {}
    ran = 0
    for seed in range(arguments.first, arguments.end, arguments.step):
        problems, world, digest = run_seed(seed)
        ran += 1
        tally.update(world.tally)
        digests.append(digest)
        if arguments.show:
            show(world)
            arguments.show = False
        if problems:
            failures[seed] = problems
            print(f"seed {seed}:", *problems, sep="\n  ")
            if arguments.until_failure:
                break
    summary = {
        "ran": ran,
        "failures": failures,
        "tally": tally,
        "digests": digests[:150],
        "package": asyncworkers.__file__,
    }
    print(json.dumps(summary))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
