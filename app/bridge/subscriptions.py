"""Static endpoints from a YAML file: who wants which events, so that a team can route without touching producers.

Used by config, sample, app.settings.bridge; may import app.errors, app.storage, schemas.

::

    subscriptions:
      - name: gallery
        url: https://gallery.example.com/hooks/comfybus
        events: [prompt.complete, prompt.failed]
        metadata: {team: video, tier: [gold, platinum]}
        secrets: [whsec_..., whsec_...]
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from app.bridge.signature import PREFIX, Signer, read_secrets
from app.errors import ConfigurationError
from app.storage.faults import Fault
from app.storage.urls import parse_http
from schemas.base import first_wrong_field
from schemas.events import COMFY_EVENTS

__all__ = ["EVENT_TYPES", "Subscription", "load_subscriptions"]

VARIABLE = "WEBHOOK_SUBSCRIPTIONS"
EVENT_TYPES = (
    "prompt.complete",
    "prompt.failed",
    "storage.file_downloaded",
    "storage.file_uploaded",
    "storage.file_deleted",
    "storage.download_failed",
    *(f"comfy.{name}" for name in COMFY_EVENTS),
    "worker.started",
    "worker.heartbeat",
    "worker.models",
    "worker.stopped",
)


class Subscription(BaseModel):
    """One static endpoint.

    Attributes:
        name: Unique in the file; deliveries that wait are bound to it, not to the URL.
        url: Where to; it may be a private address, since the operator wrote it.
        events: Types, ``*`` stands for any part: ``prompt.*``.
        metadata: Each key has to be in the event's metadata with this value, or with one of these values.
        secrets: Each ``whsec_…``; every delivery is signed with all of them.
        concurrency: Deliveries at once; None for WEBHOOK_CONCURRENCY.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    url: str
    events: list[str] = Field(default=["prompt.complete", "prompt.failed"], min_length=1)
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    secrets: list[str] = Field(min_length=1, repr=False)
    concurrency: int | None = Field(default=None, ge=1, le=64)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        try:
            parse_http(self.url)
        except Fault as exc:
            raise ValueError(f"url: {exc.reason}") from None
        for pattern in self.events:
            if not any(fnmatchcase(known, pattern) for known in EVENT_TYPES):
                raise ValueError(f"events: {pattern} fits no event that is delivered; see docs/webhooks.md")
        for secret in self.secrets:
            if not secret.startswith(PREFIX):
                raise ValueError("secrets: each should begin with whsec_")
            try:
                read_secrets(secret)
            except ValueError as exc:
                raise ValueError(f"secrets: {exc}") from None
        return self

    @property
    def signer(self) -> Signer:
        """Signs with all of its secrets."""
        return read_secrets(" ".join(self.secrets))

    def wants(self, event_type: str, metadata: Mapping[str, Any] | None) -> bool:
        """Whether an event is for this endpoint."""
        if not any(fnmatchcase(event_type, pattern) for pattern in self.events):
            return False
        found = metadata or {}
        return all(key in found and _fits(wanted, found[key]) for key, wanted in self.metadata.items())

    @property
    def wants_other_than_results(self) -> bool:
        """Whether events besides the terminal ones are wanted."""
        return any(fnmatchcase(known, pattern) for pattern in self.events for known in EVENT_TYPES[2:])


def _fits(wanted: JsonValue, value: Any) -> bool:
    return value in wanted or value == wanted if isinstance(wanted, list) else bool(value == wanted)


def load_subscriptions(path: Path) -> tuple[Subscription, ...]:
    """Read the file.

    Raises:
        ConfigurationError: It cannot be read or holds something wrong; the sentence names the place.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"{VARIABLE}={path} cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{VARIABLE}={path} is no YAML{where}; correct it") from exc
    entries = document.get("subscriptions") if isinstance(document, dict) else None
    if not isinstance(entries, list) or set(document) != {"subscriptions"}:
        raise ConfigurationError(f"{VARIABLE}={path} is wrong: it should hold one list, `subscriptions`")
    found = tuple(_parse(path, number, entry) for number, entry in enumerate(entries))
    names = [one.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigurationError(f"{VARIABLE}={path} is wrong: two subscriptions have the name {twice}")
    return found


def _parse(path: Path, number: int, entry: Any) -> Subscription:
    try:
        return Subscription.model_validate(entry)
    except ValidationError as exc:
        wrong = first_wrong_field(exc)
        name = entry.get("name") if isinstance(entry, dict) else None
        at = f"subscription {name if isinstance(name, str) else number + 1}"
        place = f" {wrong.location}:" if wrong.location else ""
        raise ConfigurationError(f"{VARIABLE}={path} is wrong: {at}:{place} {wrong.reason}") from exc
