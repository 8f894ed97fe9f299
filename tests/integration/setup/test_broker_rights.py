"""The users of deploy/nats have the rights they need and no others, against a real server."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import nats
import nats.errors
import nats.js.errors
import pytest
from aiohttp import web

from brokers.embedded import find_server
from tests.integration.cli.command_line import Commands
from tests.support.processes import Process, StandIn, Worker, free_port, launch, wait_http
from tests.support.stack import graph

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
PASSWORDS = {f"{user.upper()}_PASSWORD": f"{user}-pass" for user in ("admin", "worker", "producer", "bridge")}


@dataclass
class Secured:
    """A server with the users, everything created by the admin, a ComfyUI, and a worker with its own rights."""

    folder: Path
    port: int
    comfy: StandIn

    def url(self, user: str) -> str:
        return f"nats://{user}:{user}-pass@127.0.0.1:{self.port}"

    def worker(self, name: str, user: str) -> Worker:
        env = {"BROKER_URL": self.url(user), "COMFYUI_URL": self.comfy.url, "COMFY_HOME": str(self.comfy.home)}
        more = {"SYSTEM_EVENTS": "all", "INLINE_LIMIT_KB": "0", "MAX_ATTEMPTS": "1"}
        return Worker(name, self.folder, {**env, **more, "CACHE_DIR": str(self.folder / "cache")})

    def violations(self, client: str) -> list[str]:
        """What the server refused a program."""
        lines = (self.folder / "nats.log").read_text().splitlines()
        return [line for line in lines if f':{client}"' in line and "Violation" in line]

    def commands(self, user: str) -> Commands:
        return Commands(self.folder, {"BROKER_URL": self.url(user), "COMFYUI_URL": self.comfy.url})

    @asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[tuple[Any, list[str]]]:
        """A plain connection, and what the server refused it."""
        refused: list[str] = []

        async def note(exc: Exception) -> None:
            refused.append(str(exc).lower())

        connection = await nats.connect(self.url(user), error_cb=note)
        try:
            yield connection, refused
        finally:
            await connection.close()


async def serve(folder: Path, port: int) -> Process:
    config = folder / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\nports_file_dir: "{folder}"\njetstream {{ store_dir: "{folder / "store"}" }}\n'
        # Paths of an include are relative to the file.
        f'include "{os.path.relpath(ROOT / "deploy/nats/users.conf", folder)}"\n'
    )
    command = [str(find_server()), "-c", str(config)]
    process = launch(command, folder / "nats.log", {"PATH": os.environ["PATH"], **PASSWORDS})
    ports = anyio.Path(folder / f"nats-server_{process.pid}.ports")
    with anyio.fail_after(20):
        while not await ports.exists():
            assert process.running, process.tail()
            await anyio.sleep(0.01)
    return process


@pytest.fixture(scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    async with AsyncExitStack() as stack:
        port = free_port()
        server = await serve(folder, port)
        stack.push_async_callback(server.kill)
        comfy = StandIn(folder / "comfy", free_port())
        await comfy.start()
        stack.push_async_callback(comfy.kill)
        secured = Secured(folder, port, comfy)
        # As the file says: run once with the admin's rights. Its first output creates the bucket.
        first = secured.worker("first", "admin")
        await first.start()
        stack.push_async_callback(first.kill)
        (folder / "g.json").write_text(json.dumps(graph()))
        done = await secured.commands("admin").run("submit", "g.json", "--wait", "--id", "first-1")
        assert done.code == 0, done.err
        await first.stop()
        worker = secured.worker("least", "worker")
        await worker.start()
        stack.push_async_callback(worker.kill)
        yield secured
        assert worker.process is not None
        assert "ermission" not in worker.process.log.read_text()
        assert secured.violations("comfybus-least") == []


@pytest.mark.full
async def test_a_prompt_goes_through_with_the_least_rights(secured: Secured) -> None:
    """Submitted, followed, stored in the bucket and fetched from there; events and the fleet are seen."""
    producer = secured.commands("producer")
    done = await producer.run("submit", "g.json", "--wait", "--id", "least-1", "--out", "out")
    assert done.code == 0, done.err
    assert [path.suffix for path in (secured.folder / "out").rglob("*.png")] == [".png"]
    done = await producer.run("cancel", "least-2")
    assert done.code == 0, done.err
    done = await producer.run("workers", "--json")
    assert "least" in done.out


@pytest.mark.full
async def test_a_request_given_up_reaches_the_dead_letter(secured: Secured) -> None:
    """The worker may write letters; the admin reads them, a producer does not."""
    async with secured.client("producer") as (connection, _):
        await connection.jetstream().publish("comfyui.prompt.request", b"\xff no json", headers={"ce-id": "junk-2"})
    letters = []
    with anyio.fail_after(30):
        while not letters:
            done = await secured.commands("admin").run("dlq", "list", "--json")
            letters = [json.loads(line) for line in done.out.splitlines()]
            await anyio.sleep(0.1)
    assert "junk-2" in str(letters)
    done = await secured.commands("producer").run("dlq", "list")
    assert done.code != 0


@pytest.mark.full
async def test_the_bridge_delivers_with_its_own_rights(secured: Secured) -> None:
    """Created by the admin once; then results and outputs are read and webhooks sent."""
    heard = anyio.Event()
    bodies = []

    async def take(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        heard.set()
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    bridges = []
    try:
        for name, user in (("made", "admin"), ("least-bridge", "bridge")):
            env = {"BROKER_URL": secured.url(user), "WORKER_ID": name, "HOST": "127.0.0.1", "PORT": str(free_port())}
            more = {"ALLOWED_PRIVATE_HOSTS": "127.0.0.1", "CACHE_DIR": str(secured.folder / name), "LOG_FORMAT": "json"}
            kept = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": str(ROOT)}
            bridge = launch([sys.executable, "-m", "app", "bridge"], secured.folder / f"{name}.log", kept | env | more)
            bridges.append(bridge)
            await wait_http(f"http://127.0.0.1:{env['PORT']}/ready", bridge)
            if user == "admin":
                assert await bridge.terminate() == 0
        async with secured.client("producer") as (connection, _):
            request = {"id": "hook-1", "prompt": graph(), "webhook_v2": hook}
            await connection.jetstream().publish("comfyui.prompt.request", json.dumps(request).encode())
            with anyio.fail_after(30):
                await heard.wait()
        assert bodies[0]["id"] == "hook-1"
        assert secured.violations("comfybus-least-bridge") == []
    finally:
        for bridge in bridges:
            await bridge.kill()
        await runner.cleanup()


@pytest.mark.full
@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("producer", "comfyui.prompt.complete.x"),
        ("producer", "comfyui.worker.w.started"),
        ("producer", "$KV.comfyui-ledger.x.0"),
        ("producer", "$JS.API.STREAM.DELETE.comfyui-result"),
        ("producer", "$JS.API.STREAM.PURGE.comfyui-request"),
        ("producer", "$JS.API.STREAM.MSG.GET.comfyui-dlq"),
        ("producer", "$JS.API.STREAM.MSG.GET.comfyui-request"),
        ("producer", "$JS.API.CONSUMER.MSG.NEXT.comfyui-request.worker"),
        ("worker", "comfyui.prompt.request"),
        ("worker", "comfyui.control"),
        ("worker", "$JS.API.STREAM.CREATE.comfyui-other"),
        ("worker", "$JS.API.STREAM.UPDATE.comfyui-result"),
        ("worker", "$JS.API.STREAM.DELETE.comfyui-result"),
        ("worker", "$JS.API.STREAM.PURGE.comfyui-result"),
        ("worker", "$JS.API.STREAM.MSG.GET.comfyui-dlq"),
        ("bridge", "comfyui.prompt.request"),
        ("bridge", "comfyui.prompt.complete.x"),
        ("bridge", "comfyui.control"),
        ("bridge", "$JS.API.STREAM.DELETE.comfyui-webhook"),
    ],
)
async def test_what_is_not_needed_is_refused(secured: Secured, user: str, subject: str) -> None:
    """Nobody can answer for a worker, read letters, or change a stream but the admin."""
    async with secured.client(user) as (connection, refused):
        await connection.publish(subject, b"{}")
        await connection.flush()
        with anyio.fail_after(5):
            while not refused:
                await anyio.sleep(0.01)
        assert "permissions violation" in refused[0]


@pytest.mark.full
async def test_dead_letters_are_not_heard(secured: Secured) -> None:
    """A wildcard over the channels of prompts is granted and still leaves them out."""
    heard = []
    async with secured.client("producer") as (connection, _), secured.client("admin") as (admin, _):

        async def hear(message: Any) -> None:
            heard.append(message.subject)

        await connection.subscribe("comfyui.prompt.*.*", cb=hear)
        await connection.flush()
        await admin.publish("comfyui.prompt.request.dlq", b"{}")
        await admin.publish("comfyui.prompt.progress.p-1", b"{}")
        await admin.flush()
        with anyio.fail_after(5):
            while not heard:
                await anyio.sleep(0.01)
        assert heard == ["comfyui.prompt.progress.p-1"]


async def test_the_acls_of_kafka_are_set_one_by_one(tmp_path: Path) -> None:
    """The script names every topic of the contract with the right operations, and no secret topic to producers."""
    tool = tmp_path / "kafka-acls.sh"
    tool.write_text(f'#!/bin/sh\necho "$*" >> "{tmp_path}/calls"\n')
    tool.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "BOOTSTRAP": "kafka:9092", "TOPIC_PREFIX": "team.blue"}
    await anyio.run_process(["bash", str(ROOT / "deploy/kafka/acls.sh")], env=env, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert all(call.startswith("--bootstrap-server kafka:9092 --add --force --allow-principal User:") for call in calls)
    from brokers.channels import Channel, Names

    names = Names("team.blue")
    worker = [call for call in calls if "User:worker" in call]
    producer = [call for call in calls if "User:producer" in call]
    for channel in Channel:
        topic = f"--topic {names.topic(channel)}"
        assert any(call.endswith(topic) for call in worker), channel
        assert any(call.endswith(topic) for call in producer) is (channel is not Channel.DEAD_LETTER), channel
    assert any(f"--group {names.worker_group}" in call for call in worker)
    assert any(f"--transactional-id {names.worker_group}- --resource-pattern-type prefixed" in call for call in worker)
    # Settled requests are deleted, and the letter of a large replay is read.
    [delete] = [call for call in calls if "--operation Delete" in call]
    assert delete in worker
    assert delete.endswith(f"--topic {names.topic(Channel.REQUEST)}")
    letters = f"--topic {names.topic(Channel.DEAD_LETTER)}"
    assert any(call.endswith(letters) and "--operation Read" in call for call in worker)
    operator = [call for call in calls if "User:operator" in call]
    assert any(call.endswith(letters) and "--operation Read" in call for call in operator)
    assert any(call.endswith(letters) and "--operation Write" in call for call in operator)
    assert any(f"--transactional-id {names.worker_group}-replay" in call for call in operator)
    bridge = [call for call in calls if "User:bridge" in call]
    for own in ("webhook", "webhook-body", "webhook-lease"):
        assert any(call.endswith(f"--topic team.blue-{own}") for call in bridge), own
    assert any("--transactional-id team_blue.webhook- --resource-pattern-type prefixed" in call for call in bridge)
    assert not any("--topic team.blue.prompt.request" in call or "--group" in call for call in bridge)
    assert not any("--operation All" in call or "--topic *" in call for call in calls)
