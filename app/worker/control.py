"""Commands on the control channel, as this worker takes them.

Used by worker; may import brokers, schemas.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog

from app.worker.cancels import Cancels
from brokers.base import Bus, CommandMessage
from schemas.base import WrongField, load_json
from schemas.control import ModelDownload, PromptCancel, WorkerDrain, parse_command

__all__ = ["Control"]

log = structlog.get_logger("comfybus.control")


class Control:
    """Follows the channel for ever; a wrong command is logged and passed over."""

    def __init__(
        self,
        bus: Bus,
        worker: str,
        cancels: Cancels,
        *,
        on_cancel: Callable[[str], None],
        on_drain: Callable[[], None],
        on_download: Callable[[ModelDownload], Awaitable[None]] | None = None,
    ) -> None:
        self._bus = bus
        self._worker = worker
        self._cancels = cancels
        self._on_cancel = on_cancel
        self._on_drain = on_drain
        self._on_download = on_download

    async def run(self) -> None:
        """Take commands until cancelled."""
        async for message in self._bus.commands():
            await self._take(message)

    async def _take(self, message: CommandMessage) -> None:
        try:
            command = parse_command(load_json(message.body))
        except WrongField as exc:
            if message.fresh:
                log.warning("command ignored", reason=str(exc))
            return
        match command:
            case PromptCancel(id=request_id):
                self._cancel(request_id, message.published_at)
            case WorkerDrain(worker=worker) if message.fresh and worker == self._worker:
                log.info("asked to drain")
                self._on_drain()
            case ModelDownload() if message.fresh:
                if self._on_download is not None:
                    await self._on_download(command)
                else:
                    log.warning("model.download is not supported by this worker yet")
            case _:
                pass

    def _cancel(self, request_id: str, at: datetime) -> None:
        self._cancels.add(request_id, at)
        self._on_cancel(request_id)
