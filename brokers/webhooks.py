"""What a broker gives the webhook bridge: events to read once, and a durable queue of deliveries shared by all bridges.

Used by app.bridge, app.cli, brokers.kafka.webhooks, brokers.nats.webhooks; may import its folder alone.

The queue is divided into shares. At any moment a share belongs to one bridge, so that the order of its deliveries and
what runs at once for one endpoint is decided in one place, however many bridges there are. What must survive a crash
lies in the broker: every delivery with its record (where to, how often tried, when due) and its body.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import anyio

from brokers.base import Health
from brokers.channels import Channel

__all__ = ["FedEvent", "Feed", "Letter", "NewDelivery", "Share", "Waiting", "WebhookBus", "WebhookLetters"]


class Feed(Enum):
    """Two rows of events that are read beside each other, so that a flood of one never holds up the other."""

    RESULTS = "results"
    """Terminal events, from the oldest that is kept when the first bridge ever starts."""
    EVENTS = "events"
    """Storage, system and worker events, from the moment the first bridge ever starts."""


class FedEvent(Protocol):
    """One event for this bridge; another one gets it when ``done`` is not called for the length of a lease."""

    channel: Channel
    body: bytes
    headers: Mapping[str, str]
    origin: str
    """Where it lies in the broker; the same for every redelivery."""

    async def done(self, deliveries: Sequence[NewDelivery]) -> None:
        """Store the deliveries it asks for, confirmed, and never hand it out again; waits through outages.

        It returns without having done so when its share of the events is lost: then its next owner gets it again. What
        is stored twice because of that counts once. A body that the broker does not take is left out.
        """


@dataclass(frozen=True)
class NewDelivery:
    """A delivery to be stored.

    Attributes:
        id: The same for every redelivery of its event; letters, digits, ``-`` and ``_``.
        lane: Which deliveries belong to one endpoint: 16 hex digits. A lane lies in one share.
        record: JSON of the bridge.
        body: What is to be sent.
    """

    id: str
    lane: str
    record: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Waiting:
    """A delivery as it lies in the queue.

    Attributes:
        id: Of the delivery.
        lane: Of the delivery.
        token: Rises whenever a record is stored or changed, over all deliveries of a share.
        record: JSON of the bridge.
    """

    id: str
    lane: str
    token: int
    record: bytes


class Share(Protocol):
    """A part of the queue that is ours alone. Its methods wait through outages of the broker and raise nothing.

    They are cancelled when the share is lost; what was not confirmed then is done by its next owner.
    """

    number: int
    leave: anyio.Event
    """Set when the share is wanted back: end what runs, begin nothing, return."""

    @property
    def is_ours(self) -> bool:
        """False when our hold could not be renewed for so long that somebody else may have it: begin nothing."""

    def read(self) -> AsyncGenerator[Waiting | None, None]:
        """Everything that waits, then everything that is stored or changed, our own changes too, for ever.

        In the order of its tokens; None says that all that lay there at the beginning has been handed out.
        """

    def read_lane(self, lane: str, after: int) -> AsyncIterator[Waiting]:
        """What waits in one lane with a higher token, in their order, to the end."""

    async def find(self, lane: str, delivery_id: str) -> Waiting | None:
        """A delivery as it lies there now; None when it is settled."""

    async def body(self, delivery_id: str) -> bytes | None:
        """What is to be sent; None when the broker no longer keeps it."""

    async def defer(self, waiting: Waiting, record: bytes) -> Waiting | None:
        """Store a changed record, confirmed; None when somebody else has changed or settled it."""

    async def settle(self, waiting: Waiting) -> None:
        """It is over: forget record and body, confirmed."""

    async def give_up(self, waiting: Waiting, letter: bytes) -> None:
        """Move it to the dead letter, its body too: the letter is confirmed before the record goes."""

    async def stop(self, endpoint: str, note: bytes) -> None:
        """Mark an endpoint as gone; kept until a letter of it is replayed, at the longest as long as the queue."""

    async def stopped(self, endpoint: str) -> bytes | None:
        """The mark of an endpoint, if it has one."""


class WebhookBus(Protocol):
    """The bridge's connection to its broker."""

    def open(self) -> AbstractAsyncContextManager[Any]:
        """Connect, create what is missing, until the block ends.

        Raises:
            BrokerUnavailable: The broker cannot be reached.
            BrokerRefused: It is too old, or something is missing that may not be created; one line says what.
        """

    async def take(self, feed: Feed, wait_s: float) -> FedEvent | None:
        """The next event, or None when none came within the time; never raises on trouble with the broker."""

    def readers(self, feed: Feed) -> int:
        """How many events may be in hand at once, so that deliveries are stored in the order of their events."""

    async def serve(self, work: Callable[[Share], Awaitable[None]], stop: anyio.Event) -> None:
        """Hold our part of the shares and run ``work`` for each that becomes ours, until ``stop`` is set.

        Work is cancelled when its share is lost. At the stop every share is asked to leave; shares go to other bridges
        as soon as their work has returned.
        """

    def health(self) -> Health:
        """Whether events can be read and deliveries be stored."""


@dataclass(frozen=True)
class Letter:
    """A delivery that was given up, or one that waits.

    Attributes:
        id: Of the delivery.
        place: Where it lies, e.g. ``comfyui-webhook#17``.
        record: JSON of the bridge.
    """

    id: str
    place: str
    record: bytes


class WebhookLetters(Protocol):
    """The queue as an operator sees it; every method may raise ``BrokerUnavailable`` and ``BrokerRefused``."""

    def open(self) -> AbstractAsyncContextManager[Any]:
        """Connect, and stay connected until the block ends."""

    def letters(self) -> AsyncIterator[Letter]:
        """Deliveries given up, oldest first."""

    def waiting(self) -> AsyncIterator[Letter]:
        """Deliveries that wait, in the order of their last change."""

    async def replay(self, letter: Letter, lane: str, record: bytes, *, edition: int, endpoint: str) -> None:
        """Put a letter back into the queue with this record, lift the mark of its endpoint, then remove the letter.

        Args:
            letter: What ``letters`` gave.
            lane: Of the delivery.
            record: The new one.
            edition: How often it has been replayed, this time included.
            endpoint: As it was given to ``Share.stop``.

        Raises:
            BrokerRefused: The letter or its body is no longer kept.
        """
