"""The dead letter channel as an operator sees it: list the letters, run one again.

Used by client; may import brokers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import NotFoundError

from brokers.base import BrokerRefused, MessageTooLarge
from brokers.channels import Channel
from brokers.client import DeadLetter
from brokers.nats.errors import StreamMissing
from brokers.nats.letters import BODY_BYTES, DATAREF, MESSAGE_ID, ORIGINAL
from brokers.nats.link import Link, api_subject
from brokers.nats.objects import NatsObjects, parse_url
from brokers.nats.stored import StoredMessage

__all__ = ["letters", "replay", "replay_headers"]

BATCH = 100
ANSWER_WITHIN_S = 5.0
READER_KEPT_S = 60.0

log = structlog.get_logger("comfybus.nats")


async def letters(link: Link) -> AsyncGenerator[DeadLetter, None]:
    """Every letter that was there at the start, oldest first; the server leaves the bodies out."""
    stream = link.names.dead_letter_stream
    with link.doing("list the dead letters", api_subject("CONSUMER.CREATE")):
        config = api.ConsumerConfig(
            ack_policy=api.AckPolicy.NONE, headers_only=True, inactive_threshold=READER_KEPT_S, mem_storage=True
        )
        try:
            consumer = await link.js.add_consumer(stream, config)
        except NotFoundError:
            return
        reader = await link.js.pull_subscribe_bind(stream=stream, consumer=consumer.name)
    left = int(consumer.num_pending or 0)
    try:
        while left > 0:
            with link.doing("list the dead letters", api_subject("CONSUMER.MSG.NEXT")):
                batch = await reader.fetch(min(BATCH, left), timeout=ANSWER_WITHIN_S)
            left -= len(batch)
            for message in batch:
                yield _letter(message)
    finally:
        try:
            await reader.unsubscribe()
            await link.js.delete_consumer(stream, str(consumer.name))
        except (nats.errors.Error, TimeoutError) as exc:
            log.debug("reader of dead letters left to the server", reason=type(exc).__name__)


def _letter(message: Msg) -> DeadLetter:
    headers: Mapping[str, str] = message.headers or {}
    metadata = message.metadata
    return DeadLetter.from_headers(f"{metadata.stream}#{metadata.sequence.stream}", headers)


async def replay(link: Link, letter: DeadLetter) -> int:
    """Send the original request again, then remove the letter; see ``Client.replay``.

    A letter that a crash left behind after its replay was sent is harmless: the same replay is answered once.

    Raises:
        BrokerRefused: The letter or its bytes are no longer kept.
        BrokerUnavailable: No answer; the replay may or may not be sent, and to try again is safe.
    """
    stream, _, sequence = letter.place.rpartition("#")
    stored = await _stored(link, stream, int(sequence))
    number = letter.replay + 1
    headers = replay_headers(letter, stored.headers, number)
    subject = link.names.subject(Channel.REQUEST)
    try:
        await link.store("replay a dead letter", subject, await _body(link, stored), headers)
    except MessageTooLarge:
        # It was as large as the broker takes without what a replay adds: only the reference fits.
        headers[DATAREF] = await _reference(link, letter, stored)
        await link.store("replay a dead letter", subject, b"", headers)
    with link.doing("remove a replayed letter", api_subject("STREAM.MSG.DELETE")):
        await link.js.delete_msg(stream, stored.sequence)
    return number


async def _stored(link: Link, stream: str, sequence: int) -> StoredMessage:
    try:
        stored = await link.read("read a dead letter", stream, seq=sequence)
    except StreamMissing:
        stored = None
    if stored is None:
        raise BrokerRefused(f"the letter {stream}#{sequence} is no longer kept; it was replayed or is too old")
    return stored


def replay_headers(letter: DeadLetter, stored: Mapping[str, str], number: int) -> dict[str, str]:
    """The original headers and those that mark the replay.

    What the server acts on keeps its ``comfybus-original-`` name: an expected sequence of long ago would refuse the
    replay, a rollup would empty the queue.
    """
    found = {}
    for name, value in stored.items():
        lower = name.lower()
        if lower.startswith(f"{ORIGINAL}nats-"):
            found[name] = value
        elif lower.startswith(ORIGINAL):
            found[name[len(ORIGINAL) :]] = value
        elif not lower.startswith(("nats-", "comfybus-")) and not (name == DATAREF and BODY_BYTES in stored):
            found.setdefault(name, value)
    found["comfybus-replay"] = str(number)
    if letter.id_was_derived:
        found["comfybus-id"] = letter.request_id
    found[MESSAGE_ID] = f"{letter.request_id}/replay/{number}"
    return found


async def _body(link: Link, stored: StoredMessage) -> bytes:
    if BODY_BYTES not in stored.headers:
        return stored.data
    bucket, key = parse_url(stored.headers[DATAREF])
    return await NatsObjects(link, bucket).get_bytes(key)


async def _reference(link: Link, letter: DeadLetter, stored: StoredMessage) -> str:
    if BODY_BYTES in stored.headers:
        return stored.headers[DATAREF]
    bodies = NatsObjects(link, link.names.dead_letter_bucket)
    return await bodies.put_bytes(f"{letter.request_id}/replay-{letter.replay + 1}", stored.data)
