"""The trace of one attempt to deliver a webhook, in the trace of the prompt that it tells of.

Used by app.bridge.app; may import app.bridge, brokers.
"""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from yarl import URL

from app.bridge.record import Record
from app.bridge.verdict import Answer
from app.tracing import attributes as names
from app.tracing.config import TracingConfig
from brokers.channels import Channel, Names

__all__ = ["AttemptTrace", "WebhookTraces"]

PROPAGATOR: Final = TraceContextTextMapPropagator()
CHANNELS: Final = {
    "prompt.complete": Channel.COMPLETE,
    "prompt.failed": Channel.FAILED,
    "storage": Channel.STORAGE,
    "comfy": Channel.SYSTEM,
    "worker": Channel.WORKER,
}


class WebhookTraces:
    """Traces attempts of one bridge."""

    def __init__(self, tracer: Tracer, config: TracingConfig, channels: Names) -> None:
        self._tracer = tracer
        self._config = config
        self._channels = channels

    def begin(self, record: Record, headers: dict[str, str]) -> AttemptTrace:
        """An attempt is about to be sent; its request gets this trace's ``traceparent``."""
        return AttemptTrace(self._tracer, self._about(record), record, headers)

    def _about(self, record: Record) -> dict[str, Any]:
        kind = record.event if record.event in CHANNELS else record.event.partition(".")[0]
        channel = CHANNELS.get(kind, Channel.COMPLETE)
        found = {
            names.SYSTEM: self._config.system,
            names.DESTINATION: self._channels.subject(channel),
            names.OPERATION: "process",
            names.OPERATION_TYPE: "process",
            names.MESSAGE_ID: record.webhook_id,
            names.CONVERSATION: record.prompt,
        }
        return {name: value for name, value in found.items() if value}


class AttemptTrace:
    """Two spans: the event being processed, and the HTTP request inside. Of URLs only host and port get into them."""

    def __init__(self, tracer: Tracer, about: dict[str, Any], record: Record, headers: dict[str, str]) -> None:
        parent = PROPAGATOR.extract({"traceparent": record.traceparent} if record.traceparent else {})
        self._process = tracer.start_span(
            f"process {about[names.DESTINATION]}", context=parent, kind=SpanKind.CONSUMER, attributes=about
        )
        receiver = URL(record.url)
        inside = set_span_in_context(self._process, parent)
        self._request = tracer.start_span(
            "POST",
            context=inside,
            kind=SpanKind.CLIENT,
            attributes={
                names.METHOD: "POST",
                names.SERVER: receiver.host or "",
                names.PORT: receiver.port or 0,
                names.RESENDS: record.attempts,
            },
        )
        PROPAGATOR.inject(headers, set_span_in_context(self._request, inside))

    def end(self, answer: Answer) -> None:
        """What came of it."""
        fault = "" if answer.status and answer.status < 400 else str(answer.status or "no_answer")
        for span in (self._request, self._process):
            if answer.status:
                span.set_attribute(names.STATUS, answer.status)
            if fault:
                span.set_attribute(names.ERROR_TYPE, fault)
                span.set_status(Status(StatusCode.ERROR, fault))
            span.end()
