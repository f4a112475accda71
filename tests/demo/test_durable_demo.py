"""The demo with a store, killed in the middle and started again."""

import contextlib
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from asyncworkers.demo.durable import progress
from asyncworkers.demo.records import DemoFailed, Settings


def command(folder, *options):
    """Return the command line of a small run, of few requests at once."""
    store, output = folder / "demo #1 %20.db", folder / "output"
    small = ("--pages", "40", "--workers", "3", "--store", str(store), "--output", str(output))
    return [sys.executable, "-m", "asyncworkers", "demo", *small, *options]


def visited(folder):
    """Return how many addresses the file has."""
    with contextlib.suppress(sqlite3.OperationalError):
        with contextlib.closing(sqlite3.connect(folder / "demo #1 %20.db")) as connection:
            return connection.execute("SELECT count(*) FROM demo_visited").fetchone()[0]
    return 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_and_started_again_it_goes_on(tmp_path):
    """It says where it goes on, visits what is left, and has each address once at the end."""
    first = subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL)
    try:
        while visited(tmp_path) < 10:
            assert first.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    done = visited(tmp_path)
    second = subprocess.run(
        command(tmp_path), capture_output=True, text=True, timeout=100, check=False
    )
    assert second.returncode == 0, second.stderr
    assert f"and {done} addresses visited before" in second.stdout
    assert visited(tmp_path) > done
    assert (
        f"has all {visited(tmp_path)} addresses, each once; of those linked to, 0 are missing"
        in (second.stdout)
    )
    third = subprocess.run(
        command(tmp_path), capture_output=True, text=True, timeout=100, check=False
    )
    assert third.returncode == 0, third.stderr
    assert f"all {visited(tmp_path)} addresses were visited before" in third.stdout


@pytest.mark.slow
def test_ctrl_c_keeps_the_rest_in_the_store(tmp_path):
    """An interrupt says that the run can be gone on with."""
    process = subprocess.Popen(command(tmp_path), stdout=subprocess.PIPE, text=True)
    try:
        while visited(tmp_path) < 5:
            assert process.poll() is None, "it ended before it could be interrupted"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "keeps the rest: start it again with the same options" in said


def test_a_store_of_another_run_is_refused(tmp_path):
    """Other options mean other work: the file is left as it is."""
    store = tmp_path / "demo #1 %20.db"
    assert progress(Settings(tmp_path, pages=1), store) is None
    assert str(progress(Settings(tmp_path, pages=1), store)).startswith("0 modules rendered")
    with pytest.raises(DemoFailed, match="run with other options"):
        progress(Settings(tmp_path, pages=2), store)
    store.write_text("no database")
    with pytest.raises(DemoFailed, match="cannot be used"):
        progress(Settings(tmp_path, pages=1), store)
