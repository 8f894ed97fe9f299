"""Transfers of files as events on the storage channel and as counts.

Used by worker; may import app.metrics, app.storage, brokers, schemas.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import structlog

from app.metrics import Metrics
from app.storage.transfers import StorageTransfer
from app.worker.events import EventMaker
from app.worker.outbox import Outbox
from brokers.base import Message
from schemas.base import timestamp
from schemas.events import StorageData, StorageEvent

__all__ = ["Transfers"]

_EVENTS = {
    "downloaded": "storage.file_downloaded",
    "uploaded": "storage.file_uploaded",
    "deleted": "storage.file_deleted",
    "download_failed": "storage.download_failed",
}

log = structlog.get_logger("comfybus.storage")


class Transfers:
    """Told of every transfer on the event loop; returns at once."""

    def __init__(self, outbox: Outbox, maker: EventMaker, metrics: Metrics, metadata: Mapping[str, str]) -> None:
        self._outbox = outbox
        self._maker = maker
        self._metrics = metrics
        self._metadata = dict(metadata) or None
        self._process = uuid.uuid4().hex[:12]
        self._count = 0

    def take(self, transfer: StorageTransfer) -> None:
        """Count a transfer and publish its event soon."""
        self._metrics.transfers.labels(event=transfer.event, backend=transfer.backend).inc()
        if transfer.size_bytes and transfer.event in ("downloaded", "uploaded"):
            self._metrics.transfer_bytes.labels(event=transfer.event, backend=transfer.backend).inc(transfer.size_bytes)
        if transfer.duration_s:
            self._metrics.transfer_seconds.labels(event=transfer.event, backend=transfer.backend).inc(
                transfer.duration_s
            )
        if transfer.event in ("hit", "downloaded"):
            self._metrics.cached(hit=transfer.event == "hit")
        if transfer.error is not None:
            log.warning("transfer failed", what=transfer.event, url=transfer.url, reason=transfer.error)
        if transfer.event not in _EVENTS:
            return
        self._count += 1
        event_id = f"{self._maker.worker}/{self._process}/{self._count}"

        def make() -> Message:
            event = StorageEvent.model_validate(
                {
                    "type": _EVENTS[transfer.event],
                    "timestamp": timestamp(),
                    "worker": self._maker.worker,
                    "id": transfer.request_id,
                    "data": StorageData(
                        url=transfer.url,
                        local_path=transfer.local_path,
                        size=transfer.size_bytes,
                        duration=transfer.duration_s,
                        error=transfer.error,
                        code=transfer.code,
                    ),
                    "metadata": self._metadata,
                }
            )
            return self._maker.storage(event, event_id, {})

        self._outbox.offer(make)
