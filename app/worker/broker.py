"""Which broker: the scheme of BROKER_URL decides, and nothing else of the worker knows."""

from __future__ import annotations

from app.errors import ConfigurationError
from app.settings import Settings
from app.settings.broker import kafka_config, nats_config
from app.storage.nats_object import Objects
from brokers.base import Bus
from brokers.kafka.bus import KafkaBus
from brokers.nats import NatsBus

__all__ = ["make_bus", "output_bucket"]


def make_bus(settings: Settings) -> Bus:
    """The worker's side of the broker, not yet connected.

    Raises:
        ConfigurationError: On Kafka outputs need an OUTPUT_STORE, since the broker has none of its own.
    """
    if not settings.uses_kafka:
        return NatsBus(nats_config(settings))
    if not settings.output_store or settings.output_store.startswith("nats://"):
        raise ConfigurationError(
            "OUTPUT_STORE is wrong: on Kafka it should be s3://bucket/prefix, "
            "https://account.blob.core.windows.net/container/prefix or file:///dir"
        )
    return KafkaBus(kafka_config(settings))


def output_bucket(settings: Settings, bus: Bus) -> Objects | None:
    """The object store bucket of OUTPUT_STORE, if that is one."""
    store = settings.output_store
    if isinstance(bus, NatsBus) and (not store or store.startswith("nats://")):
        return bus.objects(store.removeprefix("nats://") or None)
    return None
