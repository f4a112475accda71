"""The arena, with both sides in one process where that is enough and with a real child elsewhere."""

import contextlib
import gc
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arena_peer import Gone, peer
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from asyncworkers.bridge.child import arena
from asyncworkers.bridge.child.arena import PAGE, SLOTS, STEP, Memory
from asyncworkers.bridge.child.freight import BIG, finish, open_steps, pack, ship_steps, unpack
from asyncworkers.testing import no_leaks

MIB = 1 << 20

OTHERS = ("shared memory /dev/shm/*",)
"""The arena has no name there: what has one is other people's."""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs memfd and /proc")


@pytest.fixture(autouse=True)
def nothing_left():
    """No descriptor, map, process or file in /dev/shm outlives a test."""
    with no_leaks(ignore=OTHERS):
        yield
        gc.collect()


@contextlib.contextmanager
def sides(limit: int = 64 * MIB):
    """Both sides of one memory, in this process."""
    ours = Memory.create(limit)
    theirs = Memory.attach(ours.fd)
    try:
        yield ours, theirs
    finally:
        theirs.writer.close()
        theirs.looker.close()
        ours.close()


def put(writer: Any, data: "bytes | memoryview") -> Any:
    """A block with this data in it."""
    block = writer.allocate(len(data))
    assert block is not None
    for _ in writer.copy_steps(block, memoryview(data)):
        pass
    return block


def maps() -> list[str]:
    """The shared memories that this process has mapped."""
    return [
        x for x in Path("/proc/self/maps").read_text().splitlines() if "memfd:asyncworkers" in x
    ]


def lies_in_an_arena(array: np.ndarray) -> bool:
    """True if the array's data are in mapped shared memory, not in a copy of it."""
    at = array.__array_interface__["data"][0]
    spans = [[int(x, 16) for x in line.split()[0].split("-")] for line in maps()]
    return any(start <= at < end for start, end in spans)


# ---- both sides in one process


