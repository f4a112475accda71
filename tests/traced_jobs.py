"""Functions for the tests of traces that child processes import, and what sets an SDK up there."""

import json
import os
from pathlib import Path

from opentelemetry import trace


def set_up_tracing() -> None:
    """Write every span that ends in this process to the file that the environment names."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Exporter(SpanExporter):
        def export(self, spans):
            with Path(os.environ["TRACED_FILE"]).open("a", encoding="utf-8") as file:
                for span in spans:
                    told = {
                        "name": span.name,
                        "trace": span.context.trace_id,
                        "parent": span.parent and span.parent.span_id,
                    }
                    file.write(json.dumps(told) + "\n")
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Exporter()))
    trace.set_tracer_provider(provider)


def makes_a_span(name: str, big: bytes = b"") -> tuple[int, int]:
    """Make a span; answer with the trace and span that were current before."""
    current = trace.get_current_span().get_span_context()
    with trace.get_tracer("test").start_as_current_span(name):
        return current.trace_id, current.span_id


async def makes_a_span_on_the_loop(name: str) -> tuple[int, int]:
    """Do the same on the loop."""
    return makes_a_span(name)
