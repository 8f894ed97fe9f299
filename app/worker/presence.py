"""What a worker says of itself: started, a heartbeat every 10 s, its models when they change, stopped.

Used by worker; may import app.comfy, app.errors, brokers, schemas.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import anyio
import structlog

from app.comfy.client import ComfyClient
from app.comfy.watch import Watch
from app.errors import ComfyUnavailable
from app.worker.events import EventMaker
from brokers.base import Bus, Message
from schemas.base import timestamp
from schemas.envelope import attributes
from schemas.events import ComfyState, WorkerModels, WorkerState

__all__ = ["Presence"]

HEARTBEAT_S = 10.0
MODELS_EVERY_S = 60.0

log = structlog.get_logger("comfybus.presence")


class Presence:
    """Publishes worker events.

    Attributes:
        models: Names by folder, as last published.
        said_at: When the worker last gave a sign of life that the broker could take, seconds since 1970.
    """

    def __init__(
        self,
        bus: Bus,
        maker: EventMaker,
        watch: Watch,
        client: ComfyClient,
        *,
        capacity: int,
        in_flight: Callable[[], int],
    ) -> None:
        self._bus = bus
        self._maker = maker
        self._watch = watch
        self._client = client
        self._capacity = capacity
        self._in_flight = in_flight
        # Distinguishes this process from another one that was given the same worker id.
        self._process = uuid.uuid4().hex[:12]
        self._count = 0
        self.models: dict[str, list[str]] = {}
        self.said_at = 0.0

    async def run(self) -> None:
        """Say that the worker started, then that it lives, until cancelled."""
        await self.say("worker.started")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_models)
            while True:
                await anyio.sleep(HEARTBEAT_S)
                await self.say("worker.heartbeat")

    async def say(self, what: str) -> None:
        """Publish one state of the worker."""
        event = WorkerState.model_validate(
            {
                "type": what,
                "timestamp": timestamp(),
                "worker": self._maker.worker,
                "version": version("comfybus"),
                "comfyui": ComfyState(version=self._watch.version, url=self._client.base_url, up=self._watch.up),
                "capacity": self._capacity,
                "in_flight": self._in_flight(),
                "queue_remaining": self._watch.queue_remaining,
            }
        )
        message = self._maker.of_worker(event, self._event_id())
        if what == "worker.heartbeat":
            await self._look_for_a_double(message)
        await self._bus.publish(message)
        if self._bus.health().ok:
            self.said_at = time.time()

    async def _look_for_a_double(self, heartbeat: Message) -> None:
        """Report another process that lives under the same worker id: its commands and events would be ours."""
        headers = await self._bus.last_headers(heartbeat)
        found = attributes(headers) if headers else {}
        process = found.get("id", "").rpartition("/")[0]
        if not process or process == f"{self._maker.worker}/{self._process}":
            return
        age = datetime.now(UTC) - datetime.fromisoformat(found.get("time", "1970-01-01T00:00:00Z"))
        if age < timedelta(seconds=2 * HEARTBEAT_S):
            log.error("another process has the same WORKER_ID; give each worker its own", worker=self._maker.worker)

    async def _watch_models(self) -> None:
        while True:
            if self._watch.up:
                await self.refresh_models()
            await anyio.sleep(MODELS_EVERY_S if self.models else 1.0)

    async def refresh_models(self) -> None:
        """Ask ComfyUI for its models and publish them when they changed."""
        try:
            models = await self._client.models()
        except ComfyUnavailable as exc:
            log.info("models not listed", reason=str(exc))
            return
        if models != self.models:
            self.models = models
            event = WorkerModels(timestamp=timestamp(), worker=self._maker.worker, models=models)
            await self._bus.publish(self._maker.of_worker(event, self._event_id()))

    def _event_id(self) -> str:
        self._count += 1
        return f"{self._maker.worker}/{self._process}/{self._count}"
