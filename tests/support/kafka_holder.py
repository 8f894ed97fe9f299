"""A process that takes one request from Kafka, stores what it is told about it, and holds it until it is killed."""

from __future__ import annotations

import sys

import anyio

from brokers.base import RequestKey, Tries
from brokers.channels import Names
from brokers.kafka import KafkaBus, KafkaConfig


async def _main(bootstrap: str, prefix: str, session_ms: str, request_id: str, tries: str) -> None:
    config = KafkaConfig(servers=(bootstrap,), names=Names(prefix), session_timeout_ms=int(session_ms))
    async with KafkaBus(config).open() as bus:
        delivery = None
        while delivery is None:
            delivery = await bus.take(1)
        await delivery.claim(RequestKey(request_id))
        await delivery.store(Tries.model_validate_json(tries))
        sys.stdout.write("holding\n")
        sys.stdout.flush()
        await anyio.sleep_forever()


anyio.run(_main, *sys.argv[1:])
