"""COMFY_MEMORY_LIMIT_GB under a load that never ends: ComfyUI is started anew, and nothing is lost or done twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio
import pytest

from tests.support.processes import StandIn, free_port
from tests.support.stack import graph, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400), pytest.mark.full]


async def test_a_fleet_under_load_is_recycled_between_prompts(tmp_path: Path) -> None:
    """There is always another prompt waiting; each runs once, before the restart or after it."""
    async with run_stack(tmp_path) as stack:
        comfy = StandIn(tmp_path / "own", free_port())
        comfy.home.mkdir()
        command = f"{sys.executable} -m app.comfy.standin --port {comfy.port} --home {comfy.home}"
        worker = stack.worker(comfy, CMD=command, COMFY_MEMORY_LIMIT_GB=0.0001)
        await worker.start()
        assert worker.process is not None
        log, sent = worker.process.log, 0
        with anyio.fail_after(240):
            while "ComfyUI is recycled" not in log.read_text():
                # More than it holds in its slots, at any time.
                while sent - len(stack.outside.heard(channel="prompt.complete")) < 8:
                    await stack.outside.send({"id": f"steady-{sent}", "prompt": graph(seconds=0.2, steps=2)})
                    sent += 1
                await anyio.sleep(0.05)
        for number in range(sent):
            body = (await stack.outside.terminal(f"steady-{number}", 120)).body
            assert (body["type"], body["attempt"]) == ("prompt.complete", 1), body
        assert set(comfy.executions().values()) == {1}
        events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        assert [one["event"] for one in events if "recycled" in one["event"]][:2] == [
            "ComfyUI is to be recycled, no further prompt is taken",
            "ComfyUI is recycled",
        ]
        assert await worker.stop() == 0
