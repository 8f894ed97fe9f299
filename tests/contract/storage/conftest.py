"""Servers of the storage tests, and one place for each backend."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.storage.config import StorageConfig
from app.storage.stores import Stores
from app.storage.transfers import StorageTransfer
from brokers.nats import NatsBus, NatsConfig
from tests.support.services.azurite import Azurite, run_azurite
from tests.support.services.hub import run_hub
from tests.support.services.places import (
    TIMINGS,
    Access,
    AzurePlace,
    FilePlace,
    HubPlace,
    NatsPlace,
    Place,
    S3Place,
    WebPlace,
)
from tests.support.services.web_files import WebFiles, run_web_files
from tests.support.services.weed import Weed, run_weed
from tests.support.stack import NatsServer

HTTP_PLACES = ("http", "s3", "azure", "hf-lfs", "hf-xet")
PLACES = (*HTTP_PLACES, "file", "nats")


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    """An S3 server that checks signatures."""
    with run_weed(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """An Azure Blob server."""
    with run_azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebFiles]:
    """A plain web server."""
    with run_web_files(tmp_path / "web") as server:
        yield server


@pytest.fixture
async def nats_place(tmp_path: Path) -> AsyncIterator[NatsPlace]:
    """An object bucket on a nats-server."""
    server = NatsServer(tmp_path / "nats")
    await server.start()
    try:
        async with NatsBus(NatsConfig(servers=(server.url,))).open() as bus:
            yield NatsPlace(bus.objects("outputs"))
    finally:
        await server.kill()


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The place that the test is parametrised with."""
    name = str(request.param)
    if name == "http":
        yield WebPlace(request.getfixturevalue("web"))
    elif name == "s3":
        yield S3Place(request.getfixturevalue("weed"))
    elif name == "azure":
        yield AzurePlace(request.getfixturevalue("azurite"))
    elif name == "file":
        yield FilePlace(tmp_path / "store")
    elif name == "nats":
        yield request.getfixturevalue("nats_place")
    elif name == "hf-xet":
        with run_hub(xet=tmp_path / "xet") as hub:
            yield HubPlace(hub, name)
    else:
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        with run_hub(multipart=1024 * 1024) as hub:
            yield HubPlace(hub, name)


class Opened(Stores):
    """Stores that remember what they told."""

    told: list[StorageTransfer]


Open = Callable[..., AbstractAsyncContextManager[Opened]]


@pytest.fixture
def opened(tmp_path: Path, request: pytest.FixtureRequest) -> Open:
    """Opens stores for an access: ``async with opened(access, timings=…) as stores``."""

    @asynccontextmanager
    async def open_(access: Access, **changes: Any) -> AsyncIterator[Opened]:
        told: list[StorageTransfer] = []
        settings = {"cache_dir": tmp_path / "cache", "timings": TIMINGS, **access.settings, **changes}
        place = request.node.funcargs.get("place")
        objects = place.objects if isinstance(place, NatsPlace) else None
        stores = Opened(StorageConfig(**settings), objects=objects, on_transfer=told.append)
        stores.told = told
        async with stores.open():
            yield stores

    return open_


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[[int], Path]:
    """Writes a file of random bytes."""

    def make(size: int) -> Path:
        path = tmp_path / f"source-{size}-{os.urandom(4).hex()}"
        path.write_bytes(os.urandom(size))
        return path

    return make
