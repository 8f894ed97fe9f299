"""A process like a worker: takes requests from Kafka, settles some of them, holds the rest until it is killed."""

from __future__ import annotations

import json
import sys

import anyio

from brokers.base import RequestKey, Tries
from brokers.channels import Names
from brokers.kafka import KafkaBus, KafkaConfig
from tests.support.broker_harness import answer, take


async def _main(bootstrap: str, prefix: str, session_ms: str, count: str, settled: str, noted: str) -> None:
    config = KafkaConfig(servers=(bootstrap,), names=Names(prefix), session_timeout_ms=int(session_ms))
    async with KafkaBus(config).open() as bus:
        held = {}
        for _ in range(int(count)):
            delivery = await take(bus, within_s=30)
            request_id = json.loads(delivery.body)["id"]
            await delivery.claim(RequestKey(request_id))
            held[request_id] = delivery
        for request_id in json.loads(noted):
            await held[request_id].store(Tries(attempt=2, begun=True))
        for request_id in json.loads(settled):
            await held[request_id].settle(answer(request_id, by="juggler"))
        sys.stdout.write("holding\n")
        sys.stdout.flush()
        await anyio.sleep_forever()


anyio.run(_main, *sys.argv[1:])
