"""Requests pulled from the durable consumer, one for each caller that waits and none besides.

Used by bus, delivery, brokers.nats.webhooks.feed; may import brokers.

Every pull has a subscription of its own. So a request that arrives after its caller has gone, cancelled or tired of
waiting, is known for what it is and handed back at once; nothing ages in a queue of the client. While nothing comes the
server says that it lives, which tells an idle queue from a dead one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Self

import anyio
import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from brokers.base import BrokerUnavailable
from brokers.nats.link import Link, api_subject

__all__ = ["NAK", "pull_one"]

HEARTBEAT_S = 0.5
# So many heartbeats may be late before the pull is given up.
SILENCE_S = 4 * HEARTBEAT_S
# The server ends a pull in time; beyond this it does not answer.
GRACE_S = 2.0
FAREWELL_S = 1.0
NAK = b"-NAK"
# Ends of a pull that are everyday life of a cluster.
PASSING = ("leadership change", "server shutdown")

log = structlog.get_logger("comfybus.nats")


async def pull_one(link: Link, consumer: tuple[str, str], wait_s: float, on_alive: Callable[[], None]) -> Msg | None:
    """The next message of the consumer, or None when none came in time.

    Cancelled or failed, it leaves nothing behind: what arrives nevertheless is handed back.

    Args:
        link: The connection.
        consumer: Names of the stream and of its durable consumer.
        wait_s: How long to wait for a message.
        on_alive: Called when the consumer shows that it serves the pull, long before the pull is over.

    Raises:
        BrokerUnavailable: The consumer is gone, or the server has fallen silent.
        BrokerRefused: A permission is missing.
    """
    subject = api_subject(f"CONSUMER.MSG.NEXT.{'.'.join(consumer)}")
    async with _Pull(link, on_alive) as pull:
        with link.doing("take requests", subject):
            await pull.begin(subject, wait_s)
            await pull.outcome(wait_s)
        if pull.broken:
            raise BrokerUnavailable(f"take requests: NATS ends the pull ({pull.broken})")
        # Nothing but the shielded farewell may be awaited from here on: a cancelled caller would lose the request.
        return pull.take()


class _Pull:
    """One pull: at most one message comes of it."""

    def __init__(self, link: Link, on_alive: Callable[[], None]) -> None:
        self._link = link
        self._on_alive = on_alive
        self._subscription: Subscription | None = None
        self._heard = anyio.Event()
        self._message: Msg | None = None
        self._over = False
        self._left = False
        self.broken = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        """Stop listening; what has come and was not taken, or still comes, is handed back."""
        self._left = True
        with anyio.move_on_after(FAREWELL_S, shield=True):
            try:
                if self._message is not None:
                    await self._hand_back(self._message)
                if self._subscription is not None:
                    await self._stop_listening(self._subscription, exc_type)
            except (nats.errors.Error, TimeoutError) as exc:
                log.debug("pull not called off", reason=type(exc).__name__)

    async def _stop_listening(self, subscription: Subscription, exc_type: type[BaseException] | None) -> None:
        if exc_type is not None and not self._over and issubclass(exc_type, anyio.get_cancelled_exc_class()):
            # The server may have sent a request at this moment: hear out what is on its way.
            await subscription.drain()  # type: ignore[no-untyped-call] # nats-py
        else:
            await subscription.unsubscribe()

    async def begin(self, subject: str, wait_s: float) -> None:
        inbox = self._link.client.new_inbox()
        self._subscription = await self._link.client.subscribe(inbox, cb=self._on_answer)
        wanted = {"batch": 1, "expires": int(wait_s * 1e9)}
        if _beats(wait_s):
            wanted["idle_heartbeat"] = int(HEARTBEAT_S * 1e9)
        await self._link.client.publish(subject, json.dumps(wanted).encode(), reply=inbox)

    async def outcome(self, wait_s: float) -> None:
        """Return when the pull is over; TimeoutError when the server is silent."""
        with anyio.fail_after(wait_s + GRACE_S):
            while not self._over:
                with anyio.fail_after(SILENCE_S if _beats(wait_s) else None):
                    await self._heard.wait()
                self._heard = anyio.Event()

    def take(self) -> Msg | None:
        """What came, for the caller to keep."""
        message, self._message = self._message, None
        return message

    async def _on_answer(self, message: Msg) -> None:
        """Sort an answer of the server: a request, a sign of life, or the end of the pull."""
        # A stored message may carry any headers, also those of a status; only stored ones have an address for acks.
        if message.reply.startswith("$JS.ACK."):
            if self._left or self._message is not None:
                await self._hand_back(message)
                return
            self._message = message
            self._over = True
        else:
            headers = message.headers or {}
            status, text = headers.get("Status", ""), headers.get("Description", "").partition("\n")[0].strip()
            self._over = status != "100"
            if status not in ("100", "404", "408") and text.lower() not in PASSING:
                self.broken = f"{status} {text}".strip() if text else f"{status}, its consumer is missing"
        if not self.broken:
            self._on_alive()
        self._heard.set()

    async def _hand_back(self, message: Msg) -> None:
        log.info("request handed back that nobody waits for any more", sequence=message.metadata.sequence.stream)
        await self._link.client.publish(message.reply, NAK)


def _beats(wait_s: float) -> bool:
    """Whether the server can send heartbeats: it takes at most half of the waiting time between two of them."""
    return wait_s > 2 * HEARTBEAT_S
