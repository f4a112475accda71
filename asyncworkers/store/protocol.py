"""What a stored queue needs of a store: a few verbs, each taking a batch, and the values they speak.

The running verbs move jobs: `open submit lease holding started settle renew wait_ready maintain
close`. The others look and steer: `get find counts tally wait_ended cancel retry purge pause`.

Three users, and how they use it
================================

**The feeder** brings jobs from the store to a queue. It asks for what free workers can take, and a
few more to have at hand, and when there is nothing it waits:

    while open:
        leases = await store.lease([Want(queue, free=idle_workers, ahead=some)])
        if not leases:
            await store.wait_ready([queue], timeout)

The verb that takes never waits and the verb that waits never takes, so that a stop may cancel the
waiting and loses nothing; if a `lease` is cancelled nevertheless, the store gives back what it had
taken. If it raised, its outcome is unknown: `holding` tells what there is that nobody was told of,
to be given back. `wait_ready` looks before it sleeps: what was submitted between the two calls wakes it.
A worker says `store.started(lease)` right before it calls the function. That is cheap (no commit, no
wait), and by it a crash charges only what had begun. Jobs marked `once` are only ever part of
`free`: start them at once. On drain, what has not started is given back with `Settlement.release`.

What is asked counts from the call, not from the `await`: a `submit` and a `lease` that are called in
the same turn of the loop share one commit, so an idle worker has its job after one sync of the disk.

**The settler** writes judgements back. It hands over everything that gathered while its last call
ran; there is no timer:

    while settlements := take_all():
        for accepted, settlement in zip(await store.settle(settlements), settlements):
            if not accepted: ...   # the lease was lost meanwhile: discard, and say so

A settlement names the token it got with its lease. A store accepts it only from the newest lease
of the job, so a worker that was given up for dead can change nothing. If the call raised, its outcome
is unknown: call it again with the same settlements, that never settles anything twice. Its
follow-ups are submitted in the same commit, exactly if it is accepted.

**The keeper** keeps the worker alive in the eyes of the others. It calls `renew` every `ttl / 10` or
so from a thread of its own (`renew` is the only verb that may be called from any thread; it
blocks), as long as the loop has ticked within `max_block`. A lease is the worker's, not the job's: one
renewal renews all. Trust it less long than the store does: count `ttl` from the moment before
`renew` was called, and start nothing and cancel what runs once that has passed. `renew` brings home
what others asked to cancel; if it says `lost`, every job leased before belongs to somebody else
now: cancel their attempts. The keeper also calls `maintain` about once a second: it finds the jobs
of dead workers, and does what is due. Every process may do so at the same time.

What must hold
==============

- A job is `submitted` when `submit` returned. Submitting the same id again does nothing, so that a
  call whose outcome is unknown (cancelled, connection lost) can be repeated.
- A token grows with every lease, and whenever a lease is taken away. `attempt` grows with every
  attempt that began. `failures` counts those that ended in a `retry`, `losses` those whose worker
  died; a retry policy looks at `failures + 1`, never at losses. A job lost `LOSSES` times fails with
  an error of type `JobLost`. Whoever has not started is charged nothing.
- A `once` job that began and did not report fails; it is never given out again by itself.
- A key is held by a job, not by an id: who submits the id of a forgotten job anew does not hold what
  that held. A dead job that is retried holds its key again as if it had never ended.
- Order within a queue: higher priority, then earlier due, then earlier submitted.
- Delays and `expires` become dates by the store's clock. Nothing starts before it is due.
- Only jobs whose function is known here are leased; others are left, and seen in `counts`.
"""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from asyncworkers.job import JobState

__all__ = [
    "CODEC",
    "HISTORY",
    "KEEP",
    "KEEP_DEAD",
    "LIMIT",
    "LOSSES",
    "TTL",
    "Cancelled",
    "Lease",
    "Maintained",
    "Mark",
    "Page",
    "QueueCounts",
    "Receipt",
    "Renewal",
    "Settlement",
    "Store",
    "StoredJob",
    "Submission",
    "Tally",
    "Transaction",
    "Transactional",
    "Unique",
    "Want",
    "Where",
    "error_text",
]

CODEC: Final = "json/1"
"""How arguments and results are written: the codec and its version. See `codec`."""

LOSSES: Final = 5
"""A job whose worker died so often while it ran is not tried again."""

TTL: Final = 30.0
"""Seconds that a worker counts as alive after its last renewal."""

