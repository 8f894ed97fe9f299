"""The names of aiokafka that are used here, in one place.

Used by most of its folder, brokers.kafka.webhooks; may import nothing of ours.

aiokafka is pinned to a minor version. Where its private parts are used, a comment says why, and tests hold them.
"""

from __future__ import annotations

import logging

import aiokafka.errors as kafka_errors
from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    ConsumerRecord,
    OffsetAndMetadata,
    TopicPartition,
)
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.conn import create_conn
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner

__all__ = [
    "AIOKafkaAdminClient",
    "AIOKafkaClient",
    "AIOKafkaConsumer",
    "AIOKafkaProducer",
    "ConfigResource",
    "ConfigResourceType",
    "ConsumerRebalanceListener",
    "ConsumerRecord",
    "CoordinationType",
    "KafkaError",
    "NewTopic",
    "OffsetAndMetadata",
    "RecordsToDelete",
    "StickyPartitionAssignor",
    "TopicPartition",
    "create_conn",
    "kafka_errors",
    "partition_of",
]

# What matters of its troubles is told in our own words; who wants its log adds a handler.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())


def partition_of(key: bytes, count: int) -> int:
    """Where Kafka's default partitioner (murmur2, as in the Java clients) puts a key."""
    return int(DefaultPartitioner()(key, list(range(count)), list(range(count))))
