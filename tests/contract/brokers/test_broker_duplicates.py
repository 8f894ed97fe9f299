"""Idempotency: the first submission of an id wins, and a replay is a submission of its own."""

from __future__ import annotations

import pytest

from brokers.base import Claim, RequestKey, Tries
from tests.support.broker_harness import BrokerHarness, answer, take, take_claimed

pytestmark = pytest.mark.anyio


async def test_a_second_submission_while_the_first_is_worked_on(broker: BrokerHarness) -> None:
    """It is claimed in vain, dropped without an event, and the first goes on."""
    async with broker.bus() as bus:
        await broker.outside.send({"id": "a", "metadata": {"n": 1}})
        await broker.outside.send({"id": "a", "metadata": {"n": 2}})
        first, second = await take(bus), await take(bus)
        assert b'"n": 1' in first.body
        assert (await first.claim(RequestKey("a")))[0] is Claim.OWNED
        assert await second.claim(RequestKey("a")) == (Claim.ANSWERED, Tries())
        await second.drop()
        assert await broker.outside.unsettled() == 1
        assert await broker.outside.terminals() == {}
        assert await first.settle(answer("a", text="first"))
        assert [event.body["text"] for event in (await broker.outside.terminals())["a"]] == ["first"]


async def test_a_second_submission_while_the_first_waits_for_its_retry(broker: BrokerHarness) -> None:
    """Also then the first one has the id, with its record."""
    async with broker.bus() as bus:
        await broker.outside.send({"id": "a"})
        await (await take_claimed(bus, "a")).retry(1, Tries(attempt=2))
        await broker.outside.send({"id": "a", "metadata": {}})
        second = await take(bus)
        assert b"metadata" in second.body
        assert (await second.claim(RequestKey("a")))[0] is Claim.ANSWERED
        await second.drop()
        first = await take(bus)
        assert await first.claim(RequestKey("a")) == (Claim.OWNED, Tries(attempt=2))
        assert await first.settle(answer("a"))
        assert await broker.outside.unsettled() == 0


async def test_a_second_submission_after_the_answer(broker: BrokerHarness) -> None:
    """It is answered already: dropped, without another event."""
    async with broker.bus() as bus:
        await broker.outside.send({"id": "a"})
        assert await (await take_claimed(bus, "a")).settle(answer("a"))
        await broker.outside.send({"id": "a"})
        second = await take(bus)
        assert (await second.claim(RequestKey("a")))[0] is Claim.ANSWERED
        await second.drop()
        assert await broker.outside.unsettled() == 0
        assert len((await broker.outside.terminals())["a"]) == 1


async def test_an_event_of_one_id_says_nothing_of_another(broker: BrokerHarness) -> None:
    """Ids that contain each other, or look like parts of channel names, are different ids."""
    ids = ["a", "a-1", "a_1", "A", "dlq", "request", "complete", "0"]
    async with broker.bus() as bus:
        for request_id in ids:
            await broker.outside.send({"id": request_id})
            assert await (await take_claimed(bus, request_id)).settle(answer(request_id))
        assert {key: len(events) for key, events in (await broker.outside.terminals()).items()} == dict.fromkeys(ids, 1)


async def test_a_replay_is_answered_once_after_the_first_answer(broker: BrokerHarness) -> None:
    """A replay adds one event behind the first; repeated or older replays add none."""
    async with broker.bus() as bus:
        await broker.outside.send({"id": "a"})
        assert await (await take_claimed(bus, "a")).settle(answer("a", "failed"))
        await broker.outside.send({"id": "a"}, {"comfybus-replay": "1"})
        await broker.outside.send({"id": "a"}, {"comfybus-replay": "1"})
        first, again = await take(bus), await take(bus)
        assert (await first.claim(RequestKey("a", 1)))[0] is Claim.OWNED
        assert (await again.claim(RequestKey("a", 1)))[0] is Claim.ANSWERED
        await again.drop()
        assert await first.settle(answer("a", replay=1))
        for number in (1, 0):
            await broker.outside.send({"id": "a"}, {"comfybus-replay": str(number)})
            late = await take(bus)
            assert (await late.claim(RequestKey("a", number)))[0] is Claim.ANSWERED
            await late.drop()
        events = (await broker.outside.terminals())["a"]
        assert [event.headers["ce-id"] for event in events] == ["a/failed", "a/complete/1"]
        assert await broker.outside.unsettled() == 0


async def test_a_later_replay_overtakes_an_earlier_one(broker: BrokerHarness) -> None:
    """While replay 1 is worked on replay 2 may be answered; then replay 1 has nothing to add."""
    async with broker.bus() as bus:
        await broker.outside.send({"id": "a"})
        assert await (await take_claimed(bus, "a")).settle(answer("a", "failed"))
        held = []
        for number in (1, 2):
            await broker.outside.send({"id": "a"}, {"comfybus-replay": str(number)})
            held.append(await take_claimed(bus, "a", replay=number))
        assert await held[1].settle(answer("a", replay=2))
        assert not await held[0].settle(answer("a", "failed", replay=1))
        events = (await broker.outside.terminals())["a"]
        assert [event.headers["ce-id"] for event in events] == ["a/failed", "a/complete/2"]
        assert await broker.outside.unsettled() == 0