KEEP: Final = 86_400.0
"""Seconds for which a success can be read, unless its submission says otherwise: a day."""

KEEP_DEAD: Final = 14 * 86_400.0
"""Seconds for which failed and cancelled jobs are kept: two weeks."""

HISTORY: Final = 1_000_000
"""Of ended jobs no more than this are kept, whatever their time: those to be pruned first go."""

LIMIT: Final = 10_000
"""No call takes or changes more jobs than this."""

# Three of the words here are made for each job, so these are Structs, which are made in a quarter of the
# time of a NamedTuple. The garbage collector need not look at them: they cannot be part of a cycle.


class Unique(NamedTuple):
    """At most one job may hold `key` at a time.

    - `until`: "started" (held while the job waits for its first attempt), "done" (until it has
      ended) or seconds (for so long after its submission, whatever becomes of it: also when it is
      forgotten, and then a submission of its own id is answered as "existing", too).
    - `on_duplicate`: what becomes of a second one: "existing" (nothing; the receipt names the job
      there is), "replace" (the one there is is cancelled, unless it has started: then as
      "existing"), "reject" (nothing, and the receipt says so).
    """

    key: str
    until: Literal["started", "done"] | float = "done"
    on_duplicate: Literal["existing", "replace", "reject"] = "existing"


class Submission(NamedTuple):
    """A job to be stored.

    - `args`, `codec`: the arguments as text, and how they were written.
    - `delay`, `due`: seconds from now, or a date in Unix seconds; the later counts.
    - `expires`: seconds from now after which it is not started any more.
    - `once`: at most one attempt ever begins.
    - `keep`: seconds for which a success and its result can be read; None: as the store does.
    - `extra`: any text for whoever runs it; carried along and covered by the checksum.
    """

    id: str
    queue: str
    name: str
    args: str
    codec: str = CODEC
    priority: int = 0
    delay: float = 0.0
    due: float | None = None
    expires: float | None = None
    once: bool = False
    unique: Unique | None = None
    keep: float | None = None
    tags: tuple[str, ...] = ()
    extra: str = ""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What became of a submission: `id` is the job that stands for it now.

    "created"; "existing": this very id was there already, or another job holds the unique key and
    `id` is that job's; "rejected": the same of a key, where it was to be refused; "replaced":
    created, and the holder was cancelled.
    """

    id: str
    outcome: Literal["created", "existing", "replaced", "rejected"]


class Want(NamedTuple):
    """How many jobs of a queue are wanted: `free` to start now, `ahead` more to have at hand.

    Jobs marked `once` are given out only as part of `free`.
    """

    queue: str
    free: int
    ahead: int = 0


class Lease(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The right to run a job's next attempt, until the worker's time ends; fenced by `token`.

    `seq` is the store's own name of the job. `attempt` counts from 1, this one included.
    """

    seq: int
    token: int
    id: str
    queue: str
    name: str
    args: str
    codec: str
    attempt: int
    failures: int
    losses: int
    priority: int
    submitted: float
    due: float
    expires: float | None
    once: bool
    tags: tuple[str, ...]
    extra: str


Verb: TypeAlias = Literal["complete", "retry", "fail", "cancel", "release", "interrupt"]


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """A judgement to be written, ending the lease. Make one with its class methods.

    `follow` holds submissions that are committed together with it, exactly if it is accepted.
    """

    seq: int
    token: int
    id: str
    verb: Verb
    data: str = ""
    delay: float = 0.0
    follow: tuple[Submission, ...] = ()

    @classmethod
    def complete(
        cls, lease: Lease, result: str, *, follow: Iterable[Submission] = ()
    ) -> Settlement:
        """It has succeeded with this result, as text."""
        return cls(lease.seq, lease.token, lease.id, "complete", result, follow=tuple(follow))

    @classmethod
    def retry(cls, lease: Lease, error: str, delay: float) -> Settlement:
        """It failed and runs again after `delay` seconds. A `once` job fails instead."""
        return cls(lease.seq, lease.token, lease.id, "retry", error, delay)

    @classmethod
    def fail(cls, lease: Lease, error: str, *, follow: Iterable[Submission] = ()) -> Settlement:
        """It has failed for good with this error, as text."""
        return cls(lease.seq, lease.token, lease.id, "fail", error, follow=tuple(follow))

    @classmethod
    def cancel(cls, lease: Lease, error: str) -> Settlement:
        """It is cancelled; the error, as text, says why."""
        return cls(lease.seq, lease.token, lease.id, "cancel", error)

    @classmethod
    def release(cls, lease: Lease) -> Settlement:
        """It never began: it goes back to where it stood, and nothing is charged."""
        return cls(lease.seq, lease.token, lease.id, "release")

    @classmethod
    def interrupt(cls, lease: Lease, error: str) -> Settlement:
        """It began and was stopped by a shutdown: it goes back, the attempt spent, but neither
        a failure nor a loss. A `once` job fails with this error instead.
        """
        return cls(lease.seq, lease.token, lease.id, "interrupt", error)


