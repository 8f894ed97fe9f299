"""The bridge's side of whatever broker BROKER_URL names."""

from __future__ import annotations

from dataclasses import replace

from app.bridge.config import BridgeConfig
from app.errors import ConfigurationError
from app.settings import Settings
from app.settings.broker import nats_config
from app.storage.nats_object import Objects
from brokers.nats.webhooks import NatsWebhookBus, NatsWebhookLetters
from brokers.webhooks import WebhookBus, WebhookLetters

__all__ = ["webhook_bus", "webhook_letters"]


def webhook_bus(settings: Settings, config: BridgeConfig) -> tuple[WebhookBus, Objects | None]:
    """The connection of a bridge, and the bucket of OUTPUT_STORE where that is one of the broker's.

    Raises:
        ConfigurationError: There is no bridge for this broker.
    """
    _check(settings)
    bus = NatsWebhookBus(nats_config(settings), feeds=config.feeds, lease_s=settings.bridge_lease_s)
    store = settings.output_store
    in_broker = not store or store.startswith("nats://")
    return bus, bus.objects(store.removeprefix("nats://") or None) if in_broker else None


def webhook_letters(settings: Settings, first_connection_s: float) -> WebhookLetters:
    """The queue as an operator sees it.

    Args:
        settings: All of them.
        first_connection_s: How long the connection may take.

    Raises:
        ConfigurationError: There is no bridge for this broker.
    """
    _check(settings)
    return NatsWebhookLetters(replace(nats_config(settings), first_connection_s=first_connection_s))


def _check(settings: Settings) -> None:
    scheme = settings.broker_url.get_secret_value().partition("://")[0]
    if scheme.startswith("kafka"):
        raise ConfigurationError(
            "BROKER_URL names Kafka: the webhook bridge runs on NATS; it should be nats:// or tls://"
        )
