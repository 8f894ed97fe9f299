"""Which deliveries an event asks for: pure, so that an event that is read again gives the same ones.

Used by feeding; may import app.storage, schemas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.bridge import bodies
from app.bridge.config import BridgeConfig
from app.bridge.record import Origin, Record, delivery_id, safe_webhook_id
from app.storage.urls import LONGEST_URL
from schemas.base import WrongField, load_json
from schemas.envelope import attributes, traceparent_of

__all__ = ["Planned", "plan"]

LONGEST_ID = 256
TERMINAL = ("prompt.complete", "prompt.failed")


@dataclass(frozen=True)
class Planned:
    """One delivery to be made."""

    record: Record
    body: bytes


@dataclass(frozen=True)
class _Source:
    """An event and what its deliveries share."""

    event: Mapping[str, Any]
    webhook_id: str
    prompt: str | None
    traceparent: str | None
    now_ms: int

    def planned(
        self,
        origin: Origin,
        url: str,
        body: bytes,
        *,
        event: str,
        suffix: str = "",
        subscription: str | None = None,
        claims: tuple[bool, int | None] = (False, None),
    ) -> Planned:
        webhook_id = self.webhook_id + suffix
        if len(url) > LONGEST_URL:
            # No URL, and so a dead letter; a record has to stay small.
            url = f"too-long:{url[:100]}"
        record = Record(
            id=delivery_id(webhook_id, origin, subscription, url),
            webhook_id=webhook_id,
            origin=origin,
            subscription=subscription,
            url=url,
            event=event,
            prompt=self.prompt,
            created_ms=self.now_ms,
            due_ms=self.now_ms,
            claims=claims[0],
            claim_bytes=claims[1],
            traceparent=self.traceparent,
        )
        return Planned(record, body)


def plan(body: bytes, headers: Mapping[str, str], origin: str, config: BridgeConfig, now_ms: int) -> list[Planned]:
    """The deliveries of one event, in the order in which they should be stored.

    Args:
        body: The event as it lies in the broker.
        headers: Its headers.
        origin: Where it lies.
        config: Who wants what.
        now_ms: Milliseconds since 1970.

    Returns:
        Nothing for what nobody wants, and for what no worker can have written.
    """
    try:
        event = load_json(body)
    except WrongField:
        return []
    if not isinstance(event, dict) or not isinstance(kind := event.get("type"), str):
        return []
    event_id = attributes(headers).get("id") or origin
    source = _Source(event, safe_webhook_id(event_id, origin), _prompt_of(event), traceparent_of(headers), now_ms)
    found = list[Planned]()
    if kind in TERMINAL:
        found += _of_request(source, kind, body)
    if config.system_url and kind in config.system_events:
        found.append(source.planned("system", config.system_url, bodies.system(event), event=kind))
    metadata = event.get("metadata") if isinstance(event.get("metadata"), dict) else None
    wanted = [one for one in config.subscriptions if one.wants(kind, metadata)]
    text = bodies.subscribed(event) if wanted else b""
    claims = _claims(event) if wanted and kind in TERMINAL else (False, None)
    for one in wanted:
        found.append(source.planned("subscription", one.url, text, event=kind, subscription=one.name, claims=claims))
    return found


def _of_request(source: _Source, kind: str, body: bytes) -> Iterator[Planned]:
    """What the request itself asked for."""
    event = source.event
    if isinstance(url := event.get("webhook_v2"), str) and url:
        yield source.planned("webhook_v2", url, body, event=kind, claims=_claims(event))
    if not isinstance(url := event.get("webhook"), str) or not url:
        return
    if kind == "prompt.failed":
        yield source.planned("webhook", url, bodies.legacy_failed(event), event=kind)
        return
    images = event.get("images")
    for index, image in enumerate(images if isinstance(images, list) else []):
        yield source.planned(
            "webhook",
            url,
            bodies.legacy_output(event, index),
            event="output.complete",
            suffix=f"/output/{index}",
            claims=(_is_url(image), _size(event, {index})),
        )


def _claims(event: Mapping[str, Any]) -> tuple[bool, int | None]:
    """Whether files are in the event as URLs, and how large they are together."""
    images = event.get("images")
    urls = {index for index, image in enumerate(images) if _is_url(image)} if isinstance(images, list) else set()
    return bool(urls), _size(event, urls) if urls else None


def _size(event: Mapping[str, Any], images: set[int]) -> int | None:
    outputs = event.get("outputs")
    sizes = {
        output["image"]: output["size_bytes"]
        for output in (outputs if isinstance(outputs, list) else [])
        if isinstance(output, dict)
        and isinstance(output.get("image"), int)
        and isinstance(output.get("size_bytes"), int)
    }
    return sum(sizes[index] for index in images) if images <= set(sizes) else None


def _is_url(value: Any) -> bool:
    # Base64 has no colon.
    return isinstance(value, str) and "://" in value[:32]


def _prompt_of(event: Mapping[str, Any]) -> str | None:
    """The request id of an event; that of a ComfyUI event stands in the frame."""
    if isinstance(found := event.get("id"), str):
        return found[:LONGEST_ID]
    frame = event.get("data")
    inner = frame.get("data") if isinstance(frame, dict) else None
    found = inner.get("prompt_id") if isinstance(inner, dict) else None
    return found[:LONGEST_ID] if isinstance(found, str) else None
