"""What the bridge keeps on Kafka: three compacted topics of its own.

Used by most of its folder; may import brokers, brokers.kafka.

::

    <P>-webhook        a partition is a share; keys:
                         due/<lane>/<delivery>    the record of a delivery that waits
                         dlq/<delivery>           the record of one that was given up
                         gone/<endpoint>          an endpoint that answered 410
                         feed/<topic>/<partition> up to where events were read
    <P>-webhook-body   <delivery>: what is to be sent
    <P>-webhook-lease  lease/<share>: which bridge has a share; bridge/<bridge>: sign of life of a bridge

Records are small, change with every failed attempt and are all read when a share changes hands; bodies are large, do
not change, and are read one by one: a record says by a header where its body lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from brokers.channels import Channel, Names
from brokers.kafka.headers import Headers
from brokers.kafka.library import TopicPartition
from brokers.webhooks import Feed

__all__ = ["BODY", "CHANNELS", "DUE", "FEED", "GONE", "LETTER", "SHARES", "Place", "WebhookTopics", "share_of"]

# So many bridges can share the work; decided when the topic is created here.
SHARES: Final = 16
DAY_MS: Final = 24 * 3_600_000
# Longer than the bridge is ever patient with a delivery, 27 days and one more delay.
KEPT_MS: Final = 35 * DAY_MS
# What a record adds to the largest event, whose own headers are not stored.
ROOM_BYTES: Final = 65_536
SEGMENT_MS: Final = DAY_MS
# Signs of life are many and soon worthless: whoever starts reads what the newest segments hold of them.
LEASE_SEGMENT_MS: Final = 600_000

DUE, LETTER, GONE, FEED = "due", "dlq", "gone", "feed"
# Header of a record: where its body lies.
BODY: Final = "body"

CHANNELS: Final[Mapping[Feed, tuple[Channel, ...]]] = {
    Feed.RESULTS: (Channel.COMPLETE, Channel.FAILED),
    Feed.EVENTS: (Channel.STORAGE, Channel.SYSTEM, Channel.WORKER),
}


@dataclass(frozen=True)
class Place:
    """Where a body lies."""

    partition: int
    offset: int

    @property
    def headers(self) -> Headers:
        """As a record has it."""
        return [(BODY, f"{self.partition}:{self.offset}".encode())]

    @staticmethod
    def find(headers: Iterable[tuple[str, bytes]]) -> Place | None:
        """Read it from a record's headers; None for a record without a body."""
        text = next((value.decode("ascii", "replace") for name, value in headers if name == BODY), "")
        partition, _, offset = text.partition(":")
        return Place(int(partition), int(offset)) if partition.isdecimal() and offset.isdecimal() else None


@dataclass(frozen=True)
class WebhookTopics:
    """Topics and keys of one deployment's webhooks."""

    names: Names

    @property
    def queue(self) -> str:
        """Everything that has to survive, but bodies."""
        return f"{self.names.prefix}-webhook"

    @property
    def bodies(self) -> str:
        """What is to be sent."""
        return f"{self.names.prefix}-webhook-body"

    @property
    def leases(self) -> str:
        """Which bridge has what; its first partition."""
        return f"{self.names.prefix}-webhook-lease"

    def writer(self, share: int | str) -> str:
        """The transactional id of whoever writes for a share."""
        return f"{self.names.flat}.webhook-{share}"

    def wanted(self) -> Mapping[str, tuple[int, Mapping[str, str]]]:
        """Partitions and settings of each topic as it is created here; the largest message is set elsewhere."""
        kept = {"cleanup.policy": "compact,delete", "retention.ms": str(KEPT_MS), "segment.ms": str(SEGMENT_MS)}
        leases = {"cleanup.policy": "compact", "segment.ms": str(LEASE_SEGMENT_MS), "min.cleanable.dirty.ratio": "0.1"}
        return {self.queue: (SHARES, kept), self.bodies: (SHARES, kept), self.leases: (1, leases)}

    @staticmethod
    def due(lane: str, delivery: str) -> str:
        """Key of a waiting delivery's record."""
        return f"{DUE}/{lane}/{delivery}"

    @staticmethod
    def letter(delivery: str) -> str:
        """Key of a delivery that was given up."""
        return f"{LETTER}/{delivery}"

    @staticmethod
    def gone(endpoint: str) -> str:
        """Key of an endpoint's mark."""
        return f"{GONE}/{endpoint}"

    @staticmethod
    def feed(source: TopicPartition) -> str:
        """Key of a place up to which events were read."""
        return f"{FEED}/{source.topic}/{source.partition}"


def share_of(lane: str, shares: int) -> int:
    """The share in which a lane lies."""
    return int(lane, 16) % shares
