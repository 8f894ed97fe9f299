"""What a setting of the bridge may hold: each check says in words what it should be.

Used by tree; may import app.bridge, app.storage.
"""

from __future__ import annotations

import re
from typing import Final

from pydantic import SecretStr

from app.bridge.signature import read_secrets
from app.storage.faults import Fault
from app.storage.urls import parse_http

__all__ = ["schedule", "webhook_secret", "webhook_url"]

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DELAY: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_LONGEST_S: Final = 7 * 86400.0


def schedule(value: object) -> object:
    """Delays such as ``5s,5m,2h``, in seconds; empty for the standard ones."""
    if not isinstance(value, str):
        return value
    found = list[float]()
    for part in (part.strip() for part in value.split(",") if part.strip()):
        match = _DELAY.fullmatch(part)
        delay_s = float(match[1]) * _UNITS[match[2]] if match else -1.0
        if not 0 <= delay_s <= _LONGEST_S:
            raise ValueError(f"{part} is no delay; it should be a list such as 5s,5m,30m,2h, each at most 7d")
        found.append(delay_s)
    return tuple(found)


def webhook_secret(value: SecretStr | None) -> SecretStr | None:
    """Empty, or one or several secrets."""
    if value is None or not value.get_secret_value().strip():
        return None
    read_secrets(value.get_secret_value())
    return value


def webhook_url(value: SecretStr | None) -> SecretStr | None:
    """Empty, or an HTTP address exactly as it is to be called."""
    if value is None or not value.get_secret_value():
        return None
    try:
        parse_http(value.get_secret_value())
    except Fault as exc:
        raise ValueError(f"it should be http://… or https://… ({exc.reason})") from None
    return value
