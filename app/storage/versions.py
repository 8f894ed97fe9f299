"""Which version of a file an answer's headers stand for, so that a broken download is continued with no other.

Used by carrier; may import its folder alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from app.storage.partial import Source

__all__ = ["range_source", "validator_of"]

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


def validator_of(headers: Mapping[str, str]) -> str | None:
    """What an If-Range can say of a whole answer: its strong ETag, else its date where that tells versions apart."""
    return _validator(headers) if "ETag" in headers or _is_settled(headers) else None


def _validator(headers: Mapping[str, str]) -> str | None:
    etag = headers.get("ETag", "").strip()
    if etag.startswith('"') and etag.endswith('"') and len(etag) > 2:
        return etag
    return headers.get("Last-Modified") if not etag else None


def _is_settled(headers: Mapping[str, str]) -> bool:
    """Whether a file changed at least a second before the answer: a date has whole seconds (RFC 9110, 8.8.2.2)."""
    try:
        changed = parsedate_to_datetime(headers.get("Last-Modified", ""))
        return parsedate_to_datetime(headers.get("Date", "")) - changed >= timedelta(seconds=1)
    except (ValueError, TypeError):
        return False


def range_source(headers: Mapping[str, str], offset: int) -> Source | None:
    """The file that a 206 is a part of, if the part goes from ``offset`` to its end."""
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    validator = _validator(headers)
    if match is None or validator is None:
        return None
    first, last, total = map(int, match.groups())
    return Source(validator, total) if first == offset and last == total - 1 else None
