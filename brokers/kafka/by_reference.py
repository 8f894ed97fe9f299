"""Dead letters by their place: a replay that has no room for the request refers to the letter, and a worker reads it.

Used by bus, dlq; may import brokers.

The letter's topic keeps what a tombstone hides, so the reference holds as long as the letter would have been kept.
"""

from __future__ import annotations

import re

from brokers.base import BrokerRefused
from brokers.channels import Channel
from brokers.kafka.errors import doing
from brokers.kafka.headers import Headers
from brokers.kafka.letters import DATAREF
from brokers.kafka.library import TopicPartition
from brokers.kafka.link import Link
from brokers.kafka.reading import bounds, read_between, reader

__all__ = ["letter_url", "read_letter_body", "with_reference"]

READ = "read the letter of a replay"
_URL = re.compile(r"kafka:///([A-Za-z0-9._-]+)/(\d{1,9})/(\d{1,18})")


def letter_url(source: TopicPartition, offset: int) -> str:
    """Where a letter lies: ``kafka:///<topic>/<partition>/<offset>``."""
    return f"kafka:///{source.topic}/{source.partition}/{offset}"


def with_reference(headers: Headers, url: str) -> Headers:
    """The headers of a message without a body that refers to one; a reference of before gives way."""
    kept = [one for one in headers if one[0].lower().replace("-", "_") != DATAREF]
    return [*kept, (DATAREF, url.encode())]


async def read_letter_body(link: Link, url: str) -> bytes | None:
    """The bytes of the request in the letter at this place; None when the URL is of something else.

    Raises:
        BrokerRefused: The letter is no longer kept.
        BrokerUnavailable: No answer.
    """
    topic = link.names.topic(Channel.DEAD_LETTER)
    matched = _URL.fullmatch(url)
    if matched is None or matched[1] != topic:
        return None
    source, offset = TopicPartition(topic, int(matched[2])), int(matched[3])
    async with reader(link, READ) as consumer:
        with doing(READ):
            begin, end = await bounds(consumer, [source])
            if begin[source] <= offset < end[source]:
                async for record in read_between(consumer, {source: offset}, {source: offset + 1}):
                    if record.offset == offset and record.value is not None:
                        return bytes(record.value)
    raise BrokerRefused(f"the letter at {url} is no longer kept; submit the request anew")
