"""Claims on NATS: the first submission wins, no id is lost, and the ledger keeps nothing for ever."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from nats.js.errors import NotFoundError

from brokers.base import Bus, Claim, Delivery, RequestKey, Tries
from brokers.nats import NatsBus
from brokers.nats.ledger import Place
from brokers.nats.pull import pull_one
from tests.support.broker_harness import NatsHarness, answer, eventually, take, take_claimed

pytestmark = pytest.mark.anyio

LEDGER = "KV_comfyui-ledger"
KEY = RequestKey("a")


async def entries(broker: NatsHarness) -> dict[str, Any]:
    """What the ledger holds, by key."""
    info = await broker.outside.js.stream_info(LEDGER, subjects_filter=">")
    found = {}
    for subject in info.state.subjects or {}:
        message = await broker.outside.js.get_last_msg(LEDGER, subject)
        found[subject.removeprefix("$KV.comfyui-ledger.")] = json.loads(message.data or b"{}")
    return found


async def two_submissions(broker: NatsHarness, bus: Bus) -> tuple[Delivery, Delivery]:
    """The same id twice, both taken and neither claimed."""
    await broker.outside.send({"id": "a", "metadata": {"n": 1}})
    await broker.outside.send({"id": "a", "metadata": {"n": 2}})
    return await take(bus), await take(bus)


async def test_an_earlier_submission_takes_a_claim_over_that_nobody_wrote_to(nats_server: NatsHarness) -> None:
    """Where the second submission is claimed first, the first one still wins as long as nothing has begun."""
    async with nats_server.bus() as bus:
        first, second = await two_submissions(nats_server, bus)
        assert (await second.claim(KEY))[0] is Claim.OWNED
        assert (await first.claim(KEY))[0] is Claim.OWNED
        await second.store(Tries(begun=True))
        assert second.lost.is_set()
        await second.release()
        again = await take(bus)
        assert (await again.claim(KEY))[0] is Claim.ANSWERED
        await again.drop()
        assert await first.settle(answer("a", text="first"))
        assert [event.body["text"] for event in (await nats_server.outside.terminals())["a"]] == ["first"]
        assert await nats_server.outside.unsettled() == 0
        assert await entries(nats_server) == {}


async def test_a_claim_that_was_written_to_stays(nats_server: NatsHarness) -> None:
    """Once the later submission has begun the earlier one is the one that is dropped."""
    async with nats_server.bus() as bus:
        first, second = await two_submissions(nats_server, bus)
        assert (await second.claim(KEY))[0] is Claim.OWNED
        await second.store(Tries())
        assert (await first.claim(KEY))[0] is Claim.ANSWERED
        await first.drop()
        assert await second.settle(answer("a", text="second"))
        assert await nats_server.outside.unsettled() == 0


async def test_who_lost_the_claim_answers_nothing(nats_server: NatsHarness) -> None:
    """A holder that settles without having written anything finds out, and only the first submission is answered."""
    async with nats_server.bus() as bus:
        first, second = await two_submissions(nats_server, bus)
        assert (await second.claim(KEY))[0] is Claim.OWNED
        assert (await first.claim(KEY))[0] is Claim.OWNED
        assert not await second.settle(answer("a", "failed", text="second"))
        assert await nats_server.outside.terminals() == {}
        assert await nats_server.outside.unsettled() == 1
        assert await first.settle(answer("a", text="first"))


async def test_claims_raced_by_many_workers_lose_no_id(nats_server: NatsHarness) -> None:
    """Three buses, each id submitted three times, claims abandoned at random: every id ends with exactly one event."""
    ids = [f"r{number}" for number in range(25)]
    async with nats_server.bus() as one, nats_server.bus() as two, nats_server.bus() as three:
        for body in range(3):
            for request_id in ids:
                await nats_server.outside.send({"id": request_id, "metadata": {"n": body}})
        async with anyio.create_task_group() as tasks:
            for number, bus in enumerate((one, two, three)):
                tasks.start_soon(_work_badly, bus, number)

            async def done() -> bool:
                return await nats_server.outside.unsettled() == 0

            await eventually(done, within_s=40)
            tasks.cancel_scope.cancel()
        stored = await nats_server.outside.terminals()
        assert {key: len(events) for key, events in stored.items()} == dict.fromkeys(ids, 1)
        await one.ledger.sweep()
        assert await entries(nats_server) == {}


async def _work_badly(bus: Bus, seed: int) -> None:
    """Claim, sometimes store, sometimes hand back, otherwise settle; several at once."""
    import random

    chance = random.Random(seed)
    async with anyio.create_task_group() as tasks:
        while True:
            delivery = await bus.take(0.5)
            if delivery is not None:
                tasks.start_soon(_hold_badly, delivery, chance)


async def _hold_badly(delivery: Delivery, chance: Any) -> None:
    request_id = json.loads(delivery.body)["id"]
    claim, _ = await delivery.claim(RequestKey(request_id))
    if claim is Claim.ANSWERED:
        await delivery.drop()
        return
    if chance.random() < 0.3:
        await delivery.store(Tries(begun=chance.random() < 0.5))
    if delivery.lost.is_set() or chance.random() < 0.3:
        await delivery.release()
    else:
        await delivery.settle(answer(request_id, chance.choice(["complete", "failed"])))


async def test_the_entry_goes_with_the_request(nats_server: NatsHarness) -> None:
    """While held there is one entry for each (id, replay); afterwards nothing is left, not even a marker."""
    async with nats_server.bus() as bus:
        await nats_server.outside.send({"id": "a"})
        delivery = await take_claimed(bus, "a")
        await delivery.store(Tries(attempt=2))
        entry = (await entries(nats_server))["a.0"]
        assert entry["sequence"] == 1
        assert entry["tries"] == {"attempt": 2}
        assert await delivery.settle(answer("a"))
        assert (await nats_server.outside.js.stream_info(LEDGER)).state.messages == 0


async def test_a_claim_whose_request_is_gone_is_taken_over(nats_server: NatsHarness) -> None:
    """A request removed from the queue without an answer gives its id, and its record, to the next submission."""
    async with nats_server.bus() as bus:
        await nats_server.outside.send({"id": "a"})
        first = await take_claimed(bus, "a")
        await first.store(Tries(attempt=2, begun=True))
        await nats_server.outside.js.purge_stream("comfyui-request")
        await nats_server.outside.send({"id": "a"})
        second = await take(bus)
        assert await second.claim(KEY) == (Claim.OWNED, Tries(attempt=2, begun=True))
        assert second.redelivered
        await first.store(Tries(attempt=3))
        assert first.lost.is_set()
        assert await second.settle(answer("a"))


async def test_the_sweep_removes_what_a_crash_left(nats_server: NatsHarness) -> None:
    """Entries of requests that are gone go; those of requests that wait or are held stay."""
    async with nats_server.bus() as bus:
        for request_id in ("held", "waits", "gone"):
            await nats_server.outside.send({"id": request_id})
        held = await take_claimed(bus, "held")
        await (await take_claimed(bus, "waits")).retry(60, Tries(attempt=2))
        gone = await take_claimed(bus, "gone")
        await nats_server.outside.js.delete_msg("comfyui-request", gone.origin.source.sequence or 0)
        await nats_server.outside.js.publish("$KV.comfyui-ledger.hand.0", b"no json")
        await nats_server.outside.js.publish("$KV.comfyui-ledger.other", b"")
        assert await bus.ledger.sweep() == 2
        assert set(await entries(nats_server)) == {"held.0", "waits.0", "other"}
        assert await held.settle(answer("held"))


async def test_a_claim_deleted_by_hand_is_made_anew(nats_server: NatsHarness) -> None:
    """Neither the marker of a key-value client nor an emptied or deleted bucket ends the work on a request."""
    js = nats_server.outside.js
    async with nats_server.bus() as bus:
        await nats_server.outside.send({"id": "a"})
        delivery = await take_claimed(bus, "a")
        bucket = await js.key_value("comfyui-ledger")
        await bucket.delete("a.0")
        await delivery.release()
        delivery = await take_claimed(bus, "a")
        await js.purge_stream(LEDGER)
        await delivery.store(Tries(begun=True))
        assert not delivery.lost.is_set()
        assert (await entries(nats_server))["a.0"]["tries"] == {"begun": True}
        await js.delete_stream(LEDGER)
        assert await delivery.settle(answer("a"))
        assert await nats_server.outside.unsettled() == 0


async def test_a_request_stream_made_anew_counts_from_one(nats_server: NatsHarness) -> None:
    """What is held of the deleted stream is answered, and does not touch the new request of the same number."""
    js = nats_server.outside.js
    async with nats_server.bus() as bus, nats_server.bus() as other:
        await nats_server.outside.send({"id": "old"})
        old = await take_claimed(bus, "old")
        await old.store(Tries(begun=True))
        await js.delete_stream("comfyui-request")
        await _declared_again(other)
        await nats_server.outside.send({"id": "new"})
        new = await take(bus)
        assert b"new" in new.body
        assert new.origin.source == old.origin.source
        assert (await new.claim(RequestKey("new")))[0] is Claim.OWNED
        assert await old.settle(answer("old"))
        assert await nats_server.outside.unsettled() == 1
        assert await new.settle(answer("new"))
        assert await nats_server.outside.unsettled() == 0


async def test_a_claim_of_a_deleted_stream_does_not_block_its_id(nats_server: NatsHarness) -> None:
    """Another request under the old number is not mistaken for the one that had the claim."""
    js = nats_server.outside.js
    async with nats_server.bus() as bus:
        await nats_server.outside.send({"id": "a"})
        old = await take_claimed(bus, "a")
        await old.store(Tries(begun=True))
        await js.delete_stream("comfyui-request")
        await _declared_again(bus)
        await nats_server.outside.send({"id": "other"})
        await nats_server.outside.send({"id": "a"})
        await take_claimed(bus, "other")
        again = await take(bus)
        assert (await again.claim(KEY))[0] is Claim.OWNED


async def _declared_again(bus: NatsBus) -> None:
    bus._upkeep.look()

    async def there() -> bool:
        try:
            return bool((await bus.link.js.stream_info("comfyui-request")).state.consumer_count)
        except NotFoundError:
            return False

    await eventually(there)


async def test_a_request_that_came_in_the_moment_of_a_cancel_is_handed_back(nats_server: NatsHarness) -> None:
    """Cancelled after the request has arrived and before the caller has it, it is free for the next one at once."""
    async with nats_server.bus() as bus:
        await nats_server.outside.send({"id": "a"})
        with anyio.CancelScope() as scope:
            await pull_one(bus.link, ("comfyui-request", "worker"), 5, scope.cancel)
        assert scope.cancelled_caught
        assert (await take(bus, within_s=2)).redelivered


async def test_a_large_request_is_looked_for_too(nats_server: NatsHarness) -> None:
    """Whether a request of the largest size still waits can be told."""
    async with nats_server.bus() as bus:
        await nats_server.outside.send(b"x" * bus.max_message_bytes)
        delivery = await take(bus)
        place = Place(1, delivery.origin.published_at)
        assert await bus.ledger.waits(place)
        await delivery.drop()
        assert not await bus.ledger.waits(place)
