"""Prepared graphs in a ComfyUI: the stand-in, and a real one where COMFYUI_URL names it."""

from __future__ import annotations

import base64
import io
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from PIL import Image

from app.comfy.client import ComfyClient
from app.comfy.history import HistoryEntry
from app.comfy.standin.config import StandinConfig
from app.comfy.standin.server import serve
from app.errors import InvalidPrompt
from app.prepare.context import ContextSource
from app.prepare.prepare import Folders, PrepareConfig, Preparer
from app.prepare.workflows import Workflows
from app.storage.stores import Fetched, Hold
from brokers.base import RequestKey
from schemas.credentials import Credential
from schemas.prompt import parse_request

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
WORKFLOWS = Workflows.load(ROOT / "workflows")


def png(color: str) -> bytes:
    """A picture of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (16, 16), color).save(out, "PNG")
    return out.getvalue()


def saved(image: str, mask: str = "red") -> dict[str, Any]:
    """A graph that loads two pictures and saves the first; nothing in it is random."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "LoadImageMask", "inputs": {"image": image, "channel": mask}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }


class Client(ComfyClient):
    """A client that says of itself where the stand-in keeps its models."""

    models_at: Path | None = None

    async def model_folders(self) -> dict[str, list[str]]:
        """As ComfyUI answers; the stand-in does not."""
        if self.models_at is None:
            return await super().model_folders()
        return {folder: [str(self.models_at / folder)] for folder in await self.models()}


class Ours:
    """Our side: a client and a preparer."""

    def __init__(self, client: ComfyClient, folders: Folders, cache: Path) -> None:
        self.client = client
        self.cache = cache
        self.content: dict[str, bytes] = {}
        self.preparer = Preparer(client, self.fetch, folders, PrepareConfig(limit_bytes=0))

    async def fetch(
        self,
        url: str,
        credentials: Sequence[Credential] | None = None,
        *,
        folder: Path | None = None,
        filename: str | None = None,
        in_use: Hold,
    ) -> Fetched:
        """What lies behind a URL."""
        path = (folder or self.cache) / (filename or f"{uuid.uuid4().hex}.png")
        await anyio.Path(path).write_bytes(self.content[url])
        return Fetched(path, len(self.content[url]), "0" * 63 + str(len(self.content[url]) % 10), None, None)

    async def run(self, graph: dict[str, Any], request_id: str) -> tuple[dict[str, Any], HistoryEntry]:
        """Prepare, submit and wait for the end; the inputs are let go of then."""
        request = parse_request({"prompt": graph})
        async with self.preparer.hold(request_id) as hold:
            ready = await self.preparer.prepare(
                graph, key=RequestKey(request_id), attempt=1, request=request, hold=hold
            )
            prompt_id = str(uuid.uuid4())
            await self.client.submit(ready, prompt_id=prompt_id, client_id=None)
            with anyio.fail_after(60):
                while (entry := await self.client.history(prompt_id)) is None:
                    await anyio.sleep(0.02)
            return ready, entry

    async def picture(self, entry: HistoryEntry, into: Path) -> tuple[int, ...]:
        """The colour of the one saved picture."""
        (listed,) = entry.outputs["3"]["images"]
        await self.client.view(listed["filename"], listed["subfolder"], listed["type"], into)
        with Image.open(into) as image:
            pixel = image.convert("RGB").getpixel((3, 3))
        assert isinstance(pixel, tuple)
        return pixel


@asynccontextmanager
async def standin(tmp_path: Path, *, shared: bool, version: Any = "0.3.64") -> AsyncIterator[Ours]:
    """The stand-in, whose folders are shared or not."""
    async with (
        serve(StandinConfig(home=tmp_path / "home", version=version)) as server,
        aiohttp.ClientSession() as session,
    ):
        folders = Folders(tmp_path / "home/input", tmp_path / "home/output") if shared else Folders()
        client = Client(server.url, session)
        client.models_at = tmp_path / "home/models"
        yield Ours(client, folders, tmp_path)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("how", ["base64", "data url", "url", "file"])
