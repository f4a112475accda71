"""What must be true of every run, whatever its plan: of its jobs at the end, and of its history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from jobs import EPSILON, Boom, Mark
from plan import Plan, Spec
from world import World

from asyncworkers import (
    GiveUp,
    Job,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobTimedOut,
    RetryLater,
    events,
)

ERRORS = {
    "boom": Boom,
    "later": RetryLater,
    "give up": GiveUp,
    "value error": ValueError,
    "returns a coroutine": TypeError,
    "system exit": JobFailed,
    "cancelled error": JobFailed,
    "cancels itself": JobFailed,
}


def check_end(world: World) -> None:
    """Every job has ended once, as planned unless it was disturbed, and everybody saw the same."""
    strict = world.plan.ending == "normal"
    for spec in world.plan.specs():
        job = world.jobs.get(spec.key)
        if job is None:
            value, error = world.seen.get(spec.key, (None, None))
            if value is None and error is None:
                continue
        elif not job.done():
            world.wrong(f"job {spec.key} has not ended: {job!r}")
            continue
        else:
            error = job.exception()
            value = None if error is not None else job.result()
            seen = world.seen.get(spec.key)
            if seen is not None and (seen[0] != value or seen[1] is not error):
                world.wrong(f"job {spec.key} ended with {value!r}, {error!r}; seen was {seen}")
        if error is None and value != spec.key:
            world.wrong(f"job {spec.key} returned {value!r}")
        for problem in _unexplained(spec, job, error, world, strict):
            world.wrong(f"job {spec.key} {problem}")


def _unexplained(
    spec: Spec, job: Job[Any] | None, error: Any, world: World, strict: bool
) -> Iterable[str]:
    """What the job's end has that its plan does not explain."""
    if isinstance(error, JobExpired):
        if spec.expires is None:
            yield "expired, but never expires"
        elif job is not None and not job.attempt and job.finished is not None:
            lived = (job.finished - job.created).total_seconds()
            waited = world.plan.maxsize is not None  # for room, perhaps, before it was accepted
            if lived < spec.expires - 1e-4 or (lived > spec.expires + 1e-4 and not waited):
                yield f"expired after {lived} s instead of {spec.expires} s"
        return
    if isinstance(error, JobCancelled):
        if strict and spec.key not in world.disturbed:
            yield f"was cancelled by nobody: {error}"
        return
    if isinstance(error, JobTimedOut):
        if spec.timeout is None:
            yield "timed out, but has no timeout"
        elif spec.children or spec.blocking or (spec.stubborn and world.tally["strangled"]):
            return  # who knows how long it takes
        elif spec.seconds < spec.timeout - EPSILON:
            yield f"timed out after {spec.timeout} s, but takes {spec.seconds} s"
        return
    if world.tally["strangled"] and isinstance(error, JobFailed):
        return  # its worker's task was cancelled behind the supervisor's back
    late = spec.timeout is not None and spec.seconds > spec.timeout + EPSILON
    if spec.stubborn and world.tally["strangled"]:
        late = False  # it may have swallowed that, and ended the sooner
    if late and not spec.blocking:
        yield f"takes {spec.seconds} s and did not time out after {spec.timeout} s"
    if error is None:
        if not spec.succeeds and spec.timeout is None:
            yield "succeeded, but always fails"
    elif not spec.fails:
        yield f"failed with {error!r}, but never fails"
    elif not isinstance(error, ERRORS[spec.mishap]):
        yield f"failed with {error!r} instead of {ERRORS[spec.mishap].__name__}"
    elif spec.succeeds and spec.timeout is None:
        yield f"failed with {error!r}, but succeeds in attempt {spec.tries}"
    if spec.timeout is None and world.begun[spec.key] != spec.tries:
        yield f"ran {world.begun[spec.key]} times, not {spec.tries}"


@dataclass
class _Life:
    """What the events have told of one job so far."""

    queue: str
    number: int  # in the order of submission
    ready_at: float
    spec: Spec | None = None
    attempt: int = 0
    started: float | None = None
    next_start: float = 0.0
    settled: str | None = None
    abandoned: set[int] = field(default_factory=set)
    lent: int = 0
    in_body: int = 0
    expires_at: float | None = None
    must_end_by: float | None = None  # since it was cancelled


