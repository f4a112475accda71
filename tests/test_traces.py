"""Traces: the spans of a job belong together, from the submission to what its code does, wherever that is."""

import asyncio
import json
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from traced_jobs import makes_a_span, makes_a_span_on_the_loop, set_up_tracing

from asyncworkers import Queue, Retry, Supervisor, WorkerCrashed, job
from asyncworkers.escort import unpacked
from asyncworkers.integrations.opentelemetry import OpenTelemetryTraces
from asyncworkers.store.memory import MemoryData, MemoryStore

CHILDREN = pytest.mark.skipif(sys.platform == "win32", reason="children need socket pairs")


class Traced:
    """A tracer provider that keeps what ends."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("the application")

    def traces(self, supervisor):
        return OpenTelemetryTraces(supervisor, tracer_provider=self.provider)

    def spans(self, name):
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def span(self, name):
        (found,) = self.spans(name)
        return found


@pytest.fixture
def traced():
    """Return one."""
    made = Traced()
    yield made
    made.provider.shutdown()


def of(span):
    """What is current while the span is."""
    return span.context.trace_id, span.context.span_id


@pytest.mark.asyncio
@pytest.mark.parametrize("isolation", ["shared", "task"])
@pytest.mark.parametrize("function", [makes_a_span_on_the_loop, makes_a_span])
async def test_an_attempt_is_in_the_trace_of_its_submitter(traced, isolation, function):
    """Submission and attempt are spans, parent and child, and linked; the attempt's is the current
    one for the job's code, on the loop and in threads, with the attributes of messaging.
    """
    queues = [Queue("default", 2, isolation=isolation)]
    async with Supervisor(queues=queues) as supervisor:
        with traced.traces(supervisor), traced.tracer.start_as_current_span("request") as request:
            done = await supervisor.submit(job(function, name="work"), "inner")
            current = await done
    submit, run = traced.span("submit work"), traced.span("run work")
    assert submit.parent.span_id == request.get_span_context().span_id
    assert run.parent.span_id == submit.context.span_id == run.links[0].context.span_id
    assert run.context.trace_id == request.get_span_context().trace_id
    assert (submit.kind, run.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert current == of(run)
    assert run.attributes == {
        "messaging.system": "asyncworkers",
        "messaging.operation.name": "run",
        "messaging.operation.type": "process",
        "messaging.destination.name": done.queue,
        "messaging.message.id": done.id,
        "asyncworkers.job.name": "work",
        "asyncworkers.attempt": 1,
        "asyncworkers.outcome": "Succeeded",
        "asyncworkers.decision": "Complete",
    }
    assert run.status.status_code is StatusCode.UNSET


@pytest.mark.asyncio
async def test_each_attempt_has_a_span(traced):
    """With its number and its error, whose password is masked; none is current for the next one's
    code but its own.
    """
    seen = []

    async def fails():
        seen.append(await makes_a_span_on_the_loop("inner"))
        raise ValueError("no way to redis://:hunter2@cache/0")

    async with Supervisor(workers=1) as supervisor:
        with traced.traces(supervisor):
            done = await supervisor.submit(
                job(fails, name="f", retry=Retry(2, on=ValueError, delay=0))
            )
            await done.wait()
            assert await supervisor.call(makes_a_span_on_the_loop, "alone") == of(
                traced.span("run makes_a_span_on_the_loop")
            )
    first, second = traced.spans("run f")
    assert seen == [of(first), of(second)]
    assert [s.attributes["asyncworkers.attempt"] for s in (first, second)] == [1, 2]
    assert [s.attributes["asyncworkers.decision"] for s in (first, second)] == [
        "RetryAfter",
        "Fail",
    ]
    assert first.attributes["error.type"] == "ValueError"
    assert first.status.description == "ValueError: no way to redis://:***@cache/0"
    assert "hunter2" not in first.to_json() + second.to_json()


@pytest.mark.asyncio
async def test_what_times_out_or_is_cancelled_is_an_error(traced):
    """The span ends with the outcome as its error."""
    async with Supervisor() as supervisor:
        with traced.traces(supervisor):
            timed = await supervisor.submit(job(asyncio.Event().wait, name="slow", timeout=0.001))
            await timed.wait()
            cancelled = await supervisor.submit(job(asyncio.Event().wait, name="stopped"))
            while cancelled.state != "running":
                await asyncio.sleep(0)
            cancelled.cancel()
            await cancelled.wait()
    assert traced.span("run slow").attributes["error.type"] == "TimedOut"
    assert traced.span("run stopped").attributes["error.type"] == "Cancelled"


@pytest.mark.asyncio
@CHILDREN
@pytest.mark.parametrize("size", [0, 3_000_000])
async def test_spans_of_a_child_are_children_of_the_attempts(traced, tmp_path, monkeypatch, size):
    """The initializer sets the SDK up there, and what the job's code makes belongs to its attempt:
    also if the arguments are big, and from one job to the next.
    """
    told = tmp_path / "spans"
    monkeypatch.setenv("TRACED_FILE", str(told))
    queue = Queue("processes", 1, kind="processes", initializer=set_up_tracing)
    async with Supervisor(queues=[queue]) as supervisor:
        with traced.traces(supervisor), traced.tracer.start_as_current_span("request"):
            work = job(makes_a_span, name="work", cpu=True)
            jobs = [await supervisor.submit(work, f"inner {n}", bytes(size)) for n in range(3)]
            current = [await each for each in jobs]
    runs = traced.spans("run work")
    assert current == [of(run) for run in runs]
    inner = [json.loads(line) for line in told.read_text().splitlines()]
    assert [(one["trace"], one["parent"]) for one in inner] == current
    submits = traced.spans("submit work")
    assert [run.parent.span_id for run in runs] == [one.context.span_id for one in submits]


@pytest.mark.asyncio
@CHILDREN
async def test_a_crash_ends_the_span(traced):
    """A child that dies fails the attempt, and its span says so."""
    import os

    async with Supervisor(processes=1) as supervisor:
        with traced.traces(supervisor):
            with pytest.raises(WorkerCrashed):
                await supervisor.call(job(os._exit, name="dies", cpu=True), 3)
    assert traced.span("run dies").attributes["error.type"] == "WorkerCrashed"


@pytest.mark.asyncio
async def test_a_stored_job_carries_its_trace(traced):
    """Whoever runs it, in whatever process, continues the trace; and the store keeps nothing else."""
    data = MemoryData()
    work = job(makes_a_span_on_the_loop, name="work")

    def make(workers):
        store = MemoryStore(data)
        return Supervisor(workers, store=lambda: store, functions=[work])

    async with make(0) as web, make(1) as worker:
        elsewhere = Traced()
        with traced.traces(web), elsewhere.traces(worker):
            with traced.tracer.start_as_current_span("request") as request:
                stored = await web.submit(work, "inner")
            current = tuple(await stored)
        (record,) = await web._depot.store.get([stored.id])
    run, submit = elsewhere.span("run work"), traced.span("submit work")
    assert run.parent.span_id == submit.context.span_id
    assert run.context.trace_id == request.get_span_context().trace_id
    assert current == of(run)
    assert set(unpacked(record.extra)) == {"traceparent"}
    elsewhere.provider.shutdown()


@pytest.mark.asyncio
async def test_items_of_a_map_are_traced(traced):
    """Each item is a job, in the trace of who reads the map."""
    async with Supervisor() as supervisor:
        with traced.traces(supervisor), traced.tracer.start_as_current_span("request") as request:
            current = await supervisor.map(job(makes_a_span_on_the_loop, name="item"), ["a", "b"])
    runs = traced.spans("run item")
    assert current == [of(run) for run in runs]
    assert {run.context.trace_id for run in runs} == {request.get_span_context().trace_id}


@pytest.mark.asyncio
async def test_nothing_is_left_when_it_is_off(traced):
    """After `close` no span is made and jobs are on their shortest path again; and two at once are
    refused.
    """
    async with Supervisor() as supervisor:
        traces = traced.traces(supervisor)
        with pytest.raises(ValueError, match="accompanies the jobs of"):
            traced.traces(supervisor)
        traces.close()
        traces.close()
        assert await supervisor.call(makes_a_span_on_the_loop, "alone") == (0, 0)
        assert not supervisor._intake.queues["default"].told
    assert traced.exporter.get_finished_spans() == ()


@pytest.mark.asyncio
@pytest.mark.parametrize("verb", ["submitted", "begun", "ended"])
async def test_an_escort_that_raises_is_dropped(caplog, verb):
    """Once and loudly; the job it was asked about ends as it should, and so do all others."""

    class Broken:
        def __getattr__(self, name):
            def answer(*_):
                if name == verb:
                    raise SystemExit("of the escort")
                return {}

            return answer

    async def works():
        return 7

    async with Supervisor() as supervisor:
        supervisor.escort(Broken())
        assert await supervisor.call(works) == 7
        assert await supervisor.call(works) == 7
    assert caplog.text.count("dropped escort") == 1


@pytest.mark.parametrize("text", ["", "[]", "{", "7", '{"a": 1}', "[" * 100_000])
def test_what_else_is_stored_is_no_header(text):
    """Headers are texts by name; anything else that a store may hold there counts for nothing."""
    assert unpacked(text) == {}
