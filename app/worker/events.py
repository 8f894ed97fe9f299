"""Events of this worker as messages: one place that names channels, subjects, keys and CloudEvents attributes.

Used by most of its folder; may import brokers, schemas.
"""

from __future__ import annotations

from collections.abc import Mapping

from brokers.base import Message, RequestKey
from brokers.channels import Channel
from schemas.envelope import event_attributes, terminal_event_id
from schemas.events import (
    ComfyEvent,
    Event,
    PromptComplete,
    PromptFailed,
    PromptProgress,
    StorageEvent,
    WorkerModels,
    WorkerState,
)

__all__ = ["EventMaker"]


class EventMaker:
    """Wraps events of one worker into messages."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.source = f"/comfybus/{worker}"

    def terminal(self, event: PromptComplete | PromptFailed, key: RequestKey, headers: Mapping[str, str]) -> Message:
        """The one event that ends a request; its CloudEvents id is the same whoever publishes it."""
        outcome = "complete" if isinstance(event, PromptComplete) else "failed"
        channel = Channel.COMPLETE if outcome == "complete" else Channel.FAILED
        event_id = terminal_event_id(key.id, outcome, key.replay)
        return self._message(channel, (key.id,), key.id, event, event_id, key.id, headers)

    def progress(self, event: PromptProgress, headers: Mapping[str, str]) -> Message:
        """One step of a prompt."""
        replay = f"/{event.replay}" if event.replay else ""
        event_id = f"{event.id}/progress{replay}/{event.attempt}/{self.worker}/{event.sequence}"
        return self._message(Channel.PROGRESS, (event.id,), event.id, event, event_id, event.id, headers)

    def storage(self, event: StorageEvent, event_id: str, headers: Mapping[str, str]) -> Message:
        """One transfer of a file."""
        name = event.type.partition(".")[2]
        return self._message(Channel.STORAGE, (name,), event.id or self.worker, event, event_id, event.id, headers)

    def system(self, event: ComfyEvent, event_id: str, request_id: str | None) -> Message:
        """One websocket event of ComfyUI."""
        name = event.type.partition(".")[2]
        return self._message(Channel.SYSTEM, (name,), request_id or self.worker, event, event_id, request_id, {})

    def of_worker(self, event: WorkerState | WorkerModels, event_id: str) -> Message:
        """The worker speaks of itself."""
        name = event.type.partition(".")[2]
        return self._message(Channel.WORKER, (self.worker, name), self.worker, event, event_id, None, {})

    def _message(
        self,
        channel: Channel,
        parts: tuple[str, ...],
        key: str,
        event: Event,
        event_id: str,
        subject: str | None,
        headers: Mapping[str, str],
    ) -> Message:
        attributes = event_attributes(event_id=event_id, event_type=event.type, source=self.source, subject=subject)
        return Message(channel, parts, key, event.encode(), attributes, headers)
