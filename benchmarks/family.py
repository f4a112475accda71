"""Runs a function in a new interpreter and accounts for every process that comes of it.

The interpreter and all its descendants carry a mark in their environment, so that they are found
also when their parent is dead, and none is left behind, whatever a library forgets. Linux only:
elsewhere there is no /proc to look into, and `members` finds nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

MARK = "ASYNCWORKERS_BENCHMARK_FAMILY"
PROC = Path("/proc")
TICK = 1 / os.sysconf("SC_CLK_TCK")


def members(mark: str) -> list[int]:
    """Ids of the living processes that carry this mark. A zombie is not living."""
    wanted = f"{MARK}={mark}".encode()
    found: list[int] = []
    for entry in PROC.glob("[0-9]*") if PROC.exists() else ():
        with contextlib.suppress(OSError):  # it ended while we looked, or is not ours to look at
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return sorted(found)


def relatives() -> list[int]:
    """Ids of all other processes of the family this process belongs to."""
    return [pid for pid in members(os.environ[MARK]) if pid != os.getpid()]


def memory(pid: int) -> int:
    """Bytes of memory of a process, what it shares counted by its share (PSS)."""
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"the system does not tell the memory of process {pid}")


def cpu_seconds(pid: int) -> float | None:
    """Seconds of CPU a process has used; None if there is no such process, or a zombie is left."""
    try:
        after_name = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in "ZX" else (int(after_name[11]) + int(after_name[12])) * TICK


def family_seconds() -> float:
    """Seconds of CPU that the living processes of this process's family have used."""
    return sum(cpu_seconds(pid) or 0.0 for pid in members(os.environ[MARK]))


def machine_seconds() -> float:
    """Seconds of CPU that all processes of the machine have used, or that its host took away."""
    try:
        user, nice, system, _idle, _wait, *others = map(
            int, (PROC / "stat").read_text().partition("\n")[0].split()[1:]
        )
    except OSError:
        return 0.0
    return (user + nice + system + sum(others[:3])) * TICK


def wait_for_quiet(cores: float, patience: float) -> None:
    """Return once all processes together use no more than so many cores, or patience is out."""
    ends = time.monotonic() + patience
    while time.monotonic() < ends:
        used, began = machine_seconds(), time.monotonic()
        time.sleep(0.3)
        if machine_seconds() - used <= cores * (time.monotonic() - began):
            return


@dataclass(slots=True)
class Family:
    """An interpreter that was started, and its descendants."""

    process: subprocess.Popen[bytes]
    mark: str
    folder: Path

    def wait(self, seconds: float) -> bool:
        """Whether the interpreter ended within so many seconds."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def members(self) -> list[int]:
        return members(self.mark)

    @property
    def errors(self) -> str:
        """What all of them wrote to stderr."""
        return (self.folder / "stderr").read_text(errors="replace")

    def result(self) -> Any:
        """What the function returned. Raises `RuntimeError` with stderr if it did not return."""
        try:
            return json.loads((self.folder / "result").read_text())
        except FileNotFoundError:
            raise RuntimeError(self.errors or "killed for taking too long") from None

    def end(self) -> None:
        """Kill whoever is left of the family, until nobody is."""
        while left := self.members():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def started(folder: Path, function: str, arguments: dict[str, Any]) -> Generator[Family]:
    """Call `module:function` with these JSON-able arguments in a new interpreter.

    It leads a process group of its own, and its temporary files, output and result go to `folder`.
    """
    mark = uuid4().hex
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.family", str(folder / "result"), function]
    environment = {**os.environ, MARK: mark, "TMPDIR": str(folder)}
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [*command, json.dumps(arguments)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            start_new_session=True,
        )
    family = Family(process, mark, folder)
    try:
        yield family
    finally:
        family.end()


def deliver(result: Any) -> NoReturn:
    """Hand the result to whoever started this interpreter, and end it at once.

    Its ordinary end might hang on what a library left behind; the family is ended in any case.
    """
    written = Path(f"{sys.argv[1]}.part")
    written.write_text(json.dumps(result))
    written.rename(sys.argv[1])
    os._exit(0)


def main() -> None:
    module, _, name = sys.argv[2].partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    deliver(function(**json.loads(sys.argv[3])))


if __name__ == "__main__":
    main()
