"""ComfyUI's own websocket events on the system channel, opt-in; ids in them are the requests' ids.

Used by worker; may import app.comfy, app.storage, brokers, schemas.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from app.comfy.frames import Frame
from app.storage.secrets import Scrubber
from app.worker.events import EventMaker
from app.worker.job import Job
from app.worker.outbox import Outbox
from brokers.base import Message
from schemas.base import timestamp
from schemas.events import ComfyEvent

__all__ = ["SystemEvents"]


class SystemEvents:
    """Turns frames into ``comfy.<event>``; called from the websocket's reader, so it returns at once."""

    def __init__(
        self,
        outbox: Outbox,
        maker: EventMaker,
        metadata: Mapping[str, str],
        job_of: Callable[[str], Job | None],
        scrubber_of: Callable[[Job | None], Scrubber],
    ) -> None:
        self._outbox = outbox
        self._maker = maker
        self._metadata = dict(metadata) or None
        self._job_of = job_of
        self._scrubber_of = scrubber_of
        self._process = uuid.uuid4().hex[:12]
        self._count = 0

    def take(self, frame: Frame) -> None:
        """Publish one frame soon."""
        job = self._job_of(frame.prompt_id) if frame.prompt_id else None
        request_id = job.key.id if job else None
        scrubber = self._scrubber_of(job)
        self._count += 1
        event_id = f"{self._maker.worker}/{self._process}/{self._count}"

        def make() -> Message:
            # A failed node shows its inputs, and texts say whatever a node makes them say.
            shown = scrubber.json(frame.data)
            data = {"type": frame.type, "data": self._with_request_ids(shown, frame.prompt_id, request_id)}
            event = ComfyEvent(
                type=f"comfy.{frame.type}",
                timestamp=timestamp(),
                worker=self._maker.worker,
                data=data,
                metadata=self._metadata,
            )
            return self._maker.system(event, event_id, request_id)

        self._outbox.offer(make)

    def _with_request_ids(self, value: Any, prompt_id: str | None, request_id: str | None) -> Any:
        """Every ``prompt_id`` that is this frame's prompt becomes the request's id, at any depth."""
        if prompt_id is None or request_id is None:
            return value
        if isinstance(value, Mapping):
            return {
                key: request_id
                if key == "prompt_id" and item == prompt_id
                else self._with_request_ids(item, prompt_id, request_id)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self._with_request_ids(item, prompt_id, request_id) for item in value]
        return value
