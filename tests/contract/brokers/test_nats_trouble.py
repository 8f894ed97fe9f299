"""NATS in trouble: each trouble is told once, shown in the health, and heals by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from nats.js import api
from structlog.testing import capture_logs

from brokers.base import (
    BrokerRefused,
    BrokerUnavailable,
    Claim,
    CommandMessage,
    Letter,
    Message,
    MessageTooLarge,
    RequestKey,
)
from brokers.channels import Channel
from brokers.embedded import find_server, run_embedded
from brokers.nats import NatsBus, NatsClient, NatsConfig
from tests.support.broker_harness import NatsHarness, answer, eventually, take, take_claimed
from tests.support.processes import free_port, launch

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


async def test_who_may_not_hear_answers_is_told_so(tmp_path: Path) -> None:
    """Without the right to listen at an inbox nothing can work; the start says it at once."""
    deaf = """authorization { users = [
        { user: worker, password: pw, permissions: { subscribe: { deny: "_INBOX.>" } } } ] }"""
    async with guarded_server(tmp_path, deaf) as url:
        with anyio.fail_after(5), pytest.raises(BrokerRefused, match=r'subscription to "_inbox\..*grant it'):
            async with NatsBus(NatsConfig(servers=(url.replace("//", "//worker:pw@"),))).open():
                pass


@asynccontextmanager
async def guarded_server(folder: Path, extra: str) -> AsyncIterator[str]:
    """A server with users."""
    async with run_embedded(folder, extra=extra) as server:
        yield server.url


async def test_wrong_credentials_are_refused_at_once(tmp_path: Path) -> None:
    """The sentence speaks of credentials, names no password, and does not wait for a timeout."""
    async with guarded_server(tmp_path, NO_RESULTS) as url:
        for user in ("//worker:wrong-secret@", "//"):
            with anyio.fail_after(3), pytest.raises(BrokerRefused, match="credentials") as refused:
                async with NatsBus(NatsConfig(servers=(url.replace("//", user),))).open():
                    pass
            assert "wrong-secret" not in str(refused.value)


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
        url = (await server.enter_async_context(run_embedded(tmp_path, extra=NO_RESULTS))).url
        port = int(url.rpartition(":")[2])
        async with NatsBus(NatsConfig(servers=(url.replace("//", "//root:root@"),))).open() as bus:
            await server.aclose()
            with capture_logs() as logs:
                async with run_embedded(tmp_path, port=port, extra=NO_RESULTS.replace("root", "other")):
                    await eventually(lambda: [line for line in logs if "Authorization" in str(line.get("detail"))])
                assert not bus.health().ok
            async with run_embedded(tmp_path, port=port, extra=NO_RESULTS):
                await eventually(lambda: bus.health().ok)
                await bus.link.store("send", "comfyui.prompt.request", b"{}", {})
                assert await (await take_claimed(bus, "a")).settle(answer("a"))
