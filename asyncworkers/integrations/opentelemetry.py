"""OpenTelemetry: a span where a job is submitted and one for each attempt, wherever that runs.

The spans of one job belong to the trace of whoever submitted it. The trace context travels with the
job as a W3C `traceparent`: to threads, to child processes, and in a store to other machines. Spans
that a job's code makes are children of its attempt's; in a child process, if the queue's initializer
has set an SDK up there. Names and attributes follow the conventions for messaging where they fit.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextvars import Context
from typing import Any, Self

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace
    from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as missing:
    raise ImportError(
        "traces need opentelemetry-api: pip install 'asyncworkers[opentelemetry]'"
    ) from missing

from asyncworkers import Job, Supervisor
from asyncworkers.escort import Luggage

__all__ = ["OpenTelemetryTraces", "arrive"]

_propagator = TraceContextTextMapPropagator()
_NOTHING = contexts.Context()

RAISED = "exception"


class OpenTelemetryTraces:
    """The traces of a supervisor's jobs: `OpenTelemetryTraces(supervisor)`, and they are traced.

    `tracer_provider`: who makes the spans; the one that is set globally if None. `close()` ends it.
    Raises ValueError if the supervisor has an escort already: two would trace everything twice.

    The spans are named `submit` and `run` with the function's name. A span that ended badly has the
    error's class, and its message as logs show it: passwords of URLs masked, no traceback.
    """

    def __init__(
        self, supervisor: Supervisor, *, tracer_provider: TracerProvider | None = None
    ) -> None:
        if not isinstance(supervisor, Supervisor):
            raise TypeError(f"supervisor must be a Supervisor, not {type(supervisor).__name__}")
        self._tracer = trace.get_tracer("asyncworkers", tracer_provider=tracer_provider)
        self._spans: weakref.WeakKeyDictionary[Job[Any], Span] = weakref.WeakKeyDictionary()
        self._supervisor = supervisor
        self._stop = supervisor.escort(self)

    def close(self) -> None:
        """Trace no more; may be called twice."""
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<OpenTelemetryTraces of {self._supervisor.name!r}>"

    # ---- as the supervisor's escort

    def submitted(self, job_id: str, job_name: str, queue: str) -> Mapping[str, str]:
        """A span for the submission, whose context the job carries along."""
        attributes = _attributes("submit", "send", job_id, job_name, queue)
        span = self._tracer.start_span(
            f"submit {job_name}", kind=SpanKind.PRODUCER, attributes=attributes
        )
        span.end()
        return _Headers(span)

    def sent(self, job: Job[Any], headers: Mapping[str, str]) -> Luggage | None:
        """The attempt's span begins here, so that the child can be told of it."""
        self._spans[job] = span = self._start(job, headers, job.attempt + 1)
        return Luggage("opentelemetry.trace", __name__, arrive.__name__, dict(_Headers(span)))

    def begun(self, job: Job[Any], headers: Mapping[str, str], context: Context) -> None:
        """The attempt's span begins, if it has not, and is the current one for its code."""
        span = self._spans.get(job)
        if span is None:
            self._spans[job] = span = self._start(job, headers, job.attempt)
        context.run(_make_current, span)

    def ended(
        self, job: Job[Any], outcome: str, decision: str, error: tuple[str, str] | None
    ) -> None:
        """The attempt's span ends, and says how."""
        span = self._spans.pop(job, None)
        if span is None:
            return  # it began before we came
        span.set_attribute("asyncworkers.outcome", outcome)
        span.set_attribute("asyncworkers.decision", decision)
        if error is not None:
            kind, message = error
            span.add_event(RAISED, {"exception.type": kind, "exception.message": message})
            span.set_attribute("error.type", kind)
            span.set_status(Status(StatusCode.ERROR, message))
        elif outcome != "Succeeded":
            span.set_attribute("error.type", outcome)
            span.set_status(Status(StatusCode.ERROR, outcome))
        span.end()

    def _start(self, job: Job[Any], headers: Mapping[str, str], attempt: int) -> Span:
        parent = _context_of(headers)
        submitted = trace.get_current_span(parent).get_span_context()
        attributes = _attributes("run", "process", job.id, job.name, job.queue)
        return self._tracer.start_span(
            f"run {job.name}",
            context=parent,
            kind=SpanKind.CONSUMER,
            links=[Link(submitted)] if submitted.is_valid else (),
            attributes={**attributes, "asyncworkers.attempt": attempt},
        )


def arrive(headers: Mapping[str, str]) -> None:
    """In a child process: the attempt's span is the parent of what its code makes."""
    contexts.attach(_context_of(headers))


def _make_current(span: Span) -> None:
    contexts.attach(trace.set_span_in_context(span))


class _Headers(Mapping[str, str]):
    """The headers of a span, made when somebody reads them: where a job stays in this process, nobody
    does, and they would cost more than all else that is done for it here.
    """

    def __init__(self, span: Span) -> None:
        self.context = trace.set_span_in_context(span, _NOTHING)
        self._texts: dict[str, str] | None = None

    def _made(self) -> dict[str, str]:
        if self._texts is None:
            self._texts = {}
            _propagator.inject(self._texts, self.context)
        return self._texts

    def __getitem__(self, name: str) -> str:
        return self._made()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made())

    def __len__(self) -> int:
        return len(self._made())

    def __bool__(self) -> bool:
        return True


def _context_of(headers: Mapping[str, str]) -> contexts.Context:
    if isinstance(headers, _Headers):
        return headers.context
    return _propagator.extract(headers, _NOTHING)


def _attributes(name: str, kind: str, job_id: str, job_name: str, queue: str) -> dict[str, str]:
    return {
        "messaging.system": "asyncworkers",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": queue,
        "messaging.message.id": job_id,
        "asyncworkers.job.name": job_name,
    }
