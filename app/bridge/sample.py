"""A webhook as it would come, for a receiver that is being written.

Used by app.cli.webhooks; may import schemas.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from app.bridge.record import Origin, Record, delivery_id
from app.bridge.subscriptions import Subscription
from schemas.base import dump_json, timestamp

__all__ = ["sample_record", "sample_webhook"]

# A PNG of one black pixel.
_PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgAB5Sfe/AAAAABJRU5ErkJggg=="


def sample_record(url: str, subscriptions: Sequence[Subscription], now_ms: int) -> Record:
    """The record of a sample for a URL; that of a subscription, if it is one's URL.

    Args:
        url: Where to.
        subscriptions: All of them.
        now_ms: Milliseconds since 1970.
    """
    name = next((one.name for one in subscriptions if one.url == url), None)
    origin: Origin = "subscription" if name else "webhook_v2"
    webhook_id = f"test-{uuid.uuid4()}/complete"
    return Record(
        id=delivery_id(webhook_id, origin, name, url),
        webhook_id=webhook_id,
        origin=origin,
        subscription=name,
        url=url,
        event="prompt.complete",
        created_ms=now_ms,
        due_ms=now_ms,
    )


def sample_webhook(record: Record) -> bytes:
    """The body of a ``prompt.complete`` with one picture."""
    now_ms = record.created_ms
    request_id = record.webhook_id.partition("/")[0]
    filename = f"{request_id}_sample_00001_.png"
    asked = {} if record.origin == "subscription" else {"webhook_v2": record.url}
    return dump_json(
        {
            "type": "prompt.complete",
            "timestamp": timestamp(datetime.fromtimestamp(now_ms / 1000, UTC)),
            "worker": "sample",
            "id": request_id,
            "attempt": 1,
            **asked,
            "metadata": {"sample": True},
            "prompt": {"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "sample"}}},
            "images": [_PIXEL],
            "filenames": [filename],
            "outputs": [
                {
                    "node_id": "9",
                    "class_type": "SaveImage",
                    "kind": "image",
                    "filename": filename,
                    "media_type": "image/png",
                    "size_bytes": 67,
                    "image": 0,
                }
            ],
            "stats": {
                "comfy_execution": {"start": now_ms - 40, "end": now_ms - 10, "duration": 30, "nodes": {}},
                "preprocess_time": 1,
                "comfy_round_trip_time": 35,
                "postprocess_time": 2,
                "upload_time": 0,
                "total_time": 40,
                "queue_time": 3,
            },
        }
    )
