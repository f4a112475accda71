"""The thread of a SQLite store: when it begins, how it lets others work, and what becomes of it."""

import asyncio
import threading

import pytest

from asyncworkers._engine.crew import Crew
from asyncworkers.errors import StoreUnavailable
from asyncworkers.store.sqlite import thread
from asyncworkers.store.sqlite.thread import Batches

pytestmark = pytest.mark.asyncio


def nothing(*_):
    """What has to be called and does nothing."""


def hand_out(asks):
    """Deliver answers as a store does."""
    for ask in asks:
        if ask.future is not None and not ask.future.done():
            if ask.error is None:
                ask.future.set_result(ask.answer)
            else:
                ask.future.set_exception(ask.error)


def batches(work):
    """The thread, with this work."""
    loop = asyncio.get_running_loop()
    return Batches(loop, "tested", start=nothing, work=work, stop=nothing, deliver=hand_out)


async def test_what_is_asked_at_once_begins_before_the_turn_is_over():
    """The loop waits for it here, without a turn for anything else."""
    began = threading.Event()

    def work(asks):
        began.set()
        return ()

    tested = batches(work)
    await tested.opened
    future = tested.ask("much", [1, 2], at_once=True)
    assert began.wait(30)
    await future
    await tested.close()
    tested.join()


async def test_nobody_waits_for_a_thread_that_broke_off(caplog):
    """Who had asked, on the loop or in a thread, hears of it, and so does who asks later."""
    gathered = threading.Event()

    def breaks():
        assert gathered.wait(30)
        raise MemoryError

    tested = batches(lambda asks: [breaks])
    await tested.opened
    await tested.ask("first", [])
    waiting = tested.ask("second", [])
    blocked = asyncio.create_task(asyncio.to_thread(tested.ask_and_wait, "third", []))
    while len(tested._gathered) < 2:
        await asyncio.sleep(0)
    gathered.set()
    with pytest.raises(StoreUnavailable, match="has ended"):
        await waiting
    with pytest.raises(StoreUnavailable, match="has ended"):
        await blocked
    with pytest.raises(StoreUnavailable, match="closed"):
        tested.ask("fourth", [])
    await tested.ended
    tested.join()
    assert "broke off" in caplog.text


async def test_a_busy_loop_lets_a_thread_at_work_have_the_interpreter(monkeypatch):
    """And does not stop for one that has nothing to do."""
    breaths = []
    working, go_on = threading.Event(), threading.Event()

    def work(asks):
        working.set()
        assert go_on.wait(30)
        return ()

    tested = batches(work)
    await tested.opened
    monkeypatch.setattr(thread.time, "sleep", breaths.append)
    tested.breathe()
    assert not breaths
    future = tested.ask("something", [])
    while not working.is_set():
        await asyncio.sleep(0)
    tested.breathe()
    assert breaths == [thread.BREATH]
    go_on.set()
    await future
    await tested.close()
    tested.join()


async def test_a_crew_breathes_where_its_turn_was_used_up():
    """Not after a turn that ended by itself: the loop is not busy then."""
    loop = asyncio.get_running_loop()
    breaths = []
    crew = Crew(loop, 1, nothing, lambda: 0)
    crew.breathe = lambda: breaths.append(crew.turn_ends)
    assert not crew.is_turn_over(loop.time())
    await asyncio.sleep(0)
    assert not breaths
    assert not crew.is_turn_over(loop.time())
    assert crew.is_turn_over(loop.time())
    assert crew.is_turn_over(loop.time())
    await asyncio.sleep(0)
    assert breaths == [0.0]
