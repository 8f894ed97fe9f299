"""One request from the work queue: its lease, its claim and the order in which it is settled.

Used by bus, letters; may import brokers, schemas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import anyio
import nats.errors
import structlog
from nats.aio.msg import Msg

from brokers.base import BrokerError, BrokerUnavailable, Claim, Letter, Message, RequestKey, RequestOrigin, Tries
from brokers.lost import Lost
from brokers.nats.ledger import ClaimLost, Held, Place
from brokers.nats.pull import NAK
from schemas.events import RequestSource

if TYPE_CHECKING:
    from brokers.nats.bus import NatsBus

__all__ = ["NatsDelivery"]

ACK = b"+ACK"
IN_PROGRESS = b"+WPI"
ACK_TIMEOUT_S = 2.0
# A consumer that was made anew confirms nothing before it has delivered the request again.
ACK_TRIES = 3
ACK_PAUSE_S = 0.5
HAND_BACK_S = 2.0

log = structlog.get_logger("comfybus.nats")


class NatsDelivery:
    """See ``brokers.base.Delivery``. The bus renews the lease until one of the settling methods ends."""

    def __init__(self, bus: NatsBus, message: Msg) -> None:
        self._bus = bus
        self._link = bus.link
        self._held: Held | None = None
        self._reply: str = message.reply
        self.lost = Lost()
        self.body: bytes = message.data
        self.headers: Mapping[str, str] = message.headers or {}
        metadata = message.metadata
        self.redelivered: bool = metadata.num_delivered > 1
        self.nearly_done = False
        self.place = Place(metadata.sequence.stream, metadata.timestamp)
        self.origin = RequestOrigin(
            RequestSource(stream=metadata.stream, sequence=self.place.sequence), published_at=metadata.timestamp
        )

    def delivered_again(self, message: Msg) -> None:
        """The lease ran out in an outage and the request came back to us: go on under the new delivery."""
        self._reply = message.reply

    async def claim(self, key: RequestKey) -> tuple[Claim, Tries]:
        """Claim the key for this request; see the protocol."""
        claim, self._held = await self._bus.insist("claim a request", lambda: self._bus.ledger.claim(key, self.place))
        # A consumer that was made anew counts deliveries from one again; who was here before left an entry.
        self.redelivered = self.redelivered or bool(self._held and self._held.found)
        return claim, self._held.tries if self._held else Tries()

    async def store(self, tries: Tries) -> None:
        """Write the record of the claimed key; see the protocol."""
        try:
            await self._bus.ledger.store(self._claimed(), tries)
        except ClaimLost:
            # Another submission has the claim now, or the answer is stored: what we still do cannot become one.
            self.lost.set()

    def _claimed(self) -> Held:
        if self._held is None:
            raise RuntimeError("a delivery must be claimed before anything is written for it")
        return self._held

    async def settle(self, event: Message, letter: Letter | None = None) -> bool:
        """Letter, event, acknowledgement, in this order and each confirmed; see the protocol."""
        held = self._claimed()
        self._bus.check_size(event)
        if not held.entry.firm:
            # Without a word in the ledger an earlier submission could still take the claim over, between our answer's
            # check and its own.
            await self._bus.insist("claim a request", lambda: self.store(held.tries))
        stored = False
        if not self.lost.is_set():
            if letter is not None:
                await self._bus.insist("publish a dead letter", lambda: self._bus.letters.post(self, letter))
            stored = await self._bus.insist("publish a terminal event", lambda: self._bus.answer(held.key, event))
        await self.drop()
        return stored

    async def drop(self) -> None:
        """Acknowledge, confirmed, then forget the claim; see the protocol."""
        acknowledged = await self._acknowledge()
        self._bus.let_go(self)
        if acknowledged and self._held is not None and not self.lost.is_set():
            try:
                await self._bus.ledger.remove(self._held)
            except BrokerError as exc:
                log.info("claim left for the sweep", request_id=self._held.key.id, reason=str(exc))

    async def _acknowledge(self) -> bool:
        """Whether the request is out of the work queue; if not it comes again, and is found answered."""
        for _ in range(ACK_TRIES):
            if await self._bus.insist("acknowledge a request", self._ack):
                return True
            await anyio.sleep(ACK_PAUSE_S)
        log.warning("request not acknowledged, it will be delivered again", origin=str(self.origin))
        return False

    async def _ack(self) -> bool:
        """Acknowledge once; False when the consumer does not know the delivery although the request is there."""
        if await self._is_gone():
            return True
        try:
            with self._link.doing("acknowledge a request", self._reply):
                await self._link.client.request(self._reply, ACK, timeout=ACK_TIMEOUT_S)
        except BrokerUnavailable:
            if not self._link.is_connected:
                raise
            return not await self._bus.ledger.waits(self.place)
        return True

    async def _is_gone(self) -> bool:
        """Whether the work queue was made anew since: an acknowledgement would hit a stranger of the same number."""
        return await self._bus.ledger.made_anew_since(self.place) and not await self._bus.ledger.waits(self.place)

    async def retry(self, delay_s: float, tries: Tries) -> None:
        """Store the record, then let the server deliver again after the delay; see the protocol."""
        await self._bus.insist("store a failed try", lambda: self.store(tries))
        await self._give_back(NAK + b" " + json.dumps({"delay": int(delay_s * 1e9)}).encode())

    async def release(self) -> None:
        """Let the server deliver again at once; see the protocol."""
        await self._give_back(NAK)

    async def _give_back(self, how: bytes) -> None:
        self._bus.let_go(self)
        try:
            with self._link.doing("hand back a request", self._reply):
                await self._link.client.request(self._reply, how, timeout=HAND_BACK_S)
        except BrokerError as exc:
            # Not a loss: the lease runs out and the server delivers it again.
            log.info("request comes back when its lease ends", origin=str(self.origin), reason=str(exc))

    async def renew(self) -> None:
        """Renew the lease; trouble is left to the next renewal."""
        try:
            await self._link.client.publish(self._reply, IN_PROGRESS)
        except nats.errors.Error as exc:
            log.debug("lease not renewed", origin=str(self.origin), reason=type(exc).__name__)
