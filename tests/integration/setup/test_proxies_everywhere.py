"""HTTP_PROXY in a whole deployment: every client that goes out goes through it, and ComfyUI is never asked by it."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from PIL import Image

from tests.integration.setup.sources import Sources
from tests.support.processes import free_port, launch, wait_http
from tests.support.stack import Stack, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[3]
AZURE = "DefaultEndpointsProtocol=http;AccountName=acc;AccountKey=a2V5;BlobEndpoint=http://azure.test/acc"


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(out, "PNG")
    return out.getvalue()


@dataclass
class Beyond:
    """A proxy and all that lies behind it: hosts that no resolver knows, so that nothing reaches them without it."""

    sources: Sources
    url: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)

    @property
    def hosts(self) -> set[str]:
        return {host for _, host in self.seen}

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """Answer for the host that the request names."""
        host = request.headers["Host"]
        self.seen.append((request.method, host))
        if host == "git.test":
            return await self.sources.give_smartly(request)
        body = await request.read()
        self.bodies[f"{request.method} {host}"] = body
        answers: dict[str, dict[str, Any]] = {
            "images.test": {"body": picture()},
            "models.test": {"body": b"weights"},
            "s3.test": {"headers": {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}},
            "uploads.test": {"status": 201},
            "azure.test": {"status": 201},
            "hooks.test": {},
        }
        return web.Response(**answers.get(host, {"status": 502, "text": f"the proxy knows no {host}"}))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Beyond]:
        app = web.Application()
        app.router.add_route("*", "/git/{path:.*}", self.pass_on)
        app.router.add_route("*", "/{path:.*}", self.pass_on)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


@pytest.fixture
async def beyond(sources: Sources) -> AsyncIterator[Beyond]:
    async with Beyond(sources).open() as beyond:
        yield beyond


async def answer(stack: Stack, request_id: str, **fields: Any) -> dict[str, Any]:
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": f"http://images.test/{request_id}.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    await stack.outside.send({"id": request_id, "prompt": prompt, **fields})
    body = (await stack.outside.terminal(request_id, 60)).body
    assert body["type"] == "prompt.complete", body
    return body


@pytest.mark.full
async def test_every_client_goes_through_the_proxy_and_comfyui_is_not_asked_by_it(
    tmp_path: Path, beyond: Beyond
) -> None:
    """Inputs, models, git, S3, Azure, HTTP uploads and webhooks; ComfyUI and the broker are reached directly."""
    commit = beyond.sources.repository("anna/pack").first
    manifest = {
        "custom_nodes": [f"http://git.test/git/anna/pack.git@{commit}"],
        "models": {"before_start": [{"url": "http://models.test/a", "local_path": "models/vae/a.safetensors"}]},
    }
    env = {
        # Both spellings are in use, and NO_PROXY is left out on purpose: loopback must not need it.
        "HTTP_PROXY": beyond.url,
        "http_proxy": beyond.url,
        "https_proxy": beyond.url,
        "CACHE_DIR": tmp_path / "cache",
        "MANIFEST_JSON": json.dumps(manifest),
        "AWS_ENDPOINT_URL": "http://s3.test",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AZURE_STORAGE_CONNECTION_STRING": AZURE,
    }
    async with AsyncExitStack() as cleanup:
        stack = await cleanup.enter_async_context(run_stack(tmp_path, **env))
        comfy = await stack.comfy()
        worker = stack.worker(comfy)
        await worker.start()
        assert (comfy.home / "models/vae/a.safetensors").read_bytes() == b"weights"
        assert (comfy.home / "custom_nodes/pack/of.txt").read_text() == "anna"
        settings = {**worker.env, "WORKER_ID": "bridge", "HOST": "127.0.0.1", "PORT": str(free_port())}
        settings |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
        bridge = launch([sys.executable, "-m", "app", "bridge"], tmp_path / "bridge.log", settings)
        cleanup.push_async_callback(bridge.kill)
        await wait_http(f"http://127.0.0.1:{settings['PORT']}/ready", bridge)
        await answer(stack, "by-http", http_upload={"url_prefix": "http://uploads.test/x"})
        await answer(stack, "by-s3", s3={"bucket": "b"})
        await answer(stack, "by-azure", azure_blob_upload={"container": "c"})
        await answer(stack, "by-hook", webhook_v2="http://hooks.test/done")
        with anyio.fail_after(60):
            while "POST hooks.test" not in beyond.bodies:
                await anyio.sleep(0.05)
    assert beyond.hosts == {
        "git.test",
        "models.test",
        "images.test",
        "uploads.test",
        "s3.test",
        "azure.test",
        "hooks.test",
    }
    for target in ("PUT uploads.test", "PUT s3.test", "PUT azure.test"):
        assert beyond.bodies[target].startswith(b"\x89PNG"), target
    assert json.loads(beyond.bodies["POST hooks.test"])["id"] == "by-hook"
