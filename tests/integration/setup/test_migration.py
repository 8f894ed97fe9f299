"""docs/migration.md as a newcomer follows it: every message in it is sent to a real worker, and works as written."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import boto3
import pytest
from aiohttp import web
from PIL import Image

from tests.support.processes import free_port, launch, wait_http
from tests.support.services.azurite import Azurite, run_azurite
from tests.support.services.hub import Hub, run_hub
from tests.support.services.weed import Weed, run_weed
from tests.support.stack import Stack, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(150)]

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "migration.md").read_text()
BLOCKS = {
    (kind, name): text
    for kind, name, text in re.findall(r"<!-- (send|command): ([\w-]+) -->\n```json\n(.*?)```", PAGE, re.DOTALL)
}
SEVEN = ["format", "base64", "webhook", "s3", "s3-webhook", "azure", "azure-webhook"]
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (48, 32), (200, 30, 60)).save(out, "PNG")
    return out.getvalue()


@dataclass
class Outside:
    """``images.example.com`` and ``example.com`` in one: gives pictures and models, takes uploads and webhooks."""

    url: str = ""
    stored: dict[str, bytes] = field(default_factory=dict)
    hooks: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def give(self, request: web.Request) -> web.Response:
        if "/private/" in request.path and request.headers.get("Authorization") != "Bearer my-secret-token-1":
            return web.Response(status=403)
        return web.Response(body=b"weights" if "/models/" in request.path else picture())

    async def take(self, request: web.Request) -> web.Response:
        self.stored[request.path] = await request.read()
        return web.Response(status=201)

    async def hook(self, request: web.Request) -> web.Response:
        self.hooks.append(({**request.headers, "webhook-path": request.path}, await request.read()))
        return web.Response()


@dataclass
class Lab:
    """A worker, a bridge and everything around them."""

    stack: Stack
    outside: Outside
    weed: Weed
    azurite: Azurite
    hub: Hub

    def written(self, kind: str, name: str) -> dict[str, Any]:
        """A block of the page with the reader's own buckets and addresses put in."""
        text = BLOCKS[kind, name]
        for theirs, ours in (
            ("https://images.example.com", self.outside.url),
            ("https://example.com/webhook", f"{self.outside.url}/hooks/{name}"),
            ("my-bucket", self.weed.bucket),
            ("my-container", self.azurite.container),
        ):
            text = text.replace(theirs, ours)
        found: dict[str, Any] = json.loads(text)
        return found

    async def answer(self, name: str) -> dict[str, Any]:
        """Send a block and wait for its terminal event; the id is given where the block has none."""
        request = self.written("send", name)
        request.setdefault("id", f"page-{name}")
        await self.stack.outside.send(request)
        body = (await self.stack.outside.terminal(request["id"], 60)).body
        assert body["type"] == "prompt.complete", body
        return body

    async def webhook(self, name: str) -> dict[str, Any]:
        """The webhook that a block asks for, its signature verified."""
        with anyio.fail_after(60):
            while True:
                for headers, body in self.outside.hooks:
                    if headers["webhook-path"].endswith(f"/{name}"):
                        check_signature(headers, body)
                        found: dict[str, Any] = json.loads(body)
                        return found
                await anyio.sleep(0.05)


def check_signature(headers: dict[str, str], body: bytes) -> None:
    found = {name.lower(): value for name, value in headers.items()}
    signed = f"{found['webhook-id']}.{found['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert found["webhook-signature"] == f"v1,{wanted}"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Weed, Azurite, Hub]]:
    with (
        run_weed(tmp_path_factory.mktemp("weed")) as weed,
        run_azurite(tmp_path_factory.mktemp("azurite")) as azurite,
        run_hub() as hub,
    ):
        hub.create("datasets", "username/repo")
        yield weed, azurite, hub