class Mark(NamedTuple):
    """Somebody asked to cancel this running job."""

    seq: int
    token: int
    id: str
    reason: str


class Renewal(NamedTuple):
    """What a renewal brought home. `lost`: the time had run out and the jobs were given away."""

    lost: bool = False
    cancel: tuple[Mark, ...] = ()


class Cancelled(NamedTuple):
    """A job that `cancel` reached: it is cancelled, or (`running`) marked to be."""

    id: str
    running: bool


class StoredJob(NamedTuple):
    """All that is stored of a job. Dates are Unix seconds. `error` is text, see `codec`."""

    id: str
    queue: str
    name: str
    state: JobState
    priority: int
    attempt: int
    failures: int
    losses: int
    submitted: float
    due: float
    expires: float | None
    started: float | None
    ended: float | None
    until: float | None
    once: bool
    tags: tuple[str, ...]
    extra: str
    codec: str
    args: str
    result: str | None
    error: str | None
    cancelling: str | None
    progress: str | None


class Where(NamedTuple):
    """Which jobs: all conditions given must hold; `ids`, `queues`, `names` and `states` list
    alternatives, `tags` must all be there. Dates are Unix seconds.
    """

    ids: tuple[str, ...] | None = None
    queues: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    states: tuple[JobState, ...] | None = None
    tags: tuple[str, ...] = ()
    submitted_before: float | None = None
    submitted_after: float | None = None


class Page(NamedTuple):
    """Some of the jobs looked for, newest first; `after` continues, None if that was all."""

    records: list[StoredJob]
    after: int | None


class QueueCounts(NamedTuple):
    """How a queue stands. `oldest` is how many seconds the job that is due longest has been due.

    `unknown`: waiting jobs by function name that no worker opened like this one can run.
    `failed` counts the dead jobs that are still kept.
    """

    queue: str
    paused: bool
    queued: int
    scheduled: int
    running: int
    failed: int
    oldest: float | None
    unknown: Mapping[str, int]


class Tally(NamedTuple):
    """How many jobs there are, by queue; what is counted `since` the `mark` is new since then."""

    queues: Mapping[str, int]
    mark: int


class Maintained(NamedTuple):
    """What a round of maintenance did: jobs of dead workers brought back, and of them those that
    were `lost` too often or `once`; jobs expired; ended jobs pruned.
    """

    recovered: int = 0
    lost: int = 0
    expired: int = 0
    pruned: int = 0


