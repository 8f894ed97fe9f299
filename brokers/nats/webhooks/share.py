"""One share of the queue: reads its records as they are stored, changes and settles them.

Used by bus, letters; may import brokers, brokers.nats.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable

import anyio

from brokers.nats.link import Conflict, Link
from brokers.nats.stored import StoredMessage
from brokers.nats.trouble import Troubles
from brokers.nats.webhooks.layout import WebhookNames
from brokers.nats.webhooks.patience import Patience, delete
from brokers.webhook_shares import HeldShare
from brokers.webhooks import Waiting

__all__ = ["BRIDGE", "EXPECTED", "NatsShare"]

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
# Who wrote a record: of what it wrote itself a bridge need not hear.
BRIDGE = "comfybus-bridge"
READING = "read webhook deliveries"
CHANGING = "change a webhook delivery"
LOOKS_AFTER_HEARING_S = (0.05, 0.25, 1.0)
IDLE_LOOK_S = 5.0


class NatsShare(HeldShare):
    """See ``brokers.webhooks.Share``."""

    def __init__(
        self,
        link: Link,
        own: WebhookNames,
        troubles: Troubles,
        number: int,
        bridge: str,
        is_safe: Callable[[int], bool],
    ) -> None:
        """Prepare.

        Args:
            link: The open connection.
            own: Names.
            troubles: What is wrong with the broker.
            number: Of the share.
            bridge: Whose it is.
            is_safe: Whether nobody else can have the share by now.
        """
        super().__init__(number)
        self._link = link
        self._own = own
        self._patience = Patience(link, troubles)
        self._is_safe = is_safe
        self._woken = anyio.Event()
        self._looks_s = list[float]()
        self._bridge = bridge

    @property
    def is_ours(self) -> bool:
        """Whether the lease is young enough; see the protocol."""
        return self._is_safe(self.number)

    def wake(self, *, heard: bool = False) -> None:
        """There is a new or changed record.

        Args:
            heard: It was heard, not confirmed: it may reach the stream a moment later.
        """
        if heard:
            self._looks_s = list(LOOKS_AFTER_HEARING_S)
        self._woken.set()

    # --- reading

    async def read(self) -> AsyncGenerator[Waiting | None, None]:
        """Every record, then every change; see the protocol.

        A stream that is deleted and made anew counts from one again; the lease lies in it too, so that this share is
        lost with it.
        """
        subject, position, loaded = self._own.due_of_share(self.number), 0, False
        while True:
            message = await self._read(seq=position + 1, next_by_subj=subject)
            if message is not None:
                position = message.sequence
                yield self._waiting(message)
                continue
            if not loaded:
                loaded = True
                yield None
            with anyio.move_on_after(self._looks_s.pop(0) if self._looks_s else IDLE_LOOK_S):
                await self._woken.wait()
            self._woken = anyio.Event()

    async def read_lane(self, lane: str, after: int) -> AsyncIterator[Waiting]:
        """The records of one lane; see the protocol."""
        subject, position = self._own.due(lane, "*"), after
        while True:
            message = await self._read(seq=position + 1, next_by_subj=subject)
            if message is None:
                return
            position = message.sequence
            yield self._waiting(message)

    async def find(self, lane: str, delivery_id: str) -> Waiting | None:
        """The record as it is; see the protocol."""
        message = await self._read(last_by_subj=self._own.due(lane, delivery_id))
        return self._waiting(message) if message is not None else None

    async def body(self, delivery_id: str) -> bytes | None:
        """What is to be sent; see the protocol."""
        message = await self._read(last_by_subj=self._own.subject("body", delivery_id))
        return message.data if message is not None else None

    async def stopped(self, endpoint: str) -> bytes | None:
        """The mark of an endpoint; see the protocol."""
        message = await self._read(last_by_subj=self._own.subject("gone", endpoint))
        return message.data if message is not None else None

    async def _read(self, **query: int | str) -> StoredMessage | None:
        return await self._patience.insist(READING, lambda: self._link.read(READING, self._own.stream, **query))

    def _waiting(self, message: StoredMessage) -> Waiting:
        _, lane, delivery = self._own.parse_due(message.subject)
        return Waiting(delivery, lane, message.sequence, message.data)

    # --- changing

    async def defer(self, waiting: Waiting, record: bytes) -> Waiting | None:
        """Write the record anew; see the protocol."""
        subject = self._own.due(waiting.lane, waiting.id)

        async def write() -> int:
            headers = {EXPECTED: str(waiting.token), BRIDGE: self._bridge}
            return await self._link.store(CHANGING, subject, record, headers)

        try:
            token = await self._patience.insist(CHANGING, write)
        except Conflict:
            # Ours, when the confirmation of an earlier try was lost.
            found = await self.find(waiting.lane, waiting.id)
            return found if found is not None and found.record == record else None
        return Waiting(waiting.id, waiting.lane, token, record)

    async def settle(self, waiting: Waiting) -> None:
        """Delete the record, then the body; see the protocol."""
        if await self._delete(waiting.token):
            await self._patience.insist(CHANGING, lambda: self._purge(self._own.subject("body", waiting.id)))

    async def _purge(self, subject: str) -> None:
        with self._link.doing(CHANGING, "$JS.API.STREAM.PURGE."):
            await self._link.js.purge_stream(self._own.stream, subject=subject)

    async def give_up(self, waiting: Waiting, letter: bytes) -> None:
        """Store the letter, delete the record; see the protocol. The body stays where it is, for a replay."""
        await self._write(self._own.subject("dlq", waiting.id), letter)
        await self._delete(waiting.token)

    async def stop(self, endpoint: str, note: bytes) -> None:
        """Store the mark; see the protocol."""
        await self._write(self._own.subject("gone", endpoint), note)

    async def _write(self, subject: str, body: bytes) -> None:
        await self._patience.insist(CHANGING, lambda: self._link.store(CHANGING, subject, body, {}))

    async def _delete(self, sequence: int) -> bool:
        return await self._patience.insist(CHANGING, lambda: delete(self._link, CHANGING, self._own.stream, sequence))
