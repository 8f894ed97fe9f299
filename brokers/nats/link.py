"""One connection to NATS that outlives every outage, and the confirmed operations the rest is built from.

Used by most of its folder, brokers.nats.webhooks; may import brokers.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import anyio
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext

from brokers.base import BrokerError, BrokerRefused, BrokerUnavailable, MessageTooLarge
from brokers.counts import BusCounts
from brokers.nats.connection import MINIMUM_SERVER, NatsConfig, make_broker
from brokers.nats.errors import FOREIGN, NO_MESSAGE, STREAM_MISSING, WRONG_LAST_SEQUENCE, translated
from brokers.nats.headers import HEADERS_LIMIT_BYTES, encoded_size
from brokers.nats.lasting import LastingBroker
from brokers.nats.stored import StoredMessage, from_leader

__all__ = ["Conflict", "Link", "api_subject"]

CONFIRM_TIMEOUT_S = 5.0
FAREWELL_S = 3.0
LOOK_EVERY_S = 0.5

log = structlog.get_logger("comfybus.nats")


class Conflict(Exception):
    """A compare-and-set lost: the subject's last sequence is not the expected one."""


def api_subject(request: str) -> str:
    """The subject of a request to JetStream."""
    return f"$JS.API.{request}"


@dataclass(eq=False)
class _Attempt:
    """Something asked of the server and not answered yet."""

    subjects: tuple[str, ...]
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    denied: str = ""

    def deny(self, what: str) -> None:
        """The server denies a permission, and says for which subject, in lower case.

        Who may not listen at an inbox gets no answer to anything.
        """
        if what.startswith('subscription to "_inbox.') or any(f'"{subject}' in what for subject in self.subjects):
            self.denied = what
            self.scope.cancel()


