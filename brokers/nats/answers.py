"""Terminal events: one per (id, replay), whoever else tries at the same moment.

Used by bus, ledger; may import brokers.

Both outcomes of an id lie in one stream, and each is stored by one compare-and-set over both subjects: the expected
sequence is that of the last terminal event of the id, or none. A plain subscriber may hear an event that lost; what the
stream holds is the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from brokers.base import BrokerUnavailable, Message, RequestKey
from brokers.nats import headers
from brokers.nats.link import Conflict, Link

__all__ = ["EXPECTED", "Answers", "StoredAnswer"]

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SUBJECT = f"{EXPECTED}-Subject"
# By these an event that is stored is known as the one we sent.
FINGERPRINT = ("id", "source", "time")
# Each conflict means that somebody stored an event at the same moment.
CONFLICTS = 10


@dataclass(frozen=True)
class StoredAnswer:
    """A terminal event that is stored: its place, its replay, and what it is known by."""

    sequence: int
    replay: int
    fingerprint: tuple[str, ...]


class Answers:
    """Reads and writes terminal events."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._names = link.names

    async def find(self, key: RequestKey) -> StoredAnswer | None:
        """The terminal event of this replay of the id or of a later one."""
        stored = await self._last(key.id)
        return stored if stored is not None and stored.replay >= key.replay else None

    async def _last(self, request_id: str) -> StoredAnswer | None:
        message = await self._link.read(
            "look for a terminal event", self._names.result_stream, last_by_subj=self._names.of_prompt(request_id)
        )
        if message is None:
            return None
        found = {name.lower(): value for name, value in message.headers.items()}
        replay = found.get("ce-id", "").rpartition("/")[2]
        fingerprint = tuple(found.get(f"ce-{name}", "") for name in FINGERPRINT)
        return StoredAnswer(message.sequence, int(replay) if replay.isdecimal() else 0, fingerprint)

    def headers(self, event: Message, expected: int = 2**64 - 1) -> dict[str, str]:
        """Everything a terminal event is sent with; by default as large as it can become."""
        return {
            **headers.for_message(event),
            EXPECTED: str(expected),
            EXPECTED_SUBJECT: self._names.of_prompt(event.parts[0]),
        }

    async def store(self, key: RequestKey, event: Message) -> bool:
        """Store the event, confirmed, unless one of this or a later replay is stored; True when ours is the one.

        Raises:
            MessageTooLarge: It does not fit.
            BrokerUnavailable: It may or may not be stored; to try again is safe.
            BrokerRefused: It is not stored.
        """
        last = await self._last(key.id) if key.replay else None
        fingerprint = tuple(headers.safe(event.attributes.get(name, "")) for name in FINGERPRINT)
        for _ in range(CONFLICTS):
            if last is not None and last.replay >= key.replay:
                # Ours, when the confirmation of an earlier try was lost.
                return last.fingerprint == fingerprint
            try:
                await self._link.store(
                    "publish a terminal event",
                    self._names.subject(event.channel, *event.parts),
                    event.body,
                    self.headers(event, last.sequence if last else 0),
                )
            except Conflict:
                last = await self._last(key.id)
            else:
                return True
        raise BrokerUnavailable(f"the terminal event of {key.id} changed {CONFLICTS} times in a row")
