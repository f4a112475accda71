"""Prometheus: the figures of supervisors as metrics, read when they are scraped.

What `stats()` tells costs nothing until somebody scrapes. With `timings=True` a listener also notes
how long jobs waited and ran, and how the event loop stalled: then every job is told of, and pays
for it. Labels are names of supervisors, queues and functions, and never more than a bounded number.
"""

from __future__ import annotations

import asyncio
import operator
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import CancelledError
from typing import Any, Self, TypeAlias

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
except ImportError as missing:
    raise ImportError(
        "metrics need prometheus-client: pip install 'asyncworkers[prometheus]'"
    ) from (missing)

from asyncworkers import Backlog, QueueStats, Stats, Supervisor
from asyncworkers.errors import StoreUnavailable
from asyncworkers.events import AttemptEnded, AttemptStarted, Event, LoopStalled

__all__ = ["BUCKETS", "OTHER", "PrometheusMetrics"]

BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
"""Seconds: the upper bounds of the histograms' buckets."""

OTHER = "(other)"
"""The label of all names beyond those that are told apart."""

PATIENCE = 1.0
"""Seconds that a scrape in another thread waits for the event loop."""

Scope: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# What is told of each queue: the figure of QueueStats, the metric, what it means.
GAUGES = (
    ("workers", "workers", "Jobs of the queue that may run at once"),
    ("running", "jobs_running", "Attempts under way"),
    ("queued", "jobs_queued", "Jobs that wait for a worker"),
    ("scheduled", "jobs_scheduled", "Jobs that wait for their time"),
    ("lent", "slots_lent", "Slots lent by jobs that await jobs"),
    ("paused", "queue_paused", "1 while the queue starts no jobs"),
    ("held_threads", "threads_held", "Threads held by abandoned attempts"),
)
COUNTERS = (
    ("submitted", "jobs_submitted", "Jobs accepted"),
    ("retried", "attempts_retried", "Attempts that were, or will be, repeated"),
    ("timed_out", "attempts_timed_out", "Attempts that timed out"),
    ("abandoned", "attempts_abandoned", "Attempts that did not end when cancelled"),
    ("logs_dropped", "logs_dropped", "Log records of child processes that were lost"),
)
ENDS = ("succeeded", "failed", "cancelled")
OUTCOMES = frozenset({"Succeeded", "Failed", "TimedOut", "Cancelled", "Lost"})


class PrometheusMetrics:
    """The metrics of a supervisor: `PrometheusMetrics(supervisor)`, and they are in the registry.

    - `registry`: the one to be in; prometheus_client's own if None. Several supervisors may be in
      one registry, told apart by their names.
    - `timings`: also histograms of waiting and running seconds by queue and function, and the
      stalls of the event loop. Costs each job about as much as any listener does.
    - `buckets`: upper bounds of the histograms, in seconds.
    - `names`: so many queues, and so many pairs of queue and function, are told apart; the rest are
      counted together under the name "(other)".

    Serve them as ever (`prometheus_client.start_http_server`, or the registry's own ways), or with
    `app`, an ASGI application to mount at "/metrics", which asks the store of stored queues as well.
    `close()` takes them out of the registry. Raises ValueError if another supervisor of this name is
    in it.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        registry: CollectorRegistry | None = None,
        timings: bool = False,
        buckets: Iterable[float] = BUCKETS,
        names: int = 200,
    ) -> None:
        if not isinstance(supervisor, Supervisor):
            raise TypeError(f"supervisor must be a Supervisor, not {type(supervisor).__name__}")
        if type(names) is not int or names < 1:
            raise ValueError(f"names must be an int of 1 or more, not {names!r}")
        bounds = tuple(float(bound) for bound in buckets)
        if not bounds or list(bounds) != sorted(set(bounds)) or bounds[0] <= 0:
            raise ValueError(f"buckets must be ascending seconds above 0, not {bounds}")
        self._supervisor = supervisor
        self._registry = REGISTRY if registry is None else registry
        self._names = names
        self._timings = _Timings(bounds, names) if timings else None
        self._stored: dict[str, Backlog] = {}
        self._store_up = True
        self._last: Stats | None = None
        self._collector = _collector_of(self._registry)
        self._collector.add(self)
        self._stop = supervisor.listen(self._timings) if self._timings is not None else None

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor whose metrics these are."""
        return self._supervisor

    def close(self) -> None:
        """Take these metrics out of the registry, and stop listening; may be called twice."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        self._collector.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<PrometheusMetrics of {self._supervisor.name!r}>"

    # ---- serving

    async def refresh(self) -> None:
        """Ask the store what waits in it, for the next scrape; never raises if it is away."""
        if self._supervisor.state not in ("open", "draining"):
            return
        try:
            backlog = await self._supervisor.backlog()
            self._stored = {name: one for name, one in backlog.items() if one.stored}
            self._store_up = True
        except StoreUnavailable:
            self._store_up = False

    async def app(self, scope: Scope, receive: object, send: Send) -> None:  # noqa: ARG002
        """An ASGI application that answers with all metrics of the registry."""
        if scope["type"] != "http":
            return
        await self.refresh()
        accepted = dict(scope.get("headers", ())).get(b"accept", b"").decode("latin-1")
        encode, kind = choose_encoder(accepted)
        body = encode(self._registry)
        headers = [
            (b"content-type", kind.encode("latin-1")),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    # ---- what the collector asks

    def figures(self) -> Iterator[tuple[str, QueueStats]]:
        """The figures of the queues, each with the name it is told under.

        In another thread than the loop's the loop is asked; if it does not answer, its last figures
        stand.
        """
        stats = self._stats()
        for place, (name, queue) in enumerate(stats.queues.items()):
            yield (name if place < self._names else OTHER), queue

    def _stats(self) -> Stats:
        loop = self._supervisor.loop
        if loop is None or not loop.is_running() or _running_loop() is loop:
            self._last = self._supervisor.stats()
            return self._last
        looking = self._look()
        try:
            asyncio.run_coroutine_threadsafe(looking, loop).result(PATIENCE)
        except (TimeoutError, CancelledError):  # it is busy, or ends this very moment
            pass
        except RuntimeError:  # it was closed this very moment
            looking.close()
        return Stats({}) if self._last is None else self._last

    async def _look(self) -> None:
        self._last = self._supervisor.stats()
        await self.refresh()

    def backlog(self, name: str) -> Backlog | None:
        """What the store said last about a queue."""
        return self._stored.get(name)

    @property
    def store_up(self) -> bool:
        """Whether the store answered when it was last asked."""
        return self._store_up

    @property
    def timings(self) -> _Timings | None:
        """What the listener has noted, if there is one."""
        return self._timings


class _Histogram:
    """How many values fell into each bucket, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * (buckets + 1)
        self.total = 0.0


