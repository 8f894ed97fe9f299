"""A collector of traces: takes OTLP over HTTP as protobuf, as the real one does, and keeps the spans."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

KINDS = {number: name.removeprefix("SPAN_KIND_").lower() for name, number in Span.SpanKind.items()}


@dataclass(frozen=True)
class Seen:
    """One span; times in nanoseconds since 1970, ids in hex, an empty parent for a root."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    begin_ns: int
    end_ns: int
    attributes: dict[str, Any]
    failed: bool

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.begin_ns) / 1e9


@dataclass
class Collector:
    """What came in."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: bytes = b""
    status: int = 200

    def of(self, trace: str) -> list[Seen]:
        """The spans of one trace in the order in which they began."""
        return sorted((span for span in self.spans if span.trace == trace), key=lambda span: span.begin_ns)

    async def until(self, trace: str, *wanted: str, within_s: float = 60) -> list[Seen]:
        """Wait until spans whose names begin so have come."""
        with anyio.move_on_after(within_s):
            while not all(any(span.name.startswith(name) for span in self.of(trace)) for name in wanted):
                await anyio.sleep(0.05)
            return self.of(trace)
        raise AssertionError(f"no spans {wanted}; there are {[span.name for span in self.spans]}")

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if request.content_type != "application/x-protobuf" or self.status != 200:
            return web.Response(status=415 if self.status == 200 else self.status)
        self.raw += body
        found = ExportTraceServiceRequest.FromString(body)
        for resource in found.resource_spans:
            about = {pair.key: _value(pair.value) for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [_seen(str(about.get("service.name")), span) for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")


@asynccontextmanager
async def run_collector() -> AsyncIterator[Collector]:
    """A collector on a free port of this machine."""
    collector = Collector()
    application = web.Application(client_max_size=1 << 30)
    application.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield collector
    finally:
        await runner.cleanup()


def _seen(service: str, span: Span) -> Seen:
    return Seen(
        service,
        span.name,
        KINDS[span.kind],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        {pair.key: _value(pair.value) for pair in span.attributes},
        span.status.code == 2,
    )


def _value(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")
