"""The whole deployment of ``tests.support.stack`` on Kafka, so that the suites run on it unchanged."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from tests.support.kafka_outsider import KafkaOutsider
from tests.support.kafka_server import Kafka, require_kafka
from tests.support.stack import Stack

PARTITIONS = int(os.environ.get("KAFKA_TEST_PARTITIONS", "1"))


@asynccontextmanager
async def run_kafka_stack(folder: Path, **env: Any) -> AsyncIterator[Stack]:
    """The session's Kafka under a prefix of the test's own, and a plain client.

    What the tests set for NATS is translated: the lease of a request is the session of its worker here. Large outputs
    go to a folder, since Kafka has no store of its own.
    """
    require_kafka()
    lease_s = float(env.pop("NATS_ACK_WAIT_S", 10))
    kafka = Kafka(**({"prefix": str(env["TOPIC_PREFIX"])} if "TOPIC_PREFIX" in env else {}))
    await kafka.start()
    own = {
        "TOPIC_PREFIX": kafka.prefix,
        "KAFKA_SESSION_TIMEOUT_MS": str(int(lease_s * 1000)),
        # Shorter than many of the suites' prompts: no prompt may cost a worker its place in the group.
        "KAFKA_MAX_POLL_INTERVAL_MS": "5000",
        "OUTPUT_STORE": f"file://{folder / 'store'}",
        **{name: str(value) for name, value in env.items()},
    }
    (folder / "store").mkdir(parents=True, exist_ok=True)
    partitions = int(own.pop("PARTITIONS", PARTITIONS))
    outside = KafkaOutsider(kafka.bootstrap, kafka.prefix, partitions, store=folder / "store")
    async with AsyncExitStack() as cleanup:
        # The group is left when nothing runs any more, at the latest when the grace is over.
        stack = Stack(folder, kafka, outside, own, hand_over_s=float(own.get("DRAIN_TIMEOUT_S", 30)) + 10)

        async def end() -> None:
            with anyio.CancelScope(shield=True):
                await stack.end()
                await kafka.start()
                await kafka.forget()

        cleanup.push_async_callback(end)
        await cleanup.enter_async_context(outside.open())
        yield stack
