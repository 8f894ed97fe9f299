"""Metrics of what goes wrong: broker and ComfyUI away, leases kept, a backlog, ComfyUI started again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import aiohttp
import anyio
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.fault.test_supervision import executing_pid, supervised
from tests.support.processes import Worker
from tests.support.stack import graph, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.full, pytest.mark.timeout(240)]

WITHIN_S = 60.0


async def value(worker: Worker, name: str, **labels: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{worker.url}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(one.value for one in samples if labels.items() <= one.labels.items())


async def until(worker: Worker, name: str, least: float, **labels: str) -> None:
    """Wait until a metric is no less than this."""
    with anyio.move_on_after(WITHIN_S):
        while (seen := await value(worker, name, **labels)) < least:
            await anyio.sleep(0.1)
        return
    raise AssertionError(f"{name}{labels} was {seen} for {WITHIN_S} s")


async def test_outages_leases_and_the_backlog_show(tmp_path: Path) -> None:
    """A broker and a ComfyUI that go and come back, a prompt longer than its lease, a request that waits."""
    async with run_stack(tmp_path, NATS_ACK_WAIT_S=3) as stack:
        comfy = await stack.comfy()
        worker = stack.worker(comfy)
        await worker.start()
        await stack.outside.send({"id": "long", "prompt": graph(seconds=4)})
        await stack.outside.terminal("long")
        assert await value(worker, "comfybus_lease_extensions_total") >= 2
        await stack.broker.kill()
        with anyio.fail_after(WITHIN_S):
            while await value(worker, "comfybus_broker_ok"):
                await anyio.sleep(0.1)
        await stack.broker.start()
        await until(worker, "comfybus_reconnects_total", 1, to="broker")
        await until(worker, "comfybus_broker_ok", 1)
        await comfy.kill()
        with anyio.fail_after(WITHIN_S):
            while await value(worker, "comfybus_comfyui_up"):
                await anyio.sleep(0.1)
        await stack.outside.send({"id": "waits", "prompt": graph(color=1)})
        await until(worker, "comfybus_backlog_oldest_seconds", 0.1)
        await comfy.start()
        assert (await stack.outside.terminal("waits", WITHIN_S)).body["type"] == "prompt.complete"
        await until(worker, "comfybus_reconnects_total", 1, to="comfyui")
        await until(worker, "comfybus_comfyui_up", 1)
        with anyio.fail_after(WITHIN_S):
            while await value(worker, "comfybus_backlog_oldest_seconds"):
                await anyio.sleep(0.1)


async def test_restarts_retries_and_dead_letters_show(tmp_path: Path) -> None:
    """A ComfyUI that is killed under a prompt: started again, tried again, given up at last."""
    async with run_stack(tmp_path, MAX_ATTEMPTS=2) as stack:
        comfy, worker = supervised(stack, tmp_path)
        await worker.start()
        await stack.outside.send({"id": "dies", "prompt": graph(seconds=20, steps=200)})
        for attempt in (1, 2):
            with anyio.fail_after(WITHIN_S):
                while not [
                    event
                    for event in stack.outside.heard("dies")
                    if event.body.get("status") == "running" and event.body.get("attempt") == attempt
                ]:
                    await anyio.sleep(0.05)
            os.kill(await executing_pid(comfy), signal.SIGKILL)
        assert (await stack.outside.terminal("dies", WITHIN_S)).body["code"] == "attempts_exhausted"
        await until(worker, "comfybus_dead_letters_total", 1)
        await until(worker, "comfybus_comfyui_restarts_total", 1)
        assert await value(worker, "comfybus_retries_total") == 1
        assert await value(worker, "comfybus_attempts_total") == 2
        assert await value(worker, "comfybus_prompts_total", outcome="failed", code="attempts_exhausted") == 1
