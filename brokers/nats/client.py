"""The side of producers and consumers on NATS: send requests and commands, follow events, look after dead letters.

Used by its folder's ``__init__``; may import brokers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from nats.js.errors import NotFoundError

from brokers.base import BrokerRefused
from brokers.channels import Channel
from brokers.client import Check, DeadLetter, EventMessage, check_request_id, newest_letter
from brokers.nats import checks, dlq, follow
from brokers.nats.connection import NatsConfig
from brokers.nats.headers import can_be_sent, safe
from brokers.nats.letters import MESSAGE_ID
from brokers.nats.link import Link, api_subject
from brokers.nats.objects import NatsObjects, parse_url

__all__ = ["NatsClient"]

LIFE_SIGNS = ("started", "heartbeat", "stopped")


class NatsClient:
    """See ``brokers.client.Client``."""

    def __init__(self, config: NatsConfig) -> None:
        """Prepare; nothing is connected before ``open``.

        Args:
            config: Where NATS is and what the channels are called.
        """
        self._config = config
        self._names = config.names
        self.link = Link(config)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[NatsClient]:
        """Connect, and stay connected until the block ends; see the protocol."""
        async with self.link.open():
            yield self

    # --- sending

    async def submit(
        self, body: bytes, headers: Mapping[str, str] | None = None, *, request_id: str, message_id: str | None = None
    ) -> None:
        """Send a request; see the protocol. The id plays no part on NATS but in checking it."""
        check_request_id(request_id)
        sent = {name: safe(value) for name, value in (headers or {}).items()}
        if wrong := [name for name in sent if not can_be_sent(name)]:
            raise BrokerRefused(f"{wrong[0]!r} is no name of a header; use letters, digits and hyphens")
        if message_id is not None:
            sent[MESSAGE_ID] = message_id
        await self.link.store("send the request", self._names.subject(Channel.REQUEST), body, sent)

    async def command(self, body: bytes) -> None:
        """Send a command; see the protocol."""
        await self.link.store("send the command", self._names.subject(Channel.CONTROL), body, {})

    # --- events

    def follow(self, request_id: str, *, replay: int = 0) -> AbstractAsyncContextManager[AsyncIterator[EventMessage]]:
        """Progress of one prompt, then its terminal event; see the protocol."""
        check_request_id(request_id)
        return follow.prompt(self.link, request_id, replay)

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[EventMessage]]:
        """All events from now on; see the protocol."""
        return follow.everything(self.link)

    def signs(self) -> AbstractAsyncContextManager[AsyncIterator[EventMessage]]:
        """Worker and progress events from now on; see the protocol."""
        return follow.signs(self.link)

    async def last_terminal(self, request_id: str) -> EventMessage | None:
        """The stored terminal event of an id; see the protocol."""
        check_request_id(request_id)
        return await follow.last_terminal(self.link, request_id)

    async def workers(self) -> list[EventMessage]:
        """The last sign of life of each worker; see the protocol."""
        return await self._last_of_each(LIFE_SIGNS)

    async def inventories(self) -> list[EventMessage]:
        """The last list of models of each worker; see the protocol."""
        return await self._last_of_each(("models",))

    async def _last_of_each(self, events: Collection[str]) -> list[EventMessage]:
        stream = self._names.event_stream
        everyone = self._names.subject(Channel.WORKER, "*", "*")
        with self.link.doing("look for workers", api_subject(f"STREAM.INFO.{stream}")):
            try:
                info = await self.link.js.stream_info(stream, subjects_filter=everyone)
            except NotFoundError:
                return []
        latest: dict[str, tuple[int, EventMessage]] = {}
        for subject in info.state.subjects or {}:
            worker, event = subject.split(".")[-2:]
            if event not in events:
                continue
            message = await self.link.read("look for workers", stream, last_by_subj=subject)
            if message is not None and message.sequence > latest.get(worker, (0, None))[0]:
                latest[worker] = (message.sequence, EventMessage(Channel.WORKER, message.data, message.headers))
        return [event for _, (_, event) in sorted(latest.items())]

    # --- dead letters

    def dead_letters(self) -> AsyncIterator[DeadLetter]:
        """Every letter that is kept; see the protocol."""
        return dlq.letters(self.link)

    async def letter(self, request_id: str) -> DeadLetter | None:
        """The newest letter of an id; see the protocol."""
        return await newest_letter(dlq.letters(self.link), request_id)

    async def replay(self, letter: DeadLetter) -> int:
        """Run a letter again; see the protocol. The letter is removed once the request is stored."""
        return await dlq.replay(self.link, letter)

    # --- the rest

    def objects(self, bucket: str) -> NatsObjects:
        """An object store bucket; made here, it keeps its objects as long as terminal events."""
        return NatsObjects(self.link, bucket, self._config.result_retention_h * 3600)

    async def fetch_object(self, url: str, path: Path) -> None:
        """Write the object behind a ``nats://`` URL to a file; see the protocol."""
        bucket, key = parse_url(url)
        await self.objects(bucket).get(key, path)

    async def check(self) -> list[Check]:
        """Look at the server; see the protocol."""
        return await checks.check(self.link, self._config)
