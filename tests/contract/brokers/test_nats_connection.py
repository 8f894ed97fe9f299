"""The connection to NATS: refused, garbled, ended by the server, and restored for as long as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from brokers.base import BrokerRefused, BrokerUnavailable, MessageTooLarge
from brokers.embedded import find_server, run_embedded
from brokers.nats import NatsBus, NatsConfig
from tests.support.broker_harness import NatsHarness, answer, eventually, take_claimed
from tests.support.processes import free_port, launch

pytestmark = pytest.mark.anyio

USERS = """
authorization { users = [ { user: root, password: root }, { user: worker, password: secret } ] }
"""


async def test_wrong_credentials_are_refused_at_once(tmp_path: Path) -> None:
    """The sentence speaks of credentials, names no password, and does not wait for a timeout."""
    async with run_embedded(tmp_path, extra=USERS) as server:
        for user in ("//worker:wrong-secret@", "//"):
            with anyio.fail_after(3), pytest.raises(BrokerRefused, match="credentials") as refused:
                async with NatsBus(NatsConfig(servers=(server.url.replace("//", user),))).open():
                    pass
            assert "wrong-secret" not in str(refused.value)


async def test_who_may_not_hear_answers_is_told_so(tmp_path: Path) -> None:
    """Without the right to listen at an inbox nothing can work; the start says it at once."""
    deaf = """authorization { users = [
        { user: worker, password: pw, permissions: { subscribe: { deny: "_INBOX.>" } } } ] }"""
    async with run_embedded(tmp_path, extra=deaf) as server:
        with anyio.fail_after(5), pytest.raises(BrokerRefused, match=r'subscription to "_inbox\..*grant it'):
            async with NatsBus(NatsConfig(servers=(server.url.replace("//", "//worker:pw@"),))).open():
                pass


async def test_nobody_at_the_address_is_unavailable() -> None:
    """After the time for the first connection the sentence names the address, without the password."""
    config = NatsConfig(servers=("nats://me:secret@127.0.0.1:1",), first_connection_s=0.3)
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1 .*start it or correct BROKER_URL") as raised:
        async with NatsBus(config).open():
            pass
    assert "secret" not in str(raised.value)


async def test_a_server_without_jetstream_is_unfit(tmp_path: Path) -> None:
    """The start ends with a sentence about JetStream."""
    port = free_port()
    process = launch([str(find_server()), "-a", "127.0.0.1", "-p", str(port)], tmp_path / "nats.log")
    try:
        await eventually(lambda: "Server is ready" in process.tail())
        with pytest.raises(BrokerUnavailable, match="JetStream"):
            async with NatsBus(NatsConfig(servers=(f"nats://127.0.0.1:{port}",), first_connection_s=1)).open():
                pass
    finally:
        await process.kill()


@asynccontextmanager
async def greeting_server(*greetings: bytes) -> AsyncIterator[int]:
    """A listener that greets like a NATS server, each connection with the next of the greetings, and answers pings."""
    waiting = list(greetings)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(waiting.pop(0) if len(waiting) > 1 else waiting[0])
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def info(version: str) -> bytes:
    """The first line of a server."""
    return b'INFO {"server_id":"x","version":"%s","max_payload":1048576,"headers":true}\r\n' % version.encode()


async def test_a_server_that_is_too_old_is_refused() -> None:
    """One line says its version and what to do."""
    async with greeting_server(info("2.10.26")) as port:
        with pytest.raises(BrokerRefused, match=r"nats-server 2\.10\.26 .* upgrade it to 2\.11"):
            async with NatsBus(NatsConfig(servers=(f"nats://127.0.0.1:{port}",))).open():
                pass


async def test_a_garbled_greeting_is_one_failed_attempt() -> None:
    """The next attempt finds a proper server."""
    async with greeting_server(b"\xff\xfe" * 5 + b"INFO garbage\r\n", b"INFO \xff\r\n", info("2.10.0")) as port:
        config = NatsConfig(servers=(f"nats://127.0.0.1:{port}",))
        with pytest.raises(BrokerRefused, match=r"2\.10\.0"):
            async with NatsBus(config).open():
                pass


async def test_an_error_of_the_server_costs_no_more_than_a_reconnect(nats_server: NatsHarness) -> None:
    """Where nats-py would close for good, a message over the limit sent around our check, the bus comes back."""
    async with nats_server.bus() as bus:
        with capture_logs() as logs:
            client = bus.link.client
            await client.publish("comfyui.other", b"x" * client.max_payload, headers={"a": "b" * 100})
            await eventually(lambda: [line for line in logs if line["event"] == "connection to NATS restored"])
        await nats_server.outside.send({"id": "a"})
        assert await (await take_claimed(bus, "a")).settle(answer("a"))
        assert bus.health().ok


async def test_the_limit_is_read_again_at_a_reconnect(tmp_path: Path) -> None:
    """A server that comes back with a smaller limit gets no message that it would end the connection over."""
    async with AsyncExitStack() as server:
        url = (await server.enter_async_context(run_embedded(tmp_path))).url
        async with NatsBus(NatsConfig(servers=(url,))).open() as bus:
            assert bus.max_message_bytes == 1024 * 1024
            await bus.link.store("send", "comfyui.prompt.request", b"{}", {})
            delivery = await take_claimed(bus, "a")
            await server.aclose()
            async with run_embedded(tmp_path, port=int(url.rpartition(":")[2]), extra="max_payload: 300KB"):
                with pytest.raises(MessageTooLarge):
                    await delivery.settle(answer("a", text="x" * 400_000))
                await eventually(lambda: bus.max_message_bytes == 300 * 1024)
                assert await delivery.settle(answer("a"))


async def test_credentials_that_are_refused_for_a_while_end_nothing(tmp_path: Path) -> None:
    """A bus that a restarted server refuses goes on trying, and is back when the server knows it again."""
    async with AsyncExitStack() as server:
        url = (await server.enter_async_context(run_embedded(tmp_path, extra=USERS))).url
        port = int(url.rpartition(":")[2])
        async with NatsBus(NatsConfig(servers=(url.replace("//", "//root:root@"),))).open() as bus:
            await server.aclose()
            with capture_logs() as logs:
                async with run_embedded(tmp_path, port=port, extra=USERS.replace("root", "other")):
                    await eventually(lambda: [line for line in logs if "Authorization" in str(line.get("detail"))])
                assert not bus.health().ok
            async with run_embedded(tmp_path, port=port, extra=USERS):
                await eventually(lambda: bus.health().ok)
                await bus.link.store("send", "comfyui.prompt.request", b"{}", {})
                assert await (await take_claimed(bus, "a")).settle(answer("a"))
