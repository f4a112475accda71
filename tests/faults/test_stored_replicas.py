"""Two replicas and a third process on one store: what is submitted is done, whoever dies."""

import os
import re
import signal
import subprocess
import sys

import pytest
from children import child

from asyncworkers.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are told by signals"),
]

APP = """\
import asyncio
import os
from pathlib import Path

from asyncworkers import Supervisor, current_job, job

HERE = Path(__file__).parent


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


@job
async def double(number: int) -> int:
    say("began", number, "in", os.getpid())
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    return 2 * number


@job
async def never() -> None:
    say("waits in", os.getpid())
    await asyncio.Event().wait()


supervisor = Supervisor(workers=3, store=f"sqlite:///{HERE}/jobs.db", functions=[double, never])
"""

CLIENT = """\
    sys.path.insert(0, {folder!r})
    from app import HERE, double, never

    async def main():
        store = f"sqlite:///{{HERE}}/jobs.db"
        async with Supervisor(workers=0, store=store, functions=[double, never]) as supervisor:
            waiting = await supervisor.submit(never)
            jobs = await supervisor.submit_many(double, range(20))
            say("submitted", waiting.id)
            try:
                await waiting
            except JobCancelled as error:
                say("was cancelled:", error)
            say("results", *[await job for job in jobs])

    asyncio.run(main())
"""


def test_what_a_third_process_submits_is_done(tmp_path, capfd):
    """It submits and awaits; one replica is killed meanwhile, and the command line cancels a job."""
    (tmp_path / "app.py").write_text(APP)
    url = f"sqlite:///{tmp_path}/jobs.db"
    arguments = ["run", "app:supervisor", "--directory", str(tmp_path), "--replicas", "2"]
    script = f"import sys\nfrom asyncworkers.cli import main\nsys.exit(main({arguments!r}))"
    with child(script, preamble="") as replicas:
        pids = {
            int(re.search(r"runs in process (\d+)", replicas.expect("runs in process"))[1])
            for _ in range(2)
        }
        with child(CLIENT.format(folder=str(tmp_path))) as client:
            waiting = client.expect("submitted").split()[1]
            victim = int(replicas.expect("began").split()[-1])
            assert victim in pids
            os.kill(victim, signal.SIGKILL)
            replicas.expect(f"process {victim}, was ended by SIGKILL")
            assert main(["jobs", "cancel", waiting, "--store", url]) == 0
            client.expect("was cancelled:")
            (tmp_path / "go").touch()
            results = client.expect("results").split()[1:]
            assert results == [str(2 * number) for number in range(20)]
            assert client.ends() == 0
        replicas.tell(signal.SIGTERM)
        assert replicas.ends() == 0
    assert main(["store", "check", "--store", url]) == 0
    assert "jobs     20 succeeded, 1 cancelled" in capfd.readouterr().out
    again = [sys.executable, "-m", "asyncworkers", "jobs", "list", "--json", "--store", url]
    assert subprocess.run(again, capture_output=True, check=True).stdout.count(b"\n") == 21
