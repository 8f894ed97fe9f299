"""The producer's and consumer's side on NATS: what the command line is built on."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from brokers.base import BrokerRefused, BrokerUnavailable, Letter, Message, MessageTooLarge
from brokers.channels import Channel
from brokers.client import EventMessage
from brokers.embedded import run_embedded
from brokers.nats import NatsClient, NatsConfig
from tests.support.broker_harness import NatsHarness, answer, eventually, take, take_claimed

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(nats_server: NatsHarness) -> AsyncIterator[NatsClient]:
    """An open client."""
    async with NatsClient(nats_server.config).open() as client:
        yield client


def event(channel: Channel, *parts: str, n: int = 0) -> Message:
    """Something for a side channel."""
    return Message(channel, parts, parts[0], json.dumps({"type": parts[-1], "n": n}).encode(), {"id": str(n)})


async def collect(events: AsyncIterator[EventMessage], into: list[EventMessage]) -> None:
    """Read to the end."""
    async for one in events:
        into.append(one)  # noqa: PERF401 - seen while it grows


async def test_a_submitted_request_reaches_a_worker(nats_server: NatsHarness, client: NatsClient) -> None:
    """Body and headers arrive as they are; the same message id twice is one request."""
    async with nats_server.bus() as bus:
        for _ in range(2):
            await client.submit(b'{"id": "a"}', {"ce-id": "e"}, request_id="a", message_id="m")
        delivery = await take(bus)
        assert (delivery.body, delivery.headers["ce-id"]) == (b'{"id": "a"}', "e")
        assert await bus.take(0.2) is None


async def test_what_cannot_be_submitted(nats_server: NatsHarness, client: NatsClient) -> None:
    """No usable id, no name of a header, no room: each is an error with a cure, and the next one works."""
    async with nats_server.bus() as bus:
        for wrong in ("", "*", "a.b", ">", "a b"):
            with pytest.raises(BrokerRefused, match="no request id"):
                await client.submit(b"{}", request_id=wrong)
        with pytest.raises(BrokerRefused, match="no name of a header"):
            await client.submit(b"{}", {"a:b": "c"}, request_id="a")
        with pytest.raises(MessageTooLarge):
            await client.submit(b"x" * bus.max_message_bytes, {"a": "b"}, request_id="a")
        with pytest.raises(MessageTooLarge):
            await client.submit(b"", {"a": "b" * 70_000}, request_id="a")
        await client.submit(b"{}", request_id="a")
        await take(bus)


async def test_without_streams_a_client_says_so(tmp_path: Path) -> None:
    """Before the first worker nothing can be submitted, followed or listed, and the sentences name the cure."""
    async with (
        run_embedded(tmp_path) as server,
        NatsClient(NatsConfig(servers=(server.url,))).open() as client,
    ):
        for sending in (client.submit(b"{}", request_id="a"), client.command(b"{}")):
            with pytest.raises(BrokerUnavailable, match="a worker creates what is missing"):
                await sending
        with pytest.raises(BrokerUnavailable, match="its stream is missing"):
            await client.last_terminal("a")
        assert [one async for one in client.dead_letters()] == []
        assert await client.workers() == []
        with anyio.move_on_after(0.3) as scope:
            async with client.follow("a") as events:
                async for _ in events:
                    raise AssertionError
        assert scope.cancelled_caught


async def test_a_prompt_is_followed_to_its_end(nats_server: NatsHarness, client: NatsClient) -> None:
    """Its progress comes in order, then its terminal event, then nothing; other prompts are not heard."""
    async with nats_server.bus() as bus, client.follow("a") as events:
        await client.submit(b"{}", request_id="a")
        delivery = await take_claimed(bus, "a")
        for n in range(5):
            await bus.publish(event(Channel.PROGRESS, "a", n=n))
            await bus.publish(event(Channel.PROGRESS, "b", n=n))
        await delivery.settle(answer("a", text="done"))
        with anyio.fail_after(2):
            got = [one async for one in events]
    assert [one.channel for one in got] == [Channel.PROGRESS] * 5 + [Channel.COMPLETE]
    assert [one.document["n"] for one in got[:5]] == list(range(5))
    assert got[-1].document["text"] == "done"
    assert got[-1].headers["ce-id"] == "a/complete"


async def test_a_terminal_event_that_nobody_heard_is_found(nats_server: NatsHarness, client: NatsClient) -> None:
    """Whether it was stored before, or published while the connection was lost, it is not waited for in vain."""
    async with nats_server.bus() as bus:
        await nats_server.outside.send({})
        await (await take_claimed(bus, "a")).settle(answer("a"))
        with anyio.fail_after(2):
            async with client.follow("a") as events:
                assert [one.channel async for one in events] == [Channel.COMPLETE]
        found = await client.last_terminal("a")
        assert found is not None
        assert found.channel is Channel.COMPLETE
        assert await client.last_terminal("b") is None


async def test_following_survives_a_restart_of_the_server(nats_server: NatsHarness, client: NatsClient) -> None:
    """The terminal event comes although the server was killed in between."""
    got: list[EventMessage] = []
    async with nats_server.bus() as bus, client.follow("a") as events, anyio.create_task_group() as tasks:
        await nats_server.outside.send({})
        delivery = await take_claimed(bus, "a")
        tasks.start_soon(collect, events, got)
        await nats_server.kill()
        await nats_server.restart()
        await delivery.settle(answer("a"))
        await eventually(lambda: got)
    assert [one.channel for one in got] == [Channel.COMPLETE]


async def test_an_event_that_lost_is_not_shown(nats_server: NatsHarness, client: NatsClient) -> None:
    """Plain subscribers hear a terminal event that the stream refused; who follows or watches does not."""
    watched: list[EventMessage] = []
    async with nats_server.bus() as bus, client.watch() as events, anyio.create_task_group() as tasks:
        tasks.start_soon(collect, events, watched)
        await nats_server.outside.send({})
        await (await take_claimed(bus, "a")).settle(answer("a"))
        await client.link.client.publish("comfyui.prompt.failed.b", b'{"id": "b", "stored": true}')
        refused = {"Nats-Expected-Last-Sequence": "99"}
        await client.link.client.publish("comfyui.prompt.failed.a", b'{"id": "a", "refused": true}', headers=refused)
        await eventually(lambda: len(nats_server.outside.heard(channel="prompt.failed")) == 2)
        async with client.follow("a") as followed:
            assert [one.channel async for one in followed] == [Channel.COMPLETE]
        await eventually(lambda: len(watched) == 2)
        tasks.cancel_scope.cancel()
    assert [one.document["id"] for one in watched] == ["a", "b"]


async def test_a_replay_is_followed_to_its_own_end(nats_server: NatsHarness, client: NatsClient) -> None:
    """The terminal event of the first run does not end it."""
    got: list[EventMessage] = []
    async with nats_server.bus() as bus, client.follow("a", replay=1) as events, anyio.create_task_group() as tasks:
        tasks.start_soon(collect, events, got)
        for replay, outcome in ((0, "failed"), (1, "complete")):
            await nats_server.outside.send({})
            delivery = await take_claimed(bus, "a", replay=replay)
            assert got == []
            await delivery.settle(answer("a", outcome, replay=replay))
        await eventually(lambda: got)
    assert [one.document.get("replay") for one in got] == [1]


async def test_everything_is_watched(nats_server: NatsHarness, client: NatsClient) -> None:
    """Events of every channel come, each terminal event once; requests, commands and letters do not."""
    got: list[EventMessage] = []
    async with nats_server.bus() as bus, client.watch() as events, anyio.create_task_group() as tasks:
        tasks.start_soon(collect, events, got)
        await client.command(b"{}")
        await bus.publish(event(Channel.WORKER, "w1", "heartbeat"))
        await bus.publish(event(Channel.STORAGE, "file_uploaded"))
        await bus.publish(event(Channel.SYSTEM, "status"))
        await bus.publish(event(Channel.PROGRESS, "a"))
        await client.submit(b"{}", request_id="a")
        letter = Letter("no", "internal", "w1", 1, "a", id_was_derived=False)
        await (await take_claimed(bus, "a")).settle(answer("a", "failed"), letter)
        await eventually(lambda: len(got) == 5)
        await bus.publish(event(Channel.PROGRESS, "z"))
        await eventually(lambda: len(got) == 6)
        tasks.cancel_scope.cancel()
    assert [one.channel for one in got] == [
        Channel.WORKER,
        Channel.STORAGE,
        Channel.SYSTEM,
        Channel.PROGRESS,
        Channel.FAILED,
        Channel.PROGRESS,
    ]


async def test_a_failure_inside_the_blocks_comes_out_as_it_is(client: NatsClient, nats_server: NatsHarness) -> None:
    """No group wraps what a caller raises while it follows or watches."""
    async with nats_server.bus():
        for opened in (client.follow("a"), client.watch()):
            with pytest.raises(ZeroDivisionError):
                async with opened:
                    raise ZeroDivisionError


async def test_the_last_sign_of_life_of_each_worker(nats_server: NatsHarness, client: NatsClient) -> None:
    """One event for each worker: the latest of started, heartbeat and stopped."""
    assert await client.workers() == []
    async with nats_server.bus() as bus:
        for n, (worker, name) in enumerate(
            [("w2", "started"), ("w2", "heartbeat"), ("w1", "heartbeat"), ("w2", "stopped"), ("w1", "models")]
        ):
            await bus.publish(event(Channel.WORKER, worker, name, n=n))
        await eventually(lambda: len(nats_server.outside.heard(channel="worker")) == 5)
        found = await client.workers()
        listed = await client.inventories()
    assert [one.document["type"] for one in found] == ["heartbeat", "stopped"]
    assert [(one.document["type"], one.document["n"]) for one in listed] == [("models", 4)]


async def test_only_objects_are_fetched(nats_server: NatsHarness, client: NatsClient, tmp_path: Path) -> None:
    """Other URLs and absent objects are refused with a sentence, and leave no file."""
    for url in ("https://example.org/x", "nats://bucket", "nats://bu.cket/x", "nats:///x", "nats://none/x"):
        with pytest.raises(BrokerRefused):
            await client.fetch_object(url, tmp_path / "x")
    assert not list(tmp_path.glob("*x*"))


async def test_the_check_names_what_is_missing(nats_server: NatsHarness, client: NatsClient) -> None:
    """Before a worker was there everything is missing; afterwards all is well."""
    before = await client.check()
    assert before[0].ok
    assert "nats-server 2." in before[0].text
    assert [check.ok for check in before[1:]] == [False] * 8
    assert "start a worker" in before[1].text
    async with nats_server.bus():
        after = await client.check()
        assert all(check.ok for check in after), after
        assert len(after) == 9
    await nats_server.kill()
    await eventually(lambda: not client.link.is_connected)
    lost = await client.check()
    assert [check.ok for check in lost] == [False]


async def test_a_slow_reader_of_everything_holds_nobody_up(nats_server: NatsHarness, client: NatsClient) -> None:
    """Live events beyond the buffer are lost, and later ones still come."""
    async with nats_server.bus() as bus, client.watch() as events:
        for n in range(6000):
            await bus.publish(event(Channel.PROGRESS, "a", n=n))
        await bus.link.client.flush()
        await asyncio.sleep(0)
        with anyio.fail_after(10):
            async for one in events:
                if one.document["n"] >= 4000:
                    break
        assert dataclasses.is_dataclass(one)
