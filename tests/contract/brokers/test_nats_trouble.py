"""NATS in trouble: each trouble is told once, shown in the health, and heals by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from nats.js import api
from structlog.testing import capture_logs

from brokers.base import (
    Claim,
    CommandMessage,
    Letter,
    Message,
    RequestKey,
)
from brokers.channels import Channel
from brokers.embedded import run_embedded
from brokers.nats import NatsBus, NatsClient, NatsConfig
from tests.support.broker_harness import NatsHarness, answer, eventually, take, take_claimed

pytestmark = pytest.mark.anyio


def troubles(logs: list[Any]) -> list[str]:
    """What was being done when trouble was told."""
    return [line["doing"] for line in logs if line["event"] == "trouble with the broker"]


@asynccontextmanager
async def taking(bus: NatsBus) -> AsyncIterator[None]:
    """A worker with free slots that asks for requests all the time."""

    async def ask() -> None:
        while True:
            await bus.take(0.5)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        yield
        tasks.cancel_scope.cancel()


async def test_a_deleted_consumer_is_told_and_made_anew(nats_server: NatsHarness) -> None:
    """Health says that no requests come, the durable is declared again, and the waiting request is taken."""
    js = nats_server.outside.js
    with capture_logs() as logs:
        async with nats_server.bus() as bus:
            async with taking(bus):
                await anyio.sleep(0.2)
                await js.delete_consumer("comfyui-request", "worker")
                await eventually(lambda: not bus.health().ok)
                assert "take requests" in bus.health().reason
                await eventually(lambda: bus.health().ok)
            await nats_server.outside.send({"id": "a"})
            await take_claimed(bus, "a")
    assert troubles(logs) == ["take requests"]


async def test_a_consumer_deleted_while_all_slots_are_busy_is_made_anew(
    nats_server: NatsHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a single take it is noticed within the time between two looks."""
    monkeypatch.setattr("brokers.nats.upkeep.DECLARE_EVERY_S", 0.2)
    monkeypatch.setattr("brokers.nats.delivery.ACK_TIMEOUT_S", 0.2)
    monkeypatch.setattr("brokers.nats.delivery.ACK_PAUSE_S", 0.05)
    js = nats_server.outside.js
    async with nats_server.bus() as bus:
        await nats_server.outside.send({"id": "a"})
        delivery = await take_claimed(bus, "a")
        await js.delete_consumer("comfyui-request", "worker")

        async def there() -> bool:
            return bool((await js.stream_info("comfyui-request")).state.consumer_count)

        await eventually(there)
        assert await delivery.settle(answer("a"))
        # The new consumer knows nothing of the old delivery: it hands the request out again, which is then dropped.
        again = await take(bus)
        assert again.redelivered is False
        assert (await again.claim(RequestKey("a")))[0] is Claim.ANSWERED
        assert again.redelivered
        await again.drop()
        assert await nats_server.outside.unsettled() == 0


