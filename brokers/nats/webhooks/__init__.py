"""The webhook bridge's side of NATS: feeds, the queue of deliveries in shares, letters.

Used by app.bridge.broker; may import its folder alone.
"""

from brokers.nats.webhooks.bus import NatsWebhookBus
from brokers.nats.webhooks.letters import NatsWebhookLetters

__all__ = ["NatsWebhookBus", "NatsWebhookLetters"]
