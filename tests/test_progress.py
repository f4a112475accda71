"""Progress as a user sees it: in a real terminal, with rich and without, alone and beside another."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from asyncworkers import Supervisor
from asyncworkers.units import how_far

pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")

BEGIN = """
import asyncio, sys
{without}
from asyncworkers import Supervisor, run

async def main():
    seven = asyncio.Event()

    async def fails_at_last(number):
        if number == 7:
            await seven.wait()
            raise LookupError

    async def unknown():
        for number in range(3):
            yield number

    async def look(stream):
        async for one in stream:
            one.exception()

    async with Supervisor(grace=0.1) as supervisor:
"""
TWO = """
        other = supervisor.map(fails_at_last, range(8)).progress("[red]pages").outcomes()
        reading = asyncio.create_task(look(other))
        await supervisor.map(asyncio.sleep, [0, 0, 0.25]).progress("first")
        await look(supervisor.map(fails_at_last, unknown()).progress("third").outcomes())
        print("between", flush=True)
        seven.set()
        await reading

run(main)
print("done", flush=True)
"""
STUCK = """
        await supervisor.map(fails_at_last, range(8)).progress("stuck")

run(main)
"""
LOGGED = """
        import logging
        {configured}
        stream = supervisor.map(fails_at_last, range(8)).progress("pages").outcomes()
        reading = asyncio.create_task(look(stream))
        while not seven._waiters:  # the bar is there before its jobs
            await asyncio.sleep(0)
        for logger in ("", "mine"):
            logging.getLogger(logger).warning("said by %r", logger)
        seven.set()
        await reading
        assert not any(handler.filters for handler in (*logging.root.handlers, logging.lastResort))

run(main)
"""


@contextmanager
def terminal(script: str, *, rich: bool) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a script in a terminal of its own, with or without rich; its master's end is to be read."""
    ours, theirs = pty.openpty()
    text = BEGIN.format(without="" if rich else "sys.modules['rich.console'] = None") + script
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONUTF8": "1"}
    try:
        with subprocess.Popen(
            [sys.executable, "-c", text], stdin=theirs, stdout=theirs, stderr=theirs, env=env
        ) as process:
            os.close(theirs)
            try:
                yield process, ours
            finally:
                process.kill()
    finally:
        os.close(ours)


def read(ours: int, until: str | None = None) -> str:
    """What comes out of the terminal, to the end or until it says something."""
    found = b""
    while until is None or until.encode() not in found:
        try:
            more = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not more:
            break
        found += more
    return found.decode(errors="replace")


def lines(text: str) -> list[str]:
    """The lines that stay, as one sees them at the end, without what was drawn over."""
    plain = re.sub(r"\x1b\[\d*[A-Za-z]|\x1b\[[\d;]*m|\x1b\[\?25[lh]", "", text)
    return [line.rpartition("\r")[2].rstrip() for line in plain.replace("\r\n", "\n").split("\n")]


@pytest.mark.parametrize("rich", [True, False])
def test_several_bars_in_a_terminal(rich: bool) -> None:
    """Each has its title, total and failures; the last line of each stays, and what is printed
    meanwhile; the cursor can be seen at the end.
    """
    with terminal(TWO, rich=rich) as (process, ours):
        text = read(ours)
        assert process.wait(60) == 0
    stay = lines(text)
    for said in (r"first.* 3/3, in ", r"third.* 3, in ", r"\[red\]pages.* 7/8 done, 1 failed, in "):
        assert (
            len([line for line in stay if re.search(said + r"\d+\.\d s(, [\d.,]+/s)?$", line)]) == 1
        )
    assert any(line.endswith("between") for line in stay)
    assert stay[-2:] == ["done", ""]
    assert text.count("\x1b[?25h") >= text.count("\x1b[?25l")
    assert "7/8" in text


@pytest.mark.parametrize("configured", ["", "logging.basicConfig(format='%(message)s')"])
@pytest.mark.parametrize("rich", [True, False])
def test_what_is_logged_has_lines_of_its_own(rich: bool, configured: str) -> None:
    """A log record is not written behind the bar, whoever writes it, and nothing of that is left when
    the bar is over.
    """
    with terminal(LOGGED.replace("{configured}", configured), rich=rich) as (process, ours):
        text = read(ours)
        assert process.wait(60) == 0, text
    stay = lines(text)
    assert [line for line in stay if "said" in line] == ["said by ''", "said by 'mine'"]
    assert len([line for line in stay if "pages" in line]) == 1
    assert any(re.search(r"pages.* 7/8 done, 1 failed, in ", line) for line in stay)


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_terminal_stays_sane(rich: bool, number: signal.Signals) -> None:
    """Interrupted, the bar's last line ends; and even if the process is killed, the cursor can be
    seen and the terminal's modes are what they were.
    """
    script = STUCK
    with terminal(script, rich=rich) as (process, ours):
        before = termios.tcgetattr(ours)
        text = read(ours, until="7/8")
        process.send_signal(number)
        text += read(ours)
        code = process.wait(60)
        assert termios.tcgetattr(ours) == before
    assert code == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert text.rfind("\x1b[?25h") >= text.rfind("\x1b[?25l")
    if number == signal.SIGINT:
        assert any(re.search(r"stuck.*7/8 done, 1 cancelled, in \d", line) for line in lines(text))


@pytest.mark.asyncio
async def test_a_log_that_nobody_reads_breaks_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """If stderr cannot be written to, the results come all the same."""

    class Broken:
        def isatty(self) -> bool:
            return False

        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Broken())
    async with Supervisor() as supervisor:
        assert await supervisor.map(asyncio.sleep, [0, 0]).progress() == [None, None]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((0, None, 0.0), "0"),
        ((0, 5, 9.0), "0/5"),
        ((1200, 5000, 10.0, 3), "1,197/5,000 done, 3 failed, 120/s, 32 s left"),
        ((9, None, 9.0, 1, 2), "6 done, 1 failed, 2 cancelled, 1/s"),
        ((10, 100, 60.0), "10/100, 0.167/s, 9:00 min left"),
        ((1, 1000, 30.0), "1/1,000, 0.0333/s, 8:19 h left"),
    ],
)
def test_how_far_it_is(given: tuple[Any, ...], said: str) -> None:
    """Count, total, what did not end well, rate and the time left, as far as they are known."""
    ended, total, lasted, *missed = given
    assert (
        how_far(ended, total, lasted, **dict(zip(("failed", "cancelled"), missed, strict=False)))
        == said
    )


def test_a_total_that_was_wrong() -> None:
    """More than was announced, as by a sequence that grew, is no reason to fail."""
    assert how_far(6, 5, 2.0, over=True) == "6/5, in 2.0 s, 3/s"
