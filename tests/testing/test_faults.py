"""The fault injector: which call fails, whether it took effect, and that a sweep tries them all."""

import asyncio
import contextlib
import threading
import types

import pytest

from asyncworkers.testing import FaultInjector, InjectedFault, sweep, sweep_async


class Account:
    """Something with an effect to lose."""

    limit = 100

    def __init__(self) -> None:
        self.balance = 0

    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    async def deposit_later(self, amount: int) -> int:
        await asyncio.sleep(0)
        return self.deposit(amount)

    @staticmethod
    def bank() -> str:
        return "bank"


def test_before_means_without_effect_and_after_means_with_it():
    """The chosen call raises; the account tells whether it was made."""
    for when, balance in (("before", 2), ("after", 3)):
        account = Account()
        faults = FaultInjector(2, when=when)
        deposit = faults.wrap(account.deposit)
        assert deposit(1) == 1
        with pytest.raises(InjectedFault, match=f"call 2, Account.deposit, {when}"):
            deposit(1)
        deposit(1)
        assert account.balance == balance
        assert faults.calls == 3
        assert faults.failed == "Account.deposit"
        assert f"fails call 2 {when}" in repr(faults)


@pytest.mark.asyncio
async def test_coroutine_functions_fail_when_awaited():
    """For an async function the same holds, and calling it without awaiting counts as nothing."""
    for when, balance in (("before", 0), ("after", 1)):
        account = Account()
        faults = FaultInjector(1, when=when)
        deposit = faults.wrap(account.deposit_later)
        pending = deposit(1)
        assert faults.calls == 0
        with pytest.raises(InjectedFault):
            await pending
        assert account.balance == balance


def test_without_a_number_it_only_counts():
    """An injector that fails nothing can count the calls of a run."""
    faults = FaultInjector()
    for _ in range(5):
        faults.wrap(int)()
    assert faults.calls == 5
    assert faults.failed is None
    assert "counts only" in repr(faults)


def test_the_error_can_be_chosen():
    """A class is called with a message, an instance is raised as it is."""
    with pytest.raises(ConnectionResetError, match="call 1"):
        FaultInjector(1, error=ConnectionResetError).wrap(int)()
    error = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space") as caught:
        FaultInjector(1, error=error).wrap(int)()
    assert caught.value is error


def test_a_call_that_raises_by_itself_has_no_after():
    """Its own error comes through, and the fault is not counted as injected."""
    faults = FaultInjector(1, when="after")
    with pytest.raises(ValueError, match="invalid literal"):
        faults.wrap(int)("x")
    assert faults.failed is None


def test_an_object_is_wrapped_without_being_changed():
    """The stand-in fails the named methods, passes on everything else and is of the same class."""
    account = Account()
    faults = FaultInjector(2, when="after")
    stand_in = faults.wrap_object(account, ["deposit"])
    stand_in.deposit(5)
    with pytest.raises(InjectedFault, match=r"Account\.deposit"):
        stand_in.deposit(5)
    assert isinstance(stand_in, Account)
    stand_in.balance += 1
    assert account.balance == stand_in.balance == 11
    assert account.deposit(1) == 12  # the object itself has no fault
    assert "injected faults" in repr(stand_in)
    with pytest.raises(AttributeError, match="withdraw"):
        faults.wrap_object(account, ["withdraw"])


def test_faults_are_planted_in_place_and_taken_out_again():
    """Objects, classes and modules are as before after the block, also if it raises."""
    module = types.ModuleType("module")
    module.function = lambda: "value"
    original = module.function
    account = Account()
    with pytest.raises(InjectedFault):
        with FaultInjector(1).planted(module, "function"):
            module.function()
    assert module.function is original
    with FaultInjector(1).planted(account, "deposit"), pytest.raises(InjectedFault):
        account.deposit(1)
    assert "deposit" not in vars(account)
    faults = FaultInjector(2)
    with faults.planted(Account, "deposit"):
        assert Account().deposit(1) == 1
        with pytest.raises(InjectedFault):
            account.deposit(1)
    assert account.deposit(1) == 1
    with FaultInjector().planted(account, "bank"):
        assert account.bank() == "bank"
    with pytest.raises(TypeError, match="bank"):
        with FaultInjector().planted(Account, "bank"):
            pass
    with pytest.raises(AttributeError):
        with FaultInjector().planted(account, "withdraw"):
            pass


