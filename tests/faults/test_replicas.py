"""`asyncworkers run`, alone and with replicas: real processes, real signals, real deaths."""

import os
import re
import signal
import sys
from contextlib import contextmanager

import pytest
from children import child

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are told by signals"),
]

APP = """\
import asyncio
import os
import re
import time

from asyncworkers import Supervisor


def say(*words):  # in one go: several processes write to one pipe
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


async def rests():
    pass


async def ends():
    while supervisor.state == "open":
        await asyncio.sleep(0.01)
    say("done")


async def slow():
    while supervisor.state == "open":
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)  # whatever else is to come has come by then
    say("done")


async def never():
    try:
        await asyncio.Event().wait()
    finally:
        say("cancelled")


async def stuck():
    say("stuck")
    time.sleep(1_000)


async def holds_the_gil():
    while supervisor.state == "open":
        await asyncio.sleep(0.01)
    say("stuck")
    re.match("(a+)+$", "a" * 60 + "b")


def listener(event):
    if type(event).__name__ == "SupervisorStarted":
        asyncio.get_running_loop().create_task(begin())
    elif type(event).__name__ == "SupervisorDraining":
        say("draining", os.getpid())
    elif type(event).__name__ == "SupervisorClosed":
        say("closed", os.getpid())


async def begin():
    await supervisor.submit(globals()[os.environ["JOB"]])
    say("ready", os.getpid(), "as", os.environ.get("ASYNCWORKERS_REPLICA"))


supervisor = Supervisor(listeners=[listener], grace=60, stall=None)

if os.environ["JOB"] == "crash":
    os._exit(3)
"""


@pytest.fixture
def running(tmp_path):
    """Run a supervisor whose first job is this; gives the process."""
    (tmp_path / "served.py").write_text(APP)

    @contextmanager
    def start(job, *options, loop="asyncio", target="served:supervisor", before=()):
        arguments = ["run", target, "--directory", str(tmp_path), *options]
        script = f"import sys\nfrom asyncworkers.cli import main\nsys.exit(main({arguments!r}))"
        with child(script, loop, before=before, preamble="", JOB=job) as process:
            yield process

    return start


def ready(process, number):
    """Wait until so many replicas are ready; return their process ids by their number."""
    found = {}
    for _ in range(number):
        line = process.expect("ready")
        pid, name = re.fullmatch(r"ready (\d+) as (\d+)", line).groups()
        found[int(name)] = int(pid)
    return found


LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
ENDINGS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


# ---- one process


@LOOPS
@ENDINGS
def test_a_signal_drains(running, loop, number):
    """What runs comes to its end, and the exit code is 0."""
    with running("ends", loop=loop) as process:
        process.expect("ready")
        process.tell(number)
        process.expect("done")
        assert process.ends() == 0


def test_the_grace_is_that_of_the_command_line(running):
    """Not the supervisor's own, which would be a minute here; jobs that are cancelled are told of."""
    with running("never", "--grace", "0.1") as process:
        process.expect("ready")
        process.tell(signal.SIGTERM)
        process.expect("cancelled")
        assert process.ends() == 128 + signal.SIGTERM


@LOOPS
@ENDINGS
def test_a_second_signal_cancels(running, loop, number):
    """It need not wait for the grace."""
    with running("never", "--grace", "600", loop=loop) as process:
        process.expect("ready")
        process.tell(number)
        process.expect("draining")
        process.tell(number)
        process.expect("cancelled")
        assert process.ends() == 128 + number


@LOOPS
def test_a_stuck_loop_ends_soon_after_its_grace(running, loop):
    """One signal is enough, as service managers send it; where it is stuck is said."""
    with running("stuck", "--grace", "0.1", loop=loop) as process:
        process.expect("stuck")
        process.tell(signal.SIGTERM)
        assert process.ends() == 128 + signal.SIGTERM
        assert "the grace is over; the process ends now" in process.output
        assert "in stuck" in process.output


def test_a_held_gil_ends_soon_after_its_grace(running):
    """No thread of Python can run then, but a clock that needs none ends the process, with 1."""
    with running("holds_the_gil", "--grace", "0.1") as process:
        process.expect("ready")
        process.tell(signal.SIGTERM)
        process.expect("stuck")
        assert process.ends() == 1
        assert "in holds_the_gil" in process.output


# ---- replicas


def test_replicas_are_numbered_and_drain(running):
    """Each is told once, and ends as it would alone; then so does the command."""
    with running("ends", "--replicas", "2") as process:
        assert sorted(ready(process, 2)) == [1, 2]
        process.tell(signal.SIGTERM)
        process.expect("done")
        process.expect("done")
        assert process.ends() == 0
        assert process.output.count("once more cancels") == 2


def test_ctrl_c_reaches_each_replica_once(running):
    """The terminal tells its whole process group, which replicas are no part of: a second signal
    would cancel their jobs.
    """
    with running("slow", "--replicas", "2", before=["setsid"]) as process:
        ready(process, 2)
        os.killpg(process.process.pid, signal.SIGINT)
        process.expect("done")
        process.expect("done")
        assert process.ends() == 0
        assert process.output.count("once more cancels") == 2


def test_a_killed_replica_is_replaced(running):
    """By one with its number; the other goes on."""
    with running("rests", "--replicas", "2") as process:
        first = ready(process, 2)
        os.kill(first[2], signal.SIGKILL)
        assert f"replica 2, process {first[2]}, was ended by SIGKILL" in process.expect("SIGKILL")
        again = ready(process, 1)
        assert list(again) == [2]
        assert again[2] != first[2]
        process.tell(signal.SIGTERM)
        ended = {int(process.expect("closed").split()[1]) for _ in range(2)}
        assert ended == {first[1], again[2]}
        assert process.ends() == 0


