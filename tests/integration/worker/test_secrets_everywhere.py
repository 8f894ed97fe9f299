"""A secret in every field of settings, requests and commands that can hold one; then everything is read that can be."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from tests.support.kafka_server import EXISTING, PASSWORD, USER, Kafka
from tests.support.services.collector import Collector, run_collector
from tests.support.stack import Stack, graph, run_stack
from tests.support.tiny import PNG

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

CANARY = "canary7f3a"
# Allowed in terminal events, since the bridge has to call them, and nowhere else.
WEBHOOK = "hookbird91c"
KEY = base64.b64encode(f"{CANARY}-account-key".encode()).decode()
FORMS = (
    CANARY,
    KEY,
    base64.b64encode(f"user:{CANARY}-basic".encode()).decode(),
    base64.b64encode(CANARY.encode()).decode()[:12],
    # Kafka's, which logs in by a name it knows; JSON may write it another way.
    PASSWORD,
    json.dumps(PASSWORD).strip('"'),
)
QUERY = f"X-Amz-Signature={CANARY}-1&sig={CANARY}-2&token={CANARY}-3&se=2030-01-01#{CANARY}-4"
DEAD = "http://127.0.0.1:1"


@dataclass
class Host:
    """A host that wants what requests bring, and leads some of them elsewhere."""

    url: str = ""
    asked: list[str] = field(default_factory=list)

    @property
    def with_user(self) -> str:
        return self.url.replace("://", f"://user:{CANARY}-password@")

    async def get(self, request: web.Request) -> web.Response:
        self.asked.append(
            f"{request.raw_path} {request.headers.get('Authorization')} {request.headers.get('X-Api-Key')}"
        )
        if request.path.startswith("/leads/"):
            return web.Response(status=302, headers={"Location": f"http://u:{CANARY}-r@127.0.0.1:1/x?sig={CANARY}-r"})
        if request.path.startswith("/none/"):
            return web.Response(status=404, text=f"{CANARY}-answer")
        return web.Response(body=PNG, content_type="image/png", headers={"X-Secret": f"{CANARY}-header"})

    async def put(self, request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=403 if request.path.startswith("/none/") else 201, text=f"{CANARY}-answer")


@pytest.fixture(scope="module")
async def host() -> AsyncIterator[Host]:
    """A host on loopback."""
    host = Host()
    app = web.Application()
    app.router.add_get("/{path:.*}", host.get)
    app.router.add_put("/{path:.*}", host.put)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield host
    await runner.cleanup()


@pytest.fixture(scope="module")
async def collector() -> AsyncIterator[Collector]:
    """Where the spans go."""
    async with run_collector() as collector:
        yield collector


def login(stack: Stack) -> dict[str, str]:
    """The address of the broker with a secret, in the settings that the kind of broker has for it."""
    if not isinstance(stack.broker, Kafka):
        return {"BROKER_URL": stack.broker.url.replace("://", f"://user:{CANARY}-broker@")}
    if EXISTING:
        return {}
    return {
        "BROKER_URL": f"kafka://127.0.0.1:{stack.broker.server.sasl_port}",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": USER,
        "KAFKA_SASL_PASSWORD": PASSWORD,
    }


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory, host: Host, collector: Collector) -> AsyncIterator[Stack]:
    """A worker whose every secret setting is set, and which tells all it can."""
    folder = tmp_path_factory.mktemp("lab")
    settings = {
        "AWS_ENDPOINT_URL": DEAD,
        "AWS_ACCESS_KEY_ID": f"{CANARY}-aws-id",
        "AWS_SECRET_ACCESS_KEY": f"{CANARY}-aws-secret",
        "AWS_SESSION_TOKEN": f"{CANARY}-aws-session",
        "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=acc;AccountKey={KEY};BlobEndpoint={DEAD}/acc",
        "HF_TOKEN": f"hf_{CANARY}ABCDEFGHIJKLMNOP",
        "HF_ENDPOINT": DEAD,
        "HTTP_AUTH_HEADER_NAME": "X-Api-Key",
        "HTTP_AUTH_HEADER_VALUE": f"{CANARY}-operator",
        "HTTP_AUTH_HOSTS": host.url.removeprefix("http://"),
        "HTTPS_PROXY": f"http://user:{CANARY}-proxy@127.0.0.1:1",
        "WEBHOOK_SECRET": "whsec_" + base64.b64encode(f"{CANARY}-webhook-secret-000".encode()).decode(),
        "ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces",
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-token={CANARY}-traces",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "SYSTEM_EVENTS": "all",
        "LOG_LEVEL": "debug",
        "MAX_ATTEMPTS": 1,
        "CACHE_DIR": folder / "cache",
    }
    async with run_stack(folder, **settings) as stack:
        worker = stack.worker(await stack.comfy())
        worker.env |= login(stack)
        await worker.start()
        yield stack


AUTHS: list[dict[str, str]] = [
    {"type": "bearer", "token": f"{CANARY}-bearer"},
    {"type": "basic", "username": "user", "password": f"{CANARY}-basic"},
    {"type": "header", "header_name": "X-Api-Key", "header_value": f"{CANARY}-header"},
    {"type": "query", "query_param": "key", "query_value": f"{CANARY}-query"},
    {
        "type": "s3",
        "access_key_id": f"{CANARY}-id",
        "secret_access_key": f"{CANARY}-secret",
        "session_token": f"{CANARY}-session",
        "endpoint": f"{DEAD}/?{CANARY}",
    },
]


def load(image: str) -> dict[str, Any]:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }


def failing(message: str) -> dict[str, Any]:
    nodes = graph()
    nodes["2"] = {"class_type": "FailingNode", "inputs": {"image": ["1", 0], "message": message}}
    nodes["9"]["inputs"]["images"] = ["2", 0]
    return nodes


def requests(host: Host) -> Iterator[dict[str, Any]]:
    """Requests that succeed and that fail in every way, each with secrets wherever there can be one."""
    everywhere = [
        {"url_pattern": f"{host.url}/b/**", "auth": AUTHS[0]},
        *({"url_pattern": f"s{n}://**", "auth": auth} for n, auth in enumerate(AUTHS)),
    ]
    hooks = {
        "webhook": f"https://hooks.example/{WEBHOOK}",
        "webhook_v2": f"https://u:{WEBHOOK}@hooks.example/?t={WEBHOOK}",
    }
    inputs = [
        f"{host.url}/a/1.png?{QUERY}",
        f"{host.with_user}/a/2.png?{QUERY}",
        f"{host.url}/b/3.png",
        f"{host.url}/leads/4.png?{QUERY}",
        f"{host.with_user}/none/5.png?{QUERY}",
        f"http://user:{CANARY}@169.254.169.254/x.png?{QUERY}",
        f"http://user:{CANARY}/slash@127.0.0.1:1/x.png",
        f"https://user:{CANARY}@example.com/x.png?{QUERY}",
        "s3://bucket/key.png",
        f"{DEAD}/acc/container/blob.png?{QUERY}",
        f"{DEAD}/u/r/resolve/main/x.png?{QUERY}",
    ]
    for url in inputs:
        yield {"prompt": load(url), "credentials": everywhere, **hooks}
    for auth in AUTHS:
        yield {"prompt": load(f"{host.url}/c/{auth['type']}.png"), "credentials": [{"url_pattern": "**", "auth": auth}]}
    # As the text of a node's own failure: what a request brought, and what merely looks like a secret.
    said = f"cannot read {host.with_user}/x?{QUERY} with Bearer {CANARY}-bearer, nor with {CANARY}-basic"
    both = [{"url_pattern": "x", "auth": AUTHS[0]}, {"url_pattern": "y", "auth": AUTHS[1]}]
    yield {"prompt": failing(said), "credentials": both}
    targets: list[dict[str, Any]] = [
        {"http_upload": {"url_prefix": f"{host.with_user}/out?{QUERY}"}},
        {"http_upload": {"url_prefix": f"{host.with_user}/none/out?{QUERY}"}},
        {"http_upload": {"url_prefix": f"http://user:{CANARY}@127.0.0.1:1/out?{QUERY}"}},
        {"s3": {"bucket": "bucket", "prefix": "p/"}},
        {"azure_blob_upload": {"container": "container", "blob_prefix": "p/"}},
        {"hf_upload": {"repo": "u/r", "repo_type": "model"}},
    ]
    for target in targets:
        yield {"prompt": graph(), **target, **hooks}
    # Requests that break the contract, with a secret where it breaks it.
    yield {"prompt": graph(), "credentials": [{"url_pattern": "x", "auth": {"type": "bearer", "token": [CANARY]}}]}
    yield {"prompt": graph(), "credentials": [{"url_pattern": "x", "auth": {"type": CANARY, "token": CANARY}}]}
    yield {"prompt": graph(), "credentials": f"{CANARY}"}
    yield {"prompt": graph(), "http_upload": {"url_prefix": f"gopher://user:{CANARY}@h/x?{QUERY}"}}
    yield {"prompt": graph(), "timeout_s": f"{host.with_user}/x?{QUERY}"}
    yield {"workflow": f"{host.with_user}/x?{QUERY}", "input": {"image": f"{host.with_user}/x?{QUERY}"}}


def commands(host: Host) -> Iterator[dict[str, Any]]:
    """Model downloads that succeed and fail."""
    for number, auth in enumerate(AUTHS):
        url = (
            "s3://bucket/m.safetensors" if auth["type"] == "s3" else f"{host.with_user}/m/{number}.safetensors?{QUERY}"
        )
        yield {"type": "model.download", "id": f"m-{number}", "url": url, "model_type": "checkpoints", "auth": auth}
    yield {
        "type": "model.download",
        "id": "m-9",
        "url": f"{host.with_user}/none/m.safetensors?{QUERY}",
        "model_type": "checkpoints",
    }


async def told(stack: Stack) -> dict[str, str]:
    """Everything that anybody can read but the requests, the commands and the bodies of dead letters."""
    found = {}
    for number, event in enumerate(stack.outside.events):
        if event.channel == "control":
            continue
        body = {} if event.channel.endswith(("dlq", "request")) else event.body
        found[f"event {number} on {event.channel}"] = json.dumps([event.headers, body], default=str)
    for letter in await stack.outside.letters():
        found[f"letter {letter.headers.get('comfybus-code')}"] = json.dumps(letter.headers)
    worker = stack.workers[0]
    assert worker.process is not None
    found["log"] = worker.process.log.read_text()
    async with aiohttp.ClientSession() as session:
        for path in ("metrics", "health", "ready", "models", "docs"):
            async with session.get(f"{worker.url}/{path}") as response:
                found[f"/{path}"] = await response.text()
    found |= await stack.outside.notes()
    found |= await anyio.to_thread.run_sync(on_disk, stack)
    return found


def on_disk(stack: Stack) -> dict[str, str]:
    """Names of all files, and what the cache notes of them."""
    ours = [stack.folder / "cache", stack.comfys[0].home]
    found = {f"name {path}": str(path) for folder in ours for path in folder.rglob("*")}
    notes = (path for path in (stack.folder / "cache").rglob("*") if path.is_file() and path.suffix != ".png")
    return found | {
        f"note {path}": path.read_bytes().decode("latin-1") for path in notes if path.parent.name != "cache"
    }


async def test_no_secret_is_seen_anywhere(lab: Stack, host: Host, collector: Collector) -> None:
    """Events, headers of letters, logs, spans, metrics, pages, what is kept at the broker, file names: none has one."""
    count = 0
    for count, request in enumerate(requests(host), start=1):
        await lab.outside.send({"id": f"secret-{count}", **request})
    models = list(commands(host))
    for command in models:
        await lab.outside.command(command)
    dead = {"ce-id": "secret-ref", "ce-dataref": f"{host.with_user}/none/request?{QUERY}"}
    await lab.outside.send(b"", dead)
    await lab.outside.send(f'{{"id": "secret-broken", "token": "{CANARY}'.encode())
    for number in range(1, count + 1):
        await lab.outside.terminal(f"secret-{number}", 120)
    await lab.outside.terminal("secret-ref", 60)
    with anyio.fail_after(60):
        while len(
            answered := [one for one in lab.outside.heard(channel="storage") if str(one.body["id"]).startswith("m-")]
        ) < len(models):
            await anyio.sleep(0.05)
    outcomes = {event.body["type"] for event in answered}
    assert outcomes == {"storage.file_downloaded", "storage.download_failed"}
    # The secrets were used where they belong.
    used = "\n".join(host.asked)
    for part in ("-1&sig=", f"Bearer {CANARY}-bearer", f"{CANARY}-operator", f"key={CANARY}-query"):
        assert part in used
    kinds = {event.body.get("type") for event in lab.outside.events}
    assert {
        "prompt.complete",
        "prompt.failed",
        "prompt.progress",
        "comfy.execution_error",
        "storage.file_uploaded",
    } <= kinds
    with anyio.fail_after(30):
        while sum(span.name.startswith("process") for span in collector.spans) < count:
            await anyio.sleep(0.05)
    found = await told(lab) | {"spans": collector.raw.decode("latin-1")}
    assert any(name.startswith("letter") for name in found)
    for form in FORMS:
        seen = {name: text[max(text.find(form) - 200, 0) :][:400] for name, text in found.items() if form in text}
        assert not seen, (form, len(seen), list(seen.items())[:4])
    hooks = {name for name, text in found.items() if WEBHOOK in text}
    assert hooks
    assert {name.split(" on ")[-1] for name in hooks} <= {"prompt.complete", "prompt.failed"}, hooks