def test_an_inherited_method_is_planted_on_the_subclass_alone():
    """The base class keeps its method during the block, the subclass inherits again after it."""

    class Savings(Account):
        pass

    with FaultInjector(1).planted(Savings, "deposit"):
        assert Account().deposit(1) == 1
        with pytest.raises(InjectedFault):
            Savings().deposit(1)
    assert "deposit" not in vars(Savings)


def test_calls_are_counted_across_threads():
    """Of a thousand calls from four threads exactly one fails."""
    faults = FaultInjector(500)
    call = faults.wrap(int)
    failures: list[InjectedFault] = []

    def hammer() -> None:
        for _ in range(250):
            try:
                call()
            except InjectedFault as error:
                failures.append(error)

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults.calls == 1000
    assert len(failures) == 1


class Log:
    """A list of records on some storage whose answers may be lost."""

    def __init__(self) -> None:
        self.records: dict[str, int] = {}

    def put(self, key: str, value: int) -> None:
        self.records[key] = self.records.get(key, 0) + value


def put_all(log: Log, careful: bool) -> None:
    """Store three records, trying each again if its put fails; careful or not about doubles."""
    for number, key in enumerate("abc", 1):
        for _ in range(2):
            try:
                if not careful or log.records.get(key) is None:
                    log.put(key, number)
            except InjectedFault:
                continue
            break


def put_and_check(faults: FaultInjector, careful: bool) -> None:
    """Store three records on a log with faults; none may be lost or doubled."""
    log = Log()
    put_all(faults.wrap_object(log, ["put"]), careful)
    assert log.records == {"a": 1, "b": 2, "c": 3}


def test_a_sweep_tries_every_call_both_ways():
    """Three calls make six faults; code that stands them all passes."""
    assert sweep(lambda faults: put_and_check(faults, careful=True)) == 6


def test_a_sweep_finds_an_effect_that_is_repeated():
    """The planted mistake, trying again what had taken effect, is found, and its call is named."""
    with pytest.raises(AssertionError) as caught:
        sweep(lambda faults: put_and_check(faults, careful=False))
    assert "fails call 1 after" in caught.value.__notes__[0]
    assert "Log.put" in caught.value.__notes__[0]


@pytest.mark.asyncio
async def test_a_sweep_of_an_asynchronous_run():
    """sweep_async does the same for coroutines, and names the call as well."""

    async def run(faults: FaultInjector) -> None:
        account = Account()
        deposit = faults.wrap(account.deposit_later)
        for wanted in (1, 2):
            try:
                await deposit(1)
            except InjectedFault:
                account.balance = wanted
        assert account.balance == 2

    assert await sweep_async(run) == 4

    async def wrong(faults: FaultInjector) -> None:
        await faults.wrap(Account().deposit_later)(1)

    with pytest.raises(InjectedFault) as caught:
        await sweep_async(wrong)
    assert "fails call 1 before" in caught.value.__notes__[0]


def test_a_sweep_that_cannot_prove_anything_is_an_error(monkeypatch):
    """No wrapped call, an asynchronous run given to sweep, or no end: all are refused."""
    with pytest.raises(ValueError, match="nothing"):
        sweep(lambda faults: None)

    async def run(faults: FaultInjector) -> None:
        faults.wrap(int)()

    with pytest.raises(TypeError, match="sweep_async"):
        sweep(run)

    def endless(faults: FaultInjector) -> None:
        call = faults.wrap(int)
        with contextlib.suppress(InjectedFault):
            while True:
                call()

    monkeypatch.setattr("asyncworkers.testing.faults.SWEEP_LIMIT", 20)
    with pytest.raises(RuntimeError, match="more than 20 calls"):
        sweep(endless)


def test_senseless_options_are_refused():
    """Call 0 and a third way to fail do not exist."""
    with pytest.raises(ValueError, match="from 1"):
        FaultInjector(0)
    with pytest.raises(ValueError, match="between"):
        FaultInjector(1, when="between")
