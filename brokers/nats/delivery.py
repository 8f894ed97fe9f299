"""One request from the work queue: its lease, its claim and the order in which it is settled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import anyio
import nats.errors
import structlog
from nats.aio.msg import Msg

from brokers.base import BrokerError, Claim, Letter, Message, RequestKey, RequestOrigin, Tries
from brokers.nats.connection import foreign_errors
from brokers.nats.ledger import ClaimLost, Held
from schemas.events import RequestSource

if TYPE_CHECKING:
    from brokers.nats.bus import NatsBus

__all__ = ["NatsDelivery"]

ACK_TIMEOUT_S = 5.0

log = structlog.get_logger("comfybus.nats")


class NatsDelivery:
    """See ``brokers.base.Delivery``. The bus renews the lease until one of the settling methods is entered."""

    def __init__(self, bus: NatsBus, message: Msg) -> None:
        self._bus = bus
        self._held: Held | None = None
        self.message = message
        self.lost = anyio.Event()
        self.body: bytes = message.data
        self.headers: Mapping[str, str] = message.headers or {}
        metadata = message.metadata
        self.sequence: int = metadata.sequence.stream
        self.origin = RequestOrigin(
            RequestSource(stream=metadata.stream, sequence=self.sequence), published_at=metadata.timestamp
        )

    async def claim(self, key: RequestKey) -> tuple[Claim, Tries]:
        """Claim the key for this message; see the protocol."""
        claim, self._held = await self._bus.ledger.claim(key, self.sequence)
        return claim, self._held.tries if self._held else Tries()

    async def store(self, tries: Tries) -> None:
        """Write the record of the claimed key; see the protocol."""
        try:
            await self._bus.ledger.store(self._claimed(), tries)
        except ClaimLost:
            # An earlier submission of the id has it now: what we still do cannot become an answer.
            self.lost.set()

    def _claimed(self) -> Held:
        if self._held is None:
            raise RuntimeError("a delivery must be claimed before anything is written for it")
        return self._held

    async def settle(self, event: Message, letter: Letter | None = None) -> bool:
        """Letter, event, acknowledgement, in this order and each confirmed; see the protocol."""
        key = self._claimed().key
        self._bus.check_size(event)
        if letter is not None:
            await self._bus.insist("publish a dead letter", lambda: self._bus.post_letter(self, letter))
        stored = await self._bus.insist("publish a terminal event", lambda: self._bus.answer(key, event))
        await self.drop()
        return stored

    async def drop(self) -> None:
        """Acknowledge, confirmed, then forget the claim; see the protocol."""
        await self._bus.insist("acknowledge a request", self._ack)
        self._bus.let_go(self)
        if self._held is not None:
            try:
                await self._bus.ledger.remove(self._held)
            except BrokerError as exc:
                log.info("claim left for the sweep", request_id=self._held.key.id, reason=str(exc))

    async def _ack(self) -> None:
        with foreign_errors("acknowledge a request"):
            try:
                await self.message.ack_sync(timeout=ACK_TIMEOUT_S)
            except nats.errors.MsgAlreadyAckdError:
                return
            except nats.errors.NoRespondersError:
                # The durable was deleted. The next one delivers the request again, and its answer will be found.
                log.warning("acknowledgement went nowhere: the consumer is gone", origin=str(self.origin))

    async def retry(self, delay_s: float, tries: Tries) -> None:
        """Store the record, then let the server deliver again after the delay; see the protocol."""
        await self._bus.insist("store a failed try", lambda: self.store(tries))
        await self._give_back(delay_s)

    async def release(self) -> None:
        """Let the server deliver again at once; see the protocol."""
        await self._give_back(None)

    async def _give_back(self, delay_s: float | None) -> None:
        self._bus.let_go(self)
        try:
            await self.message.nak(delay=delay_s)
            await self._bus.flush()
        except (nats.errors.Error, TimeoutError) as exc:
            # Not a loss: the lease runs out and the server delivers it again.
            log.info("request comes back when its lease ends", origin=str(self.origin), reason=type(exc).__name__)

    async def renew(self) -> None:
        """Renew the lease; trouble is left to the next renewal."""
        try:
            await self.message.in_progress()
        except nats.errors.Error as exc:
            log.debug("lease not renewed", origin=str(self.origin), reason=type(exc).__name__)
