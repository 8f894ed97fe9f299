"""The control channel: the stream is the truth, a plain subscription only says when to look.

Commands are read from the stream by sequence, so each is handed out once and in order, whatever happens to the
connection. FastStream's subscription on the same subject wakes the reader; a clock does too, for what it missed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import structlog
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from brokers.base import BrokerError, CommandMessage
from brokers.channels import Channel, Names
from brokers.nats.connection import foreign_errors

__all__ = ["Commands"]

# A message may be heard a moment before the stream has it.
LOOKS_AFTER_A_WAKE_S = (0.0, 0.05, 0.25, 1.0)
IDLE_LOOK_S = 10.0

log = structlog.get_logger("comfybus.nats.control")


class Commands:
    """Reads the control stream from its beginning (24 h) and follows it for ever."""

    def __init__(self, js: JetStreamContext, names: Names) -> None:
        self._js = js
        self._names = names
        self._woken = anyio.Event()
        self.read_back = anyio.Event()

    def wake(self) -> None:
        """There may be a new command."""
        self._woken.set()

    async def follow(self) -> AsyncIterator[CommandMessage]:
        """Yield every command; never ends and never raises on trouble with the broker."""
        position: int | None = None
        end = 0
        while True:
            try:
                if position is None:
                    position, end = await self._bounds()
                async for sequence, command in self._behind(position, end):
                    position = sequence
                    yield command
            except BrokerError as exc:
                log.warning("commands cannot be read", reason=str(exc))
            else:
                self.read_back.set()
            await self._pause()

    async def _bounds(self) -> tuple[int, int]:
        with foreign_errors("look at the control stream"):
            state = (await self._js.stream_info(self._names.control_stream)).state
        return max(state.first_seq - 1, 0), state.last_seq

    async def _behind(self, position: int, end: int) -> AsyncIterator[tuple[int, CommandMessage]]:
        while True:
            with foreign_errors("read the control stream"):
                try:
                    message = await self._js.get_msg(
                        self._names.control_stream,
                        seq=position + 1,
                        subject=self._names.subject(Channel.CONTROL),
                        next=True,
                    )
                except NotFoundError:
                    return
            position = message.seq or position + 1
            if message.time is None:
                continue
            yield position, CommandMessage(message.data or b"", published_at=message.time, fresh=position > end)

    async def _pause(self) -> None:
        """Wait for a wake-up or the clock; after a wake-up look again a few times."""
        if self._woken.is_set():
            self._woken = anyio.Event()
            self._looks = iter(LOOKS_AFTER_A_WAKE_S)
        delay = next(getattr(self, "_looks", iter(())), IDLE_LOOK_S)
        with anyio.move_on_after(delay):
            await self._woken.wait()
