"""Bridges as processes, and events as a worker publishes them."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from tests.integration.bridge.insight import KafkaInsight, NatsInsight, open_insight
from tests.integration.bridge.receivers import SECRET, Receivers
from tests.support.kafka_stack import run_kafka_stack
from tests.support.processes import Process, free_port, launch, wait_http
from tests.support.stack import Stack, run_stack

# For tests that hold on every broker.
on_each_broker = pytest.mark.parametrize("broker", ["nats", "kafka"])

STATS = {
    "comfy_execution": {"start": 1, "end": 2, "duration": 1, "nodes": {}},
    "preprocess_time": 0,
    "comfy_round_trip_time": 1,
    "postprocess_time": 0,
    "upload_time": 5,
    "total_time": 6,
    "queue_time": 1,
}


@dataclass
class BridgeProcess:
    """The real bridge in a process of its own."""

    folder: Path
    env: dict[str, str]
    name: str = "bridge"
    http_port: int = field(default_factory=free_port)
    process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def launch(self) -> None:
        env = {"HOST": "127.0.0.1", "PORT": str(self.http_port), "LOG_FORMAT": "json", **self.env}
        self.process = launch(
            [sys.executable, "-W", "error", "-m", "app", "bridge"], self.folder / f"{self.name}.log", env
        )

    async def start(self) -> None:
        self.launch()
        assert self.process is not None
        await wait_http(f"{self.url}/ready", self.process)

    async def kill(self) -> None:
        assert self.process is not None
        await self.process.kill()

    async def stop(self) -> int:
        assert self.process is not None
        return await self.process.terminate()

    def log(self) -> list[dict[str, Any]]:
        assert self.process is not None
        lines = self.process.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def peak_bytes(self) -> int:
        """The most memory it ever had."""
        assert self.process is not None
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024

    async def metrics(self) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as response:
            return await response.text()


@dataclass
class Scene:
    """A broker, receivers and bridges."""

    stack: Stack
    receivers: Receivers
    env: dict[str, str]
    insight: NatsInsight | KafkaInsight
    bridges: list[BridgeProcess] = field(default_factory=list)

    def bridge(self, **env: Any) -> BridgeProcess:
        """Make another bridge, not yet started."""
        own = {
            "PATH": "/usr/bin:/bin",
            "BROKER_URL": self.stack.broker.url,
            "WEBHOOK_SECRET": SECRET,
            "ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
            "BRIDGE_LEASE_S": "2",
            "NATS_ACK_WAIT_S": "2",
            "CACHE_DIR": str(self.stack.folder / "cache"),
            **self.env,
            **{name: str(value) for name, value in env.items()},
        }
        bridge = BridgeProcess(self.stack.folder, own, f"bridge-{len(self.bridges)}")
        self.bridges.append(bridge)
        return bridge

    # --- events, as a worker publishes them

    async def complete(self, request_id: str, *, replay: int = 0, **fields: Any) -> None:
        event = {
            "type": "prompt.complete",
            "timestamp": "2026-01-01T00:00:00.000Z",
            "worker": "w0",
            "id": request_id,
            "attempt": 1,
            "prompt": {"9": {"class_type": "SaveImage", "inputs": {}}},
            "images": ["aGVsbG8="],
            "filenames": [f"{request_id}_00001_.png"],
            "outputs": [],
            "stats": STATS,
            **fields,
        }
        suffix = f"/{replay}" if replay else ""
        await self.publish(f"prompt.complete.{request_id}", event, f"{request_id}/complete{suffix}")

    async def failed(self, request_id: str, **fields: Any) -> None:
        event = {
            "type": "prompt.failed",
            "timestamp": "2026-01-01T00:00:00.000Z",
            "worker": "w0",
            "id": request_id,
            "attempt": 1,
            "prompt": {"9": {"class_type": "SaveImage", "inputs": {}}},
            "error": "the target does not take the file",
            "code": "upload_failed",
            "retryable": True,
            **fields,
        }
        await self.publish(f"prompt.failed.{request_id}", event, f"{request_id}/failed")

    async def side_event(self, subject: str, event_type: str, **fields: Any) -> str:
        """A storage, system or worker event; returns its CloudEvents id."""
        event = {"type": event_type, "timestamp": "2026-01-01T00:00:00.000Z", "worker": "w0", **fields}
        event_id = f"w0/{uuid.uuid4().hex}/1"
        await self.publish(subject, event, event_id)
        return event_id

    async def publish(self, subject: str, event: dict[str, Any], event_id: str) -> None:
        attributes = {"id": event_id, "type": event["type"], "source": "/comfybus/w0", "specversion": "1.0"}
        await self.insight.publish(subject, json.dumps(event).encode(), attributes)

    # --- what the bridge keeps

    async def kept(self, kind: str) -> list[str]:
        """Names of what the bridge keeps of one kind: due, body, dlq, gone."""
        return list(await self.insight.kept(kind))

    async def records(self, kind: str) -> list[dict[str, Any]]:
        """The records behind them."""
        return await self.insight.records(kind)

    async def until_kept(self, kind: str, count: int, within_s: float = 60) -> list[str]:
        """Wait until exactly so many are kept."""
        with anyio.move_on_after(within_s):
            while len(await self.kept(kind)) != count:
                await anyio.sleep(0.02)
        found = await self.kept(kind)
        logs = "\n".join(bridge.process.tail(10) for bridge in self.bridges if bridge.process)
        assert len(found) == count, f"{len(found)} {kind} instead of {count} within {within_s} s\n{logs}"
        return found


@asynccontextmanager
async def run_scene(folder: Path, receivers: Receivers, broker: str = "nats", **env: Any) -> AsyncIterator[Scene]:
    """A broker, ``nats`` or ``kafka``; bridges are added by the test and ended here."""
    run = run_kafka_stack if broker == "kafka" else run_stack
    async with run(folder) as stack, open_insight(stack.outside) as insight:
        scene = Scene(stack, receivers, {**stack.env, **{name: str(value) for name, value in env.items()}}, insight)
        try:
            yield scene
        finally:
            with anyio.CancelScope(shield=True):
                for bridge in scene.bridges:
                    if bridge.process is not None:
                        await bridge.process.kill()
