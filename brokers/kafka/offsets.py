"""Asking for committed offsets, and hearing of none that a transaction is about to replace.

Used by link; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from brokers.kafka.library import TopicPartition

__all__ = ["StableOffsetsRequest"]

_PARTITION = (
    ("partition", Int32),
    ("offset", Int64),
    ("leader_epoch", Int32),
    ("metadata", CompactString("utf-8")),
    ("error_code", Int16),
    ("tags", TaggedFields),
)


class _StableOffsetsResponse(Response):  # type: ignore[misc]
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")), ("partitions", CompactArray(*_PARTITION)), ("tags", TaggedFields)
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class _StableOffsetsStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 9
    API_VERSION = 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _StableOffsetsResponse
    SCHEMA = Schema(
        ("group", CompactString("utf-8")),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class StableOffsetsRequest(Request[_StableOffsetsStruct]):  # type: ignore[misc]
    """OffsetFetch of version 7, which answers an error instead of an offset that a transaction is about to replace.

    aiokafka speaks version 3: right after a predecessor's transaction it may still be shown the offset before.
    """

    API_KEY = 9

    def __init__(self, group: str, partitions: Iterable[TopicPartition]) -> None:
        self._group = group
        self._topics: dict[str, list[int]] = {}
        for topic, number in partitions:
            self._topics.setdefault(topic, []).append(number)

    def build(self, request_struct_class: Any) -> Any:
        """The request as it is sent; see aiokafka."""
        topics: list[Any] = [(topic, numbers, {}) for topic, numbers in self._topics.items()]
        return request_struct_class(self._group, topics, True, {})