class Store(Protocol):
    """Where durable jobs live, as seen by one worker (one supervisor of one process).

    All verbs but `renew`, `started` and `close` answer with an awaitable, and are called on the
    loop that opened the store. They raise `StoreUnavailable` and its kinds if the store cannot
    do it; then whether it was done is unknown, and it may be asked again.

    A store that works in a thread of its own may have a method `breathe()`, too. It is called on
    the loop each time jobs there have used up their turn, 1 ms where a store has it, and may block
    for a small part of that, to let the thread have the interpreter. A thread that runs Python then,
    and no statement, keeps it for up to `sys.getswitchinterval()`.
    """

    @property
    def ttl(self) -> float:
        """Seconds that this worker counts as alive after a renewal."""
        ...

    # ---- running

    def open(
        self, names: Collection[str] = (), codecs: Collection[str] = (CODEC,)
    ) -> Awaitable[None]:
        """Come into the store as a worker that can run these functions, written in these codecs."""
        ...

    def close(self) -> Awaitable[None]:
        """Leave. What is still leased goes back as if the worker had died, but at once."""
        ...

    def submit(self, batch: Sequence[Submission]) -> Awaitable[list[Receipt]]:
        """Store jobs: all of the batch in one commit or none. A receipt for each, in order."""
        ...

    def lease(self, wants: Sequence[Want]) -> Awaitable[list[Lease]]:
        """Take waiting jobs that are due, in order; fewer than wanted if there are no more.

        A queue that is paused gives none.
        """
        ...

    def holding(self) -> Awaitable[list[Lease]]:
        """The leases that this worker has now: after a `lease` whose outcome is unknown, who holds
        one that nobody told of can give it back.
        """
        ...

    def started(self, lease: Lease) -> None:
        """Note that the job begins now: from here on a crash is charged to it."""
        ...

    def settle(self, batch: Sequence[Settlement]) -> Awaitable[list[bool]]:
        """End leases. False for each whose job is not this lease's any more; nothing changed then.

        Asking again for a settlement that was accepted answers True and changes nothing, as long
        as the job has not been leased again.
        """
        ...

    def renew(self, progress: Sequence[tuple[Lease, str]] = ()) -> Renewal:
        """Count as alive for another `ttl` seconds; may be called from any thread, and blocks.

        `progress` holds what running jobs have to say of themselves, as text. If the time had run
        out and the jobs were given away, this worker is taken in anew, without them.
        """
        ...

    def wait_ready(self, queues: Collection[str], timeout: float) -> Awaitable[bool]:
        """Wait until a `lease` of one of these queues would find something, at most so long.

        True if so; it may be gone again by the time of the lease. Takes nothing: may be cancelled.
        """
        ...

    def maintain(self) -> Awaitable[Maintained]:
        """Bring back the jobs of dead workers, expire, prune: a bounded portion of each."""
        ...

    # ---- looking and steering

    def get(self, ids: Sequence[str]) -> Awaitable[list[StoredJob | None]]:
        """The jobs with these ids, None for those there are not."""
        ...

    def find(self, where: Where, *, limit: int = 100, after: int | None = None) -> Awaitable[Page]:
        """A page of jobs, newest first."""
        ...

    def wait_ended(self, ids: Collection[str], timeout: float) -> Awaitable[bool]:
        """Wait until one of these jobs has ended or is not there, at most so long; True if so."""
        ...

    def counts(self) -> Awaitable[list[QueueCounts]]:
        """How every queue stands that is paused or has unfinished or dead jobs, by name."""
        ...

    def tally(self, where: Where, *, since: int | None = None) -> Awaitable[Tally]:
        """Count jobs; only those submitted after another tally if its mark is given, which is quick."""
        ...

    def cancel(self, where: Where, error: str) -> Awaitable[list[Cancelled]]:
        """Cancel the waiting jobs among these, mark the running ones; `error`, text, says why."""
        ...

    def retry(self, where: Where) -> Awaitable[list[str]]:
        """Put failed and cancelled jobs back in line, due now, with nothing charged; their ids.

        One whose unique key another job holds stays as it is, if it would hold it itself again; of
        several with one key the first is taken.
        """
        ...

    def purge(self, where: Where) -> Awaitable[int]:
        """Forget ended jobs; how many."""
        ...

    def pause(self, queue: str, paused: bool) -> Awaitable[None]:
        """Give out no jobs of the queue, or go on."""
        ...


class Transaction(Protocol):
    """A transaction of one running job, which may hold rows of the job's own. Its `settle` commits it.

    `begun` is done when it is open; `connection` and `blocking` are what the job's code writes
    through, on the loop and in a thread.
    """

    begun: concurrent.futures.Future[None]

    @property
    def connection(self) -> Any:
        """What code on the loop writes through."""
        ...

    @property
    def blocking(self) -> Any:
        """What code in a thread writes through."""
        ...

    def submit(self, batch: Sequence[Submission]) -> Awaitable[list[Receipt]]:
        """Store jobs with it."""
        ...

    def settle(self, settlement: Settlement) -> Awaitable[bool]:
        """Settle, and commit everything together; False, and nothing is written, if the lease is lost."""
        ...

    def undo(self) -> None:
        """Roll it back; from any thread, and harmless once it is over."""
        ...


class Transactional(Protocol):
    """What a store offers beside the verbs if applications may keep data of their own in it."""

    def transaction(self) -> Transaction:
        """Begin one, as soon as it is its turn; from any thread."""
        ...

    def submit_on(self, connection: Any, batch: Sequence[Submission]) -> list[Receipt]:
        """Store jobs in a transaction that the application has open; here and now, in this thread."""
        ...

    def committed(self) -> Awaitable[None]:
        """The application has committed such a transaction: whoever waits for jobs may look."""
        ...


def error_text(kind: str, message: str) -> str:
    """An error as a store writes it by itself: the form that `codec` reads."""
    return json.dumps({"type": kind, "message": message})