def test_a_replica_that_is_told_to_end_is_replaced(running):
    """Restarting them one by one is to tell each in turn: it drains, and another comes."""
    with running("ends", "--replicas", "1") as process:
        (first,) = ready(process, 1).values()
        os.kill(first, signal.SIGTERM)
        process.expect("done")
        process.expect(f"replica 1, process {first}, ended with 0")
        (second,) = ready(process, 1).values()
        assert second != first
        process.tell(signal.SIGINT)
        process.expect("done")
        assert process.ends() == 0


@ENDINGS
def test_a_second_signal_cancels_in_all_replicas(running, number):
    """As alone: the jobs are cancelled, and the exit code says so."""
    with running("never", "--replicas", "2", "--grace", "600") as process:
        ready(process, 2)
        process.tell(number)
        for _ in range(2):
            process.expect("draining ")
        process.tell(number)
        for _ in range(2):
            process.expect("cancelled")
        assert process.ends() == 128 + number


def test_a_third_signal_ends_what_cannot_hear(running):
    """A replica that is frozen does not drain and is not cancelled; it can be killed."""
    with running("never", "--replicas", "2", "--grace", "600") as process:
        os.kill(ready(process, 2)[1], signal.SIGSTOP)
        process.tell(signal.SIGTERM)
        process.expect("draining ")  # else two signals of a kind may become one
        process.tell(signal.SIGTERM)
        process.expect("cancelled")
        process.tell(signal.SIGTERM)
        assert process.ends() == 128 + signal.SIGTERM
        assert "was ended by SIGKILL" in process.output


def test_replicas_end_with_their_parent(running):
    """Killed, it can tell them nothing: the kernel does, and they drain. Nobody holds the pipe then."""
    with running("ends", "--replicas", "2") as process:
        replicas = ready(process, 2)
        process.tell(signal.SIGKILL)
        for _ in range(2):
            process.expect("done")
        assert process.ends() == -signal.SIGKILL
        for pid in replicas.values():
            assert f"closed {pid}" in process.output


def test_replicas_that_keep_ending_end_it_all(running):
    """More often than `--restarts` in a minute, and it gives up with exit code 1."""
    with running("crash", "--replicas", "1", "--restarts", "1") as process:
        assert process.ends() == 1
        assert process.output.count("ended with 3") == 2
        assert "ended 2 times in a minute: giving up" in process.output


def test_what_cannot_be_started_is_not_started_again(running):
    """A wrong command line does not get better: the replica's complaint, and its exit code."""
    with running("rests", "--replicas", "2", target="served:nothing") as process:
        assert process.ends() == 2
        assert "'served' has no supervisor 'nothing'. It has 'supervisor'." in process.output


# ---- wrong usage


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("served", "'served' is not of the form module:supervisor"),
        ("served:", "is not of the form"),
        (":supervisor", "is not of the form"),
        ("served.py:supervisor", "there is no module 'served.py'"),
        ("nowhere:supervisor", "there is no module 'nowhere'"),
        ("served.deeper:supervisor", "there is no module 'served.deeper'"),
        ("served:supervisors", "'served' has no supervisor 'supervisors'. It has 'supervisor'."),
        ("served:say", "'served:say' is no Supervisor but of type 'function'"),
        ("broken:supervisor", "'broken' cannot be imported: it raised ZeroDivisionError"),
        ("lacking:supervisor", "'lacking' cannot be imported: it needs 'no_such_library'"),
        ("typo:supervisor", "'typo' cannot be imported: it raised SyntaxError"),
    ],
)
def test_a_target_that_is_none(running, tmp_path, target, complaint):
    """Which part of it is wrong; a module's own trouble comes with its traceback, from its code on."""
    (tmp_path / "broken.py").write_text("def fail():\n    1 / 0\n\nfail()\n")
    (tmp_path / "lacking.py").write_text("import no_such_library\n")
    (tmp_path / "typo.py").write_text("supervisor = = 3\n")
    with running("rests", target=target) as process:
        assert process.ends() == 2
        assert complaint in " ".join(process.output.split())
        assert "importlib" not in process.output
        if target.startswith("broken"):
            assert "in fail\n    1 / 0" in process.output


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--replicas", "0"], "0 is not in the range"),
        (["--replicas", "many"], "'many' is not a valid integer"),
        (["--grace", "-1"], "'-1' is not a number of seconds from 0 to 86400"),
        (["--grace", "nan"], "'nan' is not a number of seconds"),
        (["--restarts", "-1"], "-1 is not in the range"),
        (["--directory", "/no/such/folder"], "does not exist"),
        (["--log-level", "loud"], "'loud' is not one of"),
    ],
)
def test_wrong_options(running, options, complaint):
    """The option, the value and what is accepted; exit code 2."""
    with running("rests", *options) as process:
        assert process.ends() == 2
        assert complaint in " ".join(process.output.split())


def test_a_supervisor_that_fails_is_an_exit_code(running, tmp_path):
    """What is raised when it is entered is told in a line; the exit code is 1."""
    (tmp_path / "failing.py").write_text(
        "from asyncworkers import Supervisor, SupervisorFailed\n"
        "class Failing(Supervisor):\n"
        "    async def __aenter__(self):\n"
        "        raise SupervisorFailed('the well is dry')\n"
        "supervisor = Failing()\n"
    )
    with running("rests", target="failing:supervisor") as process:
        assert process.ends() == 1
        assert "asyncworkers: the well is dry\n" in process.output
        assert "Traceback" not in process.output
