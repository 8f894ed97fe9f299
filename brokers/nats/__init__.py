"""NATS JetStream: requests in a work queue, answers by compare-and-set, claims in a key-value bucket."""

from brokers.nats.bus import NatsBus
from brokers.nats.connection import NatsConfig

__all__ = ["NatsBus", "NatsConfig"]
