"""One connection for questions and orders that belong to no consumer or producer, and the pulse of the broker.

Used by most of its folder, brokers.kafka.webhooks; may import brokers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import structlog

from brokers.base import BrokerError, BrokerRefused, BrokerUnavailable
from brokers.counts import BusCounts
from brokers.kafka.clients import make_admin
from brokers.kafka.config import KafkaConfig
from brokers.kafka.errors import FOREIGN, doing, translated
from brokers.kafka.library import (
    AIOKafkaAdminClient,
    CoordinationType,
    KafkaError,
    TopicPartition,
    create_conn,
    kafka_errors,
)
from brokers.kafka.offsets import StableOffsetsRequest
from brokers.tracker import Mark

__all__ = ["Link", "TopicFacts"]

PULSE_EVERY_S = 1.0
PULSE_WITHIN_S = 3.0
ANSWER_WITHIN_S = 20.0
PAUSE_S = 0.2
UNSTABLE_OFFSET_COMMIT = 88
MINIMUM_SERVER = "3.5"
# Kafka tells no version, only which versions of each request it takes; this one of Fetch came with 3.5.
FETCH, FETCH_OF_MINIMUM = 1, 15
CLOSE_WITHIN_S = 3.0

log = structlog.get_logger("comfybus.kafka")

# Partition numbers of each topic.
TopicFacts = Mapping[str, int]


class Link:
    """Connected for the time of its block; goes on trying through every outage."""

    def __init__(self, config: KafkaConfig) -> None:
        self.config = config
        self.names = config.names
        self.options = config.client_options()
        self.is_connected = False
        self.counts = BusCounts()
        self._admin: AIOKafkaAdminClient

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Connect, and feel the broker's pulse until the block ends.

        Raises:
            BrokerUnavailable: Nobody answers at the servers' addresses.
            BrokerRefused: The broker refuses us.
        """
        self._admin = await self._connect()
        self.is_connected = True
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._feel_pulse)
                try:
                    yield self
                except Exception as exc:  # noqa: BLE001 - raised again below, outside the group that would wrap it
                    failure = exc
                tasks.cancel_scope.cancel()
        finally:
            with anyio.move_on_after(CLOSE_WITHIN_S, shield=True):
                await self._admin.close()
        if failure is not None:
            raise failure

    async def _connect(self) -> AIOKafkaAdminClient:
        last: BrokerError = BrokerUnavailable("")
        with anyio.move_on_after(self.config.first_connection_s):
            while True:
                client = make_admin(**self.options)
                try:
                    await client.start()
                except FOREIGN as exc:
                    last = await self._why(exc)
                    if isinstance(last, BrokerRefused):
                        raise last from exc
                else:
                    return client
                finally:
                    if not client._started:  # noqa: SLF001 - whatever ended it, cancellation too
                        with anyio.CancelScope(shield=True):
                            await client.close()
                await anyio.sleep(PAUSE_S)
        raise BrokerUnavailable(
            f"Kafka does not answer at {self.config.where} ({last or 'no answer'}); start it or correct BROKER_URL"
        )

    async def _why(self, failed: BaseException) -> BrokerError:
        """What a connection fails of: aiokafka itself only says that it did."""
        cause: BaseException = failed
        for server in self.config.servers:
            host, _, port = server.rpartition(":")
            connection = {name: value for name, value in self.options.items() if not name.startswith(("boot", "retry"))}
            try:
                (await create_conn(host.strip("[]"), int(port), **connection)).close()
            except FOREIGN as exc:
                cause = exc
                if isinstance(found := translated("connect", exc), BrokerRefused):
                    return found
        return translated("connect", cause)

    async def _feel_pulse(self) -> None:
        while True:
            await anyio.sleep(PULSE_EVERY_S)
            try:
                with anyio.fail_after(PULSE_WITHIN_S):
                    await self._admin.describe_topics([])
            except FOREIGN as exc:
                if self.is_connected:
                    log.warning("connection to Kafka lost", where=self.config.where, detail=type(exc).__name__)
                self.is_connected = False
            else:
                if not self.is_connected:
                    log.info("connection to Kafka restored")
                    self.counts.reconnects += 1
                self.is_connected = True

    def check_version(self) -> None:
        """Raise unless the broker is as young as the contract wants it.

        Raises:
            BrokerRefused: It is too old.
        """
        connections = self._admin._client._conns.values()  # noqa: SLF001 - what was negotiated stands only there
        newest = max((one._versions.get(FETCH, (0, 0))[1] for one in connections), default=FETCH_OF_MINIMUM)  # noqa: SLF001
        if newest < FETCH_OF_MINIMUM:
            raise BrokerRefused(f"Kafka at {self.config.where} is older than {MINIMUM_SERVER}; upgrade it")

    @property
    def admin(self) -> AIOKafkaAdminClient:
        """For what needs no more than one call."""
        return self._admin

    async def topics(self) -> TopicFacts:
        """All topics that we may see, with their numbers of partitions."""
        with doing("list the topics"), anyio.fail_after(ANSWER_WITHIN_S):
            found = await self._admin.describe_topics(None)
        return {topic["topic"]: len(topic["partitions"]) for topic in found if not topic["error_code"]}

    async def brokers(self) -> int:
        """How many brokers the cluster has."""
        with doing("look at the cluster"), anyio.fail_after(ANSWER_WITHIN_S):
            return len((await self._admin.describe_cluster())["brokers"])

    async def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Mark]:
        """What the group has committed, transactions in progress waited for; without those that have no commit.

        Raises:
            BrokerUnavailable: No answer.
            BrokerRefused: A permission is missing.
        """
        request = StableOffsetsRequest(group, partitions)
        client = self._admin._client  # noqa: SLF001 - the admin client's own call speaks an older version
        with doing("read the committed offsets"), anyio.fail_after(ANSWER_WITHIN_S):
            while True:
                try:
                    node = await client.coordinator_lookup(CoordinationType.GROUP, group)
                    return _marks(await client.send(node, request))
                except KafkaError as exc:
                    if not exc.retriable:
                        raise
                await anyio.sleep(PAUSE_S)


def _marks(response: Any) -> dict[TopicPartition, Mark]:
    found = {}
    for topic, partitions, _ in response.topics:
        for number, offset, _, metadata, code, _ in partitions:
            _check(code)
            if offset >= 0:
                found[TopicPartition(topic, number)] = Mark(offset, metadata or "")
    _check(response.error_code)
    return found


def _check(code: int) -> None:
    if code == 0:
        return
    if code == UNSTABLE_OFFSET_COMMIT:
        raise kafka_errors.CoordinatorLoadInProgressError("offsets of a transaction in progress")
    error = kafka_errors.for_code(code)
    raise error
