"""Kafka as the contract suite of the brokers needs it, and for this broker's own tests."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int16, Int32, Schema, String

from brokers.base import Tries
from brokers.channels import Names
from brokers.kafka import KafkaBus, KafkaConfig
from tests.support.kafka_outsider import KafkaOutsider
from tests.support.kafka_server import Kafka, require_kafka
from tests.support.processes import Process, launch
from tests.support.tcp_proxy import TcpProxy

HOLDER = Path(__file__).with_name("kafka_holder.py")
JUGGLER = Path(__file__).with_name("kafka_juggler.py")
ROOT = Path(__file__).parents[2]


class _DeleteGroupsResponse(Response):
    API_KEY = 42
    API_VERSION = 1
    SCHEMA = Schema(("throttle_ms", Int32), ("results", Array(("group", String("utf-8")), ("error_code", Int16))))


class _DeleteGroupsStruct(RequestStruct):
    API_KEY = 42
    API_VERSION = 1
    RESPONSE_TYPE = _DeleteGroupsResponse
    SCHEMA = Schema(("groups", Array(String("utf-8"))))


class DeleteGroups(Request[_DeleteGroupsStruct]):
    """aiokafka has no such request."""

    API_KEY = 42

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class([self._group])


class Wire(TcpProxy):
    """A proxy at a port that the broker advertises, so that clients come through it after their first question too."""

    def __init__(self, port: int, target_port: int) -> None:
        super().__init__(target_port)
        self.port = port
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Take new connections."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def refuse(self) -> None:
        """Take no new connections, and reset those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Wire]:
        await self.listen()
        try:
            yield self
        finally:
            with anyio.CancelScope(shield=True):
                self.resume()
                await self.refuse()
                while self._writers:
                    await asyncio.sleep(0.005)


@dataclass
class KafkaHarness:
    """The session's Kafka under a prefix of the test's own."""

    folder: Path
    kafka: Kafka
    outside: KafkaOutsider
    lease_s: float
    shares_requests: bool = False
    has_room_for_letters: bool = True
    _holders: list[Process] = field(default_factory=list)
    _wires: list[tuple[int, int]] = field(default_factory=list)

    @property
    def names(self) -> Names:
        return Names(self.kafka.prefix)

    @property
    def config(self) -> KafkaConfig:
        return self.config_at(self.kafka.bootstrap)

    def config_at(self, bootstrap: str, **changes: Any) -> KafkaConfig:
        values = {
            "names": self.names,
            "session_timeout_ms": int(self.lease_s * 1000),
            "first_connection_s": 5,
            **changes,
        }
        return KafkaConfig(servers=(bootstrap,), **values)

    async def kill(self) -> None:
        await self.kafka.kill()

    async def restart(self) -> None:
        await self.kafka.start()

    @asynccontextmanager
    async def bus(self, **changes: Any) -> AsyncIterator[KafkaBus]:
        async with KafkaBus(self.config_at(self.kafka.bootstrap, **changes)).open() as bus:
            yield bus

    @asynccontextmanager
    async def bus_on_a_wire(self, **changes: Any) -> AsyncIterator[tuple[KafkaBus, Wire]]:
        port, proxy_port = next(one for one in self.kafka.server.wires if one not in self._wires)
        self._wires.append((port, proxy_port))
        async with (
            Wire(proxy_port, port).run() as wire,
            KafkaBus(self.config_at(f"127.0.0.1:{wire.port}", **changes)).open() as bus,
        ):
            yield bus, wire
        self._wires.remove((port, proxy_port))

    async def holder(self, request_id: str, tries: Tries) -> Process:
        return await self._hold(HOLDER, request_id, tries.model_dump_json())

    async def juggler(self, count: int, *, settled: list[str], noted: list[str]) -> Process:
        """Another process that has taken so many requests, settled some and stored a record for some."""
        return await self._hold(JUGGLER, str(count), json.dumps(settled), json.dumps(noted))

    async def _hold(self, program: Path, *args: str) -> Process:
        said = self.folder / f"holder-{len(self._holders)}.log"
        common = [self.kafka.bootstrap, self.names.prefix, str(int(self.lease_s * 1000))]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = launch([sys.executable, str(program), *common, *args], said, environment)
        self._holders.append(process)
        with anyio.fail_after(30):
            while "holding" not in said.read_text():
                assert process.running, process.tail()
                await anyio.sleep(0.02)
        return process

    def topic(self, channel: str) -> str:
        return f"{self.names.prefix}.{channel}"

    async def forget_group(self) -> None:
        """Delete the group and its offsets, as Kafka itself does when nobody was in it for a week."""
        admin = self.outside.admin
        node = await admin.find_coordinator(self.names.worker_group)
        with anyio.fail_after(20):
            while (await admin._client.send(node, DeleteGroups(self.names.worker_group))).results[0][1]:
                await anyio.sleep(0.1)

    async def end(self) -> None:
        for process in self._holders:
            await process.kill()
        await self.kafka.start()
        await self.kafka.forget()


@asynccontextmanager
async def run_kafka(
    folder: Path, *, lease_s: float = 30, partitions: int = 1, limit_bytes: int | None = None
) -> AsyncIterator[KafkaHarness]:
    """The session's broker and a plain client on topics of its own."""
    require_kafka()
    kafka = Kafka()
    await kafka.start()
    outside = KafkaOutsider(kafka.bootstrap, kafka.prefix, partitions, limit_bytes)
    harness = KafkaHarness(folder, kafka, outside, lease_s)
    try:
        async with outside.open():
            yield harness
    finally:
        with anyio.CancelScope(shield=True):
            await harness.end()
