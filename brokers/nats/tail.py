"""Reading a stream message by message: each is handed out once and in order, whatever happens to the connection.

Used by commands, follow, brokers.nats.webhooks.letters; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime

from nats.js.errors import NotFoundError

from brokers.nats.errors import StreamMissing
from brokers.nats.link import Link, api_subject
from brokers.nats.stored import StoredMessage

__all__ = ["Tail"]


class Tail:
    """Remembers how far one reader has read."""

    def __init__(self, link: Link, stream: str, subject: str, *, from_now: bool = False) -> None:
        """Prepare.

        Args:
            link: The open connection.
            stream: Which stream.
            subject: Which of its messages; wildcards are allowed.
            from_now: Leave out what stands in the stream at the first look.
        """
        self._link = link
        self._stream = stream
        self._subject = subject
        self._from_now = from_now
        self._created: datetime | None = None
        self._position = 0
        self.end = 0
        """The stream's last sequence at the first look; 0 once it was made anew: then all of it came later."""

    async def find_bounds(self) -> None:
        """See where to begin; anew when the stream was deleted and made anew, and counts from one again.

        Raises:
            BrokerUnavailable: No answer, or the stream is missing.
            BrokerRefused: A permission is missing.
        """
        with self._link.doing(f"look at the stream {self._stream}", api_subject(f"STREAM.INFO.{self._stream}")):
            try:
                info = await self._link.js.stream_info(self._stream)
            except NotFoundError as exc:
                raise StreamMissing(f"the stream {self._stream} is missing; a worker creates it") from exc
        if info.created == self._created:
            return
        first = self._created is None
        self._created = info.created
        self.end = info.state.last_seq if first else 0
        self._position = self.end if self._from_now else 0

    async def new(self) -> AsyncGenerator[StoredMessage, None]:
        """Yield what came since the last look, then end; a message counts as read when the next one is asked for.

        Raises:
            BrokerUnavailable: As ``find_bounds``; what was read stays read.
            BrokerRefused: As ``find_bounds``.
        """
        await self.find_bounds()
        what = f"read the stream {self._stream}"
        while message := await self._link.read(what, self._stream, seq=self._position + 1, next_by_subj=self._subject):
            self._position = message.sequence
            yield message
