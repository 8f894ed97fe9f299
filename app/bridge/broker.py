"""The bridge's side of whatever broker BROKER_URL names.

Used by app.bridge.app, app.cli.webhooks; may import app.settings, app.storage, brokers, brokers.kafka.webhooks,
brokers.nats.webhooks.
"""

from __future__ import annotations

from dataclasses import replace

from app.bridge.config import BridgeConfig
from app.settings import Settings
from app.settings.broker import kafka_config, nats_config
from app.storage.nats_object import Objects
from brokers.kafka.webhooks import KafkaWebhookBus, KafkaWebhookLetters
from brokers.nats.webhooks import NatsWebhookBus, NatsWebhookLetters
from brokers.webhooks import WebhookBus, WebhookLetters

__all__ = ["webhook_bus", "webhook_letters"]


def webhook_bus(settings: Settings, config: BridgeConfig) -> tuple[WebhookBus, Objects | None]:
    """The connection of a bridge, and the bucket of OUTPUT_STORE where that is one of the broker's."""
    if _is_kafka(settings):
        return KafkaWebhookBus(kafka_config(settings), feeds=config.feeds, lease_s=settings.bridge_lease_s), None
    bus = NatsWebhookBus(nats_config(settings), feeds=config.feeds, lease_s=settings.bridge_lease_s)
    store = settings.output_store
    in_broker = not store or store.startswith("nats://")
    return bus, bus.objects(store.removeprefix("nats://") or None) if in_broker else None


def webhook_letters(settings: Settings, first_connection_s: float) -> WebhookLetters:
    """The queue as an operator sees it.

    Args:
        settings: All of them.
        first_connection_s: How long the connection may take.
    """
    if _is_kafka(settings):
        return KafkaWebhookLetters(replace(kafka_config(settings), first_connection_s=first_connection_s))
    return NatsWebhookLetters(replace(nats_config(settings), first_connection_s=first_connection_s))


def _is_kafka(settings: Settings) -> bool:
    return settings.broker_url.get_secret_value().startswith("kafka")
