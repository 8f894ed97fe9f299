"""The settings: one frozen tree, read once, given to each part as what that part needs.

Used by app.bridge, app.cli, app.worker; may import app.errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import SecretStr, ValidationError

from app.errors import ConfigurationError
from app.settings.tree import Settings

__all__ = ["Settings", "load_settings"]

_USER_INFO: Final = re.compile(r"://[^\s'\"]*@")
_LONGEST_SHOWN: Final = 200
_LONGEST_REASON: Final = 1000


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; what a command sets itself goes before the environment.

    Raises:
        ConfigurationError: One line about the first wrong variable: its name, its value unless that is a secret, and
            what it should be.
    """
    try:
        return Settings(**overrides)
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=True)[0]
        raise ConfigurationError(_sentence(error)) from None


def _sentence(error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0]) if error["loc"] else "settings"
    field = Settings.model_fields.get(name.lower())
    secret = field is None or "SecretStr" in str(field.annotation) or name.lower() == "output_store"
    value = "" if secret or isinstance(error["input"], SecretStr) else f"={_shown(error['input'])}"
    said = _USER_INFO.sub("://***@", str(error["msg"]).removeprefix("Value error, "))[:_LONGEST_REASON]
    # A reason may repeat part of the value.
    reason = "".join(letter if letter.isprintable() else " " for letter in said)
    return f"{name.upper()}{value} is wrong: {reason[:1].lower()}{reason[1:]}"


def _shown(value: object) -> str:
    """A wrong value in one short line; a URL may have got there with its password."""
    text = _USER_INFO.sub("://***@", repr(value))
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
