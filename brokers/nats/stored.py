"""Messages as they lie in a stream, read one at a time from its leader.

Used by dlq, follow, ledger, link, tail, brokers.nats.webhooks; may import nothing of ours.

nats-py's own reading parses headers as those of an e-mail, folds and decodes them, and raises on what it cannot parse;
here a message written by anybody can be read.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["StoredMessage", "from_leader", "parse_headers"]


@dataclass(frozen=True)
class StoredMessage:
    """One message of a stream.

    Attributes:
        sequence: Its place in the stream.
        subject: Where it was sent.
        time: The broker's time, to the microsecond.
        data: The body.
        headers: Names as they were sent; of a repeated name the last value.
    """

    sequence: int
    subject: str
    time: datetime
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def from_leader(message: Mapping[str, Any]) -> StoredMessage:
    """Read the server's JSON answer to ``$JS.API.STREAM.MSG.GET``."""
    return StoredMessage(
        sequence=int(message["seq"]),
        subject=str(message["subject"]),
        time=datetime.fromisoformat(message["time"]),
        data=base64.b64decode(message.get("data") or ""),
        headers=parse_headers(base64.b64decode(message.get("hdrs") or "")),
    )


def parse_headers(block: bytes) -> dict[str, str]:
    """Take a header block apart; lines that are no header are left out, bytes that are no UTF-8 replaced."""
    found = {}
    for line in block.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        key = name.strip().decode("ascii", "replace")
        if colon and key and key.isascii() and not any(map(str.isspace, key)):
            found[key] = value.strip().decode("utf-8", "replace")
    return found
