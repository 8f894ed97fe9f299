"""The stores of the settings, for the time of one command.

Used by doctor, reference; may import app.settings, app.storage, brokers, brokers.nats.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from app.settings import Settings
from app.settings.parts import storage_config
from app.storage.stores import Stores
from brokers.client import Client
from brokers.nats import NatsClient

__all__ = ["open_stores"]


@asynccontextmanager
async def open_stores(settings: Settings, client: Client | None) -> AsyncIterator[Stores]:
    """Every backend, open until the block ends; the workers' CACHE_DIR is not touched.

    Args:
        settings: Say what is configured.
        client: The broker's connection, for an OUTPUT_STORE that is the broker's; None where there is none.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    config = storage_config(settings)
    objects = None
    if isinstance(client, NatsClient) and config.output_store.startswith("nats://"):
        objects = client.objects(config.output_store.removeprefix("nats://"))
    with TemporaryDirectory(prefix="comfybus-") as folder:
        async with Stores(replace(config, cache_dir=Path(folder)), objects=objects).open() as stores:
            yield stores