class History:
    """Replays the history of a run against what the events must mean."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._plan: Plan = world.plan
        self._lives: dict[str, _Life] = {}
        self._ids: dict[int, str] = {}
        self._declared = {queue.name: queue.workers or 0 for queue in world.supervisor.queues}
        self._workers = dict(self._declared)
        self._paused: set[str] = set()
        self._in_threads: set[tuple[int, int]] = set()
        self._before: events.Event | None = None  # the event before this one
        self._now = 0.0
        self._closed = False
        specs = {spec.key: spec for spec in world.plan.specs()}
        self._specs = specs
        # Whose job is whose: by the Jobs that clients hold, and by what running jobs said.
        self._spec_of: dict[str, Spec] = {job.id: specs[key] for key, job in world.jobs.items()}
        for mark in world.history:
            if isinstance(mark, Mark) and mark.job_id is not None and mark.key in specs:
                self._spec_of[mark.job_id] = specs[mark.key]
                self._ids[mark.key] = mark.job_id

    def check(self) -> None:
        """Go through the history; every violation goes to the world's problems."""
        for entry in self._world.history:
            if entry.at < self._now - EPSILON:
                self._wrong(entry, "time went back")
            self._now = entry.at
            method = getattr(self, f"_on_{type(entry).__name__}", None)
            if method is not None:
                method(entry)
            if isinstance(entry, events.Event):
                self._before = entry
        for job_id, life in self._lives.items():
            if life.settled is None:
                self._world.wrong(f"{job_id} was never settled")

    def _wrong(self, entry: object, problem: str) -> None:
        self._world.problems.append(f"{problem}: {entry}")

    # ---- marks of jobs

    def _on_Mark(self, mark: Mark) -> None:
        job_id = self._ids.get(mark.key)
        life = self._lives.get(job_id) if job_id is not None else None
        if life is None:
            return
        if mark.what == "lend":
            life.lent += 1
        elif mark.what == "back":
            life.lent -= 1
        elif mark.what == "begin":
            life.in_body += 1
            if life.started is None and life.queue != "threads":
                self._wrong(mark, "the job's code begins outside an attempt")
        elif mark.what == "end":
            life.in_body -= 1
        elif mark.what == "cancel" and life.started is not None and life.must_end_by is None:
            life.must_end_by = mark.at + self._plan.unwind
        elif mark.what == "thread":
            started = [pair for pair in self._in_threads if pair[0] == life.number]
            self._in_threads.discard(min(started, default=(0, 0)))

    # ---- events of jobs

    def _on_JobSubmitted(self, event: events.JobSubmitted) -> None:
        if event.job_id in self._lives:
            self._wrong(event, "submitted twice")
        spec = self._spec_of.get(event.job_id)
        delay = spec.delay if spec is not None else 0.0
        life = _Life(event.queue, len(self._lives), event.at + delay, spec)
        life.next_start = event.at + delay
        if spec is not None and spec.expires is not None:
            life.expires_at = event.at + spec.expires
        self._lives[event.job_id] = life

    def _on_AttemptStarted(self, event: events.AttemptStarted) -> None:
        life = self._life(event)
        if life is None:
            return
        life.attempt += 1
        spec = life.spec
        allowed = 1 if spec is None else spec.attempts or 1
        if event.attempt != life.attempt or (spec is not None and life.attempt > allowed):
            self._wrong(event, f"attempt {event.attempt} instead of {life.attempt} of {allowed}")
        if life.started is not None:
            self._wrong(event, "an attempt starts while another one runs")
        if life.settled is not None:
            self._wrong(event, "an attempt of a job that has ended")
        if event.at < life.next_start - EPSILON:
            self._wrong(event, f"starts before its time, {life.next_start:.3f}")
        if life.expires_at is not None and event.at > life.expires_at + EPSILON:
            self._wrong(event, f"starts after it has expired, at {life.expires_at:.3f}")
        if event.queue in self._paused:
            self._wrong(event, "starts although its queue is paused")
        if self._closed:
            self._wrong(event, "starts although the supervisor has closed")
        life.started = event.at
        if event.queue == "threads":
            self._in_threads.add((life.number, life.attempt))
        self._check_room(event)
        self._check_order(event, life)

    def _check_room(self, event: events.AttemptStarted) -> None:
        running = [
            life
            for life in self._lives.values()
            if life.queue == event.queue and life.started is not None and life.lent == 0
        ]
        count = len(self._in_threads) if event.queue == "threads" else len(running)
        if count > self._workers[event.queue]:
            self._wrong(event, f"{count} run on {self._workers[event.queue]} workers")

    def _check_order(self, event: events.AttemptStarted, life: _Life) -> None:
        """No other job that waits in line should have gone first."""
        if life.spec is None or (event.queue == "default" and self._plan.ageing is not None):
            return
        mine = life.spec.priority, life.spec.depth
        for other in self._lives.values():
            spec = other.spec
            if other is life or spec is None or other.queue != life.queue:
                continue
            if other.started is not None or other.settled is not None:
                continue
            waits = other.ready_at < event.at - EPSILON
            theirs = spec.priority, spec.depth
            if waits and theirs > mine:
                self._wrong(event, f"goes before job {spec.key}, which comes first by {theirs}")
            in_line = not (life.spec.in_map or spec.in_map)
            if waits and theirs == mine and in_line and other.ready_at < life.ready_at - EPSILON:
                self._wrong(event, f"goes before job {spec.key}, in line since {other.ready_at}")

    def _on_AttemptEnded(self, event: events.AttemptEnded) -> None:
        life = self._life(event)
        if life is None:
            return
        if life.started is None or event.attempt != life.attempt:
            self._wrong(event, "an attempt ends that does not run")
            return
        self._check_duration(event, life)
        before = self._before
        if isinstance(before, events.AttemptStarted) and before.job_id == event.job_id:
            # A listener cancelled it as its start was told: no thread has been given it.
            self._in_threads.discard((life.number, life.attempt))
        life.started = None
        spec = life.spec
        if event.decision == "RetryAfter":
            delay = 0.0 if spec is None else spec.delay_after(life.attempt)
            life.ready_at = life.next_start = event.at + delay
        self._world.tally[f"{event.outcome} {event.decision}"] += 1

    def _check_duration(self, event: events.AttemptEnded, life: _Life) -> None:
        spec = life.spec
        took = event.at - (life.started or 0.0)
        if abs(took - event.seconds) > EPSILON:
            self._wrong(event, f"took {took} s")
        if life.must_end_by is not None and event.at > life.must_end_by + EPSILON:
            self._wrong(event, f"was cancelled and had to end by {life.must_end_by:.3f}")
        life.must_end_by = None
        if spec is not None and spec.timeout is not None:
            if took > spec.timeout + self._plan.unwind + EPSILON:
                self._wrong(event, f"ran {took:.3f} s with a timeout of {spec.timeout} s")
            if event.outcome == "TimedOut" and took < spec.timeout - EPSILON:
                self._wrong(event, f"timed out after {took:.3f} s instead of {spec.timeout} s")
        still = life.in_body and event.queue != "threads"
        if still and event.attempt not in life.abandoned:
            self._wrong(event, "the attempt ended while its code runs on, and was not abandoned")

    def _on_AttemptAbandoned(self, event: events.AttemptAbandoned) -> None:
        life = self._life(event)
        if life is not None:
            life.abandoned.add(event.attempt)
            self._world.tally["abandoned"] += 1

    def _on_JobSettled(self, event: events.JobSettled) -> None:
        life = self._life(event)
        if life is None:
            return
        if life.settled is not None:
            self._wrong(event, "settled twice")
        if life.started is not None:
            self._wrong(event, "settled while an attempt runs")
        life.settled = event.state
        self._world.tally[event.state] += 1

    def _life(self, event: Any) -> _Life | None:
        life = self._lives.get(event.job_id)
        if life is None:
            self._wrong(event, "of a job that was never submitted")
        elif life.settled is not None and not isinstance(event, events.AttemptAbandoned):
            self._wrong(event, "of a job that was settled before")
        return life

    # ---- events of queues and the supervisor

    def _on_QueuePaused(self, event: events.QueuePaused) -> None:
        self._paused.add(event.queue)

    def _on_QueueResumed(self, event: events.QueueResumed) -> None:
        self._paused.discard(event.queue)

    def _on_QueueResized(self, event: events.QueueResized) -> None:
        self._workers[event.queue] = event.workers

    def _on_SupervisorClosed(self, event: events.SupervisorClosed) -> None:
        self._closed = True

    def _on_SupervisorStarted(self, event: events.SupervisorStarted) -> None:
        self._closed = False
        self._paused.clear()
        self._workers = dict(self._declared)

    def _on_ListenerDropped(self, event: events.ListenerDropped) -> None:
        self._world.tally["listener dropped"] += 1
        if "bad_listener" not in event.listener:
            self._wrong(event, "a good listener was dropped")


def check_run(world: World) -> None:
    """Check everything about a run that has ended."""
    check_end(world)
    if world.plan.told:
        History(world).check()
        if world.tally["bad listener"] != world.tally["listener dropped"]:
            world.wrong("a bad listener was told again, or dropped in silence")
