"""Arguments that are wrong are found before anything is connected.

Used by commands, groups; may import schemas.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from app.cli.outcome import CommandFailed, ExitCode
from schemas.base import WrongField
from schemas.control import parse_command
from schemas.envelope import usable_id

__all__ = ["checked_command", "checked_http_url", "checked_id", "checked_model_url", "checked_prefix"]


def checked_id(request_id: str) -> str:
    """An id as it came.

    Raises:
        CommandFailed: Usage: no request can have it.
    """
    if not usable_id(request_id):
        raise CommandFailed(
            f"{request_id!r} is no request id; it should be letters, digits, `-` and `_`, at most 128",
            ExitCode.USAGE,
        )
    return request_id


def checked_http_url(url: str, what: str) -> str:
    """A URL as it came.

    Raises:
        CommandFailed: Usage: it is no http or https URL.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise CommandFailed(f"{what} {url!r} should be http://host:port", ExitCode.USAGE)
    return url.rstrip("/")


def checked_model_url(url: str) -> str:
    """A URL as it came.

    Raises:
        CommandFailed: Usage: it is no URL with a scheme and a place.
    """
    scheme, separator, place = url.partition("://")
    if not separator or not re.fullmatch(r"[a-z][a-z0-9+]*", scheme) or not place or " " in url:
        raise CommandFailed(f"{url!r} should be a URL such as https://host/model.safetensors", ExitCode.USAGE)
    return url


def checked_prefix(prefix: str) -> str:
    """A TOPIC_PREFIX as it came.

    Raises:
        CommandFailed: Usage: channels cannot be called so.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", prefix):
        raise CommandFailed(f"--prefix {prefix!r} should be letters, digits, `_`, `-` and single dots", ExitCode.USAGE)
    return prefix


def checked_command(**fields: Any) -> Mapping[str, Any]:
    """A command for the control channel as JSON data, without the fields that are empty.

    Raises:
        CommandFailed: Usage: the contract does not know such a command.
    """
    document = {name: value for name, value in fields.items() if value is not None}
    try:
        parse_command(document)
    except WrongField as exc:
        raise CommandFailed(str(exc), ExitCode.USAGE) from exc
    return document
