"""Dead letters: the request as it was, and why, before its failure is told."""

from __future__ import annotations

import dataclasses
import json

import anyio
import pytest

from brokers.base import Letter
from tests.support.broker_harness import BrokerHarness, answer, take_claimed

pytestmark = pytest.mark.anyio

LETTER = Letter("it was tried 3 times", "attempts_exhausted", "w1", 3, "a", id_was_derived=False)


async def test_a_letter_tells_why_when_and_where_from(broker: BrokerHarness) -> None:
    """The letter has the original headers and body and says reason, code, worker, attempts, place and times."""
    async with broker.bus() as bus:
        await broker.outside.send({"id": "a"}, {"X-Own": "1", "ce-id": "e", "comfybus-reason": "mine"})
        delivery = await take_claimed(bus, "a")
        assert await delivery.settle(answer("a", "failed"), LETTER)
        (letter,) = await broker.outside.letters()
        assert letter.body == {"id": "a"}
        wanted = {
            "x-own": "1",
            "ce-id": "e",
            "comfybus-reason": "it was tried 3 times",
            "comfybus-original-comfybus-reason": "mine",
            "comfybus-code": "attempts_exhausted",
            "comfybus-worker": "w1",
            "comfybus-attempts": "3",
            "comfybus-request-id": "a",
        }
        assert wanted.items() <= letter.headers.items()
        assert letter.headers["comfybus-time"].endswith("Z")
        assert letter.headers["comfybus-published"].endswith("Z")
        assert "comfybus-id" not in letter.headers
        assert "comfybus-replay" not in letter.headers
        place = delivery.origin.source.model_dump(exclude_none=True)
        assert {f"comfybus-{name}": str(value) for name, value in place.items()}.items() <= letter.headers.items()
        assert (await broker.outside.terminal("a", 1)).channel == "prompt.failed"
        assert await broker.outside.unsettled() == 0


async def test_bytes_that_are_no_text_are_kept(broker: BrokerHarness) -> None:
    """Body bytes of any kind reach the letter untouched, and a derived id and a replay are noted."""
    body = bytes(range(256)) * 4
    letter = dataclasses.replace(LETTER, id_was_derived=True, replay=2)
    async with broker.bus() as bus:
        await broker.outside.send(body)
        assert await (await take_claimed(bus, "a", replay=2)).settle(answer("a", "failed", replay=2), letter)
        (found,) = await broker.outside.letters()
        assert found.body["raw"] == body
        assert found.headers["comfybus-id"] == "a"
        assert found.headers["comfybus-replay"] == "2"


async def test_a_request_as_large_as_possible_has_a_letter(broker: BrokerHarness) -> None:
    """The letter has the untouched bytes, or refers to them where the added headers find no room."""
    async with broker.bus() as bus:
        body = json.dumps({"id": "a", "x": "y" * (bus.max_message_bytes - 200)}).encode()
        await broker.outside.send(body, {"ce-dataref": "https://example.org/other"})
        assert await (await take_claimed(bus, "a")).settle(answer("a", "failed"), LETTER)
        (found,) = await broker.outside.letters()
        if broker.has_room_for_letters:
            assert found.body == json.loads(body)
            assert found.headers["ce-dataref"] == "https://example.org/other"
            return
        assert found.body == {"raw": b""}
        assert found.headers["ce-dataref"] != "https://example.org/other"
        assert found.headers["comfybus-original-ce-dataref"] == "https://example.org/other"
        assert int(found.headers["comfybus-body-bytes"]) == len(body)


async def test_a_letter_of_headers_only_fits_too(broker: BrokerHarness) -> None:
    """Of headers as large as the broker takes the letter loses the largest and names it, unless there is room."""
    async with broker.bus() as bus:
        await broker.outside.send({"id": "a"}, {"x-huge": "h" * 65_000, "x-small": "s"})
        assert await (await take_claimed(bus, "a")).settle(answer("a", "failed"), LETTER)
        (found,) = await broker.outside.letters()
        assert found.headers["x-small"] == "s"
        assert ("x-huge" in found.headers) == broker.has_room_for_letters
        assert found.headers.get("comfybus-omitted", "x-huge") == "x-huge"
        assert ("comfybus-omitted" in found.headers) != broker.has_room_for_letters


async def test_a_letter_sent_again_is_one_letter(broker: BrokerHarness) -> None:
    """Settling that is broken off at any moment and repeated leaves one letter and one event."""
    async with broker.bus() as bus:
        for number in range(15):
            await broker.outside.send({"id": f"x{number}"})
            delivery = await take_claimed(bus, f"x{number}")
            letter = dataclasses.replace(LETTER, request_id=f"x{number}")
            with anyio.move_on_after(0.0004 * number):
                await delivery.settle(answer(f"x{number}", "failed"), letter)
            await delivery.settle(answer(f"x{number}", "failed"), letter)
        ids = sorted(letter.headers["comfybus-request-id"] for letter in await broker.outside.letters())
        assert ids == sorted(f"x{number}" for number in range(15))
        assert {len(events) for events in (await broker.outside.terminals()).values()} == {1}
        assert await broker.outside.unsettled() == 0
