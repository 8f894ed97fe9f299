"""An earlier submission of an id takes the claim over from a later one that has not begun: one of them runs."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from brokers.nats.layout import DURABLE
from tests.fault.conftest import settled
from tests.support.outsider import NatsOutsider
from tests.support.stack import Stack, graph, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


async def heard(stack: Stack, request_id: str, status: str, times: int = 1) -> None:
    """Wait until a status of this id was announced so many times."""
    with anyio.fail_after(30):
        while [event.body.get("status") for event in stack.outside.heard(request_id)].count(status) < times:
            await anyio.sleep(0.02)


async def test_a_submission_whose_claim_was_taken_over_is_not_run(tmp_path: Path) -> None:
    """The later one waits for room in ComfyUI; the earlier one takes its claim over, and alone is submitted."""
    async with run_stack(tmp_path, MAX_IN_FLIGHT=3, PREFETCH=0) as stack:
        outside = stack.outside
        if not isinstance(outside, NatsOutsider):
            pytest.skip("on Kafka all submissions of an id lie in one partition and are claimed in order")
        comfy = await stack.comfy()
        worker = stack.worker(comfy)
        await worker.start()
        await worker.stop()  # the streams are declared now
        await outside.send({"id": "same", "prompt": graph(color=1)})
        pull = await outside.js.pull_subscribe_bind(DURABLE, "comfyui-request")
        (earlier,) = await pull.fetch(1, timeout=10)
        await outside.send({"id": "ahead", "prompt": graph(seconds=60)})
        worker = stack.worker(comfy)
        await worker.start()
        await heard(stack, "ahead", "running")
        await outside.send({"id": "same", "prompt": graph(color=2)})
        await heard(stack, "same", "preparing")
        await earlier.nak()
        await heard(stack, "same", "preparing", times=2)
        await outside.command({"type": "prompt.cancel", "id": "ahead"})
        answer = await outside.terminal("same", 30)
        assert answer.body["prompt"]["1"] == graph(color=1)["1"]
        verdict = await settled(stack, ["ahead", "same"], 30)
        assert (verdict.lost, verdict.doubled, verdict.outcomes) == ([], [], {"cancelled": 1, "complete": 1})
        assert verdict.executions == 2
