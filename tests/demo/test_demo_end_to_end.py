"""The whole demo in processes of its own, as people run it."""

import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = "25"


def demo(output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [sys.executable, "-m", "asyncworkers", "demo", "--output", str(output), *options],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def processes_about(folder: Path) -> list[str]:
    """The command lines of all processes that mention the folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def children(parent: int) -> dict[int, str]:
    """The command lines of all child processes, by their ids."""
    tasks = Path(f"/proc/{parent}/task").iterdir()
    ids = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return {
        child: Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        for child in ids
    }


def shared_memory(processes: list[int]) -> set[str]:
    """The names of the shared memory that the processes have mapped, as the system shows them."""
    lines = [
        line for pid in processes for line in Path(f"/proc/{pid}/maps").read_text().split("\n")
    ]
    names = {line.split(maxsplit=5)[5] for line in lines if line.count("/")}
    return {name for name in names if name.startswith(("/memfd:", "/dev/shm/"))}


@pytest.mark.slow
def test_both_ways_find_the_same(tmp_path):
    """With and without the supervisor: the same pages, the same dead links, the same answers."""
    first = demo(tmp_path, "--pages", PAGES, "--json")
    assert first.returncode == 0, first.stderr
    supervised = json.loads(first.stdout)
    assert supervised["complete"]
    assert len(supervised["pages"]) == int(PAGES) + 1
    assert supervised["findings"]["defects"]["unreachable"] == {}
    second = demo(tmp_path, "--pages", PAGES, "--sequential")
    assert second.returncode == 0, second.stderr
    sequential = json.loads((tmp_path / "sequential.json").read_text())
    for key in ("pages", "conditions"):
        assert supervised[key] == sequential[key]
    assert supervised["findings"]["defects"]["dead"] == sequential["findings"]["defects"]["dead"]
    assert supervised["served"]["200"] == sequential["served"]["200"] == int(PAGES) + 1
    assert "One thing after another → with the supervisor" in second.stdout
    assert (tmp_path / "timeline-supervisor.html").exists()
    assert (tmp_path / "timeline-sequential.html").exists()


@pytest.mark.slow
def test_bad_weather_changes_nothing_but_the_attempts(tmp_path):
    """When every request fails at first, every page arrives all the same."""
    ran = demo(tmp_path, "--pages", "3", "--faults", "1", "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    network = found["findings"]["network"]
    assert len(found["pages"]) == 4
    assert found["findings"]["defects"]["unreachable"] == {}
    assert network["retried"] >= 3 * len(found["pages"])
    assert network["busy"] + network["resets"] + network["timeouts"] == network["retried"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("mode", ["--faults=0.05", "--sequential"])
def test_ctrl_c_tells_what_was_done_and_leaves_no_process(tmp_path, mode):
    """An interrupt ends in the report so far, exit code 130, and no child."""
    command = [sys.executable, "-m", "asyncworkers", "demo", "--output", str(tmp_path), mode]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        greeting = process.stdout.readline()
        assert greeting.startswith("Rendering")
        progress = process.stdout.readline()
        assert "render" in progress
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "Broken off. This is what was done so far." in said
    assert "The timeline" in said
    assert processes_about(tmp_path) == []
    assert not (tmp_path / "supervisor.json").exists()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="keeps handles of processes")
def test_ctrl_c_while_children_analyze_ends_them(tmp_path):
    """An interrupt amid the analysis ends its processes and the server, and tells what was done."""
    # Few requests at once keep the analysis going for several lines of progress.
    options = ["--pages", "120", "--workers", "1", "--processes", "2", "--output", str(tmp_path)]
    command = [sys.executable, "-m", "asyncworkers", "demo", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    handles = []
    try:
        assert process.stdout is not None
        analyzed = re.compile(r"parse [1-9].* compress [1-9]")
        assert any(map(analyzed.search, process.stdout)), "no page was ever analyzed"
        found = children(process.pid)
        handles = [os.pidfd_open(child) for child in found]
        shared = shared_memory([process.pid, *found])
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        ended, _, _ = select.select(handles, [], [], 0)
    finally:
        process.kill()
        process.wait()
        for handle in handles:
            os.close(handle)
    assert any("boot.py" in line for line in found.values()), found
    assert sum("site_child" in line for line in found.values()) == 1, found
    assert len(ended) == len(handles), "a child outlived the demo"
    assert process.returncode == 130
    assert "Broken off. This is what was done so far." in said
    assert "crawled and analyzed" in said
    assert any("memfd:" in name for name in shared), "the children share memory with the demo"
    assert not [name for name in shared if Path(name).exists()]
    assert '"name":"processes"' in (tmp_path / "timeline-supervisor.html").read_text()
    assert not (tmp_path / "supervisor.json").exists()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process by its handle")
def test_the_server_dies_with_its_parent(tmp_path):
    """A parent that is killed cannot close anything; its server ends all the same."""
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from asyncworkers.demo.site import serving\n"
        "async def main():\n"
        "    async with serving(Path(sys.argv[1]), 1, 0.0) as site:\n"
        "        print(site.address, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith("http://127.0.0.1:")
        (child,) = (
            int(file.parent.name)
            for file in Path("/proc").glob("[0-9]*/cmdline")
            if b"site_child" in (line := file.read_bytes()) and str(tmp_path).encode() in line
        )
        handle = os.pidfd_open(child)
    finally:
        parent.kill()
        parent.communicate()
    try:
        ended, _, _ = select.select([handle], [], [], 30)
    finally:
        os.close(handle)
    assert ended, "the server outlived its parent"
