"""What a setting may hold: each check says in words what it should be.

Used by bridge, tree; may import schemas.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import SecretStr

from schemas.events import COMFY_EVENTS

__all__ = [
    "BRIDGE_EVENTS",
    "broker_url",
    "event_names",
    "http_url",
    "name_list",
    "output_store",
    "topic_prefix",
]

# A name or an IPv6 address in brackets, and a port unless it is Kafka's usual one.
_KAFKA_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/?#\[\]]+)(:(?P<port>\d{1,5}))?/?")
LAST_PORT = 65_535
BRIDGE_EVENTS = ("file_downloaded", "file_uploaded", "file_deleted")


def broker_url(value: SecretStr) -> SecretStr:
    """A URL of one of the brokers."""
    scheme, separator, rest = value.get_secret_value().partition("://")
    if not separator or scheme not in ("nats", "tls", "kafka", "kafka+ssl") or not rest.rpartition("@")[2].strip("/"):
        raise ValueError(
            "it should be nats://[user:password@]host[:port][,host…], tls://…, kafka://host:port[,host:port] or "
            "kafka+ssl://…"
        )
    if scheme.startswith("kafka") and "@" in rest:
        # It would be taken as part of the first host's name, which errors and aiokafka's log tell.
        raise ValueError(
            "Kafka's address has no user and password; it should be kafka://host:port, and KAFKA_SASL_MECHANISM, "
            "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD say who comes"
        )
    if scheme.startswith("kafka") and not all(map(_is_kafka_host, rest.rstrip("/").split(","))):
        raise ValueError("it should be kafka://host:port[,host:port] with a number for each port")
    return value


def _is_kafka_host(host: str) -> bool:
    found = _KAFKA_HOST.fullmatch(host)
    return found is not None and 0 < int(found["port"] or 1) <= LAST_PORT


def http_url(value: str) -> str:
    """Empty, or an HTTP address; without a slash at the end."""
    if not value:
        return value
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it should be http://host:port")
    return value.rstrip("/")


def topic_prefix(value: str) -> str:
    """What every broker takes as the first part of a name."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", value):
        raise ValueError("it should be letters, digits, `_` and `-`, with single dots between them")
    return value


def output_store(value: str) -> str:
    """Empty, or a place that outputs can be stored at."""
    # A query or user info would stand between the store and its keys; secrets have variables of their own.
    forms = r"nats://[A-Za-z0-9_-]+|file:///[^?#]*|s3://[^/]+(/.*)?|https?://[^/@?#]+/[^?#]+"
    if value and not re.fullmatch(forms, value):
        raise ValueError(
            "it should be nats://bucket, file:///dir, s3://bucket/prefix or "
            "https://account.blob.core.windows.net/container/prefix"
        )
    return value.rstrip("/")


def name_list(value: object) -> object:
    """A comma list; spaces around the names do not count."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def event_names(value: object) -> object:
    """``all`` or a comma list of events."""
    named = name_list(value)
    if not isinstance(named, tuple):
        return named
    if named == ("all",):
        return COMFY_EVENTS + BRIDGE_EVENTS
    if unknown := [name for name in named if name not in (*COMFY_EVENTS, *BRIDGE_EVENTS)]:
        raise ValueError(f"{unknown[0]} is no event; it should be `all` or some of {', '.join(COMFY_EVENTS)}")
    return named
