"""nats-py's client without the ways in which it gives up, and FastStream's broker that uses it.

Used by connection, link; may import nothing of ours.

nats-py closes a connection for good when the server ends it with an error of its own (expired credentials, a message
over the limit), stops reading when a message brings headers it cannot take apart, and stops reconnecting when a
greeting is garbled. Each would end the worker, the second one again and again with every redelivery. Besides, its flush
overtakes what it should wait for. The methods overridden here are mostly private: nats-py is pinned and tests hold
every one of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import nats.errors
import structlog
from faststream.nats import NatsBroker
from nats.aio.client import Client, Srv

__all__ = ["Callback", "LastingBroker", "LastingClient"]

# Errors after which the server keeps the connection, or which nats-py already answers by reconnecting.
HARMLESS = ("permissions violation", "stale connection", "invalid subject")

FLUSH_TIMEOUT_S = 10

Callback = Callable[..., Awaitable[None]]

log = structlog.get_logger("comfybus.nats")


class LastingClient(Client):
    """A client that is closed only by its owner."""

    async def abandon(self) -> None:
        """Close a client whose connecting was cancelled; in the middle of an attempt it takes itself for closed."""
        await self.close()
        self._leave_socket()

    def _leave_socket(self) -> None:
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call] # nats-py

    async def _connect_to_server(self, s: Srv) -> None:
        """Leave the socket of a refused attempt before the next one, which would only forget it."""
        self._leave_socket()
        await super()._connect_to_server(s)

    async def flush(self, timeout: int = FLUSH_TIMEOUT_S) -> None:  # noqa: ASYNC109 - nats-py's signature
        """Return when the server has processed all that was sent before.

        nats-py writes its ping past the commands that wait to be written, so that a subscription that drains hears the
        answer before the server has ended it, and drops what still comes.
        """
        await self._flush_pending(force_flush=True)
        await super().flush(timeout)

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        """Read what can be read: one message with broken headers must not end the connection."""
        try:
            found: dict[str, str] | None = await super()._process_headers(headers)
        except (IndexError, ValueError) as exc:
            log.warning("message with unreadable headers", reason=type(exc).__name__)
            return None
        return found

    async def _process_err(self, err_msg: str) -> None:
        """Reconnect where nats-py would close for good."""
        if any(text in err_msg.lower() for text in HARMLESS):
            await super()._process_err(err_msg)
            return
        error = nats.errors.Error(f"nats: {err_msg.strip(chr(39))}")
        self._err = error
        await self._error_cb(error)
        await self._process_op_err(error)

    async def _process_connect_init(self) -> None:
        """Count a garbled greeting as a failed attempt, so that another one follows."""
        try:
            await super()._process_connect_init()
        except OSError:
            raise  # of TLS too, which are also ValueErrors
        except (ValueError, EOFError, AttributeError) as exc:
            raise nats.errors.Error(f"nats: garbled greeting ({type(exc).__name__})") from exc


class LastingBroker(NatsBroker):
    """FastStream's broker on a client that lasts, and with our callbacks instead of its own.

    FastStream's raise what it thinks is final, such as refused credentials, and thereby end nats-py's reconnecting.
    """

    def __init__(self, servers: list[str], callbacks: Mapping[str, Callback], **settings: Any) -> None:
        super().__init__(servers, **settings)
        self._callbacks = dict(callbacks)

    async def _connect(self) -> Any:
        client = LastingClient()
        try:
            await client.connect(**{**self._connection_kwargs, **self._callbacks})
        except anyio.get_cancelled_exc_class():
            # The first connection took too long: leave no socket behind.
            with anyio.CancelScope(shield=True):
                await client.abandon()
            raise
        self.config.connect(client)
        return client
