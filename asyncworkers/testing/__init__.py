"""Tools to test programs with jobs in them: virtual time, seeded chance, faults, leaks.

Two event loops make time virtual:

- `SimLoop`, usually by `simulate(main, seed=...)`: deterministic down to the order of tasks, which
  a seed decides. No threads and no sockets. Run a thousand seeds to find a race, and the seed that
  found it to look at it.
- `VirtualLoop`: a real loop with threads and sockets, whose time jumps while nothing happens.

Tools that go through every possibility, so that nothing is left to luck:

- `cancel_at_every_step` cancels a task at each of its steps, one run per step.
- `sweep` makes each call in turn fail, before or after it took effect; `FaultInjector` one of them.

`check_store` runs over any store, yours too, what every store must do; `store_checks` has the same as
single checks. `check_bridge` and `bridge_checks` are the same for bridges.

`stored_jobs` is for tests of an application whose jobs are stored: they run inline, or when told.

And tools for any test:

- `EventRecorder` is a listener that records what happens, and waits for what is to happen.
- `no_leaks` checks that nothing is left behind.

`asyncworkers.testing.plugin` has all this as pytest fixtures and marks; pytest loads it by itself.
"""

from asyncworkers.testing.check_bridge import bridge_checks, check_bridge
from asyncworkers.testing.check_store import check_name, check_store, store_checks
from asyncworkers.testing.exhaustive import (
    Cancellation,
    CancelReport,
    CancelRun,
    Violation,
    cancel_at_every_step,
)
from asyncworkers.testing.faults import FaultInjector, InjectedFault, sweep, sweep_async
from asyncworkers.testing.leaks import LeakCheck, LeakError, no_leaks
from asyncworkers.testing.recorder import EventNotSeen, EventRecorder
from asyncworkers.testing.simloop import SimDeadlock, SimLoop, SimStepLimit, SimUnsupported
from asyncworkers.testing.simulate import SimResult, simulate
from asyncworkers.testing.stored import StoredJobs, Submitted, stored_jobs
from asyncworkers.testing.virtual import VirtualDeadlock, VirtualLoop

__all__ = [
    "CancelReport",
    "CancelRun",
    "Cancellation",
    "EventNotSeen",
    "EventRecorder",
    "FaultInjector",
    "InjectedFault",
    "LeakCheck",
    "LeakError",
    "SimDeadlock",
    "SimLoop",
    "SimResult",
    "SimStepLimit",
    "SimUnsupported",
    "StoredJobs",
    "Submitted",
    "Violation",
    "VirtualDeadlock",
    "VirtualLoop",
    "bridge_checks",
    "cancel_at_every_step",
    "check_bridge",
    "check_name",
    "check_store",
    "no_leaks",
    "simulate",
    "store_checks",
    "stored_jobs",
    "sweep",
    "sweep_async",
]
