"""Everything at once: duplicates, hand-backs, bad connections, killed servers; nothing lost, nothing doubled."""

from __future__ import annotations

import json
import random

import anyio
import pytest

from brokers.base import Bus, Claim, Delivery, RequestKey, Tries
from tests.support.broker_harness import BrokerHarness, answer, eventually
from tests.support.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.anyio, pytest.mark.full]

IDS = [f"s{number}" for number in range(150)]
TORMENT_S = 25.0


@pytest.mark.timeout(240)
async def test_every_id_has_one_event_whatever_happens(hasty_broker: BrokerHarness) -> None:
    """Three workers on bad connections to a server that dies now and then answer every id exactly once."""
    chance = random.Random(7)
    broker = hasty_broker
    async with (
        broker.bus_on_a_wire() as (one, first),
        broker.bus_on_a_wire() as (two, second),
        broker.bus() as three,
        anyio.create_task_group() as tasks,
    ):
        for bus in (one, two, three):
            tasks.start_soon(_work, bus, chance)
        tasks.start_soon(_send, broker, chance)
        with anyio.move_on_after(TORMENT_S):
            while True:
                await _torment(broker, [first, second], chance)
        first.resume()
        second.resume()

        async def all_settled() -> bool:
            return await broker.outside.unsettled() == 0 and len(await broker.outside.terminals()) == len(IDS)

        await eventually(all_settled, within_s=90)
        tasks.cancel_scope.cancel()
    stored = await broker.outside.terminals()
    assert {key: len(events) for key, events in stored.items()} == dict.fromkeys(IDS, 1)


async def _send(broker: BrokerHarness, chance: random.Random) -> None:
    """Each id two or three times, in any order, through every outage."""
    for request_id in chance.sample(IDS * 2 + IDS[:50], k=len(IDS) * 2 + 50):
        sent = False
        while not sent:
            try:
                await broker.outside.send({"id": request_id})
                sent = True
            except Exception:  # noqa: BLE001 - whatever the plain client makes of a dead server
                await anyio.sleep(0.2)
        await anyio.sleep(0.03)


async def _torment(broker: BrokerHarness, wires: list[TcpProxy], chance: random.Random) -> None:
    await anyio.sleep(chance.uniform(0.2, 1.5))
    match chance.choice(["cut", "cut", "freeze", "kill"]):
        case "cut":
            chance.choice(wires).cut()
        case "freeze":
            wire = chance.choice(wires)
            wire.freeze()
            await anyio.sleep(chance.uniform(0.5, 3))
            wire.resume()
        case "kill":
            with anyio.CancelScope(shield=True):
                await broker.kill()
                await broker.restart()


async def _work(bus: Bus, chance: random.Random) -> None:
    async with anyio.create_task_group() as tasks:
        while True:
            delivery = None
            with anyio.move_on_after(chance.uniform(0.05, 2)):
                delivery = await bus.take(1)
            if delivery is not None:
                tasks.start_soon(_hold, delivery, chance)


async def _hold(delivery: Delivery, chance: random.Random) -> None:
    request_id = json.loads(delivery.body)["id"]
    claim, tries = await delivery.claim(RequestKey(request_id))
    if claim is Claim.ANSWERED:
        await delivery.drop()
        return
    await anyio.sleep(chance.uniform(0, 0.3))
    match chance.choice(["settle", "settle", "settle", "release", "retry", "break off"]):
        case "release":
            await delivery.release()
        case "retry":
            await delivery.retry(chance.uniform(0, 1), Tries(attempt=tries.attempt + 1))
        case "break off":
            with anyio.move_on_after(chance.uniform(0, 0.02)):
                await delivery.settle(answer(request_id, "failed"))
                return
            await delivery.release()
        case _:
            await delivery.settle(answer(request_id, chance.choice(["complete", "failed"])))
