"""Who watches may be slow, and sees no secret and nothing that could fool them (groups O and V, as far
as logs, events, metrics and traces are concerned), and what is released can be checked.
"""

import asyncio
import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest
from invariants import turns, until
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from asyncworkers import (
    GiveUp,
    Job,
    NotSerializable,
    Queue,
    Retry,
    RetryLater,
    Secret,
    Supervisor,
    WorkerCrashed,
    current_job,
    job,
    logs,
)
from asyncworkers.cli.documents import brief, full
from asyncworkers.events import AttemptStarted, JobSettled, SupervisorClosed
from asyncworkers.integrations.opentelemetry import OpenTelemetryTraces
from asyncworkers.integrations.prometheus import OTHER, PrometheusMetrics
from asyncworkers.store.memory import MemoryStore
from asyncworkers.testing import EventRecorder

ROOT = Path(__file__).parents[2]

CANARY = "CANARY-8d1f40"
SECRET = Secret(CANARY)


# ---- slow watchers


@pytest.mark.asyncio
async def test_fault_O06_who_reads_events_slowly_holds_up_nothing() -> None:
    """Jobs end as ever while nobody reads; of the events the newest wait, within the limit, and how many
    were dropped is told; the stream ends with the supervisor.
    """

    async def works() -> None:
        pass

    async with Supervisor() as supervisor:
        async with supervisor.subscribe(limit=10) as events:
            jobs = [await supervisor.submit(works) for _ in range(100)]
            await asyncio.gather(*jobs)
            assert repr(events) == "<Subscription 10 waiting, 390 dropped>"
            assert events.dropped == 390
            last = [await anext(events) for _ in range(10)]
            assert isinstance(last[-1], JobSettled)
            reading = asyncio.create_task(anext(events))
            await turns()
            with pytest.raises(RuntimeError, match="one reads a subscription at a time"):
                await anext(events)
            await supervisor.submit(works)
            assert type(await reading).__name__ == "JobSubmitted"
        later = supervisor.subscribe()
    seen = [event async for event in later]
    assert isinstance(seen[-1], SupervisorClosed)
    assert not supervisor._listeners


@pytest.mark.asyncio
async def test_fault_O06_a_client_that_reads_no_metrics_holds_up_nothing() -> None:
    """Whoever scrapes and does not read the answer waits alone: jobs go on, others are answered."""
    gate = asyncio.Event()

    async def stuck(_message: object) -> None:
        await gate.wait()

    async def works() -> int:
        return 1

    async with Supervisor() as supervisor:
        with PrometheusMetrics(supervisor, registry=CollectorRegistry()) as metrics:
            slow = asyncio.create_task(metrics.app({"type": "http", "headers": []}, None, stuck))
            await turns()
            assert await supervisor.call(works) == 1
            answers = []

            async def read(message: object) -> None:
                answers.append(message)

            await metrics.app({"type": "http", "headers": []}, None, read)
            assert b'state="succeeded",supervisor="supervisor"} 1.0' in answers[1]["body"]
            assert not slow.done()
            gate.set()
            await slow


@pytest.mark.asyncio
async def test_fault_O07_names_without_end_make_no_labels_without_end() -> None:
    """Of 100,000 functions only so many are told apart, whatever they are called; the rest is one.
    So of queues.
    """
    registry = CollectorRegistry()
    queues = [Queue(f"q{number}", 1) for number in range(50)]
    async with Supervisor(queues=queues) as supervisor:
        with PrometheusMetrics(supervisor, registry=registry, timings=True, names=10) as metrics:
            for number in range(200):
                await supervisor.call(job(_works, name=f"f{number}"))
            for number in range(200, 100_000):  # as it would hear of them
                metrics.timings(AttemptStarted(0.0, "id", f"f{number}", "default", (), 1, 1))
            families = [*text_string_to_metric_families(generate_latest(registry).decode())]
            jobs = {s.labels["job"] for f in families for s in f.samples if "job" in s.labels}
            found = {s.labels["queue"] for f in families for s in f.samples if "queue" in s.labels}
            assert jobs == {*(f"f{n}" for n in range(9)), OTHER} | {"f9"}
            assert len(found) == 11
            assert OTHER in found
            counted = _value(registry, "job_waiting_seconds_count", queue=OTHER, job=OTHER)
            assert counted == 100_000 - 10
            assert _value(registry, "workers", queue=OTHER) == 53 - 10


async def _works() -> None:
    pass


def _value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    labels["supervisor"] = "supervisor"
    return registry.get_sample_value(f"asyncworkers_{name}", labels)


# ---- what is secret stays so