class Link:
    """A connection with its JetStream context; both stay the same objects through every reconnect."""

    def __init__(self, config: NatsConfig) -> None:
        self.config = config
        self.names = config.names
        self.client: Client
        self.js: JetStreamContext
        self.on_restored: list[Callable[[], None]] = []
        self.counts = BusCounts()
        self._restored = anyio.Event()
        self._first_attempt = anyio.CancelScope()
        self._last_error: Exception | None = None
        self._refused = False
        self._in_use = False
        self._under_way: list[_Attempt] = []

    # --- life

    @asynccontextmanager
    async def open(self, heard: Mapping[str, Callable[[], Awaitable[None]]] | None = None) -> AsyncIterator[Link]:
        """Connect, and stay connected until the block ends.

        Args:
            heard: By subject, what to call when a message comes there; the message itself is not looked at.

        Raises:
            BrokerUnavailable: Nobody answers at the servers' addresses.
            BrokerRefused: The server refuses us or is older than ``MINIMUM_SERVER``.
        """
        broker = make_broker(
            self.config,
            {"error_cb": self._on_error, "disconnected_cb": self._on_lost, "reconnected_cb": self._on_restored},
        )
        for subject, handler in (heard or {}).items():
            # Whatever the message holds: it is only a hint to look.
            broker.subscriber(subject, decoder=_leave_undecoded, no_reply=True)(handler)
        try:
            await self._connect(broker)
            self.check_version()
            with self.doing("subscribe"):
                await broker.start()
            yield self
        finally:
            with anyio.CancelScope(shield=True):
                await self._close(broker)

    async def _connect(self, broker: LastingBroker) -> None:
        # With endless reconnects nats-py also waits without end for the first connection: hence the deadline.
        with anyio.move_on_after(self.config.first_connection_s) as self._first_attempt:
            try:
                await broker.connect()
            except FOREIGN as exc:
                raise BrokerRefused(f"NATS at {self.config.where}: {exc}; correct BROKER_URL") from exc
        if self._first_attempt.cancelled_caught:
            last = f" ({self._last_error})" if self._last_error else ""
            if self._refused:
                raise BrokerRefused(f"NATS at {self.config.where} refuses the connection{last}; check the credentials")
            raise BrokerUnavailable(
                f"NATS does not answer at {self.config.where}{last}; start it or correct BROKER_URL"
            )
        self.client = broker.connection
        self._in_use = True
        self.js = self.client.jetstream(timeout=CONFIRM_TIMEOUT_S)

    async def _close(self, broker: LastingBroker) -> None:
        self._in_use = False
        client: Client | None = getattr(self, "client", None)
        if client is None:
            return
        if client.is_connected:
            with anyio.move_on_after(FAREWELL_S), suppress(nats.errors.Error, TimeoutError):
                await client.flush(timeout=1)
        with anyio.move_on_after(FAREWELL_S), suppress(nats.errors.Error, OSError):
            await client.close()
        # After the close: before it FastStream would drain, which hangs while the connection is lost. Now it finds
        # everything ended, and says so by raising.
        with suppress(nats.errors.Error, ExceptionGroup):
            await broker.stop()

    def check_version(self) -> None:
        """Raise unless the server we are connected to keeps the promise of one answer.

        Raises:
            BrokerRefused: It is older than ``MINIMUM_SERVER``.
        """
        version = self.client.connected_server_version
        if (version.major, version.minor) < MINIMUM_SERVER:
            raise BrokerRefused(
                f"nats-server {version.major}.{version.minor}.{version.patch} at {self.config.where} is too old: "
                "it lets a request be answered twice; upgrade it to 2.11 or newer"
            )

    @property
    def is_connected(self) -> bool:
        """Whether the server is there right now, as far as we know."""
        return bool(self.client.is_connected)

    @property
    def max_message_bytes(self) -> int:
        """What the server takes, body and headers together."""
        return int(self.client.max_payload)

    async def wait_connected(self) -> None:
        """Return as soon as the server is there."""
        while not self.is_connected:
            with anyio.move_on_after(LOOK_EVERY_S):
                await self._restored.wait()

    async def _on_error(self, exc: Exception) -> None:
        text = str(exc) or type(exc).__name__
        self._last_error = exc if str(exc) else nats.errors.Error(text)
        if (denied := text.removeprefix("nats: permissions violation for ")) != text:
            for attempt in self._under_way:
                attempt.deny(denied)
        elif "authorization" in text.lower() or "authentication" in text.lower():
            self._refused = True
            self._first_attempt.cancel()
        log.debug("nats reports", error=type(exc).__name__, detail=text)

    async def _on_lost(self) -> None:
        for attempt in self._under_way:
            attempt.scope.cancel()
        if not self._in_use:
            return
        log.warning("connection to NATS lost", reason=str(self._last_error or "closed by the server"))

    async def _on_restored(self) -> None:
        log.info("connection to NATS restored")
        self.counts.reconnects += 1
        self._last_error = None
        # Each restoration has an event of its own: whoever waits next waits for the next one.
        restored, self._restored = self._restored, anyio.Event()
        restored.set()
        for call in self.on_restored:
            call()

    # --- operations

    @contextmanager
    def doing(self, what: str, *subjects: str) -> Iterator[None]:
        """Translate what goes wrong inside, and do not wait for an answer that cannot come any more.

        Raises at once when the connection is lost (nats-py would send later what is no longer wanted), when it gets
        lost meanwhile, and when the server denies the permission.

        Args:
            what: The beginning of the sentence in the error.
            subjects: What is sent to begins with one of these.
        """
        if not self.is_connected:
            raise BrokerUnavailable(f"{what}: the connection to NATS is lost; it is being restored")
        attempt = _Attempt(tuple(subject.lower() for subject in subjects))
        self._under_way.append(attempt)
        try:
            with attempt.scope:
                yield
        except BrokerError:
            raise
        except FOREIGN as exc:
            raise translated(what, exc) from exc
        finally:
            self._under_way.remove(attempt)
        if attempt.denied:
            raise BrokerRefused(f"{what}: the NATS user lacks a permission ({attempt.denied}); grant it")
        if attempt.scope.cancelled_caught:
            raise BrokerUnavailable(f"{what}: the connection to NATS was lost; it is being restored")

    async def store(self, what: str, subject: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Publish into a stream; returns the sequence once the server has confirmed it.

        Raises:
            MessageTooLarge: Body and headers do not fit; the server would have closed the connection over it.
            Conflict: The compare-and-set among the headers lost.
            BrokerUnavailable: It may or may not be stored.
            BrokerRefused: It is not stored.
        """
        of_headers = encoded_size(headers)
        if of_headers > HEADERS_LIMIT_BYTES:
            raise MessageTooLarge(of_headers, HEADERS_LIMIT_BYTES)
        if len(body) + of_headers > self.max_message_bytes:
            raise MessageTooLarge(len(body) + of_headers, self.max_message_bytes)
        with self.doing(what, subject):
            try:
                ack = await self.js.publish(subject, body, timeout=CONFIRM_TIMEOUT_S, headers=dict(headers) or None)
            except nats.js.errors.APIError as exc:
                if exc.err_code in WRONG_LAST_SEQUENCE:
                    raise Conflict from exc
                raise
        return int(ack.seq)

    async def read(self, what: str, stream: str, **query: Any) -> StoredMessage | None:
        """One message as the stream's leader has it, or None.

        Args:
            what: The beginning of the sentence in an error.
            stream: Where to look.
            query: ``seq``, ``last_by_subj``, or ``next_by_subj`` with the ``seq`` to begin at.

        Raises:
            BrokerUnavailable: No answer, or the stream is missing.
            BrokerRefused: The server refuses.
        """
        subject = api_subject(f"STREAM.MSG.GET.{stream}")
        with self.doing(what, subject):
            answer = await self._ask(subject, json.dumps(query).encode())
            if error := answer.get("error"):
                if error.get("err_code") == NO_MESSAGE:
                    return None
                raise nats.js.errors.APIError.from_error(error)
            return from_leader(answer["message"])

    async def created(self, what: str, stream: str) -> datetime | None:
        """When a stream was made; None when there is none. Raises as ``read`` does.

        Asked for every request that is settled, so without nats-py's model of all that the server says.
        """
        subject = api_subject(f"STREAM.INFO.{stream}")
        with self.doing(what, subject):
            answer = await self._ask(subject, b"")
            if error := answer.get("error"):
                if error.get("err_code") == STREAM_MISSING:
                    return None
                raise nats.js.errors.APIError.from_error(error)
            return datetime.fromisoformat(answer["created"])

    async def _ask(self, subject: str, question: bytes) -> dict[str, Any]:
        reply = await self.client.request(subject, question, timeout=CONFIRM_TIMEOUT_S)
        answer: dict[str, Any] = json.loads(reply.data)
        return answer


async def _leave_undecoded(_message: Any) -> bytes:
    return b""
