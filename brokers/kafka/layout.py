"""The topics of the contract: partitions, retention, limits, and whether an existing one is fit. Pure.

Used by checks, client, declare, dlq, app.documents, brokers.kafka.webhooks; may import brokers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from brokers.channels import Channel
from brokers.kafka.config import KafkaConfig

__all__ = ["DEFAULT_LIMIT_BYTES", "LETTER_ROOM_BYTES", "Wanted", "wanted_topics"]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# A request is kept until it is settled, however long that takes; then it is deleted.
FOR_EVER_MS = -1
# Kafka's own `message.max.bytes`, for a broker that does not let us read its limits.
DEFAULT_LIMIT_BYTES = 1_048_588
# What a dead letter's own headers may add to a request as large as the broker takes.
LETTER_ROOM_BYTES = 65_536
# A segment is deleted as a whole: small enough that what is over goes soon, large enough that files stay few.
SEGMENTS = 6
SHORTEST_SEGMENT_MS = 600_000
REPLICAS = 3


@dataclass(frozen=True)
class Wanted:
    """One topic as it is created when it is missing.

    Attributes:
        channel: What it carries.
        name: The topic.
        partitions: How many, when it is created here.
        retention_ms: How long its records are kept.
        room_bytes: How much larger than elsewhere its messages may be.
    """

    channel: Channel
    name: str
    partitions: int
    retention_ms: int
    room_bytes: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)

    def configs(self, brokers: int, limit_bytes: int) -> dict[str, str]:
        """Its settings in a cluster of so many brokers, whose messages are limited to so many bytes."""
        segment_ms = max(SHORTEST_SEGMENT_MS, min(self.retention_ms // SEGMENTS, DAY_MS))
        if self.retention_ms == FOR_EVER_MS:
            segment_ms = DAY_MS
        found = {
            "cleanup.policy": "delete",
            "retention.ms": str(self.retention_ms),
            "segment.ms": str(segment_ms),
            # The broker's clock: producers' clocks may be wrong, and cancels are compared with requests by time.
            "message.timestamp.type": "LogAppendTime",
            **self.settings,
        }
        if brokers >= REPLICAS:
            # An answer is confirmed when two have it, so that it survives the loss of one.
            found["min.insync.replicas"] = str(REPLICAS - 1)
        if self.room_bytes:
            found["max.message.bytes"] = str(limit_bytes + self.room_bytes)
        return found

    def replicas(self, brokers: int) -> int:
        """On how many brokers each partition lies."""
        return min(REPLICAS, brokers)


def wanted_topics(config: KafkaConfig) -> list[Wanted]:
    """All topics, in the order of the contract's table."""
    names, many = config.names, config.request_partitions
    results_ms = int(config.result_retention_h * HOUR_MS)

    def topic(channel: Channel, partitions: int, retention_ms: int, room_bytes: int = 0) -> Wanted:
        return Wanted(channel, names.topic(channel), partitions, retention_ms, room_bytes)

    return [
        topic(Channel.REQUEST, many, FOR_EVER_MS),
        topic(Channel.CONTROL, 1, DAY_MS),
        topic(Channel.COMPLETE, many, results_ms),
        topic(Channel.FAILED, many, results_ms),
        topic(Channel.PROGRESS, many, HOUR_MS),
        topic(Channel.STORAGE, 1, DAY_MS),
        topic(Channel.SYSTEM, 1, DAY_MS),
        topic(Channel.WORKER, 1, DAY_MS),
        topic(Channel.DEAD_LETTER, 1, 30 * DAY_MS, LETTER_ROOM_BYTES),
    ]
