"""Jobs and initializers for the tests of life in a child: a light module, because each child imports it."""

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from amid import at_each_line_of_a_record

state: dict[str, Any] = {}
kept: list[bytes] = []


def echo(value: Any) -> Any:
    return value


def whoami(*_: Any) -> int:
    return os.getpid()


def imports(name: str) -> bool:
    """Whether a module has been imported here."""
    return name in sys.modules


def log(name: str, level: int, text: str, *args: Any, **extra: Any) -> int:
    """Log one record with a logger of this name."""
    import logging

    logging.getLogger(name).log(level, text, *args, extra=extra)
    return os.getpid()


def log_an_error(text: str) -> None:
    import logging

    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("life.errors").exception("it failed")


class Costly:
    """A thing whose text must not be asked for if nobody hears it."""

    def __str__(self) -> str:
        state["asked"] = True
        return "costly"


def log_costly(level: int) -> bool:
    """Log a record at this level; whether its text was asked for."""
    import logging

    state["asked"] = False
    logging.getLogger("life.costly").log(level, "it is %s", Costly())
    return bool(state["asked"])


def log_flood(count: int, size: int, end: str) -> int:
    """Log a lot, and say in a file that it is done."""
    import logging

    logger = logging.getLogger("life.flood")
    for number in range(count):
        logger.warning("%d %s", number, "x" * size)
    Path(end).touch()
    return count


def log_while_logging(count: int) -> int:
    """Log, and log from within each line that writes a record to what is shared with the parent, as a
    finalizer or a signal handler might; how often that was.
    """
    import logging

    logger = logging.getLogger("life.middle")
    with at_each_line_of_a_record(lambda _: logger.warning("inside")) as inside:
        for number in range(count):
            logger.warning("%d", number)
    return len(inside)


def log_from_a_fork() -> int:
    """A copy of the process logs and reports; the copy's exit code."""
    import logging

    logging.getLogger("life.fork").warning("before")
    pid = os.fork()
    if pid == 0:
        logging.getLogger("life.fork").warning("from the copy")
        os._exit(5)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def come_back_from_a_fork(how: str) -> int:
    """A copy of the process comes back from the job as well; the copy's exit code."""
    from asyncworkers import current_job

    this = current_job()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if how == "exits":
        raise SystemExit(3)
    if how == "raises":
        raise LookupError("from the copy")
    if how == "asks":
        this.id  # noqa: B018
    return -1


def log_from_a_thread_left_behind(go: str, again: str = "", done: str = "") -> None:
    """Log when there is a file, and once more when there is another; then make a third."""
    import logging
    import threading

    def wait_and_log() -> None:
        while not Path(go).exists():
            time.sleep(0.001)
        logging.getLogger("life.thread").warning("after its job")
        if again:
            while not Path(again).exists():
                time.sleep(0.001)
            logging.getLogger("life.thread").warning("once more")
            Path(done).touch()

    threading.Thread(target=wait_and_log, daemon=True).start()


def warn(text: str) -> None:
    warnings.warn(text, stacklevel=1)


def speak(out: str, err: str) -> None:
    print(out)
    print(err, file=sys.stderr)


def print_half_lines() -> int:
    print("one, ", end="")
    print("two")
    print("the rest", end="", flush=True)
    sys.stdout.buffer.write(b"bytes\n")
    sys.stdout.buffer.flush()
    return sys.stdout.fileno()


def print_and_die(text: str) -> None:
    print(text)
    os.kill(os.getpid(), 9)


# ---- initializers


def note_start(file: str) -> None:
    """Say in a file that this process was made ready."""
    append(file, str(os.getpid()))
    state["ready"] = True


def append(file: str, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def is_ready() -> bool:
    return bool(state.get("ready"))


def fail_to_start(file: str) -> None:
    append(file, str(os.getpid()))
    raise ValueError("there is no model")


def fail_while(file: str, marker: str) -> None:
    """Raise as long as there is a file."""
    append(file, str(os.getpid()))
    if Path(marker).exists():
        raise ValueError("not yet")


def wait_to_start(marker: str) -> None:
    while not Path(marker).exists():
        time.sleep(0.001)


def log_at_start(count: int) -> None:
    import logging

    for number in range(count):
        logging.getLogger("life.start").warning("making ready %d", number)


def die_at_start() -> None:
    os._exit(9)


# ---- what a child has


def note_run(file: str, number: int) -> int:
    """Say in a file that this job ran."""
    append(file, str(number))
    return os.getpid()


def refuse() -> None:
    raise ValueError(os.getpid())


def grow(size: int) -> int:
    """Leak so much memory."""
    kept.append(b"x" * size)
    return os.getpid()


def swell(size: int) -> int:
    """Use so much memory for the time of the job."""
    data = bytearray(b"x" * size)
    del data
    return os.getpid()


def niceness() -> int:
    return os.nice(0)


def environment(names: list[str]) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in names}


def wait_for_file(started: str, awaited: str) -> int:
    Path(started).write_text(str(os.getpid()))
    while not Path(awaited).exists():
        time.sleep(0.001)
    return os.getpid()


def leave_a_thread() -> int:
    """Start a thread that keeps the process from ending by itself."""
    import threading

    threading.Thread(target=time.sleep, args=(60,)).start()
    return os.getpid()


def note_at_exit(path: str) -> None:
    """Leave a file behind when the process ends in the ordinary way."""
    import atexit
    from pathlib import Path

    atexit.register(Path(path).touch)


def import_it(where: str, name: str) -> tuple[int, int]:
    """Import a module from this folder, when the job runs: the process, and what the module has."""
    if where not in sys.path:
        sys.path.insert(0, where)
    return os.getpid(), __import__(name).value
