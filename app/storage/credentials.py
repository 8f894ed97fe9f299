"""Which of a request's credentials is for a URL, and what it adds to an HTTP request.

Used by azure_access, choice, http, urls, app.bridge, app.prepare; may import schemas.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from app.storage.faults import Fault
from schemas.credentials import Auth, BasicAuth, BearerAuth, Credential, HeaderAuth, QueryAuth

__all__ = ["Glob", "HttpAuth", "find_auth", "http_auth"]


class Glob:
    """A pattern over whole URLs: ``**`` any characters but a line's end, ``*`` any but ``/``, ``?`` exactly one.

    Everything else stands for itself; case counts. Matching takes time in proportion to the URL and never backtracks:
    the positions in the pattern that a prefix of the URL can have reached are the bits of one number.
    """

    def __init__(self, pattern: str) -> None:
        self._literal: dict[str, int] = {}
        self._one = self._some = self._all = 0
        bit = 1
        for part in _parts(pattern):
            if part == "**":
                self._all |= bit
            elif part == "*":
                self._some |= bit
            elif part == "?":
                self._one |= bit
            else:
                self._literal[part] = self._literal.get(part, 0) | bit
            bit <<= 1
        self._end = bit

    def matches(self, url: str) -> bool:
        """Whether the whole URL fits."""
        stars = self._some | self._all
        reached = self._skip(1, stars)
        for character in url:
            step = reached & self._literal.get(character, 0)
            stay = 0
            if character not in "\n\r\u2028\u2029":
                step |= reached & self._one
                stay |= reached & self._all
            if character != "/":
                stay |= reached & self._some
            reached = self._skip((step << 1) | stay, stars)
            if not reached:
                return False
        return bool(reached & self._end)

    @staticmethod
    def _skip(reached: int, stars: int) -> int:
        """A star may stand for nothing; no two stars are neighbours, so one step does."""
        return reached | ((reached & stars) << 1)


def _parts(pattern: str) -> list[str]:
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        part = "**" if pattern.startswith("**", at) else pattern[at]
        at += len(part)
        if part in ("*", "**") and parts and parts[-1] in ("*", "**"):
            parts[-1] = "**" if "**" in (part, parts[-1]) else "*"
        else:
            parts.append(part)
    return parts


def find_auth(credentials: Sequence[Credential] | None, url: str) -> Auth | None:
    """The authentication of the first entry whose pattern fits the URL; None if none does."""
    return next((one.auth for one in credentials or () if Glob(one.url_pattern).matches(url)), None)


@dataclass(frozen=True)
class HttpAuth:
    """What an authentication adds to an HTTP request: headers for the first host alone, parameters of the query."""

    headers: dict[str, str] = field(default_factory=dict, repr=False)
    query: dict[str, str] = field(default_factory=dict, repr=False)

    def on(self, url: URL) -> URL:
        """The URL with the parameters set; those of the same names are replaced."""
        return url.update_query(self.query) if self.query else url


# Headers that frame a message or steer its way are not the request's to choose.
_FRAMING: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "if-range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def http_auth(auth: Auth) -> HttpAuth:
    """How an authentication goes over HTTP.

    Raises:
        Fault: Its value cannot stand in a header.
        TypeError: It is one of S3.
    """
    if isinstance(auth, BearerAuth):
        return HttpAuth({"Authorization": _header_value(f"Bearer {auth.token.get_secret_value()}")})
    if isinstance(auth, BasicAuth):
        return HttpAuth({"Authorization": basic(auth.username, auth.password.get_secret_value())})
    if isinstance(auth, HeaderAuth):
        if auth.header_name.lower() in _FRAMING:
            raise Fault(f"the header {auth.header_name} cannot be set by credentials; use another one", passing=False)
        return HttpAuth({auth.header_name: _header_value(auth.header_value.get_secret_value())})
    if isinstance(auth, QueryAuth):
        return HttpAuth(query={auth.query_param: auth.query_value.get_secret_value()})
    raise TypeError(auth.type)


def basic(username: str, password: str) -> str:
    """The value of an Authorization header for a user and a password."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def _header_value(value: str) -> str:
    if not value.isprintable():
        raise Fault("the credentials hold a line break or another control character; remove it", passing=False)
    return value
