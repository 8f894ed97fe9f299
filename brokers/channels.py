"""Every channel name, once: subjects, topics, streams, buckets and groups of one ``TOPIC_PREFIX``.

Used by all of app and brokers; may import nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Channel", "Names"]


class Channel(StrEnum):
    """What a message is about; the value is the part of the name behind the prefix."""

    REQUEST = "prompt.request"
    CONTROL = "control"
    COMPLETE = "prompt.complete"
    FAILED = "prompt.failed"
    PROGRESS = "prompt.progress"
    STORAGE = "storage"
    SYSTEM = "system"
    WORKER = "worker"
    DEAD_LETTER = "prompt.request.dlq"


@dataclass(frozen=True)
class Names:
    """The names of one deployment, as the contract's table of channels gives them."""

    prefix: str = "comfyui"

    @property
    def flat(self) -> str:
        """The prefix as it stands in names that may hold no dots: streams, buckets, groups."""
        return self.prefix.replace(".", "_")

    def topic(self, channel: Channel) -> str:
        """Kafka topic, and on NATS the subject or its fixed first part."""
        return f"{self.prefix}.{channel}"

    def subject(self, channel: Channel, *parts: str) -> str:
        """NATS subject of one message, e.g. ``comfyui.prompt.complete.<id>``."""
        return ".".join((self.prefix, channel, *parts))

    def of_prompt(self, request_id: str) -> str:
        """NATS wildcard for everything about one prompt; within the result stream: both its terminal events."""
        return f"{self.prefix}.prompt.*.{request_id}"

    @property
    def request_stream(self) -> str:
        """The work queue."""
        return f"{self.flat}-request"

    @property
    def control_stream(self) -> str:
        """Commands of the last 24 hours."""
        return f"{self.flat}-control"

    @property
    def result_stream(self) -> str:
        """Terminal events."""
        return f"{self.flat}-result"

    @property
    def progress_stream(self) -> str:
        """The last progress of each prompt, in memory."""
        return f"{self.flat}-progress"

    @property
    def event_stream(self) -> str:
        """Storage, system and worker events."""
        return f"{self.flat}-event"

    @property
    def dead_letter_stream(self) -> str:
        """Requests given up."""
        return f"{self.flat}-dlq"

    @property
    def ledger_bucket(self) -> str:
        """Claims and attempts."""
        return f"{self.flat}-ledger"

    @property
    def output_bucket(self) -> str:
        """Outputs too large to travel inline, when no other store is configured."""
        return f"{self.flat}-outputs"

    @property
    def dead_letter_bucket(self) -> str:
        """Bodies of dead letters that their added headers would make too large."""
        return f"{self.flat}-dlq"

    @property
    def worker_group(self) -> str:
        """Kafka consumer group of the workers."""
        return f"{self.flat}.workers"
