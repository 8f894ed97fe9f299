"""Keeps secrets out of what is published and logged: credentials, user info and signed parts of URLs.

Used by all of app; may import schemas.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote

from schemas.credentials import Auth, BasicAuth, BearerAuth, Credential, HeaderAuth, QueryAuth

__all__ = ["MASK", "Scrubber", "auth_secrets", "public_url"]

MASK: Final = "***"
# Longer ones are cut: a sentence or an event is no place for a URL that carries a document.
_LONGEST_URL: Final = 2048
# Shorter values occur by chance everywhere; masking them would destroy texts and hide nothing.
_SHORTEST: Final = 4
# A value that long in a query is taken for a key or a signature whatever its parameter is called.
_LONG_VALUE: Final = 16

# Nobody has so many secrets by accident. Looking for each of them in a whole graph would hold up the worker.
_MOST_EXACT: Final = 2048

_VERBATIM: Final = ("s3", "nats")

# Every repetition is bounded or ends at the next character that cannot belong to it: linear on hostile text.
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,15}://[^\s\"'<>]+")
_SECRET_NAME: Final = re.compile(
    r"sig|token|secret|passw|pwd|key|auth|credential|session|policy|code|jwt", re.IGNORECASE
)
_SHAPES: Final = (
    re.compile(r"(\b(?:bearer|basic)\s{1,4})(?=\S{0,4096}\d)[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE),
    re.compile(r"(\b(?:AccountKey|SharedAccessSignature|sig|X-Amz-Signature|X-Amz-Security-Token)=)[^\s&;\"']+"),
    re.compile(r"(\b)(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|(?:AKIA|ASIA)[A-Z0-9]{16})"),
)


def public_url(url: str) -> str:
    """A URL without what may be secret in it: user info, query and fragment.

    Keys of ``s3://`` and ``nats://`` are verbatim and keep their ``?`` and ``#``. Where an authority is so malformed
    that its parts cannot be told apart nothing of it is shown.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return re.split(r"[?#]", url[:_LONGEST_URL], maxsplit=1)[0]
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    tail = rest[len(authority) :]
    host = authority.rpartition("@")[2]
    port = host.rpartition("]")[2].partition(":")[2]
    if port and not port.isdigit():
        # A password with a slash or question mark in it was cut in two.
        return f"{scheme}://{MASK}"
    path = tail if scheme.lower() in _VERBATIM else re.split(r"[?#]", tail, maxsplit=1)[0]
    shown = f"{scheme}://{host}{path}"
    return shown if len(shown) <= _LONGEST_URL else shown[:_LONGEST_URL] + "…"


def auth_secrets(auth: Auth) -> Iterator[str]:
    """Every value of an authentication that must not be seen, also in the forms in which it travels."""
    if isinstance(auth, BearerAuth):
        yield auth.token.get_secret_value()
    elif isinstance(auth, BasicAuth):
        # Access tokens are often given as the user name.
        if len(auth.username) >= _LONG_VALUE:
            yield auth.username
        password = auth.password.get_secret_value()
        yield password
        yield base64.b64encode(f"{auth.username}:{password}".encode()).decode()
    elif isinstance(auth, HeaderAuth):
        value = auth.header_value.get_secret_value()
        yield value
        # "Token abc": the scheme may be shown, what follows may not, also where it stands alone.
        yield value.rpartition(" ")[2]
    elif isinstance(auth, QueryAuth):
        yield auth.query_value.get_secret_value()
    else:
        yield auth.access_key_id
        yield auth.secret_access_key.get_secret_value()
        if auth.session_token is not None:
            yield auth.session_token.get_secret_value()
        if auth.endpoint is not None:
            yield from _url_secrets(auth.endpoint)


class Scrubber:
    """Masks one request's secrets in texts and JSON: exact values, and what looks like a secret anywhere.

    Exact values are those of its credentials, of ``extra`` (the operator's), and those that ``learn`` found in its
    URLs; they are found also percent-encoded and JSON-escaped. Values under four characters are masked only where they
    are the whole text. In URLs user info goes and every query value is masked. Linear in the length of the text; of a
    request with thousands of secrets neither JSON nor long texts are shown at all.
    """

    def __init__(self, credentials: Sequence[Credential] | None = None, *, extra: Iterable[str] = ()) -> None:
        self._exact: set[str] = set()
        self._found: re.Pattern[str] | None = None
        self._add(value for credential in credentials or () for value in auth_secrets(credential.auth))
        self._add(extra)

    def learn(self, value: Any) -> None:
        """Remember the secrets in all URLs of a JSON value: passwords, signatures, tokens."""
        for text in _strings(value):
            for found in _URL.finditer(text) if "://" in text else ():
                self._add(_url_secrets(found.group()))

    def text(self, text: str) -> str:
        """The text without secrets."""
        if text in self._exact:
            return MASK
        if "://" in text:
            text = _URL.sub(lambda found: _masked_url(found.group()), text)
        text = self._without_exact(text)
        for shape in _SHAPES:
            text = shape.sub(rf"\g<1>{MASK}", text)
        return text

    def json(self, value: Any) -> Any:
        """A JSON value without secrets in its strings and keys; nothing is changed in place."""
        if len(self._exact) > _MOST_EXACT and isinstance(value, str | Mapping | list | tuple):
            return MASK if isinstance(value, str) else {} if isinstance(value, Mapping) else []
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(key): self.json(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(item) for item in value]
        return value

    def _without_exact(self, text: str) -> str:
        if len(self._exact) > _MOST_EXACT:
            if len(text) > _LONGEST_URL:
                return MASK
            for value in sorted(self._exact, key=len, reverse=True):
                text = text.replace(value, MASK) if len(value) >= _SHORTEST else text
            return text
        if self._found is None:
            # The longest first, so that a secret that begins with another leaves no rest.
            values = sorted((value for value in self._exact if len(value) >= _SHORTEST), key=len, reverse=True)
            self._found = re.compile("|".join(map(re.escape, values)) or r"(?!)")
        return self._found.sub(MASK, text)

    def _add(self, values: Iterable[str]) -> None:
        for value in values:
            if value and value not in self._exact:
                self._exact |= {value, quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1]}
                self._exact.add(json.dumps(value, ensure_ascii=False)[1:-1])
                self._found = None


def _masked_url(url: str) -> str:
    shown = public_url(url)
    if url.partition("://")[0].lower() in _VERBATIM:
        return shown
    query = url.partition("#")[0].partition("?")[2]
    names = [part.partition("=")[0] for part in query.split("&") if part]
    return f"{shown}?{'&'.join(f'{name}={MASK}' for name in names)}" if names and "=" in query else shown


def _url_secrets(url: str) -> Iterator[str]:
    authority, _, rest = url.partition("://")[2].partition("/")
    if "@" in authority:
        user, _, password = authority.rpartition("@")[0].partition(":")
        yield from (password, unquote(password))
        if not password or len(user) >= _LONG_VALUE:
            yield from (user, unquote(user))
    query = (authority + "/" + rest).partition("#")[0].partition("?")[2]
    for part in query.split("&"):
        name, _, raw = part.partition("=")
        if raw and (len(raw) >= _LONG_VALUE or _SECRET_NAME.search(name)):
            yield raw
            yield from (value for _, value in parse_qsl(part, keep_blank_values=True))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
