"""What the AsyncAPI document says of Kafka: the server, the topic behind each channel, the group, the keys.

Used by asyncapi; may import brokers, brokers.kafka.
"""

from __future__ import annotations

from typing import Any, Final

from brokers.channels import Channel, Names
from brokers.kafka.config import KafkaConfig
from brokers.kafka.layout import wanted_topics

__all__ = ["KAFKA_SERVER", "kafka_group", "kafka_key", "kafka_topic"]

BINDING_VERSION: Final = "0.5.0"
KAFKA_SERVER: Final[dict[str, Any]] = {
    "host": "127.0.0.1:9092",
    "protocol": "kafka",
    "description": "Apache Kafka 3.5 or newer; BROKER_URL=kafka://… or kafka+ssl://… names it.",
}
_KEYS: Final = {
    Channel.STORAGE: "The request id, or the worker's id outside a prompt.",
    Channel.SYSTEM: "The request id, or the worker's id outside a prompt.",
    Channel.WORKER: "The worker's id.",
    Channel.DEAD_LETTER: "The request id.",
}


def kafka_topic(names: Names, channel: Channel) -> dict[str, Any]:
    """The channel binding: the topic as a worker creates it when it is missing."""
    wanted = next(one for one in wanted_topics(KafkaConfig(names=names)) if one.channel is channel)
    return {
        "kafka": {
            "topic": wanted.name,
            "partitions": wanted.partitions,
            "topicConfiguration": {"cleanup.policy": ["delete"], "retention.ms": wanted.retention_ms},
            "bindingVersion": BINDING_VERSION,
        }
    }


def kafka_group(names: Names) -> dict[str, Any]:
    """The operation binding of the requests: the group that shares them."""
    return {"kafka": {"groupId": {"type": "string", "const": names.worker_group}, "bindingVersion": BINDING_VERSION}}


def kafka_key(channel: Channel, *, correlated: bool) -> dict[str, Any] | None:
    """The message binding: what its record is keyed by; None for records without a key."""
    described = _KEYS.get(channel, "The request id." if correlated else None)
    if described is None:
        return None
    key = {"type": "string", "description": described}
    return {"kafka": {"key": key, "bindingVersion": BINDING_VERSION}}
