"""First on the host: one of several processes does what only one should, whoever dies."""

import os
import signal
import stat
import sys
from pathlib import Path

import pytest
from children import child
from servers import serving

from asyncworkers.host import first_on_host

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs the file locks of POSIX")

HOLDER = """
    from asyncworkers.host import first_on_host
    with first_on_host("warm-up", {folder!r}) as first:
        say(first)
        sys.stdin.read()
        {then}
        time.sleep(60)
"""


def test_one_process_is_first_and_its_death_makes_way(tmp_path: Path) -> None:
    """While a process is first no other is; when it is killed the next that comes is first."""
    script = HOLDER.format(folder=str(tmp_path), then="")
    with child(script) as one, child(script) as other:
        said = {one.expect("e"), other.expect("e")}
        assert said == {"True", "False"}
        holder, loser = (one, other) if one.output == "True\n" else (other, one)
        with first_on_host("warm-up", tmp_path) as first:
            assert not first
        loser.tell(signal.SIGKILL)
        loser.ends()
        with first_on_host("warm-up", tmp_path) as first:
            assert not first, "somebody else's end lets go of nothing"
        holder.tell(signal.SIGKILL)
        holder.ends()
        with first_on_host("warm-up", tmp_path) as first:
            assert first


def test_one_process_comes_twice(tmp_path: Path) -> None:
    """Within a process it is the same: the second is not first, and takes nothing from the first."""
    with first_on_host("warm-up", tmp_path) as first:
        with (
            first_on_host("warm-up", tmp_path) as second,
            first_on_host("other", tmp_path) as other,
        ):
            assert (first, second, other) == (True, False, True)
        with child(HOLDER.format(folder=str(tmp_path), then="")) as one:
            assert one.expect("e") == "False"
    with first_on_host("warm-up", tmp_path) as first:
        assert first


def test_a_forked_child_is_another_process(tmp_path: Path) -> None:
    """A child that was forked inside is not first, and its end takes nothing from its parent."""
    script = f"""
        from asyncworkers.host import first_on_host
        with first_on_host("warm-up", {str(tmp_path)!r}) as first:
            child = os.fork()
            if not child:
                with first_on_host("warm-up", {str(tmp_path)!r}) as second:
                    say("child", second)
                raise SystemExit
            os.waitpid(child, 0)
            say("parent", first)
            sys.stdin.read()
            time.sleep(60)
    """
    with child(script) as one:
        one.expect("child False")
        one.expect("parent True")
        with first_on_host("warm-up", tmp_path) as first:
            assert not first


def test_the_usual_directory_is_this_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made among the temporary files with nobody else's rights; what others could write to, or
    have put there, is refused.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    usual = tmp_path / f"asyncworkers-{os.getuid()}"
    with first_on_host("warm-up") as first:
        assert first
    assert stat.S_IMODE(usual.stat().st_mode) == 0o700
    usual.chmod(0o777)
    with pytest.raises(PermissionError, match="nobody else may write to"), first_on_host("warm-up"):
        pass
    moved = usual.rename(tmp_path / "elsewhere")
    moved.chmod(0o700)
    usual.symlink_to(moved)
    with pytest.raises(PermissionError, match="nobody else may write to"), first_on_host("warm-up"):
        pass


@pytest.mark.parametrize("name", ["", "Warm Up", "../up", 5, None])
def test_senseless_names_are_refused(name: object, tmp_path: Path) -> None:
    """A name is part of a file's name, so it is checked."""
    with pytest.raises((TypeError, ValueError), match="name must"), first_on_host(name, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


APP = """\
import os
from contextlib import asynccontextmanager
from asyncworkers import Supervisor, current_job, job
from asyncworkers.host import first_on_host
from starlette.applications import Starlette

def say(*words):  # in one go: several processes write to one pipe
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

async def warm_up():
    say("warm", os.getpid())

@job(name="refresh", keep=3600)
async def refresh():
    say("refreshed by", os.getpid())

supervisor = Supervisor(store="sqlite:///jobs.db", functions=[refresh])
in_memory = Supervisor()

@asynccontextmanager
async def lifespan(app):
    async with in_memory.lifespan(app), supervisor.lifespan(app) as state:
        with first_on_host("warm-up", os.getcwd()) as first:
            if first:
                await in_memory.submit(warm_up)
            refreshed = await supervisor.submit(refresh.bind().with_id("refresh-of-release-7"))
            await refreshed.wait()
            say("started", os.getpid())
            yield state

app = Starlette(lifespan=lifespan)
"""


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_start_up_jobs_run_once_however_many_workers_there_are(tmp_path: Path, loop: str) -> None:
    """Two uvicorn workers: the job that is held by a lock runs once on this host, the stored one with an
    id of its own once in this store. When the worker that was first is killed, its successor is the first,
    and the stored job is not run again.
    """
    with serving(APP, tmp_path, "uvicorn", loop, 2) as server:
        said = server.process.output
        assert said.count("warm ") == said.count("refreshed by ") == 1, said
        first = int(said.partition("warm ")[2].split()[0])
        os.kill(first, signal.SIGKILL)
        server.process.expect("started")
        said = server.process.output
        assert (said.count("warm "), said.count("refreshed by ")) == (2, 1), said
        server.process.tell(signal.SIGTERM)
        server.process.ends()
