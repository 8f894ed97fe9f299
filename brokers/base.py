"""What every broker gives the worker: deliveries to settle, a bus to publish on, commands to follow.

Used by all of app and brokers; may import its folder alone.

Two brokers implement these protocols and one contract suite holds both to every sentence here. Nothing in this package
knows ComfyUI; nothing above it knows NATS or Kafka.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import anyio

from brokers.counts import BusCounts
from brokers.lost import Lost
from brokers.messages import (
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    Claim,
    Letter,
    Message,
    MessageTooLarge,
    RequestKey,
    RequestOrigin,
    StopReason,
    Tries,
)

__all__ = [
    "BrokerError",
    "BrokerRefused",
    "BrokerUnavailable",
    "Bus",
    "Claim",
    "CommandMessage",
    "Delivery",
    "Health",
    "Letter",
    "Message",
    "MessageTooLarge",
    "RequestKey",
    "RequestOrigin",
    "StopReason",
    "Tries",
]


class Delivery(Protocol):
    """One received request. The holder settles it exactly once: ``settle``, ``drop``, ``retry`` or ``release``.

    While it is held its lease is kept by the broker side; nobody else gets it unless the connection is lost for longer
    than the lease, and then the terminal event's compare-and-set (NATS) or the fenced transaction (Kafka) lets only one
    answer through. Every method may be cancelled; what was not confirmed then happens again after redelivery.
    """

    body: bytes
    headers: Mapping[str, str]
    origin: RequestOrigin
    redelivered: bool
    """False only if the broker surely hands it out for the first time: then nothing of it can be in any ComfyUI.

    Read it after ``claim``, which may find the traces of an earlier delivery.
    """
    nearly_done: bool
    """The holder sets it when only outputs have to be stored: a rebalance on Kafka waits a bounded time for it."""
    lost: Lost
    """Set when the delivery was taken away: stop, publish nothing, ``release`` it.

    On Kafka by a rebalance. On NATS when ``store`` finds that an earlier submission of the id has taken the claim over,
    or that somebody else has answered; a later ``settle`` then only acknowledges.
    """

    async def claim(self, key: RequestKey) -> tuple[Claim, Tries]:
        """Claim the key for this message and read what earlier deliveries of it left.

        The first submission wins: for a key that another message holds or that is answered the claim is ``ANSWERED``.
        Waits through trouble with the broker, which shows in ``health``; cancelled, nothing is decided.

        Raises:
            BrokerUnavailable: Nothing was decided; release or try again (Kafka; NATS waits).
        """

    async def store(self, tries: Tries) -> None:
        """Write the ledger's record of the claimed key, confirmed; see ``lost`` for what it may find.

        Raises:
            BrokerUnavailable: It may or may not be stored.
            BrokerRefused: It is not stored, and an operator has to act.
        """

    async def settle(self, event: Message, letter: Letter | None = None) -> bool:
        """End the request: dead letter if given, then the terminal event, then the acknowledgement, each confirmed.

        The acknowledgement alone is given up when the broker does not know the delivery any more (its consumer was made
        anew): the request then comes again and is found answered.
        Waits through outages of the broker as long as it takes. Returns False when a terminal event of this key was
        stored by somebody else before; then nothing was published and the request is settled all the same.

        Raises:
            MessageTooLarge: The event does not fit the broker; nothing was published.
        """

    async def drop(self) -> None:
        """Settle without an event, for a claim that was ``ANSWERED``."""

    async def retry(self, delay_s: float, tries: Tries) -> None:
        """Store the record and have the request delivered again after the delay; frees the slot at once."""

    async def release(self) -> None:
        """Hand back at once, untouched; never raises on a lost connection (the lease then runs out by itself)."""


@dataclass(frozen=True)
class Health:
    """Whether requests can be taken and answers be published; ``reason`` is a sentence when they cannot."""

    ok: bool
    reason: str = ""


@dataclass(frozen=True)
class CommandMessage:
    """One message of the control channel.

    Attributes:
        body: JSON.
        published_at: The broker's time.
        fresh: It stands behind the channel's end as it was at the start.
    """

    body: bytes
    published_at: datetime
    fresh: bool


class Bus(Protocol):
    """The worker's connection to its broker."""

    @property
    def max_message_bytes(self) -> int:
        """Largest body plus headers that the broker takes."""

    def open(self) -> AbstractAsyncContextManager[Any]:
        """Connect, create what is missing, keep leases and connection until the block ends.

        Raises:
            BrokerUnavailable: The broker cannot be reached.
            BrokerRefused: It is too old, or something is missing that may not be created; one line says what.
        """

    async def take(self, wait_s: float) -> Delivery | None:
        """The next request, or None when none came within the time. Ask only with a free slot.

        Never raises on trouble with the broker: it is logged once, shows in ``health`` and heals by itself.
        """

    async def publish(self, message: Message) -> None:
        """Publish on a side channel, at most once and without waiting; trouble is counted, never raised."""

    async def last_headers(self, message: Message) -> Mapping[str, str] | None:
        """Headers of the last message kept of the same channel and parts, in the broker's own spelling.

        None when there is none, when the broker cannot tell at little cost, or is in trouble.
        """

    def commands(self) -> AsyncIterator[CommandMessage]:
        """Commands of the last 24 hours in order, then the new ones for ever; heard by every worker.

        For one reader. Never raises on trouble with the broker: it shows in ``health`` and heals by itself.
        """

    @property
    def commands_read(self) -> anyio.Event:
        """Set when the commands that stood in the channel at the start have been handed out."""

    def health(self) -> Health:
        """The state of the connection and of all that is needed to take and answer requests."""

    @property
    def counts(self) -> BusCounts:
        """What happened so far."""

    @property
    def dropped_messages(self) -> int:
        """Side messages that were not published."""

    async def oldest_waiting(self) -> datetime | None:
        """When the oldest request that nobody was given yet was published; None when none waits.

        On Kafka of the partitions of this worker. Also None when the broker cannot tell.
        """

    def size_bytes(self, message: Message) -> int:
        """What a message counts against ``max_message_bytes``: body and encoded headers."""
