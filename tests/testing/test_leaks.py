"""no_leaks: each kind of thing left behind is reported by name, and what ends in time is not."""

import asyncio
import mmap
import multiprocessing.synchronize
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from multiprocessing import shared_memory

import pytest

from asyncworkers.testing import LeakError, no_leaks

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

# No time to end: what these tests leave behind would not end by itself anyway.
AT_ONCE = 0.05


@pytest.mark.asyncio
async def test_a_task_is_reported_with_its_place():
    """A task that the block started and did not end is named, with its coroutine and line."""

    async def lingers() -> None:
        await asyncio.Event().wait()

    task = None
    with pytest.raises(
        LeakError, match=r"task lingerer .*lingers.* at .*test_leaks.py:.* in lingers"
    ):
        async with no_leaks():
            task = asyncio.create_task(lingers(), name="lingerer")
            await asyncio.sleep(0)
    assert task is not None
    task.cancel()


@pytest.mark.asyncio
async def test_a_task_that_is_about_to_end_is_no_leak():
    """A cancelled task gets the few turns of the loop that it needs, and older tasks are fine."""
    older = asyncio.create_task(asyncio.sleep(100))
    async with no_leaks():
        task = asyncio.create_task(asyncio.sleep(100))
        await asyncio.sleep(0)
        task.cancel()
    older.cancel()


def test_a_thread_is_reported():
    """A thread that goes on is named, and told apart as a daemon."""
    end = threading.Event()
    with pytest.raises(LeakError, match=r"1 leaked:\n- thread 'goes on' \(daemon\)"):
        with no_leaks(grace=AT_ONCE):
            thread = threading.Thread(target=end.wait, name="goes on", daemon=True)
            thread.start()
    end.set()
    thread.join()


def test_a_thread_that_ends_in_time_is_no_leak():
    """The check joins a thread that was told to end and has not quite ended."""
    with no_leaks(grace=30):
        end = threading.Event()
        thread = threading.Thread(target=end.wait)
        thread.start()
        threading.Timer(0.02, end.set).start()


@pytest.mark.asyncio
async def test_a_thread_that_needs_the_loop_to_end_is_no_leak():
    """While the check waits the loop goes on, so a thread that waits for the loop can end."""
    loop = asyncio.get_running_loop()
    async with no_leaks(grace=30):

        def asks_the_loop() -> None:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(30)

        threading.Thread(target=asks_the_loop).start()


@on_linux
def test_a_child_is_reported():
    """A running child is reported with its command line."""
    with pytest.raises(LeakError, match=r"child \d+ \(sleep 100\)"):
        with no_leaks(grace=AT_ONCE):
            child = subprocess.Popen(["sleep", "100"])
    child.kill()
    child.wait()


@on_linux
def test_a_zombie_is_reported():
    """A child that has ended and that nobody waited for is a leak of its own kind."""
    with pytest.raises(LeakError, match=r"child \d+ \(zombie of true\)"):
        with no_leaks(grace=30):
            child = subprocess.Popen(["true"])
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    child.wait()


@on_linux
def test_a_file_is_reported():
    """An open file is reported with its path, a socket with its address."""
    with tempfile.NamedTemporaryFile() as older:
        assert older.name
        with pytest.raises(LeakError, match=r"file \d+: .*leaks"):
            with no_leaks():
                descriptor = os.open(__file__, os.O_RDONLY)
        os.close(descriptor)
        with pytest.raises(LeakError, match=r"socket.* at \('127.0.0.1', \d+\)"):
            with no_leaks():
                bound = socket.socket()
                bound.bind(("127.0.0.1", 0))
        bound.close()


@on_linux
def test_shared_memory_is_reported():
    """A segment is reported while it is mapped and when it was closed but never unlinked."""
    with pytest.raises(LeakError, match=r"(?s)shared memory /dev/shm/.*, still mapped"):
        with no_leaks():
            segment = shared_memory.SharedMemory(create=True, size=10)
    segment.close()
    segment.unlink()
    with pytest.raises(LeakError, match=r"1 leaked:\n- shared memory /dev/shm/"):
        with no_leaks(grace=AT_ONCE):
            segment = shared_memory.SharedMemory(create=True, size=10)
            segment.close()
    segment.unlink()


@on_linux
def test_shared_memory_may_be_removed_by_another(monkeypatch: pytest.MonkeyPatch):
    """The check waits for who removes memory: so it goes with what a killed process had."""
    path = f"/dev/shm/leaks-{os.getpid()}"
    monkeypatch.setattr(time, "sleep", lambda _: os.unlink(path))  # noqa: PTH108
    with no_leaks():
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    assert not os.path.exists(path)  # noqa: PTH110


