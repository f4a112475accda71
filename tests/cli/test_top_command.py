"""`asyncworkers top`: frames for people and for programs, and what they say of the rate."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from asyncworkers.cli import top
from asyncworkers.cli.output import span
from asyncworkers.store.clock import ManualClock
from asyncworkers.store.memory import MemoryData, MemoryStore
from asyncworkers.store.protocol import Settlement, Submission, Want, Where


def test_a_single_frame(run, url):
    """For scripts: queues, running jobs, and the end."""
    told = run("top", "--once", "--interval", "0.05", "--store", url)
    assert told.code == 0
    assert url.removeprefix("sqlite:///") in told.lines[0]
    assert told.lines[0].endswith("1 job running, 0 end in a second")
    assert told.lines[2].split()[-2:] == ["OLDEST", "ENDED/S"]
    (web,) = [line for line in told.lines if line.startswith("web ")]
    assert web.split()[:6] == ["web", "open", "1", "1", "1", "0"]
    assert any(line.startswith("runs ") and line.endswith("3 of 9, page") for line in told.lines)


def test_a_frame_as_json(run, url):
    """One object a line, and as always no arguments."""
    told = run("top", "--once", "--interval", "0.05", "--json", "--jobs", "5", "--store", url)
    (frame,) = told.documents()
    assert [one["queue"] for one in frame["queues"]] == ["mail", "web"]
    assert [one["id"] for one in frame["running"]] == ["runs"]
    assert frame["ended_per_second"] == 0
    assert "hunter2" not in told.out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--interval", "0"], "'0' is not a number of seconds from 0.05 to 3600"),
        (["--interval", "nan"], "'nan' is not a number of seconds"),
        (["--jobs", "-1"], "-1 is not in the range"),
    ],
)
def test_wrong_usage_of_top(run, url, arguments, complaint):
    """The option and the value; exit code 2."""
    told = run("top", "--store", url, *arguments)
    assert told.code == 2
    assert complaint in told.err


@pytest.mark.asyncio
async def test_what_has_ended_follows():
    """What was unfinished or came, and is not unfinished now, has ended: also what came meanwhile."""
    store = MemoryStore(MemoryData(ManualClock()))
    await store.open({"f"})
    await store.submit([Submission(f"old-{number}", "q", "f", "[[],{}]") for number in range(5)])
    frames = top.watch(
        store, 0.0, 10, clock=iter([99.0, 100.0, 102.0, 103.0, 104.0, 200.0]).__next__
    )

    async def work(number):
        leases = await store.lease([Want("q", number)])
        await store.settle([Settlement.complete(lease, "1") for lease in leases])

    assert (await anext(frames)).ended == {"q": 0.0}
    await work(2)
    assert (await anext(frames)).ended == {"q": 1.0}  # two, in two seconds
    new = [Submission(f"new-{number}", "q", "f", "[[],{}]") for number in range(10)]
    await store.submit([*new, Submission("other", "p", "g", "[[],{}]")])
    await work(9)
    await store.cancel(Where(queues=("p",)), "{}")
    assert (await anext(frames)).ended == {"p": 1.0, "q": 9.0}
    await work(100)
    await store.purge(Where())
    last = await anext(frames)
    assert last.ended == {"q": 4.0}
    assert [line for line in top.text(last, "store").splitlines() if line.startswith("q ")]
    assert (await anext(frames)).ended == {}  # so late that the store has to hear of us
    await frames.aclose()
    await store.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_a_terminal_it_is_redrawn_until_it_is_left(url):
    """The whole screen, again and again; Ctrl-C leaves, well, and gives the screen back."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "asyncworkers", "top", "--interval", "0.05", "--store", url],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    )
    os.close(theirs)
    try:
        seen = b""
        while seen.count(b"3 of 9, page") < 2:
            seen += os.read(ours, 65_536)
        assert b"\x1b[?1049h" in seen
        process.send_signal(signal.SIGINT)
        while b"\x1b[?1049l" not in seen:
            seen += os.read(ours, 65_536)
        _, complaints = process.communicate(timeout=60)
        assert (process.returncode, complaints) == (0, b"")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (-1, "0.0s"),
        (0.25, "0.2s"),
        (59.9, "59s"),
        (60, "1m"),
        (3_599, "59m 59s"),
        (7_260, "2h 1m"),
        (90_000, "1d 1h"),
        (864_000, "10d"),
    ],
)
def test_lengths_of_time(seconds, shown):
    """The two largest units, rounded down; a clock that went back shows none."""
    assert span(seconds) == shown
