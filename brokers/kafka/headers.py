"""Headers on Kafka: how CloudEvents attributes are written, what a record weighs, and how foreign headers are read.

Used by most of its folder, brokers.kafka.webhooks; may import brokers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from brokers.base import Message

__all__ = ["Headers", "decode", "encode", "for_message", "header_size", "record_size"]

Headers = list[tuple[str, bytes]]

# The frame of a batch (61 bytes), the attributes and lengths of one record in it, and some air; more than any record
# takes, since what fits must fit for sure.
_FRAME_BYTES = 100
# Two lengths of up to five bytes each.
_PER_HEADER_BYTES = 10
# One line in every place where events are shown: a line break in a value could look like another header.
_LINE_BREAKS = str.maketrans({"\r": " ", "\n": " "})


def for_message(message: Message) -> dict[str, str]:
    """All headers of an outgoing event: ``ce_<attribute>``, the content type, and its own."""
    found = {f"ce_{name}": value for name, value in message.attributes.items()}
    found["content-type"] = "application/json"
    found.update(message.headers)
    return {name: value.translate(_LINE_BREAKS) for name, value in found.items()}


def encode(headers: Mapping[str, str]) -> Headers:
    """As aiokafka wants them."""
    return [(name, value.encode(errors="replace")) for name, value in headers.items()]


def decode(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    """Headers of a record, whoever wrote it: bytes that are no UTF-8 replaced, of a repeated name the last value."""
    return {name: (value or b"").decode("utf-8", "replace") for name, value in headers}


def header_size(name: str, value: bytes) -> int:
    """What one header adds to a record, rather too much than too little."""
    return len(name.encode()) + len(value) + _PER_HEADER_BYTES


def record_size(key: str, body: bytes, headers: Mapping[str, str]) -> int:
    """What a record counts against ``max.message.bytes``, rather too much than too little; uncompressed."""
    return _FRAME_BYTES + len(key.encode()) + len(body) + sum(header_size(*header) for header in encode(headers))
