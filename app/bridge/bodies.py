"""What is sent for an event: one body per kind of webhook, made from the event's own JSON.

Used by plan; may import schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.base import dump_json

__all__ = ["legacy_failed", "legacy_output", "subscribed", "system"]

# The webhooks of a prompt are its producer's business and may hold secrets; a subscriber is somebody else.
_NOT_FOR_SUBSCRIBERS = ("webhook", "webhook_v2")
_NOT_IN_LEGACY_STATS = ("upload_time", "total_time")


def legacy_output(event: Mapping[str, Any], index: int) -> bytes:
    """The legacy webhook for one output file of a prompt that completed."""
    stats = event.get("stats")
    return dump_json(
        {
            "event": "output.complete",
            "image": event["images"][index],
            "id": event.get("id"),
            "filename": _item(event.get("filenames"), index),
            "prompt": event.get("prompt"),
            "stats": {key: value for key, value in stats.items() if key not in _NOT_IN_LEGACY_STATS}
            if isinstance(stats, dict)
            else stats,
        }
    )


def legacy_failed(event: Mapping[str, Any]) -> bytes:
    """The legacy webhook for a prompt that failed."""
    return dump_json(
        {
            "event": "prompt.failed",
            "id": event.get("id"),
            "prompt": event.get("prompt"),
            "error": event.get("error"),
        }
    )


def system(event: Mapping[str, Any]) -> bytes:
    """The system webhook of a ComfyUI or storage event."""
    return dump_json({"event": event.get("type"), "data": event.get("data"), "metadata": event.get("metadata") or {}})


def subscribed(event: Mapping[str, Any]) -> bytes:
    """The event for a subscriber: as it is, without the producer's webhooks."""
    return dump_json({key: value for key, value in event.items() if key not in _NOT_FOR_SUBSCRIBERS})


def _item(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, list) and index < len(values) else None
