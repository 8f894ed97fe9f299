"""How Kafka is reached: the settings, and what aiokafka's clients are given of them.

Used by bus, checks, client, layout, link, app.documents, app.settings, brokers.kafka.webhooks; may import brokers.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brokers.base import BrokerRefused
from brokers.channels import Names

__all__ = ["SASL_MECHANISMS", "KafkaConfig"]

SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
# A group waits this long at most for one of its members to come back to it in a rebalance; beyond it, waiting for a
# member that hangs would cost the others more than it saves.
LONGEST_REBALANCE_MS = 30_000
# The client's own share of the setting of the broker: three signs of life per session, and one a second at least, so
# that members hear soon that another one has left.
LONGEST_HEARTBEAT_MS = 1_000
REQUEST_TIMEOUT_MS = 15_000
RECONNECT_PAUSE_MS = 100


@dataclass(frozen=True)
class KafkaConfig:
    """How to reach Kafka and what to create there.

    Attributes:
        servers: ``host:port`` of some brokers; the others are learned from them.
        names: Names of all channels and of the group.
        tls: Encrypt the connection (``kafka+ssl://``); given certificates imply it.
        tls_ca, tls_cert, tls_key: Files of the TLS connection; without ``tls_ca`` the system's authorities count.
        sasl_mechanism: One of ``SASL_MECHANISMS``; empty for none.
        sasl_username, sasl_password: For SASL.
        session_timeout_ms: After this long without a sign of life the group gives the member's partitions away.
        max_poll_interval_ms: How long a rebalance may wait for this worker, at most 30 s; no limit for a prompt.
        static_member: Instance id of a static member, unique per worker. It stays in the group when it ends, so that a
            restart within the session moves nothing; None for a member that leaves.
        result_retention_h: How long terminal events are kept when their topics are created here.
        request_partitions: Partitions of the request topic and the terminal topics when they are created here.
        client_name: Shown in the broker's logs and metrics.
        first_connection_s: How long the first connection may take; later ones are tried for ever.
    """

    servers: tuple[str, ...] = ("127.0.0.1:9092",)
    names: Names = field(default_factory=Names)
    tls: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    sasl_mechanism: str = ""
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    session_timeout_ms: int = 45_000
    max_poll_interval_ms: int = 300_000
    static_member: str | None = None
    result_retention_h: float = 168
    request_partitions: int = 16
    client_name: str = "comfybus"
    first_connection_s: float = 15

    @property
    def where(self) -> str:
        """The servers' addresses, for messages."""
        return ", ".join(self.servers)

    @property
    def heartbeat_ms(self) -> int:
        """Pause between two signs of life."""
        return min(LONGEST_HEARTBEAT_MS, self.session_timeout_ms // 3)

    @property
    def rebalance_ms(self) -> int:
        """How long a rebalance waits for this member."""
        return min(LONGEST_REBALANCE_MS, self.max_poll_interval_ms)

    @property
    def is_encrypted(self) -> bool:
        """TLS is spoken."""
        return self.tls or self.tls_ca is not None or self.tls_cert is not None

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments that every client of aiokafka takes; made once per bus, since files are read for them.

        Raises:
            BrokerRefused: A certificate cannot be read, or the SASL settings do not belong together.
        """
        options: dict[str, Any] = {
            "bootstrap_servers": list(self.servers),
            "client_id": self.client_name,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            "retry_backoff_ms": RECONNECT_PAUSE_MS,
            "security_protocol": ("SASL_" if self.sasl_mechanism else "")
            + ("SSL" if self.is_encrypted else "PLAINTEXT"),
        }
        if self.is_encrypted:
            options["ssl_context"] = self._ssl_context()
        if self.sasl_mechanism:
            options |= self._sasl_options()
        return options

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=str(self.tls_ca) if self.tls_ca else None)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except (OSError, ssl.SSLError) as exc:
            raise BrokerRefused(f"the TLS files for Kafka cannot be read: {exc}; correct BROKER_TLS_*") from exc
        return context

    def _sasl_options(self) -> dict[str, str]:
        if self.sasl_mechanism not in SASL_MECHANISMS:
            raise BrokerRefused(
                f"KAFKA_SASL_MECHANISM={self.sasl_mechanism!r} is not known; it should be one of "
                + ", ".join(SASL_MECHANISMS)
            )
        if not self.sasl_username or self.sasl_password is None:
            raise BrokerRefused("KAFKA_SASL_MECHANISM needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD")
        return {
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
        }