class _Timings:
    """A listener that notes how long attempts waited and ran, by queue and function."""

    def __init__(self, bounds: tuple[float, ...], names: int) -> None:
        self.bounds = bounds
        self._names = names
        self.waiting: dict[tuple[str, str], _Histogram] = {}
        self.running: dict[tuple[str, str, str], _Histogram] = {}
        self.stalls = 0
        self.stalled = 0.0

    def __call__(self, event: Event) -> None:
        kind = type(event)
        if kind is AttemptStarted:
            assert isinstance(event, AttemptStarted)
            self._add(self._of(self.waiting, event.queue, event.job_name), event.waited)
        elif kind is AttemptEnded:
            assert isinstance(event, AttemptEnded)
            outcome = event.outcome if event.outcome in OUTCOMES else OTHER
            key = event.queue, event.job_name, outcome
            found = self.running.get(key)
            if found is None:
                queue, name = self._told_apart(event.queue, event.job_name)
                found = self._of(self.running, queue, name, outcome)
            self._add(found, event.seconds)
        elif isinstance(event, LoopStalled):
            self.stalls += 1
            self.stalled += event.seconds

    def _told_apart(self, queue: str, name: str) -> tuple[str, str]:
        """The labels of a function: its own, while there are few enough."""
        if (queue, name) in self.waiting or len(self.waiting) < self._names:
            return queue, name
        return OTHER, OTHER

    def _of(self, where: dict[Any, _Histogram], queue: str, name: str, *more: str) -> _Histogram:
        found = where.get((queue, name, *more))
        if found is None:
            key = (*self._told_apart(queue, name), *more)
            found = where.setdefault(key, _Histogram(len(self.bounds)))
        return found

    def _add(self, histogram: _Histogram, seconds: float) -> None:
        histogram.counts[bisect_left(self.bounds, seconds)] += 1
        histogram.total += seconds

    def cumulated(self, histogram: _Histogram) -> tuple[list[tuple[str, float]], float]:
        """The buckets as Prometheus has them, each with all below it, and the sum."""
        counts, sum_so_far = list(histogram.counts), 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), counts, strict=True):
            sum_so_far += count
            buckets.append((bound, float(sum_so_far)))
        return buckets, histogram.total


class _Collector(Collector):
    """All supervisors of one registry: a metric may be in it once only."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._members: dict[str, PrometheusMetrics] = {}

    def add(self, metrics: PrometheusMetrics) -> None:
        name = metrics.supervisor.name
        if name in self._members:
            raise ValueError(
                f"metrics of a supervisor {name!r} are in this registry already: "
                "close those, or give one of the two another name, Supervisor(name=...)"
            )
        if not self._members:
            self._registry.register(self)
        self._members[name] = metrics

    def remove(self, metrics: PrometheusMetrics) -> None:
        if self._members.get(metrics.supervisor.name) is metrics:
            del self._members[metrics.supervisor.name]
            if not self._members:
                self._registry.unregister(self)

    def describe(self) -> list[Metric]:
        """Nothing: what there is depends on who is a member."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of all members, each metric once."""
        page = _Page()
        for name, metrics in tuple(self._members.items()):
            _tell_of_supervisor(page, name, metrics)
            for label, queue in metrics.figures():
                _tell_of_queue(page, (name, label), queue, metrics.backlog(queue.name))
            if metrics.timings is not None:
                _tell_of_timings(page, name, metrics.timings)
        yield from page.metrics()


