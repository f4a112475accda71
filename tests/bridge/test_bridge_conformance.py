"""Every bridge of ours, and that of the examples, does what a bridge must; broken ones are found out."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from asyncworkers import Queue
from asyncworkers.bridge.terms import has_interpreters
from asyncworkers.testing import bridge_checks, check_name

PROGRAM = str(Path(__file__).with_name("broken_bridges.py"))
EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "remote.py"))
CommandBridge = EXAMPLE["CommandBridge"]

QUEUES = {
    "threads": Queue("t", kind="threads"),
    "processes": Queue("p", kind="processes"),
    "example": Queue("e", bridge=CommandBridge),
}
if has_interpreters():
    QUEUES["interpreters"] = Queue("i", kind="interpreters")


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", QUEUES)
@pytest.mark.parametrize("check", bridge_checks(), ids=check_name)
async def test_bridge_does_what_a_bridge_must(check, kind):
    """The bridge passes the check, which also sees that nothing is left behind."""
    await check(QUEUES[kind])


# ---- bridges that are broken in one way each

BROKEN = [
    ("ValueLost", "values_come_back"),
    ("NamesForgotten", "names_of_arguments_are_kept"),
    ("ErrorIsAValue", "errors_come_back"),
    ("ErrorIsRaised", "errors_come_back"),
    ("NeverReadyAgain", "values_come_back"),
    ("UnpicklableIsRaised", "what_cannot_be_carried_fails_alone"),
    ("DeathIsAnError", "a_death_fails_one_job"),
    ("DeathIsAnError", "a_death_can_be_retried"),
    ("CallRunsOn", "a_cancelled_call_is_over"),
    ("CallRunsOn", "a_timed_out_call_is_over"),
    ("NothingIsKilled", "a_call_that_will_not_end_is_killed"),
    ("OneForAll", "only_what_was_cancelled_is_ended"),
    ("LeavesAFile", "values_come_back"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "name"), BROKEN, ids=["-".join(one) for one in BROKEN])
def test_a_broken_bridge_fails(broken, name):
    """The check that is about what is broken fails, and says which it is. (In a program of its own:
    what is broken leaves things behind, which end with that program.)
    """
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", PROGRAM, broken, name],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.stdout.splitlines()[-1:] == [f"while checking {name}"], ended.stderr
