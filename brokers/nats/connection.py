"""The connection to NATS: FastStream's broker holds it, this file says how it is made and what its errors mean."""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import nats.errors
import nats.js.errors
import structlog
from faststream.nats import NatsBroker
from faststream.nats.security import NatsCredentials, NatsSecurity, NatsToken
from nats.aio.client import Client

from brokers.base import BrokerError, BrokerRefused, BrokerUnavailable
from brokers.channels import Names

__all__ = ["MINIMUM_SERVER", "NatsConfig", "connect", "foreign_errors", "make_broker"]

# Older servers ignore the header that lets both terminal subjects of an id exclude each other (measured: 2.10.26
# stored both in 200 of 200 races, 2.11.11 one).
MINIMUM_SERVER = (2, 11)
# A dead server is noticed after two unanswered pings.
PING_INTERVAL_S = 5
CONNECT_TIMEOUT_S = 5

log = structlog.get_logger("comfybus.nats")


@dataclass(frozen=True)
class NatsConfig:
    """How to reach NATS and what to create there.

    Attributes:
        servers: ``nats://`` or ``tls://`` URLs; user and password may stand in them.
        names: Names of all channels.
        ack_wait_s: Ack wait of the durable ``worker`` when it is created here.
        result_retention_h: How long terminal events and stored outputs are kept.
        token: Token authentication.
        credentials_file: JWT and seed of a decentralised user.
        tls_ca, tls_cert, tls_key: Files of the TLS connection.
        client_name: Shown in the server's monitoring.
    """

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    names: Names = field(default_factory=Names)
    ack_wait_s: float = 30
    result_retention_h: float = 168
    token: str | None = field(default=None, repr=False)
    credentials_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_name: str = "comfybus"


async def _ignore() -> None:
    """Nobody wants to know."""


async def _log_error(exc: Exception) -> None:
    log.info("nats reports", error=type(exc).__name__, detail=str(exc))


def make_broker(
    config: NatsConfig,
    on_lost: Callable[[], Awaitable[None]] = _ignore,
    on_restored: Callable[[], Awaitable[None]] = _ignore,
) -> NatsBroker:
    """FastStream's broker for these settings, not yet connected; it reconnects for ever once it was."""
    return NatsBroker(
        list(config.servers),
        name=config.client_name,
        security=_security(config),
        connect_timeout=CONNECT_TIMEOUT_S,
        reconnect_time_wait=1,
        max_reconnect_attempts=-1,
        ping_interval=PING_INTERVAL_S,
        max_outstanding_pings=2,
        graceful_timeout=None,
        logger=None,
        error_cb=_log_error,
        disconnected_cb=on_lost,
        reconnected_cb=on_restored,
    )


def _security(config: NatsConfig) -> NatsSecurity | None:
    context = None
    if config.tls_ca or config.tls_cert or any(url.startswith("tls://") for url in config.servers):
        context = ssl.create_default_context(cafile=str(config.tls_ca) if config.tls_ca else None)
        if config.tls_cert:
            context.load_cert_chain(config.tls_cert, config.tls_key)
    if config.credentials_file:
        return NatsCredentials(str(config.credentials_file), ssl_context=context)
    if config.token:
        return NatsToken(config.token, ssl_context=context)
    return NatsSecurity(ssl_context=context) if context else None


async def connect(broker: NatsBroker, config: NatsConfig, wait_s: float) -> Client:
    """Connect within ``wait_s`` and refuse a server that cannot keep the promise.

    Raises:
        BrokerUnavailable: Nobody answers at the servers' addresses.
        BrokerRefused: The server refuses us, has no JetStream, or is older than ``MINIMUM_SERVER``.
    """
    where = ", ".join(url.rpartition("@")[2].removeprefix("nats://") for url in config.servers)
    try:
        with anyio.fail_after(wait_s):
            # With endless reconnects nats-py also waits without end for the first connection: hence the deadline.
            await broker.connect()
    except TimeoutError as exc:
        raise BrokerUnavailable(
            f"NATS does not answer at {where} within {wait_s:g} s; start it or correct BROKER_URL"
        ) from exc
    except nats.errors.Error as exc:
        raise BrokerRefused(f"NATS at {where} refuses the connection ({exc}); check the credentials") from exc
    except (OSError, ssl.SSLError) as exc:
        raise BrokerUnavailable(f"NATS cannot be reached at {where} ({exc}); correct BROKER_URL") from exc
    client: Client = broker.connection
    version = client.connected_server_version
    if (version.major, version.minor) < MINIMUM_SERVER:
        raise BrokerRefused(
            f"nats-server {version.major}.{version.minor}.{version.patch} at {where} is too old: "
            "it lets a request be answered twice; upgrade it to 2.11 or newer"
        )
    return client


@contextmanager
def foreign_errors(doing: str) -> Iterator[None]:
    """Translate what nats-py raises into the broker errors of this package, once."""
    try:
        yield
    except BrokerError:
        raise
    except nats.js.errors.ServiceUnavailableError as exc:
        raise BrokerUnavailable(f"{doing}: JetStream does not answer; is it enabled on the server?") from exc
    except (nats.js.errors.APIError, nats.errors.AuthorizationError) as exc:
        raise BrokerRefused(f"{doing}: NATS refuses ({getattr(exc, 'description', None) or exc})") from exc
    except (nats.errors.Error, TimeoutError, OSError, json.JSONDecodeError) as exc:
        raise BrokerUnavailable(f"{doing}: no answer from NATS ({type(exc).__name__})") from exc
