"""A script with a report at its end: what it did, what failed and why, and a timeline to look at.

It measures a few modules of the standard library, in threads; one of them is locked at first, and
one is not there at all. `record=True` keeps what happens, in bounded memory.

Prints:

    5 modules measured
    6 jobs, 5 succeeded, 1 failed, 1 attempt repeated
    most attempts: measure, 2
    failed of: FileNotFoundError (1), PermissionError (1)
    saved: run.html run.json run.svg
"""

import json
import tempfile
from pathlib import Path

from asyncworkers import Retry, Supervisor, current_job, job, run
from asyncworkers.timeline import Timeline

LIBRARY = Path(json.__file__).parent
MODULES = ("decoder", "encoder", "scanner", "tool", "__init__", "codec")


@job(retry=Retry(attempts=2, on=PermissionError, delay=0.01))
def measure(module: str) -> int:
    """How many lines a module has."""
    if module == "tool" and current_job().attempt == 1:
        raise PermissionError(f"{module} is locked")
    text = (LIBRARY / f"{module}.py").read_text(encoding="utf-8")
    return len(text.splitlines())


async def main() -> None:
    """Measure, and tell what came of it."""
    supervisor = Supervisor(threads=2, record=True)
    async with supervisor:
        found = [
            outcome.result()
            async for outcome in supervisor.map(measure, MODULES).outcomes()
            if outcome.exception() is None
        ]
    print(len(found), "modules measured")
    report = supervisor.report()  # print(report) shows all of it
    counts = f"{report.submitted} jobs, {report.succeeded} succeeded, {report.failed} failed"
    print(f"{counts}, {report.retried} attempt repeated")
    worst = report.most_retried[0]
    print(f"most attempts: {worst.job_name}, {worst.attempt}")
    print("failed of:", ", ".join(f"{one.error_type} ({one.count})" for one in report.errors))
    save(supervisor.timeline())


def save(timeline: Timeline) -> None:
    """Save it in each form there is."""
    with tempfile.TemporaryDirectory() as folder:
        for form in ("html", "svg", "json"):
            timeline.save(Path(folder, f"run.{form}"))
        print("saved:", *sorted(path.name for path in Path(folder).iterdir()))


if __name__ == "__main__":
    run(main)