class Sinks:
    """Everything that tells of jobs, put together to one text."""

    def __init__(self) -> None:
        self.told = io.StringIO()
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.registry = CollectorRegistry()
        self.recorder = EventRecorder()
        self.handler = logging.StreamHandler(self.told)
        self.handler.addFilter(logs.JobFilter())
        form = "%(levelname)s %(job_id)s %(job_name)s %(message)s"
        self.handler.setFormatter(logging.Formatter(form))

    def __enter__(self) -> Self:
        logging.root.addHandler(self.handler)
        return self

    def __exit__(self, *_: object) -> None:
        logging.root.removeHandler(self.handler)
        self.provider.shutdown()

    def look_at(self, supervisor: Supervisor, *things: object) -> None:
        """Have them say what they say now."""
        for thing in (supervisor, supervisor.explain(), supervisor.stats(), supervisor.health()):
            print(repr(thing), file=self.told)
        for thing in things:
            print(repr(thing), str(thing), file=self.told)
            if isinstance(thing, Job):
                print(thing.why, repr(thing.progress), file=self.told)
        self.told.write(generate_latest(self.registry).decode())

    def text(self) -> str:
        """All of it, events and spans included."""
        spans = "".join(span.to_json() for span in self.exporter.get_finished_spans())
        return self.told.getvalue() + repr(self.recorder.all) + spans


async def _raises(secret: Secret[str]) -> None:
    raise ValueError(f"cannot log in with {secret}", secret, {"password": secret})


async def _gives_up(secret: Secret[str]) -> None:
    raise GiveUp(secret)


async def _tries_later(secret: Secret[str]) -> None:
    raise RetryLater(0, f"not with {secret}")


async def _exits(secret: Secret[str]) -> None:
    raise SystemExit(secret)


async def _waits(secret: Secret[str]) -> None:
    current_job().report(1, 2, f"with {secret}")
    await asyncio.Event().wait()


async def _returns(secret: Secret[str]) -> Secret[str]:
    return secret


def _raises_blocking(secret: Secret[str]) -> None:
    raise KeyError(secret)


def _dies(secret: Secret[str]) -> None:
    sys.stderr.write(f"dying with {secret}\n")
    sys.stderr.flush()
    os._exit(3)


FAULTS = {
    "raises": job(_raises, name="raises"),
    "retries": job(_raises, name="retries", retry=Retry(3, on=ValueError, delay=0)),
    "gives up": job(_gives_up, name="gives_up", retry=Retry(3, on=ValueError)),
    "tries later": job(_tries_later, name="tries_later", retry=Retry(2, on=OSError)),
    "exits": job(_exits, name="exits"),
    "times out": job(_waits, name="times_out", timeout=0.01),
    "returns": job(_returns, name="returns"),
    "raises in a thread": job(_raises_blocking, name="raises_blocking"),
    "raises in a process": job(_raises_blocking, name="raises_in_process", cpu=True),
    "dies": job(_dies, name="dies", cpu=True),
    "waits": job(_waits, name="waits"),
}


@pytest.mark.asyncio
@pytest.mark.skipif(sys.platform == "win32", reason="children need socket pairs")
async def test_fault_V11_a_secret_is_in_no_sink() -> None:
    """Whatever becomes of a job with a Secret, in memory, in a thread or in a process: no event, log
    line, error, repr, explanation, metric or span shows the value, and what the job gets is it.
    """
    with Sinks() as sinks:
        supervisor = Supervisor(processes=1, listeners=[sinks.recorder])
        async with supervisor:
            with (
                PrometheusMetrics(supervisor, registry=sinks.registry, timings=True),
                OpenTelemetryTraces(supervisor, tracer_provider=sinks.provider),
            ):
                jobs = {name: await supervisor.submit(f, SECRET) for name, f in FAULTS.items()}
                waits = jobs.pop("waits")
                await until(lambda: waits.progress is not None)
                sinks.look_at(supervisor, waits)
                waits.cancel("enough")
                for one in [*jobs.values(), waits]:
                    outcome = await one.wait()
                    sinks.look_at(supervisor, one, outcome, one.exception())
                    print(repr(one.args), file=sinks.told)
                assert isinstance(jobs["dies"].exception(), WorkerCrashed)
                assert jobs["returns"].result().reveal() == CANARY
                for wrong in (
                    lambda: supervisor.submit_nowait(SECRET),  # type: ignore[arg-type]
                    lambda: supervisor.get(SECRET),  # type: ignore[arg-type]
                    lambda: job(_waits, retry=SECRET),  # type: ignore[call-overload]
                    lambda: job(_waits).bind(SECRET, SECRET),
                ):
                    with pytest.raises(TypeError) as refused:
                        wrong()
                    sinks.look_at(supervisor, refused.value)
                with pytest.raises(NotSerializable) as unsent:
                    await supervisor.submit(FAULTS["dies"], Secret([CANARY, lambda: 0, _Stuck()]))
                sinks.look_at(supervisor, unsent.value)
                raised = await supervisor.submit(FAULTS["raises"], SECRET)
                await until(raised.done)
                del raised  # nobody reads its error, so it is logged, with its traceback
        text = sinks.text()
    assert "failed and nobody awaited it" in text
    assert text.count("Secret(***)") > 20
    assert CANARY not in text


