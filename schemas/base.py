"""What all wire models share: strictness, JSON in and out, and the sentence for a field that is wrong.

Used by control, credentials, envelope, events, prompt, all of app and brokers; may import nothing of ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pydantic_core
from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["Strict", "WrongField", "dump_json", "first_wrong_field", "load_json", "timestamp", "wrong_number"]


# A location goes into an event, which has to fit the broker; a field's name may be of any length.
_LOCATION_LIMIT = 512
# pydantic puts the chosen branch of a union into a location, here behind `auth` and before a command's fields; a
# reader knows only the fields.
_COMMANDS = frozenset({"prompt.cancel", "model.download", "worker.drain"})
_UNION_AT = "auth"


class Strict(BaseModel):
    """A block of a message in which an unknown field is an error and no value is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class WrongField(ValueError):
    """A message breaks the contract at one place.

    Attributes:
        location: Dotted path of the field, e.g. ``prompt.10.inputs.image``, cut to 512 characters; empty for the
            whole message.
        reason: What is wrong with it and what it should be, without the value (it may be a secret).
    """

    def __init__(self, location: str, reason: str) -> None:
        location = location if len(location) <= _LOCATION_LIMIT else f"{location[: _LOCATION_LIMIT - 1]}…"
        super().__init__(f"{location}: {reason}" if location else reason)
        self.location = location
        self.reason = reason


def load_json(body: bytes) -> Any:
    """Decode one JSON document; big integers keep their value.

    Raises:
        WrongField: The bytes are not one valid UTF-8 JSON document, or are nested deeper than 200 levels.
    """
    try:
        return pydantic_core.from_json(body.removeprefix(b"\xef\xbb\xbf"), allow_inf_nan=False, cache_strings="keys")
    except ValueError as exc:
        raise WrongField("", f"the body is not valid JSON ({exc})") from exc


def dump_json(value: Any) -> bytes:
    """Encode JSON data as compact UTF-8."""
    return pydantic_core.to_json(value, inf_nan_mode="constants")


def wrong_number(value: Any, path: str) -> str | None:
    """The path of the first number that JSON cannot carry on (``1e999`` is read as infinity), or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    if isinstance(value, Mapping):
        pairs = ((f"{path}.{key}", item) for key, item in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        pairs = ((f"{path}.{index}", item) for index, item in enumerate(value))
    else:
        return None
    return next((found for where, item in pairs if (found := wrong_number(item, where))), None)


def first_wrong_field(exc: ValidationError) -> WrongField:
    """Turn pydantic's report into the one place and sentence that an event carries."""
    error = exc.errors(include_url=False, include_input=False, include_context=True)[0]
    cause = error.get("ctx", {}).get("error")
    location = _location(error["loc"])
    if isinstance(cause, WrongField):
        return WrongField(".".join(part for part in (location, cause.location) if part), cause.reason)
    if error["type"] == "extra_forbidden":
        return WrongField(location, "there is no such field; remove it or correct its name")
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        # pydantic's own sentence repeats the value.
        tags = error.get("ctx", {}).get("expected_tags")
        reason = f"it should be one of {tags}" if tags else "it is missing"
        return WrongField(f"{location}.type".removeprefix("."), reason)
    if error["type"] == "missing":
        return WrongField(location, "it is missing")
    reason = error["msg"].removeprefix("Value error, ")
    # pydantic calls every value "Input", which is also the name of a field.
    reason = "it" + reason.removeprefix("Input") if reason.startswith("Input ") else reason
    return WrongField(location, reason[:1].lower() + reason[1:])


def _location(parts: Sequence[int | str]) -> str:
    if len(parts) > 1 and parts[0] in _COMMANDS:
        parts = parts[1:]
    return ".".join(str(part) for index, part in enumerate(parts) if index == 0 or parts[index - 1] != _UNION_AT)


def timestamp(moment: datetime | None = None) -> str:
    """A moment (default: now) as ISO 8601 in UTC with milliseconds and ``Z``, as every event has it."""
    moment = datetime.now(UTC) if moment is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
