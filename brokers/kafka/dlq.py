"""The dead letter topic as an operator sees it: list the letters, run one again.

Used by client; may import brokers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

import anyio

from brokers.base import BrokerRefused
from brokers.channels import Channel
from brokers.client import DeadLetter
from brokers.kafka import follow
from brokers.kafka.by_reference import letter_url, with_reference
from brokers.kafka.clients import abandon_producer, make_producer
from brokers.kafka.declare import topic_limits
from brokers.kafka.errors import doing
from brokers.kafka.headers import Headers, decode, header_size, record_size
from brokers.kafka.layout import DEFAULT_LIMIT_BYTES
from brokers.kafka.letters import BODY_BYTES, DATAREF, ORIGINAL
from brokers.kafka.library import ConsumerRecord, TopicPartition
from brokers.kafka.link import Link
from brokers.kafka.reading import bounds, read_between, reader
from brokers.kafka.writer import REQUEST_ROOM_BYTES

__all__ = ["letters", "replay", "replay_headers"]

LIST = "list the dead letters"
REPLAY = "replay a dead letter"
WITHIN_S = 30.0


async def letters(link: Link) -> AsyncGenerator[DeadLetter, None]:
    """Every letter that was there at the start and has no tombstone behind it, oldest first; their bodies are let go.

    A tombstone is a record without a body under the letter's key: it hides all letters of the id before it.
    """
    kept: list[tuple[bytes, DeadLetter]] = []
    async with reader(link, LIST) as consumer:
        with doing(LIST):
            where = await bounds(consumer, await follow.sources(link, Channel.DEAD_LETTER))
            async for record in read_between(consumer, *where):
                if record.value is None:
                    kept = [one for one in kept if one[0] != record.key]
                else:
                    kept.append((record.key, _letter(record)))
    for _, letter in sorted(kept, key=lambda one: one[1].time):
        yield letter


def _letter(record: ConsumerRecord) -> DeadLetter:
    headers: Mapping[str, str] = decode(record.headers)
    return DeadLetter.from_headers(f"{record.topic}-{record.partition}@{record.offset}", headers)


async def replay(link: Link, letter: DeadLetter) -> int:
    """Send the original request again and hide the letter, both or none; see ``Client.replay``.

    The producer's name is the same for everybody who replays: who starts it ends the transaction of who was before,
    and then sees whether that one had replayed the letter. So a letter is replayed once.

    Raises:
        BrokerRefused: The letter is no longer kept, or was replayed.
        BrokerUnavailable: No answer; it may or may not be replayed, and to try again is safe.
    """
    names = link.names
    request_topic = names.topic(Channel.REQUEST)
    limit = (await topic_limits(link, [request_topic])).get(request_topic, DEFAULT_LIMIT_BYTES)
    producer = make_producer(
        **link.options,
        acks="all",
        transactional_id=f"{names.worker_group}-replay",
        max_request_size=limit + REQUEST_ROOM_BYTES,
    )
    number = letter.replay + 1
    try:
        with doing(REPLAY), anyio.fail_after(WITHIN_S):
            await producer.start()
            stored = await _stored(link, letter)
            headers = replay_headers(letter, stored, number)
            body = stored.value or b""
            if body and _size(letter, body, headers) > limit:
                # It was as large as the topic takes without what a replay adds: only a reference fits.
                source = TopicPartition(stored.topic, stored.partition)
                headers, body = with_reference(headers, letter_url(source, stored.offset)), b""
            if _size(letter, body, headers) > limit:
                raise BrokerRefused(
                    f"the headers of the request in {letter.place} leave no room for those of the replay; raise "
                    f"max.message.bytes of {request_topic} by 1 KiB"
                )
            async with producer.transaction():
                key = letter.request_id.encode()
                await producer.send_and_wait(request_topic, body, key=key, headers=headers)
                await producer.send_and_wait(names.topic(Channel.DEAD_LETTER), None, key=stored.key)
    finally:
        await abandon_producer(producer)
    return number


def _size(letter: DeadLetter, body: bytes, headers: Headers) -> int:
    return record_size(letter.request_id, body, {}) + sum(header_size(name, value) for name, value in headers)


async def _stored(link: Link, letter: DeadLetter) -> ConsumerRecord:
    """The letter's record, unless a tombstone lies behind it."""
    place, _, offset = letter.place.rpartition("@")
    topic, _, partition = place.rpartition("-")
    source, wanted = TopicPartition(topic, int(partition)), int(offset)
    found: ConsumerRecord | None = None
    async with reader(link, REPLAY) as consumer:
        begin, end = await bounds(consumer, [source])
        lower = {source: max(wanted, begin[source])}
        async for record in read_between(consumer, lower, end):
            if record.offset == wanted:
                found = record
            elif found is not None and record.value is None and record.key == found.key:
                found = None
                break
    if found is None or found.value is None:
        raise BrokerRefused(f"the letter {letter.place} is no longer kept; it was replayed or is too old")
    return found


def replay_headers(letter: DeadLetter, stored: ConsumerRecord, number: int) -> Headers:
    """The original headers to the byte, and those that mark the replay."""
    ours_is_reference = any(name == BODY_BYTES for name, _ in stored.headers)
    found: Headers = []
    for name, value in stored.headers:
        lower = name.lower()
        if lower.startswith(ORIGINAL):
            if not (ours_is_reference and lower == f"{ORIGINAL}{DATAREF}"):
                found.append((name[len(ORIGINAL) :], value))
        elif not lower.startswith("comfybus-"):
            found.append((name, value))
    found.append(("comfybus-replay", str(number).encode()))
    if letter.id_was_derived:
        found.append(("comfybus-id", letter.request_id.encode()))
    return found