async def test_deleted_streams_are_made_anew(nats_server: NatsHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stream of the contract and the ledger come back, and requests go through as before."""
    monkeypatch.setattr("brokers.nats.upkeep.DECLARE_EVERY_S", 0.2)
    js = nats_server.outside.js
    async with nats_server.bus() as bus:
        before = {stream.config.name for stream in await js.streams_info()}
        async with taking(bus):
            for name in before:
                await js.delete_stream(name)

            async def all_back() -> bool:
                return {stream.config.name for stream in await js.streams_info()} == before and bus.health().ok

            await eventually(all_back)
        await nats_server.outside.send({"id": "a"})
        assert await (await take_claimed(bus, "a")).settle(answer("a"))


async def test_the_progress_stream_is_there_after_a_restart(nats_server: NatsHarness) -> None:
    """It lives in memory, is gone with the server, and is declared again at the reconnect."""
    async with nats_server.bus():
        await nats_server.kill()
        await nats_server.restart()

        async def there() -> bool:
            return "comfyui-progress" in {s.config.name for s in await nats_server.outside.js.streams_info()}

        await eventually(there)


async def test_commands_are_followed_through_a_new_control_stream(nats_server: NatsHarness) -> None:
    """A control stream that was deleted and counts from one again is read from its beginning."""
    got: list[CommandMessage] = []

    async def read(bus: NatsBus) -> None:
        async for command in bus.commands():
            got.append(command)  # noqa: PERF401 - it never ends

    async with nats_server.bus() as bus, anyio.create_task_group() as tasks:
        for number in range(3):
            await nats_server.outside.command({"n": number})
        tasks.start_soon(read, bus)
        await eventually(lambda: len(got) == 3)
        await nats_server.outside.js.delete_stream("comfyui-control")
        bus._upkeep.look()

        async def there() -> bool:
            return "comfyui-control" in {s.config.name for s in await nats_server.outside.js.streams_info()}

        await eventually(there)
        await nats_server.outside.command({"n": 3})
        await eventually(lambda: len(got) == 4)
        assert b"3" in got[-1].body
        assert [command.fresh for command in got] == [False, False, False, True]
        tasks.cancel_scope.cancel()


async def test_a_full_result_stream_is_told_and_heals(nats_server: NatsHarness) -> None:
    """While results cannot be stored the settlement waits and health says why; with room again it goes through."""
    js = nats_server.outside.js
    full = api.StreamConfig(
        name="comfyui-result",
        subjects=["comfyui.prompt.complete.*", "comfyui.prompt.failed.*"],
        max_bytes=600,
        discard=api.DiscardPolicy.NEW,
    )
    await js.add_stream(full)
    with capture_logs() as logs:
        async with nats_server.bus() as bus, anyio.create_task_group() as tasks:
            await nats_server.outside.send({"id": "a"})
            delivery = await take_claimed(bus, "a")
            tasks.start_soon(delivery.settle, answer("a", text="x" * 600))
            await eventually(lambda: not bus.health().ok)
            assert "maximum bytes" in bus.health().reason
            await anyio.sleep(1)
            await js.update_stream(full.evolve(max_bytes=100_000))
            await eventually(lambda: bus.health().ok)
    assert troubles(logs) == ["publish a terminal event"]
    assert len((await nats_server.outside.terminals())["a"]) == 1


NO_RESULTS = """
authorization {
  users = [
    { user: root, password: root }
    { user: worker, password: "p@ss/wörd", permissions: {
        publish: { deny: ["comfyui.prompt.complete.>", "comfyui.prompt.progress.>"] } } }
  ]
}
"""


async def test_a_missing_permission_is_told_in_one_line(tmp_path: Path) -> None:
    """The line names the subject; a forbidden side channel disturbs nothing."""
    async with guarded_server(tmp_path, NO_RESULTS) as url:
        root = NatsConfig(servers=(url.replace("//", "//root:root@"),))
        config = NatsConfig(servers=(url.replace("//", "//worker:p%40ss%2Fw%C3%B6rd@"),))
        with capture_logs() as logs:
            async with NatsBus(root).open() as helper, NatsBus(config).open() as bus:
                await helper.link.store("send", "comfyui.prompt.request", b"{}", {})
                delivery = await take_claimed(bus, "a")
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(delivery.settle, answer("a"))
                    await eventually(lambda: not bus.health().ok, within_s=1)
                    await anyio.sleep(0.5)
                    tasks.cancel_scope.cancel()
                await bus.publish(Message(Channel.PROGRESS, ("a",), "a", b"{}"))
                assert await delivery.settle(answer("a", "failed"))
                assert bus.health().ok
        (line,) = [line for line in logs if line["event"] == "trouble with the broker"]
        assert 'publish to "comfyui.prompt.complete.a"' in line["reason"]
        assert "grant it" in line["reason"]


@asynccontextmanager
async def guarded_server(folder: Path, extra: str) -> AsyncIterator[str]:
    """A server with users."""
    async with run_embedded(folder, extra=extra) as server:
        yield server.url


async def test_requests_with_broken_headers_disturb_nobody(nats_server: NatsHarness) -> None:
    """Headers that nats-py cannot take apart, or that look like a status of the server, come as requests."""
    blocks = [
        b"NATS/1.0",
        b"NA",
        b"garbage without structure",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0 404 \xff\xfe\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
        b"NATS/1.0\r\nb\xff\xfed: x\r\nno colon\r\nk@y: 1\r\na: \xff\r\nok: yes\r\n\r\n",
    ]
    async with nats_server.bus() as bus:
        for number, block in enumerate(blocks):
            await publish_raw(nats_server.server.port, block, b"body")
            delivery = await take(bus, within_s=2)
            assert delivery.body == b"body"
            request_id = f"h{number}"
            await delivery.claim(RequestKey(request_id))
            letter = Letter("unreadable", "invalid_request", "w1", 1, request_id, id_was_derived=True)
            assert await delivery.settle(answer(request_id, "failed"), letter)
        # Read by ours: a plain client of nats-py would lose its connection over them.
        async with NatsClient(nats_server.config).open() as client:
            letters = [letter async for letter in client.dead_letters()]
        assert len(letters) == len(blocks)
        assert letters[-1].headers["ok"] == "yes"
        assert letters[-1].headers["comfybus-omitted"] == "k@y"
        assert bus.health().ok


async def publish_raw(port: int, headers: bytes, body: bytes, subject: bytes = b"comfyui.prompt.request") -> None:
    """Publish with a header block as it is, past every client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    size = len(headers) + len(body)
    writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
    writer.write(b"HPUB %s %d %d\r\n" % (subject, len(headers), size) + headers + body + b"\r\nPING\r\n")
    assert await reader.readline() == b"PONG\r\n"
    writer.close()
    await writer.wait_closed()
