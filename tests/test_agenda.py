"""The agenda: things come due in order, under one timer, and the dead do not pile up."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworkers._engine.agenda import SLACK, Agenda

moments = st.lists(st.floats(0, 1_000, allow_nan=False), max_size=50)


class OneTimerLoop:
    """As much of a loop as an agenda needs: a clock that the test moves, and timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[FakeTimer] = []
        self.most = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any) -> "FakeTimer":
        timer = FakeTimer(when, callback)
        self.timers = [timer for timer in self.timers if not timer.over] + [timer]
        self.most = max(self.most, len(self.timers))
        return timer

    def run(self, until: float) -> None:
        """Let time pass, and ring what comes due."""
        while True:
            due = [t for t in self.timers if not t.over and t.when <= until]
            if not due:
                break
            timer = min(due, key=lambda timer: timer.when)
            self.now = max(self.now, timer.when)
            timer.over = True
            timer.callback()
        self.now = until


class FakeTimer:
    """A timer that rings once, unless it was cancelled."""

    def __init__(self, when: float, callback: Any) -> None:
        self.when = when
        self.callback = callback
        self.over = False

    def cancel(self) -> None:
        self.over = True


class Item:
    """Something with a moment, which may move on."""

    def __init__(self, moment: float) -> None:
        self.moment = moment
        self.live = True


def make() -> tuple[OneTimerLoop, Agenda[Item], list[Item]]:
    """An agenda, its loop, and what it has told."""
    loop, told = OneTimerLoop(), list[Item]()
    agenda: Agenda[Item] = Agenda(
        loop,  # type: ignore[arg-type]
        loop.time,
        lambda item, _stamp: told.append(item),
        lambda item, _stamp: item.live,
    )
    return loop, agenda, told


@given(moments)
def test_tells_in_order_under_one_timer(moments: list[float]) -> None:
    """Everything is told once, when it is due, in the order of its moment and then of its entry;
    the loop never holds more than one timer for it.
    """
    loop, agenda, told = make()
    items = [Item(moment) for moment in moments]
    for item in items:
        agenda.add(item.moment, item)
    for now in sorted({*moments, 1_001.0}):
        loop.run(now)
        assert told == [
            item for item in sorted(items, key=lambda i: i.moment) if item.moment <= now
        ]
    assert len(agenda) == 0
    assert loop.most <= 1
    assert all(timer.over for timer in loop.timers)


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=200))
def test_skips_what_has_moved_on(entries: list[tuple[float, bool]]) -> None:
    """An entry whose item is not live any more is never told, and not among the live items."""
    loop, agenda, told = make()
    for moment, live in entries:
        item = Item(moment)
        item.live = live
        agenda.add(moment, item)
    living = [moment for moment, live in entries if live]
    assert sorted(item.moment for item in agenda.live_items()) == sorted(living)
    loop.run(101)
    assert [item.moment for item in told] == sorted(living)


def test_an_earlier_moment_moves_the_timer() -> None:
    """The timer is always that of the earliest entry."""
    loop, agenda, told = make()
    agenda.add(10, Item(10))
    agenda.add(5, Item(5))
    agenda.add(20, Item(20))
    (timer,) = (timer for timer in loop.timers if not timer.over)
    assert timer.when == 5
    loop.run(6)
    (timer,) = (timer for timer in loop.timers if not timer.over)
    assert timer.when == 10
    assert len(told) == 1


def test_the_dead_do_not_pile_up() -> None:
    """However many entries die, at most about as many are kept as are alive."""
    _, agenda, _ = make()
    alive = [Item(1_000) for _ in range(10)]
    for item in alive:
        agenda.add(item.moment, item)
    for number in range(10_000):
        item = Item(number)
        agenda.add(1_000 + number, item)
        item.live = False
        assert len(agenda) <= 2 * (len(alive) + 1) + SLACK
    assert set(agenda.live_items()) == set(alive)


def test_what_is_told_may_add_more() -> None:
    """Entries added while one is told come due in their turn; one due at once comes at once."""
    loop, told = OneTimerLoop(), list[float]()

    def tell(item: Item, _stamp: float) -> None:
        told.append(item.moment)
        if item.moment < 5:
            agenda.add(loop.now, Item(item.moment + 1))
            agenda.add(100, Item(100))

    agenda: Agenda[Item] = Agenda(loop, loop.time, tell, lambda item, _: item.live)  # type: ignore[arg-type]
    agenda.add(1, Item(1))
    loop.run(2)
    assert told == [1, 2, 3, 4, 5]
    loop.run(100)
    assert told == [1, 2, 3, 4, 5, 100, 100, 100, 100]


def test_closing_leaves_no_timer() -> None:
    """A closed agenda tells nothing any more."""
    loop, agenda, told = make()
    agenda.add(1, Item(1))
    agenda.close()
    loop.run(10)
    assert told == []
    assert all(timer.over for timer in loop.timers)


@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_on_a_real_loop() -> None:
    """On a loop with timers of its own it tells at the very moment."""
    loop = asyncio.get_running_loop()
    told: list[tuple[str, float]] = []
    agenda: Agenda[str] = Agenda(
        loop, loop.time, lambda item, _: told.append((item, loop.time())), lambda *_: True
    )
    for delay in (3.0, 1.0, 2.0):
        agenda.add(loop.time() + delay, f"after {delay:g}")
    began = loop.time()
    await asyncio.sleep(2.5)
    assert told == [("after 1", began + 1), ("after 2", began + 2)]
    agenda.close()
    await asyncio.sleep(5)
    assert len(told) == 2


def test_goes_on_after_an_interrupt() -> None:
    """What is told may be interrupted, as by Ctrl-C in a notebook: the others are told all the same."""
    loop, agenda, told = make()
    items = [Item(1.0), Item(1.0), Item(2.0)]
    for item in items:
        agenda.add(item.moment, item)

    def interrupted(item: Item, _stamp: float) -> None:
        agenda._tell = lambda item, _stamp: told.append(item)
        raise KeyboardInterrupt

    agenda._tell = interrupted
    with pytest.raises(KeyboardInterrupt):
        loop.run(1.0)
    loop.run(2.0)
    assert told == items[1:]
