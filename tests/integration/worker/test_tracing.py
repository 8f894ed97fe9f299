"""Traces of the real worker and the real bridge, as a collector gets them over OTLP."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from tests.integration.bridge.receivers import Receivers
from tests.support.kafka_stack import run_kafka_stack
from tests.support.processes import free_port, launch, wait_http
from tests.support.services.collector import Collector, Seen, run_collector
from tests.support.stack import Stack, graph, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

STAGES = ["claim", "prepare", "comfyui_queue", "run", "collect", "store"]


def quick() -> dict[str, str]:
    """Spans leave at once; channels of each deployment's own, where several follow one another on one broker."""
    return {"OTEL_BSP_SCHEDULE_DELAY": "100", "TOPIC_PREFIX": f"traced{secrets.token_hex(4)}"}


def channel(stack: Stack, name: str) -> str:
    """As spans name it."""
    return f"{stack.env['TOPIC_PREFIX']}.{name}"


@dataclass
class Traced:
    """A worker whose spans go to a collector."""

    stack: Stack
    collector: Collector


@pytest.fixture(scope="module", params=["nats", "kafka"])
async def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Traced]:
    """One for all tests that change nothing of it, on each broker."""
    run = run_kafka_stack if request.param == "kafka" else run_stack
    async with run_collector() as collector, run(tmp_path_factory.mktemp("traced"), **quick()) as stack:
        worker = stack.worker(
            await stack.comfy(),
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/v1/traces",
            OTEL_EXPORTER_OTLP_HEADERS="x-token=collector%20secret",
            ALLOWED_PRIVATE_HOSTS="127.0.0.1",
        )
        await worker.start()
        yield Traced(stack, collector)


def producer() -> tuple[str, str, str]:
    """Trace id, span id and traceparent of a producer whose trace is sampled."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-01"


def named(spans: list[Seen], name: str) -> Seen:
    found = [span for span in spans if span.name == name]
    assert len(found) == 1, (name, [span.name for span in spans])
    return found[0]


async def send_traced(stack: Stack, collector: Collector, request_id: str, seconds: float) -> tuple[list[Seen], str]:
    """Run a prompt of some length; its spans and the producer's span."""
    trace, span, traceparent = producer()
    request = {"id": request_id, "prompt": graph(seconds=seconds)}
    await stack.outside.send(request, {"traceparent": traceparent})
    event = await stack.outside.terminal(request_id)
    assert event.headers["traceparent"].split("-")[1] == trace
    return await collector.until(trace, f"process {channel(stack, 'prompt.request')}", "queue"), span


async def test_one_trace_from_the_producer_to_the_terminal_event(traced: Traced) -> None:
    """Every stage and every executed node has a span; kinds and attributes are those of the conventions."""
    collector, stack = traced.collector, traced.stack
    worker = stack.workers[0]
    spans, parent = await send_traced(stack, collector, "traced-1", 0.6)
    root = named(spans, f"process {channel(stack, 'prompt.request')}")
    assert {span.service for span in spans} == {"comfybus-worker"}
    assert (root.parent, root.kind) == (parent, "consumer")
    assert root.attributes["messaging.system"] == stack.broker.url.partition("://")[0]
    assert root.attributes["messaging.operation.type"] == "process"
    assert root.attributes["messaging.destination.name"] == channel(stack, "prompt.request")
    assert root.attributes["messaging.message.id"] == "traced-1"
    assert root.attributes["messaging.consumer.group.name"]
    assert root.attributes["messaging.client.id"] == worker.name
    assert root.attributes["comfybus.outcome"] == "complete"
    inside = [span for span in spans if span.parent == root.id]
    assert [span.name for span in inside] == [*STAGES, f"send {channel(stack, 'prompt.complete')}"]
    sent = named(spans, f"send {channel(stack, 'prompt.complete')}")
    assert (sent.kind, sent.attributes["messaging.operation.type"]) == ("producer", "send")
    event = await stack.outside.terminal("traced-1")
    assert event.headers["traceparent"].split("-")[2] == sent.id
    run = named(spans, "run")
    nodes = [span for span in spans if span.parent == run.id]
    assert [span.attributes["comfybus.node.class_type"] for span in nodes] == [
        "EmptyImage",
        "SlowProgress",
        "SaveImage",
    ]
    assert [span.name for span in nodes][1] == "node SlowProgress"
    assert nodes[1].seconds >= 0.5
    assert all(run.begin_ns <= node.begin_ns <= node.end_ns <= run.end_ns for node in nodes)
    assert not [span for span in spans if span.failed]


