"""A whole deployment on loopback: broker, stand-in ComfyUIs and workers as processes, and a plain client."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import anyio

from brokers.channels import Names
from brokers.client import Client
from brokers.embedded import find_server
from brokers.kafka import KafkaClient, KafkaConfig
from brokers.nats import NatsClient, NatsConfig
from tests.support.outsider import NatsOutsider, Outsider
from tests.support.processes import Process, StandIn, Worker, free_port, launch


@dataclass
class NatsServer:
    """A nats-server that can be killed and comes back at its address with its state."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: Process | None = None
    sync: str = "2m"

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\nports_file_dir: "{self.folder}"\n'
            f'jetstream {{ store_dir: "{self.folder / "store"}", sync_interval: "{self.sync}" }}\n'
        )
        self.process = launch([str(find_server()), "-c", str(config)], self.folder / "nats.log")
        # The server writes this file under its own pid once it listens: nobody else can be mistaken for it.
        ports = anyio.Path(self.folder / f"nats-server_{self.process.pid}.ports")
        with anyio.fail_after(20):
            while not await ports.exists():
                assert self.process.running, self.process.tail()
                await anyio.sleep(0.01)

    async def kill(self) -> None:
        assert self.process is not None
        await self.process.kill()


class Server(Protocol):
    """A broker as the suites torment it."""

    process: Process | None

    @property
    def url(self) -> str:
        """As BROKER_URL has it."""

    async def start(self) -> None:
        """Start it, or bring it back at its address with its state."""

    async def kill(self) -> None:
        """kill -9."""


@dataclass
class Stack:
    """Everything that runs, and what to start more of it."""

    folder: Path
    broker: Server
    outside: Outsider
    env: dict[str, str]
    hand_over_s: float = 2
    """How soon after SIGTERM another worker has what was handed back."""
    comfys: list[StandIn] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    async def comfy(self, version: str = "0.3.64") -> StandIn:
        """Start another stand-in ComfyUI."""
        standin = StandIn(self.folder / f"comfy-{len(self.comfys)}", free_port(), version)
        self.comfys.append(standin)
        await standin.start()
        return standin

    def worker(self, comfy: StandIn, *, shared: bool = True, **env: Any) -> Worker:
        """Make another worker, not yet started."""
        own = {"BROKER_URL": self.broker.url, "COMFYUI_URL": comfy.url, **self.env}
        if shared:
            own["COMFY_HOME"] = str(comfy.home)
        own.update({name: str(value) for name, value in env.items()})
        worker = Worker(f"w{len(self.workers)}", self.folder, own)
        self.workers.append(worker)
        return worker

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """An operator's connection, as the commands have it."""
        names = Names(self.env.get("TOPIC_PREFIX", "comfyui"))
        made: Client
        if self.broker.url.startswith("kafka://"):
            made = KafkaClient(KafkaConfig(servers=(self.broker.url.removeprefix("kafka://"),), names=names))
        else:
            made = NatsClient(NatsConfig(servers=(self.broker.url,), names=names))
        async with made.open():
            yield made

    async def end(self) -> None:
        """End every process, the gentle ones first."""
        for worker in self.workers:
            if worker.process is not None:
                await worker.process.kill()
        for comfy in self.comfys:
            if comfy.process is not None:
                await comfy.process.kill()
        if self.broker.process is not None:
            await self.broker.process.kill()


@asynccontextmanager
async def run_stack(folder: Path, **env: Any) -> AsyncIterator[Stack]:
    """A broker and a plain client; ComfyUIs and workers are added by the test.

    NATS, or with TEST_BROKER=kafka the same on a real Apache Kafka; ``PARTITIONS`` is for Kafka alone.
    """
    if os.environ.get("TEST_BROKER") == "kafka":
        from tests.support.kafka_stack import run_kafka_stack

        async with run_kafka_stack(folder, **env) as on_kafka:
            yield on_kafka
        return
    env.pop("PARTITIONS", None)
    broker = NatsServer(folder / "nats")
    async with AsyncExitStack() as cleanup:
        await broker.start()
        prefix = str(env.get("TOPIC_PREFIX", "comfyui"))
        outside = NatsOutsider(broker.url, prefix)
        stack = Stack(folder, broker, outside, {name: str(value) for name, value in env.items()})

        async def end() -> None:
            with anyio.CancelScope(shield=True):
                await stack.end()

        cleanup.push_async_callback(end)
        await cleanup.enter_async_context(outside.open())
        yield stack


def graph(*, prefix: str = "out", seconds: float = 0, steps: int = 5, color: int = 0, size: int = 64) -> dict[str, Any]:
    """EmptyImage → (SlowProgress) → SaveImage."""
    nodes: dict[str, Any] = {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": size, "height": size, "batch_size": 1, "color": color},
        }
    }
    source = "1"
    if seconds:
        nodes["2"] = {
            "class_type": "SlowProgress",
            "inputs": {"image": ["1", 0], "steps": steps, "seconds": seconds},
        }
        source = "2"
    nodes["9"] = {"class_type": "SaveImage", "inputs": {"images": [source, 0], "filename_prefix": prefix}}
    return nodes
