"""The object store: files of any size, piece by piece, readable by every NATS client."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from nats.js import api

from brokers.base import BrokerError, BrokerRefused
from brokers.nats import NatsBus, NatsObjects
from brokers.nats.objects import parse_url
from tests.support.broker_harness import NatsHarness, eventually

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
async def bus(nats_server: NatsHarness) -> AsyncIterator[NatsBus]:
    """An open bus."""
    async with nats_server.bus() as bus:
        yield bus


@pytest.mark.parametrize("size", [0, 1, 128 * 1024, 128 * 1024 + 1, 5 * MIB])
async def test_a_file_comes_back_as_it_was(bus: NatsBus, tmp_path: Path, size: int) -> None:
    """Of every size, under a key with folders and spaces, and its address is told: the key is verbatim in it."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(size))
    objects = bus.objects()
    key = "a/1f/grün 1%20.png"
    url = await objects.put(key, source)
    assert url == f"nats://comfyui-outputs/{key}"
    assert parse_url(url) == ("comfyui-outputs", key)
    assert await objects.exists(key)
    assert await objects.size(key) == size
    told: list[tuple[int, int]] = []
    await objects.get(key, target, lambda *sizes: told.append(sizes))
    assert told[-1:] == [(size, size)][: size and 1]
    assert target.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source", "target"]


async def test_memory_does_not_grow_with_the_file(bus: NatsBus, tmp_path: Path) -> None:
    """12 MiB go in and out with a few MiB in memory."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(12 * MIB))
    objects = bus.objects()
    tracemalloc.start()
    try:
        await objects.put("big", source)
        await objects.get("big", target)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB
    assert target.read_bytes() == source.read_bytes()


async def test_every_nats_client_can_read_and_write_it(nats_server: NatsHarness, bus: NatsBus, tmp_path: Path) -> None:
    """The format is that of nats-py's own object store, in both directions."""
    body = os.urandom(300_000)
    (tmp_path / "source").write_bytes(body)
    await bus.objects().put("ours", tmp_path / "source")
    theirs = await nats_server.outside.js.object_store("comfyui-outputs")
    assert (await theirs.get("ours")).data == body
    await theirs.put("theirs", body)
    await bus.objects().get("theirs", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == body
    await theirs.delete("ours")
    assert not await bus.objects().exists("ours")


async def test_the_bucket_is_kept_as_long_as_results(nats_server: NatsHarness, bus: NatsBus) -> None:
    """Created when it is needed, with the age of terminal events; one that exists is left as it is."""
    await bus.objects().probe()
    await bus.objects().probe()
    found = (await nats_server.outside.js.stream_info("OBJ_comfyui-outputs")).config
    assert found.max_age == 168 * 3600
    await nats_server.outside.js.create_object_store("own", api.ObjectStoreConfig(ttl=60))
    await bus.objects("own").put_bytes("x", b"x")
    assert (await nats_server.outside.js.stream_info("OBJ_own")).config.max_age == 60


async def test_put_again_replaces_and_leaves_nothing_behind(nats_server: NatsHarness, bus: NatsBus) -> None:
    """The pieces of the former object of a key are removed."""
    objects = bus.objects()
    for size in (300_000, 10):
        await objects.put_bytes("key", b"x" * size)
    assert await objects.get_bytes("key") == b"x" * 10
    assert (await nats_server.outside.js.stream_info("OBJ_comfyui-outputs")).state.messages == 2


async def test_a_damaged_object_is_refused(nats_server: NatsHarness, bus: NatsBus, tmp_path: Path) -> None:
    """Lost pieces are noticed by the digest, and no file appears."""
    objects = bus.objects()
    await objects.put_bytes("key", os.urandom(300_000))
    await nats_server.outside.js.delete_msg("OBJ_comfyui-outputs", 2)
    with pytest.raises(BrokerRefused, match="damaged"):
        await objects.get("key", tmp_path / "target")
    assert not [path for path in tmp_path.iterdir() if path.is_file()]
    with pytest.raises(BrokerRefused, match="there is no object"):
        await objects.get("other", tmp_path / "target")


async def test_a_put_that_breaks_off_leaves_no_object(nats_server: NatsHarness, bus: NatsBus, tmp_path: Path) -> None:
    """Cancelled or cut off by an outage, the key does not exist, and a further put works."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(20 * MIB))
    objects = bus.objects()
    with anyio.move_on_after(0.03) as scope:
        await objects.put("key", source)
    assert scope.cancelled_caught
    assert not await objects.exists("key")
    outcome: list[str] = []

    async def put() -> None:
        try:
            await objects.put("key", source)
        except BrokerError as exc:
            outcome.append(str(exc))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put)
        await anyio.sleep(0.05)
        await nats_server.kill()
        await nats_server.restart()
    assert outcome
    await eventually(lambda: bus.link.is_connected)
    assert not await objects.exists("key")
    await objects.put("key", source)
    assert await objects.exists("key")


async def test_a_file_that_cannot_be_read_is_no_fault_of_the_broker(bus: NatsBus, tmp_path: Path) -> None:
    """The error of the disk comes out as it is."""
    with pytest.raises(FileNotFoundError):
        await bus.objects().put("key", tmp_path / "missing")
    await bus.objects().put_bytes("key", b"x")
    with pytest.raises(FileNotFoundError):
        await bus.objects().get("key", tmp_path / "no" / "folder")


async def test_pieces_respect_a_small_limit_of_the_server(tmp_path: Path) -> None:
    """Where the server takes less than a usual piece, pieces are smaller."""
    from brokers.embedded import run_embedded
    from brokers.nats import NatsConfig

    async with (
        run_embedded(tmp_path / "nats", extra="max_payload: 20KB") as server,
        NatsBus(NatsConfig(servers=(server.url,))).open() as bus,
    ):
        body = os.urandom(100_000)
        objects = NatsObjects(bus.link, "small")
        await objects.put_bytes("key", body)
        assert await objects.get_bytes("key") == body
