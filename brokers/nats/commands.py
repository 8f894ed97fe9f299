"""The control channel, read back for as long as the stream keeps it and then followed.

Used by bus; may import brokers.

The stream is the truth, a plain subscription only says when to look: a missed wake-up costs seconds, no command.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import anyio

from brokers.base import BrokerError, CommandMessage
from brokers.channels import Channel
from brokers.nats.link import Link
from brokers.nats.tail import Tail
from brokers.nats.trouble import Troubles

__all__ = ["Commands"]

DOING = "read the commands"
# A message may be heard a moment before the stream has it.
LOOKS_AFTER_A_WAKE_S = (0.05, 0.25, 1.0)
IDLE_LOOK_S = 5.0


class Commands:
    """Hands out every command once and in order. For one reader."""

    def __init__(self, link: Link, troubles: Troubles) -> None:
        self._tail = Tail(link, link.names.control_stream, link.names.subject(Channel.CONTROL))
        self._troubles = troubles
        self._woken = anyio.Event()
        self.read_back = anyio.Event()

    def wake(self) -> None:
        """There may be a new command."""
        self._woken.set()

    async def follow(self) -> AsyncIterator[CommandMessage]:
        """Yield every command; never ends and never raises on trouble with the broker."""
        waits_s = list[float]()
        while True:
            try:
                async with aclosing(self._tail.new()) as messages:
                    async for message in messages:
                        fresh = message.sequence > self._tail.end
                        yield CommandMessage(message.data, published_at=message.time, fresh=fresh)
            except BrokerError as exc:
                self._troubles.report(DOING, exc)
            else:
                self.read_back.set()
                self._troubles.over(DOING)
            with anyio.move_on_after(waits_s.pop(0) if waits_s else IDLE_LOOK_S):
                await self._woken.wait()
                # A wake-up from here on, also while reading, is for the look after the next one.
                self._woken = anyio.Event()
                waits_s = list(LOOKS_AFTER_A_WAKE_S)
