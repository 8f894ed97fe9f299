"""Dead letters: the original bytes and headers, and why, when and where from."""

from __future__ import annotations

from collections.abc import Mapping

from brokers.base import Letter, RequestOrigin
from brokers.nats.headers import encoded_size, safe
from schemas.base import timestamp

__all__ = ["DATAREF", "fit", "letter_headers", "message_id"]

DATAREF = "ce-dataref"
ORIGINAL = "comfybus-original-"
OMITTED = "comfybus-omitted"


def message_id(origin: RequestOrigin) -> str:
    """Nats-Msg-Id of the letter, so that one sent again after a crash is dropped."""
    return "dlq/" + "/".join(origin.parts)


def letter_headers(original: Mapping[str, str], origin: RequestOrigin, letter: Letter) -> dict[str, str]:
    """The original headers and ours; those that the server acts on are kept under another name."""
    found = {
        (f"{ORIGINAL}{name}" if name.lower().startswith("nats-") else name): safe(value)
        for name, value in original.items()
    }
    place = origin.source.model_dump(exclude_none=True)
    found |= {f"comfybus-{name}": str(value) for name, value in place.items()}
    found |= {
        "comfybus-request-id": letter.request_id,
        "comfybus-reason": safe(letter.reason),
        "comfybus-code": letter.code,
        "comfybus-worker": letter.worker,
        "comfybus-attempts": str(letter.attempts),
        "comfybus-time": timestamp(),
        "comfybus-published": timestamp(origin.published_at),
        "Nats-Msg-Id": message_id(origin),
    }
    if letter.id_was_derived:
        found["comfybus-id"] = letter.request_id
    if letter.replay:
        found["comfybus-replay"] = str(letter.replay)
    return found


def fit(headers: dict[str, str], limit_bytes: int) -> dict[str, str]:
    """Leave out original headers, the largest first, until the rest fits; the names of those left out stay."""
    kept, omitted = dict(headers), list[str]()
    while encoded_size(kept) > limit_bytes:
        candidates = [name for name in kept if not name.startswith("comfybus-") or name.startswith(ORIGINAL)]
        candidates = [name for name in candidates if name not in (DATAREF, "Nats-Msg-Id")]
        if not candidates:
            break
        largest = max(candidates, key=lambda name: len(kept[name]) + len(name))
        del kept[largest]
        omitted.append(largest[:64])
        kept[OMITTED] = ",".join(omitted)[:4096]
    return kept
