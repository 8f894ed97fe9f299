"""What the broker's side is told of the settings."""

from __future__ import annotations

from pydantic import SecretStr

from app.settings.tree import Settings
from brokers.nats import NatsConfig

__all__ = ["nats_config", "reveal"]


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