@pytest.fixture(scope="module")
async def lab(services: tuple[Weed, Azurite, Hub], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    weed, azurite, hub = services
    folder = tmp_path_factory.mktemp("migration")
    outside = Outside()
    async with AsyncExitStack() as cleanup:
        app = web.Application()
        app.router.add_post("/hooks/{name}", outside.hook)
        app.router.add_get("/{path:.*}", outside.give)
        app.router.add_put("/{path:.*}", outside.take)
        runner = web.AppRunner(app)
        await runner.setup()
        cleanup.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        outside.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        env = {
            "ALLOWED_PRIVATE_HOSTS": "127.0.0.1,localhost",
            "CACHE_DIR": folder / "cache",
            "AWS_ENDPOINT_URL": weed.url,
            "AWS_REGION": weed.region,
            "AWS_ACCESS_KEY_ID": weed.key,
            "AWS_SECRET_ACCESS_KEY": weed.secret,
            "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string(),
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": hub.token,
            "WEBHOOK_SECRET": SECRET,
        }
        stack = await cleanup.enter_async_context(run_stack(folder, **env))
        comfy = await stack.comfy()
        (comfy.home / "models/checkpoints/dreamshaper_8.safetensors").write_bytes(b"weights")
        worker = stack.worker(comfy)
        await worker.start()
        settings = {**worker.env, "WORKER_ID": "bridge", "HOST": "127.0.0.1", "PORT": str(free_port())}
        bridge = launch(
            [sys.executable, "-m", "app", "bridge"],
            folder / "bridge.log",
            {"PYTHONPATH": str(ROOT), "HOME": str(folder), "LOG_FORMAT": "json", **settings},
        )
        cleanup.push_async_callback(bridge.kill)
        await wait_http(f"http://127.0.0.1:{settings['PORT']}/ready", bridge)
        yield Lab(stack, outside, weed, azurite, hub)


def images(body: dict[str, Any]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(image))) for image in body["images"]]


def test_the_page_has_them_all() -> None:
    """The seven requests of the README come first, in its order."""
    assert [name for kind, name in BLOCKS if kind == "send"][:7] == SEVEN
    assert PAGE.count("```json") == len(BLOCKS)


async def test_request_format(lab: Lab) -> None:
    """1: the URL is fetched, the output is a JPEG, the webhook is signed and has the same content as the event."""
    body = await lab.answer("format")
    assert [(image.format, image.size) for image in images(body)] == [("JPEG", (48, 32))]
    assert body["filenames"] == ["123e4567-e89b-12d3-a456-426614174000_ComfyUI_00001_.jpeg"]
    hook = await lab.webhook("format")
    assert (hook["type"], hook["images"], hook["stats"]) == ("prompt.complete", body["images"], body["stats"])


async def test_base64_response(lab: Lab) -> None:
    """2: both pictures of the batch are in the event, with the names that comfyui-api gives them."""
    body = await lab.answer("base64")
    assert [image.size for image in images(body)] == [(64, 64), (64, 64)]
    assert body["filenames"] == ["page-base64_ComfyUI_00001_.png", "page-base64_ComfyUI_00002_.png"]


async def test_webhook_response(lab: Lab) -> None:
    """3: the receiver gets what the event has."""
    body = await lab.answer("webhook")
    hook = await lab.webhook("webhook")
    assert (hook["id"], hook["images"], hook["filenames"]) == (body["id"], body["images"], body["filenames"])


@pytest.mark.parametrize("name", ["s3", "s3-webhook"])
async def test_s3_urls(lab: Lab, name: str) -> None:
    """4 and 5: the URL names an object that is there, in the event and in the webhook."""
    body = await lab.answer(name)
    key = f"outputs/page-{name}_ComfyUI_00001_.png"
    assert body["images"] == [f"s3://{lab.weed.bucket}/{key}"]
    client = boto3.client(
        "s3",
        endpoint_url=lab.weed.url,
        region_name=lab.weed.region,
        aws_access_key_id=lab.weed.key,
        aws_secret_access_key=lab.weed.secret,
    )
    try:
        found = client.get_object(Bucket=lab.weed.bucket, Key=key)
        with found["Body"] as stream:
            assert Image.open(io.BytesIO(stream.read())).size == (64, 64)
        assert found["ContentType"] == "image/png"
    finally:
        client.close()
    if name.endswith("webhook"):
        assert (await lab.webhook(name))["images"] == body["images"]


@pytest.mark.parametrize("name", ["azure", "azure-webhook"])
async def test_azure_urls(lab: Lab, name: str) -> None:
    """6 and 7: likewise for a blob."""
    from azure.storage.blob import BlobClient

    body = await lab.answer(name)
    blob = f"outputs/page-{name}_ComfyUI_00001_.png"
    (url,) = body["images"]
    assert url.endswith(f"/{lab.azurite.container}/{blob}")
    with BlobClient.from_connection_string(lab.azurite.connection_string(), lab.azurite.container, blob) as client:
        assert Image.open(io.BytesIO(client.download_blob().readall())).size == (64, 64)
    if name.endswith("webhook"):
        assert (await lab.webhook(name))["images"] == [url]


