"""One table: a process with 2,000 jobs of 50 ms is killed in the middle, and started again.

    make bench TABLE=crash
    python -m benchmarks.crash [--jobs 2000] [--patience 100] [--only huey]

Twenty jobs run at a time. Each writes a line when it starts and one when it ends. When half of them
have ended the process gets SIGKILL and is started again at once, and is left alone until all are done
or nothing has happened for `--patience` seconds. Then:

- *lost*: jobs that had been submitted and never ran to their end;
- *run twice*: jobs that were started more than once. Those that ran when the process was killed must
  be, if they are not to be lost;
- *orphans ran after*: seconds from the moment the new process works to the start of the last of the
  jobs that had been running. `never` if they were lost.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.durable_queues import CONTESTANTS, Body
from benchmarks.tables import machine, markdown

AT_ONCE = 20
SECONDS = 0.05


def fill(name: str, directory: str, jobs: int) -> None:
    """Submit all jobs."""
    one = CONTESTANTS[name](directory)
    asyncio.run(one.submitting(lambda: one.fill(jobs)))


def work(name: str, directory: str) -> None:
    """Work until killed."""
    diary = os.open(Path(directory) / "diary", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(word: str, number: int) -> None:
        os.write(diary, f"{word} {number} {time.monotonic()}\n".encode())

    async def coroutine(number: int) -> None:
        write("start", number)
        await asyncio.sleep(SECONDS)
        write("end", number)

    def blocking(number: int) -> None:
        write("start", number)
        time.sleep(SECONDS)
        write("end", number)

    one = CONTESTANTS[name](directory)
    Body.call = blocking if one.blocking else coroutine

    async def use() -> None:
        write("ready", -1)
        await asyncio.Event().wait()

    asyncio.run(one.serving(AT_ONCE, use))


class Seen(NamedTuple):
    """What a diary tells of one kind of line: the moments, by job."""

    starts: dict[int, list[float]]
    ends: dict[int, list[float]]
    ready: list[float]


def seen(diary: Path) -> Seen:
    """Read it."""
    found = Seen({}, {}, [])
    for line in diary.read_text().splitlines() if diary.exists() else ():
        word, number, moment = line.split()
        if word == "ready":
            found.ready.append(float(moment))
        else:
            where = found.starts if word == "start" else found.ends
            where.setdefault(int(number), []).append(float(moment))
    return found


def crash(name: str, jobs: int, patience: float) -> tuple[str, str, str]:
    """The row of one contestant."""
    with tempfile.TemporaryDirectory(prefix="asyncworkers-crash-") as directory:
        diary = Path(directory) / "diary"

        def start(function: str, *arguments: Any) -> subprocess.Popen[bytes]:
            code = f"from benchmarks.crash import {function}; {function}{(name, directory, *arguments)}"
            return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)

        filling = start("fill", jobs)
        _, errors = filling.communicate()
        if filling.returncode:
            raise RuntimeError(errors.decode())
        process = start("work")
        while len(seen(diary).ends) < jobs // 2:
            if process.poll() is not None:
                assert process.stderr is not None
                raise RuntimeError(process.stderr.read().decode())
            time.sleep(0.02)
        process.kill()
        process.communicate()
        before = seen(diary)
        orphans = before.starts.keys() - before.ends.keys()
        process = start("work")
        last, changed = 0, time.monotonic()
        while len(seen(diary).ends) < jobs and time.monotonic() < changed + patience:
            time.sleep(0.1)
            size = diary.stat().st_size
            if size != last:
                last, changed = size, time.monotonic()
        process.kill()
        process.communicate()
        after = seen(diary)
        lost = jobs - len(after.ends)
        twice = Counter(len(moments) > 1 for moments in after.starts.values())[True]
        again = [after.starts[one][-1] for one in orphans if len(after.starts[one]) > 1]
        delay = "never" if len(again) < len(orphans) else f"{max(again) - after.ready[-1]:.2f} s"
        return str(lost), str(twice), delay if orphans else "none were running"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--patience", type=float, default=100.0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    rows: list[list[str]] = []
    for name, one in CONTESTANTS.items():
        if one.version() is None or not any(word in name for word in options.only.split(",")):
            continue
        rows.append(
            [f"{name} {one.version()}".strip(), *crash(name, options.jobs, options.patience)]
        )
    print(
        f"{machine()}; {options.jobs:,} jobs of 50 ms, {AT_ONCE} at a time, SIGKILL in the middle\n"
    )
    print(markdown(["killed and started again", "lost", "run twice", "orphans ran after"], rows))


if __name__ == "__main__":
    main()
