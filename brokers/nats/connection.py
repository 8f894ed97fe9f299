"""How NATS is reached: the settings, and FastStream's broker made from them.

Used by most of its folder, brokers, brokers.nats.webhooks; may import brokers.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from faststream.nats.security import NatsCredentials, NatsSecurity, NatsToken, NatsUserPassword

from brokers.base import BrokerRefused
from brokers.channels import Names
from brokers.nats.lasting import Callback, LastingBroker

__all__ = ["MINIMUM_SERVER", "NatsConfig", "make_broker"]

# Older servers ignore the header that lets both terminal subjects of an id exclude each other (measured: 2.10.26
# stored both in 200 of 200 races, 2.11.11 one).
MINIMUM_SERVER = (2, 11)
# A dead server is noticed after two unanswered pings.
PING_INTERVAL_S = 5
CONNECT_TIMEOUT_S = 5
RECONNECT_WAIT_S = 1


@dataclass(frozen=True)
class NatsConfig:
    """How to reach NATS and what to create there.

    Attributes:
        servers: ``nats://`` or ``tls://`` URLs; user and password, or a token, may stand in the first.
        names: Names of all channels.
        ack_wait_s: Ack wait of the durable ``worker`` when it is created here.
        result_retention_h: How long terminal events and stored outputs are kept.
        token: Token authentication.
        credentials_file: JWT and seed of a decentralised user.
        tls_ca, tls_cert, tls_key: Files of the TLS connection.
        client_name: Shown in the server's monitoring.
        first_connection_s: How long the first connection may take; later ones are tried for ever.
    """

    servers: tuple[str, ...] = field(default=("nats://127.0.0.1:4222",), repr=False)
    names: Names = field(default_factory=Names)
    ack_wait_s: float = 30
    result_retention_h: float = 168
    token: str | None = field(default=None, repr=False)
    credentials_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_name: str = "comfybus"
    first_connection_s: float = 15

    @property
    def where(self) -> str:
        """The servers' addresses without user and password, for messages."""
        return ", ".join(_without_user(url).rpartition("://")[2] for url in self.servers)


def make_broker(config: NatsConfig, callbacks: Mapping[str, Callback]) -> LastingBroker:
    """FastStream's broker for these settings, not yet connected; it reconnects for ever once it was.

    Args:
        config: The settings.
        callbacks: nats-py's ``error_cb``, ``disconnected_cb`` and ``reconnected_cb``.

    Raises:
        BrokerRefused: A certificate or credentials file cannot be read.
    """
    try:
        security = _security(config)
    except (OSError, ssl.SSLError) as exc:
        raise BrokerRefused(f"the TLS or credentials files for NATS cannot be read: {exc}") from exc
    except ImportError as exc:
        raise BrokerRefused("NATS_CREDS_FILE needs the package nkeys; install it with: pip install nkeys") from exc
    return LastingBroker(
        [_without_user(url) for url in config.servers],
        callbacks,
        name=config.client_name,
        security=security,
        connect_timeout=CONNECT_TIMEOUT_S,
        reconnect_time_wait=RECONNECT_WAIT_S,
        max_reconnect_attempts=-1,
        ping_interval=PING_INTERVAL_S,
        max_outstanding_pings=2,
        graceful_timeout=None,
        logger=None,
    )


def _without_user(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url.rpartition("@")[2]


def _security(config: NatsConfig) -> NatsSecurity | None:
    context = None
    if config.tls_ca or config.tls_cert or any(url.startswith("tls://") for url in config.servers):
        context = ssl.create_default_context(cafile=str(config.tls_ca) if config.tls_ca else None)
        if config.tls_cert:
            context.load_cert_chain(config.tls_cert, config.tls_key)
    if config.credentials_file:
        config.credentials_file.open().close()
        return NatsCredentials(str(config.credentials_file), ssl_context=context)
    if config.token:
        return NatsToken(config.token, ssl_context=context)
    # nats-py takes the user from the URL as it stands there, percent signs and all.
    found = urlsplit(config.servers[0] if "://" in config.servers[0] else f"nats://{config.servers[0]}")
    if found.username and found.password is not None:
        return NatsUserPassword(unquote(found.username), unquote(found.password), ssl_context=context)
    if found.username:
        return NatsToken(unquote(found.username), ssl_context=context)
    return NatsSecurity(ssl_context=context) if context else None
