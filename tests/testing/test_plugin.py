"""The pytest plugin, in test runs of its own: marks, fixtures, and silence where unasked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PREAMBLE = """
import asyncio, threading
import pytest, pytest_asyncio
from asyncworkers.testing import EventRecorder, SimLoop, VirtualLoop

def loop():
    return asyncio.get_running_loop()
"""


class Project:
    """A directory with a test file, in which pytest runs in a process of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, tests: str, *, preamble: str = PREAMBLE, **ini: str) -> None:
        self.path.joinpath("test_it.py").write_text(preamble + tests, encoding="utf-8")
        settings = {"asyncio_default_fixture_loop_scope": "function", **ini}
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        self.path.joinpath("pytest.ini").write_text(f"[pytest]\n{lines}", encoding="utf-8")

    def run(self, *options: str) -> tuple[int, str]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
        }
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
            cwd=self.path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def project(tmp_path) -> Project:
    """Make an empty project."""
    return Project(tmp_path)


def test_marks_and_fixtures(project):
    """The mark gives a test and its async fixtures a VirtualLoop; other tests keep their loop."""
    project.write(
        """
@pytest_asyncio.fixture
async def made_on():
    return loop()

@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_marked(made_on, event_recorder):
    assert type(loop()) is VirtualLoop is type(made_on)
    await asyncio.sleep(3600)
    assert loop().time() == 3600
    assert isinstance(event_recorder, EventRecorder)

@pytest.mark.asyncio
async def test_unmarked(made_on):
    assert not isinstance(loop(), VirtualLoop)
    assert made_on is loop()

def test_sim(sim):
    async def main():
        await asyncio.sleep(3600)
        return type(loop())
    results = sim(main, seeds=3)
    assert [(result.seed, result.value) for result in results] == [(n, SimLoop) for n in range(3)]
    assert [result.seed for result in sim(main, seeds=[7, 9], shuffle=0)] == [7, 9]
"""
    )
    code, output = project.run("-v", "-W", "error")
    assert code == 0, output
    assert "test_unmarked PASSED" in output  # the name is as it was without the plugin


def test_loops_of_the_project_are_kept(project):
    """A project that runs its tests on several loops does so still, but for marked ones."""
    project.write(
        """
@pytest.mark.asyncio
async def test_unmarked():
    pass

@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_marked():
    assert type(loop()) is VirtualLoop
"""
    )
    project.path.joinpath("conftest.py").write_text(
        "import asyncio\n"
        "def pytest_asyncio_loop_factories(item):\n"
        "    return {'one': asyncio.new_event_loop, 'two': asyncio.new_event_loop}\n",
        encoding="utf-8",
    )
    code, output = project.run("-v")
    assert code == 0, output
    for name in ("test_unmarked[one]", "test_unmarked[two]", "test_marked PASSED"):
        assert name in output


def test_a_failing_seed_is_named_and_can_be_repeated(project):
    """The failure says with which seed it came; --sim-seed runs that seed alone."""
    project.write(
        """
def test_race(sim):
    seeds = []
    async def main():
        seeds.append(loop().seed)
        assert loop().seed != 5, "the race"
    try:
        sim(main, seeds=100)
    finally:
        print("ran", seeds)
"""
    )
    code, output = project.run()
    assert code == 1, output
    assert "pytest --sim-seed=5" in output
    assert "ran [0, 1, 2, 3, 4, 5]" in output
    code, output = project.run("--sim-seed=5")
    assert code == 1, output
    assert "ran [5]" in output
    code, output = project.run("--sim-seed=6", "-s")
    assert code == 0, output
    assert "ran [6]" in output


LEAKS = """
end = threading.Event()

@pytest.mark.asyncio
async def test_task({fixture}):
    loop().kept = asyncio.create_task(asyncio.sleep(100), name="left behind")

def test_thread({fixture}):
    threading.Thread(target=end.wait, name="also left behind", daemon=True).start()

@pytest.mark.asyncio
async def test_nothing({fixture}):
    await asyncio.to_thread(int)

@pytest.mark.asyncio
@pytest.mark.allow_leaks
async def test_excused({fixture}):
    loop().kept = asyncio.create_task(asyncio.sleep(100))
"""


@pytest.mark.parametrize("everywhere", [True, False])
def test_leaks_fail_the_test_that_leaks(project, everywhere):
    """By the fixture or by the option, a leak fails its test by name; an excused one passes."""
    if everywhere:
        project.write(LEAKS.format(fixture=""), asyncworkers_leak_check="true")
    else:
        project.write(LEAKS.format(fixture="leak_check"))
    code, output = project.run("-v")
    assert code == 1, output
    assert "task left behind (sleep)" in output
    assert "thread 'also left behind' (daemon)" in output
    assert "ERROR test_it.py::test_thread" in output
    assert "FAILED test_it.py::test_task" in output
    assert "test_nothing PASSED" in output
    assert "test_excused PASSED" in output
    assert "1 failed, 3 passed, 1 error" in output


def test_without_being_asked_it_checks_nothing(project):
    """Tests of a project that uses none of this pass as they did, leaks or not."""
    project.write(LEAKS.format(fixture=""), markers="allow_leaks")
    code, output = project.run("-v")
    assert code == 0, output
    assert "4 passed" in output


def test_loops_that_tests_share_are_no_leak(project):
    """A module's loop opens its files in the first test and keeps them, and that is fine."""
    project.write(
        """
pytestmark = pytest.mark.asyncio(loop_scope="module")

async def test_first():
    pass

async def test_second():
    pass
""",
        asyncworkers_leak_check="true",
    )
    code, output = project.run("-v")
    assert code == 0, output
    assert "2 passed" in output


def test_what_the_first_uvloop_of_a_process_opens_is_no_leak(project):
    """There is a pipe that libuv keeps for all its loops, whichever test makes the first of them."""
    project.write(
        """
import uvloop

def test_first():
    uvloop.new_event_loop().close()
""",
        asyncworkers_leak_check="true",
    )
    code, output = project.run("-v")
    assert code == 0, output


def test_it_works_without_pytest_asyncio(project):
    """Nothing of pytest-asyncio is needed or imported: only its tests need it."""
    project.write(
        """
import sys

def test_sim(sim):
    async def main():
        await asyncio.sleep(3600)
    assert sim(main)[0].time == 3600
    assert "pytest_asyncio" not in sys.modules
""",
        preamble="import asyncio\n",
    )
    project.path.joinpath("pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    code, output = project.run("-p", "no:asyncio", "-p", "no:pytest_asyncio", "-W", "error")
    assert code == 0, output


def test_nothing_but_the_plugin_imports_pytest():
    """`import asyncworkers.testing` needs no pytest and starts no heavy library."""
    script = (
        "import json, sys, asyncworkers.testing;"
        "print(json.dumps([name for name in sys.modules if '.' not in name]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(json.loads(done.stdout))
    assert loaded.isdisjoint(
        {"pytest", "_pytest", "pytest_asyncio", "hypothesis", "multiprocessing"}
    )
