"""Which broker: the scheme of BROKER_URL decides, and nothing else of the worker knows."""

from __future__ import annotations

import uuid
from pathlib import Path
from urllib.parse import unquote

import anyio

from app.errors import ConfigurationError, InputUnavailable
from app.settings import Settings
from app.settings.broker import kafka_config, nats_config
from app.storage.nats_object import Objects
from app.worker.inputs import ReadLetter
from brokers.base import BrokerError, Bus
from brokers.kafka.bus import KafkaBus
from brokers.nats import NatsBus

__all__ = ["letter_reader", "make_bus", "output_bucket"]


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


def letter_reader(settings: Settings, bus: Bus, scratch: Path) -> ReadLetter | None:
    """Reads bodies of dead letters that are kept apart, on a broker that has a store of its own."""
    if not isinstance(bus, NatsBus):
        return None
    bucket = settings.names.dead_letter_bucket
    objects = bus.objects(bucket)

    async def read(url: str) -> bytes | None:
        prefix = f"nats://{bucket}/"
        if not url.startswith(prefix):
            return None
        path = scratch / f"letter-{uuid.uuid4().hex}"
        try:
            await objects.get(unquote(url.removeprefix(prefix)), path)
            return await anyio.Path(path).read_bytes()
        except BrokerError as exc:
            raise InputUnavailable(f"the body of the dead letter cannot be read: {exc}") from exc
        finally:
            await anyio.Path(path).unlink(missing_ok=True)

    return read
