"""The webhook bridge's side of Kafka: feeds, the queue of deliveries in shares, letters.

Used by app.bridge.broker; may import its folder alone.
"""

from brokers.kafka.webhooks.bus import KafkaWebhookBus
from brokers.kafka.webhooks.letters import KafkaWebhookLetters

__all__ = ["KafkaWebhookBus", "KafkaWebhookLetters"]