async def test_the_spans_add_up_to_the_wall_time(traced: Traced) -> None:
    """Queue and stages together are the time from publishing to the answer, within 5 %; nodes that of the run."""
    collector, stack = traced.collector, traced.stack
    await stack.outside.send({"id": "warm", "prompt": graph(color=1)})
    await stack.outside.terminal("warm")
    spans, _ = await send_traced(stack, collector, "traced-2", 2.0)
    root = named(spans, f"process {channel(stack, 'prompt.request')}")
    queue = named(spans, "queue")
    stages = [span for span in spans if span.parent == root.id]
    event = await stack.outside.terminal("traced-2")
    wall_s = (max(span.end_ns for span in spans) - queue.begin_ns) / 1e9
    total_s = queue.seconds + sum(span.seconds for span in stages)
    print(f"wall {wall_s:.3f} s, spans {total_s:.3f} s, stats {event.body['stats']['total_time']} ms")
    assert abs(total_s - wall_s) <= 0.05 * wall_s
    # What the event says of itself does not contain the publishing.
    assert abs(event.body["stats"]["total_time"] / 1000 - root.seconds) <= 0.05 * wall_s + 0.1
    run = named(spans, "run")
    nodes_s = sum(span.seconds for span in spans if span.parent == run.id)
    assert abs(nodes_s - run.seconds) <= 0.05 * run.seconds


async def test_failures_and_secrets(traced: Traced) -> None:
    """The stage that failed says so by its code; nothing secret of a request gets into a span."""
    collector, stack = traced.collector, traced.stack
    trace, _, traceparent = producer()
    nodes = graph()
    nodes["1"] = {"class_type": "LoadImage", "inputs": {"image": "http://user:s3cr3t@127.0.0.1:9/a.png?sig=s3cr3t"}}
    request = {
        "id": "bad-1",
        "prompt": nodes,
        "credentials": [{"url_pattern": "http://127.0.0.1:9/**", "auth": {"type": "bearer", "token": "s3cr3t"}}],
        "webhook_v2": "https://example.com/s3cr3t",
    }
    await stack.outside.send(request, {"traceparent": traceparent})
    spans = await collector.until(trace, f"process {channel(stack, 'prompt.request')}", within_s=60)
    root = named(spans, f"process {channel(stack, 'prompt.request')}")
    assert root.failed
    prepare = named(spans, "prepare")
    assert prepare.failed
    assert prepare.attributes["error.type"] == root.attributes["error.type"]
    assert b"s3cr3t" not in collector.raw
    assert collector.headers[-1]["x-token"] == "collector secret"


async def test_without_a_producers_trace_the_worker_begins_one(traced: Traced) -> None:
    """Then events carry its own; a producer that is not sampled is left alone."""
    collector, stack = traced.collector, traced.stack
    await stack.outside.send({"id": "own-1", "prompt": graph()})
    event = await stack.outside.terminal("own-1")
    trace = event.headers["traceparent"].split("-")[1]
    spans = await collector.until(trace, f"process {channel(stack, 'prompt.request')}")
    assert named(spans, f"process {channel(stack, 'prompt.request')}").parent == ""
    silent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
    await stack.outside.send({"id": "quiet-1", "prompt": graph(color=2)}, {"traceparent": silent})
    event = await stack.outside.terminal("quiet-1")
    assert event.headers["traceparent"].split("-")[1] == silent.split("-")[1]
    assert event.headers["traceparent"].endswith("-00")
    await stack.outside.send({"id": "own-2", "prompt": graph(color=3)})
    event = await stack.outside.terminal("own-2")
    await collector.until(event.headers["traceparent"].split("-")[1], "process")
    assert not collector.of(silent.split("-")[1])


