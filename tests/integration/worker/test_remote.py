"""A ComfyUI on another host: no shared folders, files travel over HTTP; and the newest ComfyUI."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from tests.support.stack import graph, run_stack

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("version", ["0.3.64", "new"])
async def test_a_remote_comfyui_serves_as_well(tmp_path: Path, version: str) -> None:
    """Without shared folders the same request has the same result, of every version's protocol."""
    async with run_stack(tmp_path) as stack:
        comfy = await stack.comfy(version)
        await stack.worker(comfy, shared=False).start()
        prompt = graph(seconds=0.3, prefix="deep/down")
        prompt["3"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
        await stack.outside.send({"id": "remote-1", "prompt": prompt})
        body = (await stack.outside.terminal("remote-1")).body
        assert body["type"] == "prompt.complete", body
        assert {output["node_id"] for output in body["outputs"]} == {"3", "9"}
        for image in body["images"]:
            assert Image.open(io.BytesIO(base64.b64decode(image))).size == (64, 64)
        # Another host's disk is not ours: nothing is deleted there.
        assert list((comfy.home / "output" / "deep").glob("remote-1_down_*.png"))


async def test_two_prefixes_live_side_by_side_on_one_broker(tmp_path: Path) -> None:
    """TOPIC_PREFIX, dots included, keeps two deployments apart."""
    async with run_stack(tmp_path, TOPIC_PREFIX="team.blue", PREPEND_FILENAMES="false") as stack:
        comfy = await stack.comfy()
        await stack.worker(comfy).start()
        await stack.outside.send({"id": "blue-1", "prompt": graph()})
        event = await stack.outside.terminal("blue-1")
        assert event.body["filenames"] == ["blue-1_00001_.png"]
        assert stack.outside.prefix == "team.blue"
