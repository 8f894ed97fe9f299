"""Dead letters on NATS as an operator sees them: listed without their bodies, and run again."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brokers.base import BrokerRefused, Bus, Letter
from brokers.nats import NatsClient
from tests.support.broker_harness import NatsHarness, answer, take, take_claimed

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(nats_server: NatsHarness) -> AsyncIterator[NatsClient]:
    """An open client."""
    async with NatsClient(nats_server.config).open() as client:
        yield client


async def give_up(broker: NatsHarness, bus: Bus, request_id: str, body: bytes, headers: dict[str, str]) -> None:
    """A request that ends as a dead letter."""
    await broker.outside.send(body, headers)
    replay = int(headers.get("comfybus-replay", "0"))
    delivery = await take_claimed(bus, request_id, replay=replay)
    letter = Letter("it failed 3 times", "attempts_exhausted", "w1", 3, request_id, id_was_derived=False, replay=replay)
    assert await delivery.settle(answer(request_id, "failed", replay=replay), letter)


async def test_letters_are_listed_without_their_bodies(nats_server: NatsHarness, client: NatsClient) -> None:
    """All letters, oldest first, more than fit into one batch; the newest of an id can be asked for."""
    assert [one async for one in client.dead_letters()] == []
    async with nats_server.bus() as bus:
        assert [one async for one in client.dead_letters()] == []
        for n in range(3):
            await give_up(nats_server, bus, f"l{n}", b"secret", {"x-n": str(n)})
        pattern = await nats_server.outside.js.get_last_msg("comfyui-dlq", "comfyui.prompt.request.dlq")
        for n in range(3, 120):
            headers = {**pattern.headers, "comfybus-request-id": f"l{n}", "x-n": str(n), "Nats-Msg-Id": f"m{n}"}
            await nats_server.outside.js.publish("comfyui.prompt.request.dlq", b"secret", headers=headers)
        letters = [one async for one in client.dead_letters()]
        assert [one.request_id for one in letters] == [f"l{n}" for n in range(120)]
        assert letters[7].headers["x-n"] == "7"
        assert (letters[7].code, letters[7].attempts, letters[7].replay) == ("attempts_exhausted", 3, 0)
        assert letters[7].place == "comfyui-dlq#8"
        assert "secret" not in repr(letters)
        found = await client.letter("l100")
        assert found is not None
        assert found.request_id == "l100"
        assert await client.letter("l999") is None
        info = await nats_server.outside.js.stream_info("comfyui-dlq")
        assert info.state.consumer_count == 0


async def test_a_letter_is_replayed(nats_server: NatsHarness, client: NatsClient) -> None:
    """Original bytes and headers with the marks of a replay; the letter is gone, and a failed replay leaves another."""
    sent = {"X-Own": "1", "Nats-Msg-Id": "mine", "Nats-Expected-Stream": "comfyui-request", "comfybus-reason": "x"}
    async with nats_server.bus() as bus:
        await give_up(nats_server, bus, "a", b"\xff raw", sent)
        letter = await client.letter("a")
        assert letter is not None
        assert await client.replay(letter) == 1
        assert await client.letter("a") is None
        delivery = await take_claimed(bus, "a", replay=1)
        assert delivery.body == b"\xff raw"
        assert delivery.headers == {
            "X-Own": "1",
            "comfybus-reason": "x",
            "comfybus-original-Nats-Msg-Id": "mine",
            "comfybus-original-Nats-Expected-Stream": "comfyui-request",
            "comfybus-replay": "1",
            "Nats-Msg-Id": "a/replay/1",
        }
        again = Letter("once more", "attempts_exhausted", "w1", 3, "a", id_was_derived=False, replay=1)
        assert await delivery.settle(answer("a", "failed", replay=1), again)
        second = await client.letter("a")
        assert second is not None
        assert second.replay == 1
        assert await client.replay(second) == 2
        third = await take_claimed(bus, "a", replay=2)
        assert third.headers["comfybus-original-Nats-Msg-Id"] == "mine"
        assert third.headers["Nats-Msg-Id"] == "a/replay/2"
        assert await third.settle(answer("a", replay=2))
    ids = [one.headers["ce-id"] for one in (await nats_server.outside.terminals())["a"]]
    assert ids == ["a/failed", "a/failed/1", "a/complete/2"]


async def test_a_letter_is_replayed_once(nats_server: NatsHarness, client: NatsClient) -> None:
    """Replayed again from an old list it is refused; nothing runs twice."""
    async with nats_server.bus() as bus:
        await give_up(nats_server, bus, "a", b"{}", {})
        letter = await client.letter("a")
        assert letter is not None
        await client.replay(letter)
        with pytest.raises(BrokerRefused, match="no longer kept"):
            await client.replay(letter)
        await take(bus)
        assert await bus.take(0.2) is None


async def test_a_derived_id_stays_with_the_replay(nats_server: NatsHarness, client: NatsClient) -> None:
    """The replay of a request without a usable id carries the id it was answered under."""
    async with nats_server.bus() as bus:
        await nats_server.outside.send(b"no json")
        delivery = await take_claimed(bus, "derived-1")
        letter = Letter("no json", "invalid_request", "w1", 1, "derived-1", id_was_derived=True)
        await delivery.settle(answer("derived-1", "failed"), letter)
        found = await client.letter("derived-1")
        assert found is not None
        assert found.id_was_derived
        await client.replay(found)
        assert (await take(bus)).headers["comfybus-id"] == "derived-1"


async def test_a_large_letter_is_replayed_whole(nats_server: NatsHarness, client: NatsClient) -> None:
    """Bytes kept outside the letter come back; what leaves no room for the marks is sent as a reference to them."""
    async with nats_server.bus() as bus:
        headers = {"ce-dataref": "https://example.org/own"}
        for request_id, size in (("fits", bus.max_message_bytes - 300), ("full", bus.max_message_bytes - 60)):
            body = os.urandom(size)
            await give_up(nats_server, bus, request_id, body, headers)
            letter = await client.letter(request_id)
            assert letter is not None
            assert letter.headers["comfybus-body-bytes"] == str(size)
            await client.replay(letter)
            delivery = await take_claimed(bus, request_id, replay=1)
            if request_id == "fits":
                assert delivery.body == body
                assert delivery.headers["ce-dataref"] == "https://example.org/own"
            else:
                assert delivery.body == b""
                assert await _fetched(client, delivery.headers["ce-dataref"], nats_server.folder) == body
            await delivery.settle(answer(request_id, replay=1))


async def _fetched(client: NatsClient, url: str, folder: Path) -> bytes:
    await client.fetch_object(url, folder / "fetched")
    return (folder / "fetched").read_bytes()
