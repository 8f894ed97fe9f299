"""Headers and sizes of records."""

from __future__ import annotations

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from brokers.base import Message
from brokers.channels import Channel
from brokers.kafka import headers


def test_an_event_has_its_attributes_as_cloudevents_writes_them_on_kafka() -> None:
    """``ce_`` before each attribute, the content type, and the message's own headers, each on one line."""
    message = Message(Channel.COMPLETE, ("a",), "a", b"{}", {"id": "a/complete"}, {"traceparent": "00\r\n-1"})
    assert headers.for_message(message) == {
        "ce_id": "a/complete",
        "content-type": "application/json",
        "traceparent": "00  -1",
    }


def test_foreign_headers_are_read_whatever_their_bytes() -> None:
    """Bytes that are no UTF-8 are replaced, no value is an empty one, of a repeated name the last one counts."""
    found = headers.decode([("a", b"\xff\xfe"), ("b", None), ("c", b"1"), ("c", b"2")])
    assert found == {"a": "��", "b": "", "c": "2"}


@pytest.mark.parametrize("body", [0, 1, 63, 64, 8191, 8192, 1_000_000])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_the_size_is_never_less_than_what_kafka_counts(body: int, count: int) -> None:
    """Our count grows by one with each byte and is at least the batch that aiokafka builds, and not much more."""
    own = {f"header-{number}-ü": "v" * number * 13 for number in range(count)}
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=1,
        producer_id=2**40,
        producer_epoch=9,
        base_sequence=2**30,
        batch_size=2**24,
    )
    builder.append(0, timestamp=2**40, key=b"key", value=b"x" * body, headers=headers.encode(own))
    counted, built = headers.record_size("key", b"x" * body, own), len(builder.build())
    assert built <= counted <= built + 60 + 10 * count
    assert headers.record_size("key", b"x" * (body + 1), own) == counted + 1