async def test_image_to_image_with_credentials(lab: Lab) -> None:
    """A private picture is fetched with the request's token and comes back inverted; the token is in no event."""
    body = await lab.answer("img2img")
    assert images(body)[0].convert("RGB").getpixel((5, 5)) == (55, 225, 195)
    assert "my-secret-token-1" not in json.dumps(body)


async def test_uploads_to_hugging_face_and_by_http(lab: Lab) -> None:
    """The file is where the URL in the event says."""
    (url,) = (await lab.answer("huggingface"))["images"]
    name = "test-source-images/page-huggingface_ComfyUI_00001_.png"
    assert url == f"{lab.hub.url}/datasets/username/repo/resolve/main/{name}"
    assert name in lab.hub.repos["datasets", "username/repo"].files
    (url,) = (await lab.answer("http"))["images"]
    assert Image.open(io.BytesIO(lab.outside.stored[url.removeprefix(lab.outside.url)])).size == (64, 64)


async def test_a_workflow_and_a_model_by_url(lab: Lab) -> None:
    """The named workflow runs with its input; the model is fetched into ComfyUI's folder and loaded."""
    body = await lab.answer("workflow")
    assert [image.size for image in images(body)] == [(128, 128)]
    assert body["input"]["prompt"] == "a lighthouse at night"
    body = await lab.answer("model")
    assert re.fullmatch(r"dreamshaper_8-[0-9a-f]{10}\.safetensors", body["prompt"]["1"]["inputs"]["ckpt_name"])


async def test_the_commands(lab: Lab) -> None:
    """A model on demand is answered by a storage event; a cancel of a prompt that is over changes nothing."""
    await lab.stack.outside.command(lab.written("command", "download"))
    with anyio.fail_after(30):
        while not (found := [e for e in lab.stack.outside.heard("my-download-1", "storage") if e.body["data"]]):
            await anyio.sleep(0.05)
    assert found[0].body["type"] == "storage.file_downloaded", found[0].body
    assert (lab.stack.comfys[0].home / "models/checkpoints/my-model.safetensors").read_bytes() == b"weights"
    before = await lab.stack.outside.terminals()
    await lab.stack.outside.command(lab.written("command", "cancel"))
    await lab.stack.outside.send({"id": "after-1", **lab.written("send", "base64")})
    await lab.stack.outside.terminal("after-1")
    after = await lab.stack.outside.terminals()
    assert set(after) - set(before) == {"after-1"}


def test_every_variable_of_comfyui_api_is_answered() -> None:
    """Each variable that its README lists, and those it does not, stands on the page."""
    listed = """ALWAYS_RESTART_COMFYUI BASE CACHE_DIR CMD COMFY_HOME COMFYUI_PORT_HOST DIRECT_ADDRESS HOST
        HTTP_AUTH_HEADER_NAME INPUT_DIR LOG_LEVEL LRU_CACHE_SIZE_GB MANIFEST MANIFEST_JSON MARKDOWN_SCHEMA_DESCRIPTIONS
        MAX_BODY_SIZE_MB MAX_QUEUE_DEPTH MODEL_DIR OUTPUT_DIR PORT PREPEND_FILENAMES PROMPT_WEBHOOK_RETRIES
        STARTUP_CHECK_INTERVAL_S STARTUP_CHECK_MAX_TRIES SYSTEM_META_ SYSTEM_WEBHOOK_EVENTS SYSTEM_WEBHOOK_URL
        WARMUP_PROMPT_FILE WARMUP_PROMPT_URL WEBHOOK_SECRET WORKFLOW_DIR AWS_ AZURE_STORAGE_ HF_TOKEN SALAD_
        HTTP_PROXY HTTPS_PROXY NO_PROXY"""
    assert [name for name in listed.split() if f"`{name}" not in PAGE] == []
    for endpoint in ("/prompt", "/workflow/", "/interrupt", "/download", "/models", "/health", "/ready", "/docs"):
        assert re.search(rf"^\| `(GET|POST) [^|]*{endpoint}", PAGE, re.MULTILINE), endpoint
