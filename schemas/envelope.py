"""CloudEvents 1.0 around the messages: attributes as headers going out, three forms coming in.

Used by app.bridge, app.cli, app.setup, app.worker, brokers, brokers.kafka; may import its folder alone.

A request may come as a CloudEvent in binary form (attributes in headers), in structured form (one JSON document with
``data``), or as bare JSON. Kafka writes the attribute ``id`` as header ``ce_id``, NATS as ``ce-id``; reading takes
both, in any case.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from schemas.base import WrongField, load_json, timestamp
from schemas.prompt import ID_PATTERN

__all__ = [
    "LARGEST_REFERENCE_BYTES",
    "Envelope",
    "attributes",
    "derived_id",
    "event_attributes",
    "open_envelope",
    "prompt_id",
    "terminal_event_id",
    "traceparent_of",
    "tracestate_of",
    "usable_id",
]

# A request that comes as a reference is still read into memory as JSON.
LARGEST_REFERENCE_BYTES = 64 * 1024 * 1024

_NAMESPACE = uuid.UUID("5a3c5f0e-53a4-5d0c-9a0f-0c6f1d7f2f5b")
# Values stand for one byte of a message, but take up to 70 in memory, and reading them holds up the loop.
_MOST_VALUES = 500_000
# Both go into the headers of every event of the prompt, which brokers bound: neither may be of any length.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{0,128})?")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")
_STRUCTURED = "application/cloudevents+json"


@dataclass(frozen=True)
class Envelope:
    """A request as it came: its decoded document and what the envelope said of it.

    Attributes:
        document: The decoded JSON body; None when ``dataref`` stands for it.
        attributes: CloudEvents attributes by lower-case name (``id``, ``source``, ``type``, ``time``, ``dataref`` …).
        traceparent: W3C trace parent of the producer, if it sent a well-formed one.
        tracestate: Its companion.
    """

    document: Any
    attributes: Mapping[str, str] = field(default_factory=dict)
    traceparent: str | None = None
    tracestate: str | None = None

    @property
    def dataref(self) -> str | None:
        """Where the body is, when the message only refers to it."""
        return self.attributes.get("dataref")


def attributes(headers: Mapping[str, str]) -> dict[str, str]:
    """CloudEvents attributes among headers, whatever their case and the broker's way to write them."""
    found = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower.startswith(("ce-", "ce_")):
            found[lower[3:]] = value
    return found


def traceparent_of(headers: Mapping[str, str]) -> str | None:
    """The trace parent among headers, if it is well-formed."""
    value = _header(headers, "traceparent")
    return value if value is not None and _TRACEPARENT.fullmatch(value) else None


def tracestate_of(headers: Mapping[str, str]) -> str | None:
    """The trace state among headers, unless it is longer than everybody has to carry on (512 characters) or no text."""
    value = _header(headers, "tracestate")
    return value if value is not None and _TRACESTATE.fullmatch(value) else None


def open_envelope(body: bytes, headers: Mapping[str, str]) -> Envelope:
    """Decode a message body in any of its three forms.

    Raises:
        WrongField: The body is no JSON, holds more than half a million values, or is a structured event without usable
            ``data``.
    """
    found = attributes(headers)
    trace = traceparent_of(headers)
    state = tracestate_of(headers)
    if not body and "dataref" in found:
        return Envelope(None, found, trace, state)
    document = _load(body)
    content_type = (_header(headers, "content-type") or "").partition(";")[0].strip().lower()
    if content_type == _STRUCTURED or _looks_structured(document):
        data = _structured_data(document)
        inner = {key: value for key, value in document.items() if isinstance(value, str)}
        found |= {key.lower(): value for key, value in inner.items() if key not in {"data", "data_base64"}}
        trace = trace or traceparent_of(inner)
        return Envelope(data, found, trace, state)
    return Envelope(document, found, trace, state)


def _load(body: bytes) -> Any:
    """Decode a body whose values are few enough to be held; commas and brackets of its texts count too."""
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > _MOST_VALUES:
        raise WrongField("", f"it holds more than {_MOST_VALUES} values; send less")
    return load_json(body)


def _looks_structured(document: Any) -> bool:
    return isinstance(document, dict) and "specversion" in document and ("data" in document or "dataref" in document)


def _structured_data(document: Any) -> Any:
    if not isinstance(document, dict):
        raise WrongField("", "a structured CloudEvent must be a JSON object")
    if "data" in document:
        return document["data"]
    if isinstance(encoded := document.get("data_base64"), str):
        try:
            body = base64.b64decode(encoded.encode(), validate=True)
        except binascii.Error as exc:
            raise WrongField("data_base64", "it is not base64") from exc
        return _load(body)
    if isinstance(document.get("dataref"), str):
        return None
    raise WrongField("data", "the structured CloudEvent carries no data")


def _header(headers: Mapping[str, str], wanted: str) -> str | None:
    return next((value for name, value in headers.items() if name.lower() == wanted), None)


def derived_id(*origin: str) -> str:
    """An id for a request that brought none: the same for every redelivery of one message.

    Args:
        origin: Stream or topic, partition, sequence or offset, and the broker's timestamp.
    """
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(("request", *origin))))


@lru_cache(maxsize=1024)
def prompt_id(request_id: str, replay: int, attempt: int) -> str:
    """ComfyUI's prompt id of one attempt: a canonical UUIDv5, so that any worker can find the run again."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(("prompt", request_id, str(replay), str(attempt)))))


def terminal_event_id(request_id: str, outcome: str, replay: int) -> str:
    """``<id>/complete`` or ``<id>/failed``, with ``/<N>`` behind it for replay N."""
    return f"{request_id}/{outcome}/{replay}" if replay else f"{request_id}/{outcome}"


def event_attributes(*, event_id: str, event_type: str, source: str, subject: str | None) -> dict[str, str]:
    """The CloudEvents attributes of an outgoing event, without the broker's prefix."""
    found = {"id": event_id, "type": event_type, "source": source, "specversion": "1.0", "time": timestamp()}
    if subject is not None:
        found["subject"] = subject
    return found


def usable_id(value: object) -> bool:
    """Whether a value may serve as a request id."""
    return isinstance(value, str) and ID_PATTERN.fullmatch(value) is not None