class ArenaModel(RuleBasedStateMachine):
    """Blocks come and go in any order, looked at through slices and arrays that outlive each other."""

    blocks = Bundle("blocks")
    views = Bundle("views")

    def __init__(self) -> None:
        super().__init__()
        self.exit = contextlib.ExitStack()
        self.ours, self.theirs = self.exit.enter_context(sides(32 * PAGE))
        self.number = 0
        self.seen: list[tuple[Any, int]] = []

    @rule(target=blocks, size=st.integers(1, 9 * PAGE))
    def write(self, size: int):
        self.number = self.number % 250 + 1
        block = self.ours.writer.allocate(size)
        if block is None:
            return multiple()
        assert block.at % 64 == 0
        for _ in self.ours.writer.copy_steps(block, memoryview(bytes([self.number]) * size)):
            pass
        return block, self.number

    @rule(target=views, one=consumes(blocks))
    def look(self, one: Any):
        block, number = one
        view = self.theirs.looker.look(block.slot, block.at, block.nbytes)
        self.seen.append((view, number))
        return len(self.seen) - 1

    @rule(one=consumes(blocks))
    def never_looked_at(self, one: Any) -> None:
        self.theirs.looker.give_back(one[0].slot)

    @rule(one=consumes(blocks))
    def never_told_of(self, one: Any) -> None:
        self.ours.writer.take_back(one[0])

    @rule(target=views, one=views, how=st.sampled_from(["slice", "array", "cast"]))
    def look_from_there(self, one: int, how: str):
        view, number = self.seen[one]
        if view is None:
            return multiple()
        if how == "array":
            self.seen.append((np.frombuffer(view, "u1")[::-1][:5], number))
            return multiple()
        self.seen.append(
            (view[len(view) // 2 :] if how == "slice" else view.cast("b").cast("B"), number)
        )
        return len(self.seen) - 1

    @rule(one=consumes(views))
    def look_away(self, one: int) -> None:
        self.seen[one] = (None, 0)

    @rule(everything=st.booleans())
    def poll(self, everything: bool) -> None:
        self.theirs.looker.poll(everything=everything)

    @rule()
    def trim(self) -> None:
        for _ in self.ours.writer.trim_steps():
            pass

    @invariant()
    def what_is_looked_at_is_as_it_was(self) -> None:
        """However much was written since, each view shows what it showed at first."""
        for view, number in self.seen:
            if view is not None:
                assert set(bytes(view)) <= {number}

    def teardown(self) -> None:
        self.seen.clear()
        self.theirs.looker.poll(everything=True)
        assert self.theirs.looker.looked_at == 0
        self.exit.close()


ArenaModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestArena = ArenaModel.TestCase


LAST_LOOKS = {
    "view": lambda view: view,
    "slice": lambda view: view[10:20],
    "cast": lambda view: view.cast("Q"),
    "array": lambda view: np.frombuffer(view, "u1"),
    "part of an array": lambda view: np.frombuffer(view, "u1").reshape(64, -1)[3:, ::2],
    "read-only": lambda view: view.toreadonly(),
    "buffer": lambda view: memoryview(pickle.PickleBuffer(view)),
}


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("look", LAST_LOOKS.values(), ids=LAST_LOOKS)
def test_a_block_is_back_when_its_last_export_is_dead(look, released) -> None:
    """Whatever was made of a view pins the block, also when the view itself is gone or released."""
    with sides() as (ours, theirs):
        block = put(ours.writer, b"x" * BIG)
        view = theirs.looker.look(block.slot, block.at, block.nbytes)
        last = look(view)
        if released and last is not view:
            with contextlib.suppress(BufferError):  # exported directly: it stays as it is
                view.release()
        del view
        assert theirs.looker.poll() == 1
        ours.writer.collect()
        assert ours.writer.out == 1
        del last
        assert theirs.looker.poll() == 0
        ours.writer.collect()
        assert ours.writer.out == 0


def test_a_finalizer_in_a_cycle_may_still_look() -> None:
    """Garbage that saves its view when it is collected keeps the block; a weak reference would not."""

    class Saves:
        def __init__(self, view: memoryview) -> None:
            self.view, self.me = view, self

        def __del__(self) -> None:
            saved.append(self.view)

    saved: list[memoryview] = []
    with sides() as (ours, theirs):
        block = put(ours.writer, b"x" * BIG)
        Saves(theirs.looker.look(block.slot, block.at, block.nbytes))
        gc.collect()
        assert theirs.looker.poll() == 1
        assert bytes(saved[0][:1]) == b"x"
        saved.clear()
        gc.collect()
        assert theirs.looker.poll() == 0


def in_a_process_of_its_own(script: str) -> str:
    """What a script says that may end its process or its limits."""
    preamble = "from asyncworkers.bridge.child.arena import *\nfrom asyncworkers.bridge.child.freight import *\n"
    done = subprocess.run(
        [sys.executable, "-c", preamble + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("collected", [False, True])
def test_views_in_cycles_are_collected_without_a_crash(closed, collected) -> None:
    """A memoryview in garbage together with its looker, or left so at exit, crashes no Python."""
    in_a_process_of_its_own(f"""
        import gc

        class Knot:
            pass

        for _ in range(20):
            ours = Memory.create(1 << 20)
            block = ours.writer.allocate(1 << 16)
            knot = Knot()
            knot.me, knot.ours = knot, ours
            knot.view = ours.looker.look(0, 0, 1 << 16)
            if {closed}:
                ours.close()
            del knot, ours
        if {collected}:
            gc.collect()
    """)


def test_room_and_slots_run_out_and_come_back() -> None:
    """A full arena says so by None, not by an exception, and has room again once blocks are back."""
    with sides(8 * MIB) as (ours, theirs):
        writer = ours.writer
        blocks = [writer.allocate(2 * MIB) for _ in range(4)]
        assert writer.allocate(1) is None
        assert writer.allocate(9 * MIB) is None
        theirs.looker.give_back(blocks[2].slot)
        assert writer.allocate(2 * MIB).at == 4 * MIB
        for block in blocks[:2]:
            theirs.looker.give_back(block.slot)
        assert writer.allocate(4 * MIB).at == 0
    with sides(8 * MIB) as (ours, _):
        blocks = [ours.writer.allocate(1) for _ in range(SLOTS)]
        assert all(blocks)
        assert ours.writer.allocate(1) is None
        ours.writer.take_back(blocks[7])
        assert ours.writer.allocate(1).at == blocks[7].at


def test_many_views_are_polled_in_turn() -> None:
    """One poll tries few of many views, and several polls try them all."""
    with sides(8 * MIB) as (ours, theirs):
        views = []
        for _ in range(3 * arena.POLLED):
            block = put(ours.writer, b"x")
            views.append(theirs.looker.look(block.slot, block.at, 1))
        assert theirs.looker.poll() == 3 * arena.POLLED
        views.clear()
        assert [theirs.looker.poll() for _ in range(3)] == [2 * arena.POLLED, arena.POLLED, 0]


@on_linux
def test_memory_grows_with_what_is_written_and_shrinks_when_told() -> None:
    """Nothing is held before the first write, what is free goes back, what is looked at stays."""
    with sides(1 << 30) as (ours, theirs):
        assert ours.resident == 0
        first, second, third = (put(ours.writer, bytes([i]) * (5 * MIB)) for i in (1, 2, 3))
        view = theirs.looker.look(second.slot, second.at, second.nbytes)
        assert 15 * MIB <= ours.resident < 16 * MIB
        assert ours.writer.warm == 15 * MIB
        theirs.looker.give_back(first.slot)
        theirs.looker.give_back(third.slot)
        steps = sum(1 for _ in ours.writer.trim_steps())
        assert steps == 4
        assert 5 * MIB <= ours.resident < 6 * MIB
        assert bytes(view) == b"\2" * (5 * MIB)
        again = put(ours.writer, b"\4" * (20 * MIB))
        assert bytes(view) == b"\2" * (5 * MIB)
        assert bytes(theirs.looker.look(again.slot, again.at, again.nbytes)) == b"\4" * (20 * MIB)


@on_linux
def test_small_blocks_share_pages_with_what_is_trimmed() -> None:
    """Trimming takes no page of which a byte is in use."""
    with sides() as (ours, theirs):
        blocks = [put(ours.writer, bytes([i]) * 3000) for i in range(1, 9)]
        views = [theirs.looker.look(b.slot, b.at, b.nbytes) for b in blocks]
        for i in (0, 2, 3, 4, 5, 7):
            views[i] = None
        theirs.looker.poll()
        for _ in ours.writer.trim_steps():
            pass
        assert ours.writer.warm < 8 * 3000
        assert [set(views[i]) for i in (1, 6)] == [{2}, {7}]


@on_linux
def test_memory_that_is_not_there_is_an_error_of_one_parcel() -> None:
    """When the system has no more memory the parcel raises MemoryError that says for what, nothing
    stays in the arena, and what fits goes on.
    """
    said = in_a_process_of_its_own("""
        import resource

        ours = Memory.create(64 << 20)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20))
        try:
            finish(ship_steps(pack((bytes(1 << 20), bytes(9 << 20))), ours.writer))
        except MemoryError as error:
            print(error)
        print(ours.writer.out, ours.writer.room >> 20)
        print(len(finish(ship_steps(pack(bytes(4 << 20)), ours.writer))))
    """)
    assert said.splitlines() == [
        "there is no shared memory for the arguments: File too large (EFBIG)",
        "0 64",
        "1",
    ]


@on_linux
def test_a_process_that_may_map_little_gets_a_smaller_arena() -> None:
    """A limited address space makes the arena smaller; too small a one is an OSError, not a crash."""
    said = in_a_process_of_its_own("""
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        ours = Memory.create(8 << 30)
        print(0 < ours.writer.room < 1 << 30)
        ours.close()
        resource.setrlimit(resource.RLIMIT_AS, (1 << 20, 1 << 20))
        try:
            Memory.create()
        except OSError as error:
            print(error.strerror)
    """)
    assert said.splitlines() == ["True", "Cannot allocate memory"]


@on_linux
def test_no_descriptor_left_is_an_error_of_create() -> None:
    """Without a free file descriptor there is no arena: OSError, and nothing half made."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            Memory.create()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@on_linux
def test_what_is_looked_at_outlives_the_arena() -> None:
    """Closing gives back what nobody looks at; the rest goes when the garbage collector has run
    after the last look.
    """
    ours = Memory.create(1 << 30)
    theirs = Memory.attach(ours.fd)
    blocks = [put(theirs.writer, bytes([i]) * (5 * MIB)) for i in (1, 2, 3)]
    put(ours.writer, bytes(5 * MIB))
    array = np.frombuffer(ours.looker.look(blocks[1].slot, blocks[1].at, blocks[1].nbytes), "u1")
    theirs.writer.close()
    theirs.looker.close()
    fd = os.dup(ours.fd)
    for _ in ours.close_steps():
        pass
    assert 5 * MIB <= os.fstat(fd).st_blocks * 512 < 6 * MIB
    os.close(fd)
    assert set(array[:: 64 * 1024]) == {2}
    array[:] = 7
    assert len(maps()) == 1
    del array
    gc.collect()
    assert maps() == []
    assert arena._poll_closed not in gc.callbacks


def test_without_memfd_a_file_without_a_name_does(monkeypatch) -> None:
    """Where memfd_create is missing the arena lies in a temporary file that has no name."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with sides() as sided:
        ours, theirs = sided
        assert os.fstat(ours.fd).st_nlink == 0
        message = b"".join(finish(ship_steps(pack(np.arange(BIG)), ours.writer)))
        array = unpack(*finish(open_steps(memoryview(message), theirs.looker)))
        assert array.sum() == BIG * (BIG - 1) // 2
        del array
        theirs.looker.poll()
        for _ in ours.writer.trim_steps():
            pass


# ---- with a child


@on_linux
def test_arrays_lie_in_place_on_both_sides() -> None:
    """An argument is a read-only view of the arena in the child; a result is one in the parent, and
    writable. Neither is a copy.
    """
    array = np.random.default_rng(1).random(MIB)
    with peer() as p:
        assert p.evaluate("a.flags.writeable, a.flags.owndata, float(a.sum())", a=array) == (
            False,
            False,
            array.sum(),
        )
        with pytest.raises(RuntimeError, match="read-only"):
            p.evaluate("a.fill(0)", a=array)
        result = p.evaluate("a * 2", a=array)
        assert lies_in_an_arena(result)
        assert not lies_in_an_arena(array)
        assert result.flags.writeable
        assert np.array_equal(result, array * 2)
        result += 1
        assert np.array_equal(result, array * 2 + 1)
        assert np.array_equal(p.evaluate("a", a=array), array)
        assert p.evaluate("sorted({'asyncio', 'ctypes', 'asyncworkers'} & set(sys.modules))") == [
            "ctypes"
        ]
        del result
        assert p.idle()


def test_a_child_imports_little() -> None:
    """The arena brings neither asyncworkers nor ctypes, asyncio or numpy into the child."""
    with peer() as p:
        assert p.evaluate("len(b)", b=bytes(MIB)) == MIB
        assert (
            p.evaluate("sorted({'asyncio', 'ctypes', 'asyncworkers', 'numpy'} & set(sys.modules))")
            == []
        )


@pytest.mark.parametrize("size", [BIG - 1, BIG, BIG + 1, STEP - 1, STEP + 1, 5 * STEP + 12345])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, np.array])
def test_every_size_and_kind_crosses_both_ways(size, kind) -> None:
    """What is sent and sent back is the same, to the byte and in type, many times with one arena."""
    with peer(16 * MIB) as p:
        for i in range(8):
            data = np.random.default_rng(i).bytes(size)
            value = np.frombuffer(data, "u1") if kind is np.array else kind(data)
            got = p.evaluate("value", value=value)
            assert type(got) is type(value)
            assert bytes(got) == data
            del got
        assert p.idle()


def test_what_the_child_keeps_is_not_overwritten() -> None:
    """An argument that a job keeps stays as it was under all later ones, and pins only its own room."""
    with peer(8 * MIB) as p:
        for i in range(3):
            p.evaluate("kept.append(a[5:])", a=np.full(MIB, i, "u1"))
        for i in range(20):
            assert p.evaluate("int(a[-1])", a=np.full(2 * MIB, i + 10, "u1")) == i + 10
        assert p.evaluate("[sorted(set(x.tolist())) for x in kept]") == [[0], [1], [2]]
        p.evaluate("None")
        p.memory.writer.collect()
        assert p.memory.writer.out == 3
        p.evaluate("kept.clear()")
        assert p.idle()
        assert p.memory.writer.room == 8 * MIB


def test_what_the_parent_keeps_is_not_overwritten() -> None:
    """Results that are kept stay as they were under all later ones, and go when they are dropped."""
    with peer(8 * MIB) as p:
        kept = [
            p.evaluate(f"b'{i}' * {MIB} and memoryview(bytearray(b'{i}' * {MIB}))")
            for i in range(3)
        ]
        for i in range(20):
            assert set(p.evaluate(f"memoryview(bytes([{i}]) * {2 * MIB})")[::4096]) == {i}
        assert [set(view) for view in kept] == [{48}, {49}, {50}]
        kept.clear()
        assert p.idle()


def test_a_full_arena_sends_in_the_message() -> None:
    """With all room kept by the other side data still cross, and nobody waits."""
    with peer(MIB) as p:
        for i in range(4):
            p.evaluate("kept.append(a)", a=np.full(MIB // 2, i, "u1"))
        assert p.evaluate("[int(x.sum()) // len(x) for x in kept]") == [0, 1, 2, 3]
        results = [p.evaluate(f"kept[{i}] + 1") for i in range(4)]
        assert [set(result) for result in results] == [{1}, {2}, {3}, {4}]
        if sys.platform == "linux":
            assert [lies_in_an_arena(result) for result in results] == [True, True, False, False]
        for kind in (bytes, bytearray):
            assert p.evaluate("a", a=kind(2 * MIB)) == kind(2 * MIB)
        assert all(result.flags.writeable for result in results)
        del results
        p.evaluate("kept.clear()")
        assert p.idle()


@on_linux
def test_a_child_gives_its_memory_back_when_told() -> None:
    """Both halves shrink to nothing when both sides trim, and work as before afterwards."""
    with peer() as p:
        for _ in range(2):
            assert p.evaluate("a", a=np.ones(MIB)).sum() == MIB
            assert p.memory.resident > 16 * MIB
            assert p.idle()
            p.evaluate("freight.finish(memory.writer.trim_steps())")
            finish(p.memory.writer.trim_steps())
            assert p.memory.resident <= 2 * PAGE


def end_of(process: int) -> None:
    """Wait until a process that is no child of ours is gone."""
    try:
        fd = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 30)[0], f"process {process} is still there"
    finally:
        os.close(fd)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_child_killed_while_arguments_are_copied_leaves_nothing(steps) -> None:
    """The parent notices nothing while it copies; the other child gets the same data afterwards."""
    value = np.random.default_rng(2).random(MIB // 2)
    with peer() as p:
        p.evaluate("kept.append(a)", a=value)
        shipping = ship_steps(pack(value), p.memory.writer)
        for _ in range(steps):
            next(shipping)
        p.kill()
        finish(shipping)
    with peer() as p:
        assert np.array_equal(p.evaluate("a", a=value), value)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_child_killed_while_it_writes_leaves_earlier_results(steps) -> None:
    """What came before the kill is whole and stays the parent's; the rest is gone with the file."""
    with peer() as p:
        first = p.evaluate(f"memoryview(bytearray(b'1' * {4 * MIB}))")
        p.send(f"die_while_writing(bytes({8 * MIB}), {steps})")
        with pytest.raises(Gone):
            p.receive()
        assert p.process.wait() == -signal.SIGKILL
        assert set(first) == {ord("1")}
        first[0] = 2
    assert first[0] == 2
    assert set(first[1:]) == {ord("1")}
    del first
    gc.collect()


@on_linux
def test_a_parent_killed_in_a_transfer_leaves_nothing() -> None:
    """When the parent dies by SIGKILL with a block half written, its child ends and no file stays."""
    script = """
        import sys
        from arena_peer import Gone, peer

        with peer() as p:
            p.evaluate("kept.append(a)", a=bytes(1 << 20))
            shipping = ship_steps(pack(bytes(8 << 20)), p.memory.writer)
            next(shipping)
            print(p.process.pid, flush=True)
            sys.stdin.read()
    """
    preamble = "from asyncworkers.bridge.child.freight import *\n"
    path = [str(Path(__file__).parent), *filter(None, sys.path)]
    parent = subprocess.Popen(
        [sys.executable, "-c", preamble + textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
    )
    with parent:
        child = int(parent.stdout.readline())
        for process in (parent.pid, child):  # there is no name that could stay
            maps = Path(f"/proc/{process}/maps").read_text()
            assert "memfd:asyncworkers" in maps
            assert "/dev/shm" not in maps
        parent.kill()
    end_of(child)