@pytest.mark.full
async def test_a_collector_that_is_away_costs_no_prompt(tmp_path: Path) -> None:
    """Prompts are answered, and the worker ends in time."""
    async with run_stack(tmp_path, **quick()) as stack:
        nobody = f"http://127.0.0.1:{free_port()}"
        worker = stack.worker(await stack.comfy(), OTEL_EXPORTER_OTLP_ENDPOINT=nobody)
        await worker.start()
        await stack.outside.send({"id": "away-1", "prompt": graph()})
        assert (await stack.outside.terminal("away-1")).body["type"] == "prompt.complete"
        with anyio.fail_after(25):
            assert await worker.stop() == 0


@pytest.mark.full
async def test_without_the_variables_nothing_is_traced(tmp_path: Path) -> None:
    """The producer's traceparent is passed on as it came, and no exporter is even imported."""
    async with run_stack(tmp_path) as stack:
        worker = stack.worker(await stack.comfy())
        await worker.start()
        _, _, traceparent = producer()
        await stack.outside.send({"id": "off-1", "prompt": graph()}, {"traceparent": traceparent})
        event = await stack.outside.terminal("off-1")
        assert event.headers["traceparent"] == traceparent
        assert worker.process is not None
        # A part of every exporter that is no Python.
        assert "google/_upb" not in Path(f"/proc/{worker.process.pid}/maps").read_text()


@pytest.mark.full
async def test_the_trace_goes_on_in_the_bridge(tmp_path: Path) -> None:
    """A webhook's delivery is a child of the span that sent the event, and its receiver gets the trace."""
    receivers = Receivers()
    await receivers.start()
    async with run_collector() as collector, run_stack(tmp_path, **quick()) as stack:
        await stack.worker(await stack.comfy(), OTEL_EXPORTER_OTLP_ENDPOINT=collector.url).start()
        port = free_port()
        env = {
            "PATH": os.environ["PATH"],
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "BROKER_URL": stack.broker.url,
            "ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            **{name: stack.env[name] for name in quick()},
        }
        bridge = launch([sys.executable, "-m", "app", "bridge"], tmp_path / "bridge.log", env)
        try:
            await wait_http(f"http://127.0.0.1:{port}/ready", bridge)
            trace, _, traceparent = producer()
            request = {"id": "hook-1", "prompt": graph(), "webhook_v2": receivers.url("hook?token=s3cr3t")}
            await stack.outside.send(request, {"traceparent": traceparent})
            spans = await collector.until(
                trace, f"process {channel(stack, 'prompt.complete')}", f"process {channel(stack, 'prompt.request')}"
            )
            sent = named(spans, f"send {channel(stack, 'prompt.complete')}")
            processed = named(spans, f"process {channel(stack, 'prompt.complete')}")
            assert (processed.service, processed.kind, processed.parent) == ("comfybus-bridge", "consumer", sent.id)
            posted = named(spans, "POST")
            assert (posted.kind, posted.parent) == ("client", processed.id)
            assert posted.attributes["http.response.status_code"] == 200
            assert posted.attributes["server.address"] == "127.0.0.1"
            assert b"s3cr3t" not in collector.raw
            (call,) = await receivers.until("hook", 1)
            assert call.headers["traceparent"].split("-")[1:3] == [trace, posted.id]
        finally:
            await bridge.kill()
            await receivers.stop()
