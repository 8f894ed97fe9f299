"""What goes over a broker and what can go wrong with it: keys, records, messages, letters, errors.

Used by base, client; may import schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from brokers.channels import Channel
from schemas.events import RequestSource

__all__ = [
    "BrokerError",
    "BrokerRefused",
    "BrokerUnavailable",
    "Claim",
    "Letter",
    "Message",
    "MessageTooLarge",
    "RequestKey",
    "RequestOrigin",
    "StopReason",
    "Tries",
]


class BrokerError(Exception):
    """Something is wrong with the broker; the sentence names the cause and the cure."""


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached or does not answer; trying again later may help."""


class BrokerRefused(BrokerError):
    """The broker answers and says no: too old, a missing permission, an unfit stream; an operator has to act."""


class MessageTooLarge(BrokerError):
    """Body and headers together are larger than the broker takes."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"the message has {size_bytes} bytes with its headers, the broker takes {limit_bytes}")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


@dataclass(frozen=True)
class RequestKey:
    """What is answered once: a request id, and for a dead letter run again the number of its replay."""

    id: str
    replay: int = 0


@dataclass(frozen=True)
class RequestOrigin:
    """Where a request lies in its broker and since when; the same for every redelivery."""

    source: RequestSource
    published_at: datetime

    @property
    def parts(self) -> tuple[str, ...]:
        """Stream or topic, partition, sequence or offset, and the broker's timestamp, as strings."""
        place = self.source.model_dump(exclude_none=True).values()
        return (*(str(value) for value in place), self.published_at.isoformat())

    def __str__(self) -> str:
        """Short form for logs: ``comfyui-request#17`` or ``comfyui.prompt.request-3@42``."""
        at = self.source
        return f"{at.stream}#{at.sequence}" if at.stream else f"{at.topic}-{at.partition}@{at.offset}"


StopReason = Literal["cancelled", "timeout", "drained"]


class Tries(BaseModel):
    """What must survive a crash about one (id, replay): stored in the ledger, changed by whoever holds the delivery.

    Attributes:
        attempt: Tries begun that ended without a terminal event, plus one.
        begun: The try of this attempt has begun: nothing of the worker was ahead of it in ComfyUI any more.
        started_ms: When ComfyUI began to execute it, milliseconds since 1970; the clock of ``timeout_s``.
        failures: Tries that failed before they began in ComfyUI (an input's host was down).
        stopped: Why we interrupted it. An interrupt in ComfyUI's history counts as ours only with this.
        fault: What ended the last try, for the sentence of ``attempts_exhausted``.
    """

    model_config = ConfigDict(frozen=True)

    attempt: int = 1
    begun: bool = False
    started_ms: int | None = None
    failures: int = 0
    stopped: StopReason | None = None
    fault: str | None = None


class Claim(Enum):
    """The answer to: may this delivery be worked on?"""

    OWNED = "owned"
    """Ours: work on it, then settle it."""
    ANSWERED = "answered"
    """Its terminal event is stored, or another submission of the same id came first: settle it without an event."""


@dataclass(frozen=True)
class Message:
    """One outgoing message.

    Attributes:
        channel: Where it goes.
        parts: What NATS puts behind the channel's subject: the request id, the event, worker id and event.
        key: Kafka's record key: the request id, else the worker id.
        body: JSON.
        attributes: CloudEvents attributes without a prefix.
        headers: Further headers, such as ``traceparent``.
    """

    channel: Channel
    parts: tuple[str, ...]
    key: str
    body: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Letter:
    """Why a request is given up; the broker adds the original bytes and headers, where from and when."""

    reason: str
    code: str
    worker: str
    attempts: int
    request_id: str
    id_was_derived: bool
    replay: int = 0
