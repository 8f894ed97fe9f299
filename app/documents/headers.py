"""Schemas of the headers, as NATS carries them, for the AsyncAPI document.

Used by asyncapi; may import nothing of ours.
"""

from __future__ import annotations

from typing import Any

__all__ = ["HEADERS"]

_TEXT = {"type": "string"}
_TRACE = {
    "traceparent": {"type": "string", "description": "W3C trace context, carried from a request to its events."},
    "tracestate": _TEXT,
}


def _headers(
    description: str, properties: dict[str, Any], required: tuple[str, ...] = (), *, traced: bool = True
) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "description": description,
        "properties": {**properties, **(_TRACE if traced else {})},
    }
    return {**schema, "required": list(required)} if required else schema


_CLOUD_EVENT = {
    "ce-id": {**_TEXT, "description": "Of a terminal event `<id>/complete` or `<id>/failed`, `/<N>` behind a replay."},
    "ce-type": {**_TEXT, "description": "The same as `type` in the body."},
    "ce-source": {**_TEXT, "description": "`/comfybus/<worker_id>`"},
    "ce-specversion": {**_TEXT, "const": "1.0"},
    "ce-subject": {**_TEXT, "description": "The request id, on events of a prompt."},
    "ce-time": {**_TEXT, "format": "date-time"},
    "ce-datacontenttype": {**_TEXT, "const": "application/json"},
    "content-type": {**_TEXT, "const": "application/json"},
}

HEADERS: dict[str, dict[str, Any]] = {
    "EventHeaders": _headers(
        "CloudEvents 1.0 attributes in binary form.",
        _CLOUD_EVENT,
        ("ce-id", "ce-type", "ce-source", "ce-specversion", "ce-time", "ce-datacontenttype", "content-type"),
    ),
    "RequestHeaders": _headers(
        "All optional; names in any case. The body may also be a structured CloudEvent.",
        {
            "ce-id": {**_TEXT, "description": "Serves as the request id when the body has none and it fits."},
            "ce-dataref": {**_TEXT, "description": "Where the body is, when the message only refers to it."},
            "comfybus-replay": {**_TEXT, "description": "Number of the replay of a dead letter."},
            "comfybus-id": {**_TEXT, "description": "On a replay: the id that was derived for the request."},
        },
    ),
    "CommandHeaders": _headers("All optional.", {"ce-id": _TEXT}),
    "LetterHeaders": _headers(
        "The original headers, those beginning with `Nats-` as `comfybus-original-<name>`, and these.",
        {
            "comfybus-reason": {**_TEXT, "description": "Why the request was given up."},
            "comfybus-code": {**_TEXT, "description": "The code of its `prompt.failed`."},
            "comfybus-request-id": _TEXT,
            "comfybus-id": {**_TEXT, "description": "The request id, when it was derived."},
            "comfybus-replay": {**_TEXT, "description": "Number of the replay, when it was one."},
            "comfybus-worker": _TEXT,
            "comfybus-attempts": _TEXT,
            "comfybus-time": {**_TEXT, "format": "date-time"},
            "comfybus-published": {**_TEXT, "format": "date-time", "description": "When the request was published."},
            "comfybus-stream": _TEXT,
            "comfybus-sequence": _TEXT,
            "ce-dataref": {**_TEXT, "description": "Where the original bytes are, when they did not fit."},
            "comfybus-body-bytes": {
                **_TEXT,
                "description": "Their size; present when `ce-dataref` is the letter's own.",
            },
            "comfybus-omitted": {**_TEXT, "description": "Names of original headers that could not be kept."},
        },
        ("comfybus-reason", "comfybus-code", "comfybus-request-id", "comfybus-worker", "comfybus-time"),
        traced=False,
    ),
}
"""Headers by the name of their schema."""
