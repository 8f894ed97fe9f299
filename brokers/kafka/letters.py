"""Dead letters going out: the original bytes and headers, and why, when and where from.

Used by bus, by_reference, dlq; may import brokers, schemas.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from brokers.base import Letter, RequestOrigin
from brokers.channels import Channel
from brokers.kafka import headers
from brokers.kafka.declare import Declaration
from brokers.kafka.headers import Headers
from brokers.kafka.link import Link
from brokers.kafka.writer import Outgoing
from schemas.base import timestamp

if TYPE_CHECKING:
    from brokers.kafka.delivery import KafkaDelivery

__all__ = ["BODY_BYTES", "DATAREF", "ORIGINAL", "KeepBody", "Letters", "letter_headers"]

DATAREF = "ce_dataref"
# Only with this header is the reference ours and the body of the letter elsewhere.
BODY_BYTES = "comfybus-body-bytes"
ORIGINAL = "comfybus-original-"
OMITTED = "comfybus-omitted"
# The record key the request was sent with, when it was another than its id.
KEY = "comfybus-key"
REASON_LIMIT = 2048

# Stores a body under a name and returns its URL.
KeepBody = Callable[[str, bytes], Awaitable[str]]


class Letters:
    """Composes dead letters; the partition's writer sends them with the event and the offset.

    Attributes:
        keep_body: Where bodies go whose letter would not fit a topic without the room for it; set by whoever has a
            place for them.
    """

    def __init__(self, link: Link, declaration: Declaration) -> None:
        """Prepare.

        Args:
            link: For the names.
            declaration: For the limit of the dead letter topic.
        """
        self._topic = link.names.topic(Channel.DEAD_LETTER)
        self._declaration = declaration
        self.keep_body: KeepBody | None = None

    async def compose(self, delivery: KafkaDelivery, letter: Letter) -> Outgoing:
        """The letter as a record that fits its topic."""
        own = letter_headers(delivery.origin, letter)
        if delivery.record_key.decode("utf-8", "replace") != letter.request_id:
            own[KEY] = delivery.record_key.decode("utf-8", "replace")
        found = _originals(delivery.raw_headers, own) + headers.encode(own)
        body, key = delivery.body, letter.request_id
        limit = self._declaration.limit_bytes(Channel.DEAD_LETTER)
        if _size(key, body, found) > limit and self.keep_body is not None:
            place = delivery.origin.source
            url = await self.keep_body(f"dlq/{key}/{place.partition}-{place.offset}", body)
            kept = [(f"{ORIGINAL}{name}" if name == DATAREF else name, value) for name, value in found]
            found = [*kept, *headers.encode({DATAREF: url, BODY_BYTES: str(len(body))})]
            body = b""
        return Outgoing(self._topic, key.encode(), body, _fit(key, body, found, limit))


def letter_headers(origin: RequestOrigin, letter: Letter) -> dict[str, str]:
    """What we say of the request."""
    ours = {
        "comfybus-request-id": letter.request_id,
        "comfybus-reason": letter.reason.replace("\r", " ").replace("\n", " ")[:REASON_LIMIT],
        "comfybus-code": letter.code,
        "comfybus-worker": letter.worker,
        "comfybus-attempts": str(letter.attempts),
        "comfybus-time": timestamp(),
        "comfybus-published": timestamp(origin.published_at),
    }
    place = origin.source.model_dump(exclude_none=True)
    ours |= {f"comfybus-{name}": str(value) for name, value in place.items()}
    if letter.id_was_derived:
        ours["comfybus-id"] = letter.request_id
    if letter.replay:
        ours["comfybus-replay"] = str(letter.replay)
    return ours


def _originals(raw: Iterable[tuple[str, bytes]], ours: Iterable[str]) -> Headers:
    """The request's headers to the byte; those that would be ours are kept as originals."""
    taken = {name.lower() for name in ours} | {BODY_BYTES, OMITTED, KEY}
    found: Headers = []
    for name, value in raw:
        lower = name.lower()
        if lower in ("comfybus-id", "comfybus-replay"):
            continue  # of a replay, and said anew by ours
        found.append((f"{ORIGINAL}{name}" if lower in taken else name, value))
    return found


def _size(key: str, body: bytes, found: Headers) -> int:
    return headers.record_size(key, body, {}) + sum(headers.header_size(name, value) for name, value in found)


def _fit(key: str, body: bytes, found: Headers, limit: int) -> Headers:
    """Leave out original headers, the largest first, until the rest fits; the names of those left out stay."""
    kept, omitted = list(found), list[str]()
    originals = [one for one in found if not one[0].startswith("comfybus-") or one[0].startswith(ORIGINAL)]
    originals = [one for one in originals if one[0] != DATAREF]
    for one in sorted(originals, key=lambda header: len(header[1]) + len(header[0]), reverse=True):
        if _size(key, body, kept) <= limit:
            break
        kept.remove(one)
        omitted.append(one[0][:64])
        kept = [header for header in kept if header[0] != OMITTED]
        kept.append((OMITTED, ",".join(omitted)[:REASON_LIMIT].encode()))
    return kept
