"""Dead letters going out: the original bytes and headers, and why, when and where from.

Used by bus, client, dlq, brokers.nats.webhooks.bus, brokers.nats.webhooks.letters; may import brokers, schemas.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from brokers.base import Letter, RequestOrigin
from brokers.channels import Channel
from brokers.nats.headers import HEADERS_LIMIT_BYTES, can_be_sent, encoded_size, safe
from brokers.nats.layout import DAY_S
from brokers.nats.link import Link
from brokers.nats.objects import NatsObjects
from schemas.base import timestamp

if TYPE_CHECKING:
    from brokers.nats.delivery import NatsDelivery

__all__ = ["BODY_BYTES", "DATAREF", "MESSAGE_ID", "ORIGINAL", "Letters", "fit", "letter_headers"]

DATAREF = "ce-dataref"
# Only with this header is the reference ours and the body of the letter elsewhere.
BODY_BYTES = "comfybus-body-bytes"
ORIGINAL = "comfybus-original-"
OMITTED = "comfybus-omitted"
MESSAGE_ID = "Nats-Msg-Id"
REASON_LIMIT = 2048
# What a reference to a body kept elsewhere adds at most.
REFERENCE_BYTES = 1024
KEPT_S = 30 * DAY_S


class Letters:
    """Publishes dead letters."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._bodies = NatsObjects(link, link.names.dead_letter_bucket, KEPT_S)

    async def post(self, delivery: NatsDelivery, letter: Letter) -> None:
        """Publish the letter, confirmed; sent again within a day it is dropped by the server.

        Raises:
            BrokerUnavailable: It may or may not be stored; to try again is safe.
            BrokerRefused: It is not stored.
        """
        headers = fit(letter_headers(delivery.headers, delivery.origin, letter), HEADERS_LIMIT_BYTES - REFERENCE_BYTES)
        body = delivery.body
        limit = self._link.max_message_bytes
        if len(body) + encoded_size(headers) > limit:
            digest = hashlib.sha256(body).hexdigest()[:12]
            key = f"{letter.request_id}/{delivery.place.sequence}-{digest}"
            if (own := headers.get(DATAREF)) is not None:
                headers[f"{ORIGINAL}{DATAREF}"] = own
            headers[DATAREF] = await self._bodies.put_bytes(key, body)
            headers[BODY_BYTES] = str(len(body))
            body = b""
        subject = self._link.names.subject(Channel.DEAD_LETTER)
        await self._link.store("publish a dead letter", subject, body, headers)


def letter_headers(original: Mapping[str, str], origin: RequestOrigin, letter: Letter) -> dict[str, str]:
    """The original headers and ours; those that would be ours, or that the server acts on, are kept as originals."""
    ours = {
        "comfybus-request-id": letter.request_id,
        "comfybus-reason": safe(letter.reason)[:REASON_LIMIT],
        "comfybus-code": letter.code,
        "comfybus-worker": letter.worker,
        "comfybus-attempts": str(letter.attempts),
        "comfybus-time": timestamp(),
        "comfybus-published": timestamp(origin.published_at),
        MESSAGE_ID: "dlq/" + "/".join(origin.parts),
    }
    place = origin.source.model_dump(exclude_none=True)
    ours |= {f"comfybus-{name}": str(value) for name, value in place.items()}
    if letter.id_was_derived:
        ours["comfybus-id"] = letter.request_id
    if letter.replay:
        ours["comfybus-replay"] = str(letter.replay)
    taken = {name.lower() for name in ours} | {BODY_BYTES, OMITTED}
    found, unsendable = dict[str, str](), list[str]()
    # What a replay added is no original, and is said anew by ours.
    of_replay = {"comfybus-id", "comfybus-replay"}
    if any(name.lower() == "comfybus-replay" for name in original):
        of_replay.add(MESSAGE_ID.lower())
    for name, value in original.items():
        lower = name.lower()
        if not can_be_sent(name):
            unsendable.append(safe(name))
        elif lower not in of_replay:
            kept = lower.startswith("nats-") or lower in taken
            found[f"{ORIGINAL}{name}" if kept else name] = safe(value)
    if unsendable:
        found[OMITTED] = ",".join(unsendable)[:REASON_LIMIT]
    return found | ours


def fit(headers: Mapping[str, str], limit_bytes: int) -> dict[str, str]:
    """Leave out original headers, the largest first, until the rest fits; the names of those left out stay."""
    kept = dict(headers)
    originals = [name for name in kept if not name.startswith("comfybus-") or name.startswith(ORIGINAL)]
    originals = [name for name in originals if name not in (DATAREF, MESSAGE_ID)]
    omitted = [kept[OMITTED]] if OMITTED in kept else []
    for name in sorted(originals, key=lambda one: len(kept[one]) + len(one), reverse=True):
        if encoded_size(kept) <= limit_bytes:
            break
        del kept[name]
        omitted.append(name[:64])
        kept[OMITTED] = ",".join(omitted)[:REASON_LIMIT]
    return kept
