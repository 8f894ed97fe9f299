"""Probes, metrics, documents and models over HTTP, and the events a worker publishes of itself and of ComfyUI."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import anyio
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support.processes import StandIn, free_port
from tests.support.stack import Stack, graph, run_stack

pytestmark = pytest.mark.anyio


async def fetch(url: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, response.content_type, await response.text()


async def test_probes_metrics_documents_and_models(stack: Stack) -> None:
    """Every route of the contract answers, and the metrics parse as OpenMetrics."""
    await stack.outside.send({"id": "http-1", "prompt": graph()})
    await stack.outside.terminal("http-1")
    url = stack.workers[0].url
    assert (await fetch(f"{url}/health"))[0] == 200
    assert (await fetch(f"{url}/ready"))[0] == 200
    complete: list[Sample] = []
    with anyio.fail_after(10):
        # Counted once the event is out: a reader may be faster.
        while not (complete and complete[0].value):
            status, _, text = await fetch(f"{url}/metrics")
            assert status == 200
            families = {family.name: family for family in text_string_to_metric_families(text)}
            answered = families["comfybus_prompts"].samples
            complete = [sample for sample in answered if sample.labels.get("outcome") == "complete"]
    assert families["comfybus_comfyui_up"].samples[0].value == 1
    document = yaml.safe_load((await fetch(f"{url}/docs"))[2])
    assert document["asyncapi"].startswith("3.")
    assert "workflow_sd15_txt2img.input" in document["components"]["schemas"]
    status, content_type, text = await fetch(f"{url}/models")
    assert (status, content_type) == (200, "application/json")
    assert '"checkpoints"' in text


async def test_ready_says_what_is_missing_and_heals(tmp_path: Path) -> None:
    """/ready is 503 with the reason before ComfyUI is there and while it is gone; /health stays 200 once warm."""
    async with run_stack(tmp_path) as stack:
        comfy = StandIn(tmp_path / "late", free_port())
        stack.comfys.append(comfy)
        worker = stack.worker(comfy)
        worker.launch()
        with anyio.fail_after(30):
            while True:
                try:
                    status, _, text = await fetch(f"{worker.url}/ready")
                    break
                except aiohttp.ClientError:
                    await anyio.sleep(0.05)
        assert status == 503
        assert "ComfyUI" in text
        assert (await fetch(f"{worker.url}/health"))[0] == 500
        await comfy.start()
        await worker.ready()
        assert (await fetch(f"{worker.url}/health"))[0] == 200
        await comfy.kill()
        with anyio.fail_after(30):
            while (await fetch(f"{worker.url}/ready"))[0] != 503:
                await anyio.sleep(0.1)
        assert (await fetch(f"{worker.url}/health"))[0] == 200
        await comfy.start()
        await worker.ready()


async def test_comfyui_events_are_published_on_request_with_request_ids(tmp_path: Path) -> None:
    """SYSTEM_EVENTS=all publishes whole frames with the request's id in place of ComfyUI's, and metadata."""
    async with run_stack(tmp_path, SYSTEM_EVENTS="all", SYSTEM_META_site="lab") as stack:
        comfy = await stack.comfy()
        await stack.worker(comfy).start()
        await stack.outside.send({"id": "sys-1", "prompt": graph(seconds=0.3)})
        await stack.outside.terminal("sys-1")
        with anyio.fail_after(10):
            while not [e for e in stack.outside.heard(channel="system") if e.body["type"] == "comfy.execution_success"]:
                await anyio.sleep(0.02)
        events = stack.outside.heard(channel="system")
        mine = [event for event in events if event.body["data"]["data"].get("prompt_id") == "sys-1"]
        types = [event.body["type"] for event in mine]
        assert types[0] == "comfy.execution_start"
        assert {"comfy.executing", "comfy.progress", "comfy.progress_state", "comfy.executed"} <= set(types)
        state = next(event.body for event in mine if event.body["type"] == "comfy.progress_state")
        assert {node["prompt_id"] for node in state["data"]["data"]["nodes"].values()} == {"sys-1"}
        assert state["metadata"] == {"site": "lab"}
        assert state["data"]["type"] == "progress_state"
        started = stack.outside.heard(channel="worker")[0].body
        assert started["type"] == "worker.started"
        assert started["comfyui"] == {"version": "0.3.64", "url": comfy.url, "up": True}
        assert started["capacity"] == 4


@pytest.mark.timeout(90)
async def test_two_processes_with_one_worker_id_are_reported(tmp_path: Path) -> None:
    """Each says so in its log when it hears the other's heartbeat."""
    async with run_stack(tmp_path) as stack:
        comfy = await stack.comfy()
        first, second = stack.worker(comfy), stack.worker(comfy, WORKER_ID="w0")
        second.name = "w0-double"
        second.env["WORKER_ID"] = "w0"
        await first.start()
        await second.start()
        with anyio.fail_after(40):
            while "same WORKER_ID" not in first.process.tail(200) + second.process.tail(200):  # type: ignore[union-attr]
                await anyio.sleep(0.2)