async def test_images_arrive(tmp_path: Path, shared: bool, how: str) -> None:
    """A picture in any form is the one that the nodes load, whether the folders are shared or it is uploaded."""
    async with standin(tmp_path, shared=shared) as ours:
        content = png("#4080c0")
        ours.content["https://host/x.png"] = content
        (tmp_path / "home/input/mine.png").write_bytes(content)
        text = base64.b64encode(content).decode()
        value = {
            "base64": text,
            "data url": f"data:image/png;base64,{text}",
            "url": "https://host/x.png",
            "file": "mine.png",
        }[how]
        ready, entry = await ours.run(saved(value), "id-1")
        assert entry.outcome == "success"
        assert await ours.picture(entry, tmp_path / "result.png") == (0x40, 0x80, 0xC0)
        assert ready["3"]["inputs"]["filename_prefix"] == "id-1_x"
        if shared:
            assert list((tmp_path / "home/input").glob("comfybus/*")) == []


async def test_equal_content_is_computed_once(tmp_path: Path) -> None:
    """The same picture in another request has the same name, so ComfyUI's cache still knows it."""
    async with standin(tmp_path, shared=False) as ours:
        text = base64.b64encode(png("green")).decode()
        first, _ = await ours.run(saved(text), "id-1")
        second, entry = await ours.run(saved(text), "id-2")
        assert first["1"] == second["1"]
        assert second["3"] != first["3"]
        assert entry.outcome == "success"


@pytest.mark.parametrize("version", ["0.3.64", "0.19.3"])
async def test_a_model_by_url(tmp_path: Path, version: str) -> None:
    """A checkpoint that a URL brings is in ComfyUI's list when the graph arrives there."""
    async with standin(tmp_path, shared=True, version=version) as ours:
        ours.content["https://host/small.safetensors"] = b"weights"
        graph = await WORKFLOWS.generate(
            "sd15/txt2img", {"prompt": "x", "checkpoint": "https://host/small.safetensors", "steps": 1, "width": 64}
        )
        ready, entry = await ours.run(graph, "id-1")
        assert entry.outcome == "success"
        name = ready["4"]["inputs"]["ckpt_name"]
        assert name.startswith("small-")
        assert (tmp_path / "home/models/checkpoints" / name).read_bytes() == b"weights"


async def test_choices_of_the_running_comfyui(tmp_path: Path) -> None:
    """Samplers and models of a workflow's input are compared with what this ComfyUI has."""
    async with standin(tmp_path, shared=True) as ours:
        (tmp_path / "home/models/checkpoints/mine.safetensors").write_bytes(b"x")
        source = ContextSource(ours.preparer.catalogue)
        context = await source.get(seed=3)
        assert "euler" in context.samplers
        assert "karras" in context.schedulers
        assert context.models["checkpoints"] == ("mine.safetensors",)
        assert context.seed == 3


@pytest.mark.skipif("COMFYUI_URL" not in os.environ, reason="set COMFYUI_URL to a real ComfyUI")
@pytest.mark.parametrize("name", [name for name in WORKFLOWS.names() if not name.startswith("demo/")])
async def test_a_real_comfyui_accepts(tmp_path: Path, name: str) -> None:
    """Its validation finds nothing wrong with a shipped workflow but, perhaps, models that are not installed."""
    async with aiohttp.ClientSession() as session:
        ours = Ours(ComfyClient(os.environ["COMFYUI_URL"], session), Folders(), tmp_path)
        text = base64.b64encode(png("red")).decode()
        graph = await WORKFLOWS.generate(name, {"prompt": "x"} | ({"image": text} if "img2img" in name else {}))
        request = parse_request({"prompt": graph})
        async with ours.preparer.hold() as hold:
            ready = await ours.preparer.prepare(graph, key=RequestKey("id"), attempt=1, request=request, hold=hold)
            prompt_id = str(uuid.uuid4())
            try:
                await ours.client.submit(ready, prompt_id=prompt_id, client_id=None)
            except InvalidPrompt as refusal:
                errors = [error for node in (refusal.node_errors or {}).values() for error in node["errors"]]
                found = {(error["type"], error["extra_info"]["input_name"].rstrip("12")) for error in errors}
                assert found <= {("value_not_in_list", f) for f in ("ckpt_name", "unet_name", "vae_name", "clip_name")}
            else:
                await ours.client.stop(prompt_id)
