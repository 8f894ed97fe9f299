"""Headers on NATS: how CloudEvents attributes are written and what they weigh.

Used by answers, bus, client, letters, link; may import brokers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from brokers.base import Message

__all__ = ["HEADERS_LIMIT_BYTES", "can_be_sent", "encoded_size", "for_message", "safe"]

# What JetStream takes of headers in one message, whatever the body.
HEADERS_LIMIT_BYTES = 65_535

_FRAME = len(b"NATS/1.0\r\n\r\n")
_PER_HEADER = len(b": \r\n")
# What nats-py takes as a name; it is a token of HTTP.
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LINE_BREAKS = str.maketrans({"\r": " ", "\n": " "})


def for_message(message: Message) -> dict[str, str]:
    """All headers of an outgoing event: ``ce-<attribute>``, the content type, and its own."""
    found = {f"ce-{name}": value for name, value in message.attributes.items()}
    found["ce-datacontenttype"] = found["content-type"] = "application/json"
    found.update(message.headers)
    return {name: safe(value) for name, value in found.items()}


def safe(value: str) -> str:
    """A value on one line: a line break would end the header and could forge the next one."""
    if value.isascii() and value.isprintable():
        return value
    return value.translate(_LINE_BREAKS).encode(errors="replace").decode()


def can_be_sent(name: str) -> bool:
    """Whether nats-py sends a header of this name; others may come in from clients that check less."""
    return _NAME.fullmatch(name) is not None


def encoded_size(headers: Mapping[str, str]) -> int:
    """Bytes the headers add to a message; the server counts them against its limit, nats-py does not."""
    if not headers:
        return 0
    return _FRAME + sum(len(name.encode()) + len(value.encode()) + _PER_HEADER for name, value in headers.items())
