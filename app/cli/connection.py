"""The connection that every command shares, and events as JSON data.

Used by most of its folder; may import app.settings, brokers, brokers.kafka, brokers.nats, schemas.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from app.settings import Settings
from app.settings.broker import kafka_config, nats_config
from brokers.client import Client, EventMessage
from brokers.kafka import KafkaClient
from brokers.nats import NatsClient
from schemas.base import WrongField

__all__ = ["TERMINAL", "document_of", "open_client"]

# Somebody is waiting at a terminal; a worker is more patient.
FIRST_CONNECTION_S = 5.0
TERMINAL = ("prompt.complete", "prompt.failed")


@asynccontextmanager
async def open_client(settings: Settings) -> AsyncIterator[Client]:
    """A client of the broker at BROKER_URL, connected until the block ends.

    Raises:
        BrokerUnavailable: It does not answer.
        BrokerRefused: It refuses us or is too old.
    """
    client: Client
    if settings.uses_kafka:
        client = KafkaClient(replace(kafka_config(settings), first_connection_s=FIRST_CONNECTION_S))
    else:
        client = NatsClient(replace(nats_config(settings), first_connection_s=FIRST_CONNECTION_S))
    async with client.open():
        yield client


def document_of(event: EventMessage) -> Mapping[str, Any] | None:
    """The event as JSON data; None when it is none, and so no event of a worker."""
    try:
        document = event.document
    except WrongField:
        return None
    return document if isinstance(document, dict) else None
