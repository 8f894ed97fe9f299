"""What the broker's side is told of the settings.

Used by bridge, parts, setup, tracing, app.bridge, app.cli, app.worker; may import brokers.kafka, brokers.nats.
"""

from __future__ import annotations

import re

from pydantic import SecretStr

from app.settings.tree import Settings
from brokers.kafka.config import KafkaConfig
from brokers.nats import NatsConfig

__all__ = ["kafka_config", "nats_config", "reveal"]

KAFKA_PORT = 9092


def reveal(secret: SecretStr | None) -> str | None:
    """The value of a secret setting, for the one part that needs it."""
    return secret.get_secret_value() if secret else None


def nats_config(settings: Settings) -> NatsConfig:
    """How to reach NATS."""
    scheme, _, rest = settings.broker_url.get_secret_value().partition("://")
    user, at, hosts = rest.rpartition("@")
    return NatsConfig(
        servers=tuple(f"{scheme}://{user}{at}{host.strip('/')}" for host in hosts.split(",") if host),
        names=settings.names,
        ack_wait_s=settings.nats_ack_wait_s,
        result_retention_h=settings.result_retention_h,
        token=reveal(settings.nats_token),
        credentials_file=settings.nats_creds_file,
        tls_ca=settings.broker_tls_ca,
        tls_cert=settings.broker_tls_cert,
        tls_key=settings.broker_tls_key,
        client_name=f"comfybus-{settings.worker}",
    )


def _with_port(host: str) -> str:
    return host if re.search(r":\d+$", host) else f"{host}:{KAFKA_PORT}"


def kafka_config(settings: Settings) -> KafkaConfig:
    """How to reach Kafka."""
    scheme, _, hosts = settings.broker_url.get_secret_value().partition("://")
    return KafkaConfig(
        servers=tuple(_with_port(host.strip("/")) for host in hosts.split(",")),
        names=settings.names,
        tls=scheme == "kafka+ssl",
        tls_ca=settings.broker_tls_ca,
        tls_cert=settings.broker_tls_cert,
        tls_key=settings.broker_tls_key,
        sasl_mechanism=settings.kafka_sasl_mechanism,
        sasl_username=settings.kafka_sasl_username,
        sasl_password=reveal(settings.kafka_sasl_password),
        session_timeout_ms=settings.kafka_session_timeout_ms,
        max_poll_interval_ms=settings.kafka_max_poll_interval_ms,
        static_member=settings.worker if settings.kafka_static_membership else None,
        result_retention_h=settings.result_retention_h,
        client_name=f"comfybus-{settings.worker}",
    )
