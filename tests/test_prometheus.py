"""Metrics: what a scrape shows is what happened, and what nobody scrapes costs nothing."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from asyncworkers import Retry, StoreUnavailable, Supervisor, job
from asyncworkers.integrations.prometheus import PrometheusMetrics
from asyncworkers.store.memory import MemoryStore


async def works() -> int:
    """Return at once."""
    return 1


async def fails() -> None:
    """Raise at once."""
    raise ValueError("no")


def value(registry, name, **labels):
    """The value of a sample of the default supervisor, as a scrape shows it."""
    labels.setdefault("supervisor", "supervisor")
    return registry.get_sample_value(f"asyncworkers_{name}", labels)


@pytest.mark.asyncio
async def test_a_scrape_shows_what_happened():
    """Counts by queue and state, what waits and runs now, and whether it is alive and ready."""
    registry, gate = CollectorRegistry(), asyncio.Event()
    async with Supervisor(workers=1) as supervisor:
        with PrometheusMetrics(supervisor, registry=registry):
            await supervisor.call(works)
            with pytest.raises(ValueError, match="no"):
                await supervisor.call(job(fails, retry=Retry(2, on=ValueError, delay=0)))
            running = await supervisor.submit(gate.wait)
            waiting = await supervisor.submit(gate.wait)
            while running.state != "running":
                await asyncio.sleep(0)
            text = generate_latest(registry).decode()
            families = {family.name: family for family in text_string_to_metric_families(text)}
            here = {"queue": "default"}
            assert value(registry, "jobs_total", **here, state="succeeded") == 1
            assert value(registry, "jobs_total", **here, state="failed") == 1
            assert value(registry, "jobs_total", **here, state="cancelled") == 0
            assert value(registry, "jobs_submitted_total", **here) == 4
            assert value(registry, "attempts_retried_total", **here) == 1
            assert value(registry, "jobs_running", **here) == 1
            assert value(registry, "jobs_queued", **here) == 1
            assert value(registry, "backlog_jobs", **here) == 1
            assert value(registry, "backlog_oldest_seconds", **here) > 0
            assert value(registry, "backlog_oldest_seconds", queue="threads") == 0
            assert value(registry, "workers", **here) == 1
            assert value(registry, "alive") == value(registry, "ready") == 1
            assert families["asyncworkers_jobs"].type == "counter"
            assert "asyncworkers_attempt_seconds" not in families
            assert waiting.state == "queued"
            gate.set()
    assert generate_latest(registry) == b""


@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_timings_are_histograms_by_queue_and_function():
    """How long attempts waited since they could run, and how long they took, by outcome."""
    registry = CollectorRegistry()

    async def sleeps(seconds):
        await asyncio.sleep(seconds)

    async with Supervisor(workers=1) as supervisor:
        metrics = PrometheusMetrics(supervisor, registry=registry, timings=True, buckets=[1, 3])
        await supervisor.submit(job(sleeps, name="sleeps"), 2)
        await supervisor.call(job(sleeps, name="sleeps", delay=0.5), 4)
        await supervisor.submit(job(sleeps, name="never", timeout=0.5), 9)
        await (await supervisor.submit(works))
        here = {"queue": "default", "job": "sleeps"}
        waited = {
            b: value(registry, "job_waiting_seconds_bucket", **here, le=b) for b in ("1.0", "3.0")
        }
        assert waited == {"1.0": 1, "3.0": 2}  # none, and one: its delay is no waiting
        took = [
            value(registry, "attempt_seconds_bucket", **here, outcome="Succeeded", le=b)
            for b in ("1.0", "3.0", "+Inf")
        ]
        assert took == [0, 1, 2]
        assert value(registry, "attempt_seconds_sum", **here, outcome="Succeeded") == pytest.approx(
            6
        )
        assert (
            value(
                registry, "attempt_seconds_count", queue="default", job="never", outcome="TimedOut"
            )
            == 1
        )
        metrics.close()
        metrics.close()
        assert not supervisor._listeners


@pytest.mark.asyncio
async def test_nobody_listens_without_timings():
    """What the counts need is there anyway, so jobs stay on their shortest path."""
    async with Supervisor() as supervisor:
        with PrometheusMetrics(supervisor, registry=CollectorRegistry()):
            assert not supervisor._listeners


@pytest.mark.asyncio
async def test_several_supervisors_share_a_registry():
    """Each metric once, told apart by the supervisor's name; two of one name are refused."""
    registry = CollectorRegistry()
    async with Supervisor(name="one") as one, Supervisor(name="two") as two:
        with PrometheusMetrics(one, registry=registry), PrometheusMetrics(two, registry=registry):
            await one.call(works)
            text = generate_latest(registry).decode()
            assert text.count("# TYPE asyncworkers_jobs_total counter") == 1
            done = {"queue": "default", "state": "succeeded"}
            assert value(registry, "jobs_total", supervisor="one", **done) == 1
            assert value(registry, "jobs_total", supervisor="two", **done) == 0
            with pytest.raises(
                ValueError, match="metrics of a supervisor 'one' are in this registry"
            ):
                PrometheusMetrics(one, registry=registry)
        with PrometheusMetrics(one, registry=registry):
            assert 'supervisor="two"' not in generate_latest(registry).decode()


