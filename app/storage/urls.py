"""Reads the URLs of requests: what is in them, and what must not be.

Used by most of its folder, app.bridge, app.settings; may import its folder alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from yarl import URL

from app.storage.credentials import basic
from app.storage.faults import Fault

__all__ = ["HttpUrl", "check_path", "check_text", "origin", "parse_http", "resolve_location"]

LONGEST_URL: Final = 16 * 1024
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
# What a URL holds when it is percent-encoded already; anything else is encoded before it is sent.
_ENCODED: Final = re.compile(r"(?:[!#$&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True)
class HttpUrl:
    """An http or https URL without user info and fragment, and the header that its user info stands for."""

    url: URL
    authorization: str | None = field(default=None, repr=False)


def check_text(url: str) -> None:
    """Refuse what no URL may hold.

    Raises:
        Fault: It is too long or has control characters.
    """
    if len(url) > LONGEST_URL:
        raise Fault(f"the URL is longer than {LONGEST_URL} characters; shorten it", passing=False)
    if _CONTROL.search(url):
        raise Fault("the URL holds a control character; remove it", passing=False)


def check_path(path: str) -> None:
    """Refuse paths and keys that lead upwards or are not what they seem: servers and disks resolve ``..``.

    Raises:
        Fault: A segment is ``.`` or ``..``, or there is a control character.
    """
    if any(segment in (".", "..") for segment in path.split("/")) or _CONTROL.search(path):
        raise Fault("its path has a `.` or `..` segment or a control character; write it without", passing=False)


def parse_http(text: str) -> HttpUrl:
    """Read an http or https URL as it is to be sent: signed URLs exactly as given, others encoded where they are not.

    Raises:
        Fault: It is no such URL.
    """
    check_text(text)
    check_path(unquote(re.split(r"[?#]", text.partition("://")[2], maxsplit=1)[0]))
    try:
        url = URL(text, encoded=_ENCODED.fullmatch(text) is not None)
        valid = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError as exc:
        raise Fault("it is no valid URL; correct it", passing=False) from exc
    if not valid:
        raise Fault("it is no http:// or https:// URL with a host; correct it", passing=False)
    user, password = url.user, url.password
    url = url.with_fragment(None)
    if user is None and password is None:
        return HttpUrl(url)
    return HttpUrl(url.with_user(None), basic(user or "", password or ""))


def resolve_location(base: URL, location: str) -> URL:
    """Where a redirect leads; user info in it is dropped.

    Raises:
        Fault: It leads to no http or https URL.
    """
    check_text(location)
    try:
        target = base.join(URL(location, encoded=_ENCODED.fullmatch(location) is not None))
        target = target.with_fragment(None)
        valid = target.scheme in ("http", "https") and bool(target.host) and target.port is not None
        return target.with_user(None) if valid and target.user is not None else _checked(target, valid=valid)
    except ValueError as exc:
        raise Fault("the server redirects to something that is no valid URL", passing=False) from exc


def _checked(target: URL, *, valid: bool) -> URL:
    if not valid:
        raise Fault("the server redirects to something that is no http:// or https:// URL", passing=False)
    return target


def origin(url: URL) -> tuple[str, str, int]:
    """What credentials are bound to: scheme, host and port."""
    return url.scheme, (url.host or "").rstrip(".").lower(), url.port or 0
