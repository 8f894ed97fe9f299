"""A process that takes one request, stores what it is told about it, and holds it until it is killed."""

from __future__ import annotations

import sys

import anyio

from brokers.base import RequestKey, Tries
from brokers.channels import Names
from brokers.nats import NatsBus, NatsConfig


async def _main(url: str, prefix: str, request_id: str, tries: str) -> None:
    async with NatsBus(NatsConfig(servers=(url,), names=Names(prefix))).open() as bus:
        delivery = None
        while delivery is None:
            delivery = await bus.take(1)
        await delivery.claim(RequestKey(request_id))
        await delivery.store(Tries.model_validate_json(tries))
        sys.stdout.write("holding\n")
        sys.stdout.flush()
        await anyio.sleep_forever()


anyio.run(_main, *sys.argv[1:])
