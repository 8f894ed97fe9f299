"""Before and between the prompts: set-up by a manifest, warm-up, models on demand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from aiohttp import web

from tests.support.stack import graph, run_stack

pytestmark = pytest.mark.anyio

WEIGHTS = b"\x10\x00\x00\x00\x00\x00\x00\x00{}" + b"w" * 5000


@pytest.fixture
async def weights() -> AsyncIterator[str]:
    """An HTTP host with one model file."""

    async def get(_: web.Request) -> web.Response:
        return web.Response(body=WEIGHTS, content_type="application/octet-stream")

    app = web.Application()
    app.router.add_get("/{path:.*}", get)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_the_warm_up_runs_before_the_worker_is_ready_and_tells_nobody(tmp_path: Path) -> None:
    """WARMUP_PROMPT_FILE is executed once, publishes nothing, and the first request runs after it."""
    prompt = tmp_path / "warm.json"
    prompt.write_text(json.dumps(graph(seconds=0.5, prefix="warm")))
    async with run_stack(tmp_path, WARMUP_PROMPT_FILE=prompt, CACHE_DIR=tmp_path / "cache") as stack:
        comfy = await stack.comfy()
        await stack.worker(comfy).start()
        assert sum(comfy.executions().values()) == 1
        await stack.outside.send({"id": "cold-1", "prompt": graph()})
        assert (await stack.outside.terminal("cold-1")).body["type"] == "prompt.complete"
        assert list(await stack.outside.terminals()) == ["cold-1"]
        assert not [event for event in stack.outside.events if "warm" in str(event.body.get("id"))]


async def test_a_wrong_warm_up_prompt_stops_the_start_with_one_line(tmp_path: Path) -> None:
    """The line names the variable and the fault."""
    prompt = tmp_path / "warm.json"
    prompt.write_text('{"1": {"inputs": {}}}')
    async with run_stack(tmp_path, WARMUP_PROMPT_FILE=prompt, CACHE_DIR=tmp_path / "cache") as stack:
        worker = stack.worker(await stack.comfy())
        worker.launch()
        assert worker.process is not None
        assert await worker.process.wait() == 2
        assert "WARMUP_PROMPT_FILE" in worker.process.tail(1)
        assert "class_type" in worker.process.tail(1)


async def test_models_come_by_manifest_and_by_command(tmp_path: Path, weights: str) -> None:
    """A model of the manifest is there before the first request; model.download is answered by a storage event."""
    manifest = {"models": {"before_start": [{"url": f"{weights}/a.safetensors", "local_path": ""}]}}
    async with run_stack(tmp_path, ALLOWED_PRIVATE_HOSTS="127.0.0.1", CACHE_DIR=tmp_path / "cache") as stack:
        comfy = await stack.comfy()
        place = comfy.home / "models" / "checkpoints" / "a.safetensors"
        manifest["models"]["before_start"][0]["local_path"] = str(place)
        await stack.worker(comfy, MANIFEST_JSON=json.dumps(manifest)).start()
        assert place.read_bytes() == WEIGHTS
        command = {
            "type": "model.download",
            "id": "dl-1",
            "url": f"{weights}/b.safetensors",
            "model_type": "loras",
            "filename": "b.safetensors",
        }
        await stack.outside.command(command)
        with anyio.fail_after(20):
            while not (found := stack.outside.heard("dl-1", "storage")):
                await anyio.sleep(0.02)
        assert found[0].body["type"] == "storage.file_downloaded"
        assert (comfy.home / "models" / "loras" / "b.safetensors").read_bytes() == WEIGHTS