def test_a_registry_is_let_go():
    """What remembers the collectors of registries keeps none of them alive."""
    registry = CollectorRegistry()
    PrometheusMetrics(Supervisor(), registry=registry)
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    assert gone() is None


@pytest.mark.asyncio
async def test_a_scrape_in_another_thread_asks_the_loop():
    """As of prometheus_client's own server; while the loop is blocked the last figures stand."""
    registry = CollectorRegistry()
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        async with Supervisor(stall=None) as supervisor:
            with PrometheusMetrics(supervisor, registry=registry):
                await supervisor.call(works)
                text = await loop.run_in_executor(pool, generate_latest, registry)
                line = b'jobs_total{queue="default",state="succeeded",supervisor="supervisor"} 1.0'
                assert line in text
                blocked = pool.submit(generate_latest, registry)
                text = blocked.result()  # this blocks the loop
                assert line in text
                assert b'alive{supervisor="supervisor"} 0.0' in text
                await asyncio.sleep(0)  # what was asked meanwhile


@pytest.mark.asyncio
async def test_a_stored_backlog_is_asked_for_at_a_scrape():
    """The ASGI application asks the store; while that is away, the last answer stands and it says so."""
    away = False

    class Store(MemoryStore):
        def counts(self):
            if away:
                raise StoreUnavailable("unplugged")
            return super().counts()

    @job(name="nobody")
    async def nobody() -> None:
        pass

    registry = CollectorRegistry()
    supervisor = Supervisor(0, store=Store, functions=[nobody])
    async with supervisor:
        with PrometheusMetrics(supervisor, registry=registry) as metrics:
            await supervisor.submit(nobody)
            await supervisor.submit(nobody)
            for away in (False, True):
                sent = []

                async def send(message, sent=sent):
                    sent.append(message)

                await metrics.app({"type": "http", "headers": []}, None, send)
                assert sent[0]["status"] == 200
                assert b"text/plain" in dict(sent[0]["headers"])[b"content-type"]
                assert (
                    b'backlog_jobs{queue="default",supervisor="supervisor"} 2.0' in sent[1]["body"]
                )
                assert value(registry, "store_up") == (not away)


def test_senseless_settings_are_refused():
    """By name, before anything is registered."""
    registry = CollectorRegistry()
    for wrong in ({"names": 0}, {"names": True}, {"buckets": []}, {"buckets": [2, 1]}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PrometheusMetrics(Supervisor(), registry=registry, **wrong)
    with pytest.raises(TypeError, match="must be a Supervisor"):
        PrometheusMetrics("supervisor")
    assert generate_latest(registry) == b""


@pytest.mark.asyncio
async def test_stalls_of_the_loop_are_counted():
    """With timings: how often, and for how long altogether."""
    registry, over = CollectorRegistry(), threading.Event()

    async def blocks():
        over.wait(0.1)

    async with Supervisor(stall=0.01) as supervisor:
        with PrometheusMetrics(supervisor, registry=registry, timings=True):
            await supervisor.call(blocks)
            while not value(registry, "loop_stalls_total"):
                await asyncio.sleep(0.001)
            assert value(registry, "loop_stalled_seconds_total") > 0