class _Stuck:
    def __reduce__(self) -> None:
        raise TypeError("not this one")


@pytest.mark.asyncio
async def test_fault_V11_a_stored_secret_is_masked_where_it_is_shown() -> None:
    """The store has the value, for the job must get it, and a mark beside it: what is shown of the
    record, arguments, result and error, has the mask.
    """
    seen = []

    @job(name="keeps")
    async def keeps(secret: Secret[str], password: str) -> Secret[str]:
        seen.append((secret.reveal(), password))
        return secret

    @job(name="leaks")
    async def leaks(secret: Secret[str]) -> None:
        raise ValueError(f"no way to amqp://me:{secret.reveal()}@host with {secret}")

    store = MemoryStore()
    with Sinks() as sinks:
        supervisor = Supervisor(store=store, functions=[keeps, leaks], listeners=[sinks.recorder])
        async with supervisor:
            kept = await supervisor.submit(keeps, SECRET, password=CANARY)
            leaked = await supervisor.submit(leaks, SECRET)
            assert (await kept).reveal() == CANARY
            await leaked.wait()
            sinks.look_at(supervisor, kept, leaked)
            with pytest.raises(NotSerializable) as refused:
                await supervisor.submit(leaks, CANARY)
            sinks.look_at(supervisor, refused.value)
            records = await store.get([kept.id, leaked.id])
        text = sinks.text()
    assert seen == [(CANARY, CANARY)]
    assert CANARY in records[0].args
    shown = json.dumps([[brief(one), full(one, reveal=False)] for one in records])
    assert '"secret": "***"' in shown
    assert CANARY not in shown + text


# ---- what is told forges nothing

HOSTILE = "a\r\nERROR forged\x1b[2J\x07\u202eb\u2066c\u200bd\x85e\u2028f\ud800"
BAD = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff]"
)


@pytest.mark.asyncio
async def test_fault_V12_what_jobs_say_forges_no_line_and_no_terminal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In messages of errors, reasons to cancel, names of classes and headers: what could begin a line,
    move a cursor or turn the writing around is shown as what it is.
    """

    async def raises() -> None:
        raise type(f"Bad{HOSTILE}", (ValueError,), {})(HOSTILE)

    async def waits() -> None:
        await asyncio.Event().wait()

    with Sinks() as sinks:
        async with Supervisor(listeners=[sinks.recorder]) as supervisor:
            with (
                PrometheusMetrics(supervisor, registry=sinks.registry, timings=True),
                OpenTelemetryTraces(supervisor, tracer_provider=sinks.provider),
            ):
                failed = await supervisor.submit(raises)
                stopped = await supervisor.submit(waits)
                await turns()
                stopped.cancel(HOSTILE)
                for one in (failed, stopped):
                    await one.wait()
                    print(repr(one), one.why, file=sinks.told)
                unread = await supervisor.submit(raises)
                await until(unread.done)
                del unread
        ended = [event for event in sinks.recorder.all if getattr(event, "error", None)]
        text = sinks.told.getvalue() + "".join(str(event.error) for event in ended)
        text += "".join(
            span.status.description or "" for span in sinks.exporter.get_finished_spans()
        )
    assert r"\x1b[2J" in text
    assert "u202e" in text
    assert BAD.search(text) is None
    assert not any(line.startswith("ERROR forged") for line in text.splitlines())


# ---- what is released


def test_fault_V16_every_dependency_is_pinned_with_its_hashes() -> None:
    """Nothing is installed for the suite, the docs, the benchmarks or the demo that is not, bit by bit,
    what was looked at when it was locked.
    """
    locked = sorted((ROOT / "requirements").glob("*.txt"))
    assert len(locked) >= 5
    for path in locked:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
        loose = [
            line.split()[0]
            for line in lines
            if not re.match(r"[\w.\[\]-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)
        ]
        assert loose == [], f"{path.name} pins these without a hash"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--require-hashes -r" in makefile


def test_fault_V16_the_wheel_can_be_built_again(tmp_path: Path) -> None:
    """Built twice from one tree, at different times, it is the same file; and it runs nothing when it is
    installed, for it has no scripts of its own but the entry point.
    """
    pytest.importorskip("hatchling")
    wheels = []
    for turn in ("one", "two"):
        folder = tmp_path / turn
        code = (
            "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
        )
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
        environment["PYTHONHASHSEED"] = str(len(wheels))
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        (wheel,) = folder.glob("*.whl")
        wheels.append((wheel.name, wheel.read_bytes()))
    assert wheels[0] == wheels[1]


def test_fault_V16_there_is_a_policy() -> None:
    """SECURITY.md says where to report, how soon something happens, and how a release can be checked."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for said in ("Reporting a vulnerability", "90 days", "SOURCE_DATE_EPOCH", "--require-hashes"):
        assert said in text, said
