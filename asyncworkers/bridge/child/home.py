"""What a job says goes home: its log records, its warnings, and, if wanted, what it prints.

A record travels through the ring as plain data, is given to the logger of the same name there, and
never keeps the job waiting: if the parent does not keep up, records are dropped and counted. What
the parent's loggers would drop is dropped here, at the price that `logging` has for that.

`logging` is a large module as things are here. So it is not imported, but waited for: once the
code of a job imports it, it gets our handler.
"""

from __future__ import annotations

import contextlib
import io
import marshal
import os
import sys
import warnings
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

__all__ = ["Home", "tell_on_stderr"]

LONGEST = 32_768
"""Characters of a text that travel; of a traceback the last, of anything else the first."""

LARGEST = 131_072
"""Bytes of a record; of a larger one only what is ours travels."""

INFO, WARNING = 20, 30

Told = Callable[[bytes], bool]


class Home:
    """Sends records home by `tell`, which says whether that could be done at once.

    `levels` are the parent's, of all its loggers that have one of their own.
    """

    def __init__(self, tell: Told, dropped: Callable[[], None], levels: dict[str, int]) -> None:
        self._tell = tell
        self._dropped = dropped
        self._levels = levels

    def settle_in(self, prints: str) -> None:
        """Have everything that is said go home from now on."""
        warnings.showwarning = self._show_warning
        if "logging" in sys.modules:
            self._meet_logging()
        else:
            sys.meta_path.insert(0, _Awaited("logging", self._meet_logging))
        if prints == "log":
            sys.stdout = _Lines(self, "asyncworkers.stdout", INFO, sys.stdout)
            sys.stderr = _Lines(self, "asyncworkers.stderr", WARNING, sys.stderr)
        else:
            stream: Any = sys.stdout
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=True)  # so that a kill loses no line

    def is_heard(self, name: str, level: int) -> bool:
        """Whether a logger of this name lets records of this level pass, as far as the parent said."""
        levels = self._levels
        while name:
            if name in levels:
                return level >= levels[name]
            name = name.rpartition(".")[0]
        return level >= levels[""]

    def say(self, name: str, level: int, text: str, path: str = "", line: int = 0) -> None:
        """Send a record that is not from `logging`."""
        if self.is_heard(name, level):
            place = {"pathname": path, "filename": os.path.basename(path), "lineno": line}
            said = {"name": name, "levelno": level, "msg": text[:LONGEST], "process": os.getpid()}
            self.send(said | place)

    def send(self, record: dict[str, Any]) -> None:
        """Send a record's attributes, which may be anything, as plain data."""
        try:
            data = marshal.dumps(record)
        except ValueError:
            data = marshal.dumps({str(key): _plain(value) for key, value in record.items()})
        if len(data) > LARGEST:
            data = marshal.dumps({key: record[key] for key in OURS if key in record})
        if len(data) > LARGEST or not self._tell(data):
            self._dropped()

    def _show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        if file is not None:
            file.write(text)
        else:
            self.say("py.warnings", WARNING, text.rstrip("\n"), filename, lineno)

    def _meet_logging(self) -> None:
        """`logging` is there: take over the parent's levels, and hear what is logged."""
        import logging

        home, format_error = self, logging.Formatter().formatException

        class Handler(logging.Handler):
            """Sends each record home."""

            def emit(self, record: logging.LogRecord) -> None:
                try:
                    data = {**record.__dict__, "msg": record.getMessage()[:LONGEST], "args": None}
                    if record.exc_info and not record.exc_text:
                        data["exc_text"] = format_error(record.exc_info)
                    data["exc_text"] = (data["exc_text"] or "")[-LONGEST:] or None
                    for name in ("exc_info", "relativeCreated", "processName"):
                        del data[name]
                    home.send(data)
                except Exception:
                    self.handleError(record)

        logging.root.addHandler(Handler())
        for name, level in self._levels.items():
            logging.getLogger(name or None).setLevel(level)


OURS = (
    *("name", "levelno", "msg", "args", "exc_text", "pathname", "filename", "module", "lineno"),
    *("funcName", "created", "msecs", "thread", "threadName", "process"),
)
"""What every record has, beside what whoever logged it has added."""


def tell_on_stderr(record: bytes) -> bool:
    """Where home is out of reach: in a process that a job has forked."""
    with contextlib.suppress(OSError):
        os.write(2, f"{marshal.loads(record)['msg']}\n".encode("utf-8", "backslashreplace"))  # noqa: S302
    return True


def _plain(value: Any) -> Any:
    """The value, if it is made of numbers and texts; its text, if not."""
    try:
        marshal.dumps(value)
    except ValueError:
        try:
            return str(value)[:LONGEST]
        except Exception:
            return "<its text cannot be had>"
    return value


class _Awaited:
    """Finds a module just as the other finders do, and has something done once it is loaded."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name = name
        self._then = then

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        finders = (finder.find_spec(name, path, target) for finder in sys.meta_path)
        spec = next((found for found in finders if found is not None), None)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def execute_and_tell(module: Any) -> None:
                execute(module)
                self._then()

            loader.exec_module = execute_and_tell  # of this one loader of this one module
        return spec


class _Lines(io.TextIOBase):
    """A standard stream whose lines become log records. What is written to its `buffer`, or to the
    descriptor itself, passes it by.
    """

    def __init__(self, home: Home, name: str, level: int, stream: Any) -> None:
        self._home = home
        self._name = name
        self._level = level
        self._stream = stream
        self._rest = ""
        self.buffer = getattr(stream, "buffer", None)

    encoding = "utf-8"

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The descriptor of the stream itself."""
        return int(self._stream.fileno())

    def write(self, text: str) -> int:
        """Send the lines that are complete."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._say(line)
        if len(self._rest) > LONGEST:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Send what there is of the last line."""
        rest, self._rest = self._rest, ""
        self._say(rest)

    def _say(self, line: str) -> None:
        if line:
            self._home.say(self._name, self._level, line)
