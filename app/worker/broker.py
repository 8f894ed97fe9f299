"""Which broker: the scheme of BROKER_URL decides, and nothing else of the worker knows.

Used by app.worker.app, worker; may import app.errors, app.settings, app.storage, brokers, brokers.kafka,
brokers.nats.
"""

from __future__ import annotations

import uuid
from functools import partial
from pathlib import Path

import anyio
import structlog

from app.errors import ConfigurationError, InputUnavailable, UploadFailed
from app.settings import Settings
from app.settings.broker import kafka_config, nats_config
from app.storage.nats_object import Objects
from app.storage.stores import Stores
from app.worker.inputs import ReadLetter
from brokers.base import BrokerError, Bus
from brokers.kafka.bus import KafkaBus
from brokers.nats import NatsBus

__all__ = ["keep_letters", "letter_reader", "make_bus", "output_bucket"]

KEEP_AGAIN_S = 10.0

log = structlog.get_logger("comfybus.broker")


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


def letter_reader(settings: Settings, bus: Bus, scratch: Path) -> ReadLetter:
    """Reads bodies of dead letters that replays refer to."""
    if isinstance(bus, KafkaBus):
        return partial(_read_from_topic, bus)
    if not isinstance(bus, NatsBus):
        raise TypeError(f"no letters are read from {type(bus).__name__}")
    bucket = settings.names.dead_letter_bucket
    objects = bus.objects(bucket)

    async def read(url: str) -> bytes | None:
        prefix = f"nats://{bucket}/"
        if not url.startswith(prefix):
            return None
        path = scratch / f"letter-{uuid.uuid4().hex}"
        try:
            await objects.get(url.removeprefix(prefix), path)
            return await anyio.Path(path).read_bytes()
        except BrokerError as exc:
            raise InputUnavailable(f"the body of the dead letter cannot be read: {exc}") from exc
        finally:
            await anyio.Path(path).unlink(missing_ok=True)

    return read


async def _read_from_topic(bus: KafkaBus, url: str) -> bytes | None:
    try:
        return await bus.read_letter(url)
    except BrokerError as exc:
        raise InputUnavailable(f"the body of the dead letter cannot be read: {exc}") from exc


def keep_letters(settings: Settings, bus: Bus, stores: Stores, scratch: Path) -> None:
    """Bodies of dead letters that do not fit Kafka's topic go to OUTPUT_STORE; NATS has a bucket for them."""
    if not isinstance(bus, KafkaBus):
        return
    store = settings.output_store.rstrip("/")

    async def keep(name: str, body: bytes) -> str:
        path = scratch / f"letter-{uuid.uuid4().hex}"
        await anyio.Path(path).write_bytes(body)
        try:
            while True:
                try:
                    return await stores.put(path, f"{store}/{name}", media_type="application/octet-stream")
                except UploadFailed as exc:
                    # Nothing may be answered before its letter is kept, however long the store is away.
                    log.error("the body of a dead letter cannot be kept, trying on", reason=str(exc))
                await anyio.sleep(KEEP_AGAIN_S)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.Path(path).unlink(missing_ok=True)

    bus.letters.keep_body = keep