class _Page:
    """Metrics in the making: what comes under the same labels twice is put together."""

    def __init__(self) -> None:
        self._families: dict[str, Any] = {}
        self._values: dict[str, dict[tuple[str, ...], float]] = {}

    def add(
        self,
        kind: Any,
        name: str,
        text: str,
        labels: tuple[str, ...],
        key: tuple[str, ...],
        value: float,
        put_together: Callable[[float, float], float] = operator.add,
    ) -> None:
        if name not in self._families:
            self._families[name] = kind(f"asyncworkers_{name}", text, labels=labels)
            self._values[name] = {}
        there = self._values[name]
        there[key] = put_together(there[key], value) if key in there else value

    def histogram(
        self, name: str, text: str, labels: tuple[str, ...], key: tuple[str, ...], parts: Any
    ) -> None:
        if name not in self._families:
            self._families[name] = HistogramMetricFamily(
                f"asyncworkers_{name}", text, labels=labels
            )
            self._values[name] = {}
        self._families[name].add_metric(key, *parts)

    def metrics(self) -> Iterator[Metric]:
        for name, family in self._families.items():
            for key, value in self._values[name].items():
                family.add_metric(key, value)
            yield family


QUEUE = ("supervisor", "queue")


def _tell_of_supervisor(page: _Page, name: str, metrics: PrometheusMetrics) -> None:
    health = metrics.supervisor.health(patience=PATIENCE)
    one = ("supervisor",)
    page.add(GaugeMetricFamily, "alive", "1 if the supervisor is alive", one, (name,), health.alive)
    page.add(
        GaugeMetricFamily, "ready", "1 if the supervisor accepts jobs", one, (name,), health.ready
    )
    text = "1 if the store answered when it was last asked"
    page.add(GaugeMetricFamily, "store_up", text, one, (name,), metrics.store_up)


def _tell_of_queue(
    page: _Page, key: tuple[str, str], queue: QueueStats, stored: Backlog | None
) -> None:
    for figure, metric, text in GAUGES:
        page.add(GaugeMetricFamily, metric, text, QUEUE, key, getattr(queue, figure))
    for figure, metric, text in COUNTERS:
        page.add(CounterMetricFamily, metric, text, QUEUE, key, getattr(queue, figure))
    for end in ENDS:
        labels, ended = (*QUEUE, "state"), (*key, end)
        page.add(
            CounterMetricFamily, "jobs", "Jobs that have ended", labels, ended, getattr(queue, end)
        )
    waiting = queue.queued if stored is None else stored.waiting
    oldest = (queue.oldest or 0.0) if stored is None else stored.oldest
    text = "Jobs that could start now, of a stored queue in all processes"
    page.add(GaugeMetricFamily, "backlog_jobs", text, QUEUE, key, waiting)
    text = "Seconds that the oldest of the backlog has waited"
    page.add(GaugeMetricFamily, "backlog_oldest_seconds", text, QUEUE, key, oldest, max)
    if queue.children:
        memory = sum(child.memory or 0 for child in queue.children)
        text = "Child processes"
        page.add(GaugeMetricFamily, "children", text, QUEUE, key, len(queue.children))
        text = "Resident memory of the child processes"
        page.add(GaugeMetricFamily, "children_memory_bytes", text, QUEUE, key, memory)


def _tell_of_timings(page: _Page, name: str, timings: _Timings) -> None:
    labels = ("supervisor", "queue", "job")
    for key, one in tuple(timings.waiting.items()):
        text = "Seconds that jobs waited for a worker before an attempt"
        page.histogram("job_waiting_seconds", text, labels, (name, *key), timings.cumulated(one))
    for ran, one in tuple(timings.running.items()):
        text = "Seconds that attempts took"
        ended = (*labels, "outcome")
        page.histogram("attempt_seconds", text, ended, (name, *ran), timings.cumulated(one))
    one_label, key_of = ("supervisor",), (name,)
    text = "Steps that blocked the event loop"
    page.add(CounterMetricFamily, "loop_stalls", text, one_label, key_of, timings.stalls)
    text = "Seconds for which the event loop was blocked"
    page.add(CounterMetricFamily, "loop_stalled_seconds", text, one_label, key_of, timings.stalled)


def _collector_of(registry: CollectorRegistry) -> _Collector:
    """The one collector that a registry has of ours; it is kept there, and goes with it."""
    there = vars(registry)
    if "asyncworkers" not in there:
        there["asyncworkers"] = _Collector(registry)
    found: _Collector = there["asyncworkers"]
    return found


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