@on_linux
def test_mapped_memory_without_a_file_is_reported():
    """A memfd that stays mapped after its descriptor was closed is found among the mappings."""
    with pytest.raises(LeakError, match="1 leaked:\n- shared memory /memfd:arena"):
        with no_leaks():
            mapping = mapped_memfd()
    unmap(mapping)


@on_linux
def test_mapped_memory_of_a_name_that_others_have_is_reported():
    """Nor does it help it that another process has memory of that name, or that some was there before."""
    before = mapped_memfd()
    script = (
        "import mmap, os, sys; file = os.memfd_create('arena'); os.ftruncate(file, 4096);"
        "made = mmap.mmap(file, 4096); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "\n"
        with pytest.raises(LeakError, match="1 leaked:\n- shared memory /memfd:arena"):
            with no_leaks():
                mapping = mapped_memfd()
        other.stdin.close()
    unmap(mapping)
    unmap(before)


def mapped_memfd() -> int:
    """The address of memory whose file has no descriptor any more."""
    descriptor = os.memfd_create("arena")
    os.ftruncate(descriptor, 4096)
    # A mapping keeps a duplicate of the descriptor of its own, unless told not to.
    mapping = map_without_descriptor(descriptor)
    os.close(descriptor)
    return mapping


def map_without_descriptor(descriptor: int) -> int:
    """Map a page by the C library itself, as extension modules do."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_long,
    )
    return libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)


def unmap(address: int) -> None:
    """Undo `map_without_descriptor`."""
    import ctypes

    libc = ctypes.CDLL(None)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.munmap(address, 4096)


@on_linux
@pytest.mark.parametrize(
    ("name", "made", "removed"),
    [
        ("psm_", "shared_memory.SharedMemory(create=True, size=10)", "made.close(); made.unlink()"),
        ("sem.mp-", "get_context('spawn').Lock()", "del made"),
    ],
)
def test_shared_memory_of_other_processes_is_none_of_ours(name: str, made: str, removed: str):
    """A segment or a semaphore that another process has mapped is not reported: test runs go on
    side by side.
    """
    assert multiprocessing.synchronize  # imported: else no semaphore can be ours
    script = (
        "import os, sys; from multiprocessing import get_context, shared_memory;"
        f"made = {made}; print(*os.listdir('/dev/shm'), flush=True);"
        f"sys.stdin.read(); {removed}"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        other_stdin, other_stdout = other.stdin, other.stdout
        assert other_stdin is not None
        assert other_stdout is not None
        with no_leaks(ignore=["child *", "file *"]):
            # The other process lives on purpose; only its memory is at question.
            assert name in other_stdout.readline()
        other_stdin.close()


@on_linux
def test_a_directory_is_no_shared_memory():
    """A directory where shared memory lies is somebody's use of that place as a fast disk."""
    with no_leaks():
        made = tempfile.mkdtemp(dir="/dev/shm")
    os.rmdir(made)  # noqa: PTH106


def test_warnings_about_leaks_are_reported():
    """An unclosed file and a coroutine never awaited are reported with their place."""

    async def never_awaited() -> None:
        """Nothing: it is the call that is wrong."""

    with pytest.raises(LeakError, match=r"warning unclosed file.*test_leaks.py"):
        with no_leaks():
            open(__file__)  # noqa: PTH123, SIM115  # that it is not closed is the point
    with pytest.raises(LeakError, match=r"never_awaited.* was never awaited"):
        with no_leaks():
            never_awaited()


def test_other_warnings_pass():
    """A warning that tells of no leak reaches whoever listens for warnings outside."""
    with warnings.catch_warnings(record=True) as outside:
        warnings.simplefilter("always")
        with no_leaks():
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert [str(each.message) for each in outside] == ["old"]


def test_an_error_of_the_block_comes_first():
    """If the block raises, that is what is raised, however much it has leaked."""
    end = threading.Event()
    with pytest.raises(KeyError):
        with no_leaks():
            threading.Thread(target=end.wait).start()
            raise KeyError("the reason")
    end.set()


def test_what_is_to_be_ignored_is_ignored():
    """Patterns match the descriptions in the message."""
    end = threading.Event()
    with no_leaks(ignore=["thread 'kept*"], grace=AT_ONCE):
        threading.Thread(target=end.wait, name="kept 1").start()
    end.set()


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_the_loops_default_executor_is_not_the_blocks():
    """Threads that asyncio keeps for the next to_thread are no leak of the block."""
    async with no_leaks(grace=AT_ONCE):
        await asyncio.to_thread(int)


@pytest.mark.asyncio
async def test_kinds_can_be_left_out():
    """`tasks=False` and `resources=False` look away from tasks and from everything else."""
    end = threading.Event()
    async with no_leaks(tasks=False):
        task = asyncio.create_task(asyncio.sleep(100))
    task.cancel()
    async with no_leaks(resources=False):
        threading.Thread(target=end.wait).start()
    end.set()
