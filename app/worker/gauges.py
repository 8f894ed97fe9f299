"""Metrics that are read, not counted: what ComfyUI, broker, backlog and disks are like.

Used by worker; may import app.comfy, app.metrics, brokers.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread

from app.comfy.watch import Watch
from app.metrics import Metrics
from brokers.base import Bus

__all__ = ["Surroundings", "watch_bus", "watch_comfyui"]

LOOK_EVERY_S = 10.0
LOOK_WITHIN_S = 5.0


def watch_comfyui(metrics: Metrics, watch: Watch, starts: Callable[[], int]) -> None:
    """Show how ComfyUI is; ``starts`` is how often it was launched here."""
    metrics.watch("comfyui_up", "1 while ComfyUI answers.", lambda: float(watch.up))
    metrics.watch("comfyui_queue", "Prompts in ComfyUI's queue, anybody's.", lambda: watch.queue_remaining or 0)
    metrics.count("comfyui_busy_seconds", "Time in which ComfyUI ran prompts of ours.", lambda: watch.busy.seconds)
    metrics.count("comfyui_restarts", "Launches of ComfyUI after the first.", lambda: max(0, starts() - 1))


def watch_bus(metrics: Metrics, bus: Bus, websockets: Callable[[], int]) -> None:
    """Show how the broker is; ``websockets`` is how many connections to ComfyUI were made."""
    metrics.watch("broker_ok", "1 while requests can be taken and answered.", lambda: float(bus.health().ok))
    metrics.count("lease_extensions", "Leases of requests in hand renewed.", lambda: bus.counts.lease_extensions)
    metrics.count("side_messages_dropped", "Progress and other events lost.", lambda: bus.dropped_messages)
    metrics.count_each(
        "reconnects",
        "Connections that were lost and made again.",
        "to",
        lambda: {"broker": bus.counts.reconnects, "comfyui": max(0, websockets() - 1)},
    )


class Surroundings:
    """Looked at every ten seconds.

    Args:
        bus: Says how long requests wait.
        folders: By the name that the metric shows; those that are not there yet are left out.

    Attributes:
        free_bytes: What is left for us on the disk of each folder.
        size_bytes: How large that disk is.
    """

    def __init__(self, bus: Bus, folders: Mapping[str, Path]) -> None:
        self._bus = bus
        self._folders = dict(folders)
        self._oldest: datetime | None = None
        self._look = anyio.Event()
        self._one = anyio.CapacityLimiter(1)
        self.free_bytes: dict[str, float] = {}
        self.size_bytes: dict[str, float] = {}

    def show(self, metrics: Metrics) -> None:
        """Add it to the metrics."""
        metrics.watch("backlog_oldest_seconds", "Age of the oldest request that waits.", lambda: self.oldest_s)
        metrics.watch_each("disk_free_bytes", "Room on the disk of a folder.", "folder", lambda: self.free_bytes)
        metrics.watch_each("disk_size_bytes", "Size of the disk of a folder.", "folder", lambda: self.size_bytes)

    @property
    def oldest_s(self) -> float:
        """Age of the oldest request that nobody was given yet; 0 when none waits."""
        return max(0.0, (datetime.now(UTC) - self._oldest).total_seconds()) if self._oldest else 0.0

    def also(self, folders: Mapping[str, Path]) -> None:
        """Look at these folders too, and at once."""
        self._folders.update(folders)
        self._look.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._look = anyio.Event()
            with anyio.move_on_after(LOOK_WITHIN_S):
                self._oldest = await self._bus.oldest_waiting()
            # A dead network disk may hold this thread for good, but neither the worker nor further threads.
            with anyio.move_on_after(LOOK_WITHIN_S):
                await anyio.to_thread.run_sync(
                    self._measure, dict(self._folders), abandon_on_cancel=True, limiter=self._one
                )
            with anyio.move_on_after(LOOK_EVERY_S):
                await self._look.wait()

    def _measure(self, folders: Mapping[str, Path]) -> None:
        free, size = {}, {}
        for name, folder in folders.items():
            try:
                usage = shutil.disk_usage(folder)
            except OSError:
                continue
            free[name], size[name] = float(usage.free), float(usage.total)
        self.free_bytes, self.size_bytes = free, size
