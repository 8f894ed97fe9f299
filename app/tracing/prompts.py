"""The trace of one prompt, from the broker's delivery to its settlement, below the producer's span.

Used by app.worker.app; may import app.worker, brokers.

Only two spans are begun while the prompt is worked on: that of the whole delivery, and the one that sends the terminal
event, since events carry their contexts. All others are made at the end from the moments that the job keeps anyway.
No text of the request, of an error or of a URL gets into a span: names, ids, sizes and codes only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.tracing import attributes as names
from app.tracing.config import TracingConfig
from app.worker.job import Job
from app.worker.outcome import Complete, HandBack
from app.worker.settle import Fail, Retry
from app.worker.timeline import NodeRun, Stage, node_runs, stages
from brokers.channels import Channel, Names

__all__ = ["PromptTrace", "PromptTraces"]

PROPAGATOR: Final = TraceContextTextMapPropagator()


class PromptTraces:
    """Traces prompts of one worker.

    Args:
        tracer: Where spans come from.
        config: Who we are.
        names: Of the channels.
    """

    def __init__(self, tracer: Tracer, config: TracingConfig, channels: Names) -> None:
        self._tracer = tracer
        self._config = config
        self._channels = channels

    @contextmanager
    def trace(self, job: Job) -> Iterator[None]:
        """Trace what is done with the job inside the block; its events belong to the trace from here on."""
        trace = PromptTrace(self._tracer, self._config, self._channels, job)
        job.trace = trace
        try:
            yield
        except BaseException as exc:
            trace.end(type(exc).__name__)
            raise
        trace.end()


class PromptTrace:
    """One delivery's spans; see ``app.worker.job.Trace``."""

    def __init__(self, tracer: Tracer, config: TracingConfig, channels: Names, job: Job) -> None:
        self._tracer = tracer
        self._config = config
        self._channels = channels
        self._job = job
        # One offset for the whole trace: the system's clock may be set while a prompt runs for hours.
        self._offset_s = time.time() - time.monotonic()
        self._parent = PROPAGATOR.extract(job.intake.headers)
        requests = channels.subject(Channel.REQUEST)
        self._root = tracer.start_span(
            f"process {requests}",
            context=self._parent,
            kind=SpanKind.CONSUMER,
            start_time=self._ns(job.times.received or job.times.picked_up),
            attributes=self._about(requests, "process") | self._about_request(),
        )
        self._inside = set_span_in_context(self._root, self._parent)
        self._sending: Span | None = None
        self._carry(self._inside)

    def sending(self) -> None:
        """The terminal event is being made and sent: it carries this span's context."""
        self._sending = self._tracer.start_span(
            "send",
            context=self._inside,
            kind=SpanKind.PRODUCER,
            start_time=self._ns(self._job.times.answering),
            attributes=self._about("", "send"),
        )
        self._carry(set_span_in_context(self._sending, self._inside))

    def end(self, fault: str = "") -> None:
        """Make all other spans and end the whole; ``fault`` names the exception that ended the work."""
        now_s = time.monotonic()
        found = stages(self._job.times, self._job.followed, now_s)
        outcome, code = _outcome(self._job.outcome, fault)
        self._root.set_attribute(names.OUTCOME, outcome)
        self._root.set_attribute(names.ATTEMPT, self._job.tries.attempt)
        if self._root.is_recording():
            self._wait()
            for stage in found:
                if stage.name != "publish":
                    self._stage(stage, code)
        if self._sending is not None:
            self._sent(self._sending, outcome, fault)
        _end(self._root, code, self._ns(found[-1].end_s if found else now_s))

    # --- spans

    def _wait(self) -> None:
        """The time in the work queue: beside the delivery, below the same producer."""
        received_ns = self._ns(self._job.times.received or self._job.times.picked_up)
        begin_ns = int(self._job.delivery.origin.published_at.timestamp() * 1e9)
        context = self._parent if get_current_span(self._parent).get_span_context().is_valid else self._inside
        span = self._tracer.start_span("queue", context=context, start_time=min(begin_ns, received_ns))
        span.end(received_ns)

    def _stage(self, stage: Stage, code: str) -> None:
        attributes = {names.COMFY_PROMPT: self._job.prompt_id} if stage.name == "run" else None
        begin_ns, end_ns = self._ns(stage.begin_s), self._ns(stage.end_s)
        span = self._tracer.start_span(stage.name, context=self._inside, start_time=begin_ns, attributes=attributes)
        if stage.name == "run" and self._job.followed is not None:
            context = set_span_in_context(span, self._inside)
            for node in node_runs(self._job.followed):
                self._node(node, context, begin_ns, end_ns)
        _end(span, code if stage.ended_early else "", end_ns)

    def _node(self, node: NodeRun, context: Context, begin_ns: int, end_ns: int) -> None:
        began_ns = min(max(node.begin_ms * 1_000_000, begin_ns), end_ns)
        span = self._tracer.start_span(
            f"node {node.class_type or 'unknown'}",
            context=context,
            start_time=began_ns,
            attributes={names.NODE_ID: node.node_id, names.NODE_CLASS: node.class_type or "unknown"},
        )
        span.end(max(began_ns, min(node.end_ms * 1_000_000, end_ns)))

    def _sent(self, span: Span, outcome: str, fault: str) -> None:
        channel = Channel.COMPLETE if outcome == "complete" else Channel.FAILED
        destination = self._channels.subject(channel)
        span.update_name(f"send {destination}")
        span.set_attribute(names.DESTINATION, destination)
        _end(span, fault, self._ns(self._job.times.answered or time.monotonic()))

    # --- what they say

    def _about(self, destination: str, operation: str) -> dict[str, Any]:
        return {
            names.SYSTEM: self._config.system,
            names.DESTINATION: destination,
            names.OPERATION: operation,
            names.OPERATION_TYPE: operation,
            names.CLIENT_ID: self._config.instance,
            names.CONVERSATION: self._job.key.id,
        }

    def _about_request(self) -> dict[str, Any]:
        job, source = self._job, self._job.delivery.origin.source
        found: dict[str, Any] = {
            names.GROUP: self._config.group,
            names.MESSAGE_ID: job.key.id,
            names.BODY_SIZE: len(job.delivery.body),
            names.STREAM_SEQUENCE: source.sequence,
            names.PARTITION: None if source.partition is None else str(source.partition),
            names.KAFKA_OFFSET: source.offset,
            names.REPLAY: job.key.replay or None,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _carry(self, context: Context) -> None:
        """Events of the job belong to this context from now on."""
        carried: dict[str, str] = {}
        PROPAGATOR.inject(carried, context)
        job = self._job
        job.intake = replace(job.intake, headers={**job.intake.headers, **carried})

    def _ns(self, moment_s: float) -> int:
        return int((moment_s + self._offset_s) * 1e9)


def _outcome(outcome: object, fault: str) -> tuple[str, str]:
    """In a word how the delivery ended, and the code of its failure."""
    match outcome:
        case Complete():
            return "complete", fault
        case Fail(error=error):
            return "failed", error.code
        case Retry():
            return "retry", "retry"
        case HandBack():
            return "handed_back", ""
        case _:
            return "unanswered", fault or "unanswered"


def _end(span: Span, code: str, at_ns: int) -> None:
    if code:
        span.set_attribute(names.ERROR_TYPE, code)
        span.set_status(Status(StatusCode.ERROR, code))
    span.end(at_ns)
