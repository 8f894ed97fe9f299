"""NATS JetStream: requests in a work queue, answers by compare-and-set, claims in a key-value bucket.

Used by app.cli, app.cli.demo, app.settings, app.worker; may import its folder alone.
"""

from brokers.nats.bus import NatsBus
from brokers.nats.client import NatsClient
from brokers.nats.connection import NatsConfig
from brokers.nats.objects import NatsObjects

__all__ = ["NatsBus", "NatsClient", "NatsConfig", "NatsObjects"]
