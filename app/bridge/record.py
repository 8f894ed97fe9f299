"""The record of a delivery: what has to survive a crash besides the body.

Used by most of its folder, app.cli, app.tracing; may import app.storage.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from yarl import URL

from app.storage.secrets import public_url

__all__ = ["LetterRecord", "Origin", "Record", "delivery_id", "endpoint_mark", "host_of", "lane_of", "safe_webhook_id"]

Origin = Literal["webhook_v2", "webhook", "system", "subscription"]

_HEADER_SAFE: Final = re.compile(r"[\x21-\x7e]{1,256}")


class Record(BaseModel):
    """A delivery as it is stored; times in milliseconds since 1970.

    Attributes:
        id: Of the delivery, made of event, endpoint and origin: the same for every redelivery of the event.
        webhook_id: ``webhook-id``: one per event, the same for every attempt and every endpoint.
        origin: What asked for it.
        subscription: Name of the subscription, if that is the origin.
        url: Where to; a subscription's present URL goes before it.
        event: Type that the receiver sees.
        prompt: Request id, by which deliveries of one lane are kept in order.
        created_ms: When the event was read.
        due_ms: When the next attempt is due.
        attempts: Attempts made.
        order: Token of the first storing; None before anything was changed.
        reason: Why the last attempt failed.
        asked: The receiver named the time of the next attempt itself.
        claim_bytes: Size of the files that are in the body as URLs; None when there are none or it is unknown.
        claims: Files are in the body as URLs.
        replays: How often it was replayed from the dead letter.
        traceparent: Of the prompt.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    webhook_id: str
    origin: Origin
    subscription: str | None = None
    url: str
    event: str
    prompt: str | None = None
    created_ms: int
    due_ms: int
    attempts: int = 0
    order: int | None = None
    reason: str | None = None
    asked: bool = False
    claim_bytes: int | None = None
    claims: bool = False
    replays: int = 0
    traceparent: str | None = None

    @classmethod
    def decode(cls, body: bytes) -> Self | None:
        """Read a stored record; None when it is none."""
        try:
            return cls.model_validate_json(body)
        except ValidationError:
            return None

    def encode(self) -> bytes:
        """As it is stored."""
        return self.model_dump_json(exclude_none=True).encode()

    @property
    def shown_url(self) -> str:
        """The URL without what may be secret in it."""
        return public_url(self.url)


class LetterRecord(Record):
    """A delivery that was given up.

    Attributes:
        code: ``exhausted``, ``gone``, ``refused`` (the URL may not be reached), ``unknown_subscription``,
            ``body_missing``.
        given_up_ms: When.
    """

    code: str = ""
    given_up_ms: int = 0

    def renewed(self, now_ms: int) -> Record:
        """The record with which it is delivered again: the same event for its receiver, a new beginning for us."""
        kept = Record.model_validate(self.model_dump(include=set(Record.model_fields)))
        fresh = {"created_ms": now_ms, "due_ms": now_ms, "attempts": 0, "order": None, "asked": False}
        return kept.model_copy(update={**fresh, "replays": self.replays + 1})


def delivery_id(webhook_id: str, origin: str, subscription: str | None, url: str) -> str:
    """The id of a delivery, 32 hex digits."""
    target = subscription if subscription is not None else url
    return hashlib.sha256(f"{webhook_id}\x1f{origin}\x1f{target}".encode(errors="replace")).hexdigest()[:32]


def lane_of(url: str) -> str:
    """The lane of an endpoint, 16 hex digits: its URL without user info, query and fragment."""
    return hashlib.sha256(public_url(url).encode(errors="replace")).hexdigest()[:16]


def endpoint_mark(url: str) -> str:
    """The name under which an endpoint that answered 410 is marked: the whole URL counts."""
    return hashlib.sha256(url.encode(errors="replace")).hexdigest()[:32]


def host_of(url: str) -> str:
    """Host and port for a label; a default port is left out."""
    try:
        parsed = URL(url)
        host, port = parsed.host or "-", parsed.explicit_port
    except ValueError:
        return "-"
    return f"{host}:{port}" if port else host


def safe_webhook_id(event_id: str, origin: str) -> str:
    """The event's own id where it can stand in a header and be signed unambiguously, else one derived from its place.

    Args:
        event_id: The CloudEvents id.
        origin: Where the event lies in the broker.
    """
    # The signed text has dots between its parts.
    if _HEADER_SAFE.fullmatch(event_id) and "." not in event_id:
        return event_id
    return f"evt_{hashlib.sha256(f'{event_id}|{origin}'.encode(errors='replace')).hexdigest()[:32]}"
